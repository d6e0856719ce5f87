package websocket

import "encoding/binary"

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
// shift by the state: utf8Next[b] >> state & 63.
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
	for len(p) >= 8 {
		word := binary.LittleEndian.Uint64(p)
		if state&63 != utf8Start || word&0x8080808080808080 != 0 {
			for _, b := range p[:8] {
				state = utf8Next[b] >> (state & 63)
			}
		}
		p = p[8:]
	}
	for _, b := range p {
		state = utf8Next[b] >> (state & 63)
	}
	v.state = uint8(state & 63)
	return v.state != utf8Wrong
}

// complete reports whether the text written so far is UTF-8 and doesn't end
// inside a rune.
func (v *utf8Validator) complete() bool {
	return v.state == utf8Start
}
