package websocket

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// testCertificate is for server.example, made once.
var testCertificate = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{"server.example"},
		// Whichever test comes first makes it, and may live in a bubble's year 2000.
		NotBefore: time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:  time.Now().AddDate(100, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
})

// clientTLS trusts testCertificate, and nothing else.
func clientTLS() *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(testCertificate().Leaf)
	return &tls.Config{RootCAs: roots, ServerName: "server.example"}
}

// serveTLS runs s over TLS on a port of its own until the test ends, and
// returns its address.
func serveTLS(t testing.TB, s *Server) string {
	t.Helper()
	if s.TLSConfig == nil {
		s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{testCertificate()}}
	}
	ln := listen(t)
	done := make(chan error)
	go func() { done <- s.ServeTLS(ln, "", "") }()
	t.Cleanup(func() {
		s.Close()
		if err := <-done; err != ErrServerClosed {
			t.Errorf("ServeTLS = %v, want %v", err, ErrServerClosed)
		}
	})
	return ln.Addr().String()
}

func dialAddr(t testing.TB, addr string) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(patience))
	return nc
}

func dialTLS(t testing.TB, addr string, config *tls.Config) *peer {
	t.Helper()
	return newPeer(t, tls.Client(dialAddr(t, addr), config))
}

// eventually waits until what it is asked for holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for wait := 50 * time.Microsecond; !holds(); wait = min(2*wait, 20*time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after %v it doesn't hold that %s", patience, what)
		}
		time.Sleep(wait)
	}
}

// echoHandler echoes, and passes the requests on.
func echoHandler(requests chan<- *http.Request) Handler {
	return HandlerFunc(func(c *Conn, r *http.Request) {
		if requests != nil {
			requests <- r
		}
		for m, err := range c.Messages() {
			if err != nil || c.WriteMessage(m.Type, m.Data) != nil {
				return
			}
		}
	})
}

// The client's closing handshake and the server's are whole over each version:
// the peer reads the close frame and TLS's own end behind it.
func TestTLS(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			requests := make(chan *http.Request, 2)
			s := &Server{Handler: echoHandler(requests)}
			addr := serveTLS(t, s)
			config := clientTLS()
			config.MinVersion, config.MaxVersion = version, version
			config.NextProtos = []string{"h2", "http/1.1"}

			p := dialTLS(t, addr, config)
			p.handshake()
			r := <-requests
			if r.TLS == nil || r.TLS.Version != version || r.TLS.NegotiatedProtocol != "http/1.1" {
				t.Errorf("the request's TLS is %+v, want one of %s that agreed on http/1.1", r.TLS, tls.VersionName(version))
			}
			long := strings.Repeat("0123456789", 100_000)
			for _, text := range []string{"short", long} {
				go p.nc.Write(textFrame(text))
				p.want(opText, text)
			}
			p.closeWith(CloseNormal, "")

			p = dialTLS(t, addr, config)
			p.handshake()
			<-requests // now it is among the connections
			for c := range s.Conns() {
				go c.Close(4001, "enough")
			}
			p.wantClose(4001, "enough")
			go p.nc.Write(append(textFrame(long), closeFrame(4001, "")...)) // in flight
			p.wantEnd()
			eventually(t, "no connection is open", func() bool { return s.Stats().Open == 0 })
			if got := s.Stats().ClosedByServer[4000]; got != 1 {
				t.Errorf("ends by the server with 4000 to 4999: %d, want 1", got)
			}
		})
	}
}

func TestTLSIsRestricted(t *testing.T) {
	loose := func() *tls.Config {
		return &tls.Config{
			Certificates: []tls.Certificate{testCertificate()},
			NextProtos:   []string{"h2"}, MinVersion: tls.VersionTLS10,
		}
	}
	chosen := loose()
	chosen.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return loose(), nil }
	same := loose()
	same.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, nil }
	for name, server := range map[string]*tls.Config{"plain": loose(), "GetConfigForClient": chosen, "GetConfigForClient of nil": same} {
		t.Run(name, func(t *testing.T) {
			s := &Server{Handler: echoHandler(nil), TLSConfig: server, ErrorLog: new(logBook).logger()}
			addr := serveTLS(t, s)
			for _, test := range []struct {
				name   string
				change func(*tls.Config)
				want   string // in the client's error
			}{
				{"TLS 1.1", func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, "protocol version"},
				{"h2 only", func(c *tls.Config) { c.NextProtos = []string{"h2"} }, "no application protocol"},
			} {
				config := clientTLS()
				test.change(config)
				err := tls.Client(dialAddr(t, addr), config).Handshake()
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("%s: Handshake = %v, want an error with %q", test.name, err, test.want)
				}
			}
			p := dialTLS(t, addr, clientTLS())
			p.handshake()
			p.closeWith(CloseNormal, "")
			eventually(t, "two handshakes have failed", func() bool { return s.Stats().Failed == 2 })
		})
	}
	server := loose()
	restrictTLS(server)
	if server.NextProtos[0] != "h2" || server.MinVersion != tls.VersionTLS10 {
		t.Errorf("the application's configuration was changed: %v, %x", server.NextProtos, server.MinVersion)
	}
}

func TestTLSGetCertificate(t *testing.T) {
	names := make(chan string, 1)
	s := &Server{Handler: echoHandler(nil), TLSConfig: &tls.Config{
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			names <- hello.ServerName
			cert := testCertificate()
			return &cert, nil
		},
	}}
	p := dialTLS(t, serveTLS(t, s), clientTLS())
	p.handshake()
	if got := <-names; got != "server.example" {
		t.Errorf("GetCertificate was asked for %q, want server.example", got)
	}
	p.closeWith(CloseNormal, "")
}

// A client that stalls inside the TLS handshake, or after it and before its
// request, is cut when HandshakeTimeout is over, also where it would only get
// a refusal.
func TestTLSStalled(t *testing.T) {
	testCertificate() // which is valid for long before there is a bubble
	stalls := map[string]func(t *testing.T, nc net.Conn){
		"at once":      func(*testing.T, net.Conn) {},
		"in the hello": func(t *testing.T, nc net.Conn) { nc.Write([]byte{22, 3, 1, 2, 0, 1}) },
		"behind TLS": func(t *testing.T, nc net.Conn) {
			if err := tls.Client(nc, clientTLS()).Handshake(); err != nil {
				t.Error(err)
			}
		},
	}
	for name, stall := range stalls {
		for _, refused := range []bool{false, true} {
			if refused && name == "behind TLS" {
				continue // which is answered
			}
			t.Run(fmt.Sprintf("%s, refused %t", name, refused), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { stallOverTLS(t, stall, refused) })
			})
		}
	}
}

// stallOverTLS wants one that stalls to be cut in time; refused, because there is one
// connection too many.
func stallOverTLS(t *testing.T, stall func(t *testing.T, nc net.Conn), refused bool) {
	s := &Server{Handler: echoHandler(nil), ErrorLog: new(logBook).logger(), MaxConns: 1,
		Upgrader: Upgrader{HandshakeTimeout: 3 * time.Second}}
	ln := newPipeListener()
	serveTLSPipes(t, s, ln)
	want := 3 * time.Second
	if refused {
		newPeer(t, tls.Client(ln.dial(t).nc, clientTLS())).handshake()
		want = refusalTime
	}
	p := ln.dial(t)
	start := time.Now()
	stall(t, p.nc)
	if n, err := io.Copy(io.Discard, p.nc); refused && n > 0 || isTimeout(err) {
		t.Errorf("it has read %d bytes, %v; want its socket to be closed", n, err)
	}
	if took := time.Since(start); took != want {
		t.Errorf("it was cut after %v, want %v", took, want)
	}
	synctest.Wait()
	if got := s.Stats(); got.Handshaking != 0 || !refused && got.Failed != 1 {
		t.Errorf("%d in their handshake, %d failed; want 0 and 1", got.Handshaking, got.Failed)
	}
}

// One over MaxConns that shakes hands reads why it is refused.
func TestTLSRefused(t *testing.T) {
	s := &Server{Handler: echoHandler(nil), ErrorLog: new(logBook).logger(), MaxConns: 1}
	addr := serveTLS(t, s)
	p := dialTLS(t, addr, clientTLS())
	p.handshake()
	refused := dialTLS(t, addr, clientTLS())
	refused.send([]byte(peerRequest))
	answer, err := io.ReadAll(refused.nc)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 503 ") || !strings.Contains(string(answer), "\r\nRetry-After: ") {
		t.Errorf("over MaxConns: %q, %v; want a whole 503 with Retry-After", answer, err)
	}
	p.closeWith(CloseNormal, "")
}

// Who writes ws: for wss: must read why it fails; a reset tells nobody.
func TestPlainRequestOnTLS(t *testing.T) {
	s := &Server{Handler: echoHandler(nil)}
	nc := dialAddr(t, serveTLS(t, s))
	io.WriteString(nc, peerRequest)
	answer, err := io.ReadAll(nc)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") || !strings.Contains(string(answer), "wss:") {
		t.Errorf("ws: on the port of wss: %q, %v; want 400 with a text that names wss:", answer, err)
	}
	if got := s.Stats().Refused[http.StatusBadRequest]; got != 1 {
		t.Errorf("refused with 400: %d, want 1", got)
	}
}

func TestTLSCallbackPanics(t *testing.T) {
	var book logBook
	var calls atomic.Int32
	s := &Server{Handler: echoHandler(nil), ErrorLog: book.logger(), TLSConfig: &tls.Config{
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if calls.Add(1) == 1 {
				panic("no certificate")
			}
			cert := testCertificate()
			return &cert, nil
		},
	}}
	addr := serveTLS(t, s)
	if err := tls.Client(dialAddr(t, addr), clientTLS()).Handshake(); err == nil {
		t.Errorf("the handshake whose GetCertificate panicked has succeeded")
	}
	p := dialTLS(t, addr, clientTLS())
	p.handshake()
	p.closeWith(CloseNormal, "")
	eventually(t, "a panic and a failed handshake are counted", func() bool {
		got := s.Stats()
		return got.Panics == 1 && got.Failed == 1
	})
	lines := book.all()
	if len(lines) == 0 || !strings.Contains(lines[0], "no certificate") || !strings.Contains(lines[0], "TestTLSCallbackPanics") {
		t.Errorf("the log says %q, want the panic and its stack", lines)
	}
}

// A 101 that the deadline stops has been counted by TLS. An alert behind it
// would be the record after one that never came, and look like an attack.
func TestTLSDeadlineStops101(t *testing.T) {
	server, client := tcpPair(t)
	u := &Upgrader{OnUpgrade: func(*http.Request, *Accept) error {
		return server.SetWriteDeadline(time.Unix(1, 0))
	}}
	done := make(chan error, 1)
	go func() {
		_, _, err := u.Upgrade(tls.Server(server, &tls.Config{Certificates: []tls.Certificate{testCertificate()}}))
		done <- err
	}()
	p := newPeer(t, tls.Client(client, clientTLS()))
	p.send([]byte(peerRequest))
	if err := p.receive(); err != io.EOF && err != io.ErrUnexpectedEOF {
		t.Errorf("the client read %q, then %v; want the stream's end", p.in, err)
	}
	if err := <-done; !isTimeout(errors.Unwrap(err)) {
		t.Errorf("Upgrade = %v, want one that a deadline caused", err)
	}
}

// What an application makes of a TLS connection may embed it.
type ownTLSListener struct{ net.Listener }

type ownTLSConn struct{ *tls.Conn }

func (l ownTLSListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return ownTLSConn{tls.Server(nc, &tls.Config{Certificates: []tls.Certificate{testCertificate()}})}, nil
}

// A connection that embeds a *tls.Conn is TLS, to requests and to the rule of
// Origin, for every request on it and behind a proxy, as net/http has it.
func TestTLSOfTheApplication(t *testing.T) {
	newServer := func() *Server {
		return &Server{Handler: echoEvents(), HTTP: plainHandler, ErrorLog: new(logBook).logger()}
	}
	ways := map[string]func(t *testing.T, s *Server, ln net.Listener){
		"Serve": func(t *testing.T, s *Server, ln net.Listener) { serve(t, s, ln) },
		"behind a proxy": func(t *testing.T, s *Server, ln net.Listener) {
			s.ProxyProtocol = ourProxies
			serve(t, s, ln)
		},
		"net/http": func(t *testing.T, s *Server, ln net.Listener) {
			hs := &http.Server{Handler: s}
			go hs.Serve(ln)
			t.Cleanup(func() { hs.Close() })
		},
	}
	for way, start := range ways {
		t.Run(way, func(t *testing.T) {
			ln := ownTLSListener{listen(t)}
			start(t, newServer(), ln)
			dial := func() *peer {
				nc := dialAddr(t, ln.Addr().String())
				if way == "behind a proxy" {
					io.WriteString(nc, proxyV1)
				}
				return newPeer(t, tls.Client(nc, clientTLS()))
			}
			foreign := strings.Replace(peerRequest, "\r\n\r\n", "\r\nOrigin: http://server.example\r\n\r\n", 1)
			for _, page := range []bool{false, true} {
				p := dial()
				if page {
					p.send([]byte("GET /a HTTP/1.1\r\nHost: server.example\r\n\r\n"))
					p.wantAnswer(200, `GET /a "" <nil> TLS true`)
				}
				p.send([]byte(foreign))
				if resp, text := p.answer(); resp.StatusCode != http.StatusForbidden {
					t.Errorf("an insecure page (behind a request: %t) is answered with %s %q", page, resp.Status, text)
				}
			}
			p := dial()
			p.handshake()
			p.wantEcho("hello")
			p.closeWith(CloseNormal, "")
		})
	}
}
