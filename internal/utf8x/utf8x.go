// Package utf8x checks UTF-8 that arrives in pieces, split at any byte, as the
// text of a message does. It is for the reader of frames and for what inflates
// compressed ones, and knows neither: bytes go in, and whether they can still be
// text comes out. Nothing in it may allocate, wait, or depend on what the text is
// for; and no text may be slow to check, since a stranger has chosen it.
package utf8x

import (
	"encoding/binary"
	"slices"
	"unicode/utf8"
)

// A Validator checks text that arrives in pieces. The zero value is ready.
//
// It fails at the first byte that can't be part of UTF-8, not at the end of
// the rune or of the piece, as a text message is to be failed without waiting
// for the rest of it (RFC 6455, section 8.1).
type Validator struct {
	state uint8
}

// The states say what the next byte may be, after RFC 3629, section 4. Each is
// the offset in bits of its successor in an entry of next.
const (
	start  = 6 * iota // the first byte of a rune
	tail1             // 80-BF
	tail2             // 80-BF, and one more
	tail3             // 80-BF, and two more
	tailE0            // A0-BF, and one more: anything below is overlong
	tailED            // 80-9F, and one more: anything above is a surrogate
	tailF0            // 90-BF, and two more: anything below is overlong
	tailF4            // 80-8F, and two more: anything above is over U+10FFFF
	wrong             // nothing, ever again
)

// next holds for each byte the successors of all nine states, six bits
// each. A step is then one load, which doesn't depend on the state, and one
// shift by the state.
var next = func() (table [256]uint64) {
	for b := range table {
		for state := start; state <= wrong; state += 6 {
			table[b] |= successor(state, byte(b)) << state
		}
	}
	return table
}()

// successor is the grammar of RFC 3629, section 4.
func successor(state int, b byte) uint64 {
	tail := func(low, high byte, then uint64) uint64 {
		if low <= b && b <= high {
			return then
		}
		return wrong
	}
	switch state {
	case start:
		return first(b)
	case tail1:
		return tail(0x80, 0xBF, start)
	case tail2:
		return tail(0x80, 0xBF, tail1)
	case tail3:
		return tail(0x80, 0xBF, tail2)
	case tailE0:
		return tail(0xA0, 0xBF, tail1)
	case tailED:
		return tail(0x80, 0x9F, tail1)
	case tailF0:
		return tail(0x90, 0xBF, tail2)
	case tailF4:
		return tail(0x80, 0x8F, tail2)
	}
	return wrong
}

// first is the state after the first byte of a rune.
func first(b byte) uint64 {
	switch {
	case b <= 0x7F:
		return start
	case b <= 0xC1: // a tail, or what could only begin an overlong form
		return wrong
	case b <= 0xDF:
		return tail1
	case b == 0xE0:
		return tailE0
	case b == 0xED:
		return tailED
	case b <= 0xEF:
		return tail2
	case b == 0xF0:
		return tailF0
	case b <= 0xF3:
		return tail3
	case b == 0xF4:
		return tailF4
	}
	return wrong
}

// Two bytes take one step. Bytes that every state treats alike are of one class,
// a pair of classes has its successors in nextPair, and pairs holds the place
// there for two bytes in the order of memory. Neither load depends on the state:
// what a step waits for is the shift alone.
var (
	nextPair [256]uint64
	pairs    [1 << 16]uint8
)

func init() {
	var classes [256]uint8
	var member [16]byte // one byte of each class
	var seen []uint64
	for b := range classes {
		class := slices.Index(seen, next[b])
		if class < 0 {
			class = len(seen)
			seen = append(seen, next[b])
			member[class] = byte(b)
		}
		classes[b] = uint8(class)
	}
	for i := range pairs {
		pairs[i] = classes[i&0xFF] | classes[i>>8]<<4
	}
	for i := range seen {
		for j := range seen {
			for state := start; state <= wrong; state += 6 {
				between := next[member[i]] >> state & 63
				nextPair[i|j<<4] |= next[member[j]] >> between & 63 << state
			}
		}
	}
}

// Write takes the next piece of the text and reports whether all of it can
// still be UTF-8. Once false, it stays false.
func (v *Validator) Write(p []byte) bool {
	state := uint64(v.state)
	if len(p) >= long {
		state, p = skipRuns(state, p)
	}
	state = advance(state, p)
	v.state = uint8(state)
	return state != wrong
}

// Complete reports whether the text written so far is UTF-8 and doesn't end
// inside a rune.
func (v *Validator) Complete() bool {
	return v.state == start
}

// long is the size from which looking for runs pays.
const long = 128

// skipRuns takes long runs of one alphabet, which can be checked by words,
// and leaves the rest to advance. It returns the state and what remains of p.
//
// advance takes two bytes a cycle whatever the text, so no peer can make it slow.
// Where runs are short, the stretch that is read by it before the next attempt
// doubles, so that looking for them costs nothing that matters.
func skipRuns(state uint64, p []byte) (uint64, []byte) {
	const shortest, longest = long / 2, 4 << 10
	stretch := shortest
	for len(p) >= long {
		if state == start {
			n := asciiRun(p)
			n += twoByteRun(p[n:])
			n += threeByteRun(p[n:])
			p = p[n:]
			if n >= stretch {
				stretch = shortest
			} else {
				stretch = min(2*stretch, longest)
			}
		}
		n := min(stretch, len(p))
		state = advance(state, p[:n])
		p = p[n:]
		for len(p) > 0 && state != start {
			state = next[p[0]] >> state & 63
			p = p[1:]
		}
	}
	return state, p
}

// advance takes p from the state given and returns the state behind it: ASCII by
// words, all else by pairs of bytes.
func advance(state uint64, p []byte) uint64 {
	p = p[:len(p):len(p)]
	for len(p) > 64 {
		b := (*[64]byte)(p)
		first, second := ascii32((*[32]byte)(b[:])), ascii32((*[32]byte)(b[32:]))
		first = first && state&63 == start
		n := len(b)
		if first != second {
			n = 32 // one half is to be read, and the other isn't
		}
		if !first {
			state = advancePairs(state, b[:n])
		}
		p = p[n:]
	}
	for len(p) > 16 {
		if b := (*[16]byte)(p); !ascii16(b) || state&63 != start {
			state = advancePairs(state, b[:])
		}
		p = p[16:]
	}
	for len(p) >= 8 {
		if binary.LittleEndian.Uint64(p)&high != 0 || state&63 != start {
			state = advance8(state, (*[8]byte)(p))
		}
		p = p[8:]
	}
	for i := 0; i < len(p); i++ {
		state = next[p[i]] >> (state & 63)
	}
	return state & 63
}

func ascii32(b *[32]byte) bool {
	return (binary.LittleEndian.Uint64(b[:])|binary.LittleEndian.Uint64(b[8:])|
		binary.LittleEndian.Uint64(b[16:])|binary.LittleEndian.Uint64(b[24:]))&high == 0
}

func ascii16(b *[16]byte) bool {
	return (binary.LittleEndian.Uint64(b[:])|binary.LittleEndian.Uint64(b[8:]))&high == 0
}

// advancePairs takes sixteen bytes at a time. Only the low six bits of a state
// count, the shift leaves others above them. (In one function with the words of
// advance the compiler would put these together from single bytes.)
func advancePairs(state uint64, p []byte) uint64 {
	for len(p) >= 16 {
		b := (*[16]byte)(p)
		state = nextPair[pairs[binary.LittleEndian.Uint16(b[0:])]] >> (state & 63)
		state = nextPair[pairs[binary.LittleEndian.Uint16(b[2:])]] >> (state & 63)
		state = nextPair[pairs[binary.LittleEndian.Uint16(b[4:])]] >> (state & 63)
		state = nextPair[pairs[binary.LittleEndian.Uint16(b[6:])]] >> (state & 63)
		state = nextPair[pairs[binary.LittleEndian.Uint16(b[8:])]] >> (state & 63)
		state = nextPair[pairs[binary.LittleEndian.Uint16(b[10:])]] >> (state & 63)
		state = nextPair[pairs[binary.LittleEndian.Uint16(b[12:])]] >> (state & 63)
		state = nextPair[pairs[binary.LittleEndian.Uint16(b[14:])]] >> (state & 63)
		p = p[16:]
	}
	return state
}

// advance8 takes eight bytes.
func advance8(state uint64, b *[8]byte) uint64 {
	state = nextPair[pairs[binary.LittleEndian.Uint16(b[0:])]] >> (state & 63)
	state = nextPair[pairs[binary.LittleEndian.Uint16(b[2:])]] >> (state & 63)
	state = nextPair[pairs[binary.LittleEndian.Uint16(b[4:])]] >> (state & 63)
	state = nextPair[pairs[binary.LittleEndian.Uint16(b[6:])]] >> (state & 63)
	return state
}

// high is the high bit of each byte of a word, which ASCII leaves clear.
const high = 0x8080808080808080

// asciiRun returns the length of the ASCII at the start of p, as far as it can
// tell 32 bytes at a time, and less than all of p: then the compiler needn't see
// to it that a pointer stays inside.
func asciiRun(p []byte) int {
	all := len(p)
	p = p[:all:all]
	for len(p) > 32 && ascii32((*[32]byte)(p)) {
		p = p[32:]
	}
	return all - len(p)
}

// twoByteRun returns the length of whole runes of one and two bytes at the
// start of p, as far as it can tell 32 bytes at a time. p isn't empty.
func twoByteRun(p []byte) int {
	if !utf8.RuneStart(p[0]) {
		return 0
	}
	all := len(p)
	for len(p) > 32 {
		b := (*[33]byte)(p)
		w0, after0 := binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint64(b[1:])
		w1, after1 := binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint64(b[9:])
		w2, after2 := binary.LittleEndian.Uint64(b[16:]), binary.LittleEndian.Uint64(b[17:])
		w3, after3 := binary.LittleEndian.Uint64(b[24:]), binary.LittleEndian.Uint64(b[25:])
		if (w0|w1|w2|w3|after3)&high != 0 {
			bad := twoByte(w0, after0) | twoByte(w1, after1) |
				twoByte(w2, after2) | twoByte(w3, after3)
			if bad&high != 0 {
				break
			}
		}
		p = p[32:]
	}
	n := all - len(p)
	if n > 0 && !utf8.RuneStart(p[0]) {
		n-- // a rune across the border of two blocks, left whole
	}
	return n
}

// twoByte sets the high bit of each byte in word that, with the byte after
// it, has no place in a row of runes of one and two bytes. The other bits of
// the result are noise.
func twoByte(word, after uint64) uint64 {
	first := word & (word << 1)   // 11xxxxxx
	tail := after &^ (after << 1) // 10xxxxxx
	longer := word << 2
	// Of the first bytes, C0 and C1 are the ones without any of the bits 1E.
	overlong := 0x8181818181818181 - word&0x1E1E1E1E1E1E1E1E
	return first ^ tail | first&(longer|overlong)
}

// threeByteRun returns the length of whole runes of three bytes at the
// start of p, as far as it can tell 24 bytes, eight runes, at a time. Those
// that begin with E0 and ED, after which not every tail may stand, are left to
// the automaton.
func threeByteRun(p []byte) int {
	const (
		nibbles036 = 0x000F00000F00000F // of the bytes 0, 3 and 6 of a word
		nibbles147 = 0x0F00000F00000F00
		nibbles25  = 0x00000F00000F0000
	)
	all := len(p)
	for len(p) >= 24 {
		w0 := binary.LittleEndian.Uint64(p)
		w1 := binary.LittleEndian.Uint64(p[8:])
		w2 := binary.LittleEndian.Uint64(p[16:])
		bad := (w0^0x80E08080E08080E0)&0xC0F0C0C0F0C0C0F0 |
			(w1^0xE08080E08080E080)&0xF0C0C0F0C0C0F0C0 |
			(w2^0x8080E08080E08080)&0xC0C0F0C0C0F0C0C0
		// The low halves of the eight first bytes fill one word. Subtracted
		// from 80, nothing but 0 leaves the high bit set.
		low := w0&nibbles036 | w1&nibbles147 | w2&nibbles25
		isE0 := high - low
		isED := high - (low ^ 0x0D0D0D0D0D0D0D0D)
		if bad|(isE0|isED)&high != 0 {
			break
		}
		p = p[24:]
	}
	return all - len(p)
}
