package websocket

import (
	"encoding/binary"
	"unicode/utf8"
)

// A utf8Validator checks text that arrives in pieces. The zero value is ready.
//
// It fails at the first byte that can't be part of UTF-8, not at the end of
// the rune or of the piece, as a text message is to be failed without waiting
// for the rest of it (RFC 6455, section 8.1).
type utf8Validator struct {
	state uint8
}

// The states say what the next byte may be, after RFC 3629, section 4. Each is
// the offset in bits of its successor in an entry of utf8Next.
const (
	utf8Start  = 6 * iota // the first byte of a rune
	utf8Tail1             // 80-BF
	utf8Tail2             // 80-BF, and one more
	utf8Tail3             // 80-BF, and two more
	utf8TailE0            // A0-BF, and one more: anything below is overlong
	utf8TailED            // 80-9F, and one more: anything above is a surrogate
	utf8TailF0            // 90-BF, and two more: anything below is overlong
	utf8TailF4            // 80-8F, and two more: anything above is over U+10FFFF
	utf8Wrong             // nothing, ever again
)

// utf8Next holds for each byte the successors of all nine states, six bits
// each. A step is then one load, which doesn't depend on the state, and one
// shift by the state.
var utf8Next = func() (next [256]uint64) {
	for b := range next {
		for state := utf8Start; state <= utf8Wrong; state += 6 {
			next[b] |= utf8Successor(state, byte(b)) << state
		}
	}
	return next
}()

// utf8Successor is the grammar of RFC 3629, section 4.
func utf8Successor(state int, b byte) uint64 {
	tail := func(low, high byte, then uint64) uint64 {
		if low <= b && b <= high {
			return then
		}
		return utf8Wrong
	}
	switch state {
	case utf8Start:
		return utf8First(b)
	case utf8Tail1:
		return tail(0x80, 0xBF, utf8Start)
	case utf8Tail2:
		return tail(0x80, 0xBF, utf8Tail1)
	case utf8Tail3:
		return tail(0x80, 0xBF, utf8Tail2)
	case utf8TailE0:
		return tail(0xA0, 0xBF, utf8Tail1)
	case utf8TailED:
		return tail(0x80, 0x9F, utf8Tail1)
	case utf8TailF0:
		return tail(0x90, 0xBF, utf8Tail2)
	case utf8TailF4:
		return tail(0x80, 0x8F, utf8Tail2)
	}
	return utf8Wrong
}

// utf8First is the state after the first byte of a rune.
func utf8First(b byte) uint64 {
	switch {
	case b <= 0x7F:
		return utf8Start
	case b <= 0xC1: // a tail, or what could only begin an overlong form
		return utf8Wrong
	case b <= 0xDF:
		return utf8Tail1
	case b == 0xE0:
		return utf8TailE0
	case b == 0xED:
		return utf8TailED
	case b <= 0xEF:
		return utf8Tail2
	case b == 0xF0:
		return utf8TailF0
	case b <= 0xF3:
		return utf8Tail3
	case b == 0xF4:
		return utf8TailF4
	}
	return utf8Wrong
}

// write takes the next piece of the text and reports whether all of it can
// still be UTF-8. Once false, it stays false.
func (v *utf8Validator) write(p []byte) bool {
	state := uint64(v.state)
	if len(p) >= utf8Long {
		state, p = utf8SkipRuns(state, p)
	}
	state = utf8Walk(state, p)
	v.state = uint8(state)
	return state != utf8Wrong
}

// complete reports whether the text written so far is UTF-8 and doesn't end
// inside a rune.
func (v *utf8Validator) complete() bool {
	return v.state == utf8Start
}

// utf8Long is the size from which looking for runs pays.
const utf8Long = 128

// utf8SkipRuns takes long runs of one alphabet, which can be checked by words,
// and leaves the rest to utf8Walk. It returns the state and what remains of p.
//
// utf8Walk takes a byte a cycle whatever the text, so no peer can make it slow.
// Where runs are short, the stretch that is walked before the next attempt
// doubles, so that looking for them costs nothing that matters.
func utf8SkipRuns(state uint64, p []byte) (uint64, []byte) {
	const shortest, longest = utf8Long / 2, 4 << 10
	stretch := shortest
	for len(p) >= utf8Long {
		if state == utf8Start {
			n := utf8TwoByteRun(p)
			n += utf8ThreeByteRun(p[n:])
			p = p[n:]
			if n >= stretch {
				stretch = shortest
			} else {
				stretch = min(2*stretch, longest)
			}
		}
		n := min(stretch, len(p))
		state = utf8Walk(state, p[:n])
		p = p[n:]
		for len(p) > 0 && state != utf8Start {
			state = utf8Next[p[0]] >> state & 63
			p = p[1:]
		}
	}
	return state, p
}

// utf8Walk takes p byte by byte from the state given and returns the state
// behind it. ASCII it takes by words.
func utf8Walk(state uint64, p []byte) uint64 {
	for len(p) >= 16 {
		b := (*[16]byte)(p)
		words := binary.LittleEndian.Uint64(b[:]) | binary.LittleEndian.Uint64(b[8:])
		if state&63 != utf8Start || words&utf8High != 0 {
			state = utf8Walk8(state, (*[8]byte)(b[:]))
			state = utf8Walk8(state, (*[8]byte)(b[8:]))
		}
		p = p[16:]
	}
	for len(p) >= 8 {
		if state&63 != utf8Start || binary.LittleEndian.Uint64(p)&utf8High != 0 {
			state = utf8Walk8(state, (*[8]byte)(p))
		}
		p = p[8:]
	}
	for i := 0; i < len(p); i++ {
		state = utf8Next[p[i]] >> (state & 63)
	}
	return state & 63
}

// utf8Walk8 takes eight bytes. Only the low six bits of a state count, the
// shift leaves others above them.
func utf8Walk8(state uint64, b *[8]byte) uint64 {
	state = utf8Next[b[0]] >> (state & 63)
	state = utf8Next[b[1]] >> (state & 63)
	state = utf8Next[b[2]] >> (state & 63)
	state = utf8Next[b[3]] >> (state & 63)
	state = utf8Next[b[4]] >> (state & 63)
	state = utf8Next[b[5]] >> (state & 63)
	state = utf8Next[b[6]] >> (state & 63)
	state = utf8Next[b[7]] >> (state & 63)
	return state
}

// utf8High is the high bit of each byte of a word, which ASCII leaves clear.
const utf8High = 0x8080808080808080

// utf8TwoByteRun returns the length of whole runes of one and two bytes at the
// start of p, as far as it can tell 32 bytes at a time. p isn't empty.
func utf8TwoByteRun(p []byte) int {
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
		if (w0|w1|w2|w3|after3)&utf8High != 0 {
			bad := utf8TwoByte(w0, after0) | utf8TwoByte(w1, after1) |
				utf8TwoByte(w2, after2) | utf8TwoByte(w3, after3)
			if bad&utf8High != 0 {
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

// utf8TwoByte sets the high bit of each byte in word that, with the byte after
// it, has no place in a row of runes of one and two bytes. The other bits of
// the result are noise.
func utf8TwoByte(word, after uint64) uint64 {
	first := word & (word << 1)   // 11xxxxxx
	tail := after &^ (after << 1) // 10xxxxxx
	longer := word << 2
	// Of the first bytes, C0 and C1 are the ones without any of the bits 1E.
	overlong := 0x8181818181818181 - word&0x1E1E1E1E1E1E1E1E
	return first ^ tail | first&(longer|overlong)
}

// utf8ThreeByteRun returns the length of whole runes of three bytes at the
// start of p, as far as it can tell 24 bytes, eight runes, at a time. Those
// that begin with E0 and ED, after which not every tail may stand, are left to
// the automaton.
func utf8ThreeByteRun(p []byte) int {
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
		isE0 := utf8High - low
		isED := utf8High - (low ^ 0x0D0D0D0D0D0D0D0D)
		if bad|(isE0|isED)&utf8High != 0 {
			break
		}
		p = p[24:]
	}
	return all - len(p)
}
