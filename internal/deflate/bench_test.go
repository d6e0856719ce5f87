package deflate

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"testing"
)

// A sink takes what a flate.Writer writes.
type sink struct{ b []byte }

func (s *sink) Write(p []byte) (int, error) {
	s.b = append(s.b, p...)
	return len(p), nil
}

func BenchmarkCompress(b *testing.B) {
	for _, in := range samples() {
		b.Run(in.name+"/fast", func(b *testing.B) {
			benchmarkAppend(b, in.data, func(dst, src []byte) []byte { return Append(dst, src, MaxBits, Fast, true) })
		})
		b.Run(in.name+"/better", func(b *testing.B) {
			benchmarkAppend(b, in.data, func(dst, src []byte) []byte { return Append(dst, src, MaxBits, Better, true) })
		})
		for _, bits := range []int{12, 15} {
			b.Run(in.name+fmt.Sprintf("/context%d", bits), func(b *testing.B) {
				c := NewCompressor(bits, Fast)
				benchmarkAppend(b, in.data, func(dst, src []byte) []byte { return c.Append(dst, src, true) })
			})
		}
		b.Run(in.name+"/flate1", func(b *testing.B) { benchmarkFlate(b, in.data, 1) })
	}
}

func benchmarkAppend(b *testing.B, src []byte, f func(dst, src []byte) []byte) {
	b.SetBytes(int64(len(src)))
	b.ReportAllocs()
	var dst []byte
	for b.Loop() {
		dst = f(dst[:0], src)
	}
	b.ReportMetric(float64(len(dst)), "wirebytes")
}

func benchmarkFlate(b *testing.B, src []byte, level int) {
	b.SetBytes(int64(len(src)))
	b.ReportAllocs()
	s := new(sink)
	w, err := flate.NewWriter(s, level)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s.b = s.b[:0]
		w.Reset(s)
		w.Write(src)
		w.Flush()
	}
	b.ReportMetric(float64(len(s.b)-4), "wirebytes")
}

func BenchmarkDecompress(b *testing.B) {
	for _, in := range samples() {
		payload := Append(nil, in.data, MaxBits, Fast, true)
		b.Run(in.name, func(b *testing.B) {
			b.SetBytes(int64(len(in.data)))
			b.ReportAllocs()
			var dst []byte
			for b.Loop() {
				dst, _ = Decompress(dst[:0], payload, nil, -1)
			}
			if !bytes.Equal(dst, in.data) {
				b.Fatal("wrong data")
			}
		})
		b.Run(in.name+"/flate", func(b *testing.B) {
			b.SetBytes(int64(len(in.data)))
			b.ReportAllocs()
			whole := append(bytes.Clone(payload), "\x00\x00\xff\xff\x01\x00\x00\xff\xff"...)
			var r bytes.Reader
			fr := flate.NewReader(&r)
			dst := make([]byte, len(in.data))
			for b.Loop() {
				r.Reset(whole)
				fr.(flate.Resetter).Reset(&r, nil)
				io.ReadFull(fr, dst)
			}
			if !bytes.Equal(dst, in.data) {
				b.Fatal("wrong data")
			}
		})
	}
}
