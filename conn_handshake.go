package websocket

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rawws/websocket/internal/httphead"
	"github.com/rawws/websocket/internal/netloop"
)

// A handshakePhase is where a handshake is. It only moves forward. Who moves it
// past phaseDeciding decides what the client is told: the one that serves the
// handshake, or the one that gives it up meanwhile.
type handshakePhase uint8

const (
	phaseReading   handshakePhase = iota // the request isn't whole, or waits for its slot
	phaseDeciding                        // it is held against the rules; the application may be asked
	phaseAnswering                       // the answer is settled, and the server's to send
	phaseEnded                           // there will be no connection
)

// A handshake is the way of one client from accept to the 101, or to an end
// without one. Its methods are the steps of that way. They are called one after
// the other by whoever serves the socket, a goroutine that reads or a loop that
// is told of bytes; none of them waits for bytes of the peer's, and only decide
// waits for the application. giveUp alone comes from outside, at any time.
type handshake struct {
	reg *registry
	s   *Server // nil for an Upgrader that is used without one

	nc       net.Conn            // nil until net/http gives it up
	from     *net.TCPAddr        // the client's address by a header of the PROXY protocol; nil for the socket's
	w        http.ResponseWriter // of net/http; nil for a socket of ours
	remote   string
	trace    *connTrace
	deadline time.Time // when all has to be over; zero for never; written once, under mu

	parser *httphead.Parser // of a request that came in part; nil for one at once
	in     *buffer          // what was read; [r, w) came behind the request
	r      *http.Request

	place place // until it is a connection's, or net/http's; guarded by Server.mu
	conn  *Conn // from its registration on

	sock *netloop.Socket // that the loop serves; nil for another

	// The small fields stand together, which keeps a handshake small: in a crowd of
	// strangers each has one.

	slot atomic.Bool // one of MaxHandshakes is held

	gone        bool // place was given back; guarded by Server.mu
	foreign     bool // nc's methods, or w's, may be the application's
	proxied     bool // the header of the PROXY protocol is still to come
	noKeepAlive bool // TCP's own keep-alive was left off
	ready       bool // Ready runs, and the socket is the loop's
	stays       bool // the loop keeps the socket when Ready returns

	phase  handshakePhase // guarded by mu, as what follows
	mu     sync.Mutex     // never held over a call that waits
	err    error          // why it ended
	timer  *time.Timer
	watch  *time.Timer   // stands for the deadline of an nc that has none; only who serves uses it
	taken  chan struct{} // closed when giveUp no longer uses w
	cancel context.CancelCauseFunc
	detach func() bool // ends the watch on net/http's context
}

// newHandshake begins a handshake on a socket.
func newHandshake(reg *registry, s *Server, nc net.Conn) *handshake {
	h := &handshake{reg: reg, s: s, nc: nc, remote: reg.remoteOf(nc), foreign: foreign(nc)}
	h.proxied = s != nil && s.isProxy(h.remote)
	h.sock, _ = nc.(*netloop.Socket)
	return h
}

// newHandshakeHTTP begins one whose request net/http has read.
func newHandshakeHTTP(reg *registry, s *Server, w http.ResponseWriter, r *http.Request) *handshake {
	return &handshake{reg: reg, s: s, w: w, r: r, remote: r.RemoteAddr, foreign: true}
}

// start starts the clock, which stops with the 101.
func (h *handshake) start() {
	var deadline time.Time
	if t := h.reg.u.handshakeTimeout(); t > 0 {
		deadline = time.Now().Add(t)
	}
	var trace *connTrace
	if h.nc != nil {
		trace = h.reg.u.Trace.accepted(h.nc, h.reg)
	}
	h.mu.Lock()
	h.deadline, h.trace = deadline, trace
	h.mu.Unlock()
	if h.nc == nil || h.sock != nil { // wakeLate looks after those of the loop
		return
	}
	// A net.Conn of the application's may have no deadlines, as a channel of SSH.
	if h.nc.SetDeadline(deadline) != nil && !deadline.IsZero() {
		h.watch = time.AfterFunc(time.Until(deadline), h.cut)
	}
	if h.s != nil && h.s.stopping.Load() { // stop may have set one that is gone now
		h.shorten()
	}
}

// serve takes all the steps, on a goroutine that waits where it must.
func (h *handshake) serve() (*Conn, error) {
	return h.guard(func() (*Conn, error) {
		h.start()
		if h.w == nil {
			return h.read()
		}
		if h.s != nil { // which has admitted a socket of its own before
			if err := h.s.admit(h); err != nil {
				return nil, h.end(err, nil)
			}
		}
		return h.decide()
	})
}

// read waits for the request and answers it.
func (h *handshake) read() (*Conn, error) {
	if err := h.readProxyHeader(); err != nil {
		return nil, h.end(err, nil)
	}
	for {
		n, err := h.nc.Read(h.room())
		whole, err := h.received(n, err, nil)
		if err != nil {
			return nil, h.end(err, nil)
		}
		if whole {
			return h.decide()
		}
	}
}

// room returns where the next bytes go.
func (h *handshake) room() []byte {
	if h.in == nil {
		h.in = getBuffer(smallSize)
	}
	if h.in.w == len(h.in.b) {
		bigger := getBuffer(2 * len(h.in.b))
		bigger.w = copy(bigger.b, h.in.b)
		putBuffer(h.in)
		h.in = bigger
	}
	return h.in.b[h.in.w:]
}

// received takes n bytes more in room, or err, and reports whether the request
// is whole: then decide is next. m is for the request, if it isn't nil.
func (h *handshake) received(n int, err error, m *httphead.Memory) (whole bool, _ error) {
	h.in.w += n
	if n == 0 && err != nil {
		if isTimeout(err) && h.s != nil && h.s.stopping.Load() {
			return false, errGoingDown // stop has cut the request short
		}
		return false, fmt.Errorf("websocket: handshake: %w", streamEnd(err))
	}
	if h.proxied {
		if whole, err := h.takeProxyHeader(); !whole {
			return false, err
		}
	}
	r, head, err := h.parse(h.in.pending(), m)
	if err != nil || head == 0 {
		return false, refusal(err)
	}
	h.in.r = head
	h.trace.request(h.in.b[:head])
	r.RemoteAddr = h.remote
	if tc, ok := h.nc.(tlsConn); ok {
		state := tc.ConnectionState()
		r.TLS = &state
	}
	h.r = r
	return true, nil
}

// parse calls the parser. Most requests come at once: the parser is kept, without m,
// only for one that isn't whole yet.
func (h *handshake) parse(b []byte, m *httphead.Memory) (*http.Request, int, error) {
	p := httphead.Parser{MaxHeader: h.reg.u.MaxHeaderBytes}
	if h.parser != nil {
		p = *h.parser
	}
	p.Memory = m
	r, head, err := p.Parse(b)
	if p.Memory = nil; err == nil && head == 0 {
		if h.parser == nil {
			h.parser = new(httphead.Parser)
		}
		*h.parser = p
	}
	return r, head, err
}

// decide answers the request. A nil Conn without an error is a socket that was
// left to Server.HTTP.
func (h *handshake) decide() (*Conn, error) {
	if h.s != nil && h.w == nil && h.s.isPage(h.r) {
		return nil, h.leaveToHTTP()
	}
	if !h.ask() {
		return nil, h.lost()
	}
	a, err := h.negotiate()
	if !h.claim() {
		return nil, h.lost()
	}
	if err == nil && h.cancel != nil {
		err = context.Cause(h.r.Context()) // the client has left
	}
	if err != nil {
		return nil, h.end(err, a.Header)
	}
	return h.accept(&a)
}

// ask enters phaseDeciding. Where the application has a word in it, its time is
// bounded from here on, by a timer and not by a goroutine, and the request's
// context ends with it. It reports false when the handshake was given up.
func (h *handshake) ask() bool {
	asked := h.asksApplication()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.phase != phaseReading {
		return false
	}
	h.phase = phaseDeciding
	if !asked {
		return true
	}
	parent := h.r.Context()
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(parent))
	h.cancel = cancel
	if parent.Done() != nil { // net/http's ends when the client leaves, but also when the handler returns
		h.detach = context.AfterFunc(parent, func() { cancel(context.Cause(parent)) })
	}
	h.setContext(ctx)
	if !h.deadline.IsZero() {
		h.timer = time.AfterFunc(time.Until(h.deadline), func() { h.giveUp(errTookLong) })
	}
	return true
}

// asksApplication reports whether the application has a word in the answer.
func (h *handshake) asksApplication() bool {
	return h.reg.u.OnUpgrade != nil || h.reg.u.CheckOrigin != nil || h.s != nil && h.s.ClientIP != nil
}

// showsRequest reports whether the application may see the request, and keep it.
func (h *handshake) showsRequest() bool {
	e := h.reg.events
	return h.asksApplication() || e == nil || e.OnOpen != nil || h.reg.u.OnRefuse != nil || h.s.pages() != nil
}

// errTookLong refuses a client because the application took too long.
var errTookLong = refuse(http.StatusServiceUnavailable, "the server took longer than HandshakeTimeout to decide")

// stoppingTime is what a client has for the rest of its request, or the application to
// decide, when the server goes down.
const stoppingTime = time.Second

// shorten leaves the handshake no more than that.
func (h *handshake) shorten() {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.phase == phaseDeciding && h.cancel != nil: // else it won't take long
		time.AfterFunc(stoppingTime, func() { h.giveUp(errGoingDown) })
	case h.phase == phaseReading && h.nc != nil:
		if h.reg.setDeadline(h.nc, net.Conn.SetReadDeadline, time.Now().Add(stoppingTime)) != nil {
			time.AfterFunc(stoppingTime, h.cut)
		}
	}
}

// negotiate holds the request against the server's limits and the policy.
func (h *handshake) negotiate() (a answer, err error) {
	if h.w != nil { // the parser holds it for a socket of ours
		if err := httphead.CheckSize(h.r, h.reg.u.MaxHeaderBytes); err != nil {
			return a, refusal(err)
		}
	}
	if h.s != nil {
		if err := h.s.identify(h); err != nil {
			return a, err
		}
	}
	a, err = h.reg.u.negotiate(h.r)
	if h.s == nil {
		a.Handler = nil // the caller serves
	} else if err == nil && h.s.Handler == nil && a.Handler == nil {
		err = errNoHandler
	}
	return a, err
}

// claim is called by who serves the handshake: from here on nobody can give it up.
// It reports false when somebody has.
func (h *handshake) claim() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.phase == phaseEnded {
		return false
	}
	h.phase = phaseAnswering
	if h.timer != nil {
		h.timer.Stop()
	}
	if h.detach != nil {
		h.detach()
	}
	return true
}

// accept makes the connection and answers with 101. The connection is counted
// and found before the answer leaves, so that a client that has read it finds
// itself in Stats; and locked until then, so that nothing overtakes it.
func (h *handshake) accept(a *answer) (*Conn, error) {
	callbacks := h.reg.events
	if a.Handler != nil {
		callbacks = asEvents(a.Handler)
	}
	nc, err := h.adopt(callbacks)
	if err != nil {
		return nil, h.end(err, nil)
	}
	c := newConn(nc, h.reg, h.trace)
	if a.Handler != nil || h.from != nil {
		c.own, c.details().own = a.Handler != nil, &particulars{a.Handler, callbacks, h.from}
	}
	h.setConn(c.nc)
	if c.sock == nil {
		c.nc.SetReadDeadline(time.Time{})
	}
	a.settle(c)
	if h.in != nil {
		c.begin(h.in)
		h.in = nil
	}
	h.bind(c)
	if err := h.answer(c, a); err != nil {
		err = h.end(err, nil)
		if !h.ready { // the loop may serve its socket already
			c.unserved()
		}
		return nil, err
	}
	if h.watch != nil {
		h.watch.Stop()
	}
	h.freeSlot()
	return c, nil
}

// bind gives the request the context of the connection, with the values that its
// own has: net/http's ends when its handler returns, which isn't when the
// connection does.
func (h *handshake) bind(c *Conn) {
	if h.cancel != nil { // the application has seen it already
		c.details().ctx, c.details().cancel = h.r.Context(), h.cancel
		return
	}
	if h.w != nil {
		c.details().ctx = context.WithoutCancel(h.r.Context())
	}
	if h.w != nil || h.showsRequest() { // else a worker's memory would keep c for it
		h.setContext(connContext{c})
	}
}

// setContext gives the request its context. One that our parser has made is nobody
// else's yet, and needs no copy.
func (h *handshake) setContext(ctx context.Context) {
	if h.w != nil {
		h.r = h.r.WithContext(ctx)
	} else {
		*h.r = *h.r.WithContext(ctx)
	}
}

// answer registers c and writes the 101.
func (h *handshake) answer(c *Conn, a *answer) error {
	c.write.mu.Lock()
	defer c.unlockWrite()
	out := getBuffer(smallSize)
	defer putBuffer(out)
	head := appendSwitching(out.b[:0], a.key, a.Subprotocol, a.extensions, a.Header)
	if c.sock != nil && !h.ready { // that was net/http's
		if err := c.sock.Serve((*loopConn)(c)); err != nil {
			return err
		}
	}
	c.mu.Lock() // in the trace, too, nothing comes before
	err := h.register(c)
	if err == nil {
		h.trace.switching(a.key, head)
		h.trace.state(stateOpen)
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	err = h.reg.writeAnswer(c.nc, head, h.deadline)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.connState() == stateOpen { // else the end has a deadline of its own
		c.nc.SetWriteDeadline(time.Time{})
	}
	if err != nil {
		err = fmt.Errorf("websocket: handshake: %w", err)
	}
	return err
}

// setConn changes what cut closes.
func (h *handshake) setConn(nc net.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.nc = nc
}

// end ends the handshake without a connection, because of err, which it
// returns: a *HandshakeError is answered, with extra in its header. When the
// handshake was given up before, that error is returned.
func (h *handshake) end(err error, extra http.Header) error {
	if !h.claim() {
		return h.lost()
	}
	h.mu.Lock()
	if h.nc != nil {
		h.nc, err = plainUnderTLS(h.nc, err)
	}
	h.phase, h.err = phaseEnded, err
	h.mu.Unlock()
	free(&h.in)
	h.conclude(err, extra, false)
	if h.watch != nil {
		h.watch.Stop()
	}
	return err
}

// conclude counts the end, gives back what the handshake held, answers, and
// closes. The peer may take its time with that, but it holds nothing meanwhile.
// outside says that giveUp calls it, and not who serves the handshake.
func (h *handshake) conclude(err error, extra http.Header, outside bool) {
	if h.cancel != nil {
		h.cancel(err)
	}
	var r *http.Request
	if !outside || h.w != nil || h.cancel != nil { // else it may be read just now
		r = h.r
	}
	defer h.reg.tellRefusal(r, h.remote, err) // when it was answered
	if h.s != nil {
		h.reg.guard(nobody{}, func() { h.s.note(h.remote, err) }) // which looks into an error of the application's
		h.s.giveBack(h)
		defer func() {
			if outside || !h.stays { // else the lingerer does, when it closes the socket
				h.s.forget(h)
			}
		}()
	}
	switch {
	case h.nc == nil && outside: // who serves it answers, in lost
	case h.nc == nil:
		h.refuseHTTP(r, err, extra)
	case h.conn != nil: // an answer behind half a 101 would be one more lie
		h.conn.finish(&EndError{By: SidePeer, Err: err})
		h.reg.total.unaccept(h.conn.end) // which is final
		if h.s != nil {
			h.s.leave(h.conn)
		}
	default:
		h.hangUp(r, err, extra, !outside && h.ready)
	}
}

// giveUp ends a handshake from outside, unless its answer is settled: a
// *HandshakeError is answered where there is a request, anything else cuts the
// socket. What the application decides afterwards is thrown away.
func (h *handshake) giveUp(err error) (given bool) {
	h.mu.Lock()
	if h.phase >= phaseAnswering {
		h.mu.Unlock()
		return false
	}
	h.phase, h.err = phaseEnded, err
	if h.nc == nil {
		h.taken = make(chan struct{})
	}
	h.mu.Unlock()
	defer h.conclude(err, nil, true) // behind runtime.Goexit, too
	if h.taken != nil {
		defer close(h.taken)
		h.reg.guard(nobody{}, func() { h.takeOver() }) // Hijack may be the application's
	}
	if h.nc != nil {
		h.reg.setDeadline(h.nc, net.Conn.SetDeadline, time.Now().Add(refusalTime))
	}
	return true
}

// cut closes the socket, whatever the handshake does with it.
func (h *handshake) cut() {
	h.mu.Lock()
	nc := h.nc
	h.mu.Unlock()
	if nc != nil {
		h.reg.cutConn(nc)
	}
}

// closingWaits reports whether cut may wait. It doesn't ask for mu where a method of the
// application's that blocks may hold it.
func (h *handshake) closingWaits() bool {
	if h.foreign {
		return true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.nc != nil && closingWaits(h.nc)
}

// refusalTime is what a client has to take an answer for which it waited too
// long, or one that is due before its TLS handshake.
const refusalTime = 2 * time.Second

// lost is what is left to do for who serves a handshake that was given up. It returns
// why it was.
func (h *handshake) lost() error {
	if h.taken == nil {
		free(&h.in)
	} else if <-h.taken; h.nc == nil {
		h.refuseHTTP(h.r, h.err, nil)
	}
	h.trace.closed(h.err) // does nothing when it was called before
	return h.err
}

// guard runs a step in which the application's functions are called, those of a
// net.Conn of its own among them. One that panics or calls runtime.Goexit costs
// this handshake.
func (h *handshake) guard(step func() (*Conn, error)) (c *Conn, err error) {
	if !h.reg.guard(h, func() { c, err = step() }) {
		return nil, h.err
	}
	return c, err
}

func (h *handshake) remoteAddr() string { return h.remote }

// fail ends the handshake: the client gets 500 once there is a request to answer.
func (h *handshake) fail(cause error) {
	if h.r != nil {
		cause = fmt.Errorf("%w (%w)", cause, errPanicked)
	}
	h.end(cause, nil)
}
