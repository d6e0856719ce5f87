package websocket

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rawws/websocket/internal/netloop"
	"github.com/rawws/websocket/websockettest"
)

const (
	proxyV1      = "PROXY TCP4 203.0.113.9 192.0.2.2 4711 80\r\n"
	proxyV2      = "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xcb\x00\x71\x09\xc0\x00\x02\x02\x12\x67\x00\x50"
	proxyUnknown = "PROXY UNKNOWN\r\n"
	proxyLocal   = "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
)

// ourProxies are where the tests' clients come from.
var ourProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("192.0.2.0/24")}

// underTLS returns a client of what c's TLS, if it has any, is on.
func underTLS(t *testing.T, c *websockettest.Client) *websockettest.Client {
	if tc, ok := c.NetConn().(*tls.Conn); ok {
		return websockettest.NewClient(t, tc.NetConn())
	}
	return c
}

// A named proxy gives the client's address, whatever the version, and however
// its bytes come; its own connections have their own.
func TestProxyProtocol(t *testing.T) {
	addresses := make(chan string, 3)
	server := func() *Server {
		return &Server{
			ProxyProtocol: ourProxies,
			Upgrader: Upgrader{OnUpgrade: func(r *http.Request, _ *Accept) error {
				addresses <- r.RemoteAddr
				return nil
			}},
			Handler: Events{OnOpen: func(c *Conn, r *http.Request) {
				addresses <- r.RemoteAddr
				addresses <- c.RemoteAddr().String()
				if _, tcp := c.NetConn().(*net.TCPConn); netloop.Supported && tcp {
					t.Error("the connection isn't on the loop")
				}
			}},
		}
	}
	overServers(t, server, func(t *testing.T, dial dialFunc, s *Server) {
		if strings.Contains(t.Name(), "/http") {
			return // there is no header behind the one that sent the first request
		}
		for _, test := range []struct{ header, want string }{
			{proxyV1, "203.0.113.9:4711"}, {proxyV2, "203.0.113.9:4711"}, {proxyUnknown, ""}, {proxyLocal, ""},
		} {
			for _, step := range []int{1000, 7, 1} {
				c := dial(t)
				raw := underTLS(t, c)
				raw.SendSlowly([]byte(test.header), step, 0)
				c.SendSlowly(request(), step*20, 0)
				if status := c.ReadResponse().StatusCode; status != http.StatusSwitchingProtocols {
					t.Fatalf("%q is answered with %d", test.header, status)
				}
				want := test.want
				if want == "" {
					want = raw.NetConn().LocalAddr().String()
				}
				for i := range 3 {
					if got := <-addresses; got != want {
						t.Errorf("address %d behind %q is %s; want %s", i, test.header, got, want)
					}
				}
				c.Close(1000)
			}
		}
	})
}

// Pages are behind the proxy too, and so is a request that follows one.
func TestProxyProtocolPages(t *testing.T) {
	s := &Server{
		ProxyProtocol: ourProxies, MaxConns: 1,
		Handler: Events{OnOpen: func(c *Conn, r *http.Request) {
			c.WriteMessage(TextMessage, []byte(r.RemoteAddr+" "+c.RemoteAddr().String()))
		}},
		HTTP: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RemoteAddr) }),
	}
	ln := listen(t)
	serve(t, s, ln)
	for range 2 { // the second is one over MaxConns
		nc, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c := websockettest.NewClient(t, nc)
		c.SendRaw([]byte(proxyV2 + "GET / HTTP/1.1\r\nHost: server.example\r\n\r\n"))
		if body, _ := io.ReadAll(c.ReadResponse().Body); string(body) != "203.0.113.9:4711" {
			t.Errorf("the page's request is of %s", body)
		}
		if s.Stats().Open == 0 {
			c.Handshake("/")
			c.WantText("203.0.113.9:4711 203.0.113.9:4711")
			defer c.Close(1000)
		}
	}
}

// The client that counts is the one behind the proxy, and who isn't named lies.
func TestProxyProtocolCounts(t *testing.T) {
	var book logBook
	s := &Server{
		ProxyProtocol: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, MaxConnsPerIP: 1,
		Handler: Events{}, ErrorLog: book.logger(),
	}
	ln := websockettest.Serve(t, s)
	dial := func(from, header string) (*websockettest.Client, int) {
		nc, err := ln.DialFrom(from)
		if err != nil {
			t.Fatal(err)
		}
		c := websockettest.NewClient(t, nc)
		c.SendRaw(append([]byte(header), request()...))
		return c, c.ReadResponse().StatusCode
	}
	for _, test := range []struct {
		from, header string
		want         int
	}{
		{"10.0.0.1:1000", "PROXY TCP4 203.0.113.1 10.0.0.9 1000 80\r\n", 101},
		{"10.0.0.1:1001", "PROXY TCP4 203.0.113.2 10.0.0.9 1000 80\r\n", 101},
		{"10.0.0.2:1002", "PROXY TCP4 203.0.113.1 10.0.0.9 1001 80\r\n", 429},
		{"203.0.113.2:1003", "", 429},
		{"203.0.113.3:1004", "PROXY TCP4 203.0.113.4 10.0.0.9 1000 80\r\n", 400},
		{"203.0.113.3:1005", proxyV2, 400},
		{"203.0.113.3:1006", "", 101},
	} {
		c, status := dial(test.from, test.header)
		if status != test.want {
			t.Errorf("%q from %s is answered with %d; want %d", test.header, test.from, status, test.want)
		}
		if status != 101 {
			c.Cut()
		} else {
			defer c.Close(1000)
		}
	}
	for i, header := range []string{"GET / HTTP/1.1\r\n\r\n", "PROXY TCP5 \r\n", proxyV1[:10]} {
		nc, _ := ln.DialFrom("10.0.0.1:2000")
		c := websockettest.NewClient(t, nc)
		c.SendRaw([]byte(header))
		nc.(interface{ CloseWrite() error }).CloseWrite()
		if f, err := c.ReadFrame(); err == nil {
			t.Errorf("%q from a named proxy is answered with %v", header, f)
		}
		waitFor(t, "the handshake counted as failed", func() bool { return s.Stats().Failed == uint64(i+1) })
	}
	if lines := strings.Join(book.all(), ""); !strings.Contains(lines, "level=ERROR") || !strings.Contains(lines, "Server.ProxyProtocol") {
		t.Errorf("logged %s; want the proxy's fault as an error", lines)
	}
}

// A header that doesn't come is part of the handshake's time; Shutdown and Close
// find the connection meanwhile, under TLS too.
func TestProxyProtocolStalls(t *testing.T) {
	for _, end := range []string{"HandshakeTimeout", "Close", "Shutdown"} {
		for _, secure := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				s := &Server{ProxyProtocol: ourProxies, Handler: Events{}, ErrorLog: new(logBook).logger()}
				ln := websockettest.NewListener()
				if secure {
					serve(t, s, tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{testCertificate()}}))
				} else {
					serve(t, s, ln)
				}
				nc, _ := ln.Dial()
				nc.Write([]byte(proxyV2[:20]))
				synctest.Wait()
				start, want := time.Now(), time.Duration(0)
				switch end {
				case "HandshakeTimeout":
					want = 10 * time.Second
				case "Close":
					s.Close()
				case "Shutdown":
					want = time.Second
					go s.Shutdown(context.Background())
				}
				io.Copy(io.Discard, nc)
				if got := time.Since(start); got < want || got > want+time.Second {
					t.Errorf("%s, TLS %t: ended after %v; want %v", end, secure, got, want)
				}
				nc.Close()
			})
		}
	}
}

// One too many is told so under TLS too, whose hello is behind the header.
func TestProxyProtocolTurnedAway(t *testing.T) {
	server := func() *Server { return &Server{ProxyProtocol: ourProxies, MaxConns: 1, Handler: Events{}} }
	overServers(t, server, func(t *testing.T, dial dialFunc, s *Server) {
		if strings.Contains(t.Name(), "/http") {
			return
		}
		for i, want := range []int{101, 503} {
			c := dial(t)
			underTLS(t, c).SendRaw([]byte(proxyV1))
			c.SendRequest("/")
			if status := c.ReadResponse().StatusCode; status != want {
				t.Errorf("client %d is answered with %d; want %d", i, status, want)
			}
			defer c.Cut()
		}
	})
}

// A client behind a proxy has as many sockets of plain HTTP as another, also when
// there is no place among the WebSockets.
func TestProxyProtocolCountsPages(t *testing.T) {
	for _, full := range []bool{false, true} {
		s := &Server{
			ProxyProtocol: ourProxies, MaxConns: 2, MaxConnsPerIP: 2, Handler: Events{}, HTTP: http.NotFoundHandler(),
			ErrorLog: new(logBook).logger(),
		}
		dial := serveTCP(t, s)
		for range 2 {
			if full {
				p := dial()
				p.send([]byte("PROXY TCP4 203.0.113.1 192.0.2.2 4711 80\r\n" + peerRequest))
				p.wantBytes(peerAnswer)
			}
		}
		for i, want := range []int{404, 404, 429} {
			p := dial()
			p.send([]byte(proxyV1 + "GET / HTTP/1.1\r\nHost: server.example\r\n\r\n"))
			if resp, text := p.answer(); resp.StatusCode != want {
				t.Errorf("MaxConns reached %t: page %d is answered with %s %q, want %d", full, i, resp.Status, text, want)
			}
		}
		s.Close()
		eventually(t, "nothing is left", s.isAtRest)
	}
}
