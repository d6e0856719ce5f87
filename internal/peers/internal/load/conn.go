package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// A flight is a message on its way.
type flight struct {
	seq uint32
	msg *message
	at  time.Duration
}

// A conn is one connection of the load: a few words, so that tens of thousands
// fit into a process. It keeps no payload, every answer is compared as it
// comes.
type conn struct {
	fd      int
	flights []flight // a ring; the oldest at first
	first   int
	inAir   int
	turn    int    // with takeover, the message to send next
	pending []byte // what the socket didn't take yet

	head    [14]byte // of a frame that isn't whole yet
	nhead   int
	left    uint64 // payload bytes of the current frame still to come
	inFrame bool
	fin     bool
	op      byte
	off     int    // bytes of the current message so far
	z       []byte // compressed payload, while there is one
	zipped  bool
	control []byte
	closed  bool // a close frame came
}

// feed takes bytes that were read and calls done for each whole answer.
func (c *conn) feed(l *Load, b []byte, done func(*conn)) error {
	if l.Raw {
		return c.feedRaw(l, b, done)
	}
	for len(b) > 0 {
		if !c.inFrame {
			n, err := c.feedHead(b)
			if err != nil {
				return err
			}
			b = b[n:]
			if !c.inFrame {
				return nil
			}
		}
		n := int(min(uint64(len(b)), c.left))
		if err := c.feedPayload(l, b[:n]); err != nil {
			return err
		}
		b = b[n:]
		c.left -= uint64(n)
		if c.left > 0 {
			return nil
		}
		c.inFrame = false
		if err := c.endFrame(l, done); err != nil {
			return err
		}
	}
	return nil
}

// feedHead takes what is missing of a frame's header.
func (c *conn) feedHead(b []byte) (int, error) {
	taken := 0
	for {
		need := 2
		if c.nhead >= 2 {
			switch c.head[1] & 0x7f {
			case 126:
				need = 4
			case 127:
				need = 10
			}
		}
		n := copy(c.head[c.nhead:need], b[taken:])
		c.nhead += n
		taken += n
		if c.nhead < need {
			return taken, nil
		}
		if need > 2 || c.head[1]&0x7f < 126 {
			break
		}
	}
	c.nhead = 0
	if c.head[1]&0x80 != 0 {
		return taken, fmt.Errorf("load: a masked frame from the server: % x", c.head[:2])
	}
	c.inFrame = true
	c.fin = c.head[0]&0x80 != 0
	op := c.head[0] & 15
	switch c.head[1] & 0x7f {
	case 126:
		c.left = uint64(binary.BigEndian.Uint16(c.head[2:]))
	case 127:
		c.left = binary.BigEndian.Uint64(c.head[2:])
	default:
		c.left = uint64(c.head[1] & 0x7f)
	}
	if op == opText || op == opBinary {
		c.off, c.zipped, c.z = 0, c.head[0]&0x40 != 0, c.z[:0]
	}
	c.op = op
	return taken, nil
}

func (c *conn) feedPayload(l *Load, b []byte) error {
	switch {
	case c.op >= opClose:
		c.control = append(c.control, b...)
	case c.zipped:
		c.z = append(c.z, b...)
	default:
		if c.inAir == 0 {
			return errors.New("load: an answer to nothing")
		}
		f := &c.flights[c.first]
		if err := f.msg.check(b, c.off, f.seq, l.everything(f.seq)); err != nil {
			return err
		}
	}
	if c.op < opClose {
		c.off += len(b)
	}
	return nil
}

// endFrame is called behind the last byte of a frame.
func (c *conn) endFrame(l *Load, done func(*conn)) error {
	switch c.op {
	case opClose:
		c.closed = true
		c.control = c.control[:0]
		return nil
	case opPing:
		pong := appendFrame(nil, 0x80|opPong, c.control)
		c.control = nil
		return c.write(pong)
	case opPong:
		c.control = c.control[:0]
		return nil
	}
	if !c.fin {
		return nil
	}
	if c.inAir == 0 {
		return errors.New("load: an answer to nothing")
	}
	f := &c.flights[c.first]
	if c.zipped {
		if err := c.checkDeflated(l, f); err != nil {
			return err
		}
	} else if l.extension().takeover {
		return fmt.Errorf("load: answer %08x isn't compressed, and so the next ones have another context", f.seq)
	} else if c.off != len(f.msg.want) {
		return fmt.Errorf("load: answer %08x has %d bytes, want %d", f.seq, c.off, len(f.msg.want))
	}
	done(c)
	return nil
}

func (c *conn) feedRaw(l *Load, b []byte, done func(*conn)) error {
	for len(b) > 0 {
		if c.inAir == 0 {
			return errors.New("load: an answer to nothing")
		}
		f := &c.flights[c.first]
		n := min(len(b), len(f.msg.want)-c.off)
		if err := f.msg.check(b[:n], c.off, f.seq, l.everything(f.seq)); err != nil {
			return err
		}
		b = b[n:]
		c.off += n
		if c.off == len(f.msg.want) {
			c.off = 0
			done(c)
		}
	}
	return nil
}

// write sends b now, or keeps what the socket doesn't take. A slice of a
// message's frame is kept as it is: behind the number it never changes.
func (c *conn) write(b []byte) error {
	if len(c.pending) > 0 {
		c.pending = append(c.pending[:len(c.pending):len(c.pending)], b...)
		return nil
	}
	n, err := writeSome(c.fd, b)
	if err != nil {
		return err
	}
	if n < len(b) {
		c.pending = b[n:]
		if n < 64 || len(b) <= 64<<10 {
			c.pending = append([]byte(nil), b[n:]...)
		}
	}
	return nil
}

func (c *conn) flush() error {
	n, err := writeSome(c.fd, c.pending)
	c.pending = c.pending[n:]
	if len(c.pending) == 0 {
		c.pending = nil
	}
	return err
}

// writeSome writes until the socket takes no more.
func writeSome(fd int, b []byte) (int, error) {
	total := 0
	for total < len(b) {
		n, err := unix.Write(fd, b[total:])
		switch err {
		case nil:
			total += n
		case unix.EAGAIN:
			return total, nil
		case unix.EINTR:
		default:
			return total, fmt.Errorf("load: write: %w", err)
		}
	}
	return total, nil
}

// readSome reads once. It returns io.EOF at the end and 0, nil when nothing is
// there.
func readSome(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Read(fd, b)
		switch {
		case err == nil && n == 0:
			return 0, io.EOF
		case err == nil:
			return n, nil
		case err == unix.EAGAIN:
			return 0, nil
		case err != unix.EINTR:
			return 0, fmt.Errorf("load: read: %w", err)
		}
	}
}
