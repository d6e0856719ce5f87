//go:build !linux

package websocket

import (
	"errors"
	"net"
)

// unsent tells nothing where the system doesn't.
func (c *Conn) unsent() (n int, known bool) { return 0, false }

func limitUnsent(net.Conn) {}

const writevCapable = false

func writev(uintptr, []byte, []byte) (int, error) { return 0, errors.ErrUnsupported }
