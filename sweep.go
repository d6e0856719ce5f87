package websocket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
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

	mu      sync.Mutex
	wheel   [wheelSlots]link // circular lists; a connection is in the slot of its next visit
	at      int              // the slot whose time has come
	due     link             // its connections, while turning
	n       int
	turning bool          // the one sweeper, or its predecessor, visits connections
	stop    chan struct{} // closed when the last connection has gone; nil while none is there

	drains drains
	loop   netloop.Loop

	pending    atomic.Int32 // upgrades that will add a connection or settle
	standalone bool         // in the table of standalones

	log  lineLog
	done func(*Conn) // called when a connection's last callback has returned
}

const wheelSlots = 128

// A link is a connection's place in a list.
type link struct {
	prev, next *link
	c          *Conn // nil for a list's head
}

func (l *link) empty() bool { return l.next == l || l.next == nil }

func (l *link) insert(n *link) {
	if l.next == nil {
		l.prev, l.next = l, l
	}
	n.prev, n.next = l.prev, l
	l.prev.next, l.prev = n, n
}

func (l *link) remove() {
	l.prev.next, l.next.prev = l.next, l.prev
	l.prev, l.next = nil, nil
}

// appendTo appends the connections of the list whose head l is.
func (l *link) appendTo(cs []*Conn) []*Conn {
	for n := l.next; n != nil && n != l; n = n.next {
		cs = append(cs, n.c)
	}
	return cs
}

// A keepAlive is what the sweeper knows of a connection.
type keepAlive struct {
	pingAt int64        // the sweeper's alone
	asked  atomic.Int64 // registry's time of the ping that has no answer yet, or 0
	stamp  atomic.Int64 // that ping's payload: when it left, monotonic
	rtt    atomic.Int64
	endBy  atomic.Int64 // end of MaxLifetime, or in stateClosing of CloseTimeout
	spoke  atomic.Int64 // registry's time of the last part of a message, if there is an IdleTimeout
}

// pong takes a pong's payload; one that nobody asked for is no fault (RFC 6455,
// section 5.5.3).
func (k *keepAlive) pong(p []byte, t *totals) {
	if stamp := k.stamp.Load(); len(p) == 8 && stamp != 0 && binary.BigEndian.Uint64(p) == uint64(stamp) {
		rtt := monotonic() - stamp
		k.rtt.Store(rtt)
		k.stamp.Store(0)
		t.answered(time.Duration(rtt))
	}
}

var (
	errPongTimeout  = fmt.Errorf("websocket: no pong and no other byte within PongTimeout: %w", os.ErrDeadlineExceeded)
	errWriteTimeout = fmt.Errorf("websocket: the peer took longer than WriteTimeout for a write: %w", os.ErrDeadlineExceeded)
	errMaxLifetime  = fmt.Errorf("websocket: open for MaxLifetime: %w", os.ErrDeadlineExceeded)
	errIdle         = fmt.Errorf("websocket: no message for IdleTimeout: %w", os.ErrDeadlineExceeded)
	errNoReader     = errors.New("websocket: nobody read the answer to our close frame")
)

// tick is the time between two slots: fine enough for the shortest timeout.
func (g *registry) tick() time.Duration {
	d := 10 * 250 * time.Millisecond
	for _, t := range []time.Duration{g.u.pingInterval(), g.u.pongTimeout(), g.u.writeTimeout(), g.u.closeTimeout(), g.u.IdleTimeout, g.u.MaxLifetime} {
		if t > 0 {
			d = min(d, t)
		}
	}
	return max(d/10, time.Millisecond)
}

// add makes c one of the registry's connections.
func (g *registry) add(c *Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.total.accepted.Add(1)
	if g.now.Load() == 0 {
		g.now.Store(1)
	}
	c.heard.Store(g.now.Load())
	c.beat.spoke.Store(g.now.Load())
	if t := g.u.MaxLifetime; t > 0 {
		c.beat.endBy.Store(g.now.Load() + int64(t-rand.N(t/10+1)))
	}
	c.beat.pingAt = g.now.Load() + int64(jitter(g.u.pingInterval()))
	c.link.c = c
	g.wheel[(g.at+1)%wheelSlots].insert(&c.link)
	if g.n++; g.n == 1 {
		g.stop = make(chan struct{})
		go g.run(g.stop, g.tick())
	}
}

func (g *registry) remove(c *Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.link.c == nil {
		return
	}
	c.link.c = nil
	if c.link.next != nil {
		c.link.remove()
	}
	if g.n--; g.n == 0 {
		close(g.stop)
		if g.standalone {
			go g.forget() // its locks go the other way round
		}
	}
}

// settle ends what standalone began: the connection was added, or never will be.
func (g *registry) settle() {
	if g.standalone {
		g.pending.Add(-1)
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
	g.log.write(logPanic, "websocket: handler failed", "remote", remote, "error", cut(cause.Error(), 1<<10), "stack", string(stack))
}

// conns returns the connections there are.
func (g *registry) conns() []*Conn {
	g.mu.Lock()
	defer g.mu.Unlock()
	cs := make([]*Conn, 0, g.n)
	for i := range g.wheel {
		cs = g.wheel[i].appendTo(cs)
	}
	return g.due.appendTo(cs)
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
		g.turn(tick)
		g.loop.Trim()
	}
}

// turn visits the connections whose time has come.
func (g *registry) turn(tick time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.turning { // by a predecessor, whose connections have all gone
		return
	}
	g.turning = true
	g.at = (g.at + 1) % wheelSlots
	for head := &g.wheel[g.at]; !head.empty(); {
		l := head.next
		l.remove()
		g.due.insert(l)
	}
	for !g.due.empty() {
		c := g.due.next.c
		g.mu.Unlock()
		next := c.sweep(g.now.Load())
		g.mu.Lock()
		if c.link.c != nil {
			c.link.remove()
			slots := min(max(next/tick, 1), wheelSlots-1)
			g.wheel[(g.at+int(slots))%wheelSlots].insert(&c.link)
		}
	}
	g.turning = false
}

// jitter spreads d by a tenth each way, so that connections which began
// together, after a restart, don't go on together.
func jitter(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return d - d/10 + rand.N(d/5+1)
}

// never is further away than any visit.
const never = time.Duration(1<<62 - 1)

// sweep looks after one connection and returns when to look again. It never
// waits: one stuck peer must not cost the others their pings.
func (c *Conn) sweep(now int64) time.Duration {
	if c.connState() == stateClosing {
		left := time.Duration(c.beat.endBy.Load() - now)
		if left < -time.Second { // the reader had its deadline: there is none
			c.cut(&EndError{By: SideServer, Err: errNoReader})
		}
		return max(left, 0) + time.Second
	}
	next := never
	for _, look := range []func(*Conn, int64) time.Duration{(*Conn).sweepWrite, (*Conn).sweepPing, (*Conn).sweepAge} {
		next = min(next, look(c, now))
		if c.connState() != stateOpen {
			return 0
		}
	}
	return max(next, 0)
}

// sweepWrite cuts a connection whose peer takes nothing.
func (c *Conn) sweepWrite(now int64) time.Duration {
	t := c.reg.u.writeTimeout()
	if t <= 0 {
		return never
	}
	stalled := c.write.stalledFor(now)
	if stalled > t {
		c.reg.total.writeStalls.Add(1)
		if tc, ok := c.nc.(*net.TCPConn); ok {
			tc.SetLinger(0) // what it doesn't read needn't stay in the kernel
		}
		c.cut(&EndError{By: SidePeer, Err: errWriteTimeout})
	}
	if c.write.corked.Load() {
		go c.Flush() // an OnMessage that goes on for long holds nothing back for ever
	}
	return t/4 - stalled
}

// sweepPing sends the keep-alive pings, and cuts a connection whose peer sends
// nothing after one.
func (c *Conn) sweepPing(now int64) time.Duration {
	k := &c.beat
	t, limit := c.reg.u.pingInterval(), c.reg.u.pongTimeout()
	if t <= 0 {
		return never
	}
	next := never
	if asked := k.asked.Load(); asked != 0 && limit > 0 {
		waited := time.Duration(now - asked)
		switch {
		case c.heard.Load() >= asked:
			k.asked.Store(0)
		case waited > limit:
			c.cut(&EndError{By: SidePeer, Err: errPongTimeout})
			return 0
		default:
			next = limit - waited
		}
	}
	if now >= k.pingAt {
		c.keepAlivePing(now)
		k.pingAt = now + int64(jitter(t))
		if limit > 0 {
			next = min(next, limit)
		}
	}
	return min(next, time.Duration(k.pingAt-now))
}

// sweepAge closes a connection that is too old, or whose peer only keeps it.
func (c *Conn) sweepAge(now int64) time.Duration {
	next := never
	if c.reg.u.MaxLifetime > 0 {
		if next = time.Duration(c.beat.endBy.Load() - now); next <= 0 {
			c.closeSoon(&EndError{By: SideServer, Err: errMaxLifetime, code: CloseGoingAway, reason: "maximum lifetime"})
			return 0
		}
	}
	if t := c.reg.u.IdleTimeout; t > 0 {
		left := t - time.Duration(now-c.beat.spoke.Load())
		if left < 0 { // and not 0: the time of the last tick is a little less than the time
			c.closeSoon(&EndError{By: SideServer, Err: errIdle, code: CloseNormal, reason: "idle"})
			return 0
		}
		next = min(next, left)
	}
	return next
}

// keepAlivePing sends a ping that says when it left.
func (c *Conn) keepAlivePing(now int64) {
	k := &c.beat
	stamp := monotonic()
	k.stamp.Store(stamp)
	var p [8]byte
	binary.BigEndian.PutUint64(p[:], uint64(stamp))
	// A byte that came before the ping, in the same tick, answers nothing. One
	// that comes behind it in the same tick does.
	c.heard.CompareAndSwap(now, now-1)
	if !c.tryControl(opPing, p[:]) {
		return
	}
	c.reg.counters(c).pingsOut.Add(1)
	if k.asked.Load() == 0 {
		k.asked.Store(now)
	}
}
