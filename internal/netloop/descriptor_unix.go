//go:build unix

package netloop

import "syscall"

// Readable reports whether RawConn.Read gives a descriptor that doesn't block, which
// ReadDescriptor reads.
const Readable = true

// ReadDescriptor reads what has come to a socket of package net's. The error is
// syscall.EAGAIN when that is nothing.
func ReadDescriptor(fd uintptr, p []byte) (int, syscall.Errno) {
	for {
		n, err := syscall.Read(int(fd), p)
		if errno, _ := err.(syscall.Errno); errno != syscall.EINTR {
			return max(n, 0), errno
		}
	}
}

// write writes p, or q if p is empty.
func write(fd uintptr, p, q []byte) (int, syscall.Errno) {
	if len(p) == 0 {
		p = q
	}
	n, err := syscall.Write(int(fd), p)
	errno, _ := err.(syscall.Errno)
	return max(n, 0), errno
}
