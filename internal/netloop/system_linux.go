package netloop

import (
	"syscall"
	"unsafe"
)

// What package net doesn't do with its own sockets, and the loop does with its: the
// functions take a descriptor, whoever serves it.

// tcpNotsentLowat is TCP_NOTSENT_LOWAT, which package syscall doesn't name.
const tcpNotsentLowat = 25

func limitUnsent(fd uintptr, bytes int) error {
	return syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotsentLowat, bytes)
}

// lingers reports whether closing a descriptor may wait. An accepted one has that of its
// listener.
func lingers(fd uintptr) bool {
	on, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_LINGER)
	return err == nil && on != 0
}

func unsent(fd uintptr) (int, error) {
	n, errno := countOf(int(fd), syscall.TIOCOUTQ)
	if errno != 0 {
		return 0, errno
	}
	return n, nil
}

// countOf returns how many bytes wait in a queue of the socket's: TIOCINQ is that of
// what has come, TIOCOUTQ of what the peer's system hasn't acknowledged.
func countOf(fd int, queue uintptr) (int, syscall.Errno) {
	var n int32
	_, _, errno := syscall.RawSyscall(syscall.SYS_IOCTL, uintptr(fd), queue, uintptr(unsafe.Pointer(&n)))
	return int(n), errno
}

// writev writes p, and q behind it, by one call to a socket of package net's. One of
// them may be empty.
func writev(fd uintptr, p, q []byte) (n int, errno syscall.Errno) {
	if len(p) == 0 || len(q) == 0 {
		return write(fd, p, q)
	}
	v := [2]syscall.Iovec{{Base: &p[0]}, {Base: &q[0]}}
	v[0].SetLen(len(p))
	v[1].SetLen(len(q))
	r, _, errno := syscall.Syscall(syscall.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&v)), 2)
	return int(r), errno
}
