package load

import (
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// A Jam is a set of connections that send messages and never read an answer,
// until the server can neither write to them nor read on.
type Jam struct {
	Addr  string
	Conns int

	fds []int
}

// jamMessage is what they send, over and over.
const jamMessage = 64 << 10

// Open connects, upgrades, and sends until every server's end is stuck: for
// 100 ms no socket took anything. Close must be called, also after an error.
func (j *Jam) Open() error {
	addr, err := netip.ParseAddrPort(j.Addr)
	if err != nil {
		return err
	}
	l := &Load{buf: make([]byte, 16<<10)}
	for range j.Conns {
		fd, err := dial(addr, 0)
		if err != nil {
			return err
		}
		j.fds = append(j.fds, fd)
		if _, err := unix.Write(fd, request(addr, extension{})); err != nil {
			return fmt.Errorf("load: jam: %w", err)
		}
		if err := l.awaitAnswer(&conn{fd: fd}); err != nil {
			return err
		}
		if err := unix.SetNonblock(fd, true); err != nil {
			return err
		}
	}
	return j.fill()
}

func (j *Jam) fill() error {
	frame := appendFrame(nil, 0x80|opBinary, make([]byte, jamMessage))
	done := make([]int, len(j.fds))
	for last := time.Now(); time.Since(last) < 100*time.Millisecond; {
		for i, fd := range j.fds {
			n, err := writeSome(fd, frame[done[i]:])
			if err != nil {
				return fmt.Errorf("load: jam: %w", err)
			}
			if n > 0 {
				last = time.Now()
			}
			done[i] = (done[i] + n) % len(frame)
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

// Close resets the connections.
func (j *Jam) Close() {
	for _, fd := range j.fds {
		unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		unix.Close(fd)
	}
	j.fds = nil
}
