package netloop

import (
	"syscall"
	"unsafe"
)

// What package net doesn't do with its own sockets, and the loop does with its: the
// functions take a descriptor, whoever serves it.

// Direct reports whether these functions do anything here.
const Direct = true

// tcpNotsentLowat is TCP_NOTSENT_LOWAT, which package syscall doesn't name.
const tcpNotsentLowat = 25

// LimitUnsent makes a TCP socket take no more while so many bytes haven't left yet
// (TCP_NOTSENT_LOWAT), so that the rest waits where it can be changed.
func LimitUnsent(fd uintptr, bytes int) error {
	return syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotsentLowat, bytes)
}

// Unsent returns how many of the bytes that were written the peer's system hasn't
// taken yet. A unix socket counts the memory they take, in steps of up to 36 KiB.
func Unsent(fd uintptr) (int, error) {
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

// Writev writes p, which may be empty, and q behind it, by one call to a socket of
// package net's.
func Writev(fd uintptr, p, q []byte) (int, error) {
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
