package websocket

import (
	"errors"
	"fmt"
	"iter"
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
)

// ErrQueueFull is what Send returns when the message didn't go into the queue.
var ErrQueueFull = errors.New("websocket: send queue full")

// A sendQueue holds what Send took and the socket hasn't. It exists while that
// is something.
type sendQueue struct {
	messages []*PreparedMessage // from head on
	head     int
	size     int // bytes of them, and of what is being written
	flying   int // bytes that are being written
}

var sendQueues = sync.Pool{New: func() any { return new(sendQueue) }}

// Send queues m and never waits: it is for one message to many, where a slow
// receiver must not delay the others. The queue is bounded by SendQueue, and
// written as fast as the peer takes it, many messages in one call; what was
// queued goes out before a message that is written later, and before the close
// frame of Close. Pings, pongs and the answer to the peer's close don't wait
// for it.
//
// An error means that m won't be sent: it matches net.ErrClosed when the end
// of the connection has begun, and ErrQueueFull otherwise. With CloseSlow a
// full queue is dropped and the connection closed with 1008.
func (c *Conn) Send(m *PreparedMessage) error {
	if err := m.check(); err != nil {
		return err
	}
	n := len(m.frame)
	c.qmu.Lock()
	// Whoever closes changes the state first and then looks into the queue, so
	// that it finds what was taken here.
	if c.connState() != stateOpen {
		c.qmu.Unlock()
		return errClosing
	}
	q := c.queue.Load()
	held := 0
	if q != nil {
		held = q.size
	}
	if n > c.reg.u.sendQueue()-held {
		c.qmu.Unlock()
		return c.queueFull()
	}
	q = c.ownQueue()
	q.messages = append(q.messages, m)
	q.size += n
	c.qmu.Unlock()
	if held == 0 {
		c.reg.drains.add(c)
	}
	return nil
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
		clear(q.messages)
		q.messages, q.head = q.messages[:0], 0
	}
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
	q.size -= q.flying
	q.flying = 0
	waiting := q.messages[q.head:]
	if len(waiting) == 0 {
		q.messages, q.head, q.size = q.messages[:0], 0, 0
		c.queue.Store(nil)
		sendQueues.Put(q)
		return nil
	}
	w := &c.write
	for i, m := range waiting {
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
		q.messages[q.head] = nil
		q.head++
		q.flying += len(m.frame)
		c.sendingFrame(m, frame)
		c.wrote(nil, len(m.payload))
		if alone {
			return frame
		}
	}
	return w.out.pending()
}

// sendNow is Send that writes m at once, as far as the socket takes it, when
// nothing stands before it.
func (c *Conn) sendNow(m *PreparedMessage) error {
	w := &c.write
	if !c.canTry() || c.queue.Load() != nil || !w.mu.TryLock() {
		return c.Send(m)
	}
	if w.err != nil || w.stream != nil || w.out != nil || w.corked.Load() || c.queue.Load() != nil ||
		c.connState() != stateOpen || len(m.frame) > c.reg.u.sendQueue() {
		c.unlockNow()
		return c.Send(m)
	}
	frame := c.frameOf(m)
	if c.trace != nil {
		c.trace.framedWritten(frame)
	}
	c.sendingFrame(m, frame)
	n, err := c.tryWrite(frame)
	c.wrote(err, len(m.payload))
	if err == nil && n < len(frame) {
		c.qmu.Lock()
		q := c.ownQueue()
		q.size += len(m.frame)
		q.flying += len(m.frame)
		c.qmu.Unlock()
		go c.writeOn(frame[n:])
		return nil
	}
	c.wroteOut(err)
	c.unlockNow()
	return err
}

// writeOn writes the rest of a message and the queue behind it, and waits for
// the peer. It has taken over write.mu.
func (c *Conn) writeOn(p []byte) {
	c.wroteOut(c.writeWaiting(p, nil))
	c.drainQueue()
	c.unlockWrite()
}

// drainNow writes the queue as far as the socket takes it at once; a goroutine
// goes on with the rest, and ends with it.
func (c *Conn) drainNow() {
	w := &c.write
	if !c.canTry() || !w.mu.TryLock() {
		go c.drainSlow()
		return
	}
	if w.stream != nil { // between the frames of a message
		c.unlockNow()
		go c.drainSlow()
		return
	}
	for w.err == nil {
		p := c.nextPiece()
		if p == nil {
			break
		}
		n, err := c.tryWrite(p)
		if err == nil && n < len(p) {
			go c.writeOn(p[n:])
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
func (c *Conn) drainQueue() {
	for c.write.err == nil {
		c.writePong()
		p := c.nextPiece()
		if p == nil {
			return
		}
		c.wroteOut(c.writeWaiting(p, nil))
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

// Join adds c, and reports false when it has ended.
func (g *Group) Join(c *Conn) bool {
	c.mu.Lock()
	if x := c.extras(); c.connState() != stateClosed && !slices.Contains(x.groups, leaver(g)) {
		x.groups = append(x.groups, g)
	}
	c.mu.Unlock()
	s := g.shard(c)
	s.mu.Lock()
	if _, in := s.index[c]; !in {
		if s.index == nil {
			s.index = make(map[*Conn]int)
		}
		s.index[c] = len(s.members)
		s.members = append(s.members, c)
		g.size.Add(1)
	}
	s.mu.Unlock()
	if c.connState() == stateClosed { // finish may have looked before
		g.remove(c)
		return false
	}
	return true
}

// Leave removes c, and reports whether it was a member.
func (g *Group) Leave(c *Conn) bool {
	c.mu.Lock()
	if x := c.extra; x != nil {
		x.groups = slices.DeleteFunc(x.groups, func(l leaver) bool { return l == g })
	}
	c.mu.Unlock()
	return g.remove(c)
}

func (g *Group) remove(c *Conn) bool {
	s := g.shard(c)
	s.mu.Lock()
	defer s.mu.Unlock()
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
			s := &g.shards[i]
			s.mu.RLock()
			members := slices.Clone(s.members)
			s.mu.RUnlock()
			for _, c := range members {
				if !yield(c) {
					return
				}
			}
		}
	}
}

const (
	// Broadcasts that follow each other faster leave together.
	broadcastGap = time.Millisecond

	// So many members are worth a goroutine.
	broadcastPart = 256
)

// Broadcast sends m to every member as Send does, and returns how many took
// it. It never waits for one: a message that comes alone is written at once, as
// far as the socket takes it, and what comes within a millisecond of the last
// broadcast is queued, so that a burst leaves in few writes. A goroutine's
// broadcasts reach every member in their order; of two goroutines' it is not
// said which comes first.
func (g *Group) Broadcast(m *PreparedMessage) int {
	if m.check() != nil {
		return 0
	}
	const underWay = 1 << 62
	alone := monotonic()-g.ended.Swap(underWay) > int64(broadcastGap)
	n := 0
	if alone {
		n = g.broadcastNow(m)
	} else {
		for i := range g.shards {
			n += g.shards[i].send(m, (*Conn).Send)
		}
	}
	g.ended.Store(monotonic())
	return n
}

// broadcastNow writes to all members, on as many processors as they are worth.
func (g *Group) broadcastNow(m *PreparedMessage) int {
	var shard, reached atomic.Int64
	work := func() {
		for i := shard.Add(1); i <= groupShards; i = shard.Add(1) {
			reached.Add(int64(g.shards[i-1].send(m, (*Conn).sendNow)))
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

func (s *groupShard) send(m *PreparedMessage, send func(*Conn, *PreparedMessage) error) (n int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, c := range s.members {
		if send(c, m) == nil {
			n++
		}
	}
	return n
}
