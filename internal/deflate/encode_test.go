package deflate

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/rawws/websocket/internal/deflate/bitwise"
)

var levels = []Level{Fast, Better}

// messages are of many kinds; their lengths stand around the ends of windows
// and of blocks.
func messages() []sample {
	list := append(samples(),
		sample{"empty", nil},
		sample{"a byte", []byte("x")},
		sample{"Hello", []byte("Hello")},
		sample{"high bytes", bytes.Repeat([]byte("\xf0\x9f\x98\x80"), 20)},
		sample{"zeros", make([]byte, 70_000)},
		sample{"big JSON", jsonOf(6, 100_000)},
		sample{"far apart", slices.Concat(randomOf(300), make([]byte, 32768-300), []byte("12345"), randomOf(300),
			make([]byte, 200), randomOf(300), bytes.Repeat([]byte("0123456789"), 4000))},
		sample{"JSON and noise", slices.Concat(jsonOf(6, 40_000), randomOf(70_000), jsonOf(6, 40_000))},
	)
	for _, n := range []int{1, 3, 4, 5, 255, 256, 257, 511, 512, 8191, 32763, 32767, 32768, 32769, 65535, 65536, 70_000} {
		list = append(list, sample{fmt.Sprintf("noise of %d", n), randomOf(n)})
		b := slices.Concat(randomOf(100), make([]byte, n))
		copy(b[n:], b[:100])
		list = append(list, sample{fmt.Sprintf("repeated at %d", n), b})
	}
	return list
}

// checkMessage holds a payload against the message, as three decoders see it,
// and against the window that was agreed on. before is what was sent before.
func checkMessage(t *testing.T, what string, payload, before, message []byte, bits int) {
	t.Helper()
	before = before[max(0, len(before)-32<<10):]
	j := bitwise.Message{In: payload, Out: bytes.Clone(before)}
	if err := j.Decode(); err != nil || !bytes.Equal(j.Out[len(before):], message) {
		t.Errorf("%s: bit by bit it is %s, %v; want %s", what, describe(j.Out[len(before):]), err, describe(message))
	}
	if j.Farthest > 1<<bits {
		t.Errorf("%s: reaches back %d bytes, want at most %d", what, j.Farthest, 1<<bits)
	}
	if out, ok := flateMessage(payload, before, len(message)); !ok || !bytes.Equal(out, message) {
		t.Errorf("%s: compress/flate makes it %s, %v; want %s", what, describe(out), ok, describe(message))
	}
	w := NewWindow(bits)
	w.Add(before)
	if out, err := decompress(t, payload, w, len(message), len(message)/2); err != nil || !bytes.Equal(out, message) {
		t.Errorf("%s: decompressed it is %s, %v; want %s", what, describe(out), err, describe(message))
	}
	if most := len(message) + 5*(len(message)/blockSize+1) + 1; len(payload) > most {
		t.Errorf("%s: %d bytes for a message of %d, want at most %d", what, len(payload), len(message), most)
	}
}

// windows are the sizes to try: all of them, or both ends and the middle.
func windows() []int {
	if raceDetector {
		return []int{MinBits, 12, MaxBits}
	}
	var all []int
	for bits := MinBits; bits <= MaxBits; bits++ {
		all = append(all, bits)
	}
	return all
}

func TestRoundTrip(t *testing.T) {
	for _, in := range messages() {
		for _, level := range levels {
			for _, bits := range windows() {
				what := fmt.Sprintf("%s, level %d, window of 2^%d", in.name, level, bits)
				payload := Append([]byte("before"), in.data, bits, level, true)
				if !bytes.HasPrefix(payload, []byte("before")) {
					t.Fatalf("%s: what was there before is gone: %q", what, payload[:6])
				}
				checkMessage(t, what, payload[6:], nil, in.data, bits)
			}
		}
	}
}

// A window is of use up to its last byte, and not one byte further.
func TestFarthest(t *testing.T) {
	for _, level := range levels {
		for bits := MinBits; bits <= MaxBits; bits++ {
			for _, distance := range []int{1 << bits, 1<<bits + 1} {
				src := slices.Concat(randomOf(100), make([]byte, distance))
				copy(src[distance:], src[:100])
				c := NewCompressor(bits, level)
				first := c.Append(nil, src[:distance], true)
				_ = first
				second := c.Append(nil, src[distance:], true)
				for name, payload := range map[string][]byte{"one message": Append(nil, src, bits, level, true), "two messages": second} {
					j := bitwise.Message{In: payload}
					if name == "two messages" {
						j.Out = bytes.Clone(src[:distance])
					}
					err := j.Decode()
					if reaches := j.Farthest == distance; err != nil || reaches != (distance <= 1<<bits) {
						t.Errorf("level %d, window of 2^%d, repeated at %d, %s: reaches back %d, %v", level, bits, distance, name, j.Farthest, err)
					}
				}
			}
		}
	}
}

// The pieces of a message, one behind the other, are its payload.
func TestPieces(t *testing.T) {
	message := jsonOf(4, 10_000)
	sizes := []int{1, 100, 1024, 5000, 10_000, 20_000}
	if raceDetector {
		sizes = sizes[2:]
	}
	for _, size := range sizes {
		for _, bits := range []int{8, 12, 15} {
			for _, level := range levels {
				for _, c := range []*Compressor{nil, NewCompressor(bits, level)} {
					piece := func(dst, src []byte, final bool) []byte {
						if c != nil {
							return c.Append(dst, src, final)
						}
						return Append(dst, src, bits, level, final)
					}
					var payload []byte
					for p := range slices.Chunk(message, size) {
						payload = piece(payload, p, false)
					}
					payload = piece(payload, nil, true)
					what := fmt.Sprintf("pieces of %d, window of 2^%d, level %d, context %v", size, bits, level, c != nil)
					j := bitwise.Message{In: payload}
					if err := j.Decode(); err != nil || !bytes.Equal(j.Out, message) || j.Farthest > 1<<bits {
						t.Errorf("%s: got %s, %v, reaching back %d", what, describe(j.Out), err, j.Farthest)
					}
				}
			}
		}
	}
}

// Each message refers to what was sent before, as far as the window reaches.
func TestContext(t *testing.T) {
	for _, level := range levels {
		for _, bits := range windows() {
			c := NewCompressor(bits, level)
			c.base = 1<<32 - 100_000 // positions begin again on the way
			var before []byte
			for round := range 2 {
				for i, in := range messages() {
					if len(in.data) > 40_000 && (round > 0 || bits%3 != 0) {
						continue
					}
					payload := c.Append(nil, in.data, true)
					checkMessage(t, fmt.Sprintf("message %d of round %d (%s), level %d, window of 2^%d", i, round, in.name, level, bits), payload, before, in.data, bits)
					before = append(before, in.data...)
				}
			}
			if most := min(3<<bits, 64<<10); cap(c.window.buf)+4*cap(c.table) > most {
				t.Errorf("window of 2^%d: takes %d and %d bytes, want at most %d", bits, cap(c.window.buf), 4*cap(c.table), most)
			}
		}
	}
}

// Messages that were compressed once for many are part of each one's context.
func TestSent(t *testing.T) {
	c := NewCompressor(10, Fast)
	var before []byte
	for i := range 100 {
		message := jsonOf(uint64(i%9), 100+i*3)
		var payload []byte
		if i%3 == 0 {
			payload = Append(nil, message, 15, Fast, true)
			c.Sent(message)
		} else {
			payload = c.Append(nil, message, true)
			checkMessage(t, fmt.Sprintf("message %d", i), payload, before, message, 10)
		}
		before = append(before, message...)
	}
}

// Without a context a payload depends on its message alone, and the context of
// one connection on nothing but its messages: whoever used the pooled memory
// before, and wherever positions stand.
func TestDeterministic(t *testing.T) {
	for _, level := range levels {
		list := messages()
		var first [][]byte
		for _, in := range list {
			first = append(first, Append(nil, in.data, 15, level, true))
		}
		for round := range 3 {
			for i := range list {
				e := encoders.Get().(*encoder)
				if round == 2 {
					e.base = lastBase + uint32(i%2)*1000
				}
				encoders.Put(e)
				i = (i * 7) % len(list)
				if got := Append(nil, list[i].data, 15, level, true); !bytes.Equal(got, first[i]) {
					t.Errorf("%s, level %d: got another payload in round %d", list[i].name, level, round)
				}
			}
		}
	}
}

func TestBaseBeginsAgain(t *testing.T) {
	c := NewCompressor(12, Fast)
	c.Append(nil, jsonOf(1, 2000), true)
	c.base = lastBase + 1
	before := jsonOf(1, 2000)
	payload := c.Append(nil, before, true)
	if c.base != firstBase+2000 {
		t.Errorf("the next position is %d, want %d", c.base, firstBase+2000)
	}
	checkMessage(t, "positions that begin again", payload, before, before, 12)
}

// Compressed as well as compress/flate does at its first level.
func TestSize(t *testing.T) {
	for _, in := range append(samples(), sample{"json16k", jsonOf(8, 16<<10)}) {
		flate1 := len(flateCompress(t, 1, false, in.data)[0])
		fast := len(Append(nil, in.data, 15, Fast, true))
		better := len(Append(nil, in.data, 15, Better, true))
		if 100*fast > 105*flate1 || better > fast {
			t.Errorf("%s: %d bytes fast, %d better, %d with compress/flate's level 1; want at most 1.05 of that, and less", in.name, fast, better, flate1)
		}
		t.Logf("%s: %d bytes fast, %d better; with compress/flate %d at level 1, %d at 6", in.name, fast, better, flate1,
			len(flateCompress(t, 6, false, in.data)[0]))
	}
}

// Small updates that resemble each other are what a context is for.
func TestContextSize(t *testing.T) {
	for _, bits := range []int{12, 15} {
		c := NewCompressor(bits, Fast)
		plain, alone, with := 0, 0, 0
		for i := range 200 {
			m := jsonOf(uint64(i), 120)
			plain += len(m)
			alone += len(Append(nil, m, bits, Fast, true))
			with += len(c.Append(nil, m, true))
		}
		if 2*with > alone {
			t.Errorf("window of 2^%d: %d bytes of messages became %d alone and %d with their context, want less than half", bits, plain, alone, with)
		}
		t.Logf("window of 2^%d: %d bytes, %d alone, %d with context", bits, plain, alone, with)
	}
}

// What an attacker may have the server compress costs as much as anything else.
func TestCompressSteps(t *testing.T) {
	inputs := messages()
	var collide []byte // words with the same hash
	for v := uint32(0); len(collide) < 40_000; v += 1 << 18 {
		w := v * 0x144cbc89 // the inverse of the hash's factor
		collide = append(collide, byte(w), byte(w>>8), byte(w>>16), byte(w>>24))
	}
	for _, in := range append(inputs,
		sample{"runs", bytes.Repeat([]byte("a"), 100_000)},
		sample{"runs that end", bytes.Repeat(append(bytes.Repeat([]byte("a"), 257), 'b'), 400)},
		sample{"periods", bytes.Repeat([]byte("abcdefg"), 10_000)},
		sample{"growing runs", growingRuns()},
		sample{"colliding words", collide},
	) {
		for _, level := range levels {
			for _, bits := range []int{8, 15} {
				c := NewCompressor(bits, level)
				for range 2 {
					c.Append(nil, in.data, true)
					m := matcher{src: in.data, table: c.table, base: c.base, farthest: 1 << bits, history: &c.window, before: c.window.Len()}
					e := new(encoder)
					e.append(nil, &m, level, true)
					per := 2
					if level == Better {
						per = 40
					}
					if e.steps > per*len(in.data) {
						t.Errorf("%s, level %d, window of 2^%d: %d steps for %d bytes, want at most %d a byte", in.name, level, bits, e.steps, len(in.data), per)
					}
				}
			}
		}
	}
}

// What came in as a thousandth of its size, and goes out again so, isn't looked at byte
// by byte.
func TestCompressStepsOfRuns(t *testing.T) {
	for _, period := range []string{"a", "ab", "abcdefg", "0123456789abcdefghijklmnopqrstuv"} {
		in := bytes.Repeat([]byte(period), 100_000/len(period))
		for _, level := range levels {
			m := matcher{src: in, table: make([]uint32, tableSize(1<<15)), base: firstBase, farthest: 1 << 15}
			e := new(encoder)
			payload := e.append(nil, &m, level, true)
			if e.steps > len(in)/2 {
				t.Errorf("%d bytes that repeat %q, level %d: %d steps for %d bytes that are left; want at most half of one a byte",
					len(in), period, level, e.steps, len(payload))
			}
		}
	}
}

// growingRuns has each match found a byte later be longer.
func growingRuns() (b []byte) {
	for n := 4; n < 200; n++ {
		for i := range n {
			b = append(b, byte(i))
		}
		b = append(b, 255)
	}
	return b
}

func TestHuffman(t *testing.T) {
	fibonacci := []uint32{1, 1}
	for len(fibonacci) < 25 {
		fibonacci = append(fibonacci, fibonacci[len(fibonacci)-1]+fibonacci[len(fibonacci)-2])
	}
	r := rng(3)
	counts := [][]uint32{fibonacci, {}, {5}, {0, 7}, {0, 0, 0, 9}, {1, 1}, {1, 2, 3}, slices.Repeat([]uint32{1000}, 286)}
	for range 200 {
		c := make([]uint32, 2+r.IntN(285))
		for i := range c {
			if r.IntN(3) > 0 {
				c[i] = r.Uint32N(1 << r.IntN(16))
			}
		}
		counts = append(counts, c)
	}
	for _, c := range counts {
		c = append(slices.Clone(c), 0, 0)
		checkHuffman(t, c[:min(len(c), maxLit)], maxEncodedBits)
		c = c[:min(len(c), maxPre)]
		for i := range c { // there are at most 316 code lengths to be sent
			c[i] = min(c[i], 100) / 6
		}
		checkHuffman(t, c, maxPreBits)
	}
}

func checkHuffman(t *testing.T, counts []uint32, limit int) {
	t.Helper()
	var h huffman
	words := make([]codeword, len(counts))
	h.collect(counts)
	size := h.code(words, limit)
	space, bits, codes := 0, 0, 0
	for i, word := range words {
		n := int(word.len())
		if counts[i] > 0 && n == 0 || n > limit {
			t.Fatalf("counts %v: symbol %d has a code of %d bits, want 1 to %d", counts, i, n, limit)
		}
		if n > 0 {
			space += 1 << (limit - n)
			codes++
		}
		bits += n * int(counts[i])
	}
	if bits != size {
		t.Errorf("counts %v: %d bits, code said %d", counts, bits, size)
	}
	if space != 1<<limit || codes < 2 {
		t.Errorf("counts %v: %d codes take %d of %d", counts, codes, space, 1<<limit)
	}
	if best := optimum(counts, limit); bits > best+best/100 {
		t.Errorf("counts %v: %d bits with codes of at most %d, want about %d", counts, bits, limit, best)
	}
}

// optimum is what the best code of limited length takes, by package-merge: the
// sum of the 2n-2 cheapest coins of the last round.
func optimum(counts []uint32, limit int) (bits int) {
	var coins []uint64
	for _, c := range counts {
		if c > 0 {
			coins = append(coins, uint64(c))
		}
	}
	if len(coins) < 2 {
		return int(slices.Max(append(counts, 0)))
	}
	slices.Sort(coins)
	list := coins
	for range limit - 1 {
		var pairs []uint64
		for i := 0; i+1 < len(list); i += 2 {
			pairs = append(pairs, list[i]+list[i+1])
		}
		list = slices.Concat(coins, pairs)
		slices.Sort(list)
	}
	for _, c := range list[:2*len(coins)-2] {
		bits += int(c)
	}
	return bits
}

// The pools are shared by all connections.
func TestConcurrent(t *testing.T) {
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			c, w := NewCompressor(10, levels[i%2]), NewWindow(10)
			for j := range 50 {
				message := jsonOf(uint64(i*50+j), 300*i+j)
				out, err := Decompress(nil, Append(nil, message, 15, levels[j%2], true), nil, -1)
				if err != nil || !bytes.Equal(out, message) {
					t.Errorf("got %s, %v; want %s", describe(out), err, describe(message))
				}
				out, err = Decompress(nil, c.Append(nil, message, true), w, -1)
				if err != nil || !bytes.Equal(out, message) {
					t.Errorf("with context: got %s, %v; want %s", describe(out), err, describe(message))
				}
			}
		})
	}
	wg.Wait()
}

// FuzzCompress compresses data as messages of the lengths that cuts says, in
// pieces or whole, each with the context of those before or without.
func FuzzCompress(f *testing.F) {
	for i, in := range messages() {
		if len(in.data) < 3000 {
			f.Add(in.data, []byte{byte(i * 10), 3, 200}, byte(i))
		}
	}
	f.Add(bytes.Repeat([]byte("0123456789"), 200), []byte{100}, byte(0x10))
	f.Fuzz(func(t *testing.T, data, cuts []byte, mode byte) {
		bits, level := MinBits+int(mode&7), levels[mode>>3&1]
		context, pieces := mode&0x10 != 0, mode&0x20 != 0
		c := NewCompressor(bits, level)
		var before []byte
		for i := 0; ; i++ {
			n := len(data)
			if i < len(cuts) {
				n = min(n, int(cuts[i])<<(mode>>6))
			}
			message := data[:n]
			data = data[n:]
			parts := [][]byte{message}
			if pieces {
				parts = [][]byte{message[:n/3], message[n/3 : n/2], message[n/2:]}
			}
			var payload []byte
			for k, p := range parts {
				if context {
					payload = c.Append(payload, p, k == len(parts)-1)
				} else {
					payload = Append(payload, p, bits, level, k == len(parts)-1)
				}
			}
			checkPayload(t, payload, before, message, bits)
			if context {
				before = append(before, message...)
			}
			if len(data) == 0 {
				return
			}
		}
	})
}

func checkPayload(t *testing.T, payload, before, message []byte, bits int) {
	t.Helper()
	before = before[max(0, len(before)-32<<10):]
	j := bitwise.Message{In: payload, Out: bytes.Clone(before)}
	err := j.Decode()
	if err != nil || !bytes.Equal(j.Out[len(before):], message) || j.Farthest > 1<<bits {
		t.Errorf("bit by bit it is %s, %v, reaching back %d; want %s", describe(j.Out[len(before):]), err, j.Farthest, describe(message))
	}
	if out, ok := flateMessage(payload, before, len(message)); !ok || !bytes.Equal(out, message) {
		t.Errorf("compress/flate makes it %s, %v; want %s", describe(out), ok, describe(message))
	}
	w := NewWindow(bits)
	w.Add(before)
	if out, err := Decompress(nil, payload, w, len(message)); err != nil || !bytes.Equal(out, message) {
		t.Errorf("decompressed it is %s, %v; want %s", describe(out), err, describe(message))
	}
}
