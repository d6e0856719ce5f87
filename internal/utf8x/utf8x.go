// Package utf8x checks UTF-8 that arrives in pieces, split at any byte, as the
// text of a message does. It is for the reader of frames and for what inflates
// compressed ones, and knows neither: bytes go in, and whether they can still be
// text comes out. Nothing in it may allocate, wait, or depend on what the text is
// for; and no text may be slow to check, since a stranger has chosen it.
package utf8x

import (
	"encoding/binary"
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

// Write takes the next piece of the text and reports whether all of it can
// still be UTF-8. Once false, it stays false.
func (v *Validator) Write(p []byte) bool {
	state := uint64(v.state)
	if len(p) >= long {
		state, p = skipRuns(state, p)
	}
	state = walk(state, p)
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
// and leaves the rest to walk. It returns the state and what remains of p.
//
// walk takes a byte a cycle whatever the text, so no peer can make it slow.
// Where runs are short, the stretch that is walked before the next attempt
// doubles, so that looking for them costs nothing that matters.
func skipRuns(state uint64, p []byte) (uint64, []byte) {
	const shortest, longest = long / 2, 4 << 10
	stretch := shortest
	for len(p) >= long {
		if state == start {
			n := twoByteRun(p)
			n += threeByteRun(p[n:])
			p = p[n:]
			if n >= stretch {
				stretch = shortest
			} else {
				stretch = min(2*stretch, longest)
			}
		}
		n := min(stretch, len(p))
		state = walk(state, p[:n])
		p = p[n:]
		for len(p) > 0 && state != start {
			state = next[p[0]] >> state & 63
			p = p[1:]
		}
	}
	return state, p
}

// walk takes p byte by byte from the state given and returns the state
// behind it. ASCII it takes by words.
func walk(state uint64, p []byte) uint64 {
	for len(p) >= 16 {
		b := (*[16]byte)(p)
		words := binary.LittleEndian.Uint64(b[:]) | binary.LittleEndian.Uint64(b[8:])
		if state&63 != start || words&high != 0 {
			state = walk8(state, (*[8]byte)(b[:]))
			state = walk8(state, (*[8]byte)(b[8:]))
		}
		p = p[16:]
	}
	for len(p) >= 8 {
		if state&63 != start || binary.LittleEndian.Uint64(p)&high != 0 {
			state = walk8(state, (*[8]byte)(p))
		}
		p = p[8:]
	}
	for i := 0; i < len(p); i++ {
		state = next[p[i]] >> (state & 63)
	}
	return state & 63
}

// walk8 takes eight bytes. Only the low six bits of a state count, the
// shift leaves others above them.
func walk8(state uint64, b *[8]byte) uint64 {
	state = next[b[0]] >> (state & 63)
	state = next[b[1]] >> (state & 63)
	state = next[b[2]] >> (state & 63)
	state = next[b[3]] >> (state & 63)
	state = next[b[4]] >> (state & 63)
	state = next[b[5]] >> (state & 63)
	state = next[b[6]] >> (state & 63)
	state = next[b[7]] >> (state & 63)
	return state
}

// high is the high bit of each byte of a word, which ASCII leaves clear.
const high = 0x8080808080808080

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
