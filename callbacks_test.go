package websocket

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// An incomparableListener accepts connections that can't be compared, and can't
// be compared itself: Go panics where such a value is the key of a map.
type incomparableListener struct {
	net.Listener
	_ []byte
}

func (l incomparableListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	return incomparableConn{Conn: nc}, err
}

type incomparableConn struct {
	net.Conn
	_ []byte
}

func TestIncomparable(t *testing.T) {
	for name, start := range wrappedWays {
		for kind, h := range echoHandlers {
			t.Run(name+"/"+kind, func(t *testing.T) {
				ln := incomparableListener{Listener: listen(t)}
				start(t, h, ln)
				for range 3 {
					p := newPeer(t, dialAddr(t, ln.Addr().String()))
					p.handshake()
					p.wantEcho("hello")
					p.nc.Close()
				}
			})
		}
	}
}

// An application's net.Conn may have no address.
type namelessConn struct{ net.Conn }

func (namelessConn) RemoteAddr() net.Addr { return nil }
func (namelessConn) LocalAddr() net.Addr  { return nil }

func TestConnWithoutAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipeListener()
		var trace strings.Builder
		s := &Server{Handler: echoEvents(), MaxConnsPerIP: 1, Upgrader: Upgrader{Trace: NewTextTrace(&trace)}}
		serve(t, s, ln)
		for range 2 {
			server, client := pipePair(t)
			ln.conns <- namelessConn{server}
			p := newPeer(t, client)
			p.handshake()
			p.wantEcho("hello")
		}
		synctest.Wait()
		if want := "#1 accepted, a websocket.namelessConn\n"; s.Stats().Panics != 0 || !strings.HasPrefix(trace.String(), want) {
			t.Errorf("%d panics, and the trace begins with %q; want none and %q", s.Stats().Panics, cut(trace.String(), 50), want)
		}
	})
}

// misdeeds are what a callback may do instead of returning.
var misdeeds = map[string]func(){
	"panic":     func() { panic("boom") },
	"panic nil": func() { panic(nil) },
	"Goexit":    func() { runtime.Goexit() },
}

// handshakeCallbacks are those that run before there is a connection.
var handshakeCallbacks = map[string]func(s *Server, misdeed func()){
	"OnUpgrade": func(s *Server, misdeed func()) {
		s.Upgrader.OnUpgrade = func(*http.Request, *Accept) error { misdeed(); return nil }
	},
	"CheckOrigin": func(s *Server, misdeed func()) {
		s.Upgrader.CheckOrigin = func(*http.Request) bool { misdeed(); return true }
	},
	"ClientIP": func(s *Server, misdeed func()) {
		s.ClientIP = func(*http.Request) netip.Addr { misdeed(); return netip.Addr{} }
	},
}

// A callback of the handshake that panics or calls runtime.Goexit costs that
// request: it is answered with 500, and every slot and count comes back.
func TestHandshakeCallbacksMayDoAnything(t *testing.T) {
	for name, set := range handshakeCallbacks {
		for kind, misdeed := range misdeeds {
			t.Run(name+"/"+kind, func(t *testing.T) {
				s := &Server{Handler: echoEvents(), MaxConns: 1, MaxHandshakes: 1, MaxConnsPerIP: 1, ErrorLog: new(logBook).logger()}
				bad := atomic.Bool{}
				bad.Store(true)
				set(s, func() {
					if bad.Load() {
						misdeed()
					}
				})
				dial := serveTCP(t, s)
				behind := serveBehind(t, s)
				for range 2 {
					for way, dial := range map[string]func() *peer{"socket": dial, "net/http": behind} {
						p := dial()
						p.send([]byte(peerRequest))
						if resp, text := p.answer(); resp.StatusCode != 500 || strings.Contains(text, "boom") {
							t.Errorf("%s: answer %s %q, want 500 that tells nothing", way, resp.Status, text)
						}
						p.nc.Close()
						eventually(t, "nothing is counted", func() bool { return s.isAtRest() })
					}
				}
				if got := s.Stats(); got.Panics != 4 || got.Refused[500] != 4 {
					t.Errorf("%d panics, %d refused with 500; want 4 and 4", got.Panics, got.Refused[500])
				}
				bad.Store(false)
				for _, dial := range []func() *peer{dial, behind} {
					p := dial()
					p.handshake()
					p.closeWith(CloseNormal, "")
					eventually(t, "nothing is counted", func() bool { return s.isAtRest() })
				}
			})
		}
	}
}

// serveBehind serves s behind net/http, and returns what connects to it.
func serveBehind(t *testing.T, s *Server) (dial func() *peer) {
	ts := httptest.NewServer(s)
	t.Cleanup(ts.Close)
	return func() *peer { return newPeer(t, dialAddr(t, ts.Listener.Addr().String())) }
}

// isAtRest reports whether nothing is counted or held in any table.
func (s *Server) isAtRest() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.isIdle() && len(s.clients) == 0 && len(s.plainConns) == 0 && s.places == [placeKinds]int{} && len(s.slots) == 0 && s.reg.count() == 0
}

// The same of Upgrade and UpgradeHTTP: the client gets its answer, and the caller
// an error.
func TestUpgradeCallbackPanics(t *testing.T) {
	for way, connect := range waysIn {
		t.Run(way, func(t *testing.T) {
			p := connect(t, Upgrader{OnUpgrade: func(*http.Request, *Accept) error { panic("boom") }})
			p.send([]byte(peerRequest))
			if resp, text := p.answer(); resp.StatusCode != 500 || strings.Contains(text, "boom") {
				t.Errorf("answer %s %q, want 500 that tells nothing", resp.Status, text)
			}
		})
	}
}

// misbehaving returns handlers of which the named callback does the misdeed, and
// a count of the calls of OnClose.
func misbehaving(on string, misdeed func()) (handlers map[string]Handler, closes *atomic.Int32) {
	closes = new(atomic.Int32)
	when := func(here string) {
		if on == here {
			misdeed()
		}
	}
	events := Events{
		OnOpen:    func(*Conn, *http.Request) { when("OnOpen") },
		OnMessage: func(*Conn, MessageType, []byte) { when("OnMessage") },
		OnClose: func(*Conn, error) {
			closes.Add(1)
			when("OnClose")
		},
	}
	return map[string]Handler{
		"Events":                  events,
		"Events in a HandlerFunc": HandlerFunc(func(c *Conn, r *http.Request) { events.ServeWebSocket(c, r) }),
		"HandlerFunc": HandlerFunc(func(c *Conn, r *http.Request) {
			when("OnOpen")
			for _, err := range c.Messages() {
				if err != nil {
					break
				}
				when("OnMessage")
			}
			closes.Add(1)
			when("OnClose")
		}),
	}, closes
}

// A callback of a connection that panics or calls runtime.Goexit costs that
// connection: 1011 to the peer, OnClose once, nothing left, and Shutdown ends.
func TestCallbacksMayDoAnything(t *testing.T) {
	for _, on := range []string{"OnOpen", "OnMessage", "OnClose"} {
		for kind, misdeed := range misdeeds {
			for _, name := range []string{"Events", "Events in a HandlerFunc", "HandlerFunc"} {
				for _, way := range []string{"tcp", "tls", "net/http"} {
					t.Run(strings.Join([]string{on, kind, name, way}, "/"), func(t *testing.T) {
						handlers, closes := misbehaving(on, misdeed)
						s := &Server{Handler: handlers[name], ErrorLog: new(logBook).logger()}
						p := openBy(t, s, way)
						if on != "OnOpen" {
							p.sendText("x")
						}
						if on == "OnClose" {
							p.closeWith(CloseNormal, "")
						} else {
							p.wantClosed(CloseInternalError, "")
						}
						eventually(t, "nothing is left", s.isAtRest)
						wantCloses := int32(1)
						if name == "HandlerFunc" && on != "OnClose" {
							wantCloses = 0 // it never came so far
						}
						if got := closes.Load(); got != wantCloses {
							t.Errorf("OnClose ran %d times, want %d", got, wantCloses)
						}
						wantPanics := uint64(1)
						if kind == "Goexit" && name == "Events in a HandlerFunc" {
							wantPanics = 2 // it ends both
						}
						if got, err := s.Stats().Panics, s.Shutdown(t.Context()); got != wantPanics || err != nil {
							t.Errorf("%d panics counted, Shutdown = %v; want %d and nil", got, err, wantPanics)
						}
					})
				}
			}
		}
	}
}

// openBy opens a connection to s by a way in.
func openBy(t *testing.T, s *Server, way string) *peer {
	t.Helper()
	var p *peer
	switch way {
	case "tcp":
		p = serveTCP(t, s)()
	case "tls":
		p = dialTLS(t, serveTLS(t, s), clientTLS())
	default:
		p = dialHTTPTest(t, httptest.NewUnstartedServer(s), false)
	}
	p.handshake()
	return p
}

// traceHooks are a Trace of which one hook does the misdeed.
func traceHooks(on string, misdeed func()) *Trace {
	when := func(hook string) {
		if hook == on {
			misdeed()
		}
	}
	return &Trace{
		Accepted:     func(uint64, net.Conn) { when("Accepted") },
		Request:      func(uint64, []byte) { when("Request") },
		Answer:       func(uint64, string, string, []byte) { when("Answer") },
		FrameRead:    func(uint64, *TraceFrame) { when("FrameRead") },
		FrameWritten: func(uint64, *TraceFrame) { when("FrameWritten") },
		State:        func(uint64, string) { when("State") },
		Closed:       func(uint64, error) { when("Closed") },
	}
}

// A hook is a spectator: whatever it does, the connection goes on.
func TestTraceHooksMayDoAnything(t *testing.T) {
	for _, hook := range []string{"Accepted", "Request", "Answer", "FrameRead", "FrameWritten", "State", "Closed"} {
		for kind, misdeed := range misdeeds {
			for name, h := range echoHandlers {
				for _, way := range []string{"tcp", "tls", "net/http"} {
					t.Run(strings.Join([]string{hook, kind, name, way}, "/"), func(t *testing.T) {
						s := &Server{Handler: h, ErrorLog: new(logBook).logger(), Upgrader: Upgrader{Trace: traceHooks(hook, misdeed)}}
						p := openBy(t, s, way)
						p.wantEcho("still here")
						p.closeWith(CloseNormal, "")
						eventually(t, "nothing is left", s.isAtRest)
						if s.Stats().Panics == 0 {
							t.Error("no panic was counted")
						}
						if err := s.Shutdown(t.Context()); err != nil {
							t.Errorf("Shutdown = %v", err)
						}
					})
				}
			}
		}
	}
}

// A refusal too is answered whatever the hooks do.
func TestTraceHooksOfARefusal(t *testing.T) {
	for _, hook := range []string{"Accepted", "Request", "Answer", "Closed"} {
		s := &Server{ErrorLog: new(logBook).logger(), Upgrader: Upgrader{Trace: traceHooks(hook, misdeeds["Goexit"])}}
		p := serveTCP(t, s)()
		p.send([]byte(strings.Replace(peerRequest, "GET", "PUT", 1)))
		if resp, _ := p.answer(); resp.StatusCode != 405 {
			t.Errorf("%s: answer %s, want 405", hook, resp.Status)
		}
		p.wantEnd()
		eventually(t, "nothing is left", s.isAtRest)
	}
}

// OnRefuse may block or misbehave in any way in: the client is let go, and neither
// the counts nor Shutdown wait.
func TestOnRefuseMayDoAnything(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	for kind, misdeed := range misdeeds {
		t.Run(kind, func(t *testing.T) {
			u := Upgrader{OnRefuse: func(r *http.Request, _ int, _ error) {
				if r.URL.Path == "/block" {
					<-release
				}
				misdeed()
			}}
			overServers(t, func() *Server { return &Server{Handler: Events{}, Upgrader: u} }, func(t *testing.T, dial dialFunc, s *Server) {
				for _, path := range []string{"/", "/block"} {
					c := dial(t)
					c.SendRequest(path, "Origin: https://elsewhere.example")
					if status := c.ReadResponse().StatusCode; status != http.StatusForbidden {
						t.Errorf("answer %d, want 403", status)
					}
					if _, err := c.NetConn().Read(make([]byte, 1)); err != io.EOF {
						t.Errorf("behind the answer: %v, want the stream's end", err)
					}
					c.NetConn().Close()
				}
				eventually(t, "nothing is left", s.isAtRest)
				eventually(t, "a panic is counted", func() bool { return s.Stats().Panics == 1 })
				if err := s.Shutdown(t.Context()); err != nil {
					t.Errorf("Shutdown = %v", err)
				}
			})
		})
	}
}

// OnUpgrade has what is left of HandshakeTimeout, whatever the way in: then the
// client is told 503, its request's context has ended, and what OnUpgrade says
// afterwards is thrown away.
func TestOnUpgradeIsBounded(t *testing.T) {
	t.Parallel()
	for way, connect := range waysIn {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			release, causes := make(chan struct{}), make(chan error, 1)
			u := Upgrader{HandshakeTimeout: time.Second, OnUpgrade: func(r *http.Request, a *Accept) error {
				<-r.Context().Done()
				causes <- context.Cause(r.Context())
				<-release
				a.Header.Set("X-Late", "yes")
				return nil
			}}
			p := connect(t, u)
			start := time.Now()
			p.send([]byte(peerRequest))
			resp, text := p.answer()
			if took := time.Since(start); resp.StatusCode != 503 || resp.Header.Get("X-Late") != "" || took > 5*time.Second {
				t.Errorf("answer %s %q after %v, want 503 after a second", resp.Status, text, took)
			}
			var refused *HandshakeError
			if cause := <-causes; !errors.As(cause, &refused) || refused.Status != 503 {
				t.Errorf("cause of the request's context: %v, want the refusal", cause)
			}
			close(release)
			p.in = nil
			for p.receive() == nil {
			}
			if len(p.in) > 0 {
				t.Errorf("behind the refusal came %q", p.in)
			}
		})
	}
}

// With MaxHandshakes 2, two whose authentication hangs don't keep others out for
// longer than HandshakeTimeout, and hold nothing afterwards.
func TestHangingOnUpgradeHoldsNoSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := &Server{Handler: Events{}, MaxHandshakes: 2, MaxConns: 2, MaxConnsPerIP: 2, ErrorLog: new(logBook).logger(),
			Upgrader: Upgrader{HandshakeTimeout: time.Second, OnUpgrade: func(r *http.Request, a *Accept) error {
				if r.URL.Path == "/hang" {
					<-release
				}
				return nil
			}}}
		ln := newPipeListener()
		serve(t, s, ln)
		start := time.Now()
		var wg sync.WaitGroup
		for range 2 {
			p := ln.dial(t)
			wg.Go(func() {
				if status, _, _ := p.status(strings.Replace(peerRequest, "/chat", "/hang", 1)); status != 503 {
					t.Errorf("answer %d, want 503", status)
				}
			})
		}
		wg.Wait()
		if took := time.Since(start); took != time.Second {
			t.Errorf("the hanging ones were answered after %v, want 1 s", took)
		}
		synctest.Wait()
		for range 2 {
			ln.open(t)
		}
		close(release)
		synctest.Wait()
		if got := s.Stats(); got.Open != 2 || got.Accepted != 2 || got.Handshaking != 0 || s.places[forSocket] != 2 {
			t.Errorf("%d open, %d accepted, %d in their handshake, %d counted; want 2, 2, 0, 2", got.Open, got.Accepted, got.Handshaking, s.places[forSocket])
		}
	})
}

// Close while OnUpgrade decides: no 101 and no handler after it has returned,
// and the request's context has ended. Shutdown answers with 503 within a second
// or so.
func TestServerEndsDuringOnUpgrade(t *testing.T) {
	t.Parallel()
	for _, behind := range []bool{false, true} {
		for _, end := range []string{"Close", "Shutdown"} {
			for name, h := range map[string]Handler{
				"Events":      Events{OnOpen: func(*Conn, *http.Request) { t.Error("OnOpen ran after Close") }},
				"HandlerFunc": HandlerFunc(func(*Conn, *http.Request) { t.Error("the handler ran after Close") }),
			} {
				t.Run(strings.Join([]string{map[bool]string{false: "socket", true: "net/http"}[behind], end, name}, "/"), func(t *testing.T) {
					t.Parallel()
					entered, release := make(chan *http.Request, 1), make(chan struct{})
					s := &Server{Handler: h, ErrorLog: new(logBook).logger(), Upgrader: Upgrader{HandshakeTimeout: time.Minute,
						OnUpgrade: func(r *http.Request, _ *Accept) error { entered <- r; <-release; return nil }}}
					serve := serveTCP
					if behind {
						serve = func(_ testing.TB, s *Server) func() *peer { return serveBehind(t, s) }
					}
					p := serve(t, s)()
					p.send([]byte(peerRequest))
					r := <-entered
					if end == "Close" {
						s.Close()
					} else if err := s.Shutdown(t.Context()); err != nil {
						t.Errorf("Shutdown = %v, want nil", err)
					}
					if r.Context().Err() == nil {
						t.Error("the request's context hasn't ended")
					}
					close(release)
					for p.receive() == nil {
					}
					if got := string(p.in); end == "Close" && got != "" || end == "Shutdown" && !strings.HasPrefix(got, "HTTP/1.1 503 ") {
						t.Errorf("after %s the client read %q; want nothing after Close, 503 after Shutdown", end, got)
					}
					eventually(t, "nothing is left", s.isAtRest)
				})
			}
		}
	}
}

// A brokenWriter is an http.ResponseWriter of the application's whose Hijack fails it.
type brokenWriter struct {
	http.ResponseWriter
	misdeed func()
}

func (w brokenWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.misdeed()
	return nil, nil, http.ErrNotSupported
}

// A timer that takes the connection from such a one, because OnUpgrade takes too long,
// costs that request alone.
func TestHijackMayDoAnything(t *testing.T) {
	for kind, misdeed := range misdeeds {
		t.Run(kind, func(t *testing.T) {
			for range 20 { // on a busy machine the time may be over before OnUpgrade is asked
				if hijackWhileAsked(t, misdeed) {
					return
				}
			}
			t.Error("OnUpgrade was never asked in time")
		})
	}
}

// hijackWhileAsked reports whether OnUpgrade was asked before the timer came.
func hijackWhileAsked(t *testing.T, misdeed func()) (asked bool) {
	entered, release := make(chan struct{}, 1), make(chan struct{})
	s := &Server{Handler: Events{}, MaxConns: 1, MaxHandshakes: 1, ErrorLog: new(logBook).logger(), Upgrader: Upgrader{
		HandshakeTimeout: 50 * time.Millisecond,
		OnUpgrade: func(r *http.Request, _ *Accept) error {
			entered <- struct{}{}
			<-r.Context().Done()
			<-release
			return nil
		}}}
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.ServeHTTP(brokenWriter{w, misdeed}, r)
	}))
	defer ts.Close()
	p := newPeer(t, dialAddr(t, ts.Listener.Addr().String()))
	p.send([]byte(peerRequest))
	eventually(t, "it is given up", func() bool { return s.Stats().Refused[503] == 1 })
	close(release)
	if resp, text := p.answer(); resp.StatusCode != 503 {
		t.Errorf("answer %s %q, want 503", resp.Status, text)
	}
	eventually(t, "nothing is left", s.isAtRest)
	if len(entered) == 0 {
		return false
	}
	if got := s.Stats(); got.Panics != 1 || got.Refused[503] != 1 {
		t.Errorf("%d panics, %d refused; want 1 and 1", got.Panics, got.Refused[503])
	}
	return true
}

// The context that OnUpgrade had goes on as the connection's.
func TestContextGoesOn(t *testing.T) {
	for way, dial := range map[string]func(*testing.T, *Server) *peer{
		"socket":   func(t *testing.T, s *Server) *peer { return openBy(t, s, "tcp") },
		"net/http": func(t *testing.T, s *Server) *peer { return openBy(t, s, "net/http") },
	} {
		for name, wrap := range map[string]func(Events) Handler{
			"Events":      func(e Events) Handler { return e },
			"HandlerFunc": func(e Events) Handler { return HandlerFunc(e.ServeWebSocket) },
		} {
			t.Run(way+"/"+name, func(t *testing.T) {
				var asked context.Context
				opened := make(chan *http.Request, 1)
				conns := make(chan *Conn, 1)
				s := &Server{Upgrader: Upgrader{OnUpgrade: func(r *http.Request, _ *Accept) error { asked = r.Context(); return nil }}}
				s.Handler = wrap(Events{OnOpen: func(c *Conn, r *http.Request) {
					conns <- c
					opened <- r
				}})
				p := dial(t, s)
				c, r := <-conns, <-opened
				if r.Context() != asked || c.Context() != asked {
					t.Error("OnUpgrade, OnOpen and Conn.Context have different contexts")
				}
				if err := asked.Err(); err != nil {
					t.Errorf("the context has ended with %v while the connection is open", err)
				}
				p.closeWith(4000, "")
				<-asked.Done()
				wantEndError(t, context.Cause(asked), EndError{By: SidePeer, Sent: 4000, Received: 4000, Clean: true}, nil)
			})
		}
	}
}

// A touchyError is an error of the application's that panics when it is looked at.
type touchyError struct{ in string }

func (e touchyError) look(in string) {
	if e.in == in {
		panic("boom in " + in)
	}
}

func (e touchyError) Error() string   { e.look("Error"); return "touchy" }
func (e touchyError) Is(error) bool   { e.look("Is"); return false }
func (e touchyError) As(any) bool     { e.look("As"); return false }
func (e touchyError) Unwrap() []error { e.look("Unwrap"); return nil }

// An error of OnUpgrade's may panic when it is looked at: it costs that request.
func TestOnUpgradeErrorMayPanic(t *testing.T) {
	for _, in := range []string{"Error", "Is", "As", "Unwrap"} {
		t.Run(in, func(t *testing.T) {
			s := &Server{Handler: Events{}, MaxConns: 1, MaxHandshakes: 1, ErrorLog: new(logBook).logger(), Upgrader: Upgrader{
				OnUpgrade: func(*http.Request, *Accept) error { return touchyError{in} },
			}}
			dial, behind := serveTCP(t, s), serveBehind(t, s)
			for range 2 {
				for way, dial := range map[string]func() *peer{"socket": dial, "net/http": behind} {
					p := dial()
					p.send([]byte(peerRequest))
					if resp, _ := p.answer(); resp.StatusCode != 403 && resp.StatusCode != 500 {
						t.Errorf("%s: answer %s, want 403 or 500", way, resp.Status)
					}
					p.nc.Close()
					eventually(t, "nothing is left", s.isAtRest)
				}
			}
		})
	}
}

// A shyConn panics when it is asked for an address.
type shyConn struct{ net.Conn }

func (shyConn) RemoteAddr() net.Addr { panic("boom in RemoteAddr") }
func (shyConn) LocalAddr() net.Addr  { panic("boom in LocalAddr") }

type shyListener struct{ net.Listener }

func (l shyListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	return shyConn{nc}, err
}

// An address is asked for by who accepts, who logs, and net/http: nobody catches it there.
func TestAddressMayPanic(t *testing.T) {
	for kind, h := range eitherHandler(func(_ *Conn, _ *http.Request, text []byte) {
		if text != nil {
			panic("boom")
		}
	}) {
		t.Run(kind, func(t *testing.T) {
			s := &Server{Handler: h, HTTP: plainHandler, MaxConnsPerIP: 1, ErrorLog: new(logBook).logger()}
			ln := shyListener{listen(t)}
			serve(t, s, ln)
			page := newPeer(t, dialAddr(t, ln.Addr().String()))
			if status, _, _ := page.status("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); status != 200 {
				t.Errorf("a page: %d, want 200", status)
			}
			for range 2 {
				p := newPeer(t, dialAddr(t, ln.Addr().String()))
				p.handshake()
				p.sendText("now")
				p.wantClose(CloseInternalError, "")
				p.nc.Close()
				eventually(t, "nothing is left", s.isAtRest)
			}
		})
	}
}
