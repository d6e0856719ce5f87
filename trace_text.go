package websocket

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

// NewTextTrace returns a Trace that writes to w what goes over the wire, for a
// person to read: each frame with the bits of its header, its masking key and
// its payload as it came and without the mask. Every event is one call of
// Write, never two at the same time, and begins with the connection's number;
// w may put the time before it. MaxPayload of the result, 64, may be changed.
//
// What peers send is quoted, so that it can't play tricks on a terminal. It is
// what they sent, though, passwords and all.
func NewTextTrace(w io.Writer) *Trace {
	t := &textTrace{w: w}
	return &Trace{
		Accepted:     t.accepted,
		Request:      t.request,
		Answer:       t.answer,
		FrameRead:    func(id uint64, f *TraceFrame) { t.frame(id, "read", f) },
		FrameWritten: func(id uint64, f *TraceFrame) { t.frame(id, "write", f) },
		State:        t.state,
		Closed:       t.closed,
		MaxPayload:   64,
	}
}

type textTrace struct {
	mu sync.Mutex // so that events don't interleave, and guards the rest
	w  io.Writer
	b  bytes.Buffer // the event
}

// begin starts an event; what it returns ends it.
func (t *textTrace) begin(id uint64, format string, args ...any) (end func()) {
	t.mu.Lock()
	t.b.Reset()
	fmt.Fprintf(&t.b, "#%d ", id)
	fmt.Fprintf(&t.b, format+"\n", args...)
	return func() {
		t.w.Write(t.b.Bytes())
		t.mu.Unlock()
	}
}

// line adds a line to the event, under a label or, without one, under the one
// before.
func (t *textTrace) line(label, format string, args ...any) {
	fmt.Fprintf(&t.b, "     %-9s", label)
	fmt.Fprintf(&t.b, format+"\n", args...)
}

func (t *textTrace) accepted(id uint64, nc net.Conn) {
	local := nc.LocalAddr()
	t.begin(id, "accepted by %v from %v (%s)", local, nc.RemoteAddr(), local.Network())()
}

func (t *textTrace) request(id uint64, head []byte) {
	defer t.begin(id, "request, %d bytes", len(head))()
	t.head(head)
}

func (t *textTrace) answer(id uint64, key, accept string, head []byte) {
	defer t.begin(id, "answer, %d bytes", len(head))()
	t.head(head)
	if key == "" {
		return
	}
	sum, _ := base64.StdEncoding.DecodeString(accept)
	t.b.WriteString("     Sec-WebSocket-Accept was made from Sec-WebSocket-Key (RFC 6455, section 4.2.2):\n")
	t.line("key", "%s", key)
	t.line("+ GUID", "%s", acceptGUID)
	t.line("SHA-1", "%x", sum)
	t.line("base64", "%s", accept)
}

func (t *textTrace) head(head []byte) {
	for line := range strings.SplitSeq(strings.TrimRight(string(head), "\r\n"), "\n") {
		t.b.WriteString(strings.TrimRight("     | "+unquoted(strings.TrimSuffix(line, "\r")), " ") + "\n")
	}
}

// unquoted escapes what isn't printable ASCII, and only that.
func unquoted(s string) string {
	q := strconv.QuoteToASCII(s)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}

func (t *textTrace) frame(id uint64, verb string, f *TraceFrame) {
	defer t.begin(id, "%s %v", verb, opcode(f.Opcode))()
	t.bits(f)
	if f.Masked {
		t.payload("masked", f, f.Wire)
	}
	t.payload("payload", f, f.Payload)
	switch {
	case f.Seen == f.Length || f.Err != nil && f.Seen == 0:
	case f.Err == nil:
		t.line("payload", "not looked at from byte %d on: the message is thrown away", f.Seen)
	default:
		t.line("", "of %d bytes, then it was cut off", f.Length)
	}
	t.meaning(f)
	if f.Err != nil {
		t.line("error", "%v", f.Err)
	}
}

// bits takes the header apart (section 5.2).
func (t *textTrace) bits(f *TraceFrame) {
	b0, b1 := fmt.Sprintf("%08b", f.Header[0]), fmt.Sprintf("%08b", f.Header[1])
	fin, masked := "FIN, the last frame of its message", "MASK, the key follows"
	if !f.FIN {
		fin = "no FIN, more of the message follows"
	}
	if !f.Masked {
		masked = "no MASK"
	}
	t.line("byte 1", "%02x  %s.......  %s", f.Header[0], b0[:1], fin)
	t.line("", "    .%s....  RSV1, RSV2, RSV3", b0[1:4])
	t.line("", "    ....%s  opcode %#x", b0[4:], f.Opcode)
	t.line("byte 2", "%02x  %s.......  %s", f.Header[1], b1[:1], masked)
	rest := f.Header[2:]
	switch n := f.Header[1] &^ bitMASK; {
	case n < 126:
		t.line("", "    .%s  length %d", b1[1:], n)
	default:
		size := map[byte]int{126: 2, 127: 8}[n]
		t.line("", "    .%s  %d: the length is in the next %d bits", b1[1:], n, 8*size)
		if len(rest) < size {
			return
		}
		t.line("length", "% x  %d", rest[:size], f.Length)
		rest = rest[size:]
	}
	if f.Masked && len(rest) == len(f.Key) {
		t.line("key", "% x", f.Key)
	}
}

func (t *textTrace) payload(label string, f *TraceFrame, p []byte) {
	for ; len(p) > 16; p = p[16:] {
		t.line(label, "% x", p[:16])
		label = ""
	}
	if len(p) > 0 {
		t.line(label, "% x", p)
		label = ""
	}
	if n := f.Seen - uint64(len(f.Payload)); n > 0 {
		t.line(label, "and %d bytes more", n)
	}
}

// meaning says what the payload is in words.
func (t *textTrace) meaning(f *TraceFrame) {
	p := f.Payload
	switch op := opcode(f.Opcode); {
	case len(p) == 0:
	case f.RSV1:
		t.line("", "compressed (RFC 7692)")
	case op == opClose:
		if code, reason, err := parseClosePayload(p); err == nil {
			t.line("code", "%d %q", code, reason)
		}
	case op == opText || op != opBinary && utf8.Valid(p):
		t.line("text", "%q", p)
	}
}

func (t *textTrace) state(id uint64, state string) {
	switch state {
	case "closed": // Closed says more
	case "http":
		t.begin(id, "left to net/http: no WebSocket was asked for")()
	default:
		t.begin(id, "%s", state)()
	}
}

func (t *textTrace) closed(id uint64, err error) {
	var end *EndError
	switch {
	case err == nil:
		t.begin(id, "closed")()
	case errors.As(err, &end):
		clean := "clean"
		if !end.Clean {
			clean = "not clean"
		}
		t.begin(id, "closed, %s (%s sent, %s received): %v", clean, closeCode(end.Sent), closeCode(end.Received), err)()
	default:
		t.begin(id, "closed: %v", err)()
	}
}

func closeCode(c CloseCode) string {
	switch c {
	case 0:
		return "no close frame"
	case CloseNoStatus:
		return "an empty close frame"
	}
	return strconv.Itoa(int(c))
}
