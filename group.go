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

// NewPreparedMessage frames a copy of p. With a type other than the two there are
// nothing is sent later: Send and WritePrepared return an error, and Broadcast 0.
// So they do for a nil *PreparedMessage.
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
	if m == nil {
		return errors.New("websocket: nil prepared message")
	}
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

const groupShards = 16

// A Group is a set of connections that get the same messages: a room, a topic,
// a channel. A connection that ends leaves by itself, and may be in any number
// of groups. The zero value is an empty group; its methods may be called by any
// number of goroutines. It must not be copied.
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

// Join adds c, and reports whether it is a member then: one that has ended is
// none.
func (g *Group) Join(c *Conn) bool {
	// The locks are taken in this order, here and in Leave, so that both do all of
	// it or nothing at a time.
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
	x := c.details()
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
	if x := c.detail; x != nil {
		x.groups = slices.DeleteFunc(x.groups, func(member *Group) bool { return member == g })
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

// Members returns an iterator over the members. Meanwhile any of them may join,
// leave and be closed: who does so may be among them or not.
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
// took them, into their queue or at once into the socket. It never waits for
// one: a message that comes alone is written at once, as far as the socket takes
// it, and what comes within a millisecond of the last broadcast is queued, so
// that a burst leaves in few writes. A goroutine's broadcasts reach every member
// in their order; of two goroutines' it is not said which comes first.
func (g *Group) Broadcast(m ...*PreparedMessage) int {
	var to [groupShards]audience
	for i := range g.shards {
		to[i].shard = &g.shards[i]
	}
	return g.broadcast(to[:], m)
}

// BroadcastFunc is Broadcast to the members that keep wants, as all but the
// sender. keep is called for each member before the first message is sent, without
// any lock: it may do what it likes with the group and its members.
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
