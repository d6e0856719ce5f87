package utf8x

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

// firstWrong is the index of the first byte of p that can't be part of UTF-8,
// or len(p), and whether p is UTF-8 as it stands.
func firstWrong(p []byte) (index int, whole bool) {
	for i := 0; i < len(p); {
		r, n := utf8.DecodeRune(p[i:])
		if r != utf8.RuneError || n != 1 {
			i += n
			continue
		}
		// The wrong byte is the one that turns the beginning of a rune into
		// something that no further byte can save.
		for j := i; j < len(p); j++ {
			if utf8.FullRune(p[i : j+1]) {
				return j, false
			}
		}
		return len(p), false
	}
	return len(p), true
}

// checkUTF8 writes p in pieces, whose sizes are those of sizes in turn (0
// stands for all the rest), and expects the first wrong byte to be refused
// with its piece, neither earlier nor later.
func checkUTF8(t *testing.T, p []byte, sizes []byte) {
	t.Helper()
	wrong, whole := firstWrong(p)
	if whole != utf8.Valid(p) {
		t.Fatalf("the reference says %v of % x, utf8.Valid %v", whole, p, !whole)
	}
	var v Validator
	for start, i := 0, 0; start < len(p); i++ {
		n := len(p) - start
		if len(sizes) > 0 && sizes[i%len(sizes)] != 0 {
			n = min(n, int(sizes[i%len(sizes)]))
		}
		got, want := v.Write(p[start:start+n]), start+n <= wrong
		if got != want {
			t.Fatalf("% x: Write(bytes %d to %d) = %v, want %v (first wrong byte: %d)",
				p, start, start+n, got, want, wrong)
		}
		start += n
	}
	if got := v.Complete(); got != whole {
		t.Fatalf("% x in pieces of % d: Complete() = %v, want %v", p, sizes, got, whole)
	}
}

// Every rune's end and every table row's border, each refused at the byte
// named.
var cases = []struct {
	text  string
	wrong int // index of the first wrong byte, -1 if there is none
	whole bool
}{
	{"", -1, true},
	{"Hello", -1, true},
	{"\x00", -1, true},
	{"κόσμε", -1, true},
	{"\x7f", -1, true},
	{"\x80", 0, false},
	{"\xbf", 0, false},
	{"\xc0", 0, false},
	{"\xc1", 0, false},
	{"\xc2\x80", -1, true},
	{"\xdf\xbf", -1, true},
	{"\xc2", -1, false},
	{"\xc2\x7f", 1, false},
	{"\xc2\xc0", 1, false},
	{"\xe0\x9f", 1, false},
	{"\xe0\xa0\x80", -1, true},
	{"\xe0\xa0", -1, false},
	{"\xe0\xa0\x7f", 2, false},
	{"\xe1\x80\x80", -1, true},
	{"\xe1\x7f", 1, false},
	{"\xec\xbf\xbf", -1, true},
	{"\xed\x9f\xbf", -1, true},
	{"\xed\xa0", 1, false},
	{"\xee\x80\x80", -1, true},
	{"\xef\xbf\xbf", -1, true},
	{"\xef\xbf\xc0", 2, false},
	{"\xf0\x8f", 1, false},
	{"\xf0\x90\x80\x80", -1, true},
	{"\xf1\x80\x80\x80", -1, true},
	{"\xf1\x80\x80\xc0", 3, false},
	{"\xf3\xbf\xbf\xbf", -1, true},
	{"\xf3\xbf\xbf", -1, false},
	{"\xf4\x8f\xbf\xbf", -1, true},
	{"\xf4\x90", 1, false},
	{"\xf5", 0, false},
	{"\xf8", 0, false},
	{"\xff", 0, false},
	{"κόσμε\xed\xa0\x80edited", 11, false},
}

func TestCases(t *testing.T) {
	for _, c := range cases {
		want := c.wrong
		if want < 0 {
			want = len(c.text)
		}
		var v Validator
		got := 0
		for got < len(c.text) && v.Write([]byte{c.text[got]}) {
			got++
		}
		if got != want || v.Complete() != c.whole {
			t.Errorf("% x: first wrong byte %d, complete %v; want %d, %v",
				c.text, got, v.Complete(), want, c.whole)
		}
	}
}

// borders are the bytes beside which the grammar changes its mind.
var borders = []byte{0, 0x41, 0x7f, 0x80, 0x81, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf,
	0xe0, 0xe1, 0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xf7, 0xf8, 0xff}

func TestSequences(t *testing.T) {
	for _, a := range borders {
		for _, b := range borders {
			for _, c := range borders {
				for _, d := range borders {
					p := []byte{a, b, c, d}
					checkUTF8(t, p, nil)
					checkUTF8(t, p, []byte{1})
				}
			}
		}
	}
}

// One wrong byte in a long run of an alphabet, at every place: a run is checked
// many bytes at a time, and none of them may hide it.
func TestDamage(t *testing.T) {
	for _, text := range texts {
		whole := []byte(strings.Repeat(text.text, 300/len(text.text)+1))
		checkUTF8(t, whole, nil)
		p := bytes.Clone(whole)
		for i := range p {
			for _, b := range borders {
				p[i] = b
				checkUTF8(t, p, nil)
			}
			p[i] = whole[i]
			checkUTF8(t, p[:i], nil)
			checkUTF8(t, p[i:], nil)
		}
	}
}

// A step by two bytes leads where two steps by one do, from every state.
func TestPairs(t *testing.T) {
	for state := uint64(start); state <= wrong; state += 6 {
		for a := range next {
			for b := range next {
				want := next[b] >> (next[a] >> state & 63) & 63
				if got := nextPair[pairs[a|b<<8]] >> state & 63; got != want {
					t.Fatalf("from state %d by %02x %02x to %d; want %d", state, a, b, got, want)
				}
			}
		}
	}
}

// Once wrong, a validator stays so, whatever follows.
func TestSticky(t *testing.T) {
	var v Validator
	v.Write([]byte("\xff"))
	for _, text := range []string{"", "a", strings.Repeat("a", 1000), "\x80"} {
		if v.Write([]byte(text)) || v.Complete() {
			t.Errorf("after ff, Write(%q) = true, want false", text)
		}
	}
}

func FuzzValidator(f *testing.F) {
	for _, c := range cases {
		f.Add([]byte(c.text), []byte{1})
	}
	f.Fuzz(func(t *testing.T, p, sizes []byte) {
		checkUTF8(t, p, nil)
		checkUTF8(t, p, sizes)
		checkUTF8(t, bytes.Repeat(p, 1+600/(1+len(p))), sizes) // long enough for runs
	})
}

var texts = []struct{ name, text string }{
	{"ascii", "The quick brown fox jumps over the lazy dog; 0123456789 {\"json\": true}. "},
	{"english", "It’s a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a wife. “My dear Mr. Bennet,” said his lady. "},
	{"latin", "Dès Noël, où un zéphyr haï me vêt de glaçons würmiens, je dîne d'exquis rôtis de bœuf au kir, à l'aÿ d'âge mûr, etc. "},
	{"cyrillic", "Съешь же ещё этих мягких французских булок, да выпей чаю. Широкая электрификация южных губерний. "},
	{"hindi", "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है। "},
	{"cjk", "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。"},
	{"korean", "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 인간은 천부적으로 이성과 양심을 부여받았다. "},
	{"emoji", "😀😃😄😁😆😅🤣😂🙂🙃😉😊😇🥰😍🤩😘😗😚😙"},
	{"mixed", "Hello, мир! 你好，世界 😀 naïve café — 日本語テキスト and {\"ключ\": \"значение\"} 👍 ok. "},
}

func BenchmarkValidator(b *testing.B) {
	for _, text := range texts {
		for _, size := range []int{16, 125, 1 << 10, 64 << 10} {
			p := []byte(strings.Repeat(text.text, size/len(text.text)+1))[:size]
			b.Run(fmt.Sprintf("%s/%d", text.name, size), func(b *testing.B) {
				b.SetBytes(int64(size))
				for b.Loop() {
					var v Validator
					if !v.Write(p) {
						b.Fatal("refused")
					}
				}
			})
			// The same by the standard library, which wants the whole text at once.
			for !utf8.Valid(p) {
				p = p[:len(p)-1]
			}
			b.Run(fmt.Sprintf("%s/%d/unicode", text.name, size), func(b *testing.B) {
				b.SetBytes(int64(len(p)))
				for b.Loop() {
					if !utf8.Valid(p) {
						b.Fatal("refused")
					}
				}
			})
		}
	}
}
