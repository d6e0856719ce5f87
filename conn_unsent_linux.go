package websocket

import (
	"net"
	"syscall"
	"unsafe"
)

// unsent returns how many of the bytes that were written the peer's system
// hasn't taken yet; known is false where the system doesn't tell. A unix socket
// counts the memory they take, in steps of up to 36 KiB.
func (c *Conn) unsent() (n int, known bool) {
	if c.sock != nil {
		n, err := c.sock.Unsent()
		return n, err == nil
	}
	raw := socketOf(c.nc)
	if raw == nil {
		return 0, false
	}
	var left int32
	var errno syscall.Errno
	err := raw.Control(func(fd uintptr) {
		_, _, errno = syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCOUTQ, uintptr(unsafe.Pointer(&left)))
	})
	return int(left), err == nil && errno == 0
}

// tcpNotsentLowat is TCP_NOTSENT_LOWAT, which package syscall doesn't name.
const tcpNotsentLowat = 0x19

// limitUnsent makes the system take no more than notsentLimit bytes beyond what
// is on its way, so that the rest waits with us. Where it can't be set, more
// waits in the system.
func limitUnsent(nc net.Conn) {
	if raw := socketOf(nc); raw != nil {
		raw.Control(func(fd uintptr) {
			syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotsentLowat, notsentLimit)
		})
	}
}

// writev writes p and q in one call.
func writev(fd uintptr, p, q []byte) (int, error) {
	if len(q) == 0 {
		return syscall.Write(int(fd), p)
	}
	if len(p) == 0 {
		return syscall.Write(int(fd), q)
	}
	v := [2]syscall.Iovec{{Base: &p[0]}, {Base: &q[0]}}
	v[0].SetLen(len(p))
	v[1].SetLen(len(q))
	n, _, errno := syscall.Syscall(syscall.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&v)), 2)
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}

const writevCapable = true
