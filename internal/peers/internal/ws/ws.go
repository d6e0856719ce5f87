// Package ws is a client in the raw: frames are bytes that the caller may also
// get wrong, and what a server sends is held against every rule of RFC 6455.
package ws

import (
	"bufio"
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
)

// The opcodes (RFC 6455, section 5.2), and the bits beside them in a frame's
// first byte.
const (
	Continuation = 0
	Text         = 1
	Binary       = 2
	Close        = 8
	Ping         = 9
	Pong         = 10

	Fin  = 0x80
	Rsv1 = 0x40
)

// AppendFrame appends a masked frame with first as its first byte.
func AppendFrame(dst []byte, first byte, key [4]byte, payload []byte) []byte {
	dst = append(dst, first)
	switch n := len(payload); {
	case n < 126:
		dst = append(dst, 0x80|byte(n))
	case n < 1<<16:
		dst = binary.BigEndian.AppendUint16(append(dst, 0x80|126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, 0x80|127), uint64(n))
	}
	dst = append(dst, key[:]...)
	from := len(dst)
	dst = append(dst, payload...)
	p := dst[from:]
	key8 := uint64(binary.LittleEndian.Uint32(key[:]))
	key8 |= key8 << 32
	for len(p) >= 8 {
		binary.LittleEndian.PutUint64(p, binary.LittleEndian.Uint64(p)^key8)
		p = p[8:]
	}
	for i := range p {
		p[i] ^= key[i&3]
	}
	return dst
}

// ClosePayload is a close frame's payload.
func ClosePayload(code int, reason string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason...)
}

const (
	key    = "dGhlIHNhbXBsZSBub25jZQ==" // of RFC 6455, section 1.3
	accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
	offer  = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
)

// Request is an upgrade request.
func Request(host, target string, deflate bool) []byte {
	b := fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "+key+"\r\n", target, host)
	if deflate {
		b = append(b, "Sec-WebSocket-Extensions: "+offer+"\r\n"...)
	}
	return append(b, "\r\n"...)
}

// A Refusal is an answer that isn't a 101.
type Refusal struct{ Line string }

func (r *Refusal) Error() string { return fmt.Sprintf("ws: the upgrade was answered with %q", r.Line) }

// A Reader takes a server's stream apart.
type Reader struct {
	Deflated bool // permessage-deflate was agreed on

	br   *bufio.Reader
	msg  []byte // of the message under way
	op   byte   // of it, 0 while there is none
	zip  bool
	plus []byte // inflated
}

// NewReader reads from nc. Limit is the size of its buffer.
func NewReader(nc net.Conn, limit int) *Reader {
	return &Reader{br: bufio.NewReaderSize(nc, limit)}
}

// Answer reads the answer to an upgrade request. The error is a *Refusal when
// there is one that isn't a lawful 101.
func (r *Reader) Answer() error {
	var head []string
	for {
		line, err := r.br.ReadString('\n')
		if err != nil {
			return fmt.Errorf("ws: the answer to the upgrade: %w", err)
		}
		if line = strings.TrimSuffix(line, "\r\n"); line == "" {
			break
		}
		head = append(head, line)
	}
	if len(head) == 0 || !strings.HasPrefix(head[0], "HTTP/1.1 101 ") {
		return &Refusal{strings.Join(head, "\n")}
	}
	accepted := false
	for _, line := range head[1:] {
		name, value, _ := strings.Cut(line, ":")
		switch strings.ToLower(name) {
		case "sec-websocket-accept":
			accepted = strings.TrimSpace(value) == accept
		case "sec-websocket-extensions":
			r.Deflated = strings.Contains(value, "permessage-deflate")
		}
	}
	if !accepted {
		return &Refusal{strings.Join(head, "\n")}
	}
	return nil
}

const maxMessage = 16 << 20

// Next reads up to the end of a message or of a control frame, and returns its
// opcode and payload, which is valid until the next call.
func (r *Reader) Next() (op byte, payload []byte, err error) {
	for {
		var h [8]byte
		if _, err := io.ReadFull(r.br, h[:2]); err != nil {
			return 0, nil, err // io.EOF between two frames
		}
		first, length := h[0], uint64(h[1])
		op = first & 15
		if err := r.check(first, h[1]); err != nil {
			return 0, nil, err
		}
		switch length {
		case 126:
			_, err = io.ReadFull(r.br, h[:2])
			length = uint64(binary.BigEndian.Uint16(h[:]))
		case 127:
			_, err = io.ReadFull(r.br, h[:8])
			length = binary.BigEndian.Uint64(h[:])
		}
		if err != nil {
			return 0, nil, noEOF(err)
		}
		if op >= Close {
			payload = make([]byte, length)
			_, err = io.ReadFull(r.br, payload)
			return op, payload, noEOF(err)
		}
		if uint64(len(r.msg))+length > maxMessage {
			return 0, nil, fmt.Errorf("ws: a message of more than %d bytes", uint64(len(r.msg))+length)
		}
		if op != Continuation {
			r.op, r.zip, r.msg = op, first&Rsv1 != 0, r.msg[:0]
		}
		from := len(r.msg)
		r.msg = append(r.msg, make([]byte, length)...)
		if _, err := io.ReadFull(r.br, r.msg[from:]); err != nil {
			return 0, nil, noEOF(err)
		}
		if first&Fin != 0 {
			return r.message()
		}
	}
}

// check looks at a frame's first two bytes.
func (r *Reader) check(first, second byte) error {
	op := first & 15
	var broken string
	switch {
	case second&0x80 != 0:
		broken = "masked"
	case first&0x30 != 0:
		broken = "with RSV2 or RSV3"
	case op > Binary && op < Close || op > Pong:
		broken = "of a reserved opcode"
	case op >= Close && (first&Fin == 0 || second > 125):
		broken = "of a control opcode, fragmented or too long"
	case first&Rsv1 != 0 && (!r.Deflated || op != Text && op != Binary):
		broken = "with RSV1"
	case op == Continuation && r.op == 0:
		broken = "that continues nothing"
	case (op == Text || op == Binary) && r.op != 0:
		broken = "that interrupts a message"
	default:
		return nil
	}
	return fmt.Errorf("ws: the server sent a frame %s: % x", broken, []byte{first, second})
}

func (r *Reader) message() (byte, []byte, error) {
	op := r.op
	r.op = 0
	if !r.zip {
		return op, r.msg, nil
	}
	var err error
	r.plus, err = inflate(r.plus[:0], r.msg)
	return op, r.plus, err
}

// Drain reads and forgets until the stream ends, and returns how. nil is the
// end that the peer made.
func (r *Reader) Drain() error {
	_, err := io.Copy(io.Discard, r.br)
	return err
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

var deflaters = sync.Pool{New: func() any {
	w, err := flate.NewWriter(nil, flate.BestSpeed)
	if err != nil {
		panic(err) // the level is a constant
	}
	return w
}}

// Deflate compresses p as RFC 7692, section 7.2.1, says.
func Deflate(p []byte) []byte {
	var z bytes.Buffer
	w := deflaters.Get().(*flate.Writer)
	defer deflaters.Put(w)
	w.Reset(&z)
	w.Write(p) // a bytes.Buffer takes everything
	w.Flush()
	return z.Bytes()[:z.Len()-4]
}

var inflaters = sync.Pool{New: func() any { return flate.NewReader(nil) }}

// inflate appends what p holds to dst.
func inflate(dst, p []byte) ([]byte, error) {
	const tail = "\x00\x00\xff\xff\x01\x00\x00\xff\xff"
	fr := inflaters.Get().(io.ReadCloser)
	defer inflaters.Put(fr)
	err := fr.(flate.Resetter).Reset(io.MultiReader(bytes.NewReader(p), strings.NewReader(tail)), nil)
	b := bytes.NewBuffer(dst)
	if err == nil {
		_, err = b.ReadFrom(io.LimitReader(fr, maxMessage+1))
	}
	if err == nil && b.Len() > maxMessage {
		err = errors.New("over the limit")
	}
	if err != nil {
		return nil, fmt.Errorf("ws: a message doesn't inflate: %w", err)
	}
	return b.Bytes(), nil
}
