//go:build linux && !noloop

package netloop

import (
	"net"
	"net/netip"
	"os"
	"syscall"
)

// Supported reports whether sockets can be served here.
const Supported = true

// A Listener accepts sockets for a loop from a listener of package net. It knows
// exact types only: what is built around one may do something else at Accept.
type Listener struct {
	loop  *Loop
	raw   syscall.RawConn
	local netip.AddrPort // invalid if each socket has to be asked
	unix  *net.UnixAddr
	s     *Socket // stands for the listener in the set

	lingers bool // its sockets do

	// Of one call of Accept after the other.
	accept func(fd uintptr) // kept, or each call would allocate it
	fd     int
	errno  syscall.Errno
	addr   rawAddr
	last   *ends // those that the socket before shares
}

// Listen returns nil if ln isn't a *net.TCPListener or a *net.UnixListener of streams.
func (l *Loop) Listen(ln net.Listener) *Listener {
	a := &Listener{loop: l}
	a.accept = func(fd uintptr) { a.fd, a.errno = accept4(int(fd), &a.addr) }
	var err error
	switch ln := ln.(type) {
	case *net.TCPListener:
		a.raw, err = ln.SyscallConn()
		addr := unmapped(ln.Addr()) // of a link-local one it may not know the zone
		if ip := addr.Addr(); ip.IsValid() && !ip.IsUnspecified() && !ip.IsLinkLocalUnicast() {
			a.local = addr
		}
	case *net.UnixListener:
		if a.unix = ln.Addr().(*net.UnixAddr); a.unix.Net != "unix" {
			return nil // its sockets keep messages apart: a short read says nothing
		}
		a.raw, err = ln.SyscallConn()
	default:
		return nil
	}
	if err == nil {
		err = a.raw.Control(func(fd uintptr) { a.lingers = lingers(fd) })
	}
	if err != nil {
		return nil
	}
	return a
}

// Open reports whether the listener still is.
func (a *Listener) Open() bool { return a.raw.Control(func(uintptr) {}) == nil }

// acceptor calls ready whenever a client waits to be accepted.
type acceptor struct{ ready func() (more bool) }

func (a acceptor) Ready(*Socket, *Worker) bool { return a.ready() }

// Serve has ready called when clients wait, until Stop. ready calls Accept until
// that returns ErrWait, or returns true to be called again.
func (a *Listener) Serve(ready func() (more bool)) error {
	if err := a.loop.Hold(); err != nil {
		return err
	}
	s := &Socket{set: a.loop.set, handler: acceptor{ready}}
	a.s = s
	var err error
	closed := a.raw.Control(func(fd uintptr) { // or its number may be another socket's by the next step
		s.fd = int32(fd)
		s.set.table.put(s)
		err = s.set.control(syscall.EPOLL_CTL_ADD, int(fd), uint32(syscall.EPOLLIN), s.generation)
	})
	if err == nil {
		err = closed
	}
	if err != nil {
		s.set.table.remove(s)
		a.loop.Release()
	}
	return err
}

// Stop ends what Serve began. A call of ready that runs goes on.
func (a *Listener) Stop() {
	a.raw.Control(func(fd uintptr) { a.s.set.control(syscall.EPOLL_CTL_DEL, int(fd), 0, 0) })
	a.s.set.table.remove(a.s)
	a.loop.Release()
}

// Accept returns the next client's socket, ErrWait if none waits, or what the
// system says. The socket isn't served yet. One goroutine at a time calls it.
func (a *Listener) Accept() (*Socket, error) {
	if err := a.raw.Control(a.accept); err != nil {
		return nil, err
	}
	switch a.errno {
	case 0:
	case syscall.EAGAIN:
		return nil, ErrWait
	default:
		return nil, os.NewSyscallError("accept4", a.errno)
	}
	s := &Socket{fd: int32(a.fd)}
	s.state.Store(stateRunning) // until Start
	if a.lingers {
		s.mayLinger()
	}
	if a.unix != nil {
		name := unnamed
		if a.addr.named() {
			sa, _ := syscall.Getpeername(a.fd)
			name = unixName(sa)
		}
		s.setNames(a.loop, a.unix.Name, name)
		return s, nil
	}
	// As package net has it: what is written leaves at once. Not every kernel
	// gives a socket this option of its listener's.
	setsockopt(a.fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
	remote, local := a.addr.addrPort(), a.local
	if !local.IsValid() {
		getsockname(a.fd, &a.addr)
		local = a.addr.addrPort()
	}
	if a.last == nil || a.last.shared.local != local {
		a.last = a.loop.share(sharedEnds{local: local})
	}
	s.setAddrs(a.last, remote)
	return s, nil
}

// Adopt takes over the socket of nc, which is closed: a copy of its descriptor
// goes on. It is for exact types only, as Listen.
func (l *Loop) Adopt(nc net.Conn) (*Socket, error) {
	var raw syscall.RawConn
	var err error
	s := new(Socket)
	s.state.Store(stateRunning) // until Start
	switch nc := nc.(type) {
	case *net.TCPConn:
		raw, err = nc.SyscallConn()
		s.setAddrs(l.share(sharedEnds{local: unmapped(nc.LocalAddr())}), unmapped(nc.RemoteAddr()))
	case *net.UnixConn:
		if nc.LocalAddr().Network() != "unix" {
			return nil, errUnsupported
		}
		raw, err = nc.SyscallConn()
		s.setNames(l, nc.LocalAddr().String(), nc.RemoteAddr().String())
	default:
		return nil, errUnsupported
	}
	if err != nil {
		return nil, err
	}
	if closed := raw.Control(func(fd uintptr) {
		n, _, errno := syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_DUPFD_CLOEXEC, 0)
		if s.fd = int32(n); errno != 0 {
			err = os.NewSyscallError("fcntl", errno)
		} else if lingers(fd) {
			s.mayLinger()
		}
	}); closed != nil {
		return nil, closed
	}
	if err != nil {
		return nil, err
	}
	nc.Close() // which takes it out of Go's poller
	return s, nil
}
