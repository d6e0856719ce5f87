package peers

import (
	"bytes"
	"fmt"
	"testing"
)

// TestWindows asks for windows of every size, contexts kept, with the one of
// the Go libraries that can. It inflates with compress/flate, whose window is
// always the largest: our window has its judge in TestNodeWindows, and here it
// is the client's that is tried out.
func TestWindows(t *testing.T) {
	gws := dialers[len(dialers)-1]
	for bits := 8; bits <= 15; bits++ {
		t.Run(fmt.Sprint(bits), func(t *testing.T) {
			p := gws.open(t, dialOptions{target: startTarget(t, variant{deflate: true}), deflate: true, window: bits})
			for _, n := range []int{1000, 1000, 50_000, 3, 1000, 200_000, 1000} {
				for _, text := range []bool{true, false} {
					sent := bytes.Repeat(payload(text, min(n, 1000)), max(n/1000, 1))
					if err := p.Write(text, sent); err != nil {
						t.Fatalf("%d bytes: %v", len(sent), err)
					}
					exchange(t, p, text, sent)
				}
			}
			if got, err := p.Close(1000, ""); err != nil || got.code != 1000 {
				t.Errorf("closed with %v, %v; want 1000", got, err)
			}
		})
	}
}
