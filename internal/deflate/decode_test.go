package deflate

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/rawws/websocket/internal/deflate/bitwise"
)

// describe is for messages of any length.
func describe(b []byte) string {
	if len(b) > 40 {
		return fmt.Sprintf("%q... (%d bytes)", b[:40], len(b))
	}
	return strconv.Quote(string(b))
}

// decompress is Decompress with dst of some room, and holds what was there
// before.
func decompress(t testing.TB, src []byte, w *Window, limit, room int) ([]byte, error) {
	t.Helper()
	const before = "before"
	out, err := Decompress(append(make([]byte, 0, len(before)+room), before...), src, w, limit)
	if !bytes.HasPrefix(out, []byte(before)) {
		t.Fatalf("Decompress(% x): what was there before is gone: %s", src, describe(out))
	}
	out = out[len(before):]
	if limit >= 0 && len(out) > limit {
		t.Fatalf("Decompress(% x): %d bytes, over the limit of %d", src, len(out), limit)
	}
	return out, err
}

// A vector is a paragraph of testdata/messages.txt.
type vector struct {
	line     int
	rule     string
	payloads [][]byte
	gives    []string
}

// loadVectors fails on what it doesn't know, and on a file without vectors.
func loadVectors(t testing.TB) (vectors []vector) {
	t.Helper()
	text, err := os.ReadFile("testdata/messages.txt")
	if err != nil {
		t.Fatal(err)
	}
	var v vector
	for i, line := range strings.Split(string(text)+"\n", "\n") {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch {
		case strings.HasPrefix(line, "#"):
		case line == "":
			if v.line == 0 {
				continue
			}
			if v.rule == "" || len(v.payloads) == 0 || len(v.payloads) != len(v.gives) {
				t.Fatalf("testdata/messages.txt: the vector that begins in line %d isn't whole", v.line)
			}
			vectors = append(vectors, v)
			v = vector{}
		case key == "rule":
			v.rule, v.line = value, i+1
		case key == "payload":
			b, err := hex.DecodeString(strings.ReplaceAll(value, " ", ""))
			if err != nil {
				t.Fatalf("testdata/messages.txt:%d: %v", i+1, err)
			}
			v.payloads = append(v.payloads, b)
		case key == "gives":
			v.gives = append(v.gives, value)
		default:
			t.Fatalf("testdata/messages.txt:%d: unknown key %q", i+1, key)
		}
	}
	if len(vectors) == 0 {
		t.Fatal("testdata/messages.txt: no vectors")
	}
	return vectors
}

func TestVectors(t *testing.T) {
	for _, v := range loadVectors(t) {
		for _, room := range []int{0, 3, 1000} {
			w := NewWindow(15)
			for i, payload := range v.payloads {
				out, err := decompress(t, payload, w, 1000, room)
				got := strconv.Quote(string(out))
				if err != nil {
					got = strings.TrimPrefix(err.Error(), "deflate: ")
				}
				if got != v.gives[i] {
					t.Errorf("line %d (%s): Decompress(% x) gives %s; want %s", v.line, v.rule, payload, got, v.gives[i])
				}
			}
		}
	}
}

// checkAgainst holds a payload against what decompresses bit by bit, and
// against compress/flate, and reports whether it is a message.
func checkAgainst(t *testing.T, payload, dict []byte, limit, room int) bool {
	t.Helper()
	j := bitwise.Message{In: payload, Out: bytes.Clone(dict), Most: len(dict) + limit}
	bad := j.Decode()
	want := j.Out[len(dict):]
	var w *Window
	if len(dict) > 0 {
		w = NewWindow(15)
		w.Add(dict)
	}
	out, err := decompress(t, payload, w, limit, room)
	what := fmt.Sprintf("Decompress(% x) behind %d bytes, limit %d", payload[:min(len(payload), 200)], len(dict), limit)
	if len(payload) == 0 {
		if len(out) != 0 || err != nil {
			t.Errorf("%s = %s, %v; want nothing", what, describe(out), err)
		}
		return true
	}
	viaFlate, ok := flateMessage(payload, dict, limit)
	switch {
	case len(want) > limit:
		// What is wrong within a match that goes over the limit may be found first.
		if err == nil {
			t.Errorf("%s: got %s, no error; want ErrTooLong", what, describe(out))
		}
		return false
	case bad != nil:
		if err == nil || ok || errors.Is(err, ErrTooLong) {
			t.Errorf("%s: got %s, %v, with compress/flate %v; want %v", what, describe(out), err, ok, bad)
		}
	case err != nil || !bytes.Equal(out, want):
		t.Errorf("%s = %s, %v; want %s", what, describe(out), err, describe(want))
	case !ok || !bytes.Equal(viaFlate, want):
		t.Errorf("compress/flate makes %s, %v of % x; want %s", describe(viaFlate), ok, payload, describe(want))
	}
	if !bytes.HasPrefix(want, out) {
		t.Errorf("%s: got %s before the error; want a beginning of %s", what, describe(out), describe(want))
	}
	return bad == nil
}

// What comes out doesn't depend on how much room there was.
func TestDecompressRoom(t *testing.T) {
	for _, in := range samples() {
		for level := range 10 {
			payload := flateCompress(t, level, false, in.data)[0]
			for _, room := range []int{0, 1, 300, len(in.data) - 1, len(in.data), len(in.data) + 1000} {
				out, err := decompress(t, payload, nil, len(in.data), room)
				if err != nil || !bytes.Equal(out, in.data) {
					t.Errorf("%s, level %d, room for %d: got %s, %v", in.name, level, room, describe(out), err)
				}
				if most := max(len(in.data), room) + len("before"); cap(out) > most {
					t.Errorf("%s, level %d, room for %d: a buffer of %d bytes, want at most %d", in.name, level, room, cap(out), most)
				}
			}
		}
	}
}

// A message cut anywhere is refused, unless it ends by chance as it has to.
func TestDecompressCut(t *testing.T) {
	stored := func(lengths ...int) (b []byte) {
		for _, n := range lengths {
			b = append(b, 0, byte(n), byte(n>>8), byte(^n), byte(^n>>8))
			b = append(b, bytes.Repeat([]byte{'a'}, n)...)
		}
		return append(b, 0)
	}
	payloads := [][]byte{stored(3, 4, 5), stored(100, 24), stored(24, 33, 4)}
	for level := range 10 {
		payloads = append(payloads, flateCompress(t, level, false, jsonOf(9, 1500))[0], flateCompress(t, level, false, []byte("Hello"))[0])
	}
	lawful := 0
	for _, payload := range payloads {
		for cut := range len(payload) {
			if cut > 0 && checkAgainst(t, payload[:cut], nil, 2000, 100) {
				lawful++
			}
		}
	}
	if lawful > 30 {
		t.Errorf("%d payloads that were cut are messages", lawful)
	}
}

// Any bit may be another one.
func TestDecompressFlipped(t *testing.T) {
	for level := range 10 {
		payload := flateCompress(t, level, false, jsonOf(5, 600))[0]
		for bit := range 8 * min(len(payload), 150) {
			payload[bit/8] ^= 1 << (bit % 8)
			checkAgainst(t, payload, nil, 3000, 4000)
			payload[bit/8] ^= 1 << (bit % 8)
		}
	}
}

func TestDecompressLimit(t *testing.T) {
	for _, in := range append(samples(), sample{"zeros", make([]byte, 5000)}, sample{"a byte", []byte("x")}) {
		for level := range 10 {
			payload := flateCompress(t, level, false, in.data)[0]
			for _, limit := range []int{0, 1, 2, 100, len(in.data) - 300, len(in.data) - 1} {
				if limit < 0 {
					continue
				}
				out, err := decompress(t, payload, nil, min(limit, len(in.data)-1), 0)
				if err != ErrTooLong || !bytes.Equal(out, in.data[:min(limit, len(in.data)-1)]) {
					t.Errorf("%s, level %d: limit %d gives %s, %v; want as much, and ErrTooLong", in.name, level, limit, describe(out), err)
				}
			}
			if out, err := decompress(t, payload, nil, math.MaxInt, 0); err != nil || !bytes.Equal(out, in.data) {
				t.Errorf("%s, level %d: the largest limit gives %s, %v", in.name, level, describe(out), err)
			}
		}
	}
}

// What a bomb costs is its limit.
func TestDecompressBomb(t *testing.T) {
	const limit = 1 << 20
	payload := flateCompress(t, 9, false, make([]byte, 50<<20))[0]
	if _, err := Decompress(nil, payload, nil, limit); err != ErrTooLong { // the decoder exists now
		t.Fatalf("a bomb: %v, want ErrTooLong", err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	out, err := Decompress(nil, payload, nil, limit)
	runtime.ReadMemStats(&after)
	if err != ErrTooLong || len(out) != limit || cap(out) > limit {
		t.Errorf("a bomb gives %d bytes in %d, %v; want %d and ErrTooLong", len(out), cap(out), err, limit)
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 3*limit {
		t.Errorf("the bomb had %d bytes allocated, want at most three times the limit of %d", grown, limit)
	}
}

// Work is bounded by what comes in and what goes out, whatever comes in.
func TestDecompressSteps(t *testing.T) {
	// Dynamic blocks as short as they get, with tables as large as they get.
	var deep bitList
	for range 1000 {
		deep.deepBlock()
	}
	for name, payload := range map[string][]byte{
		"empty stored blocks": bytes.Repeat([]byte{0, 0, 0, 0xff, 0xff}, 5000),
		"empty fixed blocks":  bytes.Repeat([]byte{2 | 2<<10&0xff, 0x08, 0x20, 0x80, 0}, 1000),
		"deep dynamic blocks": deep.bytes(),
		"zeros":               flateCompress(t, 9, false, make([]byte, 1<<20))[0],
	} {
		d := new(decoder)
		out, _ := d.message(nil, payload, nil, 2<<20)
		if most := 100*len(payload) + 2*len(out); d.steps > most {
			t.Errorf("%s: %d steps for %d bytes that give %d, want at most %d", name, d.steps, len(payload), len(out), most)
		}
	}
}

// A bitList is written bit by bit.
type bitList struct {
	b []byte
	n int
}

func (l *bitList) put(v, n int) {
	for i := range n {
		if l.n%8 == 0 {
			l.b = append(l.b, 0)
		}
		l.b[l.n/8] |= byte(v>>i&1) << (l.n % 8)
		l.n++
	}
}

func (l *bitList) bytes() []byte { return append(bytes.Clone(l.b), 0) }

// deepBlock is an empty dynamic block whose literal code has a code of each
// length and two of 15 bits, the end of the block among them.
func (l *bitList) deepBlock() {
	l.put(4, 3)
	l.put(0, 5)
	l.put(0, 5)
	l.put(15, 4)
	// 18 takes a bit, 0 to 15 but 0 take five.
	for _, symbol := range preOrder {
		switch {
		case symbol == 18:
			l.put(1, 3)
		case symbol < 16:
			l.put(5, 3)
		default:
			l.put(0, 3)
		}
	}
	put := func(symbol int) { // codes of five bits begin at 10000
		word := 16 + symbol
		for i := 4; i >= 0; i-- {
			l.put(word>>i&1, 1)
		}
	}
	for n := 1; n <= 15; n++ {
		put(n)
	}
	l.put(0, 1)
	l.put(138-11, 7)
	l.put(0, 1)
	l.put(256-15-138-11, 7)
	put(15)
	put(0) // no distance
	for range 15 {
		l.put(1, 1) // the last code of 15 bits is that of 256
	}
}

func TestDeepBlock(t *testing.T) {
	var deep bitList
	deep.deepBlock()
	deep.put(0, 3)
	j := bitwise.Message{In: deep.b}
	if err := j.Decode(); err != nil || j.Blocks[2] != 1 {
		t.Fatalf("% x: %v, %d dynamic blocks; want one", deep.b, err, j.Blocks[2])
	}
	checkAgainst(t, deep.b, nil, 1000, 0)
}

// Where compress/flate takes more than zlib does, so does this: a code that is
// a single one of one bit, for anything; and a literal code without an end of
// the block, which is an error only because the block never ends.
func TestAsLaxAsFlate(t *testing.T) {
	one := func(end int) []byte {
		var l bitList
		l.put(4, 3)
		l.put(0, 5)
		l.put(0, 5)
		l.put(14, 4) // up to the length 1
		for _, symbol := range preOrder[:18] {
			switch symbol {
			case 0, 1:
				l.put(2, 3)
			case 18:
				l.put(1, 3)
			default:
				l.put(0, 3)
			}
		}
		zeros := func(n int) { l.put(0, 1); l.put(n-11, 7) }
		zeros(138)
		zeros(118)
		l.put(1, 1) // 0 is 10, 1 is 11
		l.put(end, 1)
		l.put(1, 1)
		l.put(0, 1)
		l.put(0, 1) // 256, if it has a code
		l.put(0, 3)
		return l.b
	}
	if !checkAgainst(t, one(1), nil, 1000, 0) {
		t.Errorf("% x: no message, want one", one(1))
	}
	if checkAgainst(t, one(0), nil, 1000, 0) {
		t.Errorf("% x: a message, want none", one(0))
	}
}

// The receiver keeps what compress/flate takes for granted.
func TestDecompressContext(t *testing.T) {
	var messages [][]byte
	for i := range 60 {
		messages = append(messages, jsonOf(uint64(i%7), 900+i), fmt.Appendf(nil, "message %d", i), nil)
		if i%20 == 0 {
			messages = append(messages, textOf(40<<10+i), randomOf(70 << 10)[i:], make([]byte, 33<<10))
		}
	}
	for _, level := range []int{1, 6, 9} {
		w := NewWindow(15)
		for i, payload := range flateCompress(t, level, true, messages...) {
			out, err := decompress(t, payload, w, len(messages[i]), i%3*700)
			if err != nil || !bytes.Equal(out, messages[i]) {
				t.Fatalf("level %d, message %d: got %s, %v; want %s", level, i, describe(out), err, describe(messages[i]))
			}
		}
		if w.Len() != 32<<10 || cap(w.buf) != 32<<10 {
			t.Errorf("a window of %d bytes in %d, want 32 KiB", w.Len(), cap(w.buf))
		}
	}
}

func TestWindow(t *testing.T) {
	r := rng(8)
	for bits := MinBits; bits <= MaxBits; bits++ {
		w := NewWindow(bits)
		var all []byte
		for range 300 {
			piece := make([]byte, r.IntN(1<<r.IntN(bits+2)))
			for i := range piece {
				piece[i] = byte(r.Uint32())
			}
			w.Add(piece)
			all = append(all, piece...)
			want := all[max(0, len(all)-1<<bits):]
			back := r.IntN(len(want) + 1)
			first, second := w.from(back)
			if got := append(bytes.Clone(first), second...); !bytes.Equal(got, want[len(want)-back:]) {
				t.Fatalf("window of 2^%d after %d bytes: the last %d are wrong", bits, len(all), back)
			}
			if w.Len() != len(want) || cap(w.buf) > 1<<bits || cap(w.buf) > max(64, 2*len(all)) {
				t.Fatalf("window of 2^%d after %d bytes: %d bytes in %d, want %d", bits, len(all), w.Len(), cap(w.buf), len(want))
			}
		}
	}
}

// The same payload with and without dictionary, and lengths that wrap.
func FuzzDecompress(f *testing.F) {
	for _, v := range loadVectors(f) {
		for _, payload := range v.payloads {
			f.Add(payload, uint16(v.line), uint16(v.line), v.line%2 == 0)
		}
	}
	for _, in := range samples()[:2] {
		for level := range 10 {
			f.Add(flateCompress(f, level, false, in.data)[0], uint16(2000), uint16(level*100), false)
		}
	}
	var deep bitList
	deep.deepBlock()
	f.Add(deep.bytes(), uint16(100), uint16(0), true)
	dict := textOf(40 << 10)
	f.Fuzz(func(t *testing.T, payload []byte, limit, room uint16, context bool) {
		if len(payload) > 2000 {
			return // what decompresses bit by bit takes long
		}
		if context {
			checkAgainst(t, payload, dict[len(dict)-32<<10:], int(limit), int(room))
		} else {
			checkAgainst(t, payload, nil, int(limit), int(room))
		}
	})
}
