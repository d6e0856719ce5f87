package websocket

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"weak"

	"github.com/rawws/websocket/internal/netloop"
	"github.com/rawws/websocket/websockettest"
)

// A dialFunc connects a client to a server, whatever is between them.
type dialFunc func(t *testing.T) *websockettest.Client

// overServers serves s in every way that there is, and runs f as a subtest of each:
// what s decides must not depend on it. The fields of s are copied.
func overServers(t *testing.T, server func() *Server, f func(t *testing.T, dial dialFunc, s *Server)) {
	way := func(name string, dial func(t *testing.T, s *Server) dialFunc) {
		t.Run(name, func(t *testing.T) {
			s := server()
			s.ErrorLog = new(logBook).logger()
			t.Cleanup(func() { s.Close() })
			f(t, dial(t, s), s)
		})
	}
	over := func(ln net.Listener) dialFunc {
		return func(t *testing.T) *websockettest.Client {
			nc, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			return websockettest.NewClient(t, nc)
		}
	}
	way("TCP", func(t *testing.T, s *Server) dialFunc {
		ln := listen(t)
		serve(t, s, ln)
		return over(ln)
	})
	way("multipath TCP", func(t *testing.T, s *Server) dialFunc {
		ln := listen(t)
		serve(t, s, ln)
		return func(t *testing.T) *websockettest.Client {
			return websockettest.NewClient(t, dialMultipath(t, ln.Addr().String()))
		}
	})
	way("memory", func(t *testing.T, s *Server) dialFunc {
		ln := websockettest.Serve(t, s)
		return func(t *testing.T) *websockettest.Client {
			nc, err := ln.Dial()
			if err != nil {
				t.Fatal(err)
			}
			return websockettest.NewClient(t, nc)
		}
	})
	way("TLS", func(t *testing.T, s *Server) dialFunc {
		ln := listen(t)
		serve(t, s, tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{testCertificate()}}))
		dial := over(ln)
		return func(t *testing.T) *websockettest.Client {
			return websockettest.NewClient(t, tls.Client(dial(t).NetConn(), clientTLS()))
		}
	})
	way("http, TLS", func(t *testing.T, s *Server) dialFunc {
		web := httptest.NewUnstartedServer(s)
		web.TLS = &tls.Config{Certificates: []tls.Certificate{testCertificate()}}
		web.StartTLS()
		t.Cleanup(web.Close)
		dial := over(web.Listener)
		return func(t *testing.T) *websockettest.Client {
			return websockettest.NewClient(t, tls.Client(dial(t).NetConn(), clientTLS()))
		}
	})
	way("http", func(t *testing.T, s *Server) dialFunc {
		web := httptest.NewServer(s)
		t.Cleanup(web.Close)
		return over(web.Listener)
	})
	way("http, second request", func(t *testing.T, s *Server) dialFunc {
		s.HTTP = http.NotFoundHandler()
		ln := listen(t)
		serve(t, s, ln)
		dial := over(ln)
		return func(t *testing.T) *websockettest.Client {
			c := dial(t)
			c.SendRaw([]byte("GET /page HTTP/1.1\r\nHost: server.example\r\n\r\n"))
			if status := c.ReadResponse().StatusCode; status != http.StatusNotFound {
				t.Fatalf("answer %d; want HTTP's", status)
			}
			return c
		}
	})
}

// who, of a Handler of either kind, answers a text with what Accept gave.
func who(c *Conn) []byte {
	name, _ := c.Data.(string)
	return []byte(name + " by " + c.Subprotocol())
}

func eitherHandler(f func(c *Conn, r *http.Request, text []byte)) map[string]Handler {
	return map[string]Handler{
		"Events": Events{
			OnOpen: func(c *Conn, r *http.Request) { f(c, r, nil) },
			OnMessage: func(c *Conn, _ MessageType, text []byte) {
				f(c, nil, text)
			},
		},
		"HandlerFunc": HandlerFunc(func(c *Conn, r *http.Request) {
			f(c, r, nil)
			for m, err := range c.Messages() {
				if err != nil {
					return
				}
				f(c, nil, m.Data)
			}
		}),
	}
}

// What OnUpgrade found out about a request is the connection's from the first
// moment on, in every way in, and no other connection's.
func TestAccept(t *testing.T) {
	for name, h := range eitherHandler(func(c *Conn, _ *http.Request, text []byte) {
		if text == nil {
			text = []byte("open")
		}
		c.WriteMessage(TextMessage, append(who(c), ": "+string(text)...))
	}) {
		u := Upgrader{
			MaxMessageSize: 10,
			OnUpgrade: func(r *http.Request, a *Accept) error {
				a.Data = r.URL.Query().Get("name")
				if a.Data == "nobody" {
					return errNoTicket
				}
				a.Header.Set("Set-Cookie", "name="+r.URL.Query().Get("name"))
				if a.Data == "jane" {
					a.MaxMessageSize = 20
				}
				a.Subprotocol = Subprotocols(r)[0]
				return nil
			},
		}
		server := func() *Server { return &Server{Handler: h, Upgrader: u} }
		t.Run(name, func(t *testing.T) {
			overServers(t, server, func(t *testing.T, dial dialFunc, _ *Server) {
				jane, joe, nobody := dial(t), dial(t), dial(t)
				jane.Handshake("/?name=jane", "Sec-WebSocket-Protocol: v2, v1")
				joe.Handshake("/?name=joe", "Sec-WebSocket-Protocol: v1, v2")
				nobody.SendRequest("/?name=nobody", "Sec-WebSocket-Protocol: v1")
				if resp := nobody.ReadResponse(); resp.StatusCode != http.StatusForbidden {
					t.Errorf("nobody is answered with %s", resp.Status)
				}
				if got := jane.Response.Header.Get("Set-Cookie"); got != "name=jane" {
					t.Errorf("jane's cookie is %q", got)
				}
				jane.WantText("jane by v2: open")
				joe.WantText("joe by v1: open")
				jane.SendText("0123456789abcdefghij")
				jane.WantText("jane by v2: 0123456789abcdefghij")
				joe.SendText("0123456789a")
				joe.WantClose(1009)
				jane.SendText("0123456789abcdefghijk")
				jane.WantClose(1009)
			})
		})
	}
}

func TestSubprotocols(t *testing.T) {
	for _, test := range []struct{ lines, want []string }{
		{nil, nil},
		{[]string{"a"}, []string{"a"}},
		{[]string{"b, a", "token.x"}, []string{"b", "a", "token.x"}},
		{[]string{"a b"}, nil},
		{[]string{"a, a"}, nil},
	} {
		r := &http.Request{Header: http.Header{"Sec-Websocket-Protocol": test.lines}}
		if got := Subprotocols(r); !slices.Equal(got, test.want) {
			t.Errorf("Subprotocols(%q) = %q; want %q", test.lines, got, test.want)
		}
	}
}

// A route of OnUpgrade's has the connection, whatever its kind and that of the
// Server's own Handler, until it has ended and is counted out.
func TestAcceptHandler(t *testing.T) {
	answers := func(by string) map[string]Handler {
		return eitherHandler(func(c *Conn, _ *http.Request, text []byte) {
			if text != nil {
				c.WriteMessage(TextMessage, []byte(by+" "+string(text)))
			}
		})
	}
	one, two := answers("one"), answers("two")
	events := two["Events"].(Events)
	routes := map[string]Handler{"/events": events, "/pointer": &events, "/func": two["HandlerFunc"]}
	for name, h := range map[string]Handler{"Events": one["Events"], "HandlerFunc": one["HandlerFunc"], "none": nil} {
		server := func() *Server {
			return &Server{Handler: h, Upgrader: Upgrader{OnUpgrade: func(r *http.Request, a *Accept) error {
				a.Handler = routes[r.URL.Path]
				return nil
			}}}
		}
		t.Run(name, func(t *testing.T) {
			overServers(t, server, func(t *testing.T, dial dialFunc, s *Server) {
				var clients []*websockettest.Client
				for path, by := range map[string]string{"/events": "two", "/pointer": "two", "/func": "two", "/other": "one"} {
					c := dial(t)
					if h == nil && by == "one" {
						c.SendRequest(path)
						if resp := c.ReadResponse(); resp.StatusCode != http.StatusNotFound {
							t.Errorf("%s: answer %s; want 404", path, resp.Status)
						}
						c.Cut()
						continue
					}
					c.Handshake(path)
					c.SendText("hello")
					c.WantText(by + " hello")
					clients = append(clients, c)
				}
				clients[0].Close(1000)
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				done := make(chan error, 1)
				go func() { done <- s.Shutdown(ctx) }()
				for _, c := range clients[1:] {
					c.WantClose(1001)
				}
				if err := <-done; err != nil {
					t.Errorf("Shutdown: %v; a connection isn't counted out", err)
				}
			})
		})
	}
}

// Where nothing serves a WebSocket its request is one as any other.
func TestNoHandler(t *testing.T) {
	page := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "a page at "+r.URL.Path) })
	socket := &Server{Handler: echoEvents()}
	mux := http.NewServeMux()
	mux.Handle("/", page)
	mux.Handle("GET /socket", socket)
	t.Cleanup(func() { socket.Close() })
	ln := websockettest.Serve(t, &Server{HTTP: mux})
	resp := websockettest.WantRefusal(t, ln, http.StatusOK, "/page")
	if body, _ := io.ReadAll(resp.Body); string(body) != "a page at /page" {
		t.Errorf("answer %q; want HTTP's", body)
	}
	c := websockettest.Dial(t, ln, "/socket")
	c.SendText("hello")
	c.WantText("hello")
	c.Close(1000)

	none := &Server{ErrorLog: new(logBook).logger()}
	websockettest.WantRefusal(t, websockettest.Serve(t, &http.Server{Handler: none}), http.StatusNotFound, "/")
	websockettest.WantRefusal(t, websockettest.Serve(t, none), http.StatusNotFound, "/")
}

// A request's context is its connection's, in every way in: alive after OnOpen
// and ServeHTTP have returned, done at the end with the *EndError as the cause,
// with net/http's values.
func TestRequestContext(t *testing.T) {
	for _, asks := range []bool{false, true} {
		contexts := make(chan context.Context, 10)
		for name, h := range eitherHandler(func(c *Conn, r *http.Request, text []byte) {
			if r != nil {
				contexts <- r.Context()
				contexts <- c.Context()
			} else {
				c.WriteMessage(TextMessage, text)
			}
		}) {
			server := func() *Server {
				s := &Server{Handler: h}
				if asks {
					s.Upgrader.OnUpgrade = func(r *http.Request, a *Accept) error {
						contexts <- r.Context()
						return nil
					}
				}
				return s
			}
			t.Run(fmt.Sprintf("%s, OnUpgrade %t", name, asks), func(t *testing.T) {
				overServers(t, server, func(t *testing.T, dial dialFunc, s *Server) {
					c := dial(t)
					c.Handshake("/")
					c.SendText("opened")
					c.WantText("opened")
					n := 2
					if asks {
						n = 3
					}
					for i := range n {
						ctx := <-contexts
						if err := ctx.Err(); err != nil {
							t.Errorf("context %d while the connection is open: %v", i, context.Cause(ctx))
						}
						defer func() {
							<-ctx.Done()
							if cause := context.Cause(ctx); CloseStatus(cause) != 4000 || ctx.Err() != context.Canceled {
								t.Errorf("context %d: %v, cause %v; want the *EndError of 4000", i, ctx.Err(), cause)
							}
							if _, inside := ctx.Value(http.ServerContextKey).(*http.Server); inside != strings.Contains(t.Name(), "/http") {
								t.Errorf("context %d has net/http's values: %t", i, inside)
							}
							if _, ok := ctx.Deadline(); ok {
								t.Errorf("context %d has a deadline", i)
							}
						}()
					}
					c.Close(4000)
				})
			})
		}
	}
}

// Of a request that was refused the context ends with why.
func TestRefusedRequestContext(t *testing.T) {
	contexts := make(chan context.Context, 1)
	server := func() *Server {
		return &Server{Handler: echoEvents(), Upgrader: Upgrader{OnUpgrade: func(r *http.Request, a *Accept) error {
			contexts <- r.Context()
			return &HandshakeError{http.StatusTeapot, "tea?"}
		}}}
	}
	overServers(t, server, func(t *testing.T, dial dialFunc, s *Server) {
		c := dial(t)
		c.SendRequest("/")
		c.ReadResponse()
		ctx := <-contexts
		<-ctx.Done()
		var refused *HandshakeError
		if err := context.Cause(ctx); !errors.As(err, &refused) || refused.Status != http.StatusTeapot {
			t.Errorf("the cause is %v; want the refusal", err)
		}
	})
}

// net/http's request is its own, and its middleware's: it stays as it was.
func TestRequestOfNetHTTPIsLeftAlone(t *testing.T) {
	for _, asks := range []bool{false, true} {
		s := &Server{Handler: echoEvents()}
		if asks {
			s.Upgrader.OnUpgrade = func(*http.Request, *Accept) error { return nil }
		}
		t.Cleanup(func() { s.Close() })
		same := make(chan bool, 1)
		ln := websockettest.Serve(t, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx := r.Context()
			s.ServeHTTP(w, r)
			same <- r.Context() == ctx
		})})
		c := websockettest.Dial(t, ln, "/")
		if !<-same {
			t.Errorf("OnUpgrade %t: net/http's request has another context behind ServeHTTP", asks)
		}
		c.Close(1000)
	}
}

// Who keeps the request or its context keeps nothing of the handshake.
func TestRequestKeepsNoHandshake(t *testing.T) {
	for _, asks := range []bool{false, true} {
		requests := make(chan *http.Request, 1)
		for name, handler := range eitherHandler(func(_ *Conn, r *http.Request, _ []byte) { requests <- r }) {
			s := &Server{Handler: handler}
			if asks {
				s.Upgrader.OnUpgrade = func(*http.Request, *Accept) error { return nil }
			}
			ln := listen(t)
			serve(t, s, ln)
			nc, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			var h weak.Pointer[handshake]
			waitFor(t, "a handshake", func() bool {
				s.mu.Lock()
				defer s.mu.Unlock()
				for of := range s.handshakes {
					h = weak.Make(of)
				}
				return h.Value() != nil
			})
			c := websockettest.NewClient(t, nc)
			c.Handshake("/")
			r := <-requests
			waitFor(t, fmt.Sprintf("%s, OnUpgrade %t: the handshake's memory is free", name, asks), func() bool {
				runtime.GC()
				return h.Value() == nil
			})
			if r.Context().Err() != nil || r.Header.Get("Upgrade") != "websocket" {
				t.Errorf("%s, OnUpgrade %t: the request is %+v, its context %v", name, asks, r, r.Context())
			}
			c.Close(1000)
		}
	}
}

// Upgrade has no Server whose handler could be another: its caller serves, and
// has the request whose context is the connection's.
func TestAcceptWithoutServer(t *testing.T) {
	for _, asks := range []bool{false, true} {
		u := new(Upgrader)
		if asks {
			u.OnUpgrade = func(_ *http.Request, a *Accept) error {
				a.Data, a.Handler = "jane", Events{OnOpen: func(*Conn, *http.Request) { t.Error("OnOpen was called") }}
				return nil
			}
		}
		client, nc := websockettest.Pipe()
		shaken := make(chan struct{})
		go func() {
			defer close(shaken)
			websockettest.NewClient(t, client).Handshake("/")
		}()
		c, r, err := u.Upgrade(nc)
		<-shaken
		if err != nil {
			t.Fatal(err)
		}
		if asks && c.Data != "jane" {
			t.Errorf("Data = %v; want jane", c.Data)
		}
		if err := r.Context().Err(); err != nil {
			t.Errorf("the request's context: %v", err)
		}
		c.CloseNow()
		<-r.Context().Done()
		if cause := context.Cause(r.Context()); CloseStatus(cause) != CloseAbnormal || context.Cause(c.Context()) != cause {
			t.Errorf("the cause is %v, and %v of Context; want the *EndError", cause, context.Cause(c.Context()))
		}
	}
}

// A refusal is seen, with its request, in every way in, whatever refused it, and
// a hook that panics costs nothing.
func TestOnRefuse(t *testing.T) {
	type refusal struct {
		target string
		status int
		text   string
	}
	tests := []struct {
		request []byte
		want    refusal
	}{
		{request("X-Ticket: none"), refusal{"/chat", 403, errNoTicket.Error()}},
		{request("Origin: https://evil.example"), refusal{"/chat", 403, "evil.example"}},
		{request("Sec-WebSocket-Version: 13"), refusal{"/chat", 400, "2 Sec-WebSocket-Version"}},
		{[]byte("GET / HTTP/1.1\r\n\r\n"), refusal{"", 400, "Host"}},
	}
	seen := make(chan refusal, 1)
	server := func() *Server {
		return &Server{Handler: echoEvents(), MaxConns: 1, Upgrader: Upgrader{
			OnUpgrade: func(r *http.Request, a *Accept) error {
				if r.Header.Get("X-Ticket") == "none" {
					return errNoTicket
				}
				return nil
			},
			OnRefuse: func(r *http.Request, status int, err error) {
				var e *HandshakeError
				if !errors.As(err, &e) || r.RemoteAddr == "" {
					t.Errorf("OnRefuse(%v, %d, %v); want a *HandshakeError and the client's address", r, status, err)
				}
				seen <- refusal{r.RequestURI, status, err.Error()}
				panic("boom")
			},
		}}
	}
	overServers(t, server, func(t *testing.T, dial dialFunc, s *Server) {
		for _, test := range tests {
			if test.want.target == "" && strings.Contains(t.Name(), "/http") {
				continue // net/http itself answers
			}
			c := dial(t)
			c.SendRaw(test.request)
			if resp := c.ReadResponse(); resp.StatusCode != test.want.status {
				t.Errorf("%q is answered with %s; want %d", test.request, resp.Status, test.want.status)
			}
			c.Cut() // the server waits for that, for a moment
			if got := <-seen; got.target != test.want.target || got.status != test.want.status || !strings.Contains(got.text, test.want.text) {
				t.Errorf("OnRefuse saw %+v of %q; want %+v", got, test.request, test.want)
			}
		}
		waitFor(t, "room for one", func() bool { return s.Stats().Handshaking == 0 })
		c := dial(t)
		c.Handshake("/")
		more := dial(t)
		more.SendRequest("/")
		if resp := more.ReadResponse(); resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("one too many is answered with %s", resp.Status)
		}
		more.Cut()
		if got := <-seen; got.status != 503 || !strings.Contains(got.text, "Server.MaxConns") {
			t.Errorf("OnRefuse saw %+v of one too many", got)
		}
		c.Close(1000)
	})
}

// Who is served by Events is on the loop, and who isn't is not, whatever the
// Server's own Handler is and who has accepted.
func TestAcceptHandlerOnLoop(t *testing.T) {
	onLoop := make(chan bool, 1)
	handlers := eitherHandler(func(c *Conn, r *http.Request, _ []byte) {
		if r != nil {
			_, on := c.NetConn().(*netloop.Socket)
			onLoop <- on
		}
	})
	for name, own := range map[string]Handler{"Events": handlers["Events"], "HandlerFunc": handlers["HandlerFunc"], "none": nil} {
		s := &Server{Handler: own, Upgrader: Upgrader{OnUpgrade: func(r *http.Request, a *Accept) error {
			a.Handler = handlers[r.URL.Path[1:]]
			return nil
		}}}
		ln := listen(t)
		serve(t, s, ln)
		for path := range handlers {
			c := websockettest.Dial(t, ln, "/"+path)
			if on := <-onLoop; on != (netloop.Supported && path == "Events") {
				t.Errorf("a Server of %s, a route of %s: on the loop %t", name, path, on)
			}
			c.Close(1000)
		}
	}
}
