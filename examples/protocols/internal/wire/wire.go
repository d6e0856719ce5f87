// Package wire is a WebSocket client for the tests of the examples.
package wire

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// The opcodes of frames (RFC 6455, section 5.2).
const (
	Text   = 1
	Binary = 2
	close  = 8
	ping   = 9
	pong   = 10
)

// patience is how long a test waits for anything.
const patience = 20 * time.Second

// A Client is a connection whose failures are the test's.
type Client struct {
	testing.TB
	NetConn net.Conn
	Answer  *http.Response
	r       *bufio.Reader
}

// Try asks for an upgrade, whatever comes of it. headers are whole lines.
func Try(t testing.TB, addr, target string, headers ...string) *Client {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(nc, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", target, addr)
	for _, h := range headers {
		fmt.Fprintf(nc, "%s\r\n", h)
	}
	io.WriteString(nc, "\r\n")
	c := &Client{TB: t, NetConn: nc, r: bufio.NewReader(nc)}
	if c.Answer, err = http.ReadResponse(c.r, nil); err != nil {
		t.Fatalf("upgrade of %s: %v", target, err)
	}
	return c
}

// Dial is Try that wants a connection.
func Dial(t testing.TB, addr, target string, headers ...string) *Client {
	t.Helper()
	c := Try(t, addr, target, headers...)
	if c.Answer.StatusCode != http.StatusSwitchingProtocols {
		why, _ := io.ReadAll(c.Answer.Body)
		t.Fatalf("upgrade of %s: %s, %s; want 101", target, c.Answer.Status, why)
	}
	return c
}

// Send writes a message as one frame, with a mask of zeros.
func (c *Client) Send(opcode byte, payload string) {
	c.Helper()
	b := []byte{0x80 | opcode, 0x80}
	switch n := len(payload); {
	case n < 126:
		b[1] |= byte(n)
	case n < 1<<16:
		b[1] |= 126
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	default:
		b[1] |= 127
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	b = append(b, 0, 0, 0, 0)
	if _, err := c.NetConn.Write(append(b, payload...)); err != nil {
		c.Fatalf("write: %v", err)
	}
}

// Close sends a close frame with a code.
func (c *Client) Close(code uint16) {
	c.Helper()
	c.Send(close, string(binary.BigEndian.AppendUint16(nil, code)))
}

// frame reads one frame of the server's, which is whole and has no mask.
func (c *Client) frame() (opcode byte, payload string, err error) {
	var b [8]byte
	if _, err := io.ReadFull(c.r, b[:2]); err != nil {
		return 0, "", err
	}
	opcode, n := b[0]&15, uint64(b[1])
	if n >= 126 {
		size := 2 << (2 * (n - 126))
		if _, err := io.ReadFull(c.r, b[8-size:]); err != nil {
			return 0, "", err
		}
		if n = binary.BigEndian.Uint64(b[:]); size == 2 {
			n &= 0xffff
		}
	}
	p := make([]byte, n)
	_, err = io.ReadFull(c.r, p)
	return opcode, string(p), err
}

// Read returns the next message. Pings are answered.
func (c *Client) Read() (opcode byte, payload string) {
	c.Helper()
	for {
		c.NetConn.SetReadDeadline(time.Now().Add(patience))
		opcode, payload, err := c.frame()
		switch {
		case err != nil:
			c.Fatalf("read: %v", err)
		case opcode == ping:
			c.Send(pong, payload)
		case opcode == close:
			c.Fatalf("closed with %x %q; want a message", payload[:min(2, len(payload))], payload[min(2, len(payload)):])
		case opcode == Text || opcode == Binary:
			return opcode, payload
		}
	}
}

// Want reads a message and wants it to be this one.
func (c *Client) Want(opcode byte, payload string) {
	c.Helper()
	if o, p := c.Read(); o != opcode || p != payload {
		c.Fatalf("read %d %.300q; want %d %.300q", o, p, opcode, payload)
	}
}

// WantClose reads until the close frame, answers it and wants the end of the
// stream. Code 0 is an end without one.
func (c *Client) WantClose(code uint16) {
	c.Helper()
	got := uint16(0)
	for {
		c.NetConn.SetReadDeadline(time.Now().Add(patience))
		opcode, payload, err := c.frame()
		if err != nil {
			if ne, ok := err.(net.Error); ok && ne.Timeout() || got != code {
				c.Fatalf("end: %v, closed with %d; want %d", err, got, code)
			}
			return
		}
		if opcode == close && got == 0 {
			if got = 1005; len(payload) >= 2 {
				got = binary.BigEndian.Uint16([]byte(payload))
			}
			c.Send(close, payload)
		}
	}
}
