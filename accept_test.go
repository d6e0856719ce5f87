package websocket

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/rawws/websocket/websockettest"
)

// A dialFunc connects a client to a server, whatever is between them.
type dialFunc func(t *testing.T) *websockettest.Client

// overServers serves s in every way that there is, and runs f as a subtest of each:
// what s decides must not depend on it. The fields of s are copied.
func overServers(t *testing.T, server func() *Server, f func(t *testing.T, dial dialFunc)) {
	way := func(name string, dial func(t *testing.T, s *Server) dialFunc) {
		t.Run(name, func(t *testing.T) {
			s := server()
			t.Cleanup(func() { s.Close() })
			f(t, dial(t, s))
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
	way("net/http", func(t *testing.T, s *Server) dialFunc {
		web := httptest.NewServer(s)
		t.Cleanup(web.Close)
		return over(web.Listener)
	})
	way("second request", func(t *testing.T, s *Server) dialFunc {
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
			overServers(t, server, func(t *testing.T, dial dialFunc) {
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
