package websockettest

import (
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// Pipe returns the two ends of a connection in memory. It behaves as TCP does:
// each direction holds 64 KiB that were written and not read yet, and can be
// closed by itself (CloseWrite); an end that is closed with bytes unread resets
// the other. Deadlines work. Unlike net.Pipe a write doesn't wait for its read.
func Pipe() (client, server net.Conn) {
	return newPipe(netip.AddrPortFrom(clientIP, firstPort), serverAddr)
}

// Addresses for documentation (RFC 5737): nobody has them.
var (
	clientIP   = netip.AddrFrom4([4]byte{192, 0, 2, 1})
	serverAddr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, 2}), 80)
)

func newPipe(client, server netip.AddrPort) (*conn, *conn) {
	up, down := newStream(), newStream()
	c, s := net.TCPAddrFromAddrPort(client), net.TCPAddrFromAddrPort(server)
	return &conn{in: down, out: up, local: c, remote: s}, &conn{in: up, out: down, local: s, remote: c}
}

// A conn is one end of a Pipe.
type conn struct {
	in, out       *stream
	local, remote net.Addr
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.in.read(p)
	return n, c.opError("read", err)
}

func (c *conn) Write(p []byte) (int, error) {
	n, err := c.out.write(p)
	return n, c.opError("write", err)
}

func (c *conn) opError(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}

// CloseWrite ends what this end writes; the other reads io.EOF behind it.
func (c *conn) CloseWrite() error { return c.opError("close", c.out.end(nil)) }

func (c *conn) Close() error {
	unread, err := c.in.leave()
	if unread {
		c.out.end(syscall.ECONNRESET)
	} else {
		c.out.end(nil)
	}
	c.out.forget()
	return c.opError("close", err)
}

// reset closes this end so that the other's reads and writes fail.
func (c *conn) reset() {
	c.in.leave()
	c.out.end(syscall.ECONNRESET)
	c.out.forget()
}

func (c *conn) SetDeadline(t time.Time) error {
	c.SetWriteDeadline(t)
	return c.SetReadDeadline(t)
}

func (c *conn) SetReadDeadline(t time.Time) error {
	return c.opError("set", c.in.setDeadline(&c.in.reader, t))
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	return c.opError("set", c.out.setDeadline(&c.out.writer, t))
}

// streamSize is what a stream holds.
const streamSize = 64 << 10

// A stream is one direction of a Pipe.
type stream struct {
	mu      sync.Mutex // guards the rest
	changed *sync.Cond
	buf     []byte // written and not read yet
	ended   bool   // nothing more will be written
	failure error  // of reads, instead of io.EOF, and of writes
	reader  side
	writer  side
}

// A side is an end of a stream as that end sees it.
type side struct {
	gone     bool // closed
	deadline time.Time
	timer    *time.Timer
}

func newStream() *stream {
	s := new(stream)
	s.changed = sync.NewCond(&s.mu)
	return s
}

// passed reports whether the side's deadline has passed.
func (e *side) passed() bool { return !e.deadline.IsZero() && !time.Now().Before(e.deadline) }

func (e *side) close() {
	e.gone = true
	if e.timer != nil {
		e.timer.Stop()
	}
}

func (s *stream) read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.reader.gone:
			return 0, net.ErrClosed
		case s.reader.passed():
			return 0, os.ErrDeadlineExceeded
		case s.failure != nil:
			return 0, s.failure
		case len(s.buf) > 0:
			n := copy(p, s.buf)
			if s.buf = s.buf[n:]; len(s.buf) == 0 {
				s.buf = nil
			}
			s.changed.Broadcast()
			return n, nil
		case s.ended:
			return 0, io.EOF
		case len(p) == 0:
			return 0, nil
		}
		s.changed.Wait()
	}
}

func (s *stream) write(p []byte) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.writer.gone:
			return n, net.ErrClosed
		case s.writer.passed():
			return n, os.ErrDeadlineExceeded
		case s.ended, s.reader.gone:
			return n, syscall.EPIPE
		case n == len(p):
			return n, nil
		}
		if room := streamSize - len(s.buf); room > 0 {
			k := min(room, len(p)-n)
			s.buf = append(s.buf, p[n:n+k]...)
			n += k
			s.changed.Broadcast()
			continue
		}
		s.changed.Wait()
	}
}

// end makes the writer write nothing more. With a failure the reader has that
// instead of what it hasn't read.
func (s *stream) end(failure error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writer.gone {
		return net.ErrClosed
	}
	s.ended = true
	if failure != nil {
		s.failure, s.buf = failure, nil
	}
	s.changed.Broadcast()
	return nil
}

// forget closes the writer's side.
func (s *stream) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writer.close()
	s.changed.Broadcast()
}

// leave closes the reader's side, and reports whether something was unread.
func (s *stream) leave() (unread bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reader.gone {
		return false, net.ErrClosed
	}
	s.reader.close()
	unread = len(s.buf) > 0
	s.buf = nil
	s.changed.Broadcast()
	return unread, nil
}

// setDeadline sets the deadline of e, a side of s.
func (s *stream) setDeadline(e *side, t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.gone {
		return net.ErrClosed
	}
	e.deadline = t
	if e.timer != nil {
		e.timer.Stop()
		e.timer = nil
	}
	if wait := time.Until(t); !t.IsZero() && wait > 0 {
		e.timer = time.AfterFunc(wait, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.changed.Broadcast()
		})
	}
	s.changed.Broadcast()
	return nil
}
