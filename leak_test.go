package websocket

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// hostileSockets are clients that want something else of the server than a
// connection. What they do is done with a new socket, which then waits for the
// server to close it.
var hostileSockets = []struct {
	name   string
	secure bool // on the port of TLS
	be     func(nc net.Conn)
}{
	{"silent", false, func(nc net.Conn) {}},
	{"silent", true, func(nc net.Conn) {}},
	{"half a request", false, func(nc net.Conn) { io.WriteString(nc, peerRequest[:50]) }},
	{"half a hello", true, func(nc net.Conn) { nc.Write([]byte{22, 3, 1, 2, 0, 1}) }},
	{"plain on TLS", true, func(nc net.Conn) { io.WriteString(nc, peerRequest) }},
	{"TLS on plain", false, func(nc net.Conn) { tls.Client(nc, clientTLS()).Handshake() }},
	{"garbage", true, func(nc net.Conn) { io.WriteString(nc, strings.Repeat("\xff\x00", 100)) }},
	{"reset", false, func(nc net.Conn) { nc.(*net.TCPConn).SetLinger(0); io.WriteString(nc, peerRequest) }},
	{"refused", false, func(nc net.Conn) {
		io.WriteString(nc, strings.Replace(peerRequest, "GET", "PUT", 1))
		io.Copy(io.Discard, nc)
	}},
	{"refused by OnUpgrade", false, func(nc net.Conn) { io.WriteString(nc, strings.Replace(peerRequest, "/chat", "/no", 1)) }},
	{"panic in OnUpgrade", false, func(nc net.Conn) { io.WriteString(nc, strings.Replace(peerRequest, "/chat", "/panic", 1)) }},
	{"Goexit in OnUpgrade", false, func(nc net.Conn) { io.WriteString(nc, strings.Replace(peerRequest, "/chat", "/exit", 1)) }},
	{"OnUpgrade hangs", false, func(nc net.Conn) { io.WriteString(nc, strings.Replace(peerRequest, "/chat", "/hang", 1)) }},
	{"a body that doesn't come", false, func(nc net.Conn) { io.WriteString(nc, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n") }},
	{"an idle socket of HTTP", false, func(nc net.Conn) { io.WriteString(nc, "GET / HTTP/1.1\r\nHost: x\r\n\r\n") }},
	{"half a second request", false, func(nc net.Conn) { io.WriteString(nc, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"+peerRequest[:50]) }},
	{"refused in its second request", false, func(nc net.Conn) {
		io.WriteString(nc, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"+strings.Replace(peerRequest, ": 13", ": 12", 1))
	}},
	{"gone behind the request", false, func(nc net.Conn) { io.WriteString(nc, peerRequest); nc.Close() }},
	{"half a frame", false, func(nc net.Conn) { io.WriteString(nc, peerRequest); nc.Write(textFrame("hello")[:5]) }},
	{"a broken rule", false, func(nc net.Conn) { io.WriteString(nc, peerRequest); nc.Write([]byte{0x83, 0x80}) }},
}

// leakServer returns a Server with every limit, with pages, and with an OnUpgrade
// that may do anything.
func leakServer(hang <-chan struct{}) *Server {
	return &Server{
		Handler: echoEvents(), HTTP: plainHandler, ErrorLog: new(logBook).logger(),
		MaxConns: 150, MaxConnsPerIP: 100, MaxHandshakes: 100, MaxHTTPConns: 100,
		HTTPServer: &http.Server{IdleTimeout: 100 * time.Millisecond},
		TLSConfig:  &tls.Config{Certificates: []tls.Certificate{testCertificate()}},
		Upgrader: Upgrader{HandshakeTimeout: 100 * time.Millisecond, CloseTimeout: 100 * time.Millisecond,
			PingInterval: 100 * time.Millisecond, PongTimeout: 100 * time.Millisecond,
			OnUpgrade: func(r *http.Request, _ *Accept) error {
				switch r.URL.Path {
				case "/no":
					return fmt.Errorf("no")
				case "/panic":
					panic("boom")
				case "/exit":
					runtime.Goexit()
				case "/hang":
					select {
					case <-hang:
					case <-r.Context().Done():
					}
				}
				return nil
			}},
	}
}

// crowd connects n clients to addr, some at a time, and waits for the server to
// close each.
func crowd(t *testing.T, n, atOnce int, addr string, be func(net.Conn)) {
	var wg sync.WaitGroup
	places := make(chan struct{}, atOnce)
	for range n {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			nc, err := net.Dial("tcp", addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer nc.Close()
			nc.SetDeadline(time.Now().Add(patience))
			be(nc)
			if _, err := io.Copy(io.Discard, nc); isTimeout(err) {
				t.Error("the socket is still open")
			}
		})
	}
	wg.Wait()
}

// isServed reports whether an echo server serves one more client: on a busy machine
// its timeouts may be over before, and some of a crowd that has gone still wait to be
// accepted.
func isServed(t *testing.T, addr string) bool {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(patience))
	const text = "still there"
	io.WriteString(nc, peerRequest)
	nc.Write(textFrame(text))
	want := peerAnswer + "\x81\x0b" + text
	answer := make([]byte, len(want))
	io.ReadFull(nc, answer)
	return string(answer) == want
}

// A thousand of each kind of hostile socket, 200 under the race detector,
// leave no goroutine, no descriptor and no entry of a table behind, and the next
// client is served.
func TestHostileSocketsLeaveNothing(t *testing.T) {
	sockets, atOnce := 1000, 250
	if raceDetector {
		sockets, atOnce = 200, 110
	}
	for _, kind := range hostileSockets {
		t.Run(fmt.Sprintf("%s, TLS %t", kind.name, kind.secure), func(t *testing.T) {
			goroutines, descriptors := runtime.NumGoroutine(), countDescriptors()
			hang := make(chan struct{})
			defer close(hang)
			s := leakServer(hang)
			plain, secure := listen(t), listen(t)
			done := make(chan error, 2)
			go func() { done <- s.Serve(plain) }()
			go func() { done <- s.ServeTLS(secure, "", "") }()
			addr := plain.Addr().String()
			if kind.secure {
				addr = secure.Addr().String()
			}
			crowd(t, sockets, atOnce, addr, kind.be)
			eventually(t, "nothing is counted or in a table", s.isAtRest)
			eventually(t, "nothing of the clients is left", func() bool {
				// The loop has descriptors of its own, and workers that sleep.
				return countDescriptors() <= descriptors+8 && runtime.NumGoroutine() <= goroutines+70
			})
			eventually(t, "the next client is served", func() bool { return isServed(t, plain.Addr().String()) })
			s.Close()
			for range 2 {
				if err := <-done; err != ErrServerClosed {
					t.Errorf("Serve = %v, want ErrServerClosed", err)
				}
			}
			eventually(t, "nothing at all is left", func() bool {
				return s.isAtRest() && countDescriptors() <= descriptors && runtime.NumGoroutine() <= goroutines
			})
		})
	}
}
