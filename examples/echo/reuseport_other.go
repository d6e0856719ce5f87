//go:build !linux

package main

import (
	"errors"
	"runtime"
	"syscall"
)

func setReusePort(_, _ string, _ syscall.RawConn) error {
	return errors.New("-reuseport needs the SO_REUSEPORT of Linux, and this is " + runtime.GOOS)
}
