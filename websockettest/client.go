package websockettest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"reflect"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// A TB is a *testing.T, *testing.B or *testing.F, or nil, for which a failure
// is a panic.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Cleanup(func())
}

// orPanic returns t, or what stands for a nil one.
func orPanic(t TB) TB {
	if t == nil {
		return noTest{}
	}
	return t
}

// noTest is the TB of an Example.
type noTest struct{}

func (noTest) Helper()                           {}
func (noTest) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
func (noTest) Cleanup(func())                    {}

// A Client is the client's end of a connection. Its methods fail the test when
// something doesn't go as they want; those that read wait for Timeout at most.
//
// A method that reads also answers the pings that come meanwhile, and the
// server's close frame, and fails the test at a frame that no server may send.
// While no method runs nothing is read, unless ReadInBackground was called: a
// Client that does nothing is one that doesn't read.
//
// One goroutine reads and one writes at a time.
type Client struct {
	// Response is the server's answer to the handshake, its body read.
	Response *http.Response
	// Timeout is how long a method waits for the server: a minute, when Dial or
	// NewClient has returned. In a bubble of testing/synctest, where waiting is
	// free, it may be days.
	Timeout time.Duration
	// NoPongs leaves the server's pings unanswered. It and NoClose are set
	// before ReadInBackground.
	NoPongs bool
	// NoClose leaves the server's close frame unanswered.
	NoClose bool

	t  TB
	nc net.Conn

	in      []byte // received and not looked at yet
	message Frame  // of which fragments have come
	inside  bool   // a message
	deflate *inflater
	pings   atomic.Int64 // that came, answered or not

	wmu    sync.Mutex // a pong may be written while the test writes
	closed bool       // our close frame is out; guarded by wmu

	ahead *readAhead // of ReadInBackground, nil before
}

// NewClient returns a Client on nc that hasn't sent anything, for connections
// of another kind than Dial makes (TLS, unix sockets), and for requests that
// Handshake can't make. The end of the test closes nc.
func NewClient(t TB, nc net.Conn) *Client {
	c := &Client{t: orPanic(t), nc: nc, Timeout: time.Minute}
	c.t.Cleanup(func() { nc.Close() })
	return c
}

// NetConn returns the connection underneath.
func (c *Client) NetConn() net.Conn { return c.nc }

// SendRaw sends bytes as they are.
func (c *Client) SendRaw(p []byte) {
	c.t.Helper()
	if err := c.write(p); err != nil {
		c.t.Fatalf("websockettest: sending %d bytes: %v", len(p), err)
	}
}

// SendSlowly sends bytes n at a time, with a pause behind each piece.
func (c *Client) SendSlowly(p []byte, n int, pause time.Duration) {
	c.t.Helper()
	for len(p) > 0 {
		k := min(max(n, 1), len(p))
		c.SendRaw(p[:k])
		p = p[k:]
		time.Sleep(pause)
	}
}

func (c *Client) write(p []byte) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.nc.SetWriteDeadline(time.Now().Add(c.Timeout))
	_, err := c.nc.Write(p)
	return err
}

// SendFrame sends frames, in one write.
func (c *Client) SendFrame(frames ...Frame) {
	c.t.Helper()
	var p []byte
	for _, f := range frames {
		p = f.Append(p)
	}
	c.SendRaw(p)
}

// SendText sends a text message.
func (c *Client) SendText(s string) {
	c.t.Helper()
	c.SendFrame(Frame{Opcode: Text, Payload: []byte(s)})
}

// SendBinary sends a binary message.
func (c *Client) SendBinary(p []byte) {
	c.t.Helper()
	c.SendFrame(Frame{Opcode: Binary, Payload: p})
}

// SendJSON sends v as a text message of JSON.
func (c *Client) SendJSON(v any) {
	c.t.Helper()
	p, err := json.Marshal(v)
	if err != nil {
		c.t.Fatalf("websockettest: SendJSON: %v", err)
	}
	c.SendFrame(Frame{Opcode: Text, Payload: p})
}

// SendPing sends a ping.
func (c *Client) SendPing(payload string) {
	c.t.Helper()
	c.SendFrame(Frame{Opcode: Ping, Payload: []byte(payload)})
}

// SendClose sends a close frame and reads nothing; 1005 sends one without a code.
func (c *Client) SendClose(code int, reason string) {
	c.t.Helper()
	if err := c.sendClose(ClosePayload(code, reason)); err != nil {
		c.t.Fatalf("websockettest: sending the close frame: %v", err)
	}
}

func (c *Client) sendClose(payload []byte) error {
	err := c.write(Frame{Opcode: Close, Payload: payload}.Append(nil))
	c.wmu.Lock()
	c.closed = true
	c.wmu.Unlock()
	return err
}

func (c *Client) sentClose() bool {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	return c.closed
}

// ReadFrame returns the next frame, whatever it is. It answers nothing, judges
// nothing, and returns its errors: io.EOF when the stream ends between two
// frames, io.ErrUnexpectedEOF inside of one, os.ErrDeadlineExceeded, after which
// it may be called again, or the network's.
func (c *Client) ReadFrame() (Frame, error) { return c.readFrame(time.Now().Add(c.Timeout)) }

func (c *Client) readFrame(until time.Time) (Frame, error) {
	for {
		if f, n := parseFrame(c.in); n > 0 {
			c.in = c.in[n:]
			return f, nil
		}
		err := c.fill(until)
		if err == io.EOF && len(c.in) > 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return Frame{}, err
		}
	}
}

// fill reads what there is, at least a byte.
func (c *Client) fill(until time.Time) error {
	c.nc.SetReadDeadline(until)
	b := make([]byte, 16<<10)
	n, err := c.nc.Read(b)
	if c.in = append(c.in, b[:n]...); n > 0 {
		return nil
	}
	return err
}

// errFault is what a server may not send.
type errFault struct{ what string }

func (e errFault) Error() string { return "the server sent " + e.what }

// next returns the next message, put together and inflated, or pong or close
// frame. Pings and the close frame are answered.
func (c *Client) next(until time.Time) (Frame, error) {
	if c.ahead != nil {
		return c.ahead.next(until)
	}
	return c.receive(until)
}

func (c *Client) receive(until time.Time) (Frame, error) {
	for {
		f, err := c.readFrame(until)
		if err != nil {
			return f, err
		}
		if what := f.serverFault(c.inside, c.deflate != nil); what != "" {
			return f, errFault{what}
		}
		switch f.Opcode {
		case Ping:
			c.pings.Add(1)
			if !c.NoPongs {
				c.write(Frame{Opcode: Pong, Payload: f.Payload}.Append(nil)) // the next read tells what is wrong
			}
		case Close:
			if !c.NoClose && !c.sentClose() {
				c.sendClose(f.Payload[:min(len(f.Payload), 2)])
			}
			return f, nil
		case Pong:
			return f, nil
		default:
			if c.join(f) {
				return c.whole()
			}
		}
	}
}

// join adds a data frame to the message, and reports whether it is whole.
func (c *Client) join(f Frame) bool {
	if f.Opcode != Continuation {
		c.message, c.inside = f, true
	} else {
		c.message.Payload = append(c.message.Payload, f.Payload...)
	}
	c.inside = f.More
	return !f.More
}

// whole returns the message that join has put together.
func (c *Client) whole() (Frame, error) {
	m := c.message
	m.More, m.RSV1, m.LengthBits = false, false, 0
	if c.message.RSV1 {
		p, err := c.deflate.inflate(m.Payload)
		if err != nil {
			return m, errFault{fmt.Sprintf("a message that doesn't inflate: %v (RFC 7692, section 7.2.2)", err)}
		}
		m.Payload = p
	}
	if m.Opcode == Text && !utf8.Valid(m.Payload) {
		return m, errFault{fmt.Sprintf("text that is not UTF-8: %s (RFC 6455, section 8.1)", shorten(m.Payload))}
	}
	return m, nil
}

// Read returns the next message. The end of the connection fails the test.
func (c *Client) Read() (Opcode, []byte) {
	c.t.Helper()
	f := c.wantMessage("a message")
	return f.Opcode, f.Payload
}

// wantMessage returns the next message; pongs that come before it are passed.
func (c *Client) wantMessage(what string) Frame {
	c.t.Helper()
	for {
		f, err := c.next(time.Now().Add(c.Timeout))
		if err != nil {
			c.t.Fatalf("websockettest: %v; want %s", err, what)
		}
		if f.Opcode == Close {
			c.t.Fatalf("websockettest: the server closed with %s; want %s", f.describe(), what)
		}
		if f.Opcode != Pong {
			return f
		}
	}
}

// describe says what a frame is, in a failure.
func (f Frame) describe() string {
	if f.Opcode == Close {
		code, reason := closeCode(f.Payload)
		return fmt.Sprintf("%d %q", code, reason)
	}
	return fmt.Sprintf("%v %s", f.Opcode, shorten(f.Payload))
}

func shorten(p []byte) string {
	if len(p) > 256 {
		return fmt.Sprintf("%q... (%d bytes)", p[:256], len(p))
	}
	return fmt.Sprintf("%q", p)
}

func (c *Client) want(op Opcode, payload []byte) {
	c.t.Helper()
	want := Frame{Opcode: op, Payload: payload}.describe()
	if f := c.wantMessage(want); f.Opcode != op || !bytes.Equal(f.Payload, payload) {
		c.t.Fatalf("websockettest: got %s; want %s", f.describe(), want)
	}
}

// WantText wants the next message to be this text.
func (c *Client) WantText(s string) {
	c.t.Helper()
	c.want(Text, []byte(s))
}

// WantBinary wants the next message to be binary, of these bytes.
func (c *Client) WantBinary(p []byte) {
	c.t.Helper()
	c.want(Binary, p)
}

// ReadJSON decodes the next message, which has to be one document of JSON, into
// v as encoding/json does.
func (c *Client) ReadJSON(v any) {
	c.t.Helper()
	f := c.wantMessage("JSON")
	if err := json.Unmarshal(f.Payload, v); err != nil {
		c.t.Fatalf("websockettest: got %s: %v; want JSON for a %T", f.describe(), err, v)
	}
}

// WantJSON wants the next message to be the same document as v makes, whatever
// the order of its members and the spaces between them.
func (c *Client) WantJSON(v any) {
	c.t.Helper()
	want, err := json.Marshal(v)
	if err != nil {
		c.t.Fatalf("websockettest: WantJSON: %v", err)
	}
	f := c.wantMessage(string(want))
	var a, b any
	json.Unmarshal(want, &a)
	if err := json.Unmarshal(f.Payload, &b); err != nil || !reflect.DeepEqual(a, b) {
		c.t.Fatalf("websockettest: got %s; want JSON %s", f.describe(), want)
	}
}

// WantPong wants the next thing to be a pong with this payload.
func (c *Client) WantPong(payload string) {
	c.t.Helper()
	want := Frame{Opcode: Pong, Payload: []byte(payload)}.describe()
	f, err := c.next(time.Now().Add(c.Timeout))
	if err != nil {
		c.t.Fatalf("websockettest: %v; want %s", err, want)
	}
	if f.Opcode != Pong || string(f.Payload) != payload {
		c.t.Fatalf("websockettest: got %s; want %s", f.describe(), want)
	}
}

// WantClose wants the server's close frame to be the next thing, with this code
// (1005 stands for none), answers it, and wants the end of the stream behind
// it. It returns the reason. Pongs before the frame are passed.
func (c *Client) WantClose(code int) (reason string) {
	c.t.Helper()
	return c.wantClose(code, false)
}

// wantClose is WantClose, which may throw away the messages before it.
func (c *Client) wantClose(code int, skip bool) (reason string) {
	c.t.Helper()
	until := time.Now().Add(c.Timeout)
	for {
		f, err := c.next(until)
		switch {
		case err != nil:
			c.t.Fatalf("websockettest: %v; want a close frame with %d", err, code)
		case f.Opcode == Pong, skip && f.Opcode != Close:
			continue
		case f.Opcode != Close:
			c.t.Fatalf("websockettest: got %s; want a close frame with %d", f.describe(), code)
		}
		got, reason := closeCode(f.Payload)
		if got != code {
			c.t.Fatalf("websockettest: the server closed with %d %q; want %d", got, reason, code)
		}
		c.WantEnd()
		return reason
	}
}

// Close does the closing handshake from this side, as a browser's close() does:
// it sends code, throws away the messages that still come, wants the server's
// close frame with the same code, and the end of the stream. 1005 sends no code.
func (c *Client) Close(code int) {
	c.t.Helper()
	c.SendClose(code, "")
	c.wantClose(code, true)
}

// WantEnd wants the stream to end here, in order and not by a reset, and closes
// this end.
func (c *Client) WantEnd() {
	c.t.Helper()
	f, err := c.next(time.Now().Add(c.Timeout))
	if err == nil {
		c.t.Fatalf("websockettest: got %s; want the end of the stream", f.describe())
	}
	if err != io.EOF {
		c.t.Fatalf("websockettest: %v; want the end of the stream", err)
	}
	c.nc.Close()
}

// WantQuiet wants nothing but pings and pongs for d, answers the pings, and
// returns how many there were. The connection stays.
func (c *Client) WantQuiet(d time.Duration) (pings int) {
	c.t.Helper()
	before := c.pings.Load()
	until := time.Now().Add(d)
	for {
		f, err := c.next(until)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return int(c.pings.Load() - before)
		}
		if err != nil {
			c.t.Fatalf("websockettest: %v; want nothing for %v", err, d)
		}
		if f.Opcode != Pong {
			c.t.Fatalf("websockettest: got %s; want nothing for %v", f.describe(), d)
		}
	}
}

// Cut closes the socket without a word, as a client does that is killed.
func (c *Client) Cut() { c.nc.Close() }

// Reset closes the socket so that the server's reads and writes fail, where the
// connection can do that: one over TCP or in memory.
func (c *Client) Reset() {
	switch nc := c.nc.(type) {
	case *net.TCPConn:
		nc.SetLinger(0)
	case *conn:
		nc.reset()
	}
	c.nc.Close()
}
