//go:build linux && !noloop

package netloop

import (
	"net"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Closing waits as SO_LINGER says, whoever has set it: where that isn't known it holds
// up the processor, and ends as soon as the runtime wants that back.
func TestLingers(t *testing.T) {
	on := func(c syscall.RawConn, err error) {
		if err != nil {
			t.Fatal(err)
		}
		c.Control(func(fd uintptr) {
			err = syscall.SetsockoptLinger(int(fd), syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1, Linger: 1})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	lingers := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error { on(c, nil); return nil }}
	_, adopted := pair(t)
	on(adopted.(*net.TCPConn).SyscallConn())
	s, err := new(Loop).Adopt(adopted)
	if err != nil {
		t.Fatal(err)
	}
	sockets := map[string]*Socket{"adopted": s, "listener": acceptBy(t, lingers)}
	for name, set := range map[string]func(s *Socket){
		"SetLinger":   func(s *Socket) { s.SetLinger(1) },
		"SyscallConn": func(s *Socket) { on(s.SyscallConn()) },
		"File": func(s *Socket) {
			f, err := s.File()
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			on(f.SyscallConn())
		},
	} {
		sockets[name] = acceptBy(t, net.ListenConfig{})
		set(sockets[name])
	}
	var all sync.WaitGroup
	for name, s := range sockets {
		for err := error(nil); err == nil; {
			_, err = s.TryWrite(make([]byte, 1<<20), nil)
		}
		all.Go(func() {
			began := time.Now()
			s.Close()
			if took := time.Since(began); took < 900*time.Millisecond {
				t.Errorf("%s: Close took %v, want a second", name, took)
			}
		})
	}
	all.Wait()
}

// acceptBy returns a socket of a listener of lc's.
func acceptBy(t *testing.T, lc net.ListenConfig) (s *Socket) {
	t.Helper()
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	a := new(Loop).Listen(ln)
	eventually(t, "the client is accepted", func() bool { s, err = a.Accept(); return err == nil })
	return s
}
