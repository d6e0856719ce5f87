package websocket

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/rawws/websocket/internal/utf8x"
)

// An inflateWay is one of the ways to get at a message.
type inflateWay struct {
	name string
	get  func(payload []byte, limit int, text *utf8x.Validator, w *inflationWindow) ([]byte, error)
}

var inflateWays = []inflateWay{
	{"alone", func(p []byte, limit int, text *utf8x.Validator, w *inflationWindow) ([]byte, error) {
		return inflation{p, limit, text, w}.appendTo(nil)
	}},
	{"behind other bytes", func(p []byte, limit int, text *utf8x.Validator, w *inflationWindow) ([]byte, error) {
		out, err := inflation{p, limit, text, w}.appendTo(append(make([]byte, 0, 10), "before"...))
		if !bytes.HasPrefix(out, []byte("before")) {
			return out, fmt.Errorf("what was there before is gone: %q", out)
		}
		return out[len("before"):], err
	}},
}

// describe is for messages of any length.
func describe(b []byte) string {
	if len(b) > 40 {
		return fmt.Sprintf("%q... (%d bytes)", b[:40], len(b))
	}
	return strconv.Quote(string(b))
}

func checkInflated(t *testing.T, what string, out []byte, err error, want []byte) {
	t.Helper()
	if err != nil || !bytes.Equal(out, want) {
		t.Errorf("%s: got %s, %v; want %s", what, describe(out), err, describe(want))
	}
}

func checkRefused(t *testing.T, what string, out []byte, err error, code CloseCode) {
	t.Helper()
	var pe *ProtocolError
	if !errors.As(err, &pe) || pe.Code != code {
		t.Errorf("%s: got %s, %v; want a ProtocolError with %d", what, describe(out), err, code)
	}
}

func TestInflateVectors(t *testing.T) {
	_, messages := loadDeflateVectors(t)
	for _, v := range messages {
		for _, way := range inflateWays {
			window := deflateParams{clientTakeover: true, clientBits: 15}.newWindow()
			for i, payload := range v.payloads {
				what := fmt.Sprintf("line %d (%s): % x, %s", v.line, v.rule, payload, way.name)
				out, err := way.get(payload, 1000, new(utf8x.Validator), window)
				if code, e := strconv.Atoi(v.gives[i]); e == nil {
					checkRefused(t, what, out, err, CloseCode(code))
					continue
				}
				want, e := strconv.Unquote(v.gives[i])
				if e != nil {
					t.Fatalf("line %d: gives: %s: %v", v.line, v.gives[i], e)
				}
				checkInflated(t, what, out, err, []byte(want))
			}
		}
	}
}

// Binary messages are no text.
func TestInflateBinary(t *testing.T) {
	payload := []byte{0, 2, 0, 0xfd, 0xff, 0xc3, 0x28, 0}
	for _, way := range inflateWays {
		out, err := way.get(payload, -1, nil, nil)
		checkInflated(t, way.name, out, err, []byte{0xc3, 0x28})
	}
}

// A message cut anywhere is refused. Data without compression are the hard
// case, when as much is missing as was left out on purpose, and when flate's
// own buffer of 32 KiB ends there as well.
func TestInflateCut(t *testing.T) {
	stored := func(lengths ...int) (b []byte) {
		for _, n := range lengths {
			b = append(b, 0, byte(n), byte(n>>8), byte(^n), byte(^n>>8))
			for range n {
				b = append(b, 'a')
			}
		}
		return append(b, 0)
	}
	payloads := map[string][]byte{}
	for name, message := range deflateSamples() {
		for _, level := range deflateLevels {
			if len(message) > 3000 && level != 1 {
				continue
			}
			payloads[fmt.Sprintf("%s, level %d", name, level)] = deflateParams{serverBits: 15}.deflate(nil, message, level, true)
		}
	}
	for first := 32768 - 12; first <= 32768+2; first++ {
		payloads[fmt.Sprintf("stored %d, 24", first)] = stored(first, 24)
		payloads[fmt.Sprintf("stored %d, 33000", first)] = stored(first, 33000)
	}
	lawful, refused := 0, 0
	for name, payload := range payloads {
		for cut := range len(payload) {
			inWindow := cut > 32740 && cut < 32810 && strings.HasPrefix(name, "stored")
			if cut > 100 && cut < len(payload)-40 && cut%4999 != 0 && !inWindow {
				continue
			}
			what := fmt.Sprintf("%s: %d of %d bytes", name, cut, len(payload))
			out, err := inflation{payload: payload[:cut], limit: -1}.appendTo(nil)
			if err == nil {
				// Behind the bits that begin a block of data it is whole.
				checkJudged(t, what, payload[:cut], out, 32<<10)
				lawful++
				continue
			}
			checkRefused(t, what, out, err, CloseInvalidPayload)
			refused++
		}
	}
	if lawful > refused/50 {
		t.Errorf("%d cuts were lawful and %d refused", lawful, refused)
	}
}

func TestInflateLimit(t *testing.T) {
	for name, message := range deflateSamples() {
		payload := deflateParams{serverBits: 15}.deflate(nil, message, 1, true)
		for _, way := range inflateWays {
			what := fmt.Sprintf("%s, %s", name, way.name)
			out, err := way.get(payload, len(message), nil, nil)
			checkInflated(t, what, out, err, message)
			if len(message) == 0 {
				continue
			}
			out, err = way.get(payload, len(message)-1, nil, nil)
			checkRefused(t, what+", one byte too many", out, err, CloseMessageTooBig)
			if !errors.Is(err, ErrMessageTooBig) {
				t.Errorf("%s: %v isn't ErrMessageTooBig", what, err)
			}
			if len(out) > len(message)-1 {
				t.Errorf("%s: %d bytes came out, over the limit of %d", what, len(out), len(message)-1)
			}
		}
	}
}

// Blocks that give nothing don't go on for ever.
func TestInflateEmptyBlocks(t *testing.T) {
	const limit = 1000
	payload := bytes.Repeat([]byte{0, 0, 0, 0xff, 0xff}, int(compressedLimit(limit))/5)
	out, err := inflation{payload: append(payload, 0), limit: limit}.appendTo(nil)
	checkInflated(t, fmt.Sprintf("%d bytes of empty blocks", len(payload)+1), out, err, nil)
}

func TestCompressedLimit(t *testing.T) {
	for _, limit := range []uint64{0, 1, 1 << 20, 1<<62 - 1, 1 << 62, 1<<63 - 1} {
		if got := compressedLimit(limit); got < limit || got >= 1<<63 {
			t.Errorf("compressedLimit(%d) = %d; want at least that, and less than 2^63", limit, got)
		}
	}
}

// A bomb of 200 KB that holds 200 MiB costs what the limit allows.
func TestInflateBomb(t *testing.T) {
	const limit = 1 << 20
	p := deflateParams{serverBits: 15}
	payload := bytes.Repeat(p.deflate(nil, make([]byte, 1<<20), 9, false), 200)
	payload = p.deflate(payload, nil, 1, true)
	if len(payload) > 250_000 {
		t.Fatalf("the bomb takes %d bytes, want about 200 KB", len(payload))
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	out, err := inflation{payload: payload, limit: limit}.appendTo(nil)
	runtime.ReadMemStats(&after)
	checkRefused(t, "bomb", out, err, CloseMessageTooBig)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 3<<20 {
		t.Errorf("the bomb had %d bytes allocated, want at most 3 MiB for a limit of 1 MiB", grown)
	}
}

// Room grows as bytes come out, not beyond the limit, and a buffer that fits
// isn't replaced.
func TestInflateRoom(t *testing.T) {
	message := sampleJSON(100_000)
	payload := deflateParams{serverBits: 15}.deflate(nil, message, 1, true)
	out, err := inflation{payload: payload, limit: len(message)}.appendTo(nil)
	checkInflated(t, "limit of the length", out, err, message)
	if cap(out) > len(message)+len(message)/8 {
		t.Errorf("got a buffer of %d bytes for a message and limit of %d", cap(out), len(message))
	}
	fits := make([]byte, 0, len(message))
	out, err = inflation{payload: payload, limit: -1}.appendTo(fits)
	checkInflated(t, "buffer that fits", out, err, message)
	if &out[0] != &fits[:1][0] {
		t.Errorf("a buffer of %d bytes was replaced for a message of %d", cap(fits), len(message))
	}
}

// The client keeps its context. The judge of what is kept is a client whose
// writer is never reset.
func TestInflateTakeover(t *testing.T) {
	var payload bytes.Buffer
	w, err := flate.NewWriter(&payload, 9)
	if err != nil {
		t.Fatal(err)
	}
	samples := deflateSamples()
	var messages [][]byte
	for i := range 40 {
		messages = append(messages, sampleJSON(1000+i), fmt.Appendf(nil, "message %d", i))
	}
	messages = append(messages, samples["noise of 32769"], samples["far apart"], nil, samples["far apart"][:400], samples["noise of 32769"][1:])
	window := deflateParams{clientTakeover: true, clientBits: 15}.newWindow()
	compressed := 0
	for i, message := range messages {
		payload.Reset()
		if _, err := w.Write(message); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		b := payload.Bytes()[:payload.Len()-4]
		compressed += len(b)
		way := inflateWays[i%2]
		out, err := way.get(b, len(message), nil, window)
		checkInflated(t, fmt.Sprintf("message %d, %s", i, way.name), out, err, message)
		if cap(window.b) > 36<<10 {
			t.Fatalf("message %d: the window takes %d bytes, want at most 36 KiB", i, cap(window.b))
		}
	}
	if compressed > 80_000 {
		t.Errorf("%d messages took %d bytes: the client made no use of its context", len(messages), compressed)
	}
}

func TestInflationWindow(t *testing.T) {
	if w := (deflateParams{clientBits: 15}).newWindow(); w != nil {
		t.Errorf("newWindow without the client's context = %v, want nil", w)
	}
	r := rand.New(rand.NewPCG(8, 8))
	for bits := uint8(8); bits <= 15; bits++ {
		w := deflateParams{clientTakeover: true, clientBits: bits}.newWindow()
		var all []byte
		for range 200 {
			piece := make([]byte, r.IntN(1<<r.IntN(int(bits)+2)))
			for i := range piece {
				piece[i] = byte(r.Uint32())
			}
			w.add(piece)
			all = append(all, piece...)
			want := all[max(0, len(all)-1<<bits):]
			if got := w.bytes(); !bytes.Equal(got, want) || cap(w.b) > 1<<bits+1<<bits/8 {
				t.Fatalf("window of 2^%d after %d bytes: %d bytes in %d, want the last %d", bits, len(all), len(got), cap(w.b), len(want))
			}
		}
	}
	w := deflateParams{clientTakeover: true, clientBits: 15}.newWindow()
	w.add(make([]byte, 100))
	if cap(w.b) > 200 {
		t.Errorf("the window of a client that sent 100 bytes takes %d", cap(w.b))
	}
}

// FuzzDeflateStream holds the inflater against the judge, and against
// compress/flate used the plain way, on any payload.
func FuzzDeflateStream(f *testing.F) {
	_, messages := loadDeflateVectors(f)
	for _, v := range messages {
		for _, payload := range v.payloads {
			f.Add(payload, byte(v.line))
		}
	}
	for name, message := range deflateSamples() {
		if len(message) < 1100 {
			for _, level := range deflateLevels {
				f.Add(deflateParams{serverBits: 15}.deflate(nil, message, level, true), byte(len(name)))
			}
		}
	}
	const limit = 100_000
	f.Fuzz(func(t *testing.T, payload []byte, size byte) {
		if len(payload) > 1000 {
			return // what inflates a thousandfold takes the judge long
		}
		j := judge{in: payload}
		want := j.message()
		out, err := inflation{payload: payload, limit: limit}.appendTo(make([]byte, 0, size))
		if len(j.out) > limit {
			checkRefused(t, "bomb", out, err, CloseMessageTooBig)
			return
		}
		if want != nil {
			checkRefused(t, want.Error(), out, err, CloseInvalidPayload)
			return
		}
		checkInflated(t, "appendTo", out, err, j.out)
		if j.finals == 0 {
			r := flate.NewReader(io.MultiReader(bytes.NewReader(payload), strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff")))
			out, err = io.ReadAll(r)
			checkInflated(t, "compress/flate", out, err, j.out)
		}
		for n := range min(len(j.out), 5) {
			out, err = inflation{payload: payload, limit: n}.appendTo(nil)
			checkRefused(t, fmt.Sprintf("limit of %d", n), out, err, CloseMessageTooBig)
		}
	})
}
