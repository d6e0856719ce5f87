package ws

import (
	"context"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Dial connects from 127.0.0.1+source, since one address has only some 28,000
// ports for one destination; source 0 lets the kernel choose.
func Dial(addr string, source int) (*net.TCPConn, error) {
	d := net.Dialer{Timeout: 30 * time.Second}
	if source > 0 {
		d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(1+source%250))}
		d.Control = lateBind
	}
	nc, err := d.DialContext(context.Background(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	return nc.(*net.TCPConn), nil
}

// lateBind lets connect choose the port, which knows the destination too.
func lateBind(_, _ string, rc syscall.RawConn) error {
	var failed error
	err := rc.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	})
	if err != nil {
		return err
	}
	return failed
}
