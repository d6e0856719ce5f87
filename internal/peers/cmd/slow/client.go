package main

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/rawws/websocket/internal/peers/internal/ws"
)

// A client reads at its own pace, answers pings when it comes to them, and
// holds each message against what it has to be. It keeps no payload.
type client struct {
	nc    net.Conn // paced, or TLS over it
	paced *ws.PacedConn
	rate  int    // bytes a second, from the 101 on
	buf   []byte // read and not yet looked at
	store []byte
	began time.Time

	mu sync.Mutex // a frame at a time

	next  uint64 // the number of the next message
	gaps  bool   // messages may be missing
	last  uint64 // the number of the newest message
	pings int
	code  int // of the server's close frame, 0 for none
}

// newClient paces what is read from the socket, below TLS, or a record of 16 KiB
// would be taken at once.
func newClient(nc net.Conn, rate int, over *tls.Config) *client {
	c := &client{paced: &ws.PacedConn{Conn: nc}, rate: rate, store: make([]byte, 4<<10)}
	c.nc = c.paced
	if over != nil {
		c.nc = tls.Client(c.paced, over)
	}
	return c
}

var clientKey = [4]byte{0x37, 0xfa, 0x21, 0x3d}

func (c *client) upgrade() error {
	c.nc.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.nc.Write(ws.Request("slow.example", "/", false)); err != nil {
		return err
	}
	var head []byte
	for !bytes.HasSuffix(head, []byte("\r\n\r\n")) {
		b, err := c.some(1)
		if err != nil {
			return fmt.Errorf("the upgrade was answered with %.20q, %w", head, err)
		}
		head = append(head, b...)
	}
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 101 ")) {
		return fmt.Errorf("the upgrade was answered with %.20q", head)
	}
	c.began = time.Now()
	c.paced.Pace = ws.Pace{Rate: c.rate}
	return c.nc.SetDeadline(time.Time{})
}

// some returns up to n bytes, at least one, valid until the next call.
func (c *client) some(n int) ([]byte, error) {
	if len(c.buf) == 0 {
		k, err := c.nc.Read(c.store)
		if k == 0 {
			return nil, err
		}
		c.buf = c.store[:k]
	}
	b := c.buf[:min(n, len(c.buf))]
	c.buf = c.buf[len(b):]
	return b, nil
}

func (c *client) full(p []byte) error {
	for len(p) > 0 {
		b, err := c.some(len(p))
		if err != nil {
			return err
		}
		p = p[copy(p, b):]
	}
	return nil
}

// A message is what the client keeps of one.
type message struct {
	number uint64
	size   int
}

// errClosed is the server's close frame.
var errClosed = errors.New("closed")

// read reads up to the end of the next message.
func (c *client) read() (m message, err error) {
	for {
		var h [8]byte
		if err := c.full(h[:2]); err != nil {
			return m, c.cut(err)
		}
		op, fin, n := h[0]&15, h[0]&0x80 != 0, uint64(h[1]&0x7f)
		switch n {
		case 126:
			err = c.full(h[:2])
			n = uint64(binary.BigEndian.Uint16(h[:]))
		case 127:
			err = c.full(h[:8])
			n = binary.BigEndian.Uint64(h[:])
		}
		if err != nil {
			return m, c.cut(err)
		}
		if op >= ws.Close {
			err = c.control(op, int(n))
		} else {
			err = c.payload(&m, n)
		}
		if err != nil {
			return m, err
		}
		if op < ws.Close && fin {
			return m, c.check(m)
		}
	}
}

// payload holds n more bytes of a message against its number.
func (c *client) payload(m *message, n uint64) error {
	for n > 0 {
		b, err := c.some(int(min(n, uint64(len(c.store)))))
		if err != nil {
			return c.cut(err)
		}
		n -= uint64(len(b))
		for _, v := range b {
			if m.size < 8 {
				m.number = m.number<<8 | uint64(v)
			} else if v != patternByte(m.number, m.size) {
				return fmt.Errorf("message %d differs at byte %d", m.number, m.size)
			}
			m.size++
		}
	}
	return nil
}

func (c *client) check(m message) error {
	if m.number < c.next || m.number > c.next && !c.gaps {
		return fmt.Errorf("message %d where %d was next", m.number, c.next)
	}
	c.last, c.next = m.number, m.number+1
	return nil
}

func (c *client) control(op byte, n int) error {
	p := make([]byte, n)
	if err := c.full(p); err != nil {
		return c.cut(err)
	}
	switch op {
	case ws.Ping:
		c.pings++
		return c.send(ws.AppendFrame(nil, ws.Fin|ws.Pong, clientKey, p))
	case ws.Close:
		c.code = 1005
		if n >= 2 {
			c.code = int(binary.BigEndian.Uint16(p))
		}
		c.send(ws.AppendFrame(nil, ws.Fin|ws.Close, clientKey, p)) // the server may be gone
		return errClosed
	}
	return nil
}

// send writes frames. What goes wrong is the connection's end.
func (c *client) send(b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.nc.Write(b)
	return c.cut(err)
}

// say sends a message.
func (c *client) say(p []byte) error {
	return c.send(ws.AppendFrame(nil, ws.Fin|ws.Binary, clientKey, p))
}

// cut says when the connection ended without a close frame.
func (c *client) cut(err error) error {
	if err == nil || err == errClosed {
		return err
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return err
	}
	what := "cut"
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		what = "reset"
	}
	return fmt.Errorf("%s after %s", what, seconds(time.Since(c.began)))
}

// told is err with the close code where there was one.
func (c *client) told(err error) error {
	if err == errClosed {
		return fmt.Errorf("closed with %d after %s", c.code, seconds(time.Since(c.began)))
	}
	return err
}

// readFor reads messages for so long. The connection has to live through it.
func (c *client) readFor(d time.Duration) error {
	stop := time.Now().Add(d)
	for time.Now().Before(stop) {
		c.nc.SetReadDeadline(stop)
		_, err := c.read()
		if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
			return nil
		}
		if err != nil {
			return c.told(err)
		}
	}
	return nil
}

// readUntil reads to the end of a message of that number and size.
func (c *client) readUntil(number uint64, size int, limit time.Duration) error {
	c.nc.SetReadDeadline(time.Now().Add(limit))
	for {
		m, err := c.read()
		if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
			return fmt.Errorf("message %d didn't come in %s", number, seconds(limit))
		}
		if err != nil {
			return c.told(err)
		}
		if m.number == number && m.size == size {
			return nil
		}
		if m.number >= number {
			return fmt.Errorf("message %d of %d bytes, want %d of %d", m.number, m.size, number, size)
		}
	}
}

// readClose reads to a close frame of that code, any for 0, and the end of the stream behind it.
func (c *client) readClose(code int, limit time.Duration) error {
	c.nc.SetReadDeadline(time.Now().Add(limit))
	for {
		_, err := c.read()
		if err == nil {
			continue
		}
		if err != errClosed {
			return c.told(err)
		}
		if code != 0 && c.code != code {
			return c.told(err)
		}
		if _, err := io.Copy(io.Discard, c.nc); err != nil {
			return fmt.Errorf("after the close frame: %w", c.cut(err))
		}
		return nil
	}
}
