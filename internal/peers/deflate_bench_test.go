package peers

import (
	"bytes"
	"compress/flate"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	kflate "github.com/klauspost/compress/flate"

	"github.com/rawws/websocket/internal/deflate"
)

// benchInputs are many messages of each kind, so that no branch predictor learns
// them by heart, and no window holds them all.
func benchInputs() map[string][][]byte {
	r := rand.New(rand.NewPCG(1, 1))
	inputs := map[string][][]byte{}
	for range 512 {
		inputs["json200"] = append(inputs["json200"], jsonDocument(r, 200))
		inputs["json1k"] = append(inputs["json1k"], jsonDocument(r, 1<<10))
	}
	for range 4 {
		inputs["text64k"] = append(inputs["text64k"], words(r, 64<<10))
		noise := make([]byte, 16<<10)
		for i := range noise {
			noise[i] = byte(r.Uint32())
		}
		inputs["random16k"] = append(inputs["random16k"], noise)
	}
	return inputs
}

// jsonDocument is a list of about n bytes, as an API sends it.
func jsonDocument(r *rand.Rand, n int) []byte {
	type item struct {
		ID    int      `json:"id"`
		User  string   `json:"user"`
		Price float64  `json:"price"`
		Tags  []string `json:"tags"`
		Seen  bool     `json:"seen"`
	}
	tags := []string{"new", "sale", "garden", "kitchen", "outdoor", "books", "music"}
	var items []item
	for {
		items = append(items, item{
			ID: r.IntN(1 << 24), User: fmt.Sprintf("user-%05x", r.IntN(1<<20)), Price: float64(r.IntN(100000)) / 100,
			Tags: []string{tags[r.IntN(len(tags))], tags[r.IntN(len(tags))]}, Seen: r.IntN(2) == 0,
		})
		if b, _ := json.Marshal(items); len(b) >= n {
			return b[:n]
		}
	}
}

// words are n bytes of text, few words being usual and many rare.
func words(r *rand.Rand, n int) []byte {
	list := make([]string, 3000)
	for i := range list {
		var w strings.Builder
		for range 1 + r.IntN(4) {
			w.WriteByte("bcdfghlmnprst"[r.IntN(13)])
			w.WriteByte("aeiou"[r.IntN(5)])
		}
		list[i] = w.String()
	}
	zipf := rand.NewZipf(r, 1.1, 3, uint64(len(list)-1))
	var b bytes.Buffer
	for b.Len() < n {
		b.WriteString(list[zipf.Uint64()])
		b.WriteString([]string{" ", " ", " ", " ", ", ", ". "}[r.IntN(6)])
	}
	return b.Bytes()[:n]
}

// A codec compresses messages and decompresses payloads, one after the other.
type codec struct {
	name       string
	compress   func(dst, message []byte) []byte
	decompress func(dst, payload []byte) ([]byte, error)
}

type flateWriter interface {
	io.Writer
	Reset(io.Writer)
	Flush() error
}

// A buffer is what a flate writer writes to, and a reader reads from.
type buffer struct{ b []byte }

func (b *buffer) Write(p []byte) (int, error) {
	b.b = append(b.b, p...)
	return len(p), nil
}

// streamed is a codec of a library made for streams, used as servers use it.
func streamed(tb testing.TB, name string, newWriter func(io.Writer, int) (flateWriter, error), fr io.Reader, reset func(io.Reader) error, level int, context bool) codec {
	out := new(buffer)
	w, err := newWriter(out, level)
	if err != nil {
		tb.Fatal(err)
	}
	var src bytes.Reader
	return codec{
		name: fmt.Sprintf("%s%d", name, level),
		compress: func(dst, message []byte) []byte {
			out.b = dst
			if !context {
				w.Reset(out)
			}
			w.Write(message)
			w.Flush()
			return out.b[:len(out.b)-4]
		},
		decompress: func(dst, payload []byte) ([]byte, error) {
			src.Reset(payload)
			reset(io.MultiReader(&src, strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff")))
			for {
				if len(dst) == cap(dst) {
					dst = append(dst, 0)[:len(dst)]
				}
				n, err := fr.Read(dst[len(dst):cap(dst)])
				if dst = dst[:len(dst)+n]; err == io.EOF {
					return dst, nil
				} else if err != nil {
					return dst, err
				}
			}
		},
	}
}

func codecs(tb testing.TB) []codec {
	ours := func(name string, level deflate.Level) codec {
		return codec{name,
			func(dst, m []byte) []byte { return deflate.Append(dst, m, 15, level, true) },
			func(dst, p []byte) ([]byte, error) { return deflate.Decompress(dst, p, nil, 1<<20) },
		}
	}
	context := func(bits int) codec {
		c := deflate.NewCompressor(bits, deflate.Fast)
		w := deflate.NewWindow(bits)
		w.Add(words(rand.New(rand.NewPCG(5, 5)), 32<<10))
		return codec{fmt.Sprintf("ours-context%d", bits),
			func(dst, m []byte) []byte { return c.Append(dst, m, true) },
			func(dst, p []byte) ([]byte, error) { return deflate.Decompress(dst, p, w, 1<<20) },
		}
	}
	list := []codec{ours("ours-fast", deflate.Fast), ours("ours-better", deflate.Better), context(12), context(15)}
	for _, level := range []int{1, 6} {
		fr := flate.NewReader(nil)
		list = append(list, streamed(tb, "flate", func(w io.Writer, l int) (flateWriter, error) { return flate.NewWriter(w, l) },
			fr, func(r io.Reader) error { return fr.(flate.Resetter).Reset(r, nil) }, level, false))
		kr := kflate.NewReader(nil)
		list = append(list, streamed(tb, "klauspost", func(w io.Writer, l int) (flateWriter, error) { return kflate.NewWriter(w, l) },
			kr, func(r io.Reader) error { return kr.(kflate.Resetter).Reset(r, nil) }, level, false))
	}
	return list
}

// BenchmarkDeflate compares ours with compress/flate and klauspost/compress:
// time, and what goes over the wire of a message.
func BenchmarkDeflate(b *testing.B) {
	for name, messages := range benchInputs() {
		for _, c := range codecs(b) {
			b.Run("compress/"+name+"/"+c.name, func(b *testing.B) {
				b.SetBytes(int64(len(messages[0])))
				b.ReportAllocs()
				var dst []byte
				wire, n := 0, 0
				for b.Loop() {
					dst = c.compress(dst[:0], messages[n%len(messages)])
					wire += len(dst)
					n++
				}
				b.ReportMetric(float64(wire)/float64(n), "wire-B/op")
			})
			b.Run("decompress/"+name+"/"+c.name, func(b *testing.B) {
				var payloads [][]byte
				for _, m := range messages {
					payloads = append(payloads, flateLevel1(b, m))
				}
				b.SetBytes(int64(len(messages[0])))
				b.ReportAllocs()
				var dst []byte
				for n := 0; b.Loop(); n++ {
					var err error
					if dst, err = c.decompress(dst[:0], payloads[n%len(payloads)]); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// flateLevel1 is what a client of the usual kind sends.
func flateLevel1(tb testing.TB, message []byte) []byte {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, 1)
	if err != nil {
		tb.Fatal(err)
	}
	w.Write(message)
	w.Flush()
	return b.Bytes()[:b.Len()-4]
}
