package websocket

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A stuckListener accepts one connection that may block, and others behind it.
type stuckListener struct {
	net.Listener
	method  string                 // that does
	in      atomic.Pointer[string] // from then on
	release chan struct{}
	first   atomic.Bool // was accepted
}

func (l *stuckListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil || l.first.Swap(true) {
		return nc, err
	}
	stuck := panickingConn{nc, &l.in, l.release}
	if l.method == "NetConn" {
		return frankConn{stuck, false}, nil
	}
	return toughConn{stuck}, nil
}

// overStuck runs f with connections that block, each in one of its methods, as it is
// closed or its peer is silent, and with another one that lives.
func overStuck(t *testing.T, u Upgrader, f func(t *testing.T, s *Server, lives *peer)) {
	for _, kind := range []string{"Events", "HandlerFunc"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			release, lns := make(chan struct{}), make(map[string]*stuckListener)
			for _, method := range []string{"", "Read", "Write", "Close", "SetReadDeadline", "SetWriteDeadline", "CloseWrite", "SetLinger", "SyscallConn", "NetConn"} {
				for _, when := range []string{"close", "silence"} {
					lns[when+" "+method] = &stuckListener{Listener: listen(t), method: method, release: release}
				}
			}
			h := eitherHandler(func(c *Conn, _ *http.Request, text []byte) {
				if text == nil {
					return
				}
				ln := lns[string(text)]
				c.SetWriteDeadline(time.Now().Add(time.Minute))
				ln.in.Store(&ln.method)
				if strings.HasPrefix(string(text), "close") {
					c.Close(CloseNormal, "")
				}
			})[kind]
			s := &Server{Handler: h, Upgrader: u, ErrorLog: new(logBook).logger()}
			var peers []*peer
			defer func() {
				close(release)
				for _, p := range peers {
					p.nc.Close()
				}
				eventually(t, "nothing is left", s.isAtRest)
			}()
			for text, ln := range lns {
				serve(t, s, ln)
				stuck := newPeer(t, dialAddr(t, ln.Addr().String()))
				peers = append(peers, stuck)
				stuck.handshake()
				stuck.sendText(text)
				eventually(t, "it has begun", func() bool { return ln.in.Load() != nil })
			}
			lives := newPeer(t, dialAddr(t, lns["silence "].Addr().String())) // where the first was another
			peers = append(peers, lives)
			lives.handshake()
			f(t, s, lives)
		})
	}
}

// Nobody else's pings and timeouts wait for a net.Conn of the application's that blocks.
func TestSweeperOfStuckConn(t *testing.T) {
	t.Parallel()
	const timeout = time.Second // which is the living one's, too
	u := Upgrader{PingInterval: 20 * time.Millisecond, PongTimeout: timeout, CloseTimeout: timeout}
	overStuck(t, u, func(t *testing.T, s *Server, lives *peer) {
		for began := time.Now(); time.Since(began) < timeout*3/2; {
			h, payload, err := lives.anyFrame()
			if err != nil || h.opcode != opPing {
				t.Fatalf("another gets %v, %v; want its pings", h.opcode, err)
			}
			lives.send(clientFrame(opPong, true, payload))
		}
	})
}

// Shutdown returns when its context ends, and Close at once; meanwhile the others are
// told.
func TestShutdownOfStuckConn(t *testing.T) {
	t.Parallel()
	overStuck(t, Upgrader{PingInterval: -1}, shutsDownBeside)
}

// shutsDownBeside shuts s down: lives is told meanwhile, and the end of the context is
// the end of Shutdown.
func shutsDownBeside(t *testing.T, s *Server, lives *peer) {
	ctx, cancel := context.WithCancel(t.Context())
	done := shutDown(s, ctx)
	lives.wantClose(CloseGoingAway, "")
	lives.send(closeFrame(CloseGoingAway, ""))
	lives.wantEnd()
	cancel()
	if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown = %v, want nil, or the end of the context", err)
	}
}

// The same while a connection is in its handshake, or net/http's with a page.
func TestShutdownOfStuckHandshake(t *testing.T) {
	for _, method := range []string{"SetReadDeadline", "SetWriteDeadline", "Close", "NetConn"} {
		for name, request := range map[string]string{"half a request": peerRequest[:40], "a page": "GET /page HTTP/1.1\r\nHost: x\r\n\r\n",
			"a page, over": "GET / HTTP/1.1\r\nHost: x\r\n\r\n"} {
			t.Run(method+"/"+name, func(t *testing.T) {
				t.Parallel()
				ln := &stuckListener{Listener: listen(t), method: method, release: make(chan struct{})}
				asked, end := make(chan struct{}), make(chan struct{})
				s := &Server{Handler: Events{}, ErrorLog: new(logBook).logger(), HTTP: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/page" {
						close(asked)
						<-end
					}
				})}
				serve(t, s, ln)
				stuck, lives := newPeer(t, dialAddr(t, ln.Addr().String())), newPeer(t, dialAddr(t, ln.Addr().String()))
				stuck.send([]byte(request))
				switch name {
				case "a page":
					<-asked
				case "a page, over":
					stuck.answer()
				}
				lives.handshake()
				ln.in.Store(&method)
				shutsDownBeside(t, s, lives)
				close(end)
				close(ln.release)
				eventually(t, "nothing is left", s.isAtRest)
			})
		}
	}
}

// Who accepts doesn't wait for one that is refused.
func TestRefusalOfStuckConn(t *testing.T) {
	ln := &stuckListener{Listener: listen(t), method: "Close", release: make(chan struct{})}
	ln.in.Store(&ln.method)
	s := &Server{Handler: Events{}, MaxConns: 1, ErrorLog: new(logBook).logger()}
	s.refusing.Store(maxRefusals) // so that it is closed at once
	serve(t, s, listen(t))
	s.init()
	s.mu.Lock()
	s.places[forSocket]++
	s.mu.Unlock()
	serve(t, s, ln)
	for range 3 {
		p := newPeer(t, dialAddr(t, ln.Addr().String()))
		p.wantEnd()
	}
	close(ln.release)
	s.mu.Lock()
	s.places[forSocket]--
	s.mu.Unlock()
	eventually(t, "nothing is left", s.isAtRest)
}
