//go:build linux && !noloop

package netloop

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// What the system says reaches the caller as package net would have it.
func TestSystemErrors(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(*Socket) error
		want syscall.Errno
	}{
		{"a write behind CloseWrite", func(s *Socket) error { s.CloseWrite(); _, err := s.Write([]byte("x")); return err }, syscall.EPIPE},
		{"an option of another kind of socket", func(s *Socket) error { return s.LimitUnsent() }, syscall.EOPNOTSUPP},
		{"keep-alive of a unix socket", func(s *Socket) error { return s.SetKeepAlivePeriod(time.Second) }, syscall.EOPNOTSUPP},
	} {
		_, s, _, h := serveTold(t, "unix")
		s.Notify()
		h.call(t, func(s *Socket) bool {
			err := test.do(s)
			var op *net.OpError
			if !errors.Is(err, test.want) || !errors.As(err, &op) || op.Net != "unix" {
				t.Errorf("%s: %v, want %v in a *net.OpError", test.name, err, test.want)
			}
			return end(s)
		})
	}
}

// A reset is told by reads and writes of every kind.
func TestResetEverywhere(t *testing.T) {
	for name, do := range map[string]func(*Socket) error{
		"Read":    func(s *Socket) error { _, err := s.Read(make([]byte, 1)); return err },
		"TryRead": func(s *Socket) error { _, err := s.TryRead(make([]byte, 1)); return err },
		"WriteAll": func(s *Socket) (err error) {
			_, err = s.WriteAll([]byte("x"), []byte("y"), nil)
			return err
		},
	} {
		_, s, nc, h := serveTold(t, "tcp")
		nc.(*net.TCPConn).SetLinger(0)
		nc.Close()
		h.call(t, func(*Socket) bool {
			if err := do(s); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
				t.Errorf("%s of a socket that was reset: %v", name, err)
			}
			return end(s)
		})
	}
}

// Who waits, or would, is told of the end, and of a deadline that has passed.
func TestWaitsThatEnd(t *testing.T) {
	_, s, _, h := serveTold(t, "tcp")
	s.Notify()
	h.call(t, func(s *Socket) bool {
		if n, err := s.TryWrite(nil, nil); n != 0 || err != nil {
			t.Errorf("TryWrite of nothing: %d, %v", n, err)
		}
		if err := s.waitWrite(); err != nil {
			t.Errorf("waitWrite with room: %v", err)
		}
		s.SetWriteDeadline(time.Now().Add(-time.Second))
		if err := s.waitWrite(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("waitWrite behind the deadline: %v", err)
		}
		if _, err := s.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write behind the deadline: %v", err)
		}
		s.SetWriteDeadline(time.Time{})
		return end(s)
	})
	for name, err := range map[string]error{
		"waitWrite": s.waitWrite(), "arm": s.waiting().arm(s, eventOut), "CloseWrite": s.CloseWrite(),
		"Serve": s.Serve(nil), "Close": s.Close(), "SetDeadline": s.SetDeadline(time.Now()),
	} {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s of a closed socket: %v, want %v", name, err, net.ErrClosed)
		}
	}
	if _, err := s.File(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("File of a closed socket: %v", err)
	}
	if _, err := s.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write of a closed socket: %v", err)
	}
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read of a closed socket: %v", err)
	}
	s.Start() // does nothing
}

// A peer that has closed its side and reads nothing doesn't keep a writer busy.
func TestWriterOfAHalfClosedPeer(t *testing.T) {
	for _, network := range networks {
		_, _, nc, h := serveTold(t, network)
		nc.(interface{ CloseWrite() error }).CloseWrite()
		h.call(t, func(s *Socket) bool {
			fill := func() {
				for err := error(nil); err == nil; {
					_, err = s.TryWrite(make([]byte, 1<<20), nil)
				}
			}
			fill()
			s.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
			woken := 0
			for s.waitWrite() == nil {
				woken++
				fill()
			}
			if woken > 100 {
				t.Errorf("%s: a writer was woken %d times within 100 ms", network, woken)
			}
			return end(s)
		})
	}
}

// A socket that isn't served doesn't wait, and closes like any other.
func TestNotServed(t *testing.T) {
	client, server := pair(t)
	var loop Loop
	s, err := loop.Adopt(server)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, errNotServed) {
		t.Errorf("Read of a socket that isn't served: %v, want %v", err, errNotServed)
	}
	s.Notify()
	s.SetReadDeadline(time.Now())
	s.WantWrite(writer(s.Notify))
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("its client read %v, want %v", err, io.EOF)
	}
}

// A handler may leave the socket to another.
func TestBecome(t *testing.T) {
	_, s, nc, h := serveTold(t, "tcp")
	next := &told{make(chan struct{}), make(chan func(*Socket) bool)}
	s.Notify()
	h.call(t, func(s *Socket) bool { s.Become(next); return false })
	nc.Write([]byte("x"))
	next.call(t, end)
}

// A descriptor that epoll doesn't take, as that of a file, isn't served.
func TestServeOfAFile(t *testing.T) {
	f, err := os.Open(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	s := &Socket{fd: int32(fd)}
	s.setNames(new(Loop), "", "")
	s.state.Store(stateRunning)
	if err := s.Serve(nil); !errors.Is(err, syscall.EPERM) || s.loop().set != nil {
		t.Errorf("Serve of a file: %v, want %v; the loop has %v", err, syscall.EPERM, s.loop().set)
	}
	s.Start()
	if _, err := s.Unsent(); !errors.Is(err, syscall.ENOTTY) {
		t.Errorf("Unsent of a file: %v, want %v", err, syscall.ENOTTY)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// An event that was taken for a descriptor whose number has a new owner is nobody's.
func TestGenerations(t *testing.T) {
	var table table
	if s := table.find(3, 1); s != nil {
		t.Errorf("an empty table finds %v", s)
	}
	old, s := &Socket{fd: 2000}, &Socket{fd: 2000}
	table.put(old)
	table.put(s)
	table.put(&Socket{fd: 3})
	if table.find(2000, old.generation) != nil || table.find(2000, s.generation) != s {
		t.Error("an event of the old owner's finds the new one, or the new one's nobody")
	}
	table.remove(old) // which isn't there any more
	if table.find(2000, s.generation) != s {
		t.Error("the old owner's end has removed the new one")
	}
	if table.remove(s); table.find(2000, s.generation) != nil || table.find(1<<20, 1) != nil {
		t.Error("a socket that was removed is found")
	}
}

func TestAddrs(t *testing.T) {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		addr [16]byte
		zone uint32
		want string
	}{
		{[16]byte{15: 1}, 0, "::1"},
		{[16]byte{10: 0xff, 11: 0xff, 12: 1, 15: 4}, 0, "1.0.0.4"},
		{[16]byte{0xfe, 0x80, 15: 1}, uint32(lo.Index), "fe80::1%lo"},
		{[16]byte{0xfe, 0x80, 15: 1}, 1 << 30, "fe80::1"},
	} {
		if got := unmappedIP(test.addr, test.zone).String(); got != test.want {
			t.Errorf("unmappedIP(%v, %d) = %v, want %v", test.addr, test.zone, got, test.want)
		}
	}
	if got := new(rawAddr).addrPort(); got.IsValid() {
		t.Errorf("the address of no socket is %v", got)
	}
	if got := unixName(&syscall.SockaddrUnix{Name: "s"}) + unixName(&syscall.SockaddrInet4{}); got != "s" {
		t.Errorf("the names of a unix and another address are %q, want s and nothing", got)
	}
	if got := unmapped(&net.UnixAddr{}); got.IsValid() {
		t.Errorf("unmapped(a unix address) = %v", got)
	}
	for d, want := range map[time.Duration]int{-1: -1, 0: 0, 1: 1, time.Second: 1, time.Second + 1: 2} {
		if got := seconds(d); got != want {
			t.Errorf("seconds(%v) = %d, want %d", d, got, want)
		}
	}
}

// A set whose descriptor is gone says so, and its worker ends.
func TestEpollFails(t *testing.T) {
	if n, failed := epollNow(-1, make([]syscall.EpollEvent, 1)); n != 0 || !failed {
		t.Errorf("epollNow of no descriptor: %d, %v, want 0, true", n, failed)
	}
}
