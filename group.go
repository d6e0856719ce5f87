package websocket

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// A PreparedMessage is a message that was framed once, for any number of
// connections. It doesn't change any more and may be sent by many goroutines.
type PreparedMessage struct {
	t       MessageType
	frame   []byte // as it goes out uncompressed
	payload []byte // in frame

	mu       sync.Mutex
	deflated []deflatedFrame // one for each setting that was met; guarded by mu
}

// NewPreparedMessage frames a copy of p. A type other than the two there are
// is an error when it is sent.
func NewPreparedMessage(t MessageType, p []byte) *PreparedMessage {
	m := &PreparedMessage{t: t}
	frame := make([]byte, 0, maxHeaderLen+len(p))
	frame = appendHeader(frame, header{fin: true, opcode: opcode(t), length: uint64(len(p))})
	n := len(frame)
	m.frame = append(frame, p...)
	m.payload = m.frame[n:]
	return m
}

func (m *PreparedMessage) check() error {
	if m.t != TextMessage && m.t != BinaryMessage {
		return fmt.Errorf("websocket: prepared message of %v", m.t)
	}
	return nil
}

// WritePrepared is WriteMessage of a prepared message.
func (c *Conn) WritePrepared(m *PreparedMessage) error {
	if err := m.check(); err != nil {
		return err
	}
	frame := c.frameOf(m)
	if err := c.lockData(); err != nil {
		return err
	}
	c.sendingFrame(m, frame)
	err := c.writeFramed(frame)
	c.wrote(err, len(m.payload))
	c.unlockWrite()
	return err
}

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
// message that is being written. So a queue that is empty takes any one
// message, and a large one doesn't make a fast receiver slow.
//
// An error means that the messages won't be sent: it matches net.ErrClosed when
// the end of the connection has begun, and ErrQueueFull when there is no room.
// With CloseSlow a full queue is dropped and the connection closed with 1008.
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
	if !idle && !c.makeRoom(q, n) {
		c.qmu.Unlock()
		return c.queueFull()
	}
	q = c.ownQueue()
	for i, m := range ms {
		q.messages = append(q.messages, queued{m, i < len(ms)-1})
	}
	q.size += n
	c.qmu.Unlock()
	if idle {
		c.reg.drains.add(c)
	}
	return nil
}

// makeRoom reports whether the backlog has room for n bytes, and with DropOldest
// sees to it. qmu is held.
func (c *Conn) makeRoom(q *sendQueue, n int) bool {
	limit := c.reg.u.sendQueue()
	if limit < math.MaxInt-q.credit { // no overflow
		limit += q.credit
	}
	if q.size == 0 || n <= limit-q.size {
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
	for at < len(q.messages) && (n > limit-q.size || q.messages[at-1].more && at > first) {
		q.size -= len(q.messages[at].m.frame)
		c.reg.counters(c).dropped.Add(1)
		at++
	}
	q.messages = slices.Delete(q.messages, first, at)
	return true
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

func (c *Conn) queueFull() error {
	c.reg.counters(c).dropped.Add(1)
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

// reset empties the queue, but for what is being written.
func (q *sendQueue) reset() {
	clear(q.messages)
	q.messages, q.head, q.size, q.credit = q.messages[:0], 0, 0, 0
}

// hasQueued reports whether something is to go out before a close frame.
func (c *Conn) hasQueued() bool {
	c.qmu.Lock()
	defer c.qmu.Unlock()
	return c.queue.Load() != nil
}

// nextPiece takes from the queue what is to be written next: messages that
// were moved into w.out, as many as fit, or one that is written from where it
// lies. It returns nil when the queue is empty, and then there is none. The
// caller holds write.mu.
func (c *Conn) nextPiece() []byte {
	c.qmu.Lock()
	defer c.qmu.Unlock()
	q := c.queue.Load()
	if q == nil {
		return nil
	}
	q.flying = 0
	waiting := q.messages[q.head:]
	if len(waiting) == 0 {
		q.reset()
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
	if w.err != nil || w.stream != nil || w.halfSent || w.out != nil || w.full.Load() || w.corked.Load() || c.queue.Load() != nil ||
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
		c.leaveRest(frame, n)
		return nil
	}
	c.wroteOut(err)
	c.unlockNow()
	return err
}

// writeOn writes the rest of a message and the queue behind it, and waits for
// the peer. It has taken over write.mu.
func (c *Conn) writeOn(p []byte) {
	c.wroteOut(c.writeWaiting(p, nil, writeQueued))
	c.drainQueue(writeQueued)
	c.unlockWrite()
}

// leaveRest leaves what comes behind the first n bytes of p, a frame or what is in
// w.out, to the loop, or else to a goroutine that ends with it and with the queue.
// The caller holds write.mu, which is let go.
func (c *Conn) leaveRest(p []byte, n int) {
	w := &c.write
	if c.sock == nil {
		go c.writeOn(p[n:])
		return
	}
	if w.out != nil {
		w.out.r += n
	} else {
		w.rest = p[n:]
	}
	w.full.Store(true)
	w.since.Store(instantOf(c.reg.now.Load())<<2 | uint32(writeQueued))
	c.lookSoon()
	c.unlockFull()
}

// drainOn goes on, on the loop, with what the socket had no room for. Who holds
// the writer instead does so by itself, or has this called again.
func (c *Conn) drainOn() {
	w := &c.write
	if !w.mu.TryLock() {
		return
	}
	if !w.full.Load() {
		c.unlockNow()
		return
	}
	p := c.takeRest()
	n, err := c.tryWrite(p)
	if err == nil && n < len(p) {
		c.leaveRest(p, n)
		return
	}
	w.since.Store(0)
	c.wroteOut(err)
	c.drainLocked()
}

// drainNow writes the queue as far as the socket takes it at once.
func (c *Conn) drainNow() {
	w := &c.write
	if !c.canTry() || !w.mu.TryLock() {
		go c.drainSlow()
		return
	}
	if w.stream != nil || w.halfSent { // between the frames of a message
		c.unlockNow()
		go c.drainSlow()
		return
	}
	if w.full.Load() {
		c.unlockFull()
		return
	}
	c.drainLocked()
}

// drainLocked is drainNow for who holds write.mu, which is let go.
func (c *Conn) drainLocked() {
	w := &c.write
	for w.err == nil {
		p := c.nextPiece()
		if p == nil {
			break
		}
		n, err := c.tryWrite(p)
		if err == nil && n < len(p) {
			c.leaveRest(p, n)
			return
		}
		c.wroteOut(err)
	}
	c.endQueue()
	c.unlockNow()
}

// drainSlow waits for its turn and for the peer.
func (c *Conn) drainSlow() {
	if c.lockData() == nil { // which drains
		c.unlockWrite()
	}
}

// drainQueue writes the queue and waits for the peer. The caller holds write.mu.
func (c *Conn) drainQueue(kind writeKind) {
	for c.write.err == nil {
		if c.write.full.Load() {
			c.writeRest()
			continue
		}
		c.writePong()
		p := c.nextPiece()
		if p == nil {
			return
		}
		c.wroteOut(c.writeWaiting(p, nil, kind))
	}
	c.endQueue()
}

// endQueue drops the queue of a connection that can't send any more.
func (c *Conn) endQueue() {
	if c.write.err != nil {
		c.dropQueue()
		c.nextPiece()
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

const groupShards = 16

// A Group is a set of connections that get the same messages: a room, a topic,
// a channel. A connection that ends leaves by itself, and may be in any number
// of groups. The zero value is an empty group; its methods may be called at
// the same time.
type Group struct {
	shards [groupShards]groupShard
	size   atomic.Int64
	ended  atomic.Int64 // when the last broadcast did, monotonic; far ahead while one is under way
}

// A groupShard is a part of a group's members, so that those who join don't
// wait for a broadcast to the others.
type groupShard struct {
	mu      sync.RWMutex
	members []*Conn
	index   map[*Conn]int
}

// shard is that of c and of its neighbours in memory, so that a broadcast walks
// through memory more or less in order. A Conn doesn't move.
func (g *Group) shard(c *Conn) *groupShard {
	return &g.shards[uintptr(unsafe.Pointer(c))>>16%groupShards]
}

// Join adds c, and reports false when it has ended. The locks are taken in this
// order, here and in Leave, so that both do all of it or nothing at a time.
func (g *Group) Join(c *Conn) bool {
	s := g.shard(c)
	s.mu.Lock()
	defer s.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.connState() == stateClosed {
		return false
	}
	if _, in := s.index[c]; in {
		return true
	}
	x := c.extras()
	x.groups = append(x.groups, g)
	if s.index == nil {
		s.index = make(map[*Conn]int)
	}
	s.index[c] = len(s.members)
	s.members = append(s.members, c)
	g.size.Add(1)
	return true
}

// Leave removes c, and reports whether it was a member.
func (g *Group) Leave(c *Conn) bool {
	s := g.shard(c)
	s.mu.Lock()
	defer s.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if x := c.extra; x != nil {
		x.groups = slices.DeleteFunc(x.groups, func(l leaver) bool { return l == g })
	}
	return g.removeFrom(s, c)
}

// remove forgets a connection that has ended.
func (g *Group) remove(c *Conn) {
	s := g.shard(c)
	s.mu.Lock()
	defer s.mu.Unlock()
	g.removeFrom(s, c)
}

// removeFrom takes c out of its shard, whose lock is held.
func (g *Group) removeFrom(s *groupShard, c *Conn) bool {
	i, in := s.index[c]
	if !in {
		return false
	}
	last := len(s.members) - 1
	s.members[i] = s.members[last]
	s.index[s.members[i]] = i
	s.members[last] = nil
	s.members = s.members[:last]
	delete(s.index, c)
	g.size.Add(-1)
	return true
}

// Len returns the number of members.
func (g *Group) Len() int { return int(g.size.Load()) }

// Members returns an iterator over the members there are at the call. They may
// be left, joined and closed meanwhile.
func (g *Group) Members() iter.Seq[*Conn] {
	return func(yield func(*Conn) bool) {
		for i := range g.shards {
			for _, c := range g.shards[i].clone() {
				if !yield(c) {
					return
				}
			}
		}
	}
}

// clone returns the members there are.
func (s *groupShard) clone() []*Conn {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Clone(s.members)
}

const (
	// Broadcasts that follow each other faster leave together.
	broadcastGap = time.Millisecond

	// So many members are worth a goroutine.
	broadcastPart = 256
)

// Broadcast sends messages to every member as Send does, and returns how many
// took them. It never waits for one: a message that comes alone is written at
// once, as far as the socket takes it, and what comes within a millisecond of
// the last broadcast is queued, so that a burst leaves in few writes. A
// goroutine's broadcasts reach every member in their order; of two goroutines'
// it is not said which comes first.
func (g *Group) Broadcast(m ...*PreparedMessage) int {
	var to [groupShards]audience
	for i := range g.shards {
		to[i].shard = &g.shards[i]
	}
	return g.broadcast(to[:], m)
}

// BroadcastFunc is Broadcast to the members that keep wants, as all but the
// sender. keep is called before the first message is sent, without any lock: it
// may do what it likes with the group and its members.
func (g *Group) BroadcastFunc(keep func(*Conn) bool, m ...*PreparedMessage) int {
	var to [groupShards]audience
	for i := range g.shards {
		members := g.shards[i].clone()
		to[i].members = slices.DeleteFunc(members, func(c *Conn) bool { return !keep(c) })
	}
	return g.broadcast(to[:], m)
}

// An audience is who gets a broadcast: a shard's members, or some of them.
type audience struct {
	shard   *groupShard // nil for members
	members []*Conn
}

func (g *Group) broadcast(to []audience, ms []*PreparedMessage) int {
	for _, m := range ms {
		if m.check() != nil {
			return 0
		}
	}
	const underWay = 1 << 62
	alone := monotonic()-g.ended.Swap(underWay) > int64(broadcastGap)
	n := 0
	if alone {
		n = g.broadcastNow(to, ms)
	} else {
		for i := range to {
			n += to[i].send(ms, (*Conn).enqueue)
		}
	}
	g.ended.Store(monotonic())
	return n
}

// broadcastNow writes to all members, on as many processors as they are worth.
func (g *Group) broadcastNow(to []audience, ms []*PreparedMessage) int {
	var next, reached atomic.Int64
	work := func() {
		for i := next.Add(1); i <= int64(len(to)); i = next.Add(1) {
			reached.Add(int64(to[i-1].send(ms, (*Conn).sendNow)))
		}
	}
	var others sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0)-1, g.Len()/broadcastPart) {
		others.Go(work)
	}
	work()
	others.Wait()
	return int(reached.Load())
}

func (a *audience) send(ms []*PreparedMessage, send func(*Conn, []*PreparedMessage) error) (n int) {
	members := a.members
	if a.shard != nil {
		a.shard.mu.RLock()
		defer a.shard.mu.RUnlock()
		members = a.shard.members
	}
	for _, c := range members {
		if send(c, ms) == nil {
			n++
		}
	}
	return n
}
