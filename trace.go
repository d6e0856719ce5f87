package websocket

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"
)

// A Trace is a set of hooks that show what goes over the wire, in the manner of
// net/http/httptrace. Set as Upgrader.Trace it costs something; nil costs
// nothing. Any hook may be nil. NewTextTrace is a ready one. Once a Trace is in use
// it must not be copied, and its fields not be changed.
//
// id numbers the connections of the Trace from 1 on, in the order in which they
// were accepted. Hooks run where the thing happens, often under a lock of the
// connection: they must return soon and must not call its methods. One that
// panics, or calls runtime.Goexit, is counted and logged, and changes nothing
// else. For one connection they come in the order of the wire, but a frame may be
// read while another is written, so two of them may run at the same time. What
// they get is valid until they return, and not theirs to change.
type Trace struct {
	// Accepted is called for a new connection, before anything is read; behind
	// net/http, when it is taken over from there.
	Accepted func(id uint64, nc net.Conn)
	// Request is called with the head of the HTTP request as it came, the empty
	// line included; behind net/http, put together again from what that made of
	// it. After a request that is too wrong to be read it isn't called.
	Request func(id uint64, head []byte)
	// Answer is called before the HTTP answer is written: the 101, whose
	// Sec-WebSocket-Accept is accept and was made from the client's key, or a
	// refusal, where both are "". Behind net/http a refusal is answered by that,
	// and not seen.
	Answer func(id uint64, key, accept string, head []byte)
	// FrameRead is called when a frame was read to its end, or so far that its
	// Err was found, or when the rest of it was thrown away.
	FrameRead func(id uint64, f *TraceFrame)
	// FrameWritten is called before a frame is written.
	FrameWritten func(id uint64, f *TraceFrame)
	// State is called when the connection's state changes: to "open" after Answer
	// with a 101, "closing" and "closed" as in a browser's readyState, or to "http"
	// when it is left to Server.HTTP.
	State func(id uint64, state string)
	// Closed is called once, when the socket is closed, and nothing of the
	// connection comes behind it but FrameRead, of what had come before. err is the
	// *EndError, what the handshake failed with, or nil for one that Server.HTTP had.
	Closed func(id uint64, err error)

	// MaxPayload limits how many bytes of a frame's payload a hook gets; 256 by
	// default, none when it is negative.
	MaxPayload int

	last atomic.Uint64 // id
}

// A TraceFrame is a frame as a hook sees it (RFC 6455, section 5.2).
type TraceFrame struct {
	Header                []byte // as on the wire: 2 to 14 bytes
	FIN, RSV1, RSV2, RSV3 bool
	Opcode                uint8
	Masked                bool
	Key                   [4]byte // of the mask
	Length                uint64  // of the whole payload, as declared

	Wire    []byte // the first MaxPayload bytes of the payload as on the wire
	Payload []byte // the same bytes without the mask
	Seen    uint64 // bytes of the payload that were looked at, MaxPayload or not

	// Err is what was wrong with a frame that was read, a *ProtocolError, or
	// what cut it off.
	Err error
}

func newTraceFrame(h header, p []byte) TraceFrame {
	return TraceFrame{
		FIN: h.fin, RSV1: h.rsv1, RSV2: h.rsv2, RSV3: h.rsv3, Opcode: uint8(h.opcode),
		Masked: h.masked, Key: h.key, Length: h.length,
		Wire: p, Payload: p, Seen: uint64(len(p)),
	}
}

// A connTrace is a connection's part of a Trace. Its methods do nothing on a
// nil one; those that a frame costs are not even called then.
type connTrace struct {
	*Trace
	id  uint64
	reg *registry

	// Of the frame that is being read; guarded by reader.mu.
	h             header
	payload, wire []byte // the latter only while a hook runs
	seen          uint64

	gone atomic.Bool // Closed was called
}

func (t *Trace) accepted(nc net.Conn, reg *registry) *connTrace {
	if t == nil {
		return nil
	}
	ct := &connTrace{Trace: t, id: t.last.Add(1), reg: reg}
	if t.Accepted != nil {
		ct.call(func() { t.Accepted(ct.id, nc) })
	}
	return ct
}

// call runs a hook, on a goroutine of its own: hooks run under locks of the
// connection, and one that calls runtime.Goexit would take them with it. One
// that panics is logged, and the connection goes on.
func (t *connTrace) call(hook func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		t.reg.guard(nobody{}, hook)
	}()
	<-done
}

func (t *Trace) maxPayload() int { return orDefault(t.MaxPayload, 256, 0) }

// clip returns as much of p as a hook gets.
func (t *Trace) clip(p []byte) []byte { return p[:min(len(p), t.maxPayload())] }

func (t *connTrace) request(head []byte) {
	if t != nil && t.Request != nil {
		t.call(func() { t.Request(t.id, head) })
	}
}

// requestHTTP is request for one that net/http has read.
func (t *connTrace) requestHTTP(r *http.Request) {
	if t == nil || t.Request == nil {
		return
	}
	b := []byte(r.Method + " " + r.RequestURI + " " + r.Proto + "\r\n")
	b = appendField(b, "Host", r.Host)
	t.call(func() { t.Request(t.id, append(appendHeaderFields(b, r.Header), "\r\n"...)) })
}

func (t *connTrace) switching(key string, head []byte) {
	if t != nil && t.Answer != nil {
		t.call(func() { t.Answer(t.id, key, string(appendAcceptKey(nil, key)), head) })
	}
}

func (t *connTrace) refusal(head []byte) {
	if t != nil && t.Answer != nil {
		t.call(func() { t.Answer(t.id, "", "", head) })
	}
}

func (t *connTrace) state(s connState) {
	if t != nil && t.State != nil {
		t.call(func() {
			t.State(t.id, [...]string{stateOpen: "open", stateClosing: "closing", stateClosed: "closed"}[s])
		})
	}
}

// plain notes that net/http has the connection from here on.
func (t *connTrace) plain() {
	if t != nil && t.State != nil {
		t.call(func() { t.State(t.id, "http") })
	}
}

func (t *connTrace) closed(err error) {
	if t != nil && t.gone.CompareAndSwap(false, true) && t.Closed != nil {
		t.call(func() { t.Closed(t.id, err) })
	}
}

// frameRefused shows a frame that its header, at the start of b, condemned.
// When the first two bytes said enough the others may not have come.
func (t *connTrace) frameRefused(b []byte, err error) {
	if t == nil || t.FrameRead == nil {
		return
	}
	h, _, _ := parseHeader(b)
	n := 2
	switch b[1] &^ bitMASK {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if h.masked {
		if n += len(h.key); len(b) >= n { // parseHeader stops at a wrong length
			h.key = [4]byte(b[n-len(h.key):])
		}
	}
	f := newTraceFrame(h, nil)
	f.Header, f.Err = b[:min(n, len(b))], err
	t.call(func() { t.FrameRead(t.id, &f) })
}

// frameStarted keeps the header of a data frame whose payload is to come.
func (t *connTrace) frameStarted(h header) {
	if t != nil {
		t.h = h
	}
}

// payloadRead takes the next piece of the payload of the reader's frame,
// unmasked, and err if it is wrong. With the last one the frame is shown.
func (t *connTrace) payloadRead(r *reader, p []byte, err error) {
	t.payload = append(t.payload, p[:min(len(p), max(t.maxPayload()-len(t.payload), 0))]...)
	t.seen += uint64(len(p))
	whole := t.seen == t.h.length
	if err == nil && whole && t.h.fin && r.opcode == opText && !r.compressed && !r.utf8.Complete() {
		err = errNotUTF8 // which endMessage will find
	}
	if whole || err != nil {
		t.frameRead(t.h, err)
	}
}

// frameSkipped shows a frame whose rest is thrown away, because of err if that
// is not nil.
func (t *connTrace) frameSkipped(err error) {
	if t != nil {
		t.frameRead(t.h, err)
	}
}

// frameCut shows a frame that err ended inside its payload.
func (t *connTrace) frameCut(err error) {
	if t != nil && t.seen > 0 {
		t.frameRead(t.h, err)
	}
}

func (t *connTrace) controlRead(h header, p []byte) {
	var err error
	if h.opcode == opClose {
		_, _, err = parseClosePayload(p)
	}
	// A control frame may come between two fragments, but not inside a frame,
	// so nothing is overwritten here.
	t.payload, t.seen = append(t.payload[:0], t.clip(p)...), uint64(len(p))
	t.frameRead(h, err)
}

// frameRead shows the frame whose header is h.
func (t *connTrace) frameRead(h header, err error) {
	p, seen := t.payload, t.seen
	t.payload, t.seen = p[:0], 0
	if t.FrameRead == nil {
		return
	}
	f := newTraceFrame(h, p)
	f.Seen, f.Err = seen, err
	var b [maxHeaderLen]byte
	f.Header = appendHeader(b[:0], h) // the only form that parseHeader lets pass
	if h.masked {
		t.wire = append(t.wire[:0], f.Payload...)
		mask(t.wire, h.key, 0)
		f.Wire = t.wire
	}
	t.call(func() { t.FrameRead(t.id, &f) })
}

func (t *connTrace) frameWritten(h header, p []byte) {
	if t.FrameWritten == nil {
		return
	}
	var b [maxHeaderLen]byte
	f := newTraceFrame(h, t.clip(p))
	f.Header, f.Seen = appendHeader(b[:0], h), h.length
	t.call(func() { t.FrameWritten(t.id, &f) })
}

// framedWritten is frameWritten of a whole frame.
func (t *connTrace) framedWritten(frame []byte) {
	if h, n, err := parseHeader(frame); err == nil && n > 0 {
		t.frameWritten(h, frame[n:])
	}
}

// NewTextTrace returns a Trace that writes to w what goes over the wire, for a
// person to read: each frame with the bits of its header, its masking key and
// its payload as it came and without the mask. Every event is one call of
// Write, never two at the same time, and begins with the connection's number;
// w may put the time before it. MaxPayload of the result, 64, may be changed
// before it is used.
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
		defer t.mu.Unlock() // w may panic
		t.w.Write(t.b.Bytes())
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
	if local == nil { // an application's own may have none
		t.begin(id, "accepted, a %T", nc)()
		return
	}
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
