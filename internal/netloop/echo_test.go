//go:build linux && !noloop

package netloop

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// An echoServer is a bare echo on a loop.
type echoServer struct {
	testing.TB
	loop    Loop
	ln      net.Listener
	a       *Listener
	gate    atomic.Pointer[gate] // that each call of Ready waits at; nil for none
	room    atomic.Int64         // of the last worker's buffer
	open    atomic.Int32
	churned chan *Socket // gets every socket if there is room

	ends chan error // why a socket ended; what nobody takes is dropped
}

func (e *echoServer) accept() bool {
	for {
		s, err := e.a.Accept()
		if err != nil {
			if err != ErrWait && !errors.Is(err, net.ErrClosed) {
				e.Errorf("Accept: %v", err)
			}
			return false
		}
		e.open.Add(1)
		if err := s.Serve(&echo{e: e}); err != nil {
			e.Errorf("Serve: %v", err)
			continue
		}
		select {
		case e.churned <- s:
		default:
		}
		s.Start()
	}
}

type echo struct {
	e    *echoServer
	rest []byte // not written yet
}

func (h *echo) Ready(s *Socket, w *Worker) bool {
	if g := h.e.gate.Load(); g != nil {
		g.inside.Add(1)
		<-g.open
	}
	h.e.room.Store(int64(len(w.Buf)))
	for {
		if len(h.rest) > 0 {
			n, err := s.TryWrite(h.rest, nil)
			h.rest = h.rest[n:]
			if err == ErrWait {
				s.WantWrite(writer(s.Notify))
				return false
			}
			if err != nil {
				return h.close(s, err)
			}
			continue
		}
		n, err := s.TryRead(w.Buf)
		if err == ErrWait {
			return false
		}
		if err != nil {
			return h.close(s, err)
		}
		if m, err := s.TryWrite(w.Buf[:n], nil); m < n || err != nil {
			h.rest = append([]byte(nil), w.Buf[m:n]...)
		}
	}
}

func (h *echo) close(s *Socket, err error) bool {
	s.Close()
	s.Done()
	h.e.open.Add(-1)
	select {
	case h.e.ends <- err:
	default:
	}
	return false
}

var networks = []string{"tcp", "unix"}

func serveEcho(t testing.TB, network string) *echoServer {
	t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = filepath.Join(t.TempDir(), "s")
	}
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	e := &echoServer{TB: t, ln: ln, ends: make(chan error, 1), churned: make(chan *Socket, 64)}
	if e.a = e.loop.Listen(ln); e.a == nil {
		t.Fatalf("Listen doesn't know a %T", ln)
	}
	if err := e.a.Serve(e.accept); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		e.a.Stop()
		ln.Close()
		eventually(t, "the loop has ended", func() bool {
			e.loop.mu.Lock()
			defer e.loop.mu.Unlock()
			return e.loop.set == nil
		})
	})
	return e
}

// eventually waits for what another goroutine or the system is about to do.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("it never came to pass that %s", what)
		}
	}
}

func (e *echoServer) dial() net.Conn {
	e.Helper()
	nc, err := net.Dial(e.ln.Addr().Network(), e.ln.Addr().String())
	if err != nil {
		e.Fatal(err)
	}
	e.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(20 * time.Second))
	return nc
}

func roundTrip(t testing.TB, nc net.Conn, size int) {
	t.Helper()
	out, in := make([]byte, size), make([]byte, size)
	rand.Read(out)
	sent := make(chan error, 1)
	go func() {
		_, err := nc.Write(out)
		sent <- err
	}()
	if _, err := io.ReadFull(nc, in); err != nil {
		t.Fatalf("echo of %d bytes: %v", size, err)
	}
	if err := <-sent; err != nil || !bytes.Equal(in, out) {
		t.Fatalf("echo of %d bytes came back different, or %v", size, err)
	}
}

func TestEcho(t *testing.T) {
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			e := serveEcho(t, network)
			nc := e.dial()
			for _, size := range []int{1, 125, 4096, bigBuffer, bigBuffer + 1, 8 << 20} {
				roundTrip(t, nc, size)
			}
		})
	}
}

// Data and the end in one segment: everything comes back first.
func TestHalfClosed(t *testing.T) {
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			e := serveEcho(t, network)
			for range 50 {
				nc := e.dial()
				nc.Write([]byte("last words"))
				nc.(interface{ CloseWrite() error }).CloseWrite()
				got, err := io.ReadAll(nc)
				if string(got) != "last words" || err != nil {
					t.Fatalf("after FIN: %q, %v", got, err)
				}
			}
			eventually(t, "all have ended", func() bool { return e.open.Load() == 0 })
		})
	}
}

// A gate holds up calls of Ready, and counts them.
type gate struct {
	inside atomic.Int32
	open   chan struct{}
}

// blockAll sends a byte to each, waits until all of their callbacks block, and reads
// the answers.
func (e *echoServer) blockAll(conns []net.Conn) {
	e.Helper()
	g := &gate{open: make(chan struct{})}
	e.gate.Store(g)
	for _, nc := range conns {
		nc.Write([]byte("x"))
	}
	eventually(e, "all callbacks block", func() bool { return g.inside.Load() >= int32(len(conns)) })
	e.gate.Store(nil)
	close(g.open)
	for _, nc := range conns {
		if _, err := io.ReadFull(nc, make([]byte, 1)); err != nil {
			e.Fatal(err)
		}
	}
}

// Callbacks that block stop only their own connection: those of all block at the
// same time.
func TestBlockingCallbacks(t *testing.T) {
	const rounds = 5
	e := serveEcho(t, "tcp")
	conns := make([]net.Conn, 200)
	for i := range conns {
		conns[i] = e.dial()
	}
	for range rounds {
		e.blockAll(conns)
	}
	sleepers := func() int {
		b := &e.loop.set.baton
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.sleepers
	}
	eventually(t, "some wait for the next callback that blocks", func() bool { return sleepers() >= 5 })
	eventually(t, "those that nobody needs have ended", func() bool {
		e.loop.Trim()
		return sleepers() == 1
	})
}

// Many callbacks that block leave no worker behind that goes on with the small buffer
// of one in a crowd.
func TestBuffersBehindACrowd(t *testing.T) {
	e := serveEcho(t, "tcp")
	all := make([]net.Conn, 100)
	for i := range all {
		all[i] = e.dial()
	}
	e.blockAll(all)
	b, bigs := &e.loop.set.baton, &e.loop.set.bigs
	left := func() int {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.sleepers + 1
	}
	eventually(t, "as few are left as serve one client, with as many large buffers as may be", func() bool {
		e.loop.Trim()
		roundTrip(t, all[0], 10)
		n := left()
		return n <= 3 && bigs.Load() == min(mostBig(), int32(n))
	})
	eventually(t, "a large one is used", func() bool {
		roundTrip(t, all[0], 10)
		return e.room.Load() == bigBuffer
	})
}

func TestReset(t *testing.T) {
	e := serveEcho(t, "tcp")
	for range 50 {
		nc := e.dial()
		roundTrip(t, nc, 10)
		nc.(*net.TCPConn).SetLinger(0)
		nc.Close()
		if err := <-e.ends; err == nil || errors.Is(err, io.EOF) {
			t.Fatalf("a reset was read as %v", err)
		}
	}
}
