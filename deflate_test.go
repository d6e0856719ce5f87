package websocket

import (
	"bytes"
	"compress/flate"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/rawws/websocket/internal/httphead"
	"github.com/rawws/websocket/internal/utf8x"
)

// A deflateVector is a paragraph of testdata/deflate.txt.
type deflateVector struct {
	line                      int
	offers                    []string
	answer, takeover          string
	rule                      string
	payloads                  [][]byte
	gives                     []string // a message in quotes, or a close code
	hasAnswer, hasOtherAnswer bool
}

// loadDeflateVectors fails on anything it doesn't know and on a file without
// vectors of either kind.
func loadDeflateVectors(t testing.TB) (offers, messages []deflateVector) {
	t.Helper()
	text, err := os.ReadFile("testdata/deflate.txt")
	if err != nil {
		t.Fatal(err)
	}
	var v deflateVector
	end := func() {
		switch {
		case v.hasAnswer && len(v.offers) > 0 && v.rule == "":
			if !v.hasOtherAnswer {
				v.takeover = v.answer
			}
			offers = append(offers, v)
		case v.rule != "" && len(v.payloads) > 0 && len(v.payloads) == len(v.gives) && len(v.offers) == 0:
			messages = append(messages, v)
		case !reflect.DeepEqual(v, deflateVector{}):
			t.Fatalf("testdata/deflate.txt: the vector that begins in line %d is neither an offer nor a message: %+v", v.line, v)
		}
		v = deflateVector{}
	}
	for i, line := range strings.Split(string(text), "\n") {
		if line == "" {
			end()
			continue
		}
		if strings.HasPrefix(line, "#") {
			continue
		}
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		if v.line == 0 {
			v.line = i + 1
		}
		switch key {
		case "offer":
			v.offers = append(v.offers, value)
		case "answer":
			v.answer, v.hasAnswer = value, true
		case "takeover":
			v.takeover, v.hasOtherAnswer = value, true
		case "rule":
			v.rule = value
		case "payload":
			b, err := hex.DecodeString(strings.ReplaceAll(value, " ", ""))
			if err != nil {
				t.Fatalf("testdata/deflate.txt:%d: %v", i+1, err)
			}
			v.payloads = append(v.payloads, b)
		case "gives":
			v.gives = append(v.gives, value)
		default:
			t.Fatalf("testdata/deflate.txt:%d: unknown key %q", i+1, key)
		}
	}
	end()
	if len(offers) == 0 || len(messages) == 0 {
		t.Fatalf("testdata/deflate.txt: %d offers and %d messages, want some of both", len(offers), len(messages))
	}
	return offers, messages
}

func TestNegotiateDeflate(t *testing.T) {
	offers, _ := loadDeflateVectors(t)
	for _, v := range offers {
		list, err := parseExtensions(v.offers)
		if err != nil {
			t.Errorf("line %d: parseExtensions(%q): %v", v.line, v.offers, err)
			continue
		}
		for _, c := range []*Compression{{}, {ContextTakeover: true}} {
			want := v.answer
			if c.ContextTakeover {
				want = v.takeover
			}
			p, got, ok := negotiateDeflate(list, c)
			if want == "none" {
				if ok || got != "" || p != (deflateParams{}) {
					t.Errorf("line %d: negotiateDeflate(%q, %+v) = %+v, %q, %v; want none", v.line, v.offers, *c, p, got, ok)
				}
				continue
			}
			if !ok || got != want {
				t.Errorf("line %d: negotiateDeflate(%q, %+v) = %q, %v; want %q", v.line, v.offers, *c, got, ok, want)
				continue
			}
			checkDeflateAnswer(t, v.offers, got, p)
		}
	}
}

// checkDeflateAnswer holds an answer against the offers, as a client does, and
// against what the server took it for.
func checkDeflateAnswer(t *testing.T, offers []string, answer string, p deflateParams) {
	t.Helper()
	list, err := parseExtensions([]string{answer})
	if err != nil || len(list) != 1 || list[0].Name != "permessage-deflate" {
		t.Fatalf("offers %q: the answer %q isn't one permessage-deflate (%v)", offers, answer, err)
	}
	said := map[string]string{}
	for _, param := range list[0].Params {
		if _, ok := said[param.Name]; ok {
			t.Fatalf("offers %q: the answer %q repeats %s", offers, answer, param.Name)
		}
		said[param.Name] = param.Value
	}
	if v, ok := said["server_no_context_takeover"]; !ok || v != "" {
		t.Errorf("offers %q: the answer %q doesn't decline the server's context", offers, answer)
	}
	if v, ok := said["client_no_context_takeover"]; ok == p.clientTakeover || v != "" {
		t.Errorf("offers %q: the answer %q, but the server takes the client to keep its context: %v", offers, answer, p.clientTakeover)
	}
	for name, bits := range map[string]uint8{"server_max_window_bits": p.serverBits, "client_max_window_bits": p.clientBits} {
		v, ok := said[name]
		if want := strconv.Itoa(int(bits)); ok && v != want || !ok && bits != 15 || bits < 8 || bits > 15 {
			t.Errorf("offers %q: the answer %q says %s=%q (%v), but the server works with %s", offers, answer, name, v, ok, want)
		}
		if asked, err := parseExtensions(offers); ok && (err != nil || !slices.ContainsFunc(asked, func(e httphead.Element) bool {
			return slices.ContainsFunc(e.Params, func(param httphead.Param) bool { return param.Name == name })
		})) {
			t.Errorf("offers %q: the answer %q holds %s, which nobody asked for", offers, answer, name)
		}
	}
	for name := range said {
		if !slices.Contains([]string{"server_no_context_takeover", "client_no_context_takeover", "server_max_window_bits", "client_max_window_bits"}, name) {
			t.Errorf("offers %q: the answer %q holds %q, which isn't a parameter", offers, answer, name)
		}
	}
}

func TestNegotiateDeflateOff(t *testing.T) {
	if p, answer, ok := negotiateDeflate([]httphead.Element{{Name: "permessage-deflate"}}, nil); ok || answer != "" || p != (deflateParams{}) {
		t.Errorf("negotiateDeflate(permessage-deflate, nil) = %v, %q, %v; want no compression", p, answer, ok)
	}
}

func FuzzDeflateOffers(f *testing.F) {
	offers, _ := loadDeflateVectors(f)
	for _, v := range offers {
		f.Add(strings.Join(v.offers, ","), v.line%2 == 0)
	}
	f.Fuzz(func(t *testing.T, offer string, takeover bool) {
		list, err := parseExtensions([]string{offer})
		if err != nil {
			return
		}
		p, answer, ok := negotiateDeflate(list, &Compression{ContextTakeover: takeover})
		if !ok {
			if slices.ContainsFunc(list, func(e httphead.Element) bool { return e.Name == "permessage-deflate" && len(e.Params) == 0 }) {
				t.Errorf("%q: no answer, though there is an offer without parameters", offer)
			}
			return
		}
		if p.clientTakeover && !takeover {
			t.Errorf("%q: the client keeps its context, want none", offer)
		}
		checkDeflateAnswer(t, []string{offer}, answer, p)
	})
}

func TestCompressionDefaults(t *testing.T) {
	for _, tt := range []struct {
		c                           Compression
		level, threshold, frameSize int
	}{
		{Compression{}, flate.BestSpeed, 512, 32 << 10},
		{Compression{Level: 6, Threshold: 100, FrameSize: 4096}, 6, 100, 4096},
		{Compression{Level: 10, Threshold: -1, FrameSize: -1}, flate.BestCompression, 0, 32 << 10},
		{Compression{Level: -1, Threshold: 1}, flate.DefaultCompression, 1, 32 << 10},
		{Compression{Level: -3}, flate.HuffmanOnly, 512, 32 << 10},
	} {
		before := tt.c
		if l, th, fs := tt.c.level(), tt.c.threshold(), tt.c.frameSize(); l != tt.level || th != tt.threshold || fs != tt.frameSize {
			t.Errorf("%+v: level %d, threshold %d, frame size %d; want %d, %d, %d", tt.c, l, th, fs, tt.level, tt.threshold, tt.frameSize)
		}
		if tt.c != before {
			t.Errorf("%+v was changed to %+v", before, tt.c)
		}
	}
}

// deflateSamples are messages of many kinds. Noise is stored, the rest gets
// fixed or dynamic codes; the lengths stand around the ends of windows and of
// blocks.
func deflateSamples() map[string][]byte {
	r := rand.New(rand.NewPCG(7, 7692))
	noise := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	samples := map[string][]byte{
		"empty":    {},
		"a byte":   {'x'},
		"Hello":    []byte("Hello"),
		"JSON":     sampleJSON(1024),
		"big JSON": sampleJSON(100_000),
		"zeros":    make([]byte, 70_000),
		"far apart": slices.Concat(noise(300), make([]byte, 32768-300), noise(5), noise(300), make([]byte, 200),
			noise(300), bytes.Repeat([]byte("0123456789"), 4000)),
	}
	for _, n := range []int{1, 255, 256, 257, 511, 512, 32763, 32764, 32768, 32769, 65535, 65536} {
		samples[fmt.Sprintf("noise of %d", n)] = noise(n)
		b := slices.Concat(noise(100), make([]byte, n))
		copy(b[n:], b[:100]) // the same at a distance of n
		samples[fmt.Sprintf("repeated at %d", n)] = b
	}
	return samples
}

// sampleJSON is what servers send: the same keys again and again, with
// different values.
func sampleJSON(n int) []byte {
	r := rand.New(rand.NewPCG(1, 1))
	b := []byte(`{"type":"update","items":[`)
	for len(b) < n {
		b = fmt.Appendf(b, `{"id":%d,"name":"user%d","price":%d.%02d,"active":%v,"tag":"%x"},`,
			r.IntN(100000), r.IntN(1000), r.IntN(1000), r.IntN(100), r.IntN(2) == 0, r.IntN(1<<24))
	}
	return append(b[:n-2:n-2], "]}"...)
}

var deflateLevels = []int{flate.HuffmanOnly, 1, 2, 5, 9}

// Every window that can be asked for is kept by every level, judged by an
// inflater that measures how far back a message reaches.
func TestDeflateRoundTrip(t *testing.T) {
	for name, message := range deflateSamples() {
		for bits := uint8(8); bits <= 15; bits++ {
			for _, level := range deflateLevels {
				if level != 1 && bits < 15 && len(message) > 2<<bits {
					continue // each window clears tables of 640 KiB
				}
				what := fmt.Sprintf("%s, level %d, window of 2^%d", name, level, bits)
				p := deflateParams{serverBits: bits}
				payload := p.deflate([]byte("before"), message, level, true)
				if !bytes.HasPrefix(payload, []byte("before")) {
					t.Fatalf("%s: what was there before is gone: % x", what, payload[:min(len(payload), 6)])
				}
				payload = payload[len("before"):]
				checkJudged(t, what, payload, message, 1<<bits)
				out, err := inflation{payload: payload, limit: len(message)}.appendTo(nil)
				checkInflated(t, what, out, err, message)
			}
		}
	}
}

func checkJudged(t *testing.T, what string, payload, message []byte, window int) {
	t.Helper()
	j := judge{in: payload}
	if err := j.message(); err != nil || !bytes.Equal(j.out, message) {
		t.Errorf("%s: % x...: the judge got %s, %v; want %s", what, payload[:min(len(payload), 40)], describe(j.out), err, describe(message))
	}
	if j.farthest > window {
		t.Errorf("%s: reaches back %d bytes, want at most %d", what, j.farthest, window)
	}
}

// The judge is of use only if it sees distances.
func TestJudgeMeasures(t *testing.T) {
	message := deflateSamples()["repeated at 512"]
	for bits, want := range map[uint8]bool{15: true, 8: false} {
		j := judge{in: deflateParams{serverBits: bits}.deflate(nil, message, 9, true)}
		if err := j.message(); err != nil || (j.farthest >= 512) != want {
			t.Errorf("window of 2^%d: farthest reference %d, %v; want 512 or more: %v", bits, j.farthest, err, want)
		}
	}
}

// A streamed message is the pieces' payloads one behind the other, whatever
// their number; each can be a frame.
func TestDeflatePieces(t *testing.T) {
	message := sampleJSON(10_000)
	for _, size := range []int{1, 100, 1024, 5000, 10_000, 20_000} {
		for _, bits := range []uint8{8, 12, 15} {
			p := deflateParams{serverBits: bits}
			var payload []byte
			for piece := range slices.Chunk(message, size) {
				payload = p.deflate(payload, piece, 1, false)
			}
			if got := p.deflate(payload, nil, 1, false); len(got) != len(payload) {
				t.Errorf("an empty piece that isn't the last added % x, want nothing", got[len(payload):])
			}
			payload = p.deflate(payload, nil, 1, true)
			checkJudged(t, fmt.Sprintf("pieces of %d, window of 2^%d", size, bits), payload, message, 1<<bits)
		}
	}
}

func TestCompress(t *testing.T) {
	samples := deflateSamples()
	p := deflateParams{serverBits: 15}
	for _, tt := range []struct {
		name string
		c    Compression
		src  []byte
		ok   bool
	}{
		{"at the threshold", Compression{}, sampleJSON(512), true},
		{"below it", Compression{}, sampleJSON(511), false},
		{"at a lower one", Compression{Threshold: 200}, sampleJSON(200), true},
		{"no threshold", Compression{Threshold: -1}, bytes.Repeat([]byte("a"), 30), true},
		{"noise doesn't shrink", Compression{}, samples["noise of 65536"], false},
		{"a byte doesn't", Compression{Threshold: -1}, samples["a byte"], false},
		{"nor does nothing", Compression{Threshold: -1}, nil, false},
		{"a level that is none", Compression{Level: 100}, sampleJSON(2000), true},
	} {
		out, ok := tt.c.compress([]byte("dst"), tt.src, p)
		if ok != tt.ok || !bytes.HasPrefix(out, []byte("dst")) || !ok && len(out) != 3 || ok && len(out)-3 >= len(tt.src) {
			t.Errorf("%s: compress(%d bytes) = %d bytes, %v; want %v", tt.name, len(tt.src), len(out)-3, ok, tt.ok)
		}
		if ok {
			checkJudged(t, tt.name, out[3:], tt.src, 32<<10)
		}
	}
}

// However many compress and inflate at once, few do, and all get through.
func TestDeflateBounds(t *testing.T) {
	message := sampleJSON(3000)
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			p := deflateParams{serverBits: 15, clientTakeover: true, clientBits: 15}
			for j := range 3 {
				c := &Compression{Level: 1 + (i+j)%3*4}
				payload, ok := c.compress(nil, message, p)
				if !ok {
					t.Errorf("level %d: the message didn't shrink", c.Level)
				}
				out, err := inflation{payload: payload, limit: len(message)}.appendTo(nil)
				checkInflated(t, "one of many", out, err, message)
			}
		})
	}
	wg.Wait()
	if n, most := len(deflaters.free), max(4, runtime.GOMAXPROCS(0)); n > most {
		t.Errorf("%d writers are kept, want at most %d", n, most)
	}
	if n, most := len(inflaters.free), runtime.GOMAXPROCS(0); n > most {
		t.Errorf("%d readers are kept, want at most %d", n, most)
	}
	if n := len(deflaters.slots) + len(inflaters.slots); n != 0 {
		t.Errorf("%d slots are held by nobody", n)
	}
	for _, in := range inflaters.free {
		if in.payload != nil || in.feed.rest != nil || in.text != nil || in.window != nil {
			t.Errorf("an idle inflater holds on to its last message: %+v", in.inflation)
		}
	}
	for _, d := range deflaters.free {
		if d.out != nil {
			t.Errorf("an idle deflater holds on to its last message of %d bytes", len(d.out))
		}
	}
}

func TestSlotted(t *testing.T) {
	s := newSlotted[int](2, 3)
	take := func(want int) (int, bool) {
		s.slots <- struct{}{}
		defer func() { <-s.slots }()
		return s.pop(func(n int) bool { return n == want })
	}
	if n, ok := take(1); ok {
		t.Errorf("pop of none = %d", n)
	}
	for n := 1; n <= 4; n++ {
		s.push(n)
	}
	if want := []int{1, 2, 3}; !slices.Equal(s.free, want) {
		t.Errorf("kept %v, want %v", s.free, want)
	}
	if n, ok := take(2); n != 2 || !ok {
		t.Errorf("pop of 2 = %d, %v", n, ok)
	}
	if n, ok := take(9); n != 0 || ok || !slices.Equal(s.free, []int{1, 3}) {
		t.Errorf("pop of 9 = %d, %v and leaves %v; want none, and 1 and 3", n, ok, s.free)
	}
	s.push(4)
	if n, ok := take(9); n != 0 || ok || !slices.Equal(s.free, []int{3, 4}) {
		t.Errorf("pop of 9 = %d, %v and leaves %v; want none, and the oldest dropped", n, ok, s.free)
	}
}

func TestNewDeflaterLevel(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("newDeflater(100): want a panic, as Compression.level can't give 100")
		}
	}()
	newDeflater(100)
}

// In the steady state nothing is allocated for a message.
func TestDeflateAllocs(t *testing.T) {
	message := sampleJSON(1024)
	p := deflateParams{serverBits: 15}
	c := &Compression{}
	payload, _ := c.compress(nil, message, p)
	payload = slices.Clone(payload)
	dst, back := make([]byte, 0, 2048), make([]byte, 0, 2048)
	window := deflateParams{clientTakeover: true, clientBits: 15}.newWindow()
	window.add(make([]byte, 32<<10))
	var text utf8x.Validator
	for name, f := range map[string]func(){
		"compress": func() { dst, _ = c.compress(dst[:0], message, p) },
		"inflate": func() {
			text = utf8x.Validator{}
			back, _ = inflation{payload: payload, limit: 1 << 20, text: &text}.appendTo(back[:0])
		},
		"inflate with takeover": func() {
			back, _ = inflation{payload: payload, limit: 1 << 20, window: window}.appendTo(back[:0])
		},
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations a message, want none", name, n)
		}
	}
	checkInflated(t, "last", back, nil, message)
}

// FuzzDeflateRoundTrip compresses in pieces of any size, for any window.
func FuzzDeflateRoundTrip(f *testing.F) {
	for name, message := range deflateSamples() {
		if len(message) < 3000 {
			f.Add(message, uint16(len(name)*50), byte(len(name)), byte(len(message)))
		}
	}
	f.Fuzz(func(t *testing.T, message []byte, size uint16, bits, level byte) {
		if len(message)/(1+int(size)) > 100 {
			return // each piece clears tables of 640 KiB
		}
		p := deflateParams{serverBits: 8 + bits%8}
		l := deflateLevels[int(level)%len(deflateLevels)]
		var payload []byte
		for piece := range slices.Chunk(message, 1+int(size)) {
			payload = p.deflate(payload, piece, l, false)
		}
		payload = p.deflate(payload, nil, l, true)
		what := fmt.Sprintf("%x in pieces of %d, level %d, window of 2^%d", message, 1+int(size), l, p.serverBits)
		checkJudged(t, what, payload, message, 1<<p.serverBits)
		out, err := inflation{payload: payload, limit: -1}.appendTo(nil)
		checkInflated(t, what, out, err, message)
	})
}
