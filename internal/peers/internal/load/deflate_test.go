package load

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"strings"
	"testing"
)

// payloadOf unmasks what a compressed frame of less than 64 KiB carries.
func payloadOf(frame []byte) []byte {
	head := 6
	if frame[1]&0x7f == 126 {
		head = 8
	}
	p := bytes.Clone(frame[head:])
	for i := range p {
		p[i] ^= mask[i&3]
	}
	return p
}

// inflated is what p decompresses to with dict before it, and nothing else.
func inflated(p, dict []byte) ([]byte, error) {
	r := flate.NewReaderDict(io.MultiReader(bytes.NewReader(p), strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff")), dict)
	return io.ReadAll(r)
}

// TestReferring follows a connection through several rounds of its messages,
// with a window that holds what it really sent.
func TestReferring(t *testing.T) {
	tests := []struct {
		n, size, bits int
		again, whole  int // messages before the ones that are repeated, and all
	}{
		{64, 1 << 10, 15, 64, 128},
		{16, 1 << 10, 12, 16, 32},
		{3, 1 << 10, 12, 6, 9}, // the payloads are sent twice until the window is full
		{5, 300, 9, 5, 10},
		{2, 1 << 10, 10, 2, 4}, // a payload is as long as the window
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%d of %d bytes, %d bits", tt.n, tt.size, tt.bits), func(t *testing.T) {
			payloads := Documents(tt.n, tt.size)
			messages, again, err := referring(opText, payloads, tt.bits)
			if err != nil || again != tt.again || len(messages) != tt.whole {
				t.Fatalf("referring = %d messages, %d, %v; want %d, %d", len(messages), again, err, tt.whole, tt.again)
			}
			window := 1 << tt.bits
			l := &Load{Deflate: true, Takeover: true, messages: messages, again: again}
			var c conn
			var sent []byte
			for k := range 5 * len(messages) {
				m, want := l.next(&c), payloads[k%tt.n]
				history := sent[max(0, len(sent)-window):]
				if !bytes.Equal(m.history, history) {
					t.Fatalf("message %d: history isn't what was sent", k)
				}
				// What decompresses with this much reaches back no further than the window.
				dict := history[len(history)-min(len(history), window-len(want)):]
				got, err := inflated(payloadOf(m.frame), dict)
				if err != nil || !bytes.Equal(got, want) {
					t.Fatalf("message %d = %q, %v; want %q", k, got, err, want)
				}
				sent = append(sent, want...)
			}
		})
	}
}

func TestReferringTooLong(t *testing.T) {
	if m, _, err := referring(opText, Documents(2, 1<<10), 9); err == nil {
		t.Errorf("1 KiB in a window of 512 bytes = %d messages; want an error", len(m))
	}
}

// TestReferringRefers: a message needs the ones before it, differs with them,
// and is smaller for them.
func TestReferringRefers(t *testing.T) {
	payloads := Documents(64, 1<<10)
	messages, again, err := referring(opText, payloads, maxBits)
	if err != nil {
		t.Fatal(err)
	}
	alone, referred := 0, 0
	for k, m := range messages[again:] {
		if got, err := inflated(payloadOf(m.frame), nil); err == nil {
			t.Errorf("message %d = %q without the ones before it; want an error", again+k, got)
		}
		single, err := newDeflated(opText, payloads[k])
		if err != nil {
			t.Fatal(err)
		}
		alone += len(single.frame)
		referred += len(m.frame)
	}
	if got, err := inflated(payloadOf(messages[0].frame), nil); err != nil || !bytes.Equal(got, payloads[0]) {
		t.Errorf("the first message = %q, %v; want %q", got, err, payloads[0])
	}
	if bytes.Equal(messages[0].frame, messages[again].frame) {
		t.Error("the first message is the same when it comes again; want one that refers to what was sent")
	}
	if 10*referred > 9*alone {
		t.Errorf("%d bytes with context takeover, %d without; want a tenth less at least", referred, alone)
	}
}

// TestDeflatedAnswers gives a client answers as a server sends them, and altered
// ones.
func TestDeflatedAnswers(t *testing.T) {
	payloads := Documents(4, 1<<10)
	answer := func(first byte, p []byte) []byte {
		return append([]byte{first, 126, byte(len(p) >> 8), byte(len(p))}, p...)
	}
	tests := []struct {
		name     string
		takeover bool
		answer   func(m, other *message) []byte
		wrong    string // in the error
	}{
		{"whole", true, func(m, _ *message) []byte { return answer(0xc1, payloadOf(m.frame)) }, ""},
		{"plain", true, func(m, _ *message) []byte { return answer(0x81, m.want) }, "isn't compressed"},
		{"plain, no takeover", false, func(m, _ *message) []byte { return answer(0x81, m.want) }, ""},
		{"one ahead of its turn", true, func(_, other *message) []byte { return answer(0xc1, payloadOf(other.frame)) }, "doesn't inflate"},
		{"another one, no takeover", false, func(_, other *message) []byte { return answer(0xc1, payloadOf(other.frame)) }, "other bytes"},
		{"what isn't deflate", true, func(*message, *message) []byte { return answer(0xc1, []byte{7, 7, 7}) }, "doesn't inflate"},
		{"one that refers too far", false, func(m, _ *message) []byte {
			far, err := newReferring(opText, m.want, m.want)
			if err != nil {
				t.Fatal(err)
			}
			return answer(0xc1, payloadOf(far.frame))
		}, "doesn't inflate"},
	}
	for _, tt := range tests {
		l := &Load{Deflate: true, Takeover: tt.takeover, Bits: 12, Text: true, Payloads: payloads, verify: true}
		if err := l.build(); err != nil {
			t.Fatal(err)
		}
		c := &conn{flights: []flight{{seq: 1, msg: l.messages[0]}}, inAir: 1}
		whole := 0
		err := c.feed(l, tt.answer(l.messages[0], l.messages[1]), func(*conn) { whole++ })
		if tt.wrong == "" && (err != nil || whole != 1) {
			t.Errorf("%s: feed = %v, %d answers; want one", tt.name, err, whole)
		}
		if tt.wrong != "" && (err == nil || !strings.Contains(err.Error(), tt.wrong) || whole != 0) {
			t.Errorf("%s: feed = %v, %d answers; want an error with %q", tt.name, err, whole, tt.wrong)
		}
	}
}

func TestAgreed(t *testing.T) {
	plain := extension{deflate: true, bits: 15}
	large := extension{deflate: true, takeover: true, bits: 15}
	small := extension{deflate: true, takeover: true, bits: 12}
	tests := []struct {
		x      extension
		answer string
		ok     bool
	}{
		{extension{}, "", true},
		{plain, "", false},
		{plain, "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n", true},
		{plain, "Sec-WebSocket-Extensions: x-permessage-deflate\r\n", false},
		{large, "Sec-WebSocket-Extensions: permessage-deflate\r\n", true},
		{large, "sec-websocket-extensions:permessage-deflate;client_max_window_bits=15\r\n", true},
		{large, "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=12\r\n", false},
		{large, "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n", false},
		{large, "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover\r\n", false},
		{small, "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=12; client_max_window_bits=12\r\n", true},
		{small, "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=\"12\"; client_max_window_bits=12\r\n", true},
		{small, "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=12\r\n", false},
		{small, "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=12; client_max_window_bits=11\r\n", false},
		{small, "Sec-WebSocket-Extensions: permessage-deflate\r\n", false},
		{small, "", false},
	}
	for _, tt := range tests {
		head := "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: " + sampleAccept + "\r\n" + tt.answer + "\r\n"
		n, err := checkAnswer([]byte(head), tt.x)
		if tt.ok && (n != len(head) || err != nil) || !tt.ok && err == nil {
			t.Errorf("offer %q, answer %q: checkAnswer = %d, %v; want ok %v", tt.x.offer(), tt.answer, n, err, tt.ok)
		}
	}
}
