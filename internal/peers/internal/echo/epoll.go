package echo

import (
	"net"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An epollProtocol says what is done with the bytes of a connection. Two of
// them are references, not libraries: how little an event loop can cost.
type epollProtocol interface {
	// take answers what is whole in b, and returns how many bytes that were,
	// or a negative number when the connection has to end.
	take(l *epollLoop, c *epollConn, b []byte) int
	// whole returns how many bytes the first message in b will have, as far as
	// b says.
	whole(b []byte) int
}

// serveEpoll runs one epoll set for each processor of the Go runtime: the first
// accepts, all take turns in getting the sockets. Nothing but a loop's thread
// ever touches a connection of its. It runs for as long as the process.
func serveEpoll(ln net.Listener, p epollProtocol) error {
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	defer f.Close()
	ln.Close() // or Go's own poller would hear of each connection too
	listener := int(f.Fd())
	if err := unix.SetNonblock(listener, true); err != nil {
		return err
	}
	loops := make([]*epollLoop, runtime.GOMAXPROCS(0))
	for i := range loops {
		l := &epollLoop{protocol: p, listener: -1, all: loops, buf: make([]byte, 256<<10)}
		if l.set, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
			return err
		}
		loops[i] = l
	}
	loops[0].listener = listener
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(listener)}
	if err := unix.EpollCtl(loops[0].set, unix.EPOLL_CTL_ADD, listener, &ev); err != nil {
		return err
	}
	failed := make(chan error, len(loops))
	for _, l := range loops {
		go func() { failed <- l.run() }()
	}
	return <-failed
}

// epollConns are the connections by their descriptors. One loop stores what
// another one reads.
var epollConns [1 << 17]atomic.Pointer[epollConn]

type epollLoop struct {
	protocol epollProtocol
	set      int
	listener int // -1 for the loops that don't accept
	all      []*epollLoop
	next     int    // who gets the next socket
	buf      []byte // what is read, whatever the connection
	out      []byte // answers gathered
	spare    [][]byte
}

// An epollConn is one connection.
type epollConn struct {
	fd   int
	in   []byte // the start of a message that isn't whole
	out  []byte // what the socket didn't take
	open bool   // the 101 has gone
}

// read and write don't block, and so go past Go's scheduler, which would want to be
// told of the call and of its end.

func (c *epollConn) read(p []byte) (int, error) { return c.call(unix.SYS_READ, p) }

func (c *epollConn) write(p []byte) (int, error) { return c.call(unix.SYS_WRITE, p) }

func (c *epollConn) call(number uintptr, p []byte) (int, error) {
	n, _, errno := unix.RawSyscall(number, uintptr(c.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}

func (l *epollLoop) run() error {
	events := make([]unix.EpollEvent, 256)
	for {
		n, err := unix.EpollWait(l.set, events, -1)
		if err != nil && err != unix.EINTR {
			return err
		}
		for _, ev := range events[:max(n, 0)] {
			if int(ev.Fd) == l.listener {
				l.accept()
				continue
			}
			c := epollConns[ev.Fd].Load()
			if !l.serve(c, ev.Events) {
				epollConns[c.fd].Store(nil)
				unix.Close(c.fd)
			}
		}
	}
}

// accept takes what waits. An error is that of one socket, or is there again
// with the next event: the set is level-triggered for the listener.
func (l *epollLoop) accept() {
	for {
		fd, _, err := unix.Accept4(l.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		if fd >= len(epollConns) || unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) != nil {
			unix.Close(fd)
			continue
		}
		epollConns[fd].Store(&epollConn{fd: fd})
		l.next++
		ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(fd)}
		if unix.EpollCtl(l.all[l.next%len(l.all)].set, unix.EPOLL_CTL_ADD, fd, &ev) != nil {
			epollConns[fd].Store(nil)
			unix.Close(fd)
		}
	}
}

// serve reads until the socket is empty or takes no more answers. It returns
// false when the connection has to end.
func (l *epollLoop) serve(c *epollConn, events uint32) bool {
	// Edge-triggered: a short read means that the socket is empty, unless the
	// end may stand behind it, or it wasn't read while it took no answers.
	toTheEnd := events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0
	if len(c.out) > 0 {
		b := c.out
		c.out = nil
		if !l.send(c, b) {
			return false
		}
		toTheEnd = true
	} else if events&^unix.EPOLLOUT == 0 {
		return true
	}
	for len(c.out) == 0 {
		b, room := l.room(c)
		n, err := c.read(b[len(b)-room:])
		switch {
		case err == unix.EAGAIN:
			return true
		case err == unix.EINTR:
			continue
		case err != nil || n == 0:
			return false
		}
		if !l.took(c, b[:len(b)-room+n]) {
			return false
		}
		if n < room && !toTheEnd {
			return true
		}
	}
	return true
}

// room returns where the next bytes go, and how many of them there is room for
// at the end of it.
func (l *epollLoop) room(c *epollConn) ([]byte, int) {
	if len(c.in) == 0 {
		return l.buf, len(l.buf)
	}
	if whole := l.protocol.whole(c.in); cap(c.in) < whole {
		c.in = append(make([]byte, 0, whole), c.in...)
	} else if cap(c.in) == len(c.in) {
		c.in = append(c.in, 0)[:len(c.in)]
	}
	return c.in[:cap(c.in)], cap(c.in) - len(c.in)
}

// took lets the protocol answer b, and keeps the rest.
func (l *epollLoop) took(c *epollConn, b []byte) bool {
	n := l.protocol.take(l, c, b)
	if n < 0 {
		return false
	}
	rest := b[n:]
	switch {
	case len(c.in) > 0 && len(rest) > 0:
		c.in = c.in[:cap(c.in)][:copy(c.in[:cap(c.in)], rest)]
	case len(c.in) > 0: // the buffer serves the next one who needs it
		if len(l.spare) < 16 {
			l.spare = append(l.spare, c.in[:0])
		}
		c.in = nil
	case len(rest) > 0:
		if k := len(l.spare); k > 0 {
			c.in, l.spare = l.spare[k-1], l.spare[:k-1]
		}
		c.in = append(c.in, rest...)
	}
	return true
}

// send writes b, or keeps what the socket doesn't take.
func (l *epollLoop) send(c *epollConn, b []byte) bool {
	if len(c.out) > 0 {
		c.out = append(c.out, b...)
		return true
	}
	for len(b) > 0 {
		n, err := c.write(b)
		switch err {
		case nil:
			b = b[n:]
		case unix.EINTR:
		case unix.EAGAIN:
			c.out = append([]byte(nil), b...)
			return true
		default:
			return false
		}
	}
	return true
}

// epollBytes answers whole messages of a known length, as rawtcp does.
type epollBytes struct{ size int }

func serveEpollBytes(ln net.Listener, cfg Config) error {
	return serveEpoll(ln, epollBytes{cfg.RawMessage})
}

func (p epollBytes) whole([]byte) int { return p.size }

func (p epollBytes) take(l *epollLoop, c *epollConn, b []byte) int {
	n := len(b)
	if p.size > 0 {
		n -= n % p.size
	}
	if n > 0 && !l.send(c, b[:n]) {
		return -1
	}
	return n
}
