//go:build linux && !noloop && race

package netloop

import (
	"slices"
	"syscall"
)

// To the race detector, what was done before a write has happened before what
// follows the read of it: package syscall says so, as it does for the sockets of
// package net. An application whose tests hold a server and its client would
// have races reported otherwise that are none.

func rawRead(fd int, p []byte) (int, syscall.Errno) { return ordered(syscall.Read, fd, p) }

func rawWrite(fd int, p []byte) (int, syscall.Errno) { return ordered(syscall.Write, fd, p) }

// rawWritev writes p, and q behind it. Neither is empty.
func rawWritev(fd int, p, q []byte) (int, syscall.Errno) {
	return ordered(syscall.Write, fd, slices.Concat(p, q))
}

func ordered(call func(int, []byte) (int, error), fd int, p []byte) (int, syscall.Errno) {
	for {
		n, err := call(fd, p)
		if errno, _ := err.(syscall.Errno); errno != syscall.EINTR {
			return max(n, 0), errno
		}
	}
}
