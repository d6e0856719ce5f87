//go:build linux && !noloop

package netloop

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A told is a handler that only tells the test of its calls. The test then has
// the socket to itself, in the role of the goroutine that runs Ready.
type told struct {
	ready chan struct{} // a call of Ready has begun
	next  chan func(*Socket) bool
}

func (h *told) Ready(s *Socket, _ *Worker) bool {
	h.ready <- struct{}{}
	return (<-h.next)(s)
}

// call lets the next call of Ready run f, and returns when it has.
func (h *told) call(t *testing.T, f func(*Socket) (more bool)) {
	t.Helper()
	select {
	case <-h.ready:
		done := make(chan struct{})
		h.next <- func(s *Socket) bool {
			defer close(done)
			return f(s)
		}
		<-done
	case <-time.After(20 * time.Second):
		t.Fatal("Ready wasn't called")
	}
}

func serveTold(t *testing.T, network string) (*Loop, *Socket, net.Conn, *told) {
	t.Helper()
	e := serveEcho(t, network)
	e.a.Stop() // this test accepts by itself
	t.Cleanup(func() { e.a.Serve(func() bool { return false }) })
	nc := e.dial()
	var s *Socket
	eventually(t, "the client is accepted", func() (ok bool) {
		var err error
		s, err = e.a.Accept()
		return err == nil
	})
	h := &told{make(chan struct{}), make(chan func(*Socket) bool)}
	if err := s.Serve(h); err != nil {
		t.Fatal(err)
	}
	s.Start()
	return &e.loop, s, nc, h
}

func end(s *Socket) bool {
	s.Close()
	s.Done()
	return false
}

func TestAddresses(t *testing.T) {
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			_, s, nc, h := serveTold(t, network)
			check := func(when string) {
				t.Helper()
				if network == "tcp" && (s.RemoteAddr().String() != nc.LocalAddr().String() || s.RemoteAddrPort().String() != nc.LocalAddr().String()) {
					t.Errorf("%s: RemoteAddr() = %v, want %v", when, s.RemoteAddr(), nc.LocalAddr())
				}
				if s.LocalAddr().String() != nc.RemoteAddr().String() || s.LocalAddr().Network() != network {
					t.Errorf("%s: LocalAddr() = %v, want %v", when, s.LocalAddr(), nc.RemoteAddr())
				}
			}
			check("open")
			s.Notify()
			h.call(t, end)
			check("closed")
		})
	}
}

// The address of a wildcard listener isn't that of its sockets.
func TestWildcardAddress(t *testing.T) {
	ln, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var loop Loop
	a := loop.Listen(ln)
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	for _, host := range []string{"127.0.0.1", "127.0.0.2"} {
		nc, err := net.Dial("tcp", net.JoinHostPort(host, port))
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		eventually(t, "the client is accepted", func() bool {
			s, err := a.Accept()
			if err != nil {
				return false
			}
			defer s.Close()
			if s.LocalAddr().String() != nc.RemoteAddr().String() {
				t.Errorf("LocalAddr() = %v, want %v", s.LocalAddr(), nc.RemoteAddr())
			}
			return true
		})
	}
}

func TestReadDeadline(t *testing.T) {
	_, s, nc, h := serveTold(t, "tcp")
	s.SetReadDeadline(time.Now().Add(time.Millisecond))
	h.call(t, func(s *Socket) bool {
		if _, err := s.TryRead(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("TryRead behind the deadline: %v, want %v", err, os.ErrDeadlineExceeded)
		}
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read behind the deadline: %v, want %v", err, os.ErrDeadlineExceeded)
		}
		return false
	})
	nc.Write([]byte("x"))
	h.call(t, func(s *Socket) bool {
		if n, err := s.TryRead(make([]byte, 10)); n != 1 || err != nil {
			t.Errorf("TryRead of what came, behind the deadline: %d, %v, want 1", n, err)
		}
		s.SetDeadline(time.Time{})
		if _, err := s.TryRead(make([]byte, 10)); err != ErrWait {
			t.Errorf("TryRead without a deadline: %v, want %v", err, ErrWait)
		}
		return end(s)
	})
	if err := s.SetDeadline(time.Now()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("SetDeadline of a closed socket: %v, want %v", err, net.ErrClosed)
	}
}

// A deadline may be of the wall clock alone, and further away than a Duration.
func TestOddDeadlines(t *testing.T) {
	_, s, _, h := serveTold(t, "tcp")
	s.SetReadDeadline(time.Now().Add(time.Millisecond).Round(0))
	h.call(t, func(s *Socket) bool {
		if _, err := s.TryRead(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("TryRead behind the deadline: %v, want %v", err, os.ErrDeadlineExceeded)
		}
		return false
	})
	s.SetReadDeadline(time.Now().AddDate(1000, 0, 0))
	s.Notify()
	h.call(t, func(s *Socket) bool {
		if _, err := s.TryRead(make([]byte, 1)); err != ErrWait {
			t.Errorf("TryRead long before the deadline: %v, want %v", err, ErrWait)
		}
		return end(s)
	})
}

// A Read that waits is woken by bytes, by its deadline and by Close.
func TestReadWaits(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(*Socket, net.Conn)
		want error
	}{
		{"bytes", func(_ *Socket, nc net.Conn) { nc.Write([]byte("x")) }, nil},
		{"the end", func(_ *Socket, nc net.Conn) { nc.Close() }, io.EOF},
		{"a deadline", func(s *Socket, _ net.Conn) { s.SetReadDeadline(time.Now()) }, os.ErrDeadlineExceeded},
		{"Close", func(s *Socket, _ net.Conn) { s.Close() }, net.ErrClosed},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, s, nc, h := serveTold(t, "tcp")
			s.Notify()
			h.call(t, func(s *Socket) bool {
				go func() {
					waitFor(t, s, true)
					test.do(s, nc)
				}()
				if _, err := s.Read(make([]byte, 1)); !errors.Is(err, test.want) {
					t.Errorf("Read woken by %s: %v, want %v", test.name, err, test.want)
				}
				return end(s)
			})
		})
	}
}

// waitFor waits until somebody waits to read, or to write.
func waitFor(t *testing.T, s *Socket, read bool) {
	eventually(t, "somebody waits", func() bool {
		w := s.waiting()
		w.mu.Lock()
		defer w.mu.Unlock()
		if read {
			return w.read.wake != nil
		}
		return w.write.wake != nil
	})
}

// A Write that waits is woken by room, by its deadline, and by Close.
func TestWriteWaits(t *testing.T) {
	const size = 16 << 20
	for _, network := range networks {
		for _, test := range []struct {
			name string
			do   func(*Socket, net.Conn)
			want error
		}{
			{"room", func(_ *Socket, nc net.Conn) { io.ReadFull(nc, make([]byte, size+1)) }, nil},
			{"the end", func(_ *Socket, nc net.Conn) { nc.Close() }, nil}, // whatever error
			{"a deadline", func(s *Socket, _ net.Conn) { s.SetWriteDeadline(time.Now()) }, os.ErrDeadlineExceeded},
			{"Close", func(s *Socket, _ net.Conn) { s.Close() }, net.ErrClosed},
		} {
			t.Run(network+" "+test.name, func(t *testing.T) {
				_, s, nc, h := serveTold(t, network)
				s.Notify()
				h.call(t, func(s *Socket) bool {
					done := make(chan struct{})
					go func() {
						defer close(done)
						waitFor(t, s, false)
						if n, err := s.Unsent(); n == 0 || err != nil {
							t.Errorf("Unsent() = %d, %v with a full socket", n, err)
						}
						test.do(s, nc)
					}()
					n, err := s.WriteAll([]byte("x"), make([]byte, size), nil)
					if test.want != nil && !errors.Is(err, test.want) || test.name == "room" && (n != size+1 || err != nil) || test.name == "the end" && err == nil {
						t.Errorf("WriteAll woken by %s: %d, %v, want %v", test.name, n, err, test.want)
					}
					<-done
					return end(s)
				})
			})
		}
	}
}

// A writer is called when there is room.
type writer func()

func (w writer) Writable() { w() }

// WantWrite brings a call of Writable when there is room, while Ready runs as well.
func TestWantWrite(t *testing.T) {
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			_, s, nc, h := serveTold(t, network)
			s.Notify()
			told := make(chan struct{}, 1)
			fill := func() (sent int) {
				for {
					n, err := s.TryWrite(make([]byte, 1<<20), []byte("y"))
					if sent += n; err == ErrWait {
						break
					}
				}
				s.WantWrite(writer(func() { told <- struct{}{} }))
				return sent
			}
			room := func(when string, sent int) {
				if _, err := io.ReadFull(nc, make([]byte, sent)); err != nil {
					t.Fatal(err)
				}
				<-told
				if n, err := s.TryWrite(nil, []byte("z")); n != 1 || err != nil {
					t.Errorf("TryWrite when Writable was called %s: %d, %v", when, n, err)
				}
				io.ReadFull(nc, make([]byte, 1))
			}
			sent := 0
			h.call(t, func(s *Socket) bool {
				room("while Ready runs", fill())
				sent = fill()
				return false
			})
			room("behind Ready", sent)
			s.Notify()
			h.call(t, end)
		})
	}
}

func TestHangup(t *testing.T) {
	_, s, nc, h := serveTold(t, "tcp")
	s.Notify()
	h.call(t, func(s *Socket) bool {
		told := make(chan struct{}, 10)
		s.OnHangup(func() { told <- struct{}{} })
		nc.Close()
		<-told
		s.OnHangup(nil)
		s.OnHangup(func() { told <- struct{}{} }) // it has hung up already
		<-told
		return false
	})
	h.call(t, func(s *Socket) bool {
		if !s.HungUp() {
			t.Error("HungUp() = false behind a FIN")
		}
		return end(s)
	})
}

// What runtime.Goexit ends in a callback is the worker, not the loop.
func TestGoexit(t *testing.T) {
	_, s, nc, h := serveTold(t, "tcp")
	for range 3 {
		nc.Write([]byte("x"))
		h.call(t, func(s *Socket) bool {
			runtime.Goexit()
			return false
		})
		h.call(t, func(s *Socket) bool { // once more, since it didn't come back
			s.TryRead(make([]byte, 10))
			return false
		})
	}
	s.Notify()
	h.call(t, func(s *Socket) bool {
		end(s)
		runtime.Goexit()
		return false
	})
}

// A call that asks for one more gets it, behind the others'.
func TestMore(t *testing.T) {
	_, s, _, h := serveTold(t, "tcp")
	s.Notify()
	for range 3 {
		h.call(t, func(*Socket) bool { return true })
	}
	h.call(t, end)
}

func TestDetach(t *testing.T) {
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			_, s, nc, h := serveTold(t, network)
			given := make(chan net.Conn, 1)
			s.Notify()
			h.call(t, func(s *Socket) bool {
				free, err := s.Detach()
				if err != nil {
					t.Error(err)
				}
				given <- free
				return false
			})
			free := <-given
			defer free.Close()
			go io.Copy(free, free)
			roundTrip(t, nc, 100_000)
			if !strings.HasPrefix(free.RemoteAddr().Network(), network) {
				t.Errorf("a detached socket is of %v", free.RemoteAddr().Network())
			}
		})
	}
}

func TestAdopt(t *testing.T) {
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			e := serveEcho(t, network)
			e.a.Stop()
			t.Cleanup(func() { e.a.Serve(func() bool { return false }) })
			nc := e.dial()
			accepted, err := e.ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			s, err := e.loop.Adopt(accepted)
			if err != nil {
				t.Fatal(err)
			}
			if network == "tcp" && s.RemoteAddr().String() != nc.LocalAddr().String() || s.LocalAddr().String() != e.ln.Addr().String() {
				t.Errorf("adopted: %v to %v, want %v to %v", s.RemoteAddr(), s.LocalAddr(), nc.LocalAddr(), e.ln.Addr())
			}
			e.open.Add(1)
			if err := s.Serve(&echo{e: e}); err != nil {
				t.Fatal(err)
			}
			s.Start()
			roundTrip(t, nc, 100_000)
			if _, err := e.loop.Adopt(accepted); err == nil {
				t.Error("a closed connection was adopted")
			}
		})
	}
	client, _ := net.Pipe()
	if _, err := new(Loop).Adopt(client); err == nil {
		t.Error("a pipe was adopted")
	}
	if new(Loop).Listen(struct{ net.Listener }{}) != nil {
		t.Error("Listen took a listener around another")
	}
	packets, err := net.Listen("unixpacket", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	if new(Loop).Listen(packets) != nil {
		t.Error("Listen took a listener of sockets that keep messages apart")
	}
	dialled, err := net.Dial("unixpacket", packets.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer dialled.Close()
	if _, err := new(Loop).Adopt(dialled); err == nil {
		t.Error("a socket that keeps messages apart was adopted")
	}
}

// Thousands of sockets are opened and closed by both sides at random, with calls
// of every kind from elsewhere: no call reaches a socket that got the number of
// another, and nothing is left.
func TestChurn(t *testing.T) {
	var all sync.WaitGroup
	for _, network := range networks {
		e := serveEcho(t, network)
		var clients sync.WaitGroup
		for range 8 {
			clients.Go(func() {
				for range 150 {
					churn(e, rand.IntN(6))
				}
			})
		}
		over := make(chan struct{})
		all.Go(func() {
			clients.Wait()
			close(over)
		})
		all.Go(func() { // from elsewhere
			for {
				select {
				case s := <-e.churned:
					meddle(s)
				case <-over:
					return
				}
			}
		})
	}
	all.Wait()
}

// meddle calls a method of a socket that others use.
func meddle(s *Socket) {
	switch rand.IntN(5) {
	case 0:
		s.SetReadDeadline(time.Now().Add(time.Millisecond))
	case 1:
		s.Notify()
	case 2:
		s.Unsent()
	case 3:
		s.SetNoDelay(true)
	default:
		s.Close()
		s.Notify()
	}
}

// churn is one client's life.
func churn(e *echoServer, how int) {
	nc, err := net.Dial(e.ln.Addr().Network(), e.ln.Addr().String())
	if err != nil {
		e.Errorf("dial: %v", err)
		return
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(20 * time.Second))
	message := []byte(nc.LocalAddr().String() + " is the only one who gets this")
	for range how {
		nc.Write(message)
		got := make([]byte, len(message))
		n, err := io.ReadFull(nc, got)
		if string(got[:n]) != string(message[:n]) {
			e.Errorf("a client got %q, sent was %q", got[:n], message)
		}
		if err != nil { // closed from elsewhere
			return
		}
	}
	if tc, ok := nc.(*net.TCPConn); ok && how == 3 {
		tc.SetLinger(0)
	}
}

func TestOptions(t *testing.T) {
	_, s, _, h := serveTold(t, "tcp")
	for name, set := range map[string]func() error{
		"SetNoDelay":         func() error { return s.SetNoDelay(false) },
		"SetKeepAlive":       func() error { return s.SetKeepAlive(true) },
		"SetKeepAlivePeriod": func() error { return s.SetKeepAlivePeriod(1500 * time.Millisecond) },
		"SetKeepAliveConfig": func() error { return s.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true}) },
		"keep-alive off":     func() error { return s.SetKeepAliveConfig(net.KeepAliveConfig{}) },
		"SetLinger":          func() error { return s.SetLinger(-1) },
		"SetReadBuffer":      func() error { return s.SetReadBuffer(8192) },
		"SetWriteBuffer":     func() error { return s.SetWriteBuffer(8192) },
		"LimitUnsent":        func() error { return s.LimitUnsent() },
		"CloseRead":          s.CloseRead,
		"CloseWrite":         s.CloseWrite,
	} {
		if err := set(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	var low int
	raw, err := s.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { low, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotsentLowat) })
	}
	if low != UnsentLimit || err != nil {
		t.Errorf("TCP_NOTSENT_LOWAT is %d, %v, want %d", low, err, UnsentLimit)
	}
	h.call(t, end)
	for name, err := range map[string]error{"SetNoDelay": s.SetNoDelay(true), "Close": s.Close(), "raw": raw.Control(nil)} {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s of a closed socket: %v, want %v", name, err, net.ErrClosed)
		}
	}
	if _, err := s.SyscallConn(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("SyscallConn of a closed socket: %v, want %v", err, net.ErrClosed)
	}
	if _, err := s.Unsent(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Unsent of a closed socket: %v, want %v", err, net.ErrClosed)
	}
}

// The raw connection's Read and Write wait as the socket's do.
func TestRawConn(t *testing.T) {
	_, s, nc, h := serveTold(t, "tcp")
	s.Notify()
	h.call(t, func(s *Socket) bool {
		raw, err := s.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		calls := 0
		go func() {
			waitFor(t, s, true)
			nc.Write([]byte("x"))
		}()
		if err := raw.Read(func(fd uintptr) bool {
			calls++
			n, _ := syscall.Read(int(fd), make([]byte, 1))
			return n == 1
		}); err != nil || calls < 2 {
			t.Errorf("raw Read: %v after %d calls, want two or more", err, calls)
		}
		if err := raw.Write(func(uintptr) bool { return true }); err != nil {
			t.Errorf("raw Write: %v", err)
		}
		s.SetReadDeadline(time.Now().Add(-time.Second))
		if err := raw.Read(func(uintptr) bool { return false }); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("raw Read behind the deadline: %v", err)
		}
		return end(s)
	})
}

// A listener that is closed is told by Open, and Accept says so.
func TestListenerClosed(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var loop Loop
	a := loop.Listen(ln)
	var calls atomic.Int32
	if err := a.Serve(func() bool { calls.Add(1); return false }); err != nil || !a.Open() {
		t.Fatalf("Serve: %v, Open() = %v", err, a.Open())
	}
	ln.Close()
	if _, err := a.Accept(); a.Open() || !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: Open() = %v, Accept = %v", a.Open(), err)
	}
	a.Stop()
	if err := a.Serve(func() bool { return false }); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve of a closed listener: %v, want %v", err, net.ErrClosed)
	}
	if calls.Load() != 0 || loop.set != nil {
		t.Errorf("%d calls for a listener without clients, set %v", calls.Load(), loop.set)
	}
}
