package websockettest

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// The examples of RFC 6455, section 5.7, and what breaks its rules.
var frameTests = []struct {
	f    Frame
	wire string // its beginning, in hex
}{
	{Frame{Opcode: Text, Payload: []byte("Hello")}, "81 85 37 fa 21 3d 7f 9f 4d 51 58"},
	{Frame{Opcode: Text, Payload: []byte("Hello"), Unmasked: true}, "81 05 48 65 6c 6c 6f"},
	{Frame{Opcode: Text, Payload: []byte("Hel"), Unmasked: true, More: true}, "01 03 48 65 6c"},
	{Frame{Payload: []byte("lo"), Unmasked: true}, "80 02 6c 6f"},
	{Frame{Opcode: Pong, Payload: []byte("Hello")}, "8a 85 37 fa 21 3d 7f 9f 4d 51 58"},
	{Frame{Opcode: Binary, Payload: make([]byte, 256), Unmasked: true}, "82 7e 01 00 00"},
	{Frame{Opcode: Binary, Payload: make([]byte, 65536), Unmasked: true}, "82 7f 00 00 00 00 00 01 00 00 00"},
	{Frame{Opcode: Text, Payload: []byte("a"), Key: [4]byte{1, 2, 3, 4}}, "81 81 01 02 03 04 60"},
	{Frame{Opcode: 0x3, RSV1: true, RSV3: true, Unmasked: true}, "d3 00"},
	{Frame{Opcode: 0x3, RSV2: true, Unmasked: true}, "a3 00"},
	{Frame{Opcode: Text, Payload: []byte("a"), Unmasked: true, LengthBits: 16}, "81 7e 00 01 61"},
	{Frame{Opcode: Text, Payload: []byte("a"), Unmasked: true, LengthBits: 64}, "81 7f 00 00 00 00 00 00 00 01 61"},
	{Frame{Opcode: Text, Payload: []byte("a"), Unmasked: true, Length: 5}, "81 05 61"},
	{Frame{Opcode: Text, Payload: []byte("a"), Unmasked: true, Length: 1 << 40}, "81 7f 00 00 01 00 00 00 00 00 61"},
	{Frame{Opcode: Text, Payload: []byte("a"), Unmasked: true, Length: -1}, "81 00 61"},
}

func TestFrameAppend(t *testing.T) {
	for _, test := range frameTests {
		if got := fmt.Sprintf("% x", test.f.Append(nil)); !strings.HasPrefix(got, test.wire) {
			t.Errorf("%+v.Append(nil) = %.100s; want %s", test.f, got, test.wire)
		}
	}
}

// A frame that declares its own length comes back, whatever else is wrong with
// it, and no beginning of it is taken for the whole.
func TestParseFrame(t *testing.T) {
	for _, test := range frameTests {
		if test.f.Length != 0 {
			continue
		}
		wire := test.f.Append(nil)
		f, n := parseFrame(append(wire[:len(wire):len(wire)], "more"...))
		if n != len(wire) || !bytes.Equal(f.Append(nil), wire) || !bytes.Equal(f.Payload, test.f.Payload) {
			t.Errorf("parseFrame(% .20x) = %+v, %d; want %+v, %d", wire, f, n, test.f, len(wire))
		}
		for i := range min(len(wire), 300) {
			if f, n := parseFrame(wire[:i]); n != 0 {
				t.Errorf("parseFrame(% x) = %+v, %d; want more asked for", wire[:i], f, n)
			}
		}
	}
}

func TestServerFault(t *testing.T) {
	server := func(f Frame) Frame { f.Unmasked = true; return f }
	long := make([]byte, 126)
	tests := []struct {
		f       Frame
		inside  bool
		deflate bool
		want    string // in the fault, "" for none
	}{
		{f: server(Frame{Opcode: Text})},
		{f: server(Frame{Opcode: Text, RSV1: true}), deflate: true},
		{f: server(Frame{}), inside: true},
		{f: server(Frame{Opcode: Ping}), inside: true},
		{f: Frame{Opcode: Text}, want: "masked"},
		{f: server(Frame{Opcode: Text, RSV1: true}), want: "reserved bits"},
		{f: server(Frame{Opcode: Ping, RSV1: true}), deflate: true, want: "reserved bits"},
		{f: server(Frame{RSV1: true}), inside: true, deflate: true, want: "reserved bits"},
		{f: server(Frame{Opcode: Text, RSV2: true}), deflate: true, want: "reserved bits"},
		{f: server(Frame{Opcode: Text, RSV3: true}), deflate: true, want: "reserved bits"},
		{f: server(Frame{Opcode: Text, LengthBits: 16}), want: "shortest"},
		{f: server(Frame{Opcode: Text, LengthBits: 64}), want: "shortest"},
		{f: server(Frame{Opcode: Ping, Payload: long}), want: "too long"},
		{f: server(Frame{Opcode: Close, More: true}), want: "fragment"},
		{f: server(Frame{Opcode: Close, Payload: []byte{3}}), want: "one byte"},
		{f: server(Frame{}), want: "continuation"},
		{f: server(Frame{Opcode: Binary}), inside: true, want: "inside another"},
		{f: server(Frame{Opcode: 0x3}), want: "reserved opcode"},
		{f: server(Frame{Opcode: 0xB}), want: "reserved opcode"},
	}
	for _, test := range tests {
		got := test.f.serverFault(test.inside, test.deflate)
		if !strings.Contains(got, test.want) || (got == "") != (test.want == "") {
			t.Errorf("%+v.serverFault(%t, %t) = %q; want %q", test.f, test.inside, test.deflate, got, test.want)
		}
	}
}

func TestOpcodeString(t *testing.T) {
	var got []string
	for _, o := range []Opcode{Continuation, Text, Binary, 0x3, Close, Ping, Pong} {
		got = append(got, o.String())
	}
	want := []string{"continuation", "text", "binary", "opcode 0x3", "close", "ping", "pong"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("opcodes %q; want %q", got, want)
	}
}

func TestClosePayload(t *testing.T) {
	for _, test := range []struct {
		code   int
		reason string
		want   string
	}{{1000, "", "\x03\xe8"}, {4000, "bye", "\x0f\xa0bye"}, {1005, "none", ""}} {
		p := ClosePayload(test.code, test.reason)
		if string(p) != test.want {
			t.Errorf("ClosePayload(%d, %q) = %q; want %q", test.code, test.reason, p, test.want)
		}
		if code, _ := closeCode(p); code != test.code {
			t.Errorf("closeCode(%q) = %d; want %d", p, code, test.code)
		}
	}
}
