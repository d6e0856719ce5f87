package websocket

import (
	"context"
	"crypto/tls"
	"errors"
	"iter"
	"log"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Server listens, accepts and serves connections. Its fields must not be
// changed once it serves; the zero value with a Handler works.
type Server struct {
	// Addr is where ListenAndServe listens, as "host:port"; ":http" or
	// ":https" when it is empty.
	Addr string
	// Handler serves each connection: an Events, or a HandlerFunc.
	Handler Handler
	// Upgrader is the policy of the connections.
	Upgrader Upgrader
	// TLSConfig is used by ListenAndServeTLS and ServeTLS. TLS 1.2 is the least
	// that is spoken, and only http/1.1 is offered by ALPN.
	TLSConfig *tls.Config
	// HTTP serves the requests that don't ask for a WebSocket, on the same
	// port, by net/http. When it is nil they are answered with 426.
	HTTP http.Handler
	// MaxConns limits the connections, those in their handshake included; 0
	// means no limit. Over it: 503.
	MaxConns int
	// ErrorLog gets what no caller hears of; slog.Default() when it is nil.
	ErrorLog *slog.Logger

	once sync.Once
	reg  registry

	mu        sync.Mutex // guards what follows
	listeners map[net.Listener]struct{}
	shaking   map[net.Conn]struct{} // in their handshake
	plain     *http.Server
	plainConn chan net.Conn
	active    int           // connections whose handler hasn't returned
	idle      chan struct{} // closed when active is 0 while shutting down
	stopping  atomic.Bool   // written under mu
}

// ListenAndServe listens on addr and serves connections by h.
func ListenAndServe(addr string, h Handler) error {
	s := &Server{Addr: addr, Handler: h}
	return s.ListenAndServe()
}

// ListenAndServe listens on Addr and serves until Shutdown or Close; then it
// returns ErrServerClosed at once, while Shutdown still waits.
func (s *Server) ListenAndServe() error {
	addr := s.Addr
	if addr == "" {
		addr = ":http"
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	return s.Serve(ln)
}

// ListenAndServeTLS is ListenAndServe over TLS. The files, in PEM, may be ""
// when TLSConfig has a certificate.
func (s *Server) ListenAndServeTLS(certFile, keyFile string) error {
	addr := s.Addr
	if addr == "" {
		addr = ":https"
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	return s.ServeTLS(ln, certFile, keyFile)
}

// ServeTLS is Serve over TLS.
func (s *Server) ServeTLS(ln net.Listener, certFile, keyFile string) error {
	config := s.TLSConfig.Clone()
	if config == nil {
		config = new(tls.Config)
	}
	config.NextProtos = []string{"http/1.1"} // WebSockets over HTTP/2 are another protocol, RFC 8441
	config.MinVersion = max(config.MinVersion, tls.VersionTLS12)
	if certFile != "" || keyFile != "" {
		cert, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			ln.Close()
			return err
		}
		config.Certificates = append(config.Certificates[:len(config.Certificates):len(config.Certificates)], cert)
	}
	return s.Serve(tls.NewListener(ln, config))
}

// init makes what connections share, once.
func (s *Server) init() {
	s.once.Do(func() {
		s.reg.u = &s.Upgrader
		s.reg.log.to = s.ErrorLog
		s.reg.done = s.release
		switch h := s.Handler.(type) {
		case Events:
			s.reg.events = &h
		case *Events:
			s.reg.events = h
		}
	})
}

// Serve accepts connections from ln and serves each on a goroutine, until
// Shutdown or Close; then it returns ErrServerClosed. It closes ln. When Accept
// fails because descriptors ran out it tries again, after 5 ms at first and 1 s
// at most.
func (s *Server) Serve(ln net.Listener) error {
	s.init()
	defer ln.Close()
	if !s.track(ln) {
		return ErrServerClosed
	}
	defer s.untrack(ln)
	var wait time.Duration
	for {
		nc, err := ln.Accept()
		if s.stopping.Load() {
			if err == nil {
				nc.Close()
			}
			return ErrServerClosed
		}
		if err == nil {
			wait = 0
			go s.serve(nc)
			continue
		}
		if !temporary(err) {
			return err
		}
		wait = min(max(2*wait, 5*time.Millisecond), time.Second)
		s.reg.log.write(logAccept, "websocket: accept failed, trying again", "error", err, "after", wait)
		time.Sleep(wait)
	}
}

// temporary reports whether Accept may succeed later: descriptors or memory
// ran out, or the peer was gone already.
func temporary(err error) bool {
	var ne interface{ Temporary() bool }
	return errors.As(err, &ne) && ne.Temporary()
}

func (s *Server) track(ln net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping.Load() {
		return false
	}
	if s.listeners == nil {
		s.listeners = make(map[net.Listener]struct{})
	}
	s.listeners[ln] = struct{}{}
	return true
}

func (s *Server) untrack(ln net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, ln)
}

// acquire counts a connection in, unless there are too many or the server goes
// down.
func (s *Server) acquire(nc net.Conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping.Load() {
		return refuse(http.StatusServiceUnavailable, "the server is going down")
	}
	if s.MaxConns > 0 && s.active >= s.MaxConns {
		return refuse(http.StatusServiceUnavailable, "too many connections")
	}
	s.active++
	if nc != nil {
		if s.shaking == nil {
			s.shaking = make(map[net.Conn]struct{})
		}
		s.shaking[nc] = struct{}{}
	}
	return nil
}

// shaken ends the handshake of nc.
func (s *Server) shaken(nc net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.shaking, nc)
}

// release counts a connection out.
func (s *Server) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active--; s.active == 0 && s.idle != nil {
		close(s.idle)
		s.idle = nil
	}
}

// serve is the life of an accepted socket.
func (s *Server) serve(nc net.Conn) {
	if err := s.acquire(nc); err != nil {
		refuseConn(nc, err, nil)
		return
	}
	c, r := s.handshake(nc)
	s.shaken(nc)
	if c == nil {
		s.release()
		return
	}
	s.run(c, r)
}

// handshake reads and answers the request. Without a connection there is
// nothing more to do.
func (s *Server) handshake(nc net.Conn) (*Conn, *http.Request) {
	in, r, err := s.Upgrader.readRequest(nc)
	if err != nil {
		return nil, nil
	}
	if s.HTTP != nil && !wantsUpgrade(r) {
		s.servePlain(&replayConn{nc, append(requestHead(in), in.pending()...)})
		putBuffer(in)
		return nil, nil
	}
	c, err := s.Upgrader.accept(nc, r, in, &s.reg)
	if err != nil {
		var refused *HandshakeError
		if !errors.As(err, &refused) || refused.Status >= 500 {
			s.reg.log.write(logHandshake, "websocket: handshake failed", "remote", nc.RemoteAddr().String(), "error", err)
		}
		return nil, nil
	}
	return c, r
}

// requestHead returns a copy of the request that was read from in.
func requestHead(in *buffer) []byte { return append([]byte(nil), in.b[:in.r]...) }

// run serves c by the handler, and counts it out when that has returned. Events
// get a goroutine that never ran a handshake: its stack is small.
func (s *Server) run(c *Conn, r *http.Request) {
	if s.stopping.Load() { // Shutdown may have missed it
		go c.Close(CloseGoingAway, "")
	}
	if s.reg.events != nil {
		c.ev = s.reg.events
		c.start(r, func(c *Conn) { go c.loop() })
		return
	}
	defer s.release()
	defer func() {
		if v := recover(); v != nil {
			s.reg.panicked(c, v, debug.Stack())
			c.fail(&panicError{v})
		}
	}()
	if s.Handler != nil {
		s.Handler.ServeWebSocket(c, r)
	}
	code := CloseNormal
	if s.stopping.Load() {
		code = CloseGoingAway
	}
	c.Close(code, "")
}

// ServeHTTP upgrades the request and serves the connection by Handler, so that
// a Server can be mounted on a mux. Under Events it returns when the connection
// is open, and net/http's goroutine and buffers are free; net/http's Shutdown
// doesn't know of the connection either way: register this Server's by
// RegisterOnShutdown.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.init()
	if err := s.acquire(nil); err != nil {
		refuseHTTP(w, r, err, nil)
		return
	}
	c, err := s.Upgrader.upgradeHTTP(w, r, &s.reg)
	if err != nil {
		s.release()
		return
	}
	s.run(c, r)
}

// A chanListener gives net/http the sockets whose request was for it.
type chanListener struct {
	conns chan net.Conn
	done  <-chan struct{}
}

func (l chanListener) Accept() (net.Conn, error) {
	select {
	case nc := <-l.conns:
		return nc, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l chanListener) Close() error   { return nil }
func (l chanListener) Addr() net.Addr { return plainAddr{} }

type plainAddr struct{}

func (plainAddr) Network() string { return "tcp" }
func (plainAddr) String() string  { return "behind a websocket.Server" }

type tlsKey struct{}

// servePlain hands a socket to net/http with what was read from it. A request
// for a WebSocket that follows on the same socket comes back by ServeHTTP.
func (s *Server) servePlain(rc *replayConn) {
	s.mu.Lock()
	if s.stopping.Load() {
		s.mu.Unlock()
		rc.Close()
		return
	}
	if s.plain == nil {
		ctx, cancel := context.WithCancel(context.Background())
		s.plainConn = make(chan net.Conn)
		s.plain = &http.Server{
			Handler:           http.HandlerFunc(s.routePlain),
			ReadHeaderTimeout: s.Upgrader.handshakeTimeout(),
			IdleTimeout:       2 * time.Minute,
			ErrorLog:          log.New(plainLog{s}, "", 0),
			ConnContext:       withTLS,
		}
		s.plain.RegisterOnShutdown(cancel)
		go s.plain.Serve(chanListener{s.plainConn, ctx.Done()})
	}
	conns := s.plainConn
	s.mu.Unlock()
	rc.SetDeadline(time.Time{})
	t := time.NewTimer(time.Second)
	defer t.Stop()
	select {
	case conns <- rc:
	case <-t.C: // net/http has stopped accepting
		rc.Close()
	}
}

// withTLS keeps what net/http can't see through a replayConn.
func withTLS(ctx context.Context, nc net.Conn) context.Context {
	if rc, ok := nc.(*replayConn); ok {
		if tc, ok := rc.Conn.(*tls.Conn); ok {
			return context.WithValue(ctx, tlsKey{}, tc)
		}
	}
	return ctx
}

func (s *Server) routePlain(w http.ResponseWriter, r *http.Request) {
	if tc, ok := r.Context().Value(tlsKey{}).(*tls.Conn); ok {
		state := tc.ConnectionState()
		r.TLS = &state
	}
	if wantsUpgrade(r) {
		s.ServeHTTP(w, r)
		return
	}
	s.HTTP.ServeHTTP(w, r)
}

// plainLog brings net/http's lines into ErrorLog.
type plainLog struct{ s *Server }

func (l plainLog) Write(p []byte) (int, error) {
	l.s.reg.log.write(logPlain, "websocket: net/http", "message", cut(strings.TrimSpace(string(p)), 8<<10))
	return len(p), nil
}

// Conns returns an iterator over the connections that are open at the call.
func (s *Server) Conns() iter.Seq[*Conn] {
	return func(yield func(*Conn) bool) {
		for _, c := range s.reg.conns() {
			if !yield(c) {
				return
			}
		}
	}
}

// Stats returns the counters.
func (s *Server) Stats() Stats { return s.reg.stats() }

// stop closes the listeners, and says whether connections are left; then idle
// is closed with the last one's end.
func (s *Server) stop() (idle <-chan struct{}, plain *http.Server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopping.Store(true)
	for ln := range s.listeners {
		ln.Close()
	}
	for nc := range s.shaking {
		// The request that is being read is answered or given up within a second.
		nc.SetReadDeadline(time.Now().Add(time.Second))
	}
	if s.active == 0 {
		done := make(chan struct{})
		close(done)
		return done, s.plain
	}
	if s.idle == nil {
		s.idle = make(chan struct{})
	}
	return s.idle, s.plain
}

// Shutdown stops accepting, closes every connection with 1001, and returns nil
// when the last one's handler has returned. A peer that is stuck holds up
// nobody but Shutdown itself, and that until CloseTimeout; when ctx ends first,
// what is left is cut and ctx's error returned.
func (s *Server) Shutdown(ctx context.Context) error {
	s.init()
	idle, plain := s.stop()
	for _, c := range s.reg.conns() {
		c.shutdown()
	}
	var err error
	if plain != nil {
		err = plain.Shutdown(ctx)
	}
	select {
	case <-idle:
		return err
	case <-ctx.Done():
		s.Close()
		return ctx.Err()
	}
}

// Close stops accepting and cuts every connection, without a closing handshake.
func (s *Server) Close() error {
	s.init()
	_, plain := s.stop()
	s.mu.Lock()
	for nc := range s.shaking {
		nc.Close()
	}
	s.mu.Unlock()
	for _, c := range s.reg.conns() {
		c.CloseNow()
	}
	if plain != nil {
		return plain.Close()
	}
	return nil
}
