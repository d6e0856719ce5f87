package websocket

import (
	"errors"
	"math"
	"runtime"
	"slices"
	"sync"
)

// A SlowPolicy says what Send does with a connection whose queue is full.
type SlowPolicy uint8

const (
	// CloseSlow closes it with 1008: it would miss something, and doesn't know.
	CloseSlow SlowPolicy = iota
	// DropNewest leaves the message out for this connection, and counts that.
	DropNewest
	// DropOldest takes the message, and leaves out as many of those that have
	// waited longest as it needs the room of, and counts them: the newest value
	// always comes.
	DropOldest
)

// ErrQueueFull is what Send returns when the message didn't go into the queue.
var ErrQueueFull = errors.New("websocket: send queue full")

// A sendQueue holds what Send took and the socket hasn't. It exists while that
// is something.
type sendQueue struct {
	messages []queued // from head on
	head     int
	size     int // bytes of them
	flying   int // bytes that are being written
	credit   int // bytes that a message of NextWriter's had taken while these waited for its end

	rest buffer // a frame of which the socket took a part, as writer.out; guarded by write.mu
}

// A queued message may have others behind it that belong to it.
type queued struct {
	m    *PreparedMessage
	more bool // the next one was sent in the same call
}

var sendQueues = sync.Pool{New: func() any { return new(sendQueue) }}

// Send queues messages and never waits: it is for one message to many, where a
// slow receiver must not delay the others. What was queued is written as fast
// as the peer takes it, many messages in one call; it goes out before a message
// that is written later, and before the close frame of Close. Pings, pongs and
// the answer to the peer's close don't wait for it. Messages that are given in
// one call stay together: all of them are sent, or none, and nothing but control
// frames between them.
//
// The queue is bounded by SendQueue, in bytes of backlog: what waits behind the
// message that is being written, and 32 bytes more for each. So a queue that is
// empty takes any one message, and a large one doesn't make a fast receiver slow.
//
// An error means that the messages won't be sent: it matches net.ErrClosed when
// the end of the connection has begun, and ErrQueueFull when there is no room;
// a message that is nil or of a wrong type is another. With CloseSlow a full queue
// is dropped and the connection closed with 1008. nil means that they were queued:
// if the connection ends before they are sent, they are lost.
func (c *Conn) Send(m ...*PreparedMessage) error {
	for _, m := range m {
		if err := m.check(); err != nil {
			return err
		}
	}
	return c.enqueue(m)
}

// enqueue is Send of messages that were checked.
func (c *Conn) enqueue(ms []*PreparedMessage) error {
	n := 0
	for _, m := range ms {
		n += len(m.frame)
	}
	if len(ms) == 0 {
		return nil
	}
	c.qmu.Lock()
	// Whoever closes changes the state first and then looks into the queue, so
	// that it finds what was taken here.
	if c.connState() != stateOpen {
		c.qmu.Unlock()
		return errClosing
	}
	q := c.queue.Load()
	idle := q == nil
	if !idle && !c.makeRoom(q, n, len(ms)) {
		c.qmu.Unlock()
		return c.queueFull(len(ms))
	}
	q = c.ownQueue()
	q.push(ms)
	q.size += n
	c.qmu.Unlock()
	if idle {
		c.reg.drains.add(c)
	}
	return nil
}

// queuedCost is counted for each message that waits, beside its frame: what it
// takes in the queue, and a part of what a PreparedMessage does. Else a backlog of
// empty messages would be many times as large as SendQueue.
const queuedCost = 32

// backlog is what SendQueue bounds. qmu is held.
func (q *sendQueue) backlog() int { return q.size + queuedCost*(len(q.messages)-q.head) }

// makeRoom reports whether the backlog has room for as many messages, of n bytes
// together, and with DropOldest sees to it. qmu is held.
func (c *Conn) makeRoom(q *sendQueue, n, messages int) bool {
	room := c.reg.u.sendQueue()
	if room < math.MaxInt-q.credit { // no overflow
		room += q.credit
	}
	room -= q.backlog()
	n += queuedCost * messages
	if q.head == len(q.messages) || n <= room {
		return true
	}
	if c.reg.u.SlowPolicy != DropOldest {
		return false
	}
	at := q.head
	for at > 0 && at < len(q.messages) && q.messages[at-1].more { // the rest of what is being written
		at++
	}
	first := at
	for at < len(q.messages) && (n > room || q.messages[at-1].more && at > first) {
		size := len(q.messages[at].m.frame)
		q.size -= size
		room += size + queuedCost
		c.reg.counters(c).dropped.Add(1)
		at++
	}
	q.leaveOut(first, at)
	return true
}

// push puts the messages of a call at the end. A queue that is never empty would
// grow for ever with what it has sent, so that goes when it is half of all; but for
// the last one, which says whether more of its call follow. qmu is held.
func (q *sendQueue) push(ms []*PreparedMessage) {
	if sent := q.head - 1; len(q.messages)+len(ms) > cap(q.messages) && sent >= len(q.messages)/2 {
		q.messages = slices.Delete(q.messages, 0, sent)
		q.head -= sent
	}
	for i, m := range ms {
		q.messages = append(q.messages, queued{m, i < len(ms)-1})
	}
}

// leaveOut drops messages [first, at). Those before them, the rest of what is being
// written, move up to those behind: they are few, and a backlog may be long.
func (q *sendQueue) leaveOut(first, at int) {
	if first == at {
		return
	}
	head := at - (first - q.head)
	copy(q.messages[head:at], q.messages[q.head:first])
	clear(q.messages[q.head:head])
	q.messages[head-1].more = head < at
	q.head = head
}

// ownQueue returns c's queue, made when there is none. qmu is held.
func (c *Conn) ownQueue() *sendQueue {
	q := c.queue.Load()
	if q == nil {
		q = sendQueues.Get().(*sendQueue)
		c.queue.Store(q)
	}
	return q
}

// Queued returns how many bytes wait in the queue of Send, the message that is
// being written among them. It is what bufferedAmount is to a browser: a
// producer that looks at it needn't send what would be dropped.
func (c *Conn) Queued() int {
	c.qmu.Lock()
	defer c.qmu.Unlock()
	if q := c.queue.Load(); q != nil {
		return q.size + q.flying
	}
	return 0
}

// creditQueue notes n bytes that the peer took of a message of NextWriter's
// while the queue waited for its end: as much of the queue it would have taken.
func (c *Conn) creditQueue(n int) {
	if c.queue.Load() == nil {
		return
	}
	c.qmu.Lock()
	defer c.qmu.Unlock()
	if q := c.queue.Load(); q != nil {
		q.credit += n
	}
}

var errSlow = &ProtocolError{ClosePolicyViolation, "send queue full: the peer reads too slowly", ""}

// queueFull is for n messages that found no room.
func (c *Conn) queueFull(n int) error {
	c.reg.counters(c).dropped.Add(uint64(n))
	if c.reg.u.SlowPolicy == CloseSlow && c.beginClose(&EndError{By: SideServer, Err: errSlow, code: errSlow.Code, reason: "reading too slowly"}) {
		c.dropQueue()
		go c.closeAndWait()
	}
	return ErrQueueFull
}

// dropQueue forgets what waits. The message that is being written ends whole.
func (c *Conn) dropQueue() {
	c.qmu.Lock()
	defer c.qmu.Unlock()
	if q := c.queue.Load(); q != nil {
		q.reset()
	}
}

// reset empties the queue, but for what is being written. A connection that is closed
// for being slow may stay for a while, and a queue that had many may be in a pool.
func (q *sendQueue) reset() {
	clear(q.messages)
	q.messages, q.head, q.size, q.credit = q.messages[:0], 0, 0, 0
	if cap(q.messages) > keptMessages {
		q.messages = nil
	}
}

// keptMessages bounds the memory of an empty queue, to 16 KiB.
const keptMessages = 1 << 10

// hasQueued reports whether something is to go out before a close frame.
func (c *Conn) hasQueued() bool {
	c.qmu.Lock()
	defer c.qmu.Unlock()
	return c.queue.Load() != nil
}

// nextPiece takes from the queue what is to be written next: messages that
// were moved into w.out, as many as fit, or one that is written from where it
// lies. It returns nil when the queue is empty, or nothing can be sent any more, and
// then there is none. The caller holds write.mu.
func (c *Conn) nextPiece() []byte {
	c.qmu.Lock()
	defer c.qmu.Unlock()
	q := c.queue.Load()
	if q == nil {
		return nil
	}
	q.flying = 0
	if c.write.err != nil {
		q.reset()
	}
	waiting := q.messages[q.head:]
	if len(waiting) == 0 {
		q.reset()
		q.rest.b = nil // not to keep the message
		c.queue.Store(nil)
		sendQueues.Put(q)
		return nil
	}
	w := &c.write
	for i, next := range waiting {
		m := next.m
		frame := c.frameOf(m)
		alone := i == 0 && w.out == nil && (len(waiting) == 1 || len(frame) > batchSize)
		if !alone {
			if w.out == nil {
				w.out = getBuffer(min(max(q.size, batchSize), drainSize))
			}
			if len(w.out.b)-w.out.w < len(frame) {
				break
			}
			w.out.w += copy(w.out.b[w.out.w:], frame)
		}
		if c.trace != nil {
			c.trace.framedWritten(frame)
		}
		q.messages[q.head].m = nil
		q.head++
		q.size -= len(m.frame)
		q.flying += len(m.frame)
		c.sendingFrame(m, frame)
		c.wrote(nil, len(m.payload))
		if alone {
			return frame
		}
	}
	return w.out.pending()
}

// sendNow is enqueue that writes a message at once, as far as the socket takes
// it, when nothing stands before it.
func (c *Conn) sendNow(ms []*PreparedMessage) error {
	w := &c.write
	if !c.canTry() || len(ms) != 1 || c.queue.Load() != nil || !w.mu.TryLock() {
		return c.enqueue(ms)
	}
	if w.err != nil || w.stream != nil || w.has(halfSent) || w.out != nil || w.has(corked) || c.queue.Load() != nil ||
		c.connState() != stateOpen {
		c.unlockNow()
		return c.enqueue(ms)
	}
	m := ms[0]
	frame := c.frameOf(m)
	if c.trace != nil {
		c.trace.framedWritten(frame)
	}
	c.sendingFrame(m, frame)
	n, err := c.tryWrite(frame)
	c.wrote(err, len(m.payload))
	if err == nil && n < len(frame) {
		c.qmu.Lock()
		c.ownQueue().flying += len(m.frame)
		c.qmu.Unlock()
		c.leaveRest(frame[n:])
		return nil
	}
	c.wroteOut(err)
	c.unlockNow()
	return err
}

// writeNow writes p, which is w.out or the next piece, as far as the socket takes
// it at once, and reports whether that was all: else leaveRest has let go of mu.
func (c *Conn) writeNow(p []byte) (whole bool) {
	n, err := c.tryWrite(p)
	if err == nil && n < len(p) {
		c.leaveRest(p[n:])
		return false
	}
	c.wroteOut(err)
	return true
}

// leaveRest leaves what the socket didn't take, the rest of w.out or of a queued
// frame, to the loop, or else to a goroutine that ends with it and with the queue.
// The caller holds write.mu, which is let go.
func (c *Conn) leaveRest(rest []byte) {
	w := &c.write
	if w.out == nil {
		q := c.queue.Load() // it is being written, so there is one
		q.rest = buffer{b: rest, w: len(rest), lent: true}
		w.out = &q.rest
	}
	w.out.r = w.out.w - len(rest)
	if c.sock == nil {
		go func() {
			c.flush(nil, writeQueued)
			c.drainQueue(writeQueued)
			c.unlockWrite()
		}()
		return
	}
	w.set(full)
	c.waitsFrom(writeQueued)
	c.lookSoon()
	c.release()
}

// drainOn goes on, on the loop, with what the socket had no room for. Who holds
// the writer instead does so by itself, or has this called again.
func (c *Conn) drainOn() {
	w := &c.write
	if !w.mu.TryLock() {
		return
	}
	if !w.has(full) {
		c.unlockNow()
		return
	}
	w.clear(full)
	if c.writeNow(w.out.pending()) {
		w.since.Store(0)
		c.drainLocked()
	}
}

// drainNow writes the queue as far as the socket takes it at once.
func (c *Conn) drainNow() {
	w := &c.write
	switch {
	case !c.canTry() || !w.mu.TryLock():
	case w.stream != nil || w.has(halfSent): // between the frames of a message
		c.unlockNow()
	case w.has(full):
		c.release()
		return
	default:
		c.drainLocked()
		return
	}
	go c.drainSlow()
}

// drainLocked is drainNow for who holds write.mu, which is let go.
func (c *Conn) drainLocked() {
	w := &c.write
	for {
		c.holdPong()
		p := c.nextPiece()
		if p == nil && w.err == nil && w.out != nil && !w.has(corked) {
			p = w.out.pending() // the pong
		}
		if p == nil {
			c.unlockNow()
			return
		}
		if !c.writeNow(p) {
			return
		}
	}
}

// drainSlow waits for its turn and for the peer. The application's write deadline is
// none of what Send took.
func (c *Conn) drainSlow() {
	w := &c.write
	w.mu.Lock()
	for w.stream != nil && w.err == nil {
		done := w.stream.done
		c.unlockWrite()
		<-done
		w.mu.Lock()
	}
	if !w.has(halfSent) {
		c.drainQueue(writeQueued)
	}
	c.unlockWrite()
}

// drainQueue writes the queue and waits for the peer. The caller holds write.mu.
func (c *Conn) drainQueue(kind writeKind) {
	if c.write.has(full) {
		c.writeRest()
	}
	for {
		c.writePong()
		p := c.nextPiece()
		if p == nil {
			return
		}
		c.wroteOut(c.writeWaiting(p, nil, kind))
	}
}

// drains are the connections of a registry that have something in their queue.
// A few goroutines, which exist while there are any, write to one socket after
// the other without ever waiting for one: a goroutine for each delivery would
// cost a good part of the system call it makes.
type drains struct {
	mu      sync.Mutex
	waiting []*Conn // from head on; one may be there twice
	head    int
	workers int
}

func (d *drains) add(c *Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.waiting) == cap(d.waiting) && d.head > len(d.waiting)/2 { // under load there is always one
		d.waiting = slices.Delete(d.waiting, 0, d.head)
		d.head = 0
	}
	d.waiting = append(d.waiting, c)
	if d.workers < runtime.GOMAXPROCS(0) {
		d.workers++
		go d.run()
	}
}

func (d *drains) next() *Conn {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.head == len(d.waiting) {
		d.workers--
		d.waiting, d.head = nil, 0
		return nil
	}
	c := d.waiting[d.head]
	d.waiting[d.head] = nil
	d.head++
	return c
}

func (d *drains) run() {
	for c := d.next(); c != nil; c = d.next() {
		c.drainNow()
	}
}
