//go:build linux && !noloop

package netloop

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// Calls that were on their way when the last socket left reach no descriptor that
// has got the number of the set's by then.
func TestClosedSet(t *testing.T) {
	var loop Loop
	if err := loop.Hold(); err != nil {
		t.Fatal(err)
	}
	set := loop.set
	loop.Release()
	r, w, err := os.Pipe() // which gets the numbers
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	set.mu.Lock()
	set.polling = true
	set.wakefd = int(w.Fd())
	set.mu.Unlock()
	set.push(new(Socket))
	r.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if n, err := r.Read(make([]byte, 8)); n > 0 || err == nil {
		t.Errorf("%d bytes were written to what was the set's eventfd", n)
	}
	if err := set.control(syscall.EPOLL_CTL_ADD, int(r.Fd()), eventsIn, 1); !errors.Is(err, net.ErrClosed) {
		t.Errorf("control of a closed set: %v, want %v", err, net.ErrClosed)
	}
}

// A worker that was about to look for events takes none from a set that has got the
// number of its own.
func TestClosedSetTakesNoEvents(t *testing.T) {
	var loop Loop
	if err := loop.Hold(); err != nil {
		t.Fatal(err)
	}
	set := loop.set
	loop.Release()
	eventually(t, "its worker has ended", func() bool {
		set.baton.mu.Lock()
		defer set.baton.mu.Unlock()
		return !set.baton.held && set.baton.seekers == 0
	})
	fd, err := eventfd()
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	addOne(fd)
	if set.epfd, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil { // as if it had got the number
		t.Fatal(err)
	}
	defer syscall.Close(set.epfd)
	if err := epollCtl(set.epfd, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: epollET | syscall.EPOLLIN}); err != nil {
		t.Fatal(err)
	}
	set.queue = append(set.queue, new(Socket)) // so that it doesn't wait
	set.next()
	if n, _ := epollNow(set.epfd, make([]syscall.EpollEvent, 1)); n != 1 {
		t.Errorf("%d events are left, want the one there was", n)
	}
}

// A raceConn is one that is closed between two calls.
type raceConn struct {
	syscall.RawConn
	between func()
}

func (c raceConn) Control(f func(fd uintptr)) error {
	err := c.RawConn.Control(f)
	c.between()
	return err
}

// A listener that is closed while Serve begins doesn't take the place of the socket
// that gets its number.
func TestListenerClosedWhileServeBegins(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var loop Loop
	loop.Hold()
	defer loop.Release()
	a := loop.Listen(ln)
	next := new(Socket)
	a.raw = raceConn{a.raw, func() {
		if next.fd == 0 {
			a.raw.(raceConn).RawConn.Control(func(fd uintptr) { next.fd = int32(fd) })
			ln.Close()
			loop.set.table.put(next)
		}
	}}
	if err = a.Serve(func() bool { return false }); err == nil {
		a.Stop()
	}
	if loop.set.table.find(next.fd, next.generation) != next {
		t.Errorf("the socket that has the number isn't found; Serve = %v", err)
	}
}

// Without descriptors there is no loop, and nothing is left of the attempt.
func TestNoDescriptors(t *testing.T) {
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old)
	client, server := pair(t)
	before := openFiles(t)
	var loop Loop
	for free := range uint64(2) { // none for the set, and none for its eventfd
		limit := old
		limit.Cur = lowestFree(t) + free
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
		if err := loop.Hold(); !errors.Is(err, syscall.EMFILE) {
			t.Errorf("Hold with %d descriptors: %v, want %v", free, err, syscall.EMFILE)
		}
		if free == 0 {
			if _, err := loop.Adopt(server); !errors.Is(err, syscall.EMFILE) {
				t.Errorf("Adopt without a descriptor: %v, want %v", err, syscall.EMFILE)
			}
			if err := (&Listener{loop: &loop}).Serve(nil); !errors.Is(err, syscall.EMFILE) {
				t.Errorf("Serve of a listener without a descriptor: %v, want %v", err, syscall.EMFILE)
			}
			s := new(Socket)
			s.setNames(&loop, "", "")
			s.state.Store(stateRunning)
			if err := s.Serve(nil); !errors.Is(err, syscall.EMFILE) {
				t.Errorf("Serve of a socket without a descriptor: %v, want %v", err, syscall.EMFILE)
			}
			s.Notify()
			s.Start()
		}
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
			t.Fatal(err)
		}
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d descriptors are open, %d were before", after, before)
	}
	if _, err := client.Write([]byte("x")); err != nil { // it wasn't adopted, and lives
		t.Error(err)
	}
	if _, err := server.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func lowestFree(t *testing.T) uint64 {
	t.Helper()
	fd, err := syscall.Dup(0)
	if err != nil {
		t.Fatal(err)
	}
	syscall.Close(fd)
	return uint64(fd)
}

// pair returns the two ends of a TCP connection of package net's.
func pair(t testing.TB) (client, server net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if client, err = net.Dial("tcp", ln.Addr().String()); err == nil {
		server, err = ln.Accept()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}
