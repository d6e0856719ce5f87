package deflate

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
)

type sample struct {
	name string
	data []byte
}

// samples are what messages look like.
func samples() []sample {
	return []sample{
		{"json200", jsonOf(1, 200)},
		{"json1k", jsonOf(2, 1024)},
		{"text64k", textOf(64 << 10)},
		{"random", randomOf(16 << 10)},
	}
}

func rng(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, seed)) }

// jsonOf is a JSON document of n bytes, of objects such as a feed would send.
func jsonOf(seed uint64, n int) []byte {
	r := rng(seed)
	names := []string{"alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel"}
	var b bytes.Buffer
	b.WriteString(`{"type":"update","items":[`)
	for b.Len() < n {
		fmt.Fprintf(&b, `{"id":%d,"name":"%s-%d","price":%d.%02d,"active":%v,"tags":["%s","%s"],"at":"2026-11-%02dT%02d:%02d:%02d.%03dZ"},`,
			r.IntN(1e6), names[r.IntN(len(names))], r.IntN(100), r.IntN(1000), r.IntN(100), r.IntN(2) == 0,
			names[r.IntN(len(names))], names[r.IntN(len(names))], 1+r.IntN(30), r.IntN(24), r.IntN(60), r.IntN(60), r.IntN(1000))
	}
	return b.Bytes()[:n]
}

// textOf is n bytes of words, of which few are usual and many rare.
func textOf(n int) []byte {
	r := rng(3)
	words := make([]string, 3000)
	for i := range words {
		var w strings.Builder
		for range 2 + r.IntN(4) {
			w.WriteByte("bcdfghlmnprst"[r.IntN(13)])
			w.WriteByte("aeiou"[r.IntN(5)])
		}
		words[i] = w.String()[:1+r.IntN(w.Len()-1)]
	}
	zipf := rand.NewZipf(r, 1.1, 3, uint64(len(words)-1))
	var b bytes.Buffer
	for b.Len() < n {
		b.WriteString(words[zipf.Uint64()])
		b.WriteString([]string{" ", " ", " ", " ", " ", ", ", ". ", "\n"}[r.IntN(8)])
	}
	return b.Bytes()[:n]
}

func randomOf(n int) []byte {
	r := rng(4)
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}
