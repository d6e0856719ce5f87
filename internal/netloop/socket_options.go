//go:build linux && !noloop

package netloop

import (
	"errors"
	"math"
	"net"
	"os"
	"syscall"
	"time"
)

// SetDeadline sets both deadlines.
func (s *Socket) SetDeadline(t time.Time) error {
	if err := s.SetReadDeadline(t); err != nil {
		return err
	}
	return s.SetWriteDeadline(t)
}

// SetReadDeadline makes Read fail from t on, and TryRead when nothing is there;
// then Ready is called as well. The zero time means never.
func (s *Socket) SetReadDeadline(t time.Time) error {
	return s.setDeadline(t, true)
}

// SetWriteDeadline makes Write and WriteAll fail from t on; TryWrite doesn't wait
// and has none.
func (s *Socket) SetWriteDeadline(t time.Time) error {
	return s.setDeadline(t, false)
}

func (s *Socket) setDeadline(t time.Time, read bool) error {
	if s.isClosed() {
		return s.failure("set", net.ErrClosed)
	}
	if t.IsZero() && s.waits.Load() == nil {
		return nil
	}
	w := s.waiting()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return s.failure("set", net.ErrClosed)
	}
	d := &w.write
	if read {
		d = &w.read
	}
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	if t.IsZero() {
		d.deadline.Store(0)
		return nil
	}
	// A time of the wall clock's, which may be set meanwhile, is one of ours from
	// here on: the timer and who looks at the deadline mustn't differ.
	left := time.Until(t)
	d.deadline.Store(max(int64(time.Since(start))+min(max(int64(left), 0), forever), 1))
	d.timer = time.AfterFunc(left, func() { s.deadlinePassed(w, d) })
	return nil
}

// forever is a time that can be added to another without overflow.
const forever = int64(math.MaxInt64 / 2)

func (s *Socket) deadlinePassed(w *waits, d *direction) {
	w.mu.Lock()
	passed := d.expired() // it may have been moved since
	if passed {
		d.wakeUp()
	}
	w.mu.Unlock()
	if passed && d == &w.read {
		s.Notify()
	}
}

// CloseWrite shuts the sending side down: the peer reads what was written, and
// then the end.
func (s *Socket) CloseWrite() error { return s.shutdown(syscall.SHUT_WR) }

// CloseRead shuts the receiving side down.
func (s *Socket) CloseRead() error { return s.shutdown(syscall.SHUT_RD) }

func (s *Socket) shutdown(how int) error {
	return s.control("shutdown", func(fd int) error { return syscall.Shutdown(fd, how) })
}

func (s *Socket) control(op string, f func(fd int) error) error {
	if !s.use() {
		return s.failure(op, net.ErrClosed)
	}
	defer s.unuse()
	if err := f(int(s.fd)); err != nil {
		return s.failure(op, os.NewSyscallError(op, err))
	}
	return nil
}

func (s *Socket) setsockopt(level, name, value int) error {
	return s.control("setsockopt", func(fd int) error { return syscall.SetsockoptInt(fd, level, name, value) })
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}

// SetNoDelay says whether small writes leave at once. They do when nothing is said.
func (s *Socket) SetNoDelay(on bool) error {
	return s.setsockopt(syscall.IPPROTO_TCP, syscall.TCP_NODELAY, number(on))
}

// SetKeepAlive says whether TCP itself looks whether the peer's host is there.
func (s *Socket) SetKeepAlive(on bool) error {
	return s.setsockopt(syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, number(on))
}

// SetKeepAlivePeriod sets the time until the first of its probes, and between them.
func (s *Socket) SetKeepAlivePeriod(d time.Duration) error {
	return s.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: d, Interval: d, Count: -1})
}

// SetKeepAliveConfig is that of net.TCPConn.
func (s *Socket) SetKeepAliveConfig(c net.KeepAliveConfig) error {
	if err := s.SetKeepAlive(c.Enable); err != nil || !c.Enable {
		return err
	}
	for _, o := range []struct{ name, value, def int }{
		{syscall.TCP_KEEPIDLE, seconds(c.Idle), 15},
		{syscall.TCP_KEEPINTVL, seconds(c.Interval), 15},
		{syscall.TCP_KEEPCNT, c.Count, 9},
	} {
		if o.value < 0 {
			continue
		}
		if o.value == 0 {
			o.value = o.def
		}
		if err := s.setsockopt(syscall.IPPROTO_TCP, o.name, o.value); err != nil {
			return err
		}
	}
	return nil
}

// seconds rounds up, as the system counts in whole ones.
func seconds(d time.Duration) int {
	if d < 0 {
		return -1
	}
	return int((d + time.Second - 1) / time.Second)
}

// SetLinger is that of net.TCPConn: 0 throws away what the peer hasn't taken when
// the socket is closed, and resets it.
func (s *Socket) SetLinger(sec int) error {
	l := syscall.Linger{Onoff: int32(number(sec >= 0)), Linger: int32(max(sec, 0))}
	if sec > 0 {
		s.mayLinger()
	}
	return s.control("setsockopt", func(fd int) error {
		return syscall.SetsockoptLinger(fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &l)
	})
}

// Lingers reports whether Close may wait, as SO_LINGER says.
func (s *Socket) Lingers() bool {
	w := s.waits.Load()
	return w != nil && w.lingers.Load()
}

// SetReadBuffer sets the size of the system's receive buffer.
func (s *Socket) SetReadBuffer(bytes int) error {
	return s.setsockopt(syscall.SOL_SOCKET, syscall.SO_RCVBUF, bytes)
}

// SetWriteBuffer sets the size of the system's send buffer.
func (s *Socket) SetWriteBuffer(bytes int) error {
	return s.setsockopt(syscall.SOL_SOCKET, syscall.SO_SNDBUF, bytes)
}

// LimitUnsent makes a TCP socket take no more while UnsentLimit bytes haven't left yet.
func (s *Socket) LimitUnsent() error { return s.limitUnsent(UnsentLimit) }

func (s *Socket) limitUnsent(bytes int) error {
	return s.control("setsockopt", func(fd int) error { return limitUnsent(uintptr(fd), bytes) })
}

// File returns a copy of the socket, which the caller closes.
func (s *Socket) File() (*os.File, error) {
	s.mayLinger() // the two share their options
	var fd int
	err := s.control("dup", func(old int) error {
		n, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(old), syscall.F_DUPFD_CLOEXEC, 0)
		if fd = int(n); errno != 0 {
			return errno
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), s.network()), nil
}

// SyscallConn returns the descriptor for calls that the package knows nothing of.
func (s *Socket) SyscallConn() (syscall.RawConn, error) {
	if s.isClosed() {
		return nil, s.failure("raw", net.ErrClosed)
	}
	s.mayLinger() // as far as is known here
	return rawConn{s}, nil
}

type rawConn struct{ s *Socket }

// Control implements syscall.RawConn.
func (c rawConn) Control(f func(fd uintptr)) error {
	return c.s.control("control", func(fd int) error { f(uintptr(fd)); return nil })
}

// Read implements syscall.RawConn. It isn't for a socket whose handler reads.
func (c rawConn) Read(f func(fd uintptr) bool) error {
	w := c.s.waiting()
	return c.try("read", &w.read, w, 0, f)
}

// Write implements syscall.RawConn.
func (c rawConn) Write(f func(fd uintptr) bool) error {
	w := c.s.waiting()
	return c.try("write", &w.write, w, eventOut, f)
}

func (c rawConn) try(op string, d *direction, w *waits, events uint32, f func(fd uintptr) bool) error {
	for {
		if d.expired() {
			return c.s.failure(op, os.ErrDeadlineExceeded)
		}
		done := false
		err := c.s.control(op, func(fd int) error { done = f(uintptr(fd)); return nil })
		if done || err != nil {
			return err
		}
		if err := c.s.wait(op, d, w, events); err != nil {
			return err
		}
	}
}

var errUnsupported = errors.New("netloop: not a TCP or unix socket of package net")
