package websocket

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"
)

// The leaves' benchmarks stand in their own test files; these are of frames and
// of a whole connection, without a network.

func BenchmarkParseHeader(b *testing.B) {
	for _, length := range []uint64{125, 126, 65536} {
		head := appendHeader(nil, header{fin: true, opcode: opText, masked: true, length: length})
		b.Run(fmt.Sprint(length), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				h, n, err := parseHeader(head)
				if n != len(head) || err != nil || checkHeader(h, false, false) != nil {
					b.Fatal(n, err)
				}
			}
		})
	}
}

func BenchmarkAppendHeader(b *testing.B) {
	buf := make([]byte, 0, maxHeaderLen)
	for _, length := range []uint64{125, 126, 65536} {
		b.Run(fmt.Sprint(length), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				buf = appendHeader(buf[:0], header{fin: true, opcode: opText, length: length})
			}
		})
	}
}

func BenchmarkClosePayload(b *testing.B) {
	p := appendClosePayload(nil, CloseNormal, "")
	b.ReportAllocs()
	for b.Loop() {
		if code, _, err := parseClosePayload(p); code != CloseNormal || err != nil {
			b.Fatal(code, err)
		}
	}
}

// An endlessConn is a client that says the same again and again, and takes all.
type endlessConn struct {
	once   []byte // the handshake
	stream []byte
	at     int
	closed bool
}

func (e *endlessConn) Read(p []byte) (int, error) {
	if len(e.once) > 0 {
		n := copy(p, e.once)
		e.once = e.once[n:]
		return n, nil
	}
	if e.closed {
		return 0, net.ErrClosed
	}
	// A read ends where the stream does, as a socket's does where a client waits.
	n := copy(p, e.stream[e.at:])
	e.at = (e.at + n) % len(e.stream)
	return n, nil
}

func (e *endlessConn) Write(p []byte) (int, error)      { return len(p), nil }
func (e *endlessConn) Close() error                     { e.closed = true; return nil }
func (e *endlessConn) LocalAddr() net.Addr              { return plainAddr{} }
func (e *endlessConn) RemoteAddr() net.Addr             { return plainAddr{} }
func (e *endlessConn) SetDeadline(time.Time) error      { return nil }
func (e *endlessConn) SetReadDeadline(time.Time) error  { return nil }
func (e *endlessConn) SetWriteDeadline(time.Time) error { return nil }

// What a message costs the library, without the system: in, and out again.
func BenchmarkEcho(b *testing.B) {
	for _, bench := range []struct {
		name string
		op   opcode
		size int
		pipe int // messages in one segment
	}{
		{"125 B", opBinary, 125, 1}, {"125 B, 16 pipelined", opBinary, 125, 16}, {"1 KiB", opBinary, 1 << 10, 1},
		{"64 KiB", opBinary, 64 << 10, 1}, {"64 KiB of text", opText, 64 << 10, 1}, {"1 MiB", opBinary, 1 << 20, 1},
	} {
		payload := bytes.Repeat([]byte("жёлтый"), bench.size/12+1)[:bench.size/12*12]
		frames := bytes.Repeat(clientFrame(bench.op, true, string(payload)), bench.pipe)
		open := func(b *testing.B) (*Conn, *http.Request) {
			c, r, err := Upgrade(&endlessConn{once: []byte(peerRequest), stream: frames})
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(payload)))
			b.ReportAllocs()
			return c, r
		}
		b.Run("AppendMessage/"+bench.name, func(b *testing.B) {
			c, _ := open(b)
			var buf []byte
			for b.Loop() {
				t, p, err := c.AppendMessage(buf[:0])
				if err != nil {
					b.Fatal(err)
				}
				if err := c.WriteMessage(t, p); err != nil {
					b.Fatal(err)
				}
				buf = p
			}
			c.CloseNow()
		})
		b.Run("Events/"+bench.name, func(b *testing.B) {
			c, r := open(b)
			Events{OnMessage: func(c *Conn, t MessageType, p []byte) {
				if !b.Loop() {
					c.CloseNow()
				} else if err := c.WriteMessage(t, p); err != nil {
					b.Fatal(err)
				}
			}}.ServeWebSocket(c, r)
		})
	}
}
