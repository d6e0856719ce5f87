//go:build !linux

package websocket

import (
	"errors"
	"syscall"
)

// unsent tells nothing where the system doesn't.
func (c *Conn) unsent() (n int, known bool) { return 0, false }

func limitUnsent(syscall.RawConn) error { return nil }

const writevCapable = false

func writev(uintptr, []byte, []byte) (int, error) { return 0, errors.ErrUnsupported }
