package load

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

const (
	opText   = 1
	opBinary = 2
	opClose  = 8
	opPing   = 9
	opPong   = 10

	seqLen = 8 // hexadecimal digits at the start of a payload that number it
)

// mask is fixed: what the key is costs a server nothing, and the frames can be
// built once.
var mask = [4]byte{0x37, 0xfa, 0x21, 0x3d}

// A message is a frame built once and sent many times, with what must come
// back. Its first bytes are overwritten with a number that is never used
// twice, so that an answer can't be mistaken for another.
type message struct {
	frame   []byte
	want    []byte // payload of the answer; in raw mode the frame itself
	seqOff  int    // of the number in frame, -1 when the frame is compressed
	masked  bool   // the number in want is masked: raw mode
	history []byte // what a connection sent before it, as far as the answer may refer to it
}

// newMessage frames payload, which must have seqLen bytes at least.
func newMessage(op byte, payload []byte, raw bool) *message {
	m := &message{want: payload}
	m.frame = appendFrame(nil, 0x80|op, payload)
	m.seqOff = len(m.frame) - len(payload)
	if raw {
		m.want, m.masked = m.frame, true
	}
	return m
}

func appendFrame(dst []byte, first byte, payload []byte) []byte {
	dst = append(dst, first)
	switch n := len(payload); {
	case n < 126:
		dst = append(dst, 0x80|byte(n))
	case n < 1<<16:
		dst = binary.BigEndian.AppendUint16(append(dst, 0x80|126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, 0x80|127), uint64(n))
	}
	dst = append(dst, mask[:]...)
	for i, b := range payload {
		dst = append(dst, b^mask[i&3])
	}
	return dst
}

// FrameSize returns the length of a client's frame with n bytes of payload.
func FrameSize(n int) int { return len(appendFrame(nil, 0, make([]byte, n))) }

const hexDigits = "0123456789abcdef"

// number writes seq into the frame's place for it.
func (m *message) number(seq uint32) {
	if m.seqOff < 0 {
		return
	}
	p := m.frame[m.seqOff : m.seqOff+seqLen]
	for i := range p {
		p[i] = hexDigits[seq>>(28-4*i)&15] ^ mask[i&3]
	}
}

// check compares a piece of an answer, which starts at off of the whole, with
// what was sent under seq.
func (m *message) check(got []byte, off int, seq uint32, everything bool) error {
	if off+len(got) > len(m.want) {
		return fmt.Errorf("load: answer %08x is longer than the %d bytes sent", seq, len(m.want))
	}
	if m.seqOff >= 0 {
		at := 0
		if m.masked {
			at = m.seqOff
		}
		for ; len(got) > 0 && off < at+seqLen; off++ {
			want := m.want[off]
			if i := off - at; i >= 0 {
				want = hexDigits[seq>>(28-4*i)&15]
				if m.masked {
					want ^= mask[i&3]
				}
			}
			if got[0] != want {
				return fmt.Errorf("load: answer %08x differs at byte %d: got %#02x, want %#02x", seq, off, got[0], want)
			}
			got = got[1:]
		}
	}
	// A short look at each piece always, every byte when asked: comparing a
	// megabyte must not slow the client down.
	if !everything && len(got) > 64 {
		got = got[:64]
	}
	if !bytes.Equal(got, m.want[off:off+len(got)]) {
		return fmt.Errorf("load: answer %08x differs within bytes %d to %d", seq, off, off+len(got))
	}
	return nil
}
