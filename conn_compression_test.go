package websocket

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/rawws/websocket/internal/deflate"
	"github.com/rawws/websocket/internal/deflate/bitwise"
)

// compressed is the payload of a message that refers to nothing before it.
func compressed(message []byte) []byte { return deflate.Append(nil, message, 15, deflate.Fast, true) }

func TestCompressionDefaults(t *testing.T) {
	both := func(bits int) deflate.Policy {
		return deflate.Policy{ServerContext: true, ClientContext: true, Bits: bits}
	}
	for _, tt := range []struct {
		c                    Compression
		level                deflate.Level
		threshold, frameSize int
		policy               deflate.Policy
	}{
		{Compression{}, deflate.Fast, 512, 32 << 10, deflate.Policy{ClientContext: true, Bits: 15}},
		{Compression{Level: 2, Threshold: 100, FrameSize: 4096, ServerContext: true}, deflate.Better, 100, 4096, both(12)},
		{Compression{Level: 9, Threshold: -1, FrameSize: -1, ServerContext: true, WindowBits: 99}, deflate.Better, 0, 32 << 10, both(15)},
		{Compression{Level: -1, Threshold: 1, WindowBits: 1}, deflate.Fast, 1, 32 << 10, deflate.Policy{ClientContext: true, Bits: 8}},
		{Compression{ServerContext: true, WindowBits: 10, ContextMemory: 1 << 40}, deflate.Fast, 512, 32 << 10, both(10)},
		{Compression{FrameSize: math.MaxInt}, deflate.Fast, 512, 16 << 20, deflate.Policy{ClientContext: true, Bits: 15}},
		{Compression{ServerContext: true, ContextMemory: -1}, deflate.Fast, 512, 32 << 10, deflate.Policy{Tell: true, Bits: 15}},
	} {
		before := tt.c
		if l, th, fs := tt.c.level(), tt.c.threshold(), tt.c.frameSize(); l != tt.level || th != tt.threshold || fs != tt.frameSize {
			t.Errorf("%+v: level %d, threshold %d, frame size %d; want %d, %d, %d", tt.c, l, th, fs, tt.level, tt.threshold, tt.frameSize)
		}
		if got := tt.c.policy(); got != tt.policy {
			t.Errorf("%+v: policy %+v, want %+v", tt.c, got, tt.policy)
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

// checkPayload holds a payload against its message, as a decoder sees it that
// goes bit by bit and measures how far back references reach.
func checkPayload(t *testing.T, what string, payload, message []byte, window int) {
	t.Helper()
	m := bitwise.Message{In: payload}
	if err := m.Decode(); err != nil || !bytes.Equal(m.Out, message) {
		t.Errorf("%s: % x... is %s, %v; want %s", what, payload[:min(len(payload), 40)], describe(m.Out), err, describe(message))
	}
	if m.Farthest > window {
		t.Errorf("%s: reaches back %d bytes, want at most %d", what, m.Farthest, window)
	}
}

// describe is for messages of any length.
func describe(b []byte) string {
	if len(b) > 40 {
		return fmt.Sprintf("%q... (%d bytes)", b[:40], len(b))
	}
	return strconv.Quote(string(b))
}

func TestCompress(t *testing.T) {
	samples := deflateSamples()
	for _, tt := range []struct {
		name string
		c    Compression
		src  []byte
		ok   bool
	}{
		{"at the threshold", Compression{}, sampleJSON(512), true},
		{"at a lower one", Compression{Threshold: 200}, sampleJSON(200), true},
		{"no threshold", Compression{Threshold: -1}, bytes.Repeat([]byte("a"), 30), true},
		{"noise doesn't shrink", Compression{}, samples["noise of 65536"], false},
		{"noise all the same", Compression{Threshold: -1}, samples["noise of 65536"], true},
		{"a byte too", Compression{Threshold: -1}, samples["a byte"], true},
		{"and nothing", Compression{Threshold: -1}, nil, true},
		{"nothing doesn't shrink", Compression{Threshold: 1}, nil, false},
		{"a level that is none", Compression{Level: 100}, sampleJSON(2000), true},
	} {
		for _, bits := range []int{8, 15} {
			out, ok := tt.c.compress([]byte("dst"), tt.src, bits)
			if ok != tt.ok || !bytes.HasPrefix(out, []byte("dst")) || !ok && len(out) != 3 || ok && tt.c.Threshold >= 0 && len(out)-3 >= len(tt.src) {
				t.Errorf("%s: compress(%d bytes) = %d bytes, %v; want %v", tt.name, len(tt.src), len(out)-3, ok, tt.ok)
			}
			if ok {
				checkPayload(t, tt.name, out[3:], tt.src, 1<<bits)
			}
		}
	}
}

func TestCompressedLimit(t *testing.T) {
	for _, limit := range []uint64{0, 1, 1 << 20, 1<<62 - 1, 1 << 62, 1<<63 - 1} {
		if got := compressedLimit(limit); got < limit || got >= 1<<63 {
			t.Errorf("compressedLimit(%d) = %d; want at least that, and less than 2^63", limit, got)
		}
	}
}
