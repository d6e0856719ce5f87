package websocket

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"iter"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
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
	// Handler serves each connection: an Events, or a HandlerFunc. Where it is
	// nil, Upgrader.OnUpgrade names one for each connection; without either,
	// upgrades go to HTTP as other requests do, or are answered with 404.
	Handler Handler
	// Upgrader is the policy of the connections.
	Upgrader Upgrader
	// TLSConfig is used by ListenAndServeTLS and ServeTLS. TLS 1.2 is the least
	// that is spoken, and only http/1.1 is offered by ALPN, also where its
	// GetConfigForClient returns another configuration.
	TLSConfig *tls.Config
	// HTTP serves the requests that don't ask for a WebSocket, whatever their
	// path, on the same port, by net/http. When it is nil a GET is answered with
	// 426, and another method with 405. Upgrader.AllowedHosts holds for them too.
	HTTP http.Handler
	// HTTPServer, when it is set, has the settings with which net/http serves
	// HTTP: timeouts, MaxHeaderBytes, ErrorLog, ConnState, BaseContext,
	// ConnContext, and its Handler where HTTP is nil. It is copied, never
	// started. What is zero in it, or without one, has a bound of ours:
	// ReadHeaderTimeout is HandshakeTimeout, IdleTimeout a minute,
	// MaxHeaderBytes the Upgrader's and the request line's. ReadTimeout and
	// WriteTimeout, which would end long polls and event streams, are bounds on
	// the time without progress instead: HandshakeTimeout without a byte of a
	// body that is expected, the Upgrader's WriteTimeout without room for 64
	// KiB of an answer; each is 10 s where the Upgrader's is switched off. A
	// negative number here switches a bound off, as in net/http.
	HTTPServer *http.Server
	// MaxHTTPConns limits the sockets that HTTP has; 4096 by default, and a
	// negative number means no limit. Over it: 503 with Retry-After.
	// MaxConnsPerIP holds for them too, counted apart from the WebSockets.
	MaxHTTPConns int
	// MaxConns limits the connections, those in their handshake included; 0
	// means no limit. Over it: 503 with Retry-After, for 64 clients at a time;
	// more are closed. Over TLS, where an answer needs a handshake first, they
	// have two seconds for that. With HTTP, whose sockets aren't counted, the
	// request is read first, from as many as MaxHTTPConns allows, and each told.
	MaxConns int
	// MaxHandshakes limits the sockets between accept and the 101, and with
	// them the CPU time and memory that a crowd of new clients, or of stalled
	// ones, may take; 0 means no limit. One client may take all of them for
	// HandshakeTimeout, unless MaxConnsPerIP is set. Over it the next ones wait to be
	// accepted: over TLS, telling them would cost what the limit is to save.
	// Requests that net/http has read wait too, for HandshakeTimeout at most;
	// then they are answered with 503.
	MaxHandshakes int
	// MaxConnsPerIP limits the connections of one client; 0 means no limit.
	// Over it: 429 with Retry-After. The client is the socket's address, or
	// what ClientIP makes of the request; all addresses of an IPv6 /64 are one
	// client, since that is what a single subscriber has. A client without an
	// address, as on a unix socket, isn't limited.
	MaxConnsPerIP int
	// ProxyProtocol names the proxies, by their addresses, whose connections
	// begin with a header of the PROXY protocol, version 1 or 2: they forward
	// bytes and no HTTP, as HAProxy, ELB and stunnel do in TCP mode and nginx in
	// a stream. What it says is the client's address then, for RemoteAddr,
	// MaxConnsPerIP and ForwardedIP. A connection of a named proxy without a
	// header, or with a wrong one, is closed. From anybody else the header is
	// a request that can't be read, and answered with 400. It holds for what
	// Serve and its kin accept; behind ServeHTTP it is net/http's listener that
	// would have to read it.
	ProxyProtocol []netip.Prefix
	// ClientIP names the client of a request that came through a proxy, for
	// MaxConnsPerIP; see ForwardedIP. One that it returns no valid address for
	// isn't limited.
	ClientIP func(*http.Request) netip.Addr
	// ShutdownSpread is the time over which Shutdown closes the connections,
	// one after the other, so that their clients don't all come back in the
	// same moment; 0 closes them at once. Until its turn comes a connection is
	// served as before.
	ShutdownSpread time.Duration
	// ShutdownCode is the close code that Shutdown tells the clients, 1001 (going
	// away) when it is 0 or none that can be sent; 1012 says that the service
	// restarts. ShutdownReason is a word for them, cut to 123 bytes.
	ShutdownCode   CloseCode
	ShutdownReason string
	// ErrorLog gets what no caller hears of, a line a second of each kind at most;
	// slog.Default() when it is nil. Nobody waits for long for a slog.Handler that
	// blocks, and lines of its kind are left out until it returns.
	ErrorLog *slog.Logger

	once       sync.Once
	reg        registry
	slots      chan struct{} // as many as MaxHandshakes; nil without a limit
	stopped    chan struct{} // closed when stopping is set
	plain      *http.Server  // serves the pages
	plainOnce  sync.Once     // for its Serve
	plainQueue chan net.Conn // sockets for it
	refusing   atomic.Int32  // sockets that are being turned away
	waiting    atomic.Int32  // handshakes that wait for a slot

	mu         sync.Mutex // guards what follows
	listeners  map[*listening]struct{}
	handshakes map[*handshake]struct{} // under way, or being refused
	clients    map[netip.Addr]*client  // that have a connection, for MaxConnsPerIP
	plainConns map[*plainConn]struct{}
	places     [placeKinds]int // that are taken
	idle       chan struct{}   // closed when nothing is left while shutting down
	stopping   atomic.Bool     // Shutdown or Close was called; written under mu
	closed     atomic.Bool     // Close was called; written under mu
	onShutdown []func()
}

// listening is a listener that is served. Tables are keyed by its address, since
// an application's listener may be a value that can't be compared.
type listening struct {
	net.Listener
	noKeepAlive bool // TCP's own keep-alive was left off
}

// ListenAndServe listens on addr, as "host:port", and serves connections by h, until
// that fails; it always returns an error. A Server can be shut down.
func ListenAndServe(addr string, h Handler) error {
	s := &Server{Addr: addr, Handler: h}
	return s.ListenAndServe()
}

// ListenAndServe listens on Addr and serves until Shutdown or Close; then it
// returns ErrServerClosed at once, while Shutdown still waits.
func (s *Server) ListenAndServe() error {
	l, err := s.listen(":http")
	if err != nil {
		return err
	}
	return s.serveListener(l)
}

// ListenAndServeTLS is ListenAndServe over TLS. The files, in PEM, may be ""
// when TLSConfig has a certificate.
func (s *Server) ListenAndServeTLS(certFile, keyFile string) error {
	l, err := s.listen(":https")
	if err != nil {
		return err
	}
	return s.serveTLS(l, certFile, keyFile)
}

// listen leaves TCP's own keep-alive off where ours finds the dead peers: it
// costs three system calls at each accept, and sees a host, not a peer.
func (s *Server) listen(standard string) (*listening, error) {
	l := &listening{noKeepAlive: s.pings()}
	var lc net.ListenConfig
	if l.noKeepAlive {
		lc.KeepAlive = -1
	}
	var err error
	l.Listener, err = lc.Listen(context.Background(), "tcp", cmp.Or(s.Addr, standard))
	return l, err
}

// pings reports whether the keep-alive of WebSocket finds dead peers.
func (s *Server) pings() bool {
	return s.Upgrader.pingInterval() > 0 && s.Upgrader.pongTimeout() > 0
}

// ServeTLS is Serve over TLS. Without any certificate it fails at once.
func (s *Server) ServeTLS(ln net.Listener, certFile, keyFile string) error {
	return s.serveTLS(&listening{Listener: ln}, certFile, keyFile)
}

func (s *Server) serveTLS(l *listening, certFile, keyFile string) error {
	config := restrictTLS(s.TLSConfig)
	if certFile != "" || keyFile != "" {
		cert, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			l.Close()
			return err
		}
		config.Certificates = append(config.Certificates[:len(config.Certificates):len(config.Certificates)], cert)
	}
	if len(config.Certificates) == 0 && config.GetCertificate == nil && config.GetConfigForClient == nil {
		l.Close()
		return errors.New("websocket: TLS without a certificate: neither files nor one in Server.TLSConfig")
	}
	l.Listener = tls.NewListener(l.Listener, config)
	return s.serveListener(l)
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
		s.mu.Lock() // Stats may look already
		defer s.mu.Unlock()
		s.reg.u = &s.Upgrader
		s.reg.log.to = s.ErrorLog
		s.reg.done = s.leave
		s.stopped = make(chan struct{})
		s.listeners = make(map[*listening]struct{})
		s.handshakes = make(map[*handshake]struct{})
		s.clients = make(map[netip.Addr]*client)
		s.plainConns = make(map[*plainConn]struct{})
		s.plain, s.plainQueue = s.newPlainServer(), make(chan net.Conn)
		if s.MaxHandshakes > 0 {
			s.slots = make(chan struct{}, s.MaxHandshakes)
		}
		s.reg.events = asEvents(s.Handler)
	})
}

// Serve accepts connections from ln and serves them, until Shutdown or Close;
// then it returns ErrServerClosed. It closes ln. Several listeners may be served at
// the same time. When Accept fails because descriptors or memory ran out, or for one
// client's network, it tries again, after 5 ms at first and 1 s at most; any other
// error of Accept is returned, and the connections go on. On Linux, under Events, an
// event loop serves the sockets of a *net.TCPListener or *net.UnixListener; all
// others have a goroutine each.
func (s *Server) Serve(ln net.Listener) error {
	return s.serveListener(&listening{Listener: ln})
}

func (s *Server) serveListener(ln *listening) error {
	s.init()
	defer ln.Close()
	if !s.track(ln) {
		return ErrServerClosed
	}
	defer s.untrack(ln)
	if a := s.loopListener(ln.Listener); a != nil {
		err := s.serveOnLoop(a)
		if s.stopping.Load() { // the listener was closed for that
			return ErrServerClosed
		}
		return err
	}
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
			s.accepted(nc, ln.noKeepAlive)
			continue
		}
		if err := s.backOff(err, &wait); err != nil {
			return err
		}
	}
}

// backOff waits behind an Accept that has failed, for twice as long as the last time.
// It returns an error where another try is of no use.
func (s *Server) backOff(err error, wait *time.Duration) error {
	if !temporary(err) {
		return err
	}
	*wait = min(max(2**wait, 5*time.Millisecond), time.Second)
	s.reg.logFault(logAccept, "websocket: accept failed, trying again", "error", err, "after", *wait)
	t := time.NewTimer(*wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-s.stopped:
		return ErrServerClosed
	}
}

// accepted begins the handshake on a socket.
func (s *Server) accepted(nc net.Conn, noKeepAlive bool) {
	if h := s.begin(nc, noKeepAlive); h != nil {
		go s.serve(h)
	}
}

// begin returns the handshake of a socket, when there is a slot for it, or nil for
// one that is turned away.
func (s *Server) begin(nc net.Conn, noKeepAlive bool) *handshake {
	h := newHandshake(&s.reg, s, nc)
	h.noKeepAlive = noKeepAlive
	if err := s.admit(h); err != nil {
		s.turnAway(h, err)
		return nil
	}
	return h
}

// temporary reports whether Accept may succeed later: descriptors or memory
// ran out, or the error is one client's. Linux gives those of its network, too, and a
// firewall's no.
func temporary(err error) bool {
	for _, errno := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED,
		syscall.EPROTO, syscall.EPERM, syscall.ENETDOWN, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.EHOSTUNREACH} {
		if errors.Is(err, errno) {
			return true
		}
	}
	var ne interface{ Temporary() bool }
	return errors.As(err, &ne) && ne.Temporary()
}

func (s *Server) track(ln *listening) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping.Load() {
		return false
	}
	s.listeners[ln] = struct{}{}
	return true
}

func (s *Server) untrack(ln *listening) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, ln)
}

// run serves c by the handler, and counts it out when that has returned, or was
// left by runtime.Goexit.
func (s *Server) run(c *Conn, r *http.Request) {
	if s.closed.Load() { // and has cut c, before its handler began
		c.unserved()
		s.leave(c)
		return
	}
	if c.sock != nil {
		c.startLoop(r)
		return
	}
	if c.callbacks() != nil {
		c.start(r, func(c *Conn) { go c.loop() }) // on a stack that no handshake has made large
		return
	}
	defer s.leave(c)
	returned := c.guard(func() { s.handlerOf(c).ServeWebSocket(c, r) })
	if !returned {
		return
	}
	if s.stopping.Load() {
		c.closeBecause(errShutdown, s.shutdownCode(), s.ShutdownReason)
	} else {
		c.Close(CloseNormal, "")
	}
	c.awaitEnd()
}

// handlerOf returns the Handler that serves c.
func (s *Server) handlerOf(c *Conn) Handler {
	if c.own {
		return c.detail.own.handler
	}
	return s.Handler
}

// ServeHTTP upgrades the request and serves the connection by Handler, so that
// a Server can be mounted on a mux. Under Events it returns when the connection
// is open, and net/http's goroutine and buffers are free. A request that asks for no
// WebSocket goes to HTTP. net/http's Shutdown doesn't know of the connections: see
// Server.Shutdown.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.init()
	inside, _ := r.Context().Value(plainKey{s}).(bool)
	if !inside && s.isPage(r) {
		// HTTP may be a mux with this Server on it.
		s.servePage(w, r.WithContext(context.WithValue(r.Context(), plainKey{s}, true)))
		return
	}
	s.serve(newHandshakeHTTP(&s.reg, s, w, r))
}

func (s *Server) shutdownCode() CloseCode {
	if s.ShutdownCode.sendable() {
		return s.ShutdownCode
	}
	return CloseGoingAway
}

// Conns returns an iterator over the connections that are open when it begins.
func (s *Server) Conns() iter.Seq[*Conn] {
	return func(yield func(*Conn) bool) {
		for _, c := range s.reg.conns() {
			if !yield(c) {
				return
			}
		}
	}
}

// stop closes the listeners, and says whether connections are left; then idle
// is closed with the last one's end.
func (s *Server) stop() (idle <-chan struct{}) {
	s.mu.Lock()
	if !s.stopping.Swap(true) {
		close(s.stopped)
		for _, f := range s.onShutdown {
			go s.reg.guard(nobody{}, f)
		}
	}
	listeners, handshakes := slices.Collect(maps.Keys(s.listeners)), slices.Collect(maps.Keys(s.handshakes))
	if s.idle == nil {
		s.idle = make(chan struct{})
	}
	idle = s.idle
	s.checkIdle()
	s.mu.Unlock()
	var closing []func()
	for _, ln := range listeners {
		closing = append(closing, func() { s.reg.guard(nobody{}, func() { ln.Close() }) })
	}
	apart(closing...)
	for _, h := range handshakes {
		aside(h.foreign, h.shorten)
	}
	return idle
}

// RegisterOnShutdown registers a function to be called once, on a goroutine of its
// own, when Shutdown or Close begins: to end what Server.HTTP serves for long,
// such as long polls and event streams, for which Shutdown waits until its
// context ends. One that is registered later isn't called.
func (s *Server) RegisterOnShutdown(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onShutdown = append(s.onShutdown, f)
}

// Shutdown stops accepting, closes every connection with ShutdownCode, which is
// 1001 by default, and returns nil when the last one's handler has returned.
// What was handed to a write or to Send before goes out ahead of the close
// frame. A handshake under way is answered with 503, or becomes a connection and is
// closed with that code. A peer that is stuck holds up nobody but Shutdown itself,
// and that until CloseTimeout; a handler or callback that is at work holds it up
// until it returns. When ctx ends first, what is left is cut and ctx's error
// returned. Requests that HTTP serves may end too, as with net/http's Shutdown,
// and idle sockets of theirs are closed. It may be called again, to wait longer,
// and before Serve, which returns ErrServerClosed then.
//
// The connections are closed over ShutdownSpread, or over what ctx's deadline
// leaves of it when each is to have its CloseTimeout.
//
// Behind net/http, whose Shutdown knows nothing of these connections, it is
// called from a function that http.Server.RegisterOnShutdown got, or after it.
func (s *Server) Shutdown(ctx context.Context) error {
	s.init()
	idle := s.stop()
	plainDone := make(chan error, 1)
	go func() { plainDone <- s.plain.Shutdown(ctx) }()
	s.sendAway(ctx, idle)
	select {
	case <-idle:
	case <-ctx.Done():
	}
	select {
	case <-idle:
		select {
		case err := <-plainDone:
			if err == nil {
				return nil
			}
		case <-ctx.Done(): // which ends plainDone too, unless a net.Conn blocks
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
		aside(foreign(c.nc), func() { c.shutdown(s.shutdownCode(), s.ShutdownReason) })
	}
}

// Close stops accepting and cuts every connection, without a closing handshake.
// When it returns no handshake will be answered with 101 any more, and no
// handler begins. It doesn't wait for those that run, and for OnClose: Shutdown
// behind it does; nor for more than a moment where closing blocks, in a net.Conn or
// net.Listener of the application's or because SO_LINGER is set.
func (s *Server) Close() error {
	s.init()
	s.stop()
	s.mu.Lock()
	s.closed.Store(true)
	handshakes, plainConns := slices.Collect(maps.Keys(s.handshakes)), slices.Collect(maps.Keys(s.plainConns))
	s.mu.Unlock()
	var cuts []func() // in what may block
	each := func(waits bool, cut func()) {
		if waits {
			cuts = append(cuts, cut)
		} else {
			cut()
		}
	}
	for _, h := range handshakes {
		each(h.closingWaits(), func() {
			if !h.giveUp(errShutdown) {
				h.cut()
			}
		})
	}
	for _, c := range s.reg.conns() {
		each(closingWaits(c.nc), func() { c.finish(&EndError{By: SideServer, Err: errShutdown}) })
	}
	for _, pc := range plainConns { // net/http may not have had it yet
		each(closingWaits(pc.Conn), func() { s.reg.cutConn(pc) })
	}
	apart(append(cuts, func() { s.plain.Close() })...) // which has no error: its listener is ours
	return nil
}
