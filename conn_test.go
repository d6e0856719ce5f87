package websocket

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func TestMessageTypeString(t *testing.T) {
	for typ, want := range map[MessageType]string{TextMessage: "text", BinaryMessage: "binary", 7: "opcode 0x7"} {
		if got := typ.String(); got != want {
			t.Errorf("MessageType(%d).String() = %q, want %q", typ, got, want)
		}
	}
}

// echoSizes are those around each change of the way: of the length's form, of
// the copy behind a header, of the buffers, and of what is allocated ahead.
var echoSizes = []int{0, 1, 125, 126, 127, 4095, 4096, 4097, 16383, 16384, 16385, 65535, 65536, 65537, 1 << 20}

func TestEchoOfEverySize(t *testing.T) {
	overTransports(t, func(t *testing.T, pair transport) {
		c, p := connect(t, new(Upgrader), pair)
		go func() {
			for m, err := range c.Messages() {
				if err != nil || c.WriteMessage(m.Type, m.Data) != nil {
					return
				}
			}
		}()
		for _, size := range echoSizes {
			want := strings.Repeat("0123456789abcdef", size/16+1)[:size]
			for _, op := range []opcode{opText, opBinary} {
				go p.nc.Write(clientFrame(op, true, want))
				p.want(op, want)
			}
		}
		p.closeWith(CloseNormal, "")
	})
}

func TestConnAddresses(t *testing.T) {
	server, client := tcpPair(t)
	c, _ := connect(t, new(Upgrader), func(testing.TB) (net.Conn, net.Conn) { return server, client })
	if got, want := c.RemoteAddr().String(), client.LocalAddr().String(); got != want {
		t.Errorf("RemoteAddr() = %s, want %s", got, want)
	}
	if got, want := c.LocalAddr().String(), client.RemoteAddr().String(); got != want {
		t.Errorf("LocalAddr() = %s, want %s", got, want)
	}
	if got := c.NetConn(); got != server {
		t.Errorf("NetConn() = %v, want the connection that was upgraded", got)
	}
	if got := c.RTT(); got != 0 {
		t.Errorf("RTT() = %v before any ping, want 0", got)
	}
}

// Whoever asks for the Context, before the end or after it, finds the error
// that the reads return as its cause.
func TestContext(t *testing.T) {
	for _, early := range []bool{true, false} {
		c, p := connect(t, new(Upgrader), tcpPair)
		if early && c.Context().Err() != nil {
			t.Errorf("Context().Err() = %v while the connection is open", c.Context().Err())
		}
		p.send(closeFrame(4321, "enough"))
		p.leave()
		_, _, err := c.ReadMessage()
		ctx := c.Context()
		<-ctx.Done()
		if cause := context.Cause(ctx); cause != err {
			t.Errorf("asked early %t: cause of Context = %v, ReadMessage returned %v", early, cause, err)
		}
		var closed *CloseError
		if !errors.As(context.Cause(ctx), &closed) || closed.Code != 4321 || closed.Reason != "enough" {
			t.Errorf("cause of Context = %v, want a *CloseError of 4321 %q", context.Cause(ctx), "enough")
		}
	}
}

// A deadline that passes costs nothing of what had come: the next read goes on
// where the last one stood, wherever that was.
func TestReadDeadlineKeepsWhatHasCome(t *testing.T) {
	long := strings.Repeat("long ", 20000)
	streams := []struct {
		name  string
		bytes string
		cuts  []int
	}{
		{"nothing", string(textFrame("message")), []int{0}},
		{"in the header", string(textFrame("message")), []int{1, 2, 4}},
		{"in the length", string(textFrame(long)), []int{1, 3, 5, 9, 13}},
		{"in a payload", string(textFrame("message")), []int{6, 7, 12}},
		{"in text, inside a rune", string(textFrame("\U0001F600")), []int{7, 8, 9}},
		{"in a long payload", string(textFrame(long)), []int{14, 15, 5000, 20000, 70000, len(long) + 13}},
		{"before and in a continuation", string(clientFrame(opText, false, "mess")) + string(clientFrame(opContinuation, true, "age")), []int{10, 11, 14, 16, 18}},
		{"in a ping inside a message", string(clientFrame(opText, false, "mess")) + string(clientFrame(opPing, true, "ping")) +
			string(clientFrame(opContinuation, true, "age")), []int{11, 16, 18, 20, 28}},
	}
	overTransports(t, func(t *testing.T, pair transport) {
		for _, s := range streams {
			want := long
			switch {
			case strings.Contains(s.name, "rune"):
				want = "\U0001F600"
			case len(s.bytes) < 100:
				want = "message"
			}
			t.Run(s.name, func(t *testing.T) {
				c, p := connect(t, new(Upgrader), pair)
				go io.Copy(io.Discard, p.nc) // the pong
				readInPieces(t, c, p, s.bytes, s.cuts, want)
			})
		}
	})
}

func readInPieces(t *testing.T, c *Conn, p *peer, stream string, cuts []int, want string) {
	pieces := make(chan string, len(cuts)+1)
	defer close(pieces)
	go func() {
		for piece := range pieces {
			p.nc.Write([]byte(piece))
		}
	}()
	at := 0
	for _, cut := range cuts {
		pieces <- stream[at:cut]
		at = cut
		c.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
		if typ, data, err := c.ReadMessage(); !isTimeout(errors.Unwrap(err)) {
			t.Fatalf("ReadMessage with %d of %d bytes sent = %v, %d bytes, %v; want a timeout", cut, len(stream), typ, len(data), err)
		}
		c.SetReadDeadline(time.Time{})
	}
	pieces <- stream[at:]
	typ, data, err := c.ReadMessage()
	if typ != TextMessage || string(data) != want || err != nil {
		t.Fatalf("ReadMessage after deadlines at %d = %v, %d bytes, %v; want %d bytes of text", cuts, typ, len(data), err, len(want))
	}
}
