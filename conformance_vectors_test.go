package websocket

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// A conformanceCase is a case of testdata/conformance.txt, which describes
// them, or of conformance_deflate.txt.
type conformanceCase struct {
	name     string
	u        Upgrader
	offer    string // of extensions
	declined bool   // the offer is not agreed to
	in       []byte // what the client sends behind the handshake
	eof      bool   // and then its stream ends
	sharp    bool   // the last byte of in decides
	closeOn  []byte // the message that the server answers by Close
	code     CloseCode
	reason   string
	closes   bool // closeOn is meant
	messages []Message
	answers  []wireFrame
	end      string
}

// A wireFrame is a frame as the tests see it. They have a codec of their own,
// so that a fault of the library's can't hide itself.
type wireFrame struct {
	opcode  byte
	payload []byte
}

func (f wireFrame) String() string { return fmt.Sprintf("%v %s", opcode(f.opcode), brief(f.payload)) }

// brief quotes p, or as much of it as a person wants to read.
func brief(p []byte) string {
	if len(p) > 64 {
		return fmt.Sprintf("%q and %d bytes more", p[:48], len(p)-48)
	}
	return fmt.Sprintf("%q", p)
}

// anyReason stands for a reason that the vector doesn't tell.
const anyReason = "..."

// sameFrames reports whether got is what was wanted.
func sameFrames(got, want []wireFrame) bool {
	return slices.EqualFunc(got, want, func(g, w wireFrame) bool {
		p, any := bytes.CutSuffix(w.payload, []byte(anyReason))
		if any && g.opcode == 0x8 && len(g.payload) > len(p) {
			return g.opcode == w.opcode && bytes.HasPrefix(g.payload, p) && utf8.Valid(g.payload[2:])
		}
		return g.opcode == w.opcode && bytes.Equal(g.payload, w.payload)
	})
}

// decodeAnswers reads what a server sent: final, unmasked frames with no
// reserved bit set and each length in its shortest form, and of close frames at
// most one, the last.
func decodeAnswers(b []byte) (fs []wireFrame, err error) {
	for len(b) > 0 {
		if len(fs) > 0 && fs[len(fs)-1].opcode == 0x8 {
			return fs, fmt.Errorf("% x behind the close frame", b)
		}
		if len(b) < 2 || !slices.Contains([]byte{0x81, 0x82, 0x88, 0x89, 0x8A}, b[0]) || b[1] >= 0x80 {
			return fs, fmt.Errorf("% x begins no frame of a server's", b[:min(len(b), 14)])
		}
		op, n, rest := b[0]&0xF, uint64(b[1]), b[2:]
		least := uint64(0)
		if n == 126 && len(rest) >= 2 {
			n, rest, least = uint64(binary.BigEndian.Uint16(rest)), rest[2:], 126
		} else if n == 127 && len(rest) >= 8 {
			n, rest, least = binary.BigEndian.Uint64(rest), rest[8:], 65536
		}
		if n < least || n > 125 && op >= 0x8 {
			return fs, fmt.Errorf("a length of %d in % x", n, b[:len(b)-len(rest)])
		}
		if uint64(len(rest)) < n {
			return fs, fmt.Errorf("%d bytes of a payload of %d", len(rest), n)
		}
		if op == 0x8 && (n == 1 || n > 2 && !utf8.Valid(rest[2:n])) {
			return fs, fmt.Errorf("close frame with % x", rest[:n])
		}
		fs = append(fs, wireFrame{op, rest[:n:n]})
		b = rest[n:]
	}
	return fs, nil
}

var wireOpcodes = map[string]byte{"cont": 0, "text": 1, "binary": 2, "close": 8, "ping": 9, "pong": 10}

// A vectorFrame is a frame to send, with whatever may be wrong about it.
type vectorFrame struct {
	wireFrame
	bits   byte   // FIN and the reserved ones
	key    []byte // nil for none
	form   int    // the least bits of its length: 7, 16, 64
	length uint64 // declared
	raw    bool   // the payload is all there is
}

// appendTo appends the frame as it is on the wire.
func (f *vectorFrame) appendTo(wire []byte) []byte {
	if f.raw {
		return append(wire, f.payload...)
	}
	mask := byte(0)
	if f.key != nil {
		mask = 0x80
	}
	wire = append(wire, f.bits|f.opcode)
	switch {
	case f.form == 64 || f.length > 65535:
		wire = binary.BigEndian.AppendUint64(append(wire, mask|127), f.length)
	case f.form == 16 || f.length > 125:
		wire = binary.BigEndian.AppendUint16(append(wire, mask|126), uint16(f.length))
	default:
		wire = append(wire, mask|byte(f.length))
	}
	wire = append(wire, f.key...)
	for i, b := range f.payload {
		if f.key != nil {
			b ^= f.key[i%4]
		}
		wire = append(wire, b)
	}
	return wire
}

// parseFrameLine reads a FRAME and how many times it stands there.
func parseFrameLine(line string) (n int, f vectorFrame, err error) {
	words, err := splitWords(line)
	if err != nil {
		return 0, f, err
	}
	n = 1
	f.bits, f.key, f.form = 0x80, []byte{0x37, 0xfa, 0x21, 0x3d}, 7
	f.opcode = 0xFF
	declared := false
	for i, word := range words {
		name, value, _ := strings.Cut(word, "=")
		op, known := wireOpcodes[word]
		switch {
		case i == 0 && word[0] >= '1' && word[0] <= '9' && strings.HasSuffix(word, "x"):
			n, err = strconv.Atoi(strings.TrimSuffix(word, "x"))
		case word == "-fin":
			f.bits &^= 0x80
		case word == "rsv1" || word == "rsv2" || word == "rsv3":
			f.bits |= 0x80 >> (word[3] - '0')
		case known:
			f.opcode = op
		case len(word) == 3 && word[:2] == "op":
			var v uint64
			v, err = strconv.ParseUint(word[2:], 16, 4)
			f.opcode = byte(v)
		case word == "raw":
			f.raw = true
		case word == "-mask":
			f.key = nil
		case name == "key":
			f.key, err = hex.DecodeString(value)
		case word == "len16" || word == "len64":
			f.form, err = strconv.Atoi(word[3:])
		case name == "length":
			f.length, err = strconv.ParseUint(value, 10, 64)
			declared = true
		default:
			var p []byte
			p, err = parsePayload(word, f.opcode == 0x8 && len(f.payload) == 0)
			f.payload = append(f.payload, p...)
		}
		if err != nil {
			return 0, f, fmt.Errorf("%q: %w", word, err)
		}
	}
	if !f.raw && f.opcode == 0xFF || f.key != nil && len(f.key) != 4 {
		return 0, f, fmt.Errorf("%q: no opcode, or a key that isn't of four bytes", line)
	}
	if !declared {
		f.length = uint64(len(f.payload))
	}
	return n, f, nil
}

// splitWords splits a line at spaces outside of quotes.
func splitWords(line string) (words []string, err error) {
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		n := 0
		if line[0] == '"' {
			quoted, err := strconv.QuotedPrefix(line)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", line, err)
			}
			n = len(quoted)
		}
		for n < len(line) && line[n] != ' ' {
			n++
		}
		words, line = append(words, line[:n]), line[n:]
	}
	return words, nil
}

// parsePayload reads one PAYLOAD; first says that a close code may stand here.
func parsePayload(word string, first bool) ([]byte, error) {
	if word == anyReason {
		return []byte(anyReason), nil
	}
	times := 1
	if i := strings.LastIndexByte(word, '*'); i > 0 && word[i-1] != '\\' && word[len(word)-1] != '"' {
		n, err := strconv.Atoi(word[i+1:])
		if err != nil {
			return nil, err
		}
		word, times = word[:i], n
	}
	switch {
	case word[0] == '"':
		text, err := strconv.Unquote(word)
		return bytes.Repeat([]byte(text), times), err
	case strings.HasPrefix(word, "0x"):
		p, err := hex.DecodeString(word[2:])
		return bytes.Repeat(p, times), err
	case first:
		code, err := strconv.ParseUint(word, 10, 16)
		return binary.BigEndian.AppendUint16(nil, uint16(code)), err
	}
	return nil, errors.New("not a word of a frame")
}

// parseLine reads one line of a case.
func (c *conformanceCase) parseLine(line string) error {
	kind, rest, _ := strings.Cut(line, " ")
	switch kind {
	case "sharp":
		c.sharp = true
	case "deflate":
		c.deflate(rest)
	case "declined":
		c.declined = true
	case "takeover":
		c.u.Compression.ContextMemory = 0
	case "limit", "fragments", "control-rate":
		n, err := strconv.Atoi(rest)
		switch kind {
		case "limit":
			c.u.MaxMessageSize = int64(n)
		case "fragments":
			c.u.MaxFragments = n
		case "control-rate":
			c.u.MaxControlRate = n
		}
		return err
	case "server-close":
		return c.parseServerClose(rest)
	case ">":
		if rest == "eof" {
			c.eof = true
			return nil
		}
		n, f, err := parseFrameLine(rest)
		c.in = append(c.in, bytes.Repeat(f.appendTo(nil), n)...)
		return err
	case "=", "~", "<":
		n, f, err := parseFrameLine(rest)
		for range n {
			if kind != "<" {
				c.messages = append(c.messages, Message{MessageType(f.opcode), f.payload})
			}
			if kind != "~" {
				c.answers = append(c.answers, f.wireFrame)
			}
		}
		return err
	case "end":
		return c.parseEnd(rest)
	default:
		return fmt.Errorf("%q is none of the lines there are", line)
	}
	return nil
}

func (c *conformanceCase) parseServerClose(rest string) error {
	words, err := splitWords(rest)
	if err != nil || len(words) != 3 {
		return fmt.Errorf("server-close %q: want three words (%v)", rest, err)
	}
	c.closes = true
	if c.closeOn, err = parsePayload(words[0], false); err != nil {
		return err
	}
	code, err := strconv.Atoi(words[1])
	if err != nil {
		return err
	}
	reason, err := parsePayload(words[2], false)
	c.code, c.reason = CloseCode(code), string(reason)
	return err
}

// parseEnd brings the reason into the form of endWords.
func (c *conformanceCase) parseEnd(rest string) error {
	c.end = rest
	if words, err := splitWords(rest); err != nil || words[0] == "closed" {
		reason := ""
		for _, word := range words[min(2, len(words)):] {
			p, err := parsePayload(word, false)
			if err != nil {
				return err
			}
			reason += string(p)
		}
		c.end = fmt.Sprintf("closed %s %q", words[1], reason)
	}
	return nil
}

// endWords is the end of a connection in the words of the vectors, and behind
// them what doesn't fit an end of its kind.
func endWords(err error) string {
	var end *EndError
	if !errors.As(err, &end) {
		return fmt.Sprintf("%T: %v", err, err)
	}
	var words string
	want := EndError{By: SidePeer}
	var closed *CloseError
	var broken *ProtocolError
	switch {
	case errors.As(err, &closed):
		words = fmt.Sprintf("closed %d %q", closed.Code, closed.Reason)
		want.Sent, want.Received, want.Clean = closed.Code, closed.Code, true
	case errors.As(err, &broken):
		words = strings.TrimSpace(fmt.Sprintf("refused %d %s", broken.Code, broken.Section))
		want.Sent = broken.Code
	case errors.Is(err, io.ErrUnexpectedEOF):
		words = "lost"
	case errors.Is(err, net.ErrClosed):
		words = fmt.Sprintf("ours %d %d", end.Sent, end.Received)
		want = EndError{By: SideServer, Sent: end.Sent, Received: end.Received, Clean: end.Received != 0}
	default:
		return fmt.Sprintf("%T: %v", end.Err, err)
	}
	if end.By != want.By || end.Sent != want.Sent || end.Received != want.Received || end.Clean != want.Clean {
		words += fmt.Sprintf(" (by %v, sent %d, received %d, clean %v)", end.By, end.Sent, end.Received, end.Clean)
	}
	return words
}

// loadConformance fails the test on a line that it doesn't understand, on a
// case without input or end, and when there is no case.
func loadConformance(tb testing.TB) []conformanceCase {
	tb.Helper()
	return append(loadCases(tb, "testdata/conformance.txt"), loadCases(tb, "testdata/conformance_deflate.txt")...)
}

func loadCases(tb testing.TB, file string) []conformanceCase {
	tb.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	var cases []conformanceCase
	sections := strings.Split("\n"+string(text), "\ncase ")
	for _, section := range sections[1:] {
		lines := strings.Split(section, "\n")
		values := []string{""}
		for i, line := range lines[1:] {
			if rest, ok := strings.CutPrefix(line, "each "); ok {
				if values, err = splitWords(rest); err != nil || len(values) < 2 {
					tb.Fatalf("case %s: %q: %v", lines[0], line, err)
				}
				lines[i+1] = ""
			}
		}
		for _, value := range values {
			c := conformanceCase{name: strings.TrimSpace(lines[0] + " " + value)}
			if len(c.name) > 80 {
				c.name = c.name[:80]
			}
			for _, line := range lines[1:] {
				if line == "" || line[0] == '#' {
					continue
				}
				if err := c.parseLine(strings.ReplaceAll(line, "$", value)); err != nil {
					tb.Fatalf("case %s: %q: %v", c.name, line, err)
				}
			}
			if len(c.in) == 0 && !c.eof || c.end == "" {
				tb.Fatalf("case %s: no input, or no end", c.name)
			}
			cases = append(cases, c)
		}
	}
	if len(cases) == 0 {
		tb.Fatalf("%s holds no case", file)
	}
	return cases
}
