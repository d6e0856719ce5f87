package websocket

import (
	"context"
	"crypto/tls"
	"errors"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
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
	// that is spoken, and only http/1.1 is offered by ALPN, also where its
	// GetConfigForClient returns another configuration.
	TLSConfig *tls.Config
	// HTTP serves the requests that don't ask for a WebSocket, on the same
	// port, by net/http. When it is nil they are answered with 426.
	HTTP http.Handler
	// MaxConns limits the connections, those in their handshake included; 0
	// means no limit. Over it: 503 with Retry-After. Requests that HTTP serves
	// aren't counted.
	MaxConns int
	// MaxHandshakes limits the sockets between accept and the 101, and with
	// them the CPU time and memory that a crowd of new clients, or of stalled
	// ones, may take; 0 means no limit. Over it the next ones wait to be
	// accepted: over TLS, telling them would cost what the limit is to save.
	MaxHandshakes int
	// MaxConnsPerIP limits the connections of one client; 0 means no limit.
	// Over it: 429 with Retry-After. The client is the socket's address, or
	// what ClientIP makes of the request; all addresses of an IPv6 /64 are one
	// client, since that is what a single subscriber has. A client without an
	// address, as on a unix socket, isn't limited.
	MaxConnsPerIP int
	// ClientIP names the client of a request that came through a proxy, for
	// MaxConnsPerIP; see ForwardedIP.
	ClientIP func(*http.Request) netip.Addr
	// ShutdownSpread is the time over which Shutdown closes the connections,
	// one after the other, so that their clients don't all come back in the
	// same moment; 0 closes them at once. Until its turn comes a connection is
	// served as before.
	ShutdownSpread time.Duration
	// ErrorLog gets what no caller hears of; slog.Default() when it is nil.
	ErrorLog *slog.Logger

	once    sync.Once
	reg     registry
	slots   chan struct{} // as many as MaxHandshakes; nil without a limit
	stopped chan struct{} // closed when stopping is set

	mu         sync.Mutex // guards what follows
	listeners  map[net.Listener]struct{}
	shaking    map[net.Conn]struct{}  // in their handshake
	clients    map[netip.Addr]*client // that have a connection, for MaxConnsPerIP
	plain      *http.Server
	plainConns chanListener
	active     int           // connections whose handler hasn't returned
	idle       chan struct{} // closed when active is 0 while shutting down
	stopping   atomic.Bool   // written under mu
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
	ln, err := s.listen(addr)
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
	ln, err := s.listen(addr)
	if err != nil {
		return err
	}
	return s.ServeTLS(ln, certFile, keyFile)
}

// listen leaves TCP's own keep-alive off where ours finds the dead peers: it
// costs three system calls at each accept, and sees a host, not a peer.
func (s *Server) listen(addr string) (net.Listener, error) {
	var lc net.ListenConfig
	if s.Upgrader.pingInterval() > 0 && s.Upgrader.pongTimeout() > 0 {
		lc.KeepAlive = -1
	}
	return lc.Listen(context.Background(), "tcp", addr)
}

// ServeTLS is Serve over TLS.
func (s *Server) ServeTLS(ln net.Listener, certFile, keyFile string) error {
	config := restrictTLS(s.TLSConfig)
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

// restrictTLS returns a copy of config that speaks TLS 1.2 at least and offers
// HTTP/1.1 only, since WebSockets over HTTP/2 are another protocol (RFC 8441).
// What its GetConfigForClient returns is held to the same.
func restrictTLS(config *tls.Config) *tls.Config {
	config = config.Clone()
	if config == nil {
		config = new(tls.Config)
	}
	config.NextProtos = []string{"http/1.1"}
	config.MinVersion = max(config.MinVersion, tls.VersionTLS12)
	if choose := config.GetConfigForClient; choose != nil {
		config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			chosen, err := choose(hello)
			if chosen == nil || err != nil {
				return nil, err
			}
			return restrictTLS(chosen), nil
		}
	}
	return config
}

// init makes what connections share, once.
func (s *Server) init() {
	s.once.Do(func() {
		s.reg.u = &s.Upgrader
		s.reg.log.to = s.ErrorLog
		s.reg.done = s.leave
		s.stopped = make(chan struct{})
		if s.MaxHandshakes > 0 {
			s.slots = make(chan struct{}, s.MaxHandshakes)
		}
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
// fails because descriptors or memory ran out it tries again, after 5 ms at
// first and 1 s at most.
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
			if !s.takeSlot() {
				nc.Close()
				return ErrServerClosed
			}
			go s.serve(nc)
			continue
		}
		if !temporary(err) {
			return err
		}
		wait = min(max(2*wait, 5*time.Millisecond), time.Second)
		s.reg.log.write(logAccept, "websocket: accept failed, trying again", "error", err, "after", wait)
		if !s.sleep(wait) {
			return ErrServerClosed
		}
	}
}

// temporary reports whether Accept may succeed later: descriptors or memory
// ran out, or the peer was gone already.
func temporary(err error) bool {
	for _, errno := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, errno) {
			return true
		}
	}
	var ne interface{ Temporary() bool }
	return errors.As(err, &ne) && ne.Temporary()
}

// sleep reports whether the server is still to serve after d.
func (s *Server) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.stopped:
		return false
	}
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

// leave counts a connection out whose handler has returned. Who ended it may
// still be about to take it off the registry.
func (s *Server) leave(c *Conn) {
	if c.connState() == stateClosed {
		s.reg.remove(c)
	}
	s.release(c.clientOf())
}

// run serves c by the handler, and counts it out when that has returned.
func (s *Server) run(c *Conn, r *http.Request) {
	if s.stopping.Load() { // Shutdown may have missed it
		c.shutdown()
	}
	if c.sock != nil {
		c.startLoop(r)
		return
	}
	if s.reg.events != nil {
		c.start(r, func(c *Conn) { go c.loop() }) // on a stack that no handshake has made large
		return
	}
	defer s.leave(c)
	defer func() {
		if v := recover(); v != nil {
			s.reg.panicked(c.RemoteAddr().String(), v, debug.Stack())
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
	c.awaitEnd()
}

// ServeHTTP upgrades the request and serves the connection by Handler, so that
// a Server can be mounted on a mux. Under Events it returns when the connection
// is open, and net/http's goroutine and buffers are free; net/http's Shutdown
// doesn't know of the connection either way: register this Server's by
// RegisterOnShutdown.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.init()
	if c := s.receiveHTTP(w, r); c != nil {
		s.run(c, r)
	}
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
func (s *Server) Stats() Stats {
	stats := s.reg.stats()
	s.mu.Lock()
	defer s.mu.Unlock()
	stats.Handshaking = len(s.shaking)
	return stats
}

// stop closes the listeners, and says whether connections are left; then idle
// is closed with the last one's end.
func (s *Server) stop() (idle <-chan struct{}, plain *http.Server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stopping.Swap(true) {
		close(s.stopped)
	}
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
// when the last one's handler has returned. What was handed to a write or to
// Send before goes out ahead of the close frame. Handshakes under way end with
// 503 or their connection with 1001. A peer that is stuck holds up nobody but
// Shutdown itself, and that until CloseTimeout; when ctx ends first, what is
// left is cut and ctx's error returned.
//
// The connections are closed over ShutdownSpread, or over what ctx's deadline
// leaves of it when each is to have its CloseTimeout.
//
// Behind net/http, whose Shutdown knows nothing of these connections, it is
// called from a function that http.Server.RegisterOnShutdown got, or after it.
func (s *Server) Shutdown(ctx context.Context) error {
	s.init()
	idle, plain := s.stop()
	plainDone := make(chan error, 1)
	go func() {
		var err error
		if plain != nil {
			err = plain.Shutdown(ctx)
		}
		plainDone <- err
	}()
	s.sendAway(ctx, idle)
	select {
	case <-idle:
	case <-ctx.Done():
	}
	select {
	case <-idle:
		if err := <-plainDone; err == nil { // not later than ctx
			return nil
		}
	default:
	}
	s.Close()
	return ctx.Err()
}

// sendAway closes the connections there are, evenly over ShutdownSpread, until
// none is left or ctx ends.
func (s *Server) sendAway(ctx context.Context, idle <-chan struct{}) {
	spread := s.ShutdownSpread
	if deadline, ok := ctx.Deadline(); ok {
		spread = min(spread, time.Until(deadline)-s.Upgrader.closeTimeout())
	}
	start, conns := time.Now(), s.reg.conns()
	step := max(spread, 0) / time.Duration(max(len(conns), 1))
	t := time.NewTimer(0)
	defer t.Stop()
	for i, c := range conns {
		if wait := time.Until(start.Add(step * time.Duration(i))); wait > time.Millisecond {
			t.Reset(wait)
			select {
			case <-t.C:
			case <-idle:
				return
			case <-ctx.Done():
				return
			}
		}
		c.shutdown()
	}
}

// Close stops accepting and cuts every connection, without a closing handshake.
func (s *Server) Close() error {
	s.init()
	_, plain := s.stop()
	s.mu.Lock()
	for nc := range s.shaking {
		cutConn(nc)
	}
	s.mu.Unlock()
	for _, c := range s.reg.conns() {
		c.cut(&EndError{By: SideServer, Err: errShutdown})
	}
	if plain != nil {
		return plain.Close()
	}
	return nil
}
