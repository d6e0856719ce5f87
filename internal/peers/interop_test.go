// Package peers holds what needs other libraries: interoperability tests here,
// comparisons and soaks in the commands below.
package peers

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/rawws/websocket"
)

// A peer is a client of another library, with one connection.
type peer interface {
	// Write sends one message; WriteFragments sends it in several frames.
	Write(text bool, p []byte) error
	WriteFragments(text bool, p []byte) error
	// Read returns the next message, or a closed error with what the server sent.
	Read() (text bool, p []byte, err error)
	// Ping sends a ping and, behind it, p as a message. It returns the message
	// that came back, and the pong's payload if that came first.
	Ping(payload string, p []byte) (pong string, echo []byte, err error)
	// Close starts the closing handshake and returns the server's answer.
	Close(code int, reason string) (closed, error)
	Subprotocol() string
	Cut()
}

// closed is a close frame from the server.
type closed struct {
	code   int
	reason string
}

func (c closed) Error() string { return fmt.Sprintf("closed with %d %q", c.code, c.reason) }

// dialOptions is what a connection is opened with.
type dialOptions struct {
	target       *target
	subprotocols []string
	deflate      bool
	window       int  // in bits, of both sides; 0 for the library's choice, and only gws has another
	fragments    bool // WriteFragments will be used
}

// A dialer opens connections with one library.
type dialer struct {
	name  string
	dial  func(t *testing.T, o dialOptions) (peer, error)
	pongs bool // the library lets the payload of a pong be chosen
}

var dialers = []dialer{
	{"gorilla", dialGorilla, true},
	{"coder", dialCoder, false},
	{"gobwas", dialGobwas, true},
	{"gws", dialGWS, true},
}

// everyPeer runs f for each library against each kind of server.
func everyPeer(t *testing.T, f func(t *testing.T, d dialer, o dialOptions)) {
	for _, v := range variants {
		t.Run(v.String(), func(t *testing.T) {
			for _, d := range dialers {
				t.Run(d.name, func(t *testing.T) {
					f(t, d, dialOptions{target: startTarget(t, v), deflate: v.deflate})
				})
			}
		})
	}
}

func (d dialer) open(t *testing.T, o dialOptions) peer {
	t.Helper()
	p, err := d.dial(t, o)
	if err != nil {
		t.Fatalf("%s: dial %s: %v", d.name, o.target.url, err)
	}
	t.Cleanup(p.Cut)
	return p
}

// payload returns n bytes: runes of all lengths for text, all byte values else.
func payload(text bool, n int) []byte {
	if !text {
		p := make([]byte, n)
		for i := range p {
			p[i] = byte(i*7 + i>>8)
		}
		return p
	}
	const sample = "aé漢😀ж "
	p := []byte(strings.Repeat(sample, n/len(sample)+1))
	end := n
	for p[end]&0xc0 == 0x80 { // not inside a rune
		end--
	}
	return append(p[:end], "..."[:n-end]...)
}

// exchange reads one message and compares it with what was sent.
func exchange(t *testing.T, p peer, text bool, sent []byte) {
	t.Helper()
	gotText, got, err := p.Read()
	if err != nil {
		t.Fatalf("text=%v, %d bytes: read: %v", text, len(sent), err)
	}
	if gotText != text || !bytes.Equal(got, sent) {
		t.Fatalf("text=%v, %d bytes: got text=%v and %d bytes (equal: %v); want the same back",
			text, len(sent), gotText, len(got), bytes.Equal(got, sent))
	}
}

func TestPeersEcho(t *testing.T) {
	sizes := []int{0, 1, 125, 126, 127, 4095, 4096, 4097, 65535, 65536, 1 << 20, 4 << 20}
	everyPeer(t, func(t *testing.T, d dialer, o dialOptions) {
		p := d.open(t, o)
		for _, size := range sizes {
			for _, text := range []bool{true, false} {
				sent := payload(text, size)
				if err := p.Write(text, sent); err != nil {
					t.Fatalf("text=%v, %d bytes: write: %v", text, size, err)
				}
				exchange(t, p, text, sent)
			}
		}
	})
}

func TestPeersPipelined(t *testing.T) {
	everyPeer(t, func(t *testing.T, d dialer, o dialOptions) {
		p := d.open(t, o)
		const n = 500
		failed := make(chan error, 1)
		go func() {
			for i := range n {
				if err := p.Write(true, fmt.Appendf(nil, "message %d %s", i, strings.Repeat("x", i))); err != nil {
					failed <- err
					return
				}
			}
			failed <- nil
		}()
		for i := range n {
			exchange(t, p, true, fmt.Appendf(nil, "message %d %s", i, strings.Repeat("x", i)))
		}
		if err := <-failed; err != nil {
			t.Fatalf("write: %v", err)
		}
	})
}

func TestPeersFragments(t *testing.T) {
	everyPeer(t, func(t *testing.T, d dialer, o dialOptions) {
		o.fragments = true
		p := d.open(t, o)
		for _, size := range []int{2, 1000, 300 << 10, 4 << 20} {
			for _, text := range []bool{true, false} {
				sent := payload(text, size)
				if err := p.WriteFragments(text, sent); err != nil {
					t.Fatalf("text=%v, %d bytes: write: %v", text, size, err)
				}
				exchange(t, p, text, sent)
			}
		}
	})
}

func TestPeersPing(t *testing.T) {
	everyPeer(t, func(t *testing.T, d dialer, o dialOptions) {
		p := d.open(t, o)
		for _, ping := range []string{"", "a", strings.Repeat("p", 125)} {
			pong, echo, err := p.Ping(ping, []byte("behind the ping"))
			if err != nil {
				t.Fatalf("ping %q: %v", ping, err)
			}
			if d.pongs && pong != ping {
				t.Errorf("ping %q: pong %q; want the same payload", ping, pong)
			}
			if string(echo) != "behind the ping" {
				t.Errorf("ping %q: echo %q; want %q", ping, echo, "behind the ping")
			}
		}
		// The other way: the server pings in the middle, and goes on.
		if err := p.Write(true, []byte("ping:hello")); err != nil {
			t.Fatal(err)
		}
		exchange(t, p, true, []byte("ping:hello"))
		if err := p.Write(true, []byte("still here")); err != nil {
			t.Fatal(err)
		}
		exchange(t, p, true, []byte("still here"))
	})
}

func TestPeersSubprotocol(t *testing.T) {
	tests := []struct {
		offered []string
		want    string
	}{
		{nil, ""},
		{[]string{"chat.v1"}, "chat.v1"},
		{[]string{"unknown", "chat.v2"}, "chat.v2"},
		{[]string{"chat.v1", "chat.v2"}, "chat.v2"}, // the server's order counts
	}
	everyPeer(t, func(t *testing.T, d dialer, o dialOptions) {
		for _, tt := range tests {
			o.subprotocols = tt.offered
			p := d.open(t, o)
			if got := p.Subprotocol(); got != tt.want {
				t.Errorf("offered %q: got %q; want %q", tt.offered, got, tt.want)
			}
			p.Cut()
		}
	})
}

// closes are sent in both directions.
var closes = []closed{
	{1000, ""},
	{1000, "done"},
	{1001, "leaving"},
	{1008, "policy"},
	{3000, "a framework's"},
	{4999, "ours: " + strings.Repeat("é", 58)}, // 122 bytes of 123
}

func TestPeersCloseFirst(t *testing.T) {
	everyPeer(t, func(t *testing.T, d dialer, o dialOptions) {
		for _, want := range closes {
			p := d.open(t, o)
			got, err := p.Close(want.code, want.reason)
			if err != nil {
				t.Fatalf("close %v: %v", want, err)
			}
			if got.code != want.code {
				t.Errorf("close %v: the server answered %d; want the same code", want, got.code)
			}
			p.Cut()
			end := o.target.nextEnd(t)
			var seen *websocket.CloseError
			if !errors.As(end, &seen) || int(seen.Code) != want.code || seen.Reason != want.reason {
				t.Errorf("close %v: the server saw %v; want a CloseError with the same", want, end)
			}
			var record *websocket.EndError
			if errors.As(end, &record) && (!record.Clean || record.By != websocket.SidePeer) {
				t.Errorf("close %v: the record says %+v; want a clean end by the peer", want, record)
			}
		}
	})
}

func TestServerClosesFirst(t *testing.T) {
	everyPeer(t, func(t *testing.T, d dialer, o dialOptions) {
		for _, want := range closes {
			p := d.open(t, o)
			if err := p.Write(true, fmt.Appendf(nil, "close:%d:%s", want.code, want.reason)); err != nil {
				t.Fatal(err)
			}
			_, _, err := p.Read()
			var got closed
			if !errors.As(err, &got) || got != want {
				t.Errorf("close %v by the server: the client read %v", want, err)
			}
			p.Cut()
			o.target.nextEnd(t)
		}
	})
}

func TestPeersGoAway(t *testing.T) {
	everyPeer(t, func(t *testing.T, d dialer, o dialOptions) {
		p := d.open(t, o)
		if err := p.Write(false, []byte("x")); err != nil {
			t.Fatal(err)
		}
		exchange(t, p, false, []byte("x"))
		p.Cut()
		if end := o.target.nextEnd(t); end == nil {
			t.Error("the peer went away without a close frame: got no error; want one")
		}
	})
}
