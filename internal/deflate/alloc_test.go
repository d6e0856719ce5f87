//go:build !race

// The race detector makes pools forget at random, so this file is for runs
// without it.

package deflate

import (
	"bytes"
	"testing"
)

func TestAllocates(t *testing.T) {
	message := jsonOf(2, 1024)
	c, w := NewCompressor(12, Fast), NewWindow(12)
	var dst, back []byte
	for name, f := range map[string]func(){
		"Append":            func() { dst = Append(dst[:0], message, 15, Fast, true) },
		"Compressor.Append": func() { dst = c.Append(dst[:0], message, true) },
		"Decompress": func() {
			dst = Append(dst[:0], message, 15, Better, true)
			back, _ = Decompress(back[:0], dst, w, 2000)
		},
	} {
		for range 10 {
			f()
		}
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations, want none", name, n)
		}
	}
	if !bytes.Equal(back, message) {
		t.Errorf("got %s, want %s", describe(back), describe(message))
	}
}
