package websocket

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rawws/websocket/internal/netloop"
)

// Slow is not dead: every timeout measures the time without progress, never
// the time that something takes. Progress is a byte received, or a byte that
// the peer's system took from ours. Linux tells how much it hasn't taken
// (Conn.unsent); elsewhere a write that returned has to do.
//
// There is one place that says when a connection must be looked at again, and
// why: times.next. It is a function of what is known at a moment, so that it
// can be tested as one. The registry's sweeper calls it, and does what it says.

// A duty is what is to be done to a connection when its time has come.
type duty uint8

const (
	dutyLook         duty = iota // nothing yet, but what is known may have changed
	dutyPing                     // send a keep-alive ping
	dutyCutWriter                // a write waits, and the peer takes nothing
	dutyCutSilent                // a ping waits for its answer, or to leave, and nothing moves
	dutyCutBroken                // nothing can be sent any more, and nothing comes
	dutyEndClose                 // the closing handshake makes no progress
	dutyClosePending             // the end that waited for a handler has waited long enough
	dutyCloseOld                 // MaxLifetime
	dutyCloseIdle                // IdleTimeout
	dutyCloseSlow                // MinRate
)

// forever is later than any time.
const forever = int64(math.MaxInt64)

// A clock is what every connection keeps about its time, and a handler's state.
// It is small, since there are many. Its times are instants; what isn't atomic is
// the sweeper's alone. Counts of bytes come around after 4 GiB.
type clock struct {
	received atomic.Uint32 // when a byte came last
	waiting  atomic.Uint32 // since when somebody waits to read; 0 while nobody does
	handling atomic.Uint32 // one of handlerReads, handlerWorks, handlerEvents

	stamp atomic.Uint32 // of the last ping's payload: when it left, monotonic
	rtt   atomic.Uint32 // in microseconds

	pingAt  uint32
	asked   uint32 // when the first ping without an answer was written
	written uint32 // the writer's count when we looked last
	unsent  uint32 // of these bytes, those that the peer's system hadn't taken
	takenAt uint32 // when it was last found to have taken some

	rare atomic.Pointer[rareState] // nil until it is needed
}

// What a handler does.
const (
	handlerReads  = iota // or has never read: the next message finds it ready
	handlerWorks         // a message was read, and nothing since
	handlerEvents        // Events: who doesn't wait for bytes runs a callback
)

// A rareState is what few connections need, most of them only at their end.
// Its times are the registry's.
type rareState struct {
	message atomic.Int64 // when a part of a message came or went last, if there is an IdleTimeout
	failed  atomic.Int64 // since when nothing can be sent any more

	closing   atomic.Int64 // when the closing handshake began
	closeSent atomic.Int64 // when our close frame had been written
	closeBy   atomic.Int64 // when it is over, whatever moves; 0 for no such time

	pending   atomic.Pointer[EndError] // the end that waits until the handler reads on
	pendingBy atomic.Int64             // when it waits no longer; 0 for no such time

	deadline atomic.Pointer[time.Time] // of the application's writes; nil without one
	moved    chan struct{}             // closed when it is set, for those who wait until it passes; nil without them; guarded by mu
	held     atomic.Bool               // nc has it as its own, until the write under way has ended

	finishing sync.Mutex // held while the end is made known to all who ask

	lingerLeft int32 // bytes that are thrown away at most; the reader's

	lifeEnd int64         // the sweeper's alone
	dataEnd atomic.Uint32 // the writer's count when the last message had been written
	rate    *rateMeter    // nil without MinRate
}

// rare returns c's rareState, made at the first use.
func (c *Conn) rare() *rareState {
	for {
		if r := c.clock.rare.Load(); r != nil {
			return r
		}
		c.clock.rare.CompareAndSwap(nil, new(rareState))
	}
}

// An instant is a registry's time in units of about a millisecond that come
// around: what is kept of it is less than 25 days old, see recent, or of no
// interest. 0 is never.
const instantBits = 20

func instantOf(now int64) uint32 { return max(uint32(now>>instantBits), 1) }

// timeOf is the time of an instant, rounded up: nobody is cut too early.
func timeOf(t uint32, now int64) int64 {
	if t == 0 {
		return 0
	}
	return now - int64(int32(instantOf(now)-t)-1)<<instantBits
}

// longAgo is longer than any timeout, in the units of an instant: 13 days.
const longAgo = 1 << 30

// recent is t, or longAgo if it was before that: a connection without pings may be
// quiet until its instants come around, and what was last month would be to come.
func recent(t uint32, now int64) uint32 {
	if n := instantOf(now); t != 0 && int32(n-t) > longAgo {
		return max(n-longAgo, 1)
	}
	return t
}

// keepRecent does the same with an instant that others write.
func keepRecent(at *atomic.Uint32, now int64) {
	if t := at.Load(); recent(t, now) != t {
		at.CompareAndSwap(t, recent(t, now))
	}
}

// times are what is known of a connection at one moment.
type times struct {
	now     int64
	closing bool
	events  bool // nobody but the library reads, so a reader that doesn't wait runs a callback

	received, waiting, message, failed int64

	writing     int64 // since when a write waits that WriteTimeout is about
	outstanding bool  // bytes of ours wait, in a write or in the system
	unsent      bool  // the system is known to hold some
	takenAt     int64

	pingAt, asked, lifeEnd               int64
	closeBegan, closeSent, closeBy, pend int64
	slow                                 *ProtocolError // what MinRate says
}

// limits are an Upgrader's timeouts, 0 for one that is switched off.
type limits struct {
	ping, pong, write, close, idle time.Duration
	rate                           bool // MinRate is set
	sample                         time.Duration
}

// An answer to our close frame may stand behind a message that is under way, so
// what comes counts as progress; but not for longer than this many CloseTimeouts.
const closePatience = 4

// sampleParts is how often, in a timeout, it is looked whether bytes move: what
// moves nothing is cut within the timeout and a quarter of it.
const sampleParts = 8

func (u *Upgrader) limits() limits {
	l := limits{ping: u.pingInterval(), pong: u.pongTimeout(), write: u.writeTimeout(), close: u.closeTimeout(),
		idle: u.idleTimeout(), rate: u.MinRate > 0}
	if l.ping <= 0 {
		l.pong = 0 // nobody was asked
	}
	l.sample = l.close
	for _, t := range []time.Duration{l.pong, l.write, l.idle} {
		if t > 0 {
			l.sample = min(l.sample, t)
		}
	}
	l.sample /= sampleParts
	return l
}

// next returns when the connection has to be looked at again, and what has to
// be done then if nothing changes until then.
func (t *times) next(l *limits) (at int64, do duty) {
	at, do = forever, dutyLook
	by := func(when int64, d duty) {
		if when < at {
			at, do = when, d
		}
	}
	if t.outstanding {
		by(t.now+int64(l.sample), dutyLook)
	}
	if l.rate {
		by(t.now+int64(rateWindow/4), dutyLook)
	}
	if t.closing {
		by(t.closeEnd(l), dutyEndClose)
		if t.slow == errSlowReader && t.closeBy == 0 {
			by(0, dutyEndClose)
		}
		return at, do
	}
	if t.slow != nil {
		by(0, dutyCloseSlow)
	}
	if t.writing != 0 && l.write > 0 {
		by(max(t.writing, t.takenAt)+int64(l.write), dutyCutWriter)
	}
	if t.failed != 0 {
		if t.events && t.waiting == 0 { // messages that had come may wait for a callback's end
			by(t.now+int64(l.close), dutyLook)
		} else {
			by(max(t.failed, t.received, t.waiting)+int64(l.close), dutyCutBroken)
		}
	}
	if t.pend != 0 {
		by(t.pend, dutyClosePending)
	}
	t.nextPing(l, by)
	t.nextAge(l, by)
	return at, do
}

// nextAge is the part of next about a connection that is too old, or of no use.
func (t *times) nextAge(l *limits, by func(int64, duty)) {
	if t.lifeEnd != 0 {
		by(t.lifeEnd, dutyCloseOld)
	}
	if l.idle <= 0 {
		return
	}
	if t.events && t.waiting == 0 { // a callback takes long
		by(t.now+int64(l.idle), dutyLook)
	} else {
		by(t.message+int64(l.idle), dutyCloseIdle)
	}
}

// nextPing is the part of next about the keep-alive.
func (t *times) nextPing(l *limits, by func(int64, duty)) {
	if l.ping <= 0 {
		return
	}
	by(t.pingAt, dutyPing)
	if t.asked == 0 || l.pong <= 0 {
		return
	}
	moved := max(t.asked, t.received, t.takenAt)
	switch {
	case t.unsent: // the ping hasn't left, or not whole
		by(moved+int64(l.pong), dutyCutSilent)
	case t.waiting != 0:
		by(max(moved, t.waiting)+int64(l.pong), dutyCutSilent)
	default: // an answer may lie in the socket, where nobody reads it
		by(t.now+int64(l.pong), dutyLook)
	}
}

// closeEnd is when a closing handshake has made no progress for CloseTimeout.
func (t *times) closeEnd(l *limits) int64 {
	last := max(t.closeBegan, t.takenAt)
	if t.closeSent != 0 && !t.outstanding {
		last = max(last, min(t.received, max(t.closeSent, t.takenAt)+closePatience*int64(l.close)))
	}
	end := last + int64(l.close)
	if t.closeBy != 0 {
		end = min(end, t.closeBy)
	}
	return end
}

// observe looks whether the peer's system has taken bytes since the last time.
func (c *Conn) observe(now int64) {
	k, w := &c.clock, &c.write
	written := w.written.Load()
	if written == k.written && k.unsent == 0 {
		return
	}
	left, known := c.unsent()
	if !known {
		left = 0
	}
	before := k.written - k.unsent
	k.written, k.unsent = written, uint32(left)
	if written-uint32(left) == before {
		return
	}
	k.takenAt = instantOf(now)
	if !known {
		k.takenAt = w.writtenAt.Load()
	}
	if r := k.rare.Load(); r != nil && (int32(before-r.dataEnd.Load()) < 0 || w.underWay() > writeControl) {
		c.touchMessage()
	}
}

// times gathers what is known now.
func (c *Conn) times(now int64) times {
	k := &c.clock
	keepRecent(&k.received, now)
	keepRecent(&k.waiting, now)
	k.takenAt = recent(k.takenAt, now)
	t := times{
		now: now, closing: c.connState() != stateOpen, events: k.handling.Load() == handlerEvents,
		received: timeOf(k.received.Load(), now), waiting: timeOf(k.waiting.Load(), now),
		outstanding: c.write.underWay() != 0 || k.unsent > 0, unsent: k.unsent > 0, takenAt: timeOf(k.takenAt, now),
		pingAt: timeOf(k.pingAt, now), asked: timeOf(k.asked, now),
		slow: c.tooSlow(now),
	}
	if k.asked != 0 && t.received >= t.asked {
		k.asked, t.asked = 0, 0 // that was an answer
	}
	r := k.rare.Load()
	if since, kind := c.write.waitsSince(now); since != 0 && (r == nil || r.deadline.Load() == nil || kind != writeData) {
		t.writing = since
	}
	if r != nil {
		t.message, t.failed, t.lifeEnd, t.pend = r.message.Load(), r.failed.Load(), r.lifeEnd, r.pendingBy.Load()
		t.closeBegan, t.closeSent, t.closeBy = r.closing.Load(), r.closeSent.Load(), r.closeBy.Load()
	}
	return t
}

// pendingEnd returns the end that waits for the handler, or nil.
func (c *Conn) pendingEnd() *EndError {
	if r := c.clock.rare.Load(); r != nil {
		return r.pending.Load()
	}
	return nil
}

// startWait notes that somebody waits for bytes from here on: the peer's
// silence counts. An end that waited for this moment begins.
func (c *Conn) startWait() {
	if c.clock.waiting.Load() == 0 {
		c.clock.waiting.Store(instantOf(c.reg.now.Load()))
	}
	if c.pendingEnd() != nil {
		c.closePending()
	}
}

// stopWait notes that nobody waits any more, unless err says that the loop goes
// on waiting.
func (c *Conn) stopWait(err error) {
	if err != netloop.ErrWait {
		c.clock.waiting.Store(0)
	}
}

// startRead is the beginning of a call that reads a message: what was read
// before is done with.
func (c *Conn) startRead() {
	if c.clock.handling.Load() == handlerWorks {
		c.clock.handling.Store(handlerReads)
	}
	if c.pendingEnd() != nil {
		c.closePending()
	}
}

// endRead is its end: a message was read.
func (c *Conn) endRead() {
	if c.clock.handling.Load() == handlerReads {
		c.clock.handling.Store(handlerWorks)
	}
}

// atWork reports whether the handler is at work on something that came.
func (c *Conn) atWork() bool {
	does := c.clock.handling.Load()
	return does == handlerWorks || does == handlerEvents && !c.awaitsBytes()
}

// awaitsBytes reports whether somebody waits to read.
func (c *Conn) awaitsBytes() bool { return c.clock.waiting.Load() != 0 }

// touchReceived notes n bytes that came.
func (c *Conn) touchReceived(n int) {
	if c.reg.u.MinRate > 0 {
		c.rare().rate.bytes.Add(int64(n))
	}
	touch(&c.clock.received, c.reg.now.Load())
}

// touch stores the time: a store costs more than a look, and the registry's time
// stands still between its ticks.
func touch(at *atomic.Uint32, now int64) {
	if t := instantOf(now); at.Load() != t {
		at.Store(t)
	}
}

// touchMessage notes a part of a message, either way.
func (c *Conn) touchMessage() {
	if c.reg.u.IdleTimeout > 0 {
		c.rare().message.Store(c.reg.now.Load())
	}
}

// rateWindow is the time over which MinRate is measured.
const rateWindow = 30 * time.Second

// A rateMeter measures, where MinRate is set, how fast the message under way
// comes, and how fast what waits to go is taken.
type rateMeter struct {
	bytes atomic.Int64 // received
	begun atomic.Int64 // when the message under way began; 0 between two

	in, out rateSpan // the sweeper's alone
	waits   bool     // a write waited when out began; the same
}

// A rateSpan is a time in which a peer may show what it can.
type rateSpan struct {
	since, bytes int64
	target       int64 // of what comes, the message; of what goes, where the bytes end that waited
}

var (
	errSlowSender = &ProtocolError{ClosePolicyViolation, "a message came with less than MinRate", ""}
	errSlowReader = &ProtocolError{ClosePolicyViolation, "a message was taken with less than MinRate", ""}
)

// tooSlow reports which way the connection has been slower than MinRate for
// half a minute; nil for neither.
func (c *Conn) tooSlow(now int64) *ProtocolError {
	if c.reg.u.MinRate <= 0 {
		return nil
	}
	m, k := c.rare().rate, &c.clock
	least := int64(rateWindow/time.Second) * int64(c.reg.u.MinRate)
	came, begun := m.bytes.Load(), m.begun.Load()
	idle := begun == 0 || begun != m.in.target || !c.awaitsBytes() // between messages, or we are the slow ones
	if !idle && m.in.over(now) && came-m.in.bytes < least {
		return errSlowSender
	}
	if idle || m.in.over(now) {
		m.in = rateSpan{now, came, begun}
	}
	taken, waits := k.written-k.unsent, c.write.underWay() != 0
	// Nothing waited for the peer, or a write begins to: more than the system has.
	idle = int32(taken-uint32(m.out.target)) >= 0 && !(waits && m.waits)
	if !idle && m.out.over(now) && int64(taken-uint32(m.out.bytes)) < least {
		return errSlowReader
	}
	if idle || m.out.over(now) {
		m.out, m.waits = rateSpan{now, int64(taken), int64(k.written)}, waits
	}
	return nil
}

func (s *rateSpan) over(now int64) bool { return now-s.since >= int64(rateWindow) }

// messageBegun and messageEnded note when a message is under way.
func (c *Conn) messageBegun() {
	if c.reg.u.MinRate > 0 {
		c.rare().rate.begun.Store(c.reg.now.Load())
	}
}

func (c *Conn) messageEnded() {
	if c.reg.u.MinRate > 0 {
		c.rare().rate.begun.Store(0)
	}
}

// closeTooSlow ends a connection that is slower than MinRate. One that doesn't
// read may not read the close frame either, and has CloseTimeout for it.
func (c *Conn) closeTooSlow(now int64, e *ProtocolError) {
	reason := "sending too slowly"
	if e == errSlowReader {
		reason = "reading too slowly"
	}
	c.rare().closeBy.Store(now + int64(c.reg.u.closeTimeout()))
	if !c.beginClose(&EndError{By: SideServer, Err: e, code: e.Code, reason: reason}) {
		return
	}
	c.dropQueue()
	if e == errSlowSender {
		go c.closeAndWait()
	} else { // behind the message that it doesn't take there is no use in waiting
		c.tryControl(opClose, appendClosePayload(nil, e.Code, reason))
	}
}
