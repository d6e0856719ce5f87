package websockettest

import (
	"encoding/binary"
	"fmt"
)

// An Opcode says what a frame is (RFC 6455, section 5.2). Any number may be one
// here; above 15 only its low 4 bits are sent.
type Opcode byte

// The opcodes that are defined.
const (
	Continuation Opcode = 0x0
	Text         Opcode = 0x1
	Binary       Opcode = 0x2
	Close        Opcode = 0x8
	Ping         Opcode = 0x9
	Pong         Opcode = 0xA
)

// String returns the RFC's name, or "opcode 0x3" for a reserved one.
func (o Opcode) String() string {
	switch o {
	case Continuation:
		return "continuation"
	case Text:
		return "text"
	case Binary:
		return "binary"
	case Close:
		return "close"
	case Ping:
		return "ping"
	case Pong:
		return "pong"
	}
	return fmt.Sprintf("opcode %#x", byte(o))
}

func (o Opcode) control() bool { return o&0x8 != 0 }

// A Frame is a frame of RFC 6455, section 5.2. Fields that are zero are those
// of a whole lawful frame of a client's.
type Frame struct {
	Opcode  Opcode
	Payload []byte // without the mask

	More             bool    // FIN isn't set: the message goes on
	RSV1, RSV2, RSV3 bool    // the reserved bits
	Unmasked         bool    // as a server's frames are
	Key              [4]byte // of the mask; when it is zero, that of the RFC's examples is sent

	// Length is the length that the header declares. 0 stands for that of Payload,
	// and a negative number for 0.
	Length int64
	// LengthBits is the form of the length: 7, 16 or 64 bits. 0 is the shortest.
	LengthBits int
}

// exampleKey masks the examples of RFC 6455, section 5.7.
var exampleKey = [4]byte{0x37, 0xfa, 0x21, 0x3d}

// Append appends the frame's bytes as they are on the wire.
func (f Frame) Append(dst []byte) []byte {
	b := byte(f.Opcode & 0xF)
	for i, set := range []bool{f.RSV3, f.RSV2, f.RSV1, !f.More} {
		if set {
			b |= 0x10 << i
		}
	}
	dst = f.appendLength(append(dst, b))
	if f.Unmasked {
		return append(dst, f.Payload...)
	}
	key := f.Key
	if key == [4]byte{} {
		key = exampleKey
	}
	dst = append(dst, key[:]...)
	for i, b := range f.Payload {
		dst = append(dst, b^key[i%4])
	}
	return dst
}

func (f Frame) appendLength(dst []byte) []byte {
	n := uint64(len(f.Payload))
	if f.Length != 0 {
		n = uint64(max(f.Length, 0))
	}
	bits := f.LengthBits
	switch {
	case bits != 0:
	case n <= 125:
		bits = 7
	case n <= 0xFFFF:
		bits = 16
	default:
		bits = 64
	}
	b := byte(0x80)
	if f.Unmasked {
		b = 0
	}
	switch bits {
	case 7:
		return append(dst, b|byte(n&0x7F))
	case 16:
		return binary.BigEndian.AppendUint16(append(dst, b|126), uint16(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, b|127), n)
}

// parseFrame decodes the frame at the start of b, whatever rule it breaks, and
// returns its length in bytes; 0 asks for more.
func parseFrame(b []byte) (f Frame, n int) {
	if len(b) < 2 {
		return f, 0
	}
	f = Frame{
		Opcode: Opcode(b[0] & 0xF), More: b[0]&0x80 == 0,
		RSV1: b[0]&0x40 != 0, RSV2: b[0]&0x20 != 0, RSV3: b[0]&0x10 != 0,
		Unmasked: b[1]&0x80 == 0, LengthBits: 7,
	}
	length, n := uint64(b[1]&0x7F), 2
	switch {
	case length == 126 && len(b) >= 4:
		f.LengthBits, n, length = 16, 4, uint64(binary.BigEndian.Uint16(b[2:]))
	case length == 127 && len(b) >= 10:
		f.LengthBits, n, length = 64, 10, binary.BigEndian.Uint64(b[2:])
	case length >= 126:
		return f, 0
	}
	if !f.Unmasked {
		if len(b) < n+4 {
			return f, 0
		}
		f.Key = [4]byte(b[n:])
		n += 4
	}
	if uint64(len(b)-n) < length {
		return f, 0
	}
	f.Payload = append([]byte{}, b[n:n+int(length)]...)
	if !f.Unmasked {
		for i := range f.Payload {
			f.Payload[i] ^= f.Key[i%4]
		}
	}
	return f, n + int(length)
}

// ClosePayload returns the payload of a close frame (section 5.5.1). 1005,
// which stands for a frame without a code, has none.
func ClosePayload(code int, reason string) []byte {
	if code == 1005 {
		return nil
	}
	return append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason...)
}

// closeCode returns what a close frame's payload says.
func closeCode(p []byte) (code int, reason string) {
	if len(p) < 2 {
		return 1005, ""
	}
	return int(binary.BigEndian.Uint16(p)), string(p[2:])
}

// serverFault returns what a server may not send, "" for a lawful frame.
// inMessage says that a message is under way, deflate that permessage-deflate
// was agreed on.
func (f Frame) serverFault(inMessage, deflate bool) string {
	length := len(f.Payload)
	switch {
	case !f.Unmasked:
		return "a masked frame (RFC 6455, section 5.1)"
	case f.RSV2, f.RSV3, f.RSV1 && (!deflate || f.Opcode.control() || f.Opcode == Continuation):
		return "reserved bits (RFC 6455, section 5.2)"
	case f.LengthBits == 16 && length < 126, f.LengthBits == 64 && length <= 0xFFFF:
		return "a length that is not in its shortest form (RFC 6455, section 5.2)"
	case f.Opcode.control() && (f.More || length > 125):
		return "a control frame that is a fragment or too long (RFC 6455, section 5.5)"
	case f.Opcode == Close && length == 1:
		return "a close frame of one byte (RFC 6455, section 5.5.1)"
	case f.Opcode == Continuation && !inMessage:
		return "a continuation of nothing (RFC 6455, section 5.4)"
	case (f.Opcode == Text || f.Opcode == Binary) && inMessage:
		return "a message inside another (RFC 6455, section 5.4)"
	case f.Opcode > Pong, f.Opcode > Binary && f.Opcode < Close:
		return "a reserved opcode (RFC 6455, section 5.2)"
	}
	return ""
}
