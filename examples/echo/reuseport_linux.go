package main

import (
	"errors"
	"syscall"
)

// soReusePort is SO_REUSEPORT as most architectures number it; package syscall
// has a name for it on some only.
const soReusePort = 15

// setReusePort is called between socket and bind.
func setReusePort(_, _ string, rc syscall.RawConn) error {
	var failed error
	err := rc.Control(func(fd uintptr) {
		failed = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, soReusePort, 1)
	})
	return errors.Join(err, failed)
}
