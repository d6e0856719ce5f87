package websocket

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rawws/websocket/internal/netloop"
)

// A registry holds the connections of a Server, or of an Upgrader used without
// one, and walks them: keep-alive and timeouts need no timer and no
// goroutine of a connection's own. Its one goroutine exists while there is a
// connection.
type registry struct {
	u      *Upgrader
	events *Events      // what serves them all; nil for another Handler
	now    atomic.Int64 // nanoseconds awake, as of the last tick; 1 at the first
	stat   [countShards]counters
	total  totals

	limits limits
	tick   time.Duration // between two slots
	ticks  atomic.Uint32 // how often the wheel has turned; written under mu

	mu      sync.Mutex
	wheel   [wheelSlots]*Conn // lists; a connection is in the slot of its next visit
	due     *Conn             // the connections whose time has come, while turning
	visited *Conn             // those that are being looked after
	n       int
	turning bool          // the one sweeper, or its predecessor, visits connections
	stop    chan struct{} // closed when the last connection has gone; nil while none is there

	drains drains
	loop   netloop.Loop

	heldMu sync.Mutex
	held   []*Conn // that have held answers back since the last tick

	telling    atomic.Int32 // calls of OnRefuse
	pending    atomic.Int32 // upgrades that will add a connection or settle, and calls of OnRefuse
	standalone bool         // in the table of standalones

	log  lineLog
	done func(*Conn) // called when a connection's last callback has returned
}

const wheelSlots = 128

// A link is a connection's place in a list.
type link struct {
	prev, next *Conn
}

// What Conn.visit is before a visit, during it, and when somebody wants another one
// then.
const (
	visitDue   = math.MaxUint32
	visiting   = math.MaxUint32 - 1
	visitAgain = math.MaxUint32 - 2
)

// listOf returns the list that c is in. mu is held, and for the others below.
func (g *registry) listOf(c *Conn) **Conn {
	switch v := c.visit.Load(); v {
	case visitDue:
		return &g.due
	case visiting, visitAgain:
		return &g.visited
	default:
		return &g.wheel[v%wheelSlots]
	}
}

func (g *registry) link(c *Conn) {
	head := g.listOf(c)
	if c.link = (link{nil, *head}); *head != nil {
		(*head).link.prev = c
	}
	*head = c
}

func (g *registry) unlink(c *Conn) {
	if c.link.prev != nil {
		c.link.prev.link.next = c.link.next
	} else {
		*g.listOf(c) = c.link.next
	}
	if c.link.next != nil {
		c.link.next.link.prev = c.link.prev
	}
	c.link = link{}
}

func appendList(cs []*Conn, head *Conn) []*Conn {
	for c := head; c != nil; c = c.link.next {
		cs = append(cs, c)
	}
	return cs
}

// pong takes a pong's payload; one that nobody asked for is no fault (RFC 6455,
// section 5.5.3).
func (k *clock) pong(p []byte, t *totals) {
	if len(p) != 8 || k.stamp.Load() != stampOf(binary.BigEndian.Uint64(p)) {
		return
	}
	if stamp := int64(binary.BigEndian.Uint64(p)); k.stamp.Swap(0) != 0 {
		rtt := monotonic() - stamp
		if rtt < 0 || rtt > int64(time.Hour) {
			return // made up by the peer
		}
		k.rtt.Store(uint32(time.Duration(rtt) / time.Microsecond))
		t.answered(time.Duration(rtt))
	}
}

var (
	errPongTimeout  = fmt.Errorf("websocket: no pong and no other byte within PongTimeout: %w", os.ErrDeadlineExceeded)
	errWriteTimeout = fmt.Errorf("websocket: the peer took nothing for WriteTimeout: %w", os.ErrDeadlineExceeded)
	errHalfOpen     = fmt.Errorf("websocket: a write failed, and nothing more came from the peer: %w", io.ErrUnexpectedEOF)
	errMaxLifetime  = fmt.Errorf("websocket: open for MaxLifetime: %w", os.ErrDeadlineExceeded)
	errIdle         = fmt.Errorf("websocket: no part of a message for IdleTimeout: %w", os.ErrDeadlineExceeded)
)

// tickOf is the time between two slots: fine enough for the shortest timeout.
func (u *Upgrader) tickOf() time.Duration {
	const parts = 20
	d := parts * 250 * time.Millisecond
	for _, t := range []time.Duration{u.pingInterval(), u.pongTimeout(), u.writeTimeout(), u.closeTimeout(), u.idleTimeout(), u.maxLifetime()} {
		if t > 0 {
			d = min(d, t)
		}
	}
	return max(d/parts, time.Millisecond)
}

// add makes c one of the registry's connections.
func (g *registry) add(c *Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.total.accepted.Add(1)
	if g.now.Load() == 0 {
		g.now.Store(1)
		g.limits, g.tick = g.u.limits(), g.u.tickOf()
	}
	k, now := &c.clock, g.now.Load()
	k.received.Store(instantOf(now))
	c.touchMessage()
	if t := g.u.maxLifetime(); t > 0 {
		c.rare().lifeEnd = now + int64(t-rand.N(t/10+1))
	}
	if g.u.MinRate > 0 {
		c.rare().rate = new(rateMeter)
	}
	k.pingAt = instantOf(now + int64(jitter(g.u.pingInterval())))
	if c.callbacks() != nil {
		k.handling.Store(handlerEvents)
	}
	c.registered = true
	g.insert(c, 1)
	if g.n++; g.n == 1 {
		g.stop = make(chan struct{})
		go g.run(g.stop, g.tick)
	}
}

// stampOf is what is kept of a ping's payload.
func stampOf(payload uint64) uint32 { return max(uint32(payload), 1) }

// insert puts c where the wheel comes in so many ticks. mu is held.
func (g *registry) insert(c *Conn, ticks int64) {
	at := g.ticks.Load() + uint32(min(max(ticks, 1), wheelSlots-1))
	c.visit.Store(at)
	g.link(c)
}

// lookSoon has the sweeper look at the connection as soon as it looks whether
// bytes move: a write has begun to wait, or an end has begun.
func (c *Conn) lookSoon() {
	g := c.reg
	soon := max(int64(g.limits.sample/max(g.tick, 1)), 1)
	if left := c.visit.Load() - g.ticks.Load(); int64(left) <= soon {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !c.registered {
		return
	}
	switch c.visit.Load() {
	case visitDue:
	case visiting, visitAgain:
		c.visit.Store(visitAgain)
	default:
		g.unlink(c)
		g.insert(c, soon)
	}
}

func (g *registry) remove(c *Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !c.registered {
		return
	}
	c.registered = false
	g.unlink(c)
	if g.n--; g.n == 0 {
		close(g.stop)
		g.heldMu.Lock()
		g.held = nil
		g.heldMu.Unlock()
		if g.standalone {
			go g.forget() // its locks go the other way round
		}
	}
}

// settle ends what standalone began: the connection was added, or never will be.
func (g *registry) settle() {
	g.pending.Add(-1)
	if g.standalone {
		g.forget()
	}
}

// count returns the number of connections.
func (g *registry) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.n
}

// panicked notes that a function of the application's panicked, or called
// runtime.Goexit.
func (g *registry) panicked(remote string, cause error, stack []byte) {
	g.total.panics.Add(1)
	g.logFault(logPanic, "websocket: handler failed", "remote", remote, "error", cut(cause.Error(), 1<<10), "stack", string(stack))
}

// conns returns the connections there are.
func (g *registry) conns() []*Conn {
	g.mu.Lock()
	defer g.mu.Unlock()
	cs := make([]*Conn, 0, g.n)
	for i := range g.wheel {
		cs = appendList(cs, g.wheel[i])
	}
	return appendList(appendList(cs, g.due), g.visited)
}

// watchHeld puts c among the connections that hold something back.
func (g *registry) watchHeld(c *Conn) {
	g.heldMu.Lock()
	defer g.heldMu.Unlock()
	g.held = append(g.held, c)
}

// flushHeld flushes, once in a tick, what is held back at that moment: a
// callback of the batch may take long, whichever it is. It costs one that is
// only busy a write more.
func (g *registry) flushHeld() {
	g.heldMu.Lock()
	held := g.held
	g.held = nil
	g.heldMu.Unlock()
	for _, c := range held {
		c.write.clear(watched)
		c.flushHeld()
	}
}

// run turns the wheel. It counts the time that the process was awake: after a
// machine slept, or a virtual one was moved, what the peers sent meanwhile
// still waits to be read, and nobody has been silent for that long.
func (g *registry) run(stop <-chan struct{}, tick time.Duration) {
	t := time.NewTicker(tick)
	defer t.Stop()
	last := time.Now()
	for {
		select {
		case <-stop:
			return
		case <-t.C:
		}
		now := time.Now()
		g.now.Add(int64(min(max(now.Sub(last), 0), 2*tick)))
		last = now
		g.flushHeld()
		g.turn(tick)
		g.loop.Trim()
	}
}

// turn visits the connections whose time has come. Where a net.Conn is the
// application's its methods may block, for whatever they wait for, and nobody else has
// to wait for that.
func (g *registry) turn(tick time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.turning { // by a predecessor, whose connections have all gone
		return
	}
	g.turning = true
	slot := &g.wheel[g.ticks.Add(1)%wheelSlots]
	for c := *slot; c != nil; c = c.link.next {
		c.visit.Store(visitDue)
	}
	g.due, *slot = *slot, nil
	for g.due != nil {
		c := g.due
		g.unlink(c)
		c.visit.Store(visiting)
		g.link(c)
		if foreign(c.nc) {
			go func() {
				defer g.mu.Unlock() // behind runtime.Goexit, too
				g.visit(c, tick)
			}()
			continue
		}
		g.mu.Unlock()
		g.visit(c, tick)
	}
	g.turning = false
}

// visit looks after one connection, and returns with mu held.
func (g *registry) visit(c *Conn, tick time.Duration) {
	var next time.Duration
	defer func() {
		g.mu.Lock()
		if !c.registered {
			return
		}
		g.unlink(c)
		if c.visit.Load() == visitAgain {
			next = 0
		}
		g.insert(c, int64(next/tick)+1)
	}()
	next = c.sweep(g.now.Load())
}

// jitter spreads d by a tenth each way, so that connections which began
// together, after a restart, don't go on together.
func jitter(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return d - d/10 + rand.N(d/5+1)
}

// sweep looks after one connection and returns in what time to look again. It
// never waits: one stuck peer must not cost the others their pings.
func (c *Conn) sweep(now int64) time.Duration {
	for {
		c.observe(now)
		t := c.times(now)
		at, do := t.next(&c.reg.limits)
		// What happened since the last tick has that one's time, which is a little
		// earlier: nobody is cut before the time is over.
		if at >= now {
			return time.Duration(at - now)
		}
		c.perform(do, now, &t)
		if c.connState() == stateClosed {
			return 0
		}
	}
}

// perform does what is due.
func (c *Conn) perform(do duty, now int64, t *times) {
	switch do {
	case dutyPing:
		// A peer that answers none is asked once: that its system takes more pings
		// would look like progress of its own.
		if c.clock.asked == 0 || c.reg.limits.pong <= 0 {
			c.keepAlivePing(now)
		}
		c.clock.pingAt = instantOf(now + int64(jitter(c.reg.u.pingInterval())))
	case dutyCutWriter:
		c.reg.total.writeStalls.Add(1)
		c.discard()
		c.cutUnwaited(&EndError{By: SidePeer, Err: errWriteTimeout})
	case dutyCutSilent:
		c.discard()
		c.cutUnwaited(&EndError{By: SidePeer, Err: errPongTimeout})
	case dutyCutBroken:
		c.cutUnwaited(&EndError{By: SidePeer, Err: errHalfOpen})
	case dutyEndClose:
		c.endClose(now)
	case dutyClosePending:
		c.closePending()
	case dutyCloseOld:
		c.closeSoon(&EndError{By: SideServer, Err: errMaxLifetime, code: CloseGoingAway, reason: "maximum lifetime"})
	case dutyCloseIdle:
		c.closeSoon(&EndError{By: SideServer, Err: errIdle, code: CloseNormal, reason: "idle"})
	case dutyCloseSlow:
		c.closeTooSlow(now, t.slow)
	}
}

// discard makes the system forget what the peer doesn't take.
func (c *Conn) discard() {
	var err error
	defer c.reg.caught(c.nc, &err)
	if nc, ok := innermost(c.nc).(interface{ SetLinger(sec int) error }); ok {
		nc.SetLinger(0)
	}
}

// keepAlivePing sends a ping that says when it left.
func (c *Conn) keepAlivePing(now int64) {
	k := &c.clock
	stamp := monotonic()
	k.stamp.Store(stampOf(uint64(stamp)))
	var p [8]byte
	binary.BigEndian.PutUint64(p[:], uint64(stamp))
	// A byte that came before the ping, in the same tick, answers nothing. One
	// that comes behind it in the same tick does.
	k.received.CompareAndSwap(instantOf(now), instantOf(now)-1)
	if !c.tryControl(opPing, p[:]) {
		return
	}
	c.reg.counters(c).pingsOut.Add(1)
	if k.asked == 0 {
		k.asked = instantOf(now)
	}
}
