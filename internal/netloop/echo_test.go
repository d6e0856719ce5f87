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
	"sync"
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
	nap     time.Duration // of each call of Ready
	block   chan struct{} // what each call waits for; nil for nothing
	blocked atomic.Int32  // calls that have waited
	room    atomic.Int64  // of the last worker's buffer
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
	if h.e.nap > 0 {
		time.Sleep(h.e.nap)
	}
	if h.e.block != nil {
		h.e.blocked.Add(1)
		<-h.e.block
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

func serveEcho(t testing.TB, network string, nap time.Duration) *echoServer {
	t.Helper()
	return (&echoServer{TB: t, nap: nap}).serve(network)
}

func (e *echoServer) serve(network string) *echoServer {
	t := e.TB
	t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = filepath.Join(t.TempDir(), "s")
	}
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	e.ln, e.ends, e.churned = ln, make(chan error, 1), make(chan *Socket, 64)
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
			e := serveEcho(t, network, 0)
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
			e := serveEcho(t, network, 0)
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

// Callbacks that block stop only their own connection.
func TestBlockingCallbacks(t *testing.T) {
	const conns, rounds, nap = 200, 5, 20 * time.Millisecond
	e := serveEcho(t, "tcp", nap)
	var all sync.WaitGroup
	began := time.Now()
	for range conns {
		nc := e.dial()
		all.Go(func() {
			for range rounds {
				roundTrip(t, nc, 10)
			}
		})
	}
	all.Wait()
	sleepers := func() int {
		b := &e.loop.set.baton
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.sleepers
	}
	if n := sleepers(); n < 5 {
		t.Errorf("%d goroutines wait for the next callback that blocks, want some", n)
	}
	eventually(t, "those that nobody needs have ended", func() bool {
		e.loop.Trim()
		return sleepers() == 1
	})
	if took := time.Since(began); took > conns*rounds*nap/4 {
		t.Errorf("%d callbacks of %v took %v: they waited for each other", conns*rounds, nap, took)
	}
}

// Many callbacks that block leave no worker behind that goes on with the small buffer
// of one in a crowd.
func TestBuffersBehindACrowd(t *testing.T) {
	e := (&echoServer{TB: t, block: make(chan struct{})}).serve("tcp")
	var all []net.Conn
	for range 100 {
		nc := e.dial()
		nc.Write([]byte("x"))
		all = append(all, nc)
	}
	eventually(t, "all callbacks block", func() bool { return e.blocked.Load() == 100 })
	close(e.block)
	for _, nc := range all {
		if _, err := io.ReadFull(nc, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
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
	e := serveEcho(t, "tcp", 0)
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
