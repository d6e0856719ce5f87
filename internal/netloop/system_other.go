//go:build !linux

package netloop

import "syscall"

func limitUnsent(uintptr, int) error { return errUnsupported }

// lingers is of Linux alone: elsewhere closing a socket that doesn't block doesn't wait.
func lingers(uintptr) bool { return false }

func unsent(uintptr) (int, error) { return 0, errUnsupported }

// writev writes of p and q what comes first.
func writev(fd uintptr, p, q []byte) (int, syscall.Errno) { return write(fd, p, q) }
