package websocket

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"
)

// An opcode says what a frame carries (RFC 6455, section 5.2).
type opcode uint8

const (
	opContinuation opcode = 0x0
	opText         opcode = 0x1
	opBinary       opcode = 0x2
	opClose        opcode = 0x8
	opPing         opcode = 0x9
	opPong         opcode = 0xA
)

// control reports whether the opcode's high bit is set (section 5.5).
func (o opcode) control() bool { return o&0x8 != 0 }

var opcodeNames = [16]string{
	opContinuation: "continuation", opText: "text", opBinary: "binary",
	opClose: "close", opPing: "ping", opPong: "pong",
}

func (o opcode) String() string {
	if o < 16 && opcodeNames[o] != "" {
		return opcodeNames[o]
	}
	return fmt.Sprintf("opcode %#x", uint8(o))
}

// A header is what stands before a frame's payload (section 5.2):
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-------+-+-------------+-------------------------------+
//	|F|R|R|R| opcode|M| 7 bits of   | 16 bits of length when the 7  |
//	|I|S|S|S|       |A| length, or  | say 126, 64 bits when they    |
//	|N|V|V|V|       |S| 126, or 127 | say 127; then 4 bytes of      |
//	| |1|2|3|       |K|             | masking key when MASK is set  |
//	+-+-+-+-+-------+-+-------------+-------------------------------+
type header struct {
	length                        uint64 // of the payload, below 2^63
	key                           [4]byte
	opcode                        opcode
	fin, rsv1, rsv2, rsv3, masked bool
}

const (
	maxHeaderLen         = 14  // 2 + 8 of length + 4 of masking key
	maxControlPayloadLen = 125 // section 5.5
)

const (
	bitFIN  = 0x80
	bitRSV1 = 0x40
	bitRSV2 = 0x20
	bitRSV3 = 0x10
	bitMASK = 0x80
)

// parseHeader decodes the header at the start of b and returns its length n.
// While n is 0 and err nil it asks for more; with two bytes of b or more, what
// these say is already in h, so that a wrong frame is refused at once. A length
// not in its shortest form, or of 2^63 or more, is an error (section 5.2).
func parseHeader(b []byte) (h header, n int, err error) {
	if len(b) < 2 {
		return h, 0, nil
	}
	b0, b1 := b[0], b[1]
	h.fin = b0&bitFIN != 0
	h.rsv1, h.rsv2, h.rsv3 = b0&bitRSV1 != 0, b0&bitRSV2 != 0, b0&bitRSV3 != 0
	h.opcode = opcode(b0 & 0xF)
	h.masked = b1&bitMASK != 0
	h.length = uint64(b1 & 0x7F)
	n = 2
	switch h.length {
	case 126:
		if len(b) < 4 {
			return h, 0, nil
		}
		h.length = uint64(binary.BigEndian.Uint16(b[2:]))
		if h.length < 126 {
			return h, 0, lengthError(h.length, "16 bits")
		}
		n = 4
	case 127:
		if len(b) < 10 {
			return h, 0, nil
		}
		h.length = binary.BigEndian.Uint64(b[2:])
		if h.length <= 0xFFFF {
			return h, 0, lengthError(h.length, "64 bits")
		}
		if h.length > 1<<63-1 {
			return h, 0, protocolError("section 5.2", "payload length %d over 2^63-1", h.length)
		}
		n = 10
	}
	if h.masked {
		if len(b) < n+4 {
			return h, 0, nil
		}
		h.key = [4]byte(b[n:])
		n += 4
	}
	return h, n, nil
}

func lengthError(length uint64, form string) error {
	return protocolError("section 5.2", "payload length %d in %s is not in its shortest form", length, form)
}

func protocolError(section, format string, args ...any) *ProtocolError {
	return &ProtocolError{CloseProtocolError, fmt.Sprintf(format, args...), "RFC 6455, " + section}
}

// appendHeader appends h, its length in the shortest form.
func appendHeader(dst []byte, h header) []byte {
	b0 := byte(h.opcode)
	if h.fin {
		b0 |= bitFIN
	}
	if h.rsv1 {
		b0 |= bitRSV1
	}
	if h.rsv2 {
		b0 |= bitRSV2
	}
	if h.rsv3 {
		b0 |= bitRSV3
	}
	var b1 byte
	if h.masked {
		b1 = bitMASK
	}
	switch {
	case h.length <= 125:
		dst = append(dst, b0, b1|byte(h.length))
	case h.length <= 0xFFFF:
		dst = append(dst, b0, b1|126)
		dst = binary.BigEndian.AppendUint16(dst, uint16(h.length))
	default:
		dst = append(dst, b0, b1|127)
		dst = binary.BigEndian.AppendUint64(dst, h.length)
	}
	if h.masked {
		dst = append(dst, h.key[:]...)
	}
	return dst
}

// checkHeader checks a client's header against the rules that need nothing but
// the header and two facts: whether a message is under way, and whether
// permessage-deflate, which gives RSV1 a meaning, was negotiated.
func checkHeader(h header, inMessage, deflate bool) error {
	switch h.opcode {
	case opText, opBinary:
		if inMessage {
			return protocolError("section 5.4", "%v frame inside an unfinished message", h.opcode)
		}
		if h.rsv1 && !deflate {
			return protocolError("section 5.2", "RSV1 set and no extension negotiated")
		}
	case opContinuation:
		if !inMessage {
			return protocolError("section 5.4", "continuation frame without a message to continue")
		}
		if h.rsv1 {
			return &ProtocolError{CloseProtocolError, "RSV1 set on a continuation frame", "RFC 7692, section 6.1"}
		}
	case opClose, opPing, opPong:
		// A control frame stays small and whole so that it can slip between the
		// fragments of a message.
		if !h.fin {
			return protocolError("section 5.5", "fragmented %v", h.opcode)
		}
		if h.length > maxControlPayloadLen {
			return protocolError("section 5.5", "%v with a payload over 125 bytes", h.opcode)
		}
		if h.rsv1 {
			return &ProtocolError{CloseProtocolError, "RSV1 set on a control frame", "RFC 7692, section 6.1"}
		}
	default:
		return protocolError("section 5.2", "reserved %v", h.opcode)
	}
	if h.rsv2 || h.rsv3 {
		return protocolError("section 5.2", "RSV2 or RSV3 set and no extension negotiated")
	}
	// Without the mask a page could make a client write bytes of its choice that
	// a proxy on the way takes for HTTP (section 10.3).
	if !h.masked {
		return protocolError("section 5.1", "%v frame without a mask", h.opcode)
	}
	return nil
}

// parseClosePayload decodes the payload of a close frame; an empty one is
// CloseNoStatus (sections 5.5.1 and 7.4).
func parseClosePayload(p []byte) (CloseCode, string, error) {
	switch len(p) {
	case 0:
		return CloseNoStatus, "", nil
	case 1:
		return 0, "", protocolError("section 5.5.1", "close frame with a payload of one byte")
	}
	code := CloseCode(binary.BigEndian.Uint16(p))
	if !code.sendable() {
		return 0, "", protocolError("section 7.4", "close code %d", code)
	}
	if !utf8.Valid(p[2:]) {
		return 0, "", &ProtocolError{CloseInvalidPayload, "close reason is not UTF-8", "RFC 6455, section 5.5.1"}
	}
	return code, string(p[2:]), nil
}

// appendClosePayload appends code and as much of reason as fits into a control
// frame without cutting a rune in two. With CloseNoStatus it appends nothing.
func appendClosePayload(dst []byte, code CloseCode, reason string) []byte {
	if code == CloseNoStatus {
		return dst
	}
	if n := maxControlPayloadLen - 2; len(reason) > n {
		for n > 0 && !utf8.RuneStart(reason[n]) {
			n--
		}
		reason = reason[:n]
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(code))
	return append(dst, reason...)
}
