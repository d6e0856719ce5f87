package main

import (
	"encoding/binary"

	"github.com/rawws/websocket/internal/peers/internal/ws"
)

var maskKey = [4]byte{0x37, 0xfa, 0x21, 0x3d}

func frame(first byte, payload string) []byte {
	return ws.AppendFrame(nil, first, maskKey, []byte(payload))
}

// declared is the head of a frame that says it has n bytes.
func declared(first byte, n uint64) []byte {
	return append(binary.BigEndian.AppendUint64([]byte{first, 0x80 | 127}, n), maskKey[:]...)
}

func join(parts ...[]byte) (all []byte) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func emptyFragments(n int) (b []byte) {
	b = frame(ws.Text, "")
	for range n {
		b = append(b, frame(ws.Continuation, "")...)
	}
	return b
}

// broken are the rules that clients break, with the close code that has to be
// the answer.
var broken = []struct {
	name  string
	bytes []byte
	code  int
}{
	{"RSV2", frame(ws.Fin|0x20|ws.Binary, "x"), 1002},
	{"RSV1 on a ping", frame(ws.Fin|ws.Rsv1|ws.Ping, "x"), 1002},
	{"reserved opcode", frame(ws.Fin|3, "x"), 1002},
	{"no mask", []byte{ws.Fin | ws.Text, 1, 'x'}, 1002},
	{"continuation of nothing", frame(ws.Fin|ws.Continuation, "x"), 1002},
	{"message inside a message", join(frame(ws.Text, "x"), frame(ws.Fin|ws.Binary, "y")), 1002},
	{"fragmented ping", frame(ws.Ping, "x"), 1002},
	{"ping of 126 bytes", []byte{ws.Fin | ws.Ping, 0x80 | 126, 0, 126, 1, 2, 3, 4}, 1002},
	{"length not in its shortest form", []byte{ws.Fin | ws.Binary, 0x80 | 126, 0, 125, 1, 2, 3, 4}, 1002},
	{"length of 2^63", declared(ws.Fin|ws.Binary, 1<<63), 1002},
	{"close of one byte", frame(ws.Fin|ws.Close, "x"), 1002},
	{"close with 1006", frame(ws.Fin|ws.Close, string(ws.ClosePayload(1006, ""))), 1002},
	{"close with a reason that isn't UTF-8", frame(ws.Fin|ws.Close, string(ws.ClosePayload(1000, "\xff"))), 1007},
	{"text that isn't UTF-8", frame(ws.Fin|ws.Text, "a\xc0\xaf"), 1007},
	{"text that stops inside a rune", frame(ws.Fin|ws.Text, "a\xe2\x82"), 1007},
	{"text that isn't UTF-8, over fragments", join(frame(ws.Text, "\xe2\x82"), frame(ws.Fin, "\x28")), 1007},
	{"message over the limit", declared(ws.Fin|ws.Binary, maxMessage+1), 1009},
	{"message over the limit in fragments", join(frame(ws.Binary, "x"), declared(ws.Fin, maxMessage)), 1009},
	{"65 empty fragments in a row", emptyFragments(70), 1008},
}
