package websocket

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// A referenceServer says what must become of a stream. It has all of it from
// the start and no concern but to be plainly what the rules are.
type referenceServer struct {
	vector *conformanceCase
	outcome
	limit        uint64
	maxFragments int
	maxControls  int // all streams come within a second

	over      bool
	closing   bool // the server has closed
	inMessage bool
	text      bool
	deflated  bool   // the message
	window    []byte // what the client has sent, if its context is kept
	wrongToo  bool   // a message is too large, and wrong as well
	message   []byte
	size      uint64 // of the message's frames, as declared
	fragments int
	empties   int // in a row
	controls  int
}

func reference(v *conformanceCase, stream []byte) *referenceServer {
	r := &referenceServer{vector: v, limit: 1 << 20, maxFragments: 131072, maxControls: 1000}
	if v.u.MaxMessageSize > 0 {
		r.limit = uint64(v.u.MaxMessageSize)
	}
	if v.u.MaxFragments > 0 {
		r.maxFragments = v.u.MaxFragments
	}
	if v.u.MaxControlRate != 0 {
		r.maxControls = v.u.MaxControlRate
	}
	for !r.over {
		stream = r.frame(stream)
	}
	return r
}

// ended is the end of the reference; a refusal is told without its section.
func (r *referenceServer) ended(format string, args ...any) []byte {
	r.over = true
	r.end = fmt.Sprintf(format, args...)
	if r.closing && !strings.HasPrefix(r.end, "ours") {
		r.end = fmt.Sprintf("ours %d 0", r.vector.code)
	}
	return nil
}

func (r *referenceServer) refused(code CloseCode) []byte {
	if !r.closing {
		p := binary.BigEndian.AppendUint16(nil, uint16(code))
		r.answers = append(r.answers, wireFrame{0x8, append(p, anyReason...)})
	}
	return r.ended("refused %d", code)
}

// frame takes a frame off the stream, or what there is of it.
func (r *referenceServer) frame(b []byte) []byte {
	if len(b) < 2 {
		return r.ended("lost")
	}
	b0 := b[0]
	fin, opcode, n := b0&0x80 != 0, b0&0x0F, uint64(b[1]&0x7F)
	control := opcode >= 0x8
	switch {
	case b[0]&0x30 != 0, b[1]&0x80 == 0, opcode > 0x2 && opcode < 0x8, opcode > 0xA:
		return r.refused(1002)
	case b[0]&0x40 != 0 && (!r.vector.deflates() || control || opcode == 0):
		return r.refused(1002)
	case control && (!fin || n > 125):
		return r.refused(1002)
	case !control && (opcode == 0) != r.inMessage:
		return r.refused(1002)
	}
	b = b[2:]
	if n == 126 {
		if len(b) < 2 {
			return r.ended("lost")
		}
		if n, b = uint64(binary.BigEndian.Uint16(b)), b[2:]; n <= 125 {
			return r.refused(1002)
		}
	} else if n == 127 {
		if len(b) < 8 {
			return r.ended("lost")
		}
		if n, b = binary.BigEndian.Uint64(b), b[8:]; n <= 65535 || n >= 1<<63 {
			return r.refused(1002)
		}
	}
	if len(b) < 4 {
		return r.ended("lost")
	}
	key, rest := b[:4], b[4:]
	p := slices.Clone(rest[:min(n, uint64(len(rest)))])
	for i := range p {
		p[i] ^= key[i%4]
	}
	whole := uint64(len(p)) == n
	rest = rest[len(p):]
	if control {
		if !whole {
			return r.ended("lost")
		}
		return r.control(opcode, p, rest)
	}
	if opcode != 0 {
		r.deflated = b0&0x40 != 0
	}
	return r.data(opcode, fin, n, p, whole, rest)
}

func (r *referenceServer) control(opcode byte, p, rest []byte) []byte {
	if opcode != 0x8 {
		if r.controls++; r.maxControls > 0 && r.controls > r.maxControls {
			return r.refused(1008)
		}
	}
	if opcode == 0x9 && !r.closing {
		r.answers = append(r.answers, wireFrame{0xA, p})
	}
	if opcode != 0x8 {
		return rest
	}
	code := CloseNoStatus
	if len(p) == 1 {
		return r.refused(1002)
	}
	if len(p) >= 2 {
		code = CloseCode(binary.BigEndian.Uint16(p))
		if code < 1000 || code > 4999 || code > 1014 && code < 3000 || code >= 1004 && code <= 1006 {
			return r.refused(1002)
		}
		if !utf8.Valid(p[2:]) {
			return r.refused(1007)
		}
	}
	if r.closing {
		return r.ended("ours %d %d", r.vector.code, code)
	}
	r.answers = append(r.answers, wireFrame{0x8, p[:min(2, len(p))]})
	return r.ended("closed %d %q", code, p[min(2, len(p)):])
}

func (r *referenceServer) data(opcode byte, fin bool, n uint64, p []byte, whole bool, rest []byte) []byte {
	if opcode != 0 {
		r.text, r.message, r.size, r.fragments, r.empties = opcode == 0x1, nil, 0, 0, 0
	}
	r.inMessage = true
	r.fragments++
	r.empties++
	if n > 0 || fin {
		r.empties = 0
	}
	if r.fragments > r.maxFragments || r.empties > 64 {
		return r.refused(1008)
	}
	if r.size += n; r.size > r.wireLimit() {
		return r.refused(1009)
	}
	r.message = append(r.message, p...)
	if r.text && !r.deflated && !r.closing && !mayBecomeUTF8(r.message) {
		return r.refused(1007)
	}
	if !whole {
		return r.ended("lost")
	}
	if fin {
		r.inMessage = false
		return r.deliver(rest)
	}
	return rest
}

// mayBecomeUTF8 reports whether p is the beginning of some text.
func mayBecomeUTF8(p []byte) bool {
	for i := max(0, len(p)-3); i < len(p); i++ {
		if utf8.RuneStart(p[i]) && !utf8.FullRune(p[i:]) {
			return utf8.Valid(p[:i])
		}
	}
	return utf8.Valid(p)
}

func (r *referenceServer) deliver(rest []byte) []byte {
	if r.closing {
		return rest
	}
	if r.deflated {
		if code := r.inflate(); code != 0 {
			return r.refused(code)
		}
	}
	if r.text && !utf8.Valid(r.message) {
		return r.refused(1007)
	}
	m := Message{BinaryMessage, r.message}
	if r.text {
		m.Type = TextMessage
	}
	r.messages = append(r.messages, m)
	if !r.vector.closes || !r.text || !bytes.Equal(r.message, r.vector.closeOn) {
		r.answers = append(r.answers, wireFrame{byte(m.Type), r.message})
		return rest
	}
	r.closing = true
	reason := []byte(r.vector.reason)
	for len(reason) > 123 {
		_, n := utf8.DecodeLastRune(reason)
		reason = reason[:len(reason)-n]
	}
	p := binary.BigEndian.AppendUint16(nil, uint16(r.vector.code))
	r.answers = append(r.answers, wireFrame{0x8, append(p, reason...)})
	return rest
}

// withoutSection is an end as the reference tells it.
func withoutSection(end string) string {
	if words := strings.Fields(end); len(words) > 2 && words[0] == "refused" {
		return strings.Join(words[:2], " ")
	}
	return end
}

// The vectors and the reference must agree, or one of them is wrong.
func TestReference(t *testing.T) {
	for _, v := range loadConformance(t) {
		if err := reference(&v, v.in).compare(v.messages, v.answers, withoutSection(v.end)); err != nil {
			t.Errorf("case %s: the reference makes of % x: %v", v.name, v.in[:min(len(v.in), 100)], err)
		}
	}
}

// A client that goes away, at any byte: what was whole is answered, of the
// rest nothing is heard, and there is one end.
func TestConformancePrefixes(t *testing.T) {
	for _, v := range loadConformance(t) {
		for _, at := range cutsOf(len(v.in)) {
			want := reference(&v, v.in[:at])
			for _, w := range servings[:2] {
				o := w.run(t, &v, &scriptConn{pieces: [][]byte{[]byte(v.request() + string(v.in[:at]))}})
				o.end = withoutSection(o.end)
				want.allow(o)
				if err := o.compare(want.messages, want.answers, want.end); err != nil {
					t.Errorf("case %s: %v, gone after %d bytes, % x: %v", v.name, w, at, v.in[:min(at, 100)], err)
				}
			}
		}
	}
}

// checkHeld wants the memory of a connection that waits to be within the limit
// of a message plus 256 KiB.
func checkHeld(t *testing.T, v *conformanceCase) func(*Conn) {
	limit := v.u.maxMessageSize()
	if v.deflates() {
		limit = compressedLimit(limit)
	}
	limit += 256 << 10
	return func(c *Conn) {
		if got := held(c); uint64(got) > limit {
			t.Fatalf("a connection that waits holds %d bytes, want at most %d", got, limit)
		}
	}
}

// held is the memory of the buffers of c, whose reader is the caller.
func held(c *Conn) int {
	n := 0
	for _, b := range []*buffer{c.read.in, c.read.msg, c.write.out} {
		if b != nil {
			n += cap(b.b)
		}
	}
	return n
}

// The bits of FuzzConn's mode, beside the serving in the lowest two.
const (
	fuzzFrames    = 1 << 2 // the script is one of frames, not the stream
	fuzzLimit     = 3 << 3 // one of four limits
	fuzzFragments = 1 << 5 // a limit of three fragments
	fuzzClose     = 1 << 6 // the server closes on "bye"
	fuzzTakeover  = 1 << 7 // of FuzzConnDeflate: the client's context is kept
)

// fuzzCase is the case that a script and a mode stand for.
func fuzzCase(script []byte, mode byte) *conformanceCase {
	v := &conformanceCase{name: "fuzz", in: script}
	v.u.MaxControlRate = -1 // it counts by the clock
	v.u.MaxMessageSize = []int64{0, 10, 1000, 70_000}[mode&fuzzLimit>>3]
	if mode&fuzzFragments != 0 {
		v.u.MaxFragments = 3
	}
	if mode&fuzzClose != 0 {
		v.closes, v.closeOn, v.code, v.reason = true, []byte("bye"), 4000, "so long"
	}
	if mode&fuzzFrames != 0 {
		v.in = framesOf(script)
	}
	return v
}

// framesOf makes a stream of a script: for each frame the two first bytes, with
// MASK clear for a frame that has a mask, and the payload as it is; a length of
// 126 or 127 takes two bytes, of which the second stands there often.
func framesOf(script []byte) (stream []byte) {
	for len(script) >= 2 && len(stream) < 256<<10 {
		f := vectorFrame{bits: script[0] & 0xF0, form: 7, key: []byte{1, 0x80, 0x20, byte(len(stream))}}
		f.opcode = script[0] & 0xF
		if script[1]&0x80 != 0 {
			f.key = nil
		}
		n := int(script[1] & 0x7F)
		script = script[2:]
		if n < 126 || len(script) < 2 {
			f.length = uint64(n)
			n = min(n, len(script))
			f.payload = script[:n]
			script = script[n:]
		} else {
			times := map[int]int{126: 126, 127: 65536}[n] + 64*int(script[0])
			f.payload = bytes.Repeat(script[1:2], times)
			f.length = uint64(times)
			script = script[2:]
		}
		stream = f.appendTo(stream)
	}
	return stream
}

// piecesOf cuts stream in pieces of the sizes in turn; 0 is all that is left,
// and so is what would make too many.
func piecesOf(stream, sizes []byte) (pieces [][]byte) {
	const most = 4096 // each may take several system calls, and an input ten seconds
	for i := 0; len(stream) > 0; i++ {
		n := len(stream)
		if len(sizes) > 0 && sizes[i%len(sizes)] != 0 && i < most {
			n = min(n, int(sizes[i%len(sizes)]))
		}
		pieces = append(pieces, stream[:n])
		stream = stream[n:]
	}
	return pieces
}

// FuzzConn is a whole connection whose input chooses the frames and the pieces
// that they arrive in. Whatever comes, it gives the events and the answers of
// the reference; in one piece or in many, to Events or to the other readers; and
// never holds more memory than it may. The answers are lawful frames, or
// setAnswers has a fault to tell.
func FuzzConn(f *testing.F) {
	for i, v := range loadCases(f, "testdata/conformance.txt") {
		if len(v.in) < 2000 {
			f.Add(v.in, []byte{0}, byte(i)&3)
			f.Add(v.in, []byte{1}, byte(i+1)&3)
			f.Add(v.in, []byte{160, 5, 2, 0}, byte(i)&^fuzzFrames)
		}
	}
	f.Add([]byte("\x81\x05Hello\x01\x03bye\x80\x00\x88\x02\x03\xe8"), []byte{200, 1}, byte(fuzzFrames))
	f.Add([]byte("\x81\x03bye\x89\x04late\x82\x7f\x09x\x88\x00"), []byte{7}, byte(fuzzFrames|fuzzClose|1))
	f.Add([]byte("\x02\x7e\x03x\x00\x00\x89\x02hi\x80\x7f\x01y"), []byte{99}, byte(fuzzFrames|fuzzLimit|2))
	thrownAway := slices.Concat(textFrame("bye"), textFrame(strings.Repeat("late ", 20)), closeFrame(4000, ""))
	f.Add(thrownAway, []byte{7}, byte(fuzzClose|1))
	f.Fuzz(func(t *testing.T, script, sizes []byte, mode byte) {
		checkConn(t, fuzzCase(script, mode), sizes, mode)
	})
}

// checkConn is what both targets have in common.
func checkConn(t *testing.T, v *conformanceCase, sizes []byte, mode byte) {
	stream := []byte(v.request() + string(v.in))
	want := reference(v, v.in)
	whole := servings[0].run(t, v, &scriptConn{pieces: [][]byte{stream}, waits: checkHeld(t, v)})
	w := servings[int(mode)%4]
	if mode&(fuzzFrames|3) == 1 { // where there is a loop
		w = servings[len(servings)-1]
	}
	split := w.run(t, v, &scriptConn{pieces: piecesOf(stream, sizes), waits: checkHeld(t, v)})
	if err := split.compare(whole.messages, whole.answers, whole.end); err != nil {
		t.Errorf("%v, pieces of % d, not as Events in one: % x: %v", w, sizes, v.in, err)
	}
	whole.end = withoutSection(whole.end)
	want.allow(whole)
	if err := whole.compare(want.messages, want.answers, want.end); err != nil {
		t.Errorf("in one piece: % x: %v", v.in, err)
	}
}
