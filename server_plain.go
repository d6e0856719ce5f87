package websocket

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rawws/websocket/internal/httphead"
)

// A plainListener gives net/http the sockets whose request was for it.
type plainListener struct{ s *Server }

func (l plainListener) Accept() (net.Conn, error) {
	select {
	case nc := <-l.s.plainQueue:
		return nc, nil
	case <-l.s.stopped:
		return nil, net.ErrClosed
	}
}

func (l plainListener) Close() error   { return nil }
func (l plainListener) Addr() net.Addr { return plainAddr{} }

type plainAddr struct{}

func (plainAddr) Network() string { return "tcp" }
func (plainAddr) String() string  { return "behind a websocket.Server" }

type tlsKey struct{}

// A tlsConn is a *tls.Conn, or embeds one: net/http takes the state from either.
type tlsConn interface{ ConnectionState() tls.ConnectionState }

// plainKey marks the requests that came to net/http by this Server.
type plainKey struct{ s *Server }

// pages returns what serves plain HTTP, nil for nothing.
func (s *Server) pages() http.Handler {
	if s.HTTP == nil && s.HTTPServer != nil {
		return s.HTTPServer.Handler
	}
	return s.HTTP
}

// isPage reports whether a request is HTTP's: it doesn't ask for a WebSocket, or
// nothing here would serve one.
func (s *Server) isPage(r *http.Request) bool {
	served := s.Handler != nil || s.Upgrader.OnUpgrade != nil
	return s.pages() != nil && !(served && wantsUpgrade(r))
}

// leaveToHTTP hands the socket to net/http with what was read from it. A
// request for a WebSocket that follows on the same socket comes back by
// routePlain.
func (h *handshake) leaveToHTTP() error {
	s := h.s
	if err := s.placeAs(h, forPages, s.socketIP(h)); err != nil {
		return h.end(err, nil)
	}
	if !h.claim() {
		return h.lost()
	}
	if h.sock != nil {
		nc, err := h.sock.Detach()
		if err != nil {
			return h.end(err, nil)
		}
		h.setConn(nc)
	}
	// An empty line before the request, which we let pass, net/http wouldn't.
	head := bytes.Clone(bytes.TrimPrefix(h.in.b[:h.in.w], []byte("\r\n")))
	pc := &plainConn{Conn: h.nc, from: h.from, s: s, head: head, trace: h.trace, writeTimeout: s.plainWriteTimeout()}
	free(&h.in)
	h.trace.plain()
	h.nc.SetDeadline(time.Time{})
	if h.watch != nil {
		h.watch.Stop()
	}
	if h.noKeepAlive {
		h.reg.keepAliveTCP(h.nc)
	}
	if s.enterPlain(h, pc) {
		select {
		case s.plainQueue <- pc:
			return nil
		case <-s.stopped:
		}
	}
	s.reg.closeConn(pc)
	return errShutdown
}

// enterPlain moves h's socket from the handshakes to those of net/http, and reports
// whether net/http may have it: Close has cut those that were there before.
func (s *Server) enterPlain(h *handshake, pc *plainConn) bool {
	h.freeSlot()
	s.mu.Lock()
	defer s.mu.Unlock()
	pc.place, h.place = h.place, place{}
	s.plainConns[pc] = struct{}{}
	delete(s.handshakes, h)
	s.checkIdle()
	s.plainOnce.Do(func() { go s.plain.Serve(plainListener{s}) })
	return !s.closed.Load()
}

// newPlainServer makes the server of plain HTTP, by the application's settings.
func (s *Server) newPlainServer() *http.Server {
	t := s.template()
	return &http.Server{
		Handler:           http.HandlerFunc(s.routePlain),
		ReadHeaderTimeout: cmp.Or(t.ReadHeaderTimeout, t.ReadTimeout, s.bodyTimeout()),
		ReadTimeout:       t.ReadTimeout,
		WriteTimeout:      t.WriteTimeout,
		IdleTimeout:       cmp.Or(t.IdleTimeout, time.Minute),
		MaxHeaderBytes:    cmp.Or(t.MaxHeaderBytes, s.Upgrader.maxHeaderBytes()+httphead.DefaultMaxLine),
		ErrorLog:          cmp.Or(t.ErrorLog, log.New(plainLog{s}, "", 0)),
		ConnState:         t.ConnState,
		BaseContext:       t.BaseContext,
		ConnContext: func(ctx context.Context, nc net.Conn) context.Context {
			ctx = context.WithValue(ctx, plainKey{s}, true)
			if pc, ok := nc.(*plainConn); ok {
				if tc, ok := pc.Conn.(tlsConn); ok { // which net/http can't see
					ctx = context.WithValue(ctx, tlsKey{}, tc)
				}
				nc = pc.Conn
			}
			if t.ConnContext != nil {
				ctx = t.ConnContext(ctx, nc)
			}
			return ctx
		},
		DisableGeneralOptionsHandler: t.DisableGeneralOptionsHandler,
	}
}

var noTemplate http.Server

func (s *Server) template() *http.Server {
	if s.HTTPServer != nil {
		return s.HTTPServer
	}
	return &noTemplate
}

// bodyTimeout is how long a body may bring nothing.
func (s *Server) bodyTimeout() time.Duration {
	return cmp.Or(s.Upgrader.handshakeTimeout(), 10*time.Second)
}

// plainWriteTimeout is how long a piece of an answer may wait; 0 where net/http
// bounds the whole of it, or the application has switched that off.
func (s *Server) plainWriteTimeout() time.Duration {
	if s.template().WriteTimeout != 0 {
		return 0
	}
	return cmp.Or(s.Upgrader.writeTimeout(), 10*time.Second)
}

// routePlain serves what comes over the sockets that net/http has.
func (s *Server) routePlain(w http.ResponseWriter, r *http.Request) {
	if tc, ok := r.Context().Value(tlsKey{}).(tlsConn); ok {
		state := tc.ConnectionState()
		r.TLS = &state
	}
	if !s.isPage(r) {
		s.serve(newHandshakeHTTP(&s.reg, s, w, r))
		return
	}
	if r.ContentLength != 0 && s.template().ReadTimeout == 0 {
		// In a copy: net/http looks at the Body of its own request to see whether
		// so much is unread that it had better answer at once.
		patient := newPatientBody(w, r, s.bodyTimeout())
		r = r.WithContext(r.Context())
		r.Body = patient
	}
	s.servePage(w, r)
}

// servePage lets HTTP serve a request. A panic is net/http's to end, but ours to
// count and to log.
func (s *Server) servePage(w http.ResponseWriter, r *http.Request) {
	if err := checkHost(r, s.Upgrader.AllowedHosts); err != nil {
		newHandshakeHTTP(&s.reg, s, w, r).end(err, nil)
		return
	}
	returned := false
	defer func() {
		if returned {
			return
		}
		cause := errGoexit
		v := recover()
		if v != nil {
			cause = &panicError{v}
		}
		if v != http.ErrAbortHandler { // by which a handler says that it means it
			s.reg.panicked(r.RemoteAddr, cause, debug.Stack())
		}
		if v != nil {
			panic(http.ErrAbortHandler)
		}
	}()
	s.pages().ServeHTTP(w, r)
	returned = true
}

// A patientBody is a request's body that may take as long as it likes, as long
// as something comes: a bound on the whole would cut a slow client, and none
// would let a silent one stay.
type patientBody struct {
	io.ReadCloser
	control *http.ResponseController
	timeout time.Duration
}

func newPatientBody(w http.ResponseWriter, r *http.Request, timeout time.Duration) *patientBody {
	b := &patientBody{r.Body, http.NewResponseController(w), timeout}
	// It holds too when the handler doesn't read: net/http does then.
	b.control.SetReadDeadline(time.Now().Add(timeout))
	return b
}

func (b *patientBody) Read(p []byte) (int, error) {
	b.control.SetReadDeadline(time.Now().Add(b.timeout))
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.control.SetReadDeadline(time.Time{}) // it would end the request's context
	}
	return n, err
}

// keepAliveTCP has the system find dead clients: plain HTTP has no pings.
func (g *registry) keepAliveTCP(nc net.Conn) {
	if tc, ok := g.innermost(nc).(*net.TCPConn); ok {
		tc.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true})
	}
}

// A plainConn is a socket that net/http has. It gives what was read from it once
// more, and bounds the time in which a client takes nothing.
type plainConn struct {
	net.Conn
	from         *net.TCPAddr // as in handshake
	s            *Server
	head         []byte
	trace        *connTrace // until it is upgraded after all
	writeTimeout time.Duration
	deadline     atomic.Bool // the handler has set one for its writes
	place        place       // guarded by Server.mu
}

func (pc *plainConn) Read(p []byte) (int, error) {
	if len(pc.head) > 0 {
		n := copy(p, pc.head)
		pc.head = pc.head[n:]
		return n, nil
	}
	return pc.Conn.Read(p)
}

// plainPiece is what a client has writeTimeout for: a slow one takes a large
// answer in many pieces, and one that takes nothing not even the next.
const plainPiece = 64 << 10

func (pc *plainConn) Write(p []byte) (n int, err error) {
	for {
		if pc.writeTimeout > 0 && !pc.deadline.Load() {
			pc.Conn.SetWriteDeadline(time.Now().Add(pc.writeTimeout))
		}
		m, err := pc.Conn.Write(p[n:min(n+plainPiece, len(p))])
		if n += m; err != nil || n == len(p) {
			return n, err
		}
	}
}

func (pc *plainConn) SetWriteDeadline(t time.Time) error {
	pc.deadline.Store(!t.IsZero())
	return pc.Conn.SetWriteDeadline(t)
}

func (pc *plainConn) SetDeadline(t time.Time) error {
	pc.deadline.Store(!t.IsZero())
	return pc.Conn.SetDeadline(t)
}

// RemoteAddr is what r.RemoteAddr has of it. net/http asks where it catches no panic of
// an application's net.Conn, and so for LocalAddr.
func (pc *plainConn) RemoteAddr() (addr net.Addr) {
	if pc.from != nil {
		return pc.from
	}
	var err error
	defer pc.s.reg.caught(pc.Conn, &err)
	return pc.Conn.RemoteAddr()
}

func (pc *plainConn) LocalAddr() (addr net.Addr) {
	var err error
	defer pc.s.reg.caught(pc.Conn, &err)
	return pc.Conn.LocalAddr()
}

// CloseWrite lets net/http's last answer arrive before a reset can destroy it.
func (pc *plainConn) CloseWrite() error {
	pc.s.reg.closeSending(pc.Conn)
	return nil
}

func (pc *plainConn) Close() (err error) {
	if closingWaits(pc.Conn) { // net/http may hold its lock
		apart(func() { pc.s.reg.closeConn(pc.Conn) })
	} else {
		err = pc.Conn.Close()
	}
	pc.release().closed(nil)
	return err
}

// release gives the place back, and the trace to who goes on with the socket.
func (pc *plainConn) release() *connTrace {
	pc.s.mu.Lock()
	defer pc.s.mu.Unlock()
	pc.s.dropPlace(&pc.place)
	delete(pc.s.plainConns, pc)
	t := pc.trace
	pc.trace = nil
	return t
}

// plainLog brings net/http's lines into ErrorLog.
type plainLog struct{ s *Server }

func (l plainLog) Write(p []byte) (int, error) {
	l.s.reg.logFault(logPlain, "websocket: net/http", "message", cut(strings.TrimSpace(string(p)), 8<<10))
	return len(p), nil
}
