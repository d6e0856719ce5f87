package websocket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rawws/websocket/internal/netloop"
)

const conformanceRequest = "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"

// An outcome is what became of a connection, from both of its sides.
type outcome struct {
	messages []Message
	answers  []wireFrame
	end      string
	faults   []string // what must never be, whatever came in
}

func (o *outcome) fault(format string, args ...any) {
	o.faults = append(o.faults, fmt.Sprintf(format, args...))
}

// setAnswers takes what the server sent, the 101 included.
func (o *outcome) setAnswers(out []byte) {
	head, frames, ok := bytes.Cut(out, []byte("\r\n\r\n"))
	if !ok || !bytes.HasPrefix(head, []byte("HTTP/1.1 101 ")) {
		o.fault("the request was answered %q", out)
		return
	}
	var err error
	if o.answers, err = decodeAnswers(frames); err != nil {
		o.fault("the server sent %v", err)
	}
}

// compare says how the outcome differs from the one that was wanted; nil when
// it doesn't.
func (o *outcome) compare(messages []Message, answers []wireFrame, end string) error {
	same := slices.EqualFunc(o.messages, messages, func(g, w Message) bool {
		return g.Type == w.Type && bytes.Equal(g.Data, w.Data)
	})
	switch {
	case len(o.faults) > 0:
		return errors.New(strings.Join(o.faults, "; "))
	case !same:
		return fmt.Errorf("got messages %v, want %v", briefMessages(o.messages), briefMessages(messages))
	case !sameFrames(o.answers, answers):
		return fmt.Errorf("got answers %v, want %v", o.answers, answers)
	case o.end != end:
		return fmt.Errorf("got end %s, want %s", o.end, end)
	}
	return nil
}

func briefMessages(ms []Message) (fs []wireFrame) {
	for _, m := range ms {
		fs = append(fs, wireFrame{byte(m.Type), m.Data})
	}
	return fs
}

// A vectorEcho is a server's application; it notes what it sees.
type vectorEcho struct {
	outcome
	vector *conformanceCase
	quiet  bool // nothing is noted, for who measures memory
	c      *Conn
	opens  int
	closes int
	done   chan struct{} // closed with the end; may be nil
}

func (e *vectorEcho) message(c *Conn, t MessageType, p []byte) {
	if e.opens != 1 || e.closes != 0 {
		e.fault("message %s with %d opens and %d closes before", brief(p), e.opens, e.closes)
	}
	if !e.quiet {
		e.messages = append(e.messages, Message{t, bytes.Clone(p)})
	}
	if e.vector.closes && t == TextMessage && bytes.Equal(p, e.vector.closeOn) {
		if err := c.Close(e.vector.code, e.vector.reason); err != nil {
			e.fault("Close(%d, %q): %v", e.vector.code, e.vector.reason, err)
		}
		return
	}
	if err := c.WriteMessage(t, p); err != nil {
		e.fault("WriteMessage(%v, %s): %v", t, brief(p), err)
	}
}

func (e *vectorEcho) open(c *Conn) {
	e.c = c
	e.opens++
}

// closed looks at what has to be true of every connection that has ended.
func (e *vectorEcho) closed(err error) {
	e.end = endWords(err)
	if e.closes++; e.closes != 1 || e.opens != 1 {
		e.fault("%d closes and %d opens", e.closes, e.opens)
	}
	if got := e.c.connState(); got != stateClosed {
		e.fault("state %d at the end, want %d", got, stateClosed)
	}
	if err := e.c.WriteMessage(TextMessage, nil); !errors.Is(err, net.ErrClosed) {
		e.fault("a write after the end: %v, want %v", err, net.ErrClosed)
	}
	if err := context.Cause(e.c.Context()); e.end != endWords(err) {
		e.fault("the context's cause is %v, want %v", err, e.end)
	}
	if e.done != nil {
		close(e.done)
	}
}

func (e *vectorEcho) events() Events {
	return Events{
		OnOpen:    func(c *Conn, _ *http.Request) { e.open(c) },
		OnMessage: e.message,
		OnClose:   func(_ *Conn, err error) { e.closed(err) },
	}
}

// serveBlocking echoes by ReadMessage. A deadline that passed is no end.
func (e *vectorEcho) serveBlocking(c *Conn, _ *http.Request) {
	e.open(c)
	for {
		t, p, err := c.ReadMessage()
		if err == nil {
			e.message(c, t, p)
		} else if !errors.Is(err, os.ErrDeadlineExceeded) {
			e.closed(err)
			if _, _, again := c.ReadMessage(); again != err {
				e.fault("a read after the end: %v, want %v", again, err)
			}
			return
		}
	}
}

// serveReader echoes by NextReader, with a buffer of 100 bytes.
func (e *vectorEcho) serveReader(c *Conn, _ *http.Request) {
	e.open(c)
	var buf [100]byte
	for {
		t, r, err := c.NextReader()
		var p []byte
		for err == nil {
			var n int
			n, err = r.Read(buf[:])
			p = append(p, buf[:n]...)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				err = nil
			}
		}
		if err == io.EOF {
			e.message(c, t, p)
		} else if !errors.Is(err, os.ErrDeadlineExceeded) {
			e.closed(err)
			return
		}
	}
}

// TestConformance sends every stream of the vectors to three servers.
func TestConformance(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	overTCP := func() (client, server net.Conn) { return dialTCP(t, ln) }
	for _, c := range loadConformance(t) {
		e := &vectorEcho{vector: &c, done: make(chan struct{})}
		checkOnServer(t, "Events over TCP", e, e.events(), overTCP)
		e = &vectorEcho{vector: &c, done: make(chan struct{})}
		checkOnServer(t, "Events over a pipe", e, e.events(), net.Pipe)
		e = &vectorEcho{vector: &c, done: make(chan struct{})}
		checkOnServer(t, "ReadMessage over TCP", e, HandlerFunc(e.serveBlocking), overTCP)
	}
}

func dialTCP(t *testing.T, ln net.Listener) (client, server net.Conn) {
	t.Helper()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if server, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	return client, server
}

// checkOnServer sends the vector's stream to a real server with all its
// goroutines, and waits until that is done.
func checkOnServer(t *testing.T, name string, e *vectorEcho, h Handler, dial func() (client, server net.Conn)) {
	t.Helper()
	v := e.vector
	client, nc := dial()
	s := &Server{Handler: h, Upgrader: v.u}
	s.init()
	s.accepted(nc, false)
	client.SetDeadline(time.Now().Add(30 * time.Second)) // only a test that fails needs it
	out, err := talk(client, v)
	client.Close()
	if err != nil {
		t.Fatalf("case %s: %s: the client: %v", v.name, name, err)
	}
	<-e.done
	if err := s.Shutdown(t.Context()); err != nil {
		t.Errorf("case %s: %s: Shutdown: %v", v.name, name, err)
	}
	e.setAnswers(out)
	if err := e.compare(v.messages, v.answers, v.end); err != nil {
		t.Errorf("case %s: %s: % x: %v", v.name, name, v.in[:min(len(v.in), 100)], err)
	}
}

// talk sends a stream and reads what comes back until the server has closed.
// A pipe can't end one way only: its client leaves when it has everything.
func talk(client net.Conn, v *conformanceCase) (out []byte, err error) {
	sent := make(chan error, 1)
	go func() {
		_, err := io.WriteString(client, v.request()+string(v.in))
		if cw, ok := client.(closeWriter); ok && v.eof && err == nil {
			err = cw.CloseWrite()
		}
		sent <- err
	}()
	_, half := client.(closeWriter)
	for wrote := false; ; {
		b := make([]byte, 64<<10)
		n, err := client.Read(b)
		out = append(out, b[:n]...)
		if err == io.EOF || err == io.ErrClosedPipe {
			if !wrote {
				client.Close()
				<-sent // it may have failed: the server needn't read what is behind the end
			}
			return out, nil
		}
		if err != nil {
			return out, err
		}
		_, frames, _ := bytes.Cut(out, []byte("\r\n\r\n"))
		if got, err := decodeAnswers(frames); !half && !wrote && err == nil && len(got) >= len(v.answers) {
			if err := <-sent; err != nil {
				return out, err
			}
			wrote = true
			client.Close()
		}
	}
}

// A scriptConn is a client whose bytes arrive in the pieces that the script
// says, each when the server has used up the one before and waits; behind the
// last its stream ends. Nothing else runs meanwhile. With a pipe, the bytes
// come through a descriptor, and the server waits as it does for a socket.
type scriptConn struct {
	pieces    [][]byte
	interrupt bool // a deadline passes before every piece, and a read gives nothing
	turns     int
	out       []byte
	quiet     bool // out isn't kept
	atLast    int  // the length of out when the last piece was given
	closed    bool
	e         *vectorEcho
	waits     func(c *Conn) // called at every wait

	r, w *os.File // the pipe, if there is one
	raw  syscall.RawConn
}

// next gives the next piece, or the error that a wait ends with.
func (s *scriptConn) next(size int) ([]byte, error) {
	if s.closed {
		return nil, net.ErrClosed
	}
	if s.e.c != nil && s.waits != nil {
		s.waits(s.e.c)
	}
	if s.e.c != nil && s.e.c.write.out != nil {
		s.e.fault("answers are held back while the server waits")
	}
	if s.interrupt && s.e.c != nil && s.e.c.connState() == stateOpen {
		switch s.turns++; s.turns % 3 {
		case 1:
			return nil, os.ErrDeadlineExceeded
		case 2:
			return nil, nil
		}
	}
	if len(s.pieces) == 0 {
		return nil, io.EOF
	}
	if len(s.pieces) == 1 && s.atLast == 0 {
		s.atLast = len(s.out)
	}
	p := s.pieces[0]
	if len(p) <= size {
		s.pieces = s.pieces[1:]
		return p, nil
	}
	s.pieces[0] = p[size:]
	return p[:size], nil
}

func (s *scriptConn) Read(p []byte) (int, error) {
	if s.r != nil {
		n := 0
		err := s.rawRead(func(fd uintptr) (done bool) {
			var errno syscall.Errno
			n, errno = netloop.ReadDescriptor(fd, p)
			return errno == 0
		})
		if n == 0 && err == nil {
			err = io.EOF
		}
		return max(n, 0), err
	}
	b, err := s.next(len(p))
	return copy(p, b), err
}

// rawRead is syscall.RawConn.Read: try is called until it is satisfied, and
// every time that it isn't, the next piece is put into the pipe.
func (s *scriptConn) rawRead(try func(fd uintptr) bool) (err error) {
	failed := s.raw.Read(func(fd uintptr) bool {
		for !try(fd) {
			var b []byte
			if b, err = s.next(32 << 10); err == io.EOF {
				s.w.Close()
				err = nil
			} else if err != nil {
				return true
			}
			s.w.Write(b)
		}
		return true
	})
	if err == nil {
		err = failed
	}
	return err
}

func (s *scriptConn) Write(p []byte) (int, error) {
	if s.closed {
		return 0, net.ErrClosed
	}
	if !s.quiet {
		s.out = append(s.out, p...)
	}
	return len(p), nil
}

func (s *scriptConn) Close() error {
	s.closed = true
	if s.r != nil {
		s.r.Close()
		s.w.Close()
	}
	return nil
}

func (s *scriptConn) CloseWrite() error                { return nil }
func (s *scriptConn) LocalAddr() net.Addr              { return plainAddr{} }
func (s *scriptConn) RemoteAddr() net.Addr             { return plainAddr{} }
func (s *scriptConn) SetDeadline(time.Time) error      { return nil }
func (s *scriptConn) SetReadDeadline(time.Time) error  { return nil }
func (s *scriptConn) SetWriteDeadline(time.Time) error { return nil }

// A pipeScript is a scriptConn whose server waits on a descriptor.
type pipeScript struct{ *scriptConn }

func (s pipeScript) SyscallConn() (syscall.RawConn, error) { return scriptRaw{s.scriptConn}, nil }

type scriptRaw struct{ s *scriptConn }

func (r scriptRaw) Read(try func(fd uintptr) bool) error { return r.s.rawRead(try) }
func (r scriptRaw) Control(func(fd uintptr)) error       { return errors.ErrUnsupported }

// Write takes what try writes by way of a pipe.
func (r scriptRaw) Write(try func(fd uintptr) bool) error {
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	defer out.Close()
	var p []byte
	read := make(chan error)
	go func() {
		var err error
		p, err = io.ReadAll(out)
		read <- err
	}()
	try(in.Fd())
	in.Close()
	if err = <-read; err == nil {
		_, err = r.s.Write(p)
	}
	return err
}

// A serving is one of those to serve a connection.
type serving struct {
	reader    string // Events, ReadMessage, NextReader
	pipe      bool
	interrupt bool
	loop      func(testing.TB, *conformanceCase, *scriptConn) // serves instead; nil for a goroutine
}

func (w serving) String() string {
	s := w.reader
	if w.pipe {
		s += " on a descriptor"
	}
	if w.interrupt {
		s += " with deadlines that pass"
	}
	if w.loop != nil {
		s += " on the loop"
	}
	return s
}

// The loop's is the last one, where there is a loop.
var servings = []serving{
	{reader: "Events"},
	{reader: "Events", pipe: netloop.Readable},
	{reader: "ReadMessage", interrupt: true},
	{reader: "NextReader", pipe: netloop.Readable, interrupt: true},
}

// run lets the client of s talk to a server of the vector's limits, and returns what became of it.
func (w serving) run(tb testing.TB, v *conformanceCase, s *scriptConn) *outcome {
	tb.Helper()
	s.e = &vectorEcho{vector: v, quiet: s.quiet}
	s.interrupt = w.interrupt
	if w.loop != nil {
		w.loop(tb, v, s)
	} else {
		w.serve(tb, v, s)
	}
	if s.e.closes != 1 {
		s.e.fault("%d ends", s.e.closes)
	}
	if !s.closed {
		s.e.fault("the socket wasn't closed")
		s.Close()
	}
	if !s.quiet {
		s.e.setAnswers(s.out)
	}
	return &s.e.outcome
}

// serve serves the client of s on this goroutine.
func (w serving) serve(tb testing.TB, v *conformanceCase, s *scriptConn) {
	tb.Helper()
	var nc net.Conn = s
	if w.pipe {
		var err error
		if s.r, s.w, err = os.Pipe(); err != nil {
			tb.Fatal(err)
		}
		if s.raw, err = s.r.SyscallConn(); err != nil {
			tb.Fatal(err)
		}
		nc = pipeScript{s}
	}
	c, r, err := v.u.Upgrade(nc)
	if err != nil {
		tb.Fatalf("%v: Upgrade: %v", w, err)
	}
	if w.pipe { // as if it were a socket
		c.raw = &descriptor{Descriptor: netloop.Descriptor{RawConn: scriptRaw{s}, Of: nc}}
	}
	switch w.reader {
	case "Events":
		s.e.events().ServeWebSocket(c, r)
	case "ReadMessage":
		s.e.serveBlocking(c, r)
	case "NextReader":
		s.e.serveReader(c, r)
	}
}

// cutInTwo returns stream in two pieces, or one if a piece would be empty.
func cutInTwo(stream []byte, at int) [][]byte {
	return slices.DeleteFunc([][]byte{stream[:at], stream[at:]}, func(p []byte) bool { return len(p) == 0 })
}

// inPiecesOf returns stream in pieces of n bytes.
func inPiecesOf(stream []byte, n int) [][]byte {
	return slices.Collect(slices.Chunk(stream, n))
}

// cutsOf returns where to cut a stream of n bytes: everywhere, but in a long
// one only at both ends, about the sizes of the buffers and here and there.
func cutsOf(n int) (cuts []int) {
	for at := range n + 1 {
		near := at < 15 || n-at < 9
		for _, size := range []int{smallSize, batchSize, aheadSize} {
			behind := at + len(conformanceRequest) // the same buffer takes both
			near = near || n < 100_000 && (max(at-size, size-at) < 4 || max(behind-size, size-behind) < 2)
		}
		if n < 1000 || near || at%(n/4) == 0 {
			cuts = append(cuts, at)
		}
	}
	return cuts
}

// Split invariance: a stream gives the same events and the same answers however
// it is cut, also where a deadline passes at the cut, and where the handshake
// and the first frames come together.
func TestConformanceSplits(t *testing.T) {
	t.Parallel()
	for _, w := range servings {
		parts := 1
		if w.loop != nil { // which takes real time
			parts = 4
		}
		for part := range parts {
			t.Run(fmt.Sprintf("%s/%d", w, part), func(t *testing.T) {
				t.Parallel()
				for i, v := range loadConformance(t) {
					if i%parts == part {
						checkSplits(t, w, &v)
					}
					if t.Failed() {
						return
					}
				}
			})
		}
	}
}

func checkSplits(t *testing.T, w serving, v *conformanceCase) {
	stream := []byte(v.request() + string(v.in))
	check := func(what string, at int, pieces [][]byte) {
		o := w.run(t, v, &scriptConn{pieces: pieces})
		if err := o.compare(v.messages, v.answers, v.end); err != nil {
			t.Errorf("case %s: %v, %s %d: % x: %v", v.name, w, what, at, v.in[:min(len(v.in), 100)], err)
		}
	}
	for _, at := range cutsOf(len(v.in)) {
		if w.loop != nil && len(v.in) > 200 && at%3 != 0 { // it takes real time
			continue
		}
		check("cut at", at, cutInTwo(stream, len(v.request())+at))
	}
	for _, n := range []int{1, 7, 1460} {
		if len(stream)/n < 3000 {
			check("pieces of", n, inPiecesOf(stream, n))
		}
	}
}

// The handshake, with a frame behind it, is cut at every byte too.
func TestConformanceHandshakeSplits(t *testing.T) {
	v := &loadConformance(t)[0]
	stream := []byte(conformanceRequest + string(v.in))
	for at := range stream {
		for _, w := range servings {
			o := w.run(t, v, &scriptConn{pieces: cutInTwo(stream, at)})
			if err := o.compare(v.messages, v.answers, v.end); err != nil {
				t.Errorf("case %s: %v, cut at %d: %v", v.name, w, at, err)
			}
		}
	}
}

// Where the last byte decides, nothing was refused before it came.
func TestConformanceSharp(t *testing.T) {
	sharp := 0
	for _, v := range loadConformance(t) {
		if !v.sharp {
			continue
		}
		sharp++
		for _, w := range servings {
			if w.loop != nil { // which doesn't tell when it waits
				continue
			}
			pieces := [][]byte{[]byte(v.request()), v.in[:len(v.in)-1], v.in[len(v.in)-1:]}
			s := &scriptConn{pieces: pieces}
			w.run(t, &v, s)
			_, before, _ := bytes.Cut(s.out[:s.atLast], []byte("\r\n\r\n"))
			got, err := decodeAnswers(before)
			if err != nil || len(s.pieces) > 0 || !sameFrames(got, v.answers[:len(v.answers)-1]) {
				t.Errorf("case %s: %v: before the last byte of % x: got %v, %v; want %v",
					v.name, w, v.in[:min(len(v.in), 100)], got, err, v.answers[:len(v.answers)-1])
			}
		}
	}
	if sharp == 0 {
		t.Error("no case is sharp")
	}
}
