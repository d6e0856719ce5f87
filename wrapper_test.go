package websocket

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A wrapper is what applications put around a socket: it embeds the
// *net.TCPConn, and with it every method that isn't about reading or writing.
type wrapper struct {
	*net.TCPConn
	in, out atomic.Int64
	xor     byte          // of every byte on the wire
	most    int           // of one Read or Write, 0 for no limit
	pause   time.Duration // before each
	closed  atomic.Bool
}

func (w *wrapper) slice(p []byte) []byte {
	if w.pause > 0 {
		time.Sleep(w.pause)
	}
	if w.most > 0 {
		p = p[:min(len(p), w.most)]
	}
	return p
}

func (w *wrapper) Read(p []byte) (int, error) {
	n, err := w.TCPConn.Read(w.slice(p))
	w.in.Add(int64(n))
	for i := range p[:n] {
		p[i] ^= w.xor
	}
	return n, err
}

func (w *wrapper) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		part := append([]byte(nil), w.slice(p[n:])...)
		for i := range part {
			part[i] ^= w.xor
		}
		var m int
		m, err = w.TCPConn.Write(part)
		w.out.Add(int64(m))
		n += m
	}
	return n, err
}

func (w *wrapper) Close() error {
	w.closed.Store(true)
	return w.TCPConn.Close()
}

// wrappers make one of each kind around a socket.
var wrappers = map[string]func(*net.TCPConn) *wrapper{
	"counting": func(nc *net.TCPConn) *wrapper { return &wrapper{TCPConn: nc} },
	"throttling": func(nc *net.TCPConn) *wrapper {
		return &wrapper{TCPConn: nc, most: 32 << 10, pause: 50 * time.Microsecond}
	},
	"transforming": func(nc *net.TCPConn) *wrapper { return &wrapper{TCPConn: nc, xor: 0x5a} },
}

// A wrappingListener wraps what it accepts.
type wrappingListener struct {
	net.Listener
	wrap func(*net.TCPConn) *wrapper

	mu  sync.Mutex
	all []*wrapper
}

func (l *wrappingListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	w := l.wrap(nc.(*net.TCPConn))
	l.mu.Lock()
	l.all = append(l.all, w)
	l.mu.Unlock()
	return w, nil
}

// wrappedWays serve what ln accepts in each of the ways there are.
var wrappedWays = map[string]func(t *testing.T, h Handler, ln net.Listener){
	"Serve": func(t *testing.T, h Handler, ln net.Listener) { serve(t, &Server{Handler: h}, ln) },
	"net/http": func(t *testing.T, h Handler, ln net.Listener) {
		hs := &http.Server{Handler: &Server{Handler: h}}
		go hs.Serve(ln)
		t.Cleanup(func() { hs.Close() })
	},
	"Server.HTTP": func(t *testing.T, h Handler, ln net.Listener) {
		serve(t, &Server{Handler: h, HTTP: plainHandler}, ln)
	},
	"Upgrade": func(t *testing.T, h Handler, ln net.Listener) {
		go func() {
			for {
				nc, err := ln.Accept()
				if err != nil {
					return
				}
				go func() {
					if c, r, err := Upgrade(nc); err == nil {
						h.ServeWebSocket(c, r)
						c.Close(CloseNormal, "")
					}
				}()
			}
		}()
	},
}

// wrappedHandlers echo, and send one message in each of the other ways.
func wrappedHandlers() map[string]Handler {
	message := func(c *Conn, t MessageType, p []byte) {
		switch string(p) {
		case "ping":
			c.Ping([]byte("from the server"))
		case "send":
			c.Send(NewPreparedMessage(TextMessage, []byte(strings.Repeat("sent ", 2000))))
		case "broadcast":
			var room Group
			room.Join(c)
			room.Broadcast(NewPreparedMessage(TextMessage, []byte(strings.Repeat("to all ", 2000))))
		default:
			c.WriteMessage(t, p)
		}
	}
	return map[string]Handler{
		"Events": Events{OnMessage: message},
		"HandlerFunc": HandlerFunc(func(c *Conn, _ *http.Request) {
			for m, err := range c.Messages() {
				if err != nil {
					return
				}
				message(c, m.Type, m.Data)
			}
		}),
	}
}

// A connection that embeds a *net.TCPConn and reads and writes by itself is
// read and written by itself, whatever the way in: each byte of the client's
// goes through its Read, each of ours through its Write, and its Close ends it.
func TestWrappersAreHonoured(t *testing.T) {
	for kind, wrap := range wrappers {
		for way, start := range wrappedWays {
			for name, h := range wrappedHandlers() {
				t.Run(fmt.Sprintf("%s/%s/%s", kind, way, name), func(t *testing.T) {
					t.Parallel()
					ln := &wrappingListener{Listener: listen(t), wrap: wrap}
					start(t, h, ln)
					far := wrap(dialAddr(t, ln.Addr().String()).(*net.TCPConn))
					p := newPeer(t, far)
					if way == "Server.HTTP" { // what came before isn't skipped either
						p.send([]byte("GET /a HTTP/1.1\r\nHost: x\r\n\r\n"))
						p.wantAnswer(200, `GET /a "" <nil> TLS false`)
					}
					p.handshake()
					p.wantEcho("small")
					big := strings.Repeat("0123456789abcdef", 1<<16)
					p.wantEcho(big)
					p.send(clientFrame(opPing, true, "from the client"))
					p.want(opPong, "from the client")
					p.sendText("ping")
					p.want(opPing, "from the server")
					p.sendText("send")
					p.want(opText, strings.Repeat("sent ", 2000))
					p.sendText("broadcast")
					p.want(opText, strings.Repeat("to all ", 2000))
					p.closeWith(CloseNormal, "")
					near := ln.all[0]
					eventually(t, "the wrapper's Close was called", near.closed.Load)
					if in, out := near.in.Load(), near.out.Load(); in != far.out.Load() || out != far.in.Load() {
						t.Errorf("%d bytes went through Read and %d through Write; the client has sent %d and received %d", in, out, far.out.Load(), far.in.Load())
					}
				})
			}
		}
	}
}

// The server's own pings and its close frame at Shutdown go through Write too.
func TestWrapperAtShutdown(t *testing.T) {
	ln := &wrappingListener{Listener: listen(t), wrap: wrappers["transforming"]}
	s := &Server{Handler: Events{}, Upgrader: Upgrader{PingInterval: 20 * time.Millisecond}}
	serve(t, s, ln)
	p := newPeer(t, ln.wrap(dialAddr(t, ln.Addr().String()).(*net.TCPConn)))
	p.handshake()
	for range 2 {
		h, payload, err := p.frame()
		if err != nil || h.opcode != opPing {
			t.Fatalf("peer: %v, %v; want a ping", h.opcode, err)
		}
		p.send(clientFrame(opPong, true, payload))
	}
	done := shutDown(s, context.Background())
	p.wantClosed(CloseGoingAway, "")
	if err := <-done; err != nil {
		t.Errorf("Shutdown = %v", err)
	}
}
