package ws

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Dial connects from 127.0.0.1+source, since one address has only some 28,000
// ports for one destination; source 0 lets the kernel choose.
func Dial(addr string, source int) (*net.TCPConn, error) {
	nc, err := DialBuffer("tcp", addr, source, 0)
	if err != nil {
		return nil, err
	}
	return nc.(*net.TCPConn), nil
}

// DialBuffer is Dial with a receive buffer of so many bytes, fixed before the
// handshake tells the window, so that what isn't read is soon the sender's to
// hold. 0 leaves its size to the kernel.
func DialBuffer(network, addr string, source, buffer int) (net.Conn, error) {
	d := net.Dialer{Timeout: 30 * time.Second}
	if source > 0 {
		d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(1+source%250))}
	}
	d.Control = func(_, _ string, rc syscall.RawConn) error {
		var failed error
		err := rc.Control(func(fd uintptr) {
			if source > 0 { // lets connect choose the port, which knows the destination too
				failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
			}
			if buffer > 0 {
				failed = errors.Join(failed, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, buffer))
			}
		})
		return errors.Join(err, failed)
	}
	return d.DialContext(context.Background(), network, addr)
}
