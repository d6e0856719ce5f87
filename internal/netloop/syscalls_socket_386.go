//go:build linux && !noloop

package netloop

import (
	"net/netip"
	"syscall"
)

// On this processor one system call stands for all that are about sockets, so
// package syscall makes them.
type rawAddr struct{ sa syscall.Sockaddr }

func accept4(lfd int, peer *rawAddr) (int, syscall.Errno) {
	fd, sa, err := syscall.Accept4(lfd, syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
	peer.sa = sa
	errno, _ := err.(syscall.Errno)
	return fd, errno
}

func setsockopt(fd, level, name, value int) error {
	return syscall.SetsockoptInt(fd, level, name, value)
}

func getsockname(fd int, a *rawAddr) { a.sa, _ = syscall.Getsockname(fd) }

func (a *rawAddr) addrPort() netip.AddrPort {
	switch sa := a.sa.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *syscall.SockaddrInet6:
		return netip.AddrPortFrom(unmappedIP(sa.Addr, sa.ZoneId), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

func (a *rawAddr) named() bool {
	name := unixName(a.sa)
	return name != "" && name != unnamed
}
