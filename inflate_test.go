package websocket

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// pieces is a payloadSource that gives a payload in pieces, the sizes of which
// are those of sizes in turn (0 is an empty piece), then err.
type pieces struct {
	payload []byte
	sizes   []int
	err     error
	i       int
}

func (s *pieces) nextPayload() ([]byte, error) {
	if len(s.payload) == 0 {
		return nil, s.err
	}
	n := len(s.payload)
	if len(s.sizes) > 0 {
		n = min(n, s.sizes[s.i%len(s.sizes)])
		s.i++
	}
	piece := s.payload[:n:n]
	s.payload = s.payload[n:]
	return piece, nil
}

// inPieces begins with the first piece at hand.
func inPieces(payload []byte, sizes ...int) inflation {
	s := &pieces{payload: payload, sizes: sizes, err: io.EOF}
	first, _ := s.nextPayload()
	return inflation{payload: first, src: s, limit: -1}
}

// An inflateWay is one of the ways to get at a message.
type inflateWay struct {
	name string
	get  func(payload []byte, limit int, text *utf8Validator, w *inflationWindow) ([]byte, error)
}

func inflateWays(payload []byte) []inflateWay {
	with := func(m inflation, limit int, text *utf8Validator, w *inflationWindow) inflation {
		m.limit, m.text, m.window = limit, text, w
		return m
	}
	ways := []inflateWay{
		{"all at hand", func(p []byte, limit int, text *utf8Validator, w *inflationWindow) ([]byte, error) {
			return with(inflation{payload: p}, limit, text, w).appendTo(nil)
		}},
		{"behind other bytes", func(p []byte, limit int, text *utf8Validator, w *inflationWindow) ([]byte, error) {
			out, err := with(inflation{payload: p}, limit, text, w).appendTo(append(make([]byte, 0, 10), "before"...))
			if !bytes.HasPrefix(out, []byte("before")) {
				return out, fmt.Errorf("what was there before is gone: %q", out)
			}
			return out[len("before"):], err
		}},
		{"read by one byte", func(p []byte, limit int, text *utf8Validator, w *inflationWindow) ([]byte, error) {
			return readInflation(with(inPieces(p, 1), limit, text, w), 1)
		}},
		{"read by 1000 bytes", func(p []byte, limit int, text *utf8Validator, w *inflationWindow) ([]byte, error) {
			return readInflation(with(inflation{payload: p}, limit, text, w), 1000)
		}},
		{"gathered", func(p []byte, limit int, text *utf8Validator, w *inflationWindow) ([]byte, error) {
			defer occupyStreaming()()
			return with(inPieces(p, 3), limit, text, w).appendTo(nil)
		}},
		{"gathered, read by 7 bytes", func(p []byte, limit int, text *utf8Validator, w *inflationWindow) ([]byte, error) {
			defer occupyStreaming()()
			return readInflation(with(inPieces(p, 3), limit, text, w), 7)
		}},
	}
	for cut := range min(len(payload)+1, 100) {
		ways = append(ways, inflateWay{fmt.Sprintf("cut at %d", cut), func(p []byte, limit int, text *utf8Validator, w *inflationWindow) ([]byte, error) {
			cut := min(cut, len(p))
			return with(inPieces(p, cut, 0, len(p)-cut), limit, text, w).appendTo(nil)
		}})
	}
	return ways
}

// occupyStreaming takes all the slots there are.
func occupyStreaming() (free func()) {
	n := 0
	for tryStream() {
		n++
	}
	return func() {
		for range n {
			<-streaming
		}
	}
}

// noSlots takes none.
func noSlots() (free func()) { return func() {} }

// readInflation reads by pieces of n bytes, and on after the end.
func readInflation(m inflation, n int) (out []byte, err error) {
	r := m.reader()
	defer r.close()
	for b := make([]byte, n); err == nil; {
		n, err = r.Read(b)
		out = append(out, b[:n]...)
	}
	if n, again := r.Read(make([]byte, 1)); n != 0 || again != err {
		return out, fmt.Errorf("%d, %v after %v", n, again, err)
	}
	if err == io.EOF {
		err = nil
	}
	return out, err
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
		for _, way := range inflateWays(slices.MaxFunc(v.payloads, func(a, b []byte) int { return len(a) - len(b) })) {
			window := deflateParams{clientTakeover: true, clientBits: 15}.newWindow()
			for i, payload := range v.payloads {
				what := fmt.Sprintf("line %d (%s): % x, %s", v.line, v.rule, payload, way.name)
				out, err := way.get(payload, 1000, new(utf8Validator), window)
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
	for _, way := range inflateWays(payload) {
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
			if refused++; refused%4 != 0 {
				continue
			}
			out, err = readInflation(inflation{payload: payload[:cut], limit: -1}, 4096)
			checkRefused(t, what+", read", out, err, CloseInvalidPayload)
		}
	}
	if lawful > refused/50 {
		t.Errorf("%d cuts were lawful and %d refused", lawful, refused)
	}
}

func TestInflateLimit(t *testing.T) {
	for name, message := range deflateSamples() {
		payload := deflateParams{serverBits: 15}.deflate(nil, message, 1, true)
		for _, way := range inflateWays(nil) {
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
	for _, streams := range []bool{true, false} {
		if !streams {
			defer occupyStreaming()()
		}
		m := inPieces(append(payload, 0), 100)
		m.limit = limit
		out, err := m.appendTo(nil)
		checkInflated(t, fmt.Sprintf("%d bytes of empty blocks, streaming: %v", len(payload)+1, streams), out, err, nil)
		m = inPieces(append(payload, 0, 0, 0, 0xff, 0xff, 0), 100)
		m.limit = limit
		out, err = m.appendTo(nil)
		checkRefused(t, fmt.Sprintf("%d bytes of empty blocks, streaming: %v", len(payload)+6, streams), out, err, CloseMessageTooBig)
	}
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
	src := &pieces{payload: payload, sizes: []int{4096}, err: io.EOF}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	out, err := inflation{src: src, limit: limit}.appendTo(nil)
	runtime.ReadMemStats(&after)
	checkRefused(t, "bomb", out, err, CloseMessageTooBig)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 3<<20 {
		t.Errorf("the bomb had %d bytes allocated, want at most 3 MiB for a limit of 1 MiB", grown)
	}
	if used := len(payload) - len(src.payload); used > 3*4096 {
		t.Errorf("%d bytes of the payload were asked for, want those of 1 MiB", used)
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
		way := inflateWays(nil)[i%6]
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

// The source's error comes through as it is, from wherever it is met.
func TestInflateSourceError(t *testing.T) {
	errNet := errors.New("connection reset")
	for _, payload := range []string{
		"",
		"\xf2\x48\xcd",         // among codes
		"\x00\x05\x00",         // in a length
		"\x00\x05\x00\xfa\xff", // before data
		"\x00\x05\x00\xfa\xffab",
		"\xf3\x48\xcd\xc9\xc9\x07\x00",     // behind a final block
		"\xf2\x48\xcd\xc9\xc9\x07\x00",     // behind a whole message
		"\xf3\x48\xcd\xc9\xc9\x07\x00\x00", // the same
	} {
		for _, want := range []error{errNet, io.ErrUnexpectedEOF} {
			for _, occupy := range []func() func(){noSlots, occupyStreaming} {
				free := occupy()
				m := inflation{src: &pieces{payload: []byte(payload), sizes: []int{2}, err: want}, limit: 100}
				if out, err := m.appendTo(nil); err != want {
					t.Errorf("% x, then %v: appendTo gave %q, %v", payload, want, out, err)
				}
				m.src = &pieces{payload: []byte(payload), sizes: []int{2}, err: want}
				if out, err := readInflation(m, 10); err != want {
					t.Errorf("% x, then %v: reader gave %q, %v", payload, want, out, err)
				}
				free()
			}
		}
	}
}

func TestInflateReaderClose(t *testing.T) {
	payload := []byte("\xf2\x48\xcd\xc9\xc9\x07\x00")
	for _, occupy := range []func() func(){noSlots, occupyStreaming} {
		free := occupy()
		held := len(streaming)
		r := inflation{payload: payload, limit: 100}.reader()
		if n, err := r.Read(nil); n != 0 || err != nil {
			t.Errorf("Read(nil) = %d, %v; want 0, nil", n, err)
		}
		b := make([]byte, 3)
		if n, err := r.Read(b); n != 3 || err != nil || string(b) != "Hel" {
			t.Errorf("Read = %q, %v; want Hel", b[:n], err)
		}
		r.close()
		r.close()
		if n, err := r.Read(b); n != 0 || err == nil || err == io.EOF {
			t.Errorf("Read of a closed reader = %d, %v; want an error that isn't the end", n, err)
		}
		if got := len(streaming); got != held {
			t.Errorf("%d slots are held, want %d", got, held)
		}
		free()
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
		m := inPieces(payload, 1+int(size))
		m.limit = limit
		out, err := m.appendTo(nil)
		if len(j.out) > limit {
			checkRefused(t, "bomb", out, err, CloseMessageTooBig)
			return
		}
		if want != nil {
			checkRefused(t, want.Error(), out, err, CloseInvalidPayload)
			return
		}
		checkInflated(t, "appendTo", out, err, j.out)
		m = inPieces(payload, 1+int(size))
		m.limit = limit
		out, err = readInflation(m, 1+int(size))
		checkInflated(t, "reader", out, err, j.out)
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
