package websocket

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var update = flag.Bool("update", false, "write testdata/trace.txt anew, to be read before it is committed")

// A wireScript is what a client does to an echo server, to see what a text
// trace says of it. The frames it sends come in one write.
type wireScript struct {
	name    string
	u       Upgrader
	request string // peerRequest when empty
	frames  [][]byte
	cut     bool // the client closes its socket behind that
}

var wireScripts = []wireScript{
	{name: "the examples of section 5.7", frames: [][]byte{
		textFrame("Hello"),
		clientFrame(opText, false, "Hel"), clientFrame(opPing, true, "Hello"), clientFrame(opContinuation, true, "lo"),
		clientFrame(opBinary, true, strings.Repeat("\xff", 256)),
		closeFrame(CloseNormal, "bye"),
	}},
	{name: "the three forms of the length", frames: [][]byte{
		clientFrame(opBinary, true, strings.Repeat("a", 125)),
		clientFrame(opBinary, true, strings.Repeat("b", 126)),
		clientFrame(opBinary, true, strings.Repeat("c", 1<<16)),
		clientFrame(opBinary, true, ""),
		closeFrame(CloseNoStatus, ""),
	}},
	{name: "not masked", frames: [][]byte{appendHeader(nil, header{fin: true, opcode: opText, length: 5}), []byte("Hello")}},
	{name: "a reserved bit", frames: [][]byte{{0xa1, 0x85, 1, 2}}},
	{name: "a reserved opcode, of which no more came than what condemns it", frames: [][]byte{{0x83, 0xfe}}},
	{name: "a length not in its shortest form", frames: [][]byte{{0x81, 0xfe, 0, 5, 1, 2, 3, 4}}},
	{name: "a ping over 125 bytes", frames: [][]byte{clientFrame(opPing, true, strings.Repeat("p", 126))}},
	{name: "text that stops being UTF-8", frames: [][]byte{textFrame("caf\xc3\xa9 \xc3( \x1b[2J")}},
	{name: "text that ends inside a character", frames: [][]byte{
		clientFrame(opText, false, "\xf0\x9f\x99"), clientFrame(opContinuation, true, ""),
	}},
	{name: "a close frame of one byte", frames: [][]byte{clientFrame(opClose, true, "\x03")}},
	{name: "over the limit", u: Upgrader{MaxMessageSize: 10}, frames: [][]byte{clientFrame(opBinary, true, "more than 10 bytes")}},
	{name: "a message behind the server's close frame", frames: [][]byte{
		textFrame("close"), textFrame("too late"), clientFrame(opText, true, ""), closeFrame(CloseNormal, ""),
	}},
	{name: "the stream ends inside a frame", frames: [][]byte{textFrame("Hello")[:9]}, cut: true},
	{name: "compressed", u: Upgrader{Compression: &Compression{Threshold: -1}},
		request: strings.Replace(peerRequest, "\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n", 1),
		frames:  [][]byte{clientDeflated("\xf2\x48\xcd\xc9\xc9\x07\x00"), closeFrame(CloseNormal, "")}},
	{name: "refused by us", request: strings.Replace(peerRequest, "Version: 13", "Version: 8\r\nX-Latin: caf\xe9 \"\\\"", 1)},
	{name: "refused by the application", u: Upgrader{OnUpgrade: func(*http.Request, *Accept) error {
		return &HandshakeError{http.StatusUnauthorized, "who are you?"}
	}}},
	{name: "not even HTTP", request: "\x16\x03\x01\x02\x00\r\n"},
	{name: "the stream ends inside the request", request: peerRequest[:20], cut: true},
}

// clientDeflated is a text frame with RSV1 set.
func clientDeflated(payload string) []byte {
	b := textFrame(payload)
	b[0] |= bitRSV1
	return b
}

// run plays the script over a pipe, and returns when the connection has ended.
func (s *wireScript) run(u *Upgrader, size int) {
	server, client := net.Pipe()
	defer client.Close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c, _, err := u.Upgrade(server)
		for err == nil {
			var typ MessageType
			var data []byte
			if typ, data, err = c.ReadMessage(); err != nil {
				break
			}
			if string(data) == "close" {
				c.Close(CloseGoingAway, "enough")
				break
			}
			c.WriteMessage(typ, data)
		}
	}()
	answers := make(chan struct{})
	go func() {
		io.Copy(io.Discard, client)
		close(answers)
	}()
	request := s.request
	if request == "" {
		request = peerRequest
	}
	all := append([]byte(request), bytes.Join(s.frames, nil)...)
	for len(all) > 0 {
		n := len(request) // a request and what follows it are two writes
		if size > 0 {
			n = size
		}
		client.Write(all[:min(n, len(all))])
		all = all[min(n, len(all)):]
	}
	if s.cut {
		client.Close()
	}
	<-ended
	<-answers
}

// trace returns the text of the script, whose bytes come in pieces of that size.
func (s *wireScript) trace(t *testing.T, size int) string {
	var b bytes.Buffer
	u := s.u
	u.Trace = NewTextTrace(&b)
	synctest.Test(t, func(t *testing.T) { s.run(&u, size) }) // where nobody waits for a linger
	return b.String()
}

// The trace shows frames, not the pieces in which TCP brings them.
func TestTextTraceOfPieces(t *testing.T) {
	for _, s := range wireScripts {
		want := s.trace(t, 0)
		if strings.Contains(want, "error  ") {
			continue // of a frame that is wrong, what has come is shown
		}
		for _, size := range []int{1, 3, 100} {
			if got := s.trace(t, size); got != want {
				t.Errorf("%s: in pieces of %d bytes, got\n%s\nwant\n%s", s.name, size, got, want)
			}
		}
	}
}

func TestTextTrace(t *testing.T) {
	var got bytes.Buffer
	for i, s := range wireScripts {
		text := s.trace(t, 0)
		if i > 0 && s.request == "" { // the handshake that was shown before
			_, text, _ = strings.Cut(text, "#1 open\n")
		}
		fmt.Fprintf(&got, "== %s\n%s\n", s.name, text)
	}
	const name = "testdata/trace.txt"
	if *update {
		if err := os.WriteFile(name, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	section := ""
	wantLines, gotLines := strings.Split(string(want), "\n"), strings.Split(got.String(), "\n")
	for i := range max(len(gotLines), len(wantLines)) {
		var g, w string
		if i < len(gotLines) {
			g = gotLines[i]
		}
		if i < len(wantLines) {
			w = wantLines[i]
		}
		if strings.HasPrefix(w, "== ") {
			section = w
		}
		if g != w {
			t.Fatalf("%s:%d, in %q: got\n%s\nwant\n%s", name, i+1, section, g, w)
		}
	}
}

// A hookLog is a Trace that notes which hooks are called.
type hookLog struct {
	Trace
	mu    sync.Mutex
	calls []string
	ended chan struct{} // closed by Closed
}

func newHookLog() *hookLog {
	l := &hookLog{ended: make(chan struct{})}
	l.Trace = Trace{
		Accepted: func(id uint64, nc net.Conn) { l.add("%d accepted", id) },
		Request:  func(id uint64, head []byte) { l.add("%d request %q", id, head) },
		Answer: func(id uint64, key, accept string, head []byte) {
			l.add("%d answer %q %q", id, accept, head[:len("HTTP/1.1 101")])
		},
		FrameRead:    func(id uint64, f *TraceFrame) { l.add("%d read %#x %q", id, f.Opcode, f.Payload) },
		FrameWritten: func(id uint64, f *TraceFrame) { l.add("%d write %#x %q", id, f.Opcode, f.Payload) },
		State:        func(id uint64, state string) { l.add("%d %s", id, state) },
		Closed: func(id uint64, err error) {
			l.add("%d closed %v", id, err)
			close(l.ended)
		},
	}
	return l
}

func (l *hookLog) add(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, fmt.Sprintf(format, args...))
}

func (l *hookLog) want(t *testing.T, want ...string) {
	t.Helper()
	<-l.ended
	l.mu.Lock()
	defer l.mu.Unlock()
	if got := strings.Join(l.calls, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("hooks:\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

const acceptOfPeerKey = `"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="`

// Every way of writing a frame is seen.
func TestTraceWrites(t *testing.T) {
	l := newHookLog()
	c, p := connect(t, &Upgrader{Trace: &l.Trace}, tcpPair)
	prepared := NewPreparedMessage(TextMessage, []byte("prepared"))
	steps := []func() error{
		func() error { return c.WriteMessage(BinaryMessage, []byte("message")) },
		func() error { return c.WritePrepared(prepared) },
		func() error { return c.Send(prepared) },
		func() error { return c.Ping([]byte("ping")) },
		func() error {
			if !c.tryControl(opPing, []byte("keep-alive")) {
				return errWriter
			}
			return nil
		},
		func() error {
			w, err := c.NextWriter(TextMessage)
			if err != nil {
				return err
			}
			io.WriteString(w, "streamed")
			return w.Close()
		},
	}
	for i, step := range steps {
		if err := step(); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		if _, _, err := p.frame(); err != nil { // Send leaves it to a goroutine
			t.Fatalf("step %d: %v", i, err)
		}
	}
	c.CloseNow()
	l.want(t, "1 accepted", fmt.Sprintf("1 request %q", peerRequest), `1 answer `+acceptOfPeerKey+` "HTTP/1.1 101"`, "1 open",
		`1 write 0x2 "message"`, `1 write 0x1 "prepared"`, `1 write 0x1 "prepared"`,
		`1 write 0x9 "ping"`, `1 write 0x9 "keep-alive"`, `1 write 0x1 "streamed"`,
		"1 closed", "1 closed websocket: connection cut by the server")
}

// A connection that asks for a page stays traced, while net/http has it and
// when it is upgraded after all.
func TestTracePlainHTTP(t *testing.T) {
	l := newHookLog()
	s := &Server{
		Handler:  Events{},
		Upgrader: Upgrader{Trace: &l.Trace},
		HTTP:     http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "page") }),
	}
	ln := listen(t)
	go s.Serve(ln)
	defer s.Close()
	nc, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	p := newPeer(t, nc)
	const page = "GET / HTTP/1.1\r\nHost: server.example\r\n\r\n"
	p.send([]byte(page))
	for !strings.HasSuffix(string(p.in), "page") {
		if err := p.receive(); err != nil {
			t.Fatalf("got %q, %v; want the page", p.in, err)
		}
	}
	p.in = nil
	p.handshake()
	p.closeWith(CloseNormal, "")
	restored := "GET /chat HTTP/1.1\r\nHost: server.example\r\nConnection: Upgrade\r\nSec-Websocket-Key: " + peerKey +
		"\r\nSec-Websocket-Version: 13\r\nUpgrade: websocket\r\n\r\n"
	l.want(t, "1 accepted", fmt.Sprintf("1 request %q", page), "1 http",
		fmt.Sprintf("1 request %q", restored), `1 answer `+acceptOfPeerKey+` "HTTP/1.1 101"`, "1 open",
		`1 read 0x8 "\x03\xe8"`, "1 closing", `1 write 0x8 "\x03\xe8"`, "1 closed", "1 closed websocket: peer closed with 1000")
}

func TestTracePlainHTTPCloses(t *testing.T) {
	l := newHookLog()
	s := &Server{Upgrader: Upgrader{Trace: &l.Trace}, HTTP: http.NotFoundHandler()}
	ln := listen(t)
	go s.Serve(ln)
	defer s.Close()
	nc, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	const page = "GET / HTTP/1.1\r\nHost: server.example\r\n\r\n"
	io.WriteString(nc, page)
	nc.Close()
	l.want(t, "1 accepted", fmt.Sprintf("1 request %q", page), "1 http", "1 closed <nil>")
}

// Behind net/http a connection is seen from the moment it is taken over.
func TestTraceUpgradeHTTP(t *testing.T) {
	l := newHookLog()
	u := &Upgrader{Trace: &l.Trace}
	hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := u.UpgradeHTTP(w, r)
		if err != nil {
			t.Errorf("UpgradeHTTP: %v", err)
			return
		}
		c.CloseNow()
	}))
	defer hs.Close()
	nc, err := net.Dial("tcp", hs.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	newPeer(t, nc).handshake()
	<-l.ended
	if got, want := l.calls[0], "1 accepted"; got != want {
		t.Errorf("the first hook is %q, want %q", got, want)
	}
	if got, want := l.calls[1], `1 request "GET /chat HTTP/1.1\r\nHost: server.example\r\n`; !strings.HasPrefix(got, want) {
		t.Errorf("the second hook is %q, want %q", got, want)
	}
}

// Hooks that are nil aren't called.
func TestTraceWithoutHooks(t *testing.T) {
	for _, s := range wireScripts {
		u := s.u
		u.Trace = new(Trace)
		synctest.Test(t, func(t *testing.T) { s.run(&u, 0) })
	}
}

func TestTraceMaxPayload(t *testing.T) {
	for limit, want := range map[int]int{0: 256, -1: 0, 1: 1, 300: 300, 5000: 1000} {
		var seen []*TraceFrame
		note := func(id uint64, f *TraceFrame) {
			c := *f
			seen = append(seen, &c)
		}
		u := &Upgrader{Trace: &Trace{MaxPayload: limit, FrameRead: note, FrameWritten: note}}
		s := wireScript{frames: [][]byte{textFrame(strings.Repeat("x", 1000)), closeFrame(CloseNormal, "")}}
		synctest.Test(t, func(t *testing.T) { s.run(u, 100) })
		for _, f := range seen[:2] { // the message and its echo
			if len(f.Wire) != want || len(f.Payload) != want || f.Seen != 1000 || f.Length != 1000 {
				t.Errorf("MaxPayload %d: a frame of %d bytes with %d on the wire, %d unmasked, %d seen; want %d of 1000",
					limit, f.Length, len(f.Wire), len(f.Payload), f.Seen, want)
			}
		}
	}
}

// A wholeEvents fails for a write that isn't one event, or while another runs.
type wholeEvents struct {
	testing.TB
	mu sync.Mutex
}

func (w *wholeEvents) Write(p []byte) (int, error) {
	if !w.mu.TryLock() {
		w.Error("two events at the same time")
		return len(p), nil
	}
	defer w.mu.Unlock()
	if p[0] != '#' || bytes.Contains(p, []byte("\n#")) || p[len(p)-1] != '\n' {
		w.Errorf("not one event: %q", p)
	}
	return len(p), nil
}

func TestTextTraceConcurrent(t *testing.T) {
	u := &Upgrader{Trace: NewTextTrace(&wholeEvents{TB: t})}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			s := wireScripts[0]
			s.run(u, 0)
		})
	}
	wg.Wait()
}

// A panickyWriter panics at its first Write.
type panickyWriter struct {
	wholeEvents
	n int
}

func (w *panickyWriter) Write(p []byte) (int, error) {
	if w.n++; w.n == 1 {
		panic("no log")
	}
	return w.wholeEvents.Write(p)
}

// A writer that panics costs the event that it panicked at, and nothing else.
func TestTextTraceOfPanickyWriter(t *testing.T) {
	log := new(logBook)
	w := &panickyWriter{wholeEvents: wholeEvents{TB: t}}
	dial := serveTCP(t, &Server{
		Handler:  Events{OnMessage: func(c *Conn, typ MessageType, p []byte) { c.WriteMessage(typ, p) }},
		Upgrader: Upgrader{Trace: NewTextTrace(w)},
		ErrorLog: log.logger(),
	})
	p := dial()
	p.handshake()
	p.sendText("hello")
	p.want(opText, "hello")
	p.closeWith(CloseNormal, "")
	if lines := log.all(); len(lines) != 1 || !strings.Contains(lines[0], "no log") {
		t.Errorf("log: %q; want one panic", lines)
	}
}

// A replayer is a client that sends the same frames again and again, and takes
// every answer.
type replayer struct {
	net.Conn // a pipe's end, for its addresses
	frames   []byte
	left     int
}

func (r *replayer) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	r.left--
	return copy(p, r.frames), nil
}

func (r *replayer) Write(p []byte) (int, error)      { return len(p), nil }
func (r *replayer) Close() error                     { return nil }
func (r *replayer) SetDeadline(time.Time) error      { return nil }
func (r *replayer) SetReadDeadline(time.Time) error  { return nil }
func (r *replayer) SetWriteDeadline(time.Time) error { return nil }

// What a frame that is read and one that is written cost, without the network.
func BenchmarkTrace(b *testing.B) {
	end, _ := net.Pipe()
	for _, bench := range []struct {
		name  string
		trace *Trace
	}{
		{"nil", nil},
		{"no hooks", new(Trace)},
		{"text", NewTextTrace(io.Discard)},
	} {
		b.Run(bench.name, func(b *testing.B) {
			nc := &replayer{Conn: end, frames: textFrame(strings.Repeat("x", 125))}
			u := &Upgrader{Trace: bench.trace}
			reg := &registry{u: u}
			c := newConn(nc, reg, bench.trace.accepted(nc, reg))
			reg.add(c)
			defer c.CloseNow()
			buf := make([]byte, 0, 256)
			b.ReportAllocs()
			for b.Loop() {
				nc.left = 1
				typ, p, err := c.AppendMessage(buf)
				if err != nil {
					b.Fatal(err)
				}
				if err := c.WriteMessage(typ, p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Closed comes behind the last FrameWritten, also where the connection is cut while a
// frame is shown.
func TestTraceClosedIsBehindTheWrites(t *testing.T) {
	cut, closed := make(chan struct{}), make(chan struct{})
	u := &Upgrader{Trace: &Trace{
		State: func(_ uint64, state string) {
			if state == "closed" {
				close(cut)
			}
		},
		FrameWritten: func(uint64, *TraceFrame) {
			<-cut
			select {
			case <-closed:
				t.Error("Closed while a frame was shown that is about to be written")
			case <-time.After(50 * time.Millisecond):
			}
		},
		Closed: func(uint64, error) { close(closed) },
	}}
	c, p := connect(t, u, tcpPair)
	written := make(chan error, 1)
	go func() { written <- c.WriteMessage(TextMessage, []byte("shown")) }()
	eventually(t, "the writer is at work", func() bool {
		idle := c.write.mu.TryLock()
		if idle {
			c.write.mu.Unlock()
		}
		return !idle
	})
	c.CloseNow()
	<-closed
	if err := <-written; err == nil {
		t.Error("the write = nil, want an error")
	}
	p.wantEnd()
}
