package websockettest

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// script returns a Client whose server has sent frames and then, with end,
// closed its half.
func script(t TB, end bool, frames ...Frame) (c *Client, server net.Conn) {
	client, server := Pipe()
	c = NewClient(t, client)
	for _, f := range frames {
		f.Unmasked = !f.Unmasked // what is zero is a server's here
		server.Write(f.Append(nil))
	}
	if end {
		server.(*conn).CloseWrite()
	}
	return c, server
}

// failure runs f, which is to fail its test, and returns with what.
func failure(f func(TB)) (text string) {
	defer func() {
		if v := recover(); v != nil {
			text = fmt.Sprint(v)
		}
	}()
	f(nil)
	return ""
}

// What a method that wants something says when another thing comes.
func TestWhatFails(t *testing.T) {
	text := func(s string) Frame { return Frame{Opcode: Text, Payload: []byte(s)} }
	closing := Frame{Opcode: Close, Payload: ClosePayload(1008, "slow")}
	tests := []struct {
		name   string
		do     func(*Client)
		frames []Frame
		want   string
	}{
		{"another text", func(c *Client) { c.WantText("a") }, []Frame{text("b")}, `got text "b"; want text "a"`},
		{"another type", func(c *Client) { c.WantBinary([]byte("a")) }, []Frame{text("a")}, `got text "a"; want binary "a"`},
		{"a long text", func(c *Client) { c.WantText("a") }, []Frame{text(strings.Repeat("b", 300))}, `(300 bytes)`},
		{"the end", func(c *Client) { c.WantText("a") }, nil, `EOF; want text "a"`},
		{"half a frame", func(c *Client) { c.Read() }, []Frame{{Opcode: Text, Length: 5}}, `unexpected EOF; want a message`},
		{"close", func(c *Client) { c.Read() }, []Frame{closing}, `the server closed with 1008 "slow"; want a message`},
		{"a masked frame", func(c *Client) { c.Read() }, []Frame{{Opcode: Text, Unmasked: true}}, `the server sent a masked frame`},
		{"no UTF-8", func(c *Client) { c.Read() }, []Frame{text("\xff")}, `text that is not UTF-8: "\xff"`},
		{"no JSON", func(c *Client) { c.ReadJSON(new(int)) }, []Frame{text("x")}, `want JSON for a *int`},
		{"other JSON", func(c *Client) { c.WantJSON(1) }, []Frame{text("2")}, `got text "2"; want JSON 1`},
		{"JSON that can't be", func(c *Client) { c.WantJSON(make(chan int)) }, nil, `WantJSON: json: unsupported type`},
		{"JSON that can't be sent", func(c *Client) { c.SendJSON(make(chan int)) }, nil, `SendJSON: json: unsupported type`},
		{"no pong", func(c *Client) { c.WantPong("a") }, []Frame{text("a")}, `got text "a"; want pong "a"`},
		{"the end before a pong", func(c *Client) { c.WantPong("a") }, nil, `EOF; want pong "a"`},
		{"a message before close", func(c *Client) { c.WantClose(1000) }, []Frame{text("a")}, `got text "a"; want a close frame with 1000`},
		{"another code", func(c *Client) { c.WantClose(1000) }, []Frame{closing}, `the server closed with 1008 "slow"; want 1000`},
		{"no close frame", func(c *Client) { c.WantClose(1000) }, nil, `EOF; want a close frame with 1000`},
		{"a message behind close", func(c *Client) { c.WantClose(1008) }, []Frame{closing, text("a")}, `got text "a"; want the end`},
		{"no end", func(c *Client) { c.WantEnd() }, []Frame{text("a")}, `got text "a"; want the end`},
		{"no quiet", func(c *Client) { c.WantQuiet(time.Second) }, []Frame{text("a")}, `got text "a"; want nothing for 1s`},
		{"the end of quiet", func(c *Client) { c.WantQuiet(time.Second) }, nil, `EOF; want nothing for 1s`},
		{"no answer", func(c *Client) { c.Handshake("/") }, nil, `no answer: unexpected EOF`},
		{"closed before SendText", func(c *Client) { c.Cut(); c.SendText("a") }, nil, `sending 7 bytes: write tcp`},
		{"closed before SendClose", func(c *Client) { c.Cut(); c.SendClose(1000, "") }, nil, `sending the close frame: write tcp`},
	}
	for _, test := range tests {
		got := failure(func(tb TB) {
			c, _ := script(tb, true, test.frames...)
			test.do(c)
		})
		if !strings.Contains(got, test.want) || !strings.HasPrefix(got, "websockettest: ") {
			t.Errorf("%s: failed with %q; want %q", test.name, got, test.want)
		}
	}
}

func TestHandshakeFails(t *testing.T) {
	accept := "Sec-WebSocket-Accept: " + acceptKey("dGhlIHNhbXBsZSBub25jZQ==") + "\r\n"
	for _, test := range []struct{ answer, want string }{
		{"HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\nnever", `answer 403 Forbidden "never"; want 101`},
		{"HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\nnever", `the body of the answer: unexpected EOF`},
		{"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n" + accept + "\r\n", `answer with Upgrade ""; want "websocket"`},
		{"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n" + accept + "\r\n", `answer with Connection ""; want "upgrade"`},
		{"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", `answer with Sec-Websocket-Accept ""; want "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="`},
	} {
		got := failure(func(tb TB) {
			client, server := Pipe()
			io.WriteString(server, test.answer)
			server.(*conn).CloseWrite()
			NewClient(tb, client).Handshake("/")
		})
		if !strings.Contains(got, test.want) {
			t.Errorf("answer %q: failed with %q; want %q", test.answer, got, test.want)
		}
	}
}

func TestDialFails(t *testing.T) {
	ln := NewListener()
	ln.Close()
	if got := failure(func(tb TB) { Dial(tb, ln, "/") }); !strings.Contains(got, "refused") {
		t.Errorf("Dial of a closed Listener failed with %q", got)
	}
	if got := failure(func(tb TB) { DialAddr(tb, "no address", "/") }); !strings.Contains(got, "no address") {
		t.Errorf("DialAddr failed with %q", got)
	}
}

func TestReadFrameErrors(t *testing.T) {
	c, server := script(t, false, Frame{Opcode: Ping, Payload: []byte("a"), Unmasked: true})
	if f, err := c.ReadFrame(); f.Opcode != Ping || string(f.Payload) != "a" || f.Unmasked || err != nil {
		t.Errorf("ReadFrame = %+v, %v; want the masked ping, unanswered", f, err)
	}
	c.Timeout = 0
	if _, err := c.ReadFrame(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("ReadFrame: %v; want %v", err, os.ErrDeadlineExceeded)
	}
	server.Write([]byte{0x81, 1})
	if _, err := c.ReadFrame(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("ReadFrame: %v; want %v", err, os.ErrDeadlineExceeded)
	}
	c.Timeout = time.Minute
	server.Write([]byte("x"))
	if f, err := c.ReadFrame(); string(f.Payload) != "x" || err != nil {
		t.Errorf("ReadFrame after a deadline = %+v, %v; want x", f, err)
	}
	server.Close()
	if _, err := c.ReadFrame(); err != io.EOF {
		t.Errorf("ReadFrame: %v; want %v", err, io.EOF)
	}
}

// What the client sends is read back at the server's end.
func TestSending(t *testing.T) {
	c, server := script(t, false)
	c.SendText("a")
	c.SendBinary([]byte("b"))
	c.SendJSON(map[string]int{"c": 1})
	c.SendPing("d")
	c.SendFrame(Frame{Opcode: Text, More: true}, Frame{Payload: []byte("e")})
	c.SendSlowly(Frame{Opcode: Text, Payload: []byte("f")}.Append(nil), 3, 0)
	c.SendClose(4000, "g")
	c.NetConn().(*conn).CloseWrite()
	b, _ := io.ReadAll(server)
	var got []string
	for len(b) > 0 {
		f, n := parseFrame(b)
		if n == 0 || f.Unmasked || f.Key != exampleKey {
			t.Fatalf("% x is no masked frame", b)
		}
		got = append(got, fmt.Sprintf("%v %t %s", f.Opcode, f.More, f.Payload))
		b = b[n:]
	}
	want := `text false a, binary false b, text false {"c":1}, ping false d, text true , continuation false e, text false f, close false ` + "\x0f\xa0g"
	if got := strings.Join(got, ", "); got != want {
		t.Errorf("sent %q; want %q", got, want)
	}
}

// Pings are answered while something else is wanted, pongs passed, and
// fragments put together; the close frame is answered with its code.
func TestAnswering(t *testing.T) {
	for _, background := range []bool{false, true} {
		c, server := script(t, true,
			Frame{Opcode: Pong}, Frame{Opcode: Text, More: true, Payload: []byte("on")}, Frame{Opcode: Ping, Payload: []byte("p")},
			Frame{Payload: []byte("e")}, Frame{Opcode: Pong, Payload: []byte("q")}, Frame{Opcode: Pong},
			Frame{Opcode: Close, Payload: ClosePayload(1001, "gone")})
		if background {
			c.ReadInBackground()
			c.ReadInBackground() // once is enough
		}
		c.WantText("one")
		c.WantPong("q")
		if reason := c.WantClose(1001); reason != "gone" {
			t.Errorf("WantClose = %q; want gone", reason)
		}
		b, _ := io.ReadAll(server)
		want := Frame{Opcode: Pong, Payload: []byte("p")}.Append(nil)
		want = Frame{Opcode: Close, Payload: ClosePayload(1001, "")}.Append(want)
		if !bytes.Equal(b, want) {
			t.Errorf("answers % x; want % x", b, want)
		}
	}
}

func TestNotAnswering(t *testing.T) {
	c, server := script(t, true, Frame{Opcode: Ping}, Frame{Opcode: Close})
	c.NoPongs, c.NoClose = true, true
	c.WantClose(1005)
	if b, err := io.ReadAll(server); len(b) > 0 || err != nil {
		t.Errorf("answers % x, %v; want none", b, err)
	}
}

func TestCloseThrowsAway(t *testing.T) {
	c, server := script(t, true, Frame{Opcode: Text}, Frame{Opcode: Ping}, Frame{Opcode: Close, Payload: ClosePayload(1000, "")})
	c.Close(1000)
	b, _ := io.ReadAll(server)
	want := Frame{Opcode: Pong}.Append(Frame{Opcode: Close, Payload: ClosePayload(1000, "")}.Append(nil))
	if !bytes.Equal(b, want) {
		t.Errorf("sent % x; want % x", b, want)
	}
}

func TestWantQuiet(t *testing.T) {
	for _, background := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c, server := script(t, false, Frame{Opcode: Ping}, Frame{Opcode: Pong}, Frame{Opcode: Ping})
			if background {
				c.ReadInBackground()
			}
			start := time.Now()
			if got := c.WantQuiet(time.Hour); got != 2 && !background || got > 2 {
				t.Errorf("WantQuiet = %d; want 2", got)
			}
			if got := time.Since(start); got != time.Hour {
				t.Errorf("quiet for %v; want an hour", got)
			}
			server.Close()
		})
	}
}

func TestJSON(t *testing.T) {
	c, _ := script(t, true, Frame{Opcode: Text, Payload: []byte(`{"a": 1, "b": [true]}`)}, Frame{Opcode: Binary, Payload: []byte(`"x"`)})
	c.WantJSON(map[string]any{"b": []bool{true}, "a": 1})
	var s string
	if c.ReadJSON(&s); s != "x" {
		t.Errorf("ReadJSON = %q; want x", s)
	}
}

// The server's compressed messages are inflated, with and without what came
// before them.
func TestInflate(t *testing.T) {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, 9)
	var pieces [][]byte
	for range 2 {
		b.Reset()
		io.WriteString(w, "hello hello hello")
		w.Flush()
		pieces = append(pieces, bytes.Clone(bytes.TrimSuffix(b.Bytes(), []byte("\x00\x00\xff\xff"))))
	}
	c, _ := script(t, true, Frame{Opcode: Text, RSV1: true, Payload: pieces[0]}, Frame{Opcode: Text, RSV1: true, Payload: pieces[1]})
	c.deflate = newInflater("permessage-deflate")
	c.WantText("hello hello hello")
	c.WantText("hello hello hello")

	got := failure(func(tb TB) {
		c, _ := script(tb, true, Frame{Opcode: Text, RSV1: true, Payload: Deflate([]byte("a"))}, Frame{Opcode: Text, RSV1: true, Payload: []byte("\xff")})
		c.deflate = newInflater("permessage-deflate; server_no_context_takeover")
		c.WantText("a")
		c.Read()
	})
	if !strings.Contains(got, "doesn't inflate") {
		t.Errorf("failed with %q", got)
	}
	if newInflater("x-other") != nil {
		t.Error("an inflater for another extension")
	}
}

func TestReset(t *testing.T) {
	c, server := script(t, false)
	c.Reset()
	if _, err := server.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("in memory: %v; want %v", err, syscall.ECONNRESET)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	nc := connect(t, ln)
	server, err = ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	NewClient(t, nc).Reset()
	server.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := server.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("over TCP: %v; want %v", err, syscall.ECONNRESET)
	}
}

func TestReadInBackgroundTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, server := script(t, false)
		c.ReadInBackground()
		if _, err := c.next(time.Now().Add(time.Minute)); err != os.ErrDeadlineExceeded {
			t.Errorf("next: %v; want %v", err, os.ErrDeadlineExceeded)
		}
		server.Close()
		c.WantEnd()
	})
}
