package websocket

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// A frameVector is an entry of testdata/frames.txt, which describes them.
type frameVector struct {
	name   string
	head   []byte // up to the payload
	body   []byte // masked, if the frame is
	close  bool   // body is that of a close frame, and there is no head
	want   string // behind "=", "" for none
	more   bool
	refuse string
	checks []string
}

// loadFrameVectors fails the test on a line that it doesn't understand, and
// when nothing or nothing of one kind was found.
func loadFrameVectors(tb testing.TB) []frameVector {
	tb.Helper()
	text, err := os.ReadFile("testdata/frames.txt")
	if err != nil {
		tb.Fatal(err)
	}
	var vs []frameVector
	closes := 0
	for i, line := range strings.Split(string(text), "\n") {
		if strings.TrimSpace(line) == "" || line[0] == '#' {
			continue
		}
		if line[0] != ' ' {
			vs = append(vs, frameVector{name: line, close: strings.HasPrefix(line, "close: ")})
			if vs[len(vs)-1].close {
				closes++
			}
			continue
		}
		if len(vs) == 0 {
			tb.Fatalf("frames.txt:%d: %q before the first name", i+1, line)
		}
		if err := vs[len(vs)-1].parseLine(strings.TrimSpace(line)); err != nil {
			tb.Fatalf("frames.txt:%d: %v", i+1, err)
		}
	}
	if closes == 0 || closes == len(vs) {
		tb.Fatalf("frames.txt: %d vectors, %d of close payloads; want both kinds", len(vs), closes)
	}
	for _, v := range vs {
		if n := len(v.want) + len(v.refuse); n == 0 && !v.more {
			tb.Fatalf("frames.txt: nothing is expected of %q", v.name)
		}
	}
	return vs
}

func (v *frameVector) parseLine(line string) (err error) {
	switch kind, rest, _ := strings.Cut(line, " "); {
	case kind == "|" && v.close:
		v.body, err = vectorBytes(rest)
	case kind == "|":
		err = v.parseFrame(strings.Split(rest, "|"))
	case kind == "=":
		v.want = rest
	case line == "more":
		v.more = true
	case kind == "!":
		v.refuse = rest
	case strings.HasPrefix(kind, "idle") || strings.HasPrefix(kind, "inside"):
		v.checks = append(v.checks, line)
	default:
		err = fmt.Errorf("%q is none of the lines there are", line)
	}
	return err
}

func (v *frameVector) parseFrame(columns []string) error {
	if len(columns) != 5 {
		return fmt.Errorf("%d columns, want 5", len(columns))
	}
	for _, bits := range columns[:2] {
		bits = strings.ReplaceAll(bits, " ", "")
		if bits == "-" {
			continue
		}
		b, err := strconv.ParseUint(bits, 2, 8)
		if err != nil || len(bits) != 8 {
			return fmt.Errorf("%q isn't 8 bits", bits)
		}
		v.head = append(v.head, byte(b))
	}
	for i, column := range columns[2:] {
		p, err := vectorBytes(column)
		if err != nil {
			return err
		}
		if i < 2 {
			v.head = append(v.head, p...)
		} else {
			v.body = p
		}
	}
	return nil
}

// vectorBytes reads hex digits and quoted text.
func vectorBytes(s string) (p []byte, err error) {
	for s = strings.TrimSpace(s); s != "" && s != "-"; s = strings.TrimSpace(s) {
		if s[0] == '"' {
			quoted, err := strconv.QuotedPrefix(s)
			if err != nil {
				return nil, err
			}
			text, _ := strconv.Unquote(quoted)
			p, s = append(p, text...), s[len(quoted):]
			continue
		}
		if len(s) < 2 {
			return nil, fmt.Errorf("%q isn't hex", s)
		}
		if p, err = hex.AppendDecode(p, []byte(s[:2])); err != nil {
			return nil, err
		}
		s = s[2:]
	}
	return p, nil
}

// headerWords is a header in the words of the vectors.
func headerWords(h header) string {
	var words []string
	add := func(is bool, word string) {
		if is {
			words = append(words, word)
		}
	}
	add(h.fin, "fin")
	add(h.rsv1, "rsv1")
	add(h.rsv2, "rsv2")
	add(h.rsv3, "rsv3")
	words = append(words, strings.TrimPrefix(h.opcode.String(), "opcode "))
	add(h.masked, "masked")
	return fmt.Sprintf("%s %d", strings.Join(words, " "), h.length)
}

// errorWords is a *ProtocolError in the words of the vectors.
func errorWords(err error) string {
	var broken *ProtocolError
	if !errors.As(err, &broken) {
		return fmt.Sprint(err)
	}
	section := strings.TrimPrefix(broken.Section, "RFC 6455, ")
	return fmt.Sprintf("%d %s: %s", broken.Code, section, broken.Reason)
}

func TestHeaderVectors(t *testing.T) {
	for _, v := range loadFrameVectors(t) {
		if !v.close {
			checkHeaderVector(t, v)
		}
	}
}

func checkHeaderVector(t *testing.T, v frameVector) {
	t.Helper()
	b := slices.Concat(v.head, v.body)
	h, n, err := parseHeader(b)
	switch {
	case v.refuse != "":
		if err == nil || n != 0 || errorWords(err) != v.refuse {
			t.Errorf("%s: parseHeader(% x) = %v, %d, %v; want 0, %s", v.name, b, h, n, err, v.refuse)
		}
		return
	case v.more:
		if n != 0 || err != nil {
			t.Errorf("%s: parseHeader(% x) = %v, %d, %v; want 0, <nil>", v.name, b, h, n, err)
		}
		return
	}
	got, want := headerWords(h), v.want
	if _, quoted, ok := strings.Cut(want, `"`); ok {
		want = strings.TrimSpace(strings.TrimSuffix(want, `"`+quoted))
		p := bytes.Clone(v.body)
		if h.masked {
			mask(p, h.key, 0)
		}
		if strconv.Quote(string(p)) != `"`+quoted {
			t.Errorf("%s: the payload of % x is %q, want \"%s", v.name, b, p, quoted)
		}
	}
	if got != want || n != len(v.head) || err != nil {
		t.Errorf("%s: parseHeader(% x) = %s, %d, %v; want %s, %d, <nil>", v.name, b, got, n, err, want, len(v.head))
	}
	if got := appendHeader([]byte("dst"), h); string(got) != "dst"+string(v.head) {
		t.Errorf("%s: appendHeader(dst, %s) = % x; want it to add % x", v.name, headerWords(h), got, v.head)
	}
	for _, check := range v.checks {
		state, want, _ := strings.Cut(check, " ")
		want = strings.TrimPrefix(want, "! ")
		got := "ok"
		if err := checkHeader(h, strings.HasPrefix(state, "inside"), strings.HasSuffix(state, "+deflate")); err != nil {
			got = errorWords(err)
		}
		if got != want {
			t.Errorf("%s: checkHeader(%s) while %s: %s; want %s", v.name, headerWords(h), state, got, want)
		}
	}
}

// Every pair of first bytes, at every length's form and in every state, is
// judged as the tables of sections 5.2, 5.4 and 5.5 say.
func TestCheckHeaderOfEveryFirstBytes(t *testing.T) {
	for b0 := range 256 {
		for _, b1 := range []byte{0, 1, 125, 126, 127, 0x80, 0x81, 0x80 | 125, 0x80 | 126, 0x80 | 127} {
			for state := range 4 {
				inMessage, deflate := state&1 != 0, state&2 != 0
				h, _, err := parseHeader([]byte{byte(b0), b1})
				if err != nil {
					t.Fatalf("parseHeader(%02x %02x) refuses: %v", b0, b1, err)
				}
				got := checkHeader(h, inMessage, deflate) == nil
				if want := lawful(byte(b0), b1, inMessage, deflate); got != want {
					t.Errorf("checkHeader(%02x %02x, in message %v, deflate %v) accepts: %v, want %v",
						b0, b1, inMessage, deflate, got, want)
				}
			}
		}
	}
}

// lawful says what checkHeader is to say, from the two first bytes.
func lawful(b0, b1 byte, inMessage, deflate bool) bool {
	switch b0 & 0x3F { // all but FIN and RSV1
	case 0x0:
		return inMessage && b0&0x40 == 0 && b1 >= 0x80
	case 0x1, 0x2:
		return !inMessage && (deflate || b0&0x40 == 0) && b1 >= 0x80
	case 0x8, 0x9, 0xA:
		return b0&0xC0 == 0x80 && b1 >= 0x80 && b1 <= 0x80|125
	}
	return false
}

func TestClosePayloadVectors(t *testing.T) {
	for _, v := range loadFrameVectors(t) {
		if !v.close {
			continue
		}
		code, reason, err := parseClosePayload(v.body)
		if v.refuse != "" {
			if err == nil || errorWords(err) != v.refuse {
				t.Errorf("%s: parseClosePayload(% x) = %d, %q, %v; want %s", v.name, v.body, code, reason, err, v.refuse)
			}
			continue
		}
		if got := fmt.Sprintf("%d %q", code, reason); got != v.want || err != nil {
			t.Errorf("%s: parseClosePayload(% x) = %s, %v; want %s, <nil>", v.name, v.body, got, err, v.want)
		}
		if got := appendClosePayload([]byte("dst"), code, reason); string(got) != "dst"+string(v.body) {
			t.Errorf("%s: appendClosePayload(dst, %d, %q) = % x; want it to add % x", v.name, code, reason, got, v.body)
		}
	}
}

// Every code there can be, against the list of section 7.4 and the registry.
func TestCloseCodes(t *testing.T) {
	for code := range 1 << 16 {
		want := code >= 3000 && code <= 4999 ||
			slices.Contains([]int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014}, code)
		p := binary.BigEndian.AppendUint16(nil, uint16(code))
		got, _, err := parseClosePayload(p)
		if (err == nil) != want || want && int(got) != code {
			t.Errorf("parseClosePayload(% x) = %d, %v; want it to accept: %v", p, got, err, want)
		}
	}
}

// A reason that is too long is cut between two runes, and one that isn't UTF-8
// anywhere.
func TestLongCloseReasons(t *testing.T) {
	for _, test := range []struct {
		reason string
		want   int // bytes of the reason that go out
	}{
		{strings.Repeat("x", 123), 123},
		{strings.Repeat("x", 124), 123},
		{strings.Repeat("x", 122) + "é", 122},
		{strings.Repeat("x", 121) + "é", 123},
		{strings.Repeat("x", 121) + "éé", 123},
		{strings.Repeat("x", 120) + "😀", 120},
		{strings.Repeat("\x80", 200), 0},
	} {
		got := appendClosePayload(nil, CloseNormal, test.reason)
		want := append([]byte{0x03, 0xe8}, test.reason[:test.want]...)
		if !bytes.Equal(got, want) {
			t.Errorf("appendClosePayload(nil, 1000, %q) = %q, want %q", test.reason, got, want)
		}
	}
}

func TestOpcodeNames(t *testing.T) {
	for o, want := range map[opcode]string{
		opContinuation: "continuation", opText: "text", opBinary: "binary", opClose: "close",
		opPing: "ping", opPong: "pong", 3: "opcode 0x3", 15: "opcode 0xf", 16: "opcode 0x10",
	} {
		if got := o.String(); got != want {
			t.Errorf("opcode(%d).String() = %q, want %q", uint8(o), got, want)
		}
		if got, want := o.control(), o == opClose || o == opPing || o == opPong || o == 15; got != want {
			t.Errorf("opcode(%d).control() = %v, want %v", uint8(o), got, want)
		}
	}
}

func TestHeaderAllocates(t *testing.T) {
	h := header{fin: true, masked: true, opcode: opText, length: 1 << 20, key: [4]byte{1, 2, 3, 4}}
	b := make([]byte, 0, maxHeaderLen)
	if got := testing.AllocsPerRun(10, func() {
		h, _, _ = parseHeader(appendHeader(b, h))
		checkHeader(h, false, false)
	}); got != 0 {
		t.Errorf("a header costs %v allocations, want 0", got)
	}
}

// FuzzHeader takes bytes to parse, and beside them the fields of a header.
func FuzzHeader(f *testing.F) {
	for _, v := range loadFrameVectors(f) {
		if !v.close {
			f.Add(slices.Concat(v.head, v.body), byte(0x81), true, uint64(len(v.body)), uint32(0x37fa213d))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, b0 byte, masked bool, length uint64, key uint32) {
		fuzzParse(t, b)
		h := header{
			fin: b0&0x80 != 0, rsv1: b0&0x40 != 0, rsv2: b0&0x20 != 0, rsv3: b0&0x10 != 0,
			opcode: opcode(b0 & 0xF), masked: masked, length: length &^ (1 << 63),
		}
		if masked {
			binary.BigEndian.PutUint32(h.key[:], key)
		}
		wire := appendHeader(nil, h)
		if got, n, err := parseHeader(append(wire, b...)); got != h || n != len(wire) || err != nil {
			t.Errorf("parseHeader(% x, and more) = %v, %d, %v; want %v, %d, <nil>", wire, got, n, err, h, len(wire))
		}
	})
}

// fuzzParse holds what parseHeader makes of b against what has to be true of
// any header.
func fuzzParse(t *testing.T, b []byte) {
	h, n, err := parseHeader(b)
	if n < 0 || n > len(b) || n > maxHeaderLen || n != 0 && n < 2 || err != nil && n != 0 {
		t.Fatalf("parseHeader(% x) = %v, %d, %v: that n can't be", b, h, n, err)
	}
	if len(b) >= 2 { // what they say is there, whatever comes of the rest
		if first, _, _ := parseHeader(b[:2]); first.fin != h.fin || first.opcode != h.opcode || first.masked != h.masked ||
			first.rsv1 != h.rsv1 || first.rsv2 != h.rsv2 || first.rsv3 != h.rsv3 {
			t.Fatalf("parseHeader(% x) = %v, and of its first two bytes %v", b, h, first)
		}
	}
	if err != nil {
		var broken *ProtocolError
		if !errors.As(err, &broken) || broken.Code != CloseProtocolError {
			t.Fatalf("parseHeader(% x): %v, want a ProtocolError with 1002", b, err)
		}
		if _, n, more := parseHeader(append(b[:len(b):len(b)], 0)); n != 0 || fmt.Sprint(more) != err.Error() {
			t.Fatalf("parseHeader(% x) refuses with %v, and with a byte more: %d, %v", b, err, n, more)
		}
		return
	}
	if n == 0 && len(b) >= maxHeaderLen {
		t.Fatalf("parseHeader(% x) asks for more than a header can have", b)
	}
	if n > 0 {
		// The length was in its shortest form, or this couldn't be equal.
		if back := appendHeader(nil, h); !bytes.Equal(back, b[:n]) {
			t.Fatalf("parseHeader(% x) = %v, %d; appendHeader makes % x of it", b, h, n, back)
		}
		if h.length >= 1<<63 {
			t.Fatalf("parseHeader(% x) gives a length of %d", b, h.length)
		}
		b = b[:n]
	}
	for i := range len(b) {
		if _, n, err := parseHeader(b[:i]); n != 0 || err != nil {
			t.Fatalf("parseHeader(% x) = _, %d, %v; want 0, <nil>, a prefix of % x", b[:i], n, err, b)
		}
	}
}

func FuzzClosePayload(f *testing.F) {
	for _, v := range loadFrameVectors(f) {
		if v.close {
			f.Add(v.body)
		}
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		code, reason, err := parseClosePayload(p)
		switch {
		case err != nil:
			var broken *ProtocolError
			if !errors.As(err, &broken) || broken.Section == "" {
				t.Fatalf("parseClosePayload(% x): %v, want a ProtocolError with its section", p, err)
			}
			text := len(p) >= 2 && CloseCode(binary.BigEndian.Uint16(p)).sendable()
			if want := map[bool]CloseCode{false: 1002, true: 1007}[text]; broken.Code != want || text && utf8.Valid(p[2:]) {
				t.Fatalf("parseClosePayload(% x): %v with %d, want %d", p, err, broken.Code, want)
			}
		case len(p) == 0:
			if code != CloseNoStatus || reason != "" {
				t.Fatalf("parseClosePayload(nothing) = %d, %q; want 1005", code, reason)
			}
		case string(p[2:]) != reason || !utf8.ValidString(reason):
			t.Fatalf("parseClosePayload(% x) = %d, %q", p, code, reason)
		case len(p) <= maxControlPayloadLen:
			if back := appendClosePayload(nil, code, reason); !bytes.Equal(back, p) {
				t.Fatalf("parseClosePayload(% x) = %d, %q; appendClosePayload makes % x of it", p, code, reason, back)
			}
		}
		fuzzReason(t, string(p))
	})
}

// fuzzReason lets any text be a reason: what goes out is as much of it as fits.
func fuzzReason(t *testing.T, reason string) {
	got := appendClosePayload(nil, CloseNormal, reason)
	if len(got) < 2 || len(got) > maxControlPayloadLen || !strings.HasPrefix(reason, string(got[2:])) {
		t.Fatalf("appendClosePayload(nil, 1000, %q) = %q", reason, got)
	}
	if lost := len(reason) - len(got[2:]); utf8.ValidString(reason) {
		if _, _, err := parseClosePayload(got); err != nil || lost > 0 && len(got) <= maxControlPayloadLen-utf8.UTFMax {
			t.Fatalf("appendClosePayload(nil, 1000, %q) = %q: %d bytes lost, %v", reason, got, lost, err)
		}
	}
}
