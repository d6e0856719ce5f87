package websocket

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/rawws/websocket/internal/utf8x"
)

// The baselines do what servers commonly do with compress/flate: writers and
// readers in a sync.Pool, a writer that holds back the last four bytes, the
// left out ones added by an io.MultiReader, and io.ReadAll.

var plainWriters = sync.Pool{New: func() any {
	w, _ := flate.NewWriter(nil, flate.BestSpeed)
	return w
}}

var plainReaders = sync.Pool{New: func() any { return flate.NewReader(nil) }}

// A holdingWriter passes on all but the last four bytes.
type holdingWriter struct {
	w    io.Writer
	n    int
	last [4]byte
}

func (h *holdingWriter) Write(p []byte) (int, error) {
	n := 0
	for h.n < len(h.last) && n < len(p) {
		h.last[h.n] = p[n]
		h.n++
		n++
	}
	rest := p[n:]
	m := min(len(rest), len(h.last))
	if _, err := h.w.Write(h.last[:m]); err != nil {
		return n, err
	}
	copy(h.last[:], h.last[m:])
	copy(h.last[len(h.last)-m:], rest[len(rest)-m:])
	_, err := h.w.Write(rest[:len(rest)-m])
	return len(p), err
}

func plainCompress(dst *bytes.Buffer, src []byte) error {
	h := &holdingWriter{w: dst}
	w := plainWriters.Get().(*flate.Writer)
	defer plainWriters.Put(w)
	w.Reset(h)
	if _, err := w.Write(src); err != nil {
		return err
	}
	return w.Flush()
}

func plainInflate(payload []byte) ([]byte, error) {
	r := plainReaders.Get().(io.ReadCloser)
	defer plainReaders.Put(r)
	err := r.(flate.Resetter).Reset(io.MultiReader(bytes.NewBuffer(payload), strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff")), nil)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func benchmarkMessages() map[string][]byte {
	return map[string][]byte{"JSON-1KiB": sampleJSON(1024), "JSON-64KiB": sampleJSON(64 << 10)}
}

func BenchmarkCompress(b *testing.B) {
	for name, message := range benchmarkMessages() {
		b.Run(name+"/plain", func(b *testing.B) {
			b.SetBytes(int64(len(message)))
			b.ReportAllocs()
			var dst bytes.Buffer
			for b.Loop() {
				dst.Reset()
				if err := plainCompress(&dst, message); err != nil {
					b.Fatal(err)
				}
			}
		})
		for _, bits := range []uint8{15, 9} {
			b.Run(fmt.Sprintf("%s/window=%d", name, bits), func(b *testing.B) {
				b.SetBytes(int64(len(message)))
				b.ReportAllocs()
				c, p := &Compression{}, deflateParams{serverBits: bits}
				dst := make([]byte, 0, len(message))
				for b.Loop() {
					dst, _ = c.compress(dst[:0], message, p)
				}
				b.ReportMetric(float64(len(dst)), "deflated")
			})
		}
	}
}

func BenchmarkCompressParallel(b *testing.B) {
	message, c, p := sampleJSON(1024), &Compression{}, deflateParams{serverBits: 15}
	b.SetBytes(int64(len(message)))
	b.SetParallelism(50)
	b.RunParallel(func(pb *testing.PB) {
		dst := make([]byte, 0, len(message))
		for pb.Next() {
			dst, _ = c.compress(dst[:0], message, p)
		}
	})
}

func BenchmarkInflate(b *testing.B) {
	for name, message := range benchmarkMessages() {
		payload := deflateParams{serverBits: 15}.deflate(nil, message, flate.BestSpeed, true)
		b.Run(name+"/plain", func(b *testing.B) {
			b.SetBytes(int64(len(message)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := plainInflate(payload); err != nil {
					b.Fatal(err)
				}
			}
		})
		window := deflateParams{clientTakeover: true, clientBits: 15}.newWindow()
		window.add(make([]byte, 32<<10))
		for way, window := range map[string]*inflationWindow{"no-takeover": nil, "takeover": window} {
			b.Run(name+"/"+way, func(b *testing.B) {
				b.SetBytes(int64(len(message)))
				b.ReportAllocs()
				dst := make([]byte, 0, len(message))
				var text utf8x.Validator
				for b.Loop() {
					text = utf8x.Validator{}
					out, err := inflation{payload: payload, limit: 1 << 20, text: &text, window: window}.appendTo(dst[:0])
					if err != nil {
						b.Fatal(err)
					}
					dst = out
				}
			})
		}
	}
}
