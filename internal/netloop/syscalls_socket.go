//go:build linux && !noloop && !386

package netloop

import (
	"net/netip"
	"syscall"
	"unsafe"
)

// A rawAddr is where the system writes an address.
type rawAddr struct {
	sa syscall.RawSockaddrAny
	n  uint32
}

// accept4 is syscall.Accept4 without its allocations, of which that has eight.
func accept4(lfd int, peer *rawAddr) (int, syscall.Errno) {
	peer.n = uint32(unsafe.Sizeof(peer.sa))
	fd, _, errno := syscall.RawSyscall6(syscall.SYS_ACCEPT4, uintptr(lfd), uintptr(unsafe.Pointer(&peer.sa)),
		uintptr(unsafe.Pointer(&peer.n)), syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0, 0)
	return int(fd), errno
}

func setsockopt(fd, level, name, value int) error {
	v := int32(value)
	_, _, errno := syscall.RawSyscall6(syscall.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(&v)), unsafe.Sizeof(v), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func getsockname(fd int, a *rawAddr) {
	a.n = uint32(unsafe.Sizeof(a.sa))
	if _, _, errno := syscall.RawSyscall(syscall.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&a.sa)),
		uintptr(unsafe.Pointer(&a.n))); errno != 0 {
		a.n = 0
	}
}

// addrPort returns the address of a TCP socket, invalid if it is none.
func (a *rawAddr) addrPort() netip.AddrPort {
	switch {
	case a.n >= syscall.SizeofSockaddrInet4 && a.sa.Addr.Family == syscall.AF_INET:
		sa := (*syscall.RawSockaddrInet4)(unsafe.Pointer(&a.sa))
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), hostOrder(&sa.Port))
	case a.n >= syscall.SizeofSockaddrInet6 && a.sa.Addr.Family == syscall.AF_INET6:
		sa := (*syscall.RawSockaddrInet6)(unsafe.Pointer(&a.sa))
		return netip.AddrPortFrom(unmappedIP(sa.Addr, sa.Scope_id), hostOrder(&sa.Port))
	}
	return netip.AddrPort{}
}

func hostOrder(port *uint16) uint16 {
	p := (*[2]byte)(unsafe.Pointer(port))
	return uint16(p[0])<<8 | uint16(p[1])
}

// named reports whether it is the address of a unix socket that has a name.
func (a *rawAddr) named() bool { return uintptr(a.n) > unsafe.Sizeof(a.sa.Addr.Family) }
