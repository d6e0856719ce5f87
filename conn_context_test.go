package websocket

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/rawws/websocket/internal/deflate"
	"github.com/rawws/websocket/internal/deflate/bitwise"
)

// A contextPeer decompresses what the server sends, bit by bit, with the
// context of all messages that came before.
type contextPeer struct {
	*peer
	window   int
	before   []byte
	farthest int
}

// message returns the next message, in one frame or several, and the length of
// its payload.
func (p *contextPeer) message() (op opcode, deflated bool, message string, size int) {
	p.Helper()
	payload := ""
	for fin := false; !fin; {
		h, piece, err := p.anyFrame()
		if err != nil {
			p.Fatalf("peer: %v; want a message", err)
		}
		if h.opcode.control() {
			continue
		}
		if h.opcode != opContinuation {
			op, deflated = h.opcode, h.rsv1
		}
		payload += piece
		fin = h.fin
	}
	if !deflated {
		return op, false, payload, len(payload)
	}
	m := bitwise.Message{In: []byte(payload), Out: bytes.Clone(p.before)}
	if err := m.Decode(); err != nil {
		p.Fatalf("peer: % x...: %v", payload[:min(len(payload), 40)], err)
	}
	p.farthest = max(p.farthest, m.Farthest)
	message = string(m.Out[len(p.before):])
	p.before = m.Out[max(0, len(m.Out)-p.window):]
	return op, true, message, len(payload)
}

func (p *contextPeer) wantMessage(want string, deflated bool) (size int) {
	p.Helper()
	op, d, got, size := p.message()
	if op != opText || d != deflated || got != want {
		p.Fatalf("peer: got %v %s, compressed %v; want text %s, %v", op, quote(got), d, quote(want), deflated)
	}
	return size
}

// Whichever way a message is sent, it becomes part of the context or it
// doesn't, for both sides alike.
func TestServerContext(t *testing.T) {
	for _, tt := range []struct {
		offer  string
		bits   int
		window int
	}{
		{"permessage-deflate", 0, 32 << 10},
		{"permessage-deflate; client_max_window_bits", 12, 4 << 10},
		{"permessage-deflate; server_max_window_bits=9", 12, 512},
		{"permessage-deflate; server_max_window_bits=8; client_no_context_takeover", 0, 256},
	} {
		u := &Upgrader{Compression: &Compression{Threshold: 50, ServerContext: true, WindowBits: tt.bits, FrameSize: 300}}
		c, raw := connectDeflate(t, u, tcpPair, tt.offer)
		p := &contextPeer{peer: raw, window: tt.window}
		first, later := 0, 0
		for i := range 60 {
			message := fmt.Sprintf(`{"type":"update","id":%d,"price":%d.50,"active":true,"tags":["one","two","three"]}`, i, i*7)
			if err := c.WriteMessage(TextMessage, []byte(message)); err != nil {
				t.Fatal(err)
			}
			if later = p.wantMessage(message, true); i == 0 {
				first = later
			}
			send(t, c, i, message)
			p.wantMessage(longer(i, message), i%4 != 3)
		}
		if tt.window > 1000 && 2*later > first {
			t.Errorf("%s: the first message took %d bytes and the last %d, want less than half", tt.offer, first, later)
		}
		if p.farthest > tt.window {
			t.Errorf("%s: reaches back %d bytes, want at most %d", tt.offer, p.farthest, tt.window)
		}
		end(c, raw)
	}
}

// longer is the i-th message that send sends.
func longer(i int, message string) string {
	if i%4 == 3 {
		return "short, and plain"
	}
	return strings.Repeat(message, 1+i%3)
}

// send sends longer(i, message) in one of the ways there are.
func send(t *testing.T, c *Conn, i int, message string) {
	t.Helper()
	m := longer(i, message)
	prepared := NewPreparedMessage(TextMessage, []byte(m))
	var err error
	switch i % 4 {
	case 0:
		err = c.WritePrepared(prepared)
	case 1:
		err = c.Send(prepared)
	case 2:
		var w io.WriteCloser
		if w, err = c.NextWriter(TextMessage); err == nil {
			io.WriteString(w, m[:len(m)/2])
			io.WriteString(w, m[len(m)/2:])
			err = w.Close()
		}
	case 3:
		err = c.WriteMessage(TextMessage, []byte(m))
	}
	if err != nil {
		t.Fatalf("message %d: %v", i, err)
	}
}

// Messages of many goroutines leave in some order, and are compressed in that.
func TestServerContextConcurrently(t *testing.T) {
	u := &Upgrader{Compression: &Compression{Threshold: -1, ServerContext: true, WindowBits: 10, FrameSize: 100}}
	c, raw := connectDeflate(t, u, tcpPair, "permessage-deflate")
	p := &contextPeer{peer: raw, window: 1 << 10}
	const senders, each = 4, 40
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			for i := range each {
				send(t, c, s, fmt.Sprintf(`{"sender":%d,"message":%d,"tags":["one","two"]}`, s, i))
			}
		})
	}
	plain := 0
	for range senders * each {
		if _, deflated, m, _ := p.message(); !deflated || m == "" {
			t.Errorf("got %s, compressed %v", quote(m), deflated)
		} else if m == "short, and plain" {
			plain++
		}
	}
	wg.Wait()
	if plain != each {
		t.Errorf("got %d messages of the sender that sends the same, want %d", plain, each)
	}
}

// Wherever the bytes of the client are cut, the answers are the same,
// with contexts both ways.
func TestContextsCutAtEveryByte(t *testing.T) {
	client := deflate.NewCompressor(12, deflate.Better)
	var stream []byte
	var messages []string
	for i := range 6 {
		m := fmt.Sprintf(`{"type":"update","id":%d,"price":%d.50,"tags":["one","two"]}`, i, i*7)
		payload := string(client.Append(nil, []byte(m), true))
		if i%2 == 0 {
			stream = append(stream, withRSV1(textFrame(payload))...)
		} else {
			stream = append(stream, withRSV1(clientFrame(opText, false, payload[:3]))...)
			stream = append(stream, clientFrame(opPing, true, "between")...)
			stream = append(stream, clientFrame(opContinuation, true, payload[3:])...)
		}
		messages = append(messages, m)
	}
	var whole string
	for cut := range stream {
		u := &Upgrader{Compression: &Compression{Threshold: -1, ServerContext: true}}
		c, raw := connectDeflate(t, u, pipePair, "permessage-deflate; client_max_window_bits=12")
		go echoEvents().ServeWebSocket(c, nil)
		go func() {
			raw.nc.Write(stream[:cut])
			raw.nc.Write(stream[cut:])
		}()
		p := &contextPeer{peer: raw, window: 32 << 10}
		var answers strings.Builder
		for _, m := range messages {
			size := p.wantMessage(m, true)
			fmt.Fprintf(&answers, "%d ", size)
		}
		if cut == 0 {
			whole = answers.String()
		} else if got := answers.String(); got != whole {
			t.Errorf("cut at %d: answers of %sbytes, want %s", cut, got, whole)
		}
		end(c, raw)
	}
}

// extensions is what the answer to an offer holds.
func extensions(t *testing.T, u *Upgrader, offer string) (c *Conn, p *peer, answer string) {
	t.Helper()
	c, p = connectBy(t, u, pipePair, func(p *peer) {
		p.send([]byte(strings.TrimSuffix(peerRequest, "\r\n") + "Sec-WebSocket-Extensions: " + offer + "\r\n\r\n"))
		for !bytes.Contains(p.in, []byte("\r\n\r\n")) {
			if err := p.receive(); err != nil {
				p.Fatalf("peer: read %q, then %v; want the answer's end", p.in, err)
			}
		}
		head, rest, _ := bytes.Cut(p.in, []byte("\r\n\r\n"))
		p.in = rest
		for line := range strings.SplitSeq(string(head), "\r\n") {
			if value, ok := strings.CutPrefix(line, "Sec-WebSocket-Extensions: "); ok {
				answer = value
			}
		}
	})
	return c, p, answer
}

// Once the contexts of all connections may take what ContextMemory allows, new
// ones keep none, until one has ended.
func TestContextMemory(t *testing.T) {
	const offer, forgets = "permessage-deflate; client_max_window_bits=10", "permessage-deflate; client_no_context_takeover"
	before := contextMemory.Load()
	u := &Upgrader{Compression: &Compression{ServerContext: true, WindowBits: 12, ContextMemory: before + 1}}
	c, p, answer := extensions(t, u, offer)
	if want := "permessage-deflate; client_max_window_bits=10"; answer != want || c.deflate.window == nil || c.deflate.out == nil {
		t.Errorf("the first connection: %q, %+v; want %q and two contexts", answer, c.deflate, want)
	}
	if got, want := contextMemory.Load()-before, int64(1<<10+12<<10); got != want {
		t.Errorf("a connection's contexts may take %d bytes, want %d", got, want)
	}
	for _, tt := range []struct{ offer, want string }{{offer, ""}, {"permessage-deflate", ""}, {forgets, forgets}, {offer + ", " + forgets, forgets}} {
		c, p, answer := extensions(t, u, tt.offer)
		if answer != tt.want || (c.deflate == nil) != (tt.want == "") || c.deflate != nil && c.deflate != &withoutContext[12] {
			t.Errorf("offer %q over the limit: answer %q, %+v; want %q and no context", tt.offer, answer, c.deflate, tt.want)
		}
		end(c, p)
	}
	end(c, p)
	if got := contextMemory.Load(); got != before {
		t.Errorf("%d bytes are promised after the end, want %d", got, before)
	}
	c, p, answer = extensions(t, u, offer)
	if want := "permessage-deflate; client_max_window_bits=10"; answer != want {
		t.Errorf("when the first had ended: %q, want %q", answer, want)
	}
	end(c, p)
}

// end ends both sides.
func end(c *Conn, p *peer) {
	c.CloseNow()
	p.nc.Close()
}

// A server that keeps none tells clients so.
func TestNoContextMemory(t *testing.T) {
	u := &Upgrader{Compression: &Compression{ServerContext: true, ContextMemory: -1}}
	c, p, answer := extensions(t, u, "permessage-deflate")
	if want := "permessage-deflate; client_no_context_takeover"; answer != want || c.deflate != &withoutContext[15] {
		t.Errorf("answer %q, %+v; want %q and no context", answer, c.deflate, want)
	}
	end(c, p)
}

// What a connection costs more that uses contexts of 4 KiB both ways.
func TestContextsAreSmall(t *testing.T) {
	n := uint64(1000)
	if raceDetector {
		n = 400
	}
	message, payload := sampleJSON(9000), compressed(sampleJSON(9000))
	params := deflate.Params{ServerContext: true, ClientContext: true, ServerBits: 12, ClientBits: 12}
	states := make([]*deflateState, n)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.GC() // of what the pools still held behind the first
	runtime.ReadMemStats(&before)
	for i := range states {
		d := newDeflateState(params, deflate.Fast)
		d.out.Append(nil, message, true)
		if _, err := deflate.Decompress(nil, payload, d.window, -1); err != nil {
			t.Fatal(err)
		}
		states[i] = d
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if got := int64(after.HeapAlloc-before.HeapAlloc) / int64(n); got > 17<<10 { // less than nothing if others have freed theirs
		t.Errorf("contexts of 4 KiB both ways take %d bytes, want at most 17 KiB", got)
	}
	runtime.KeepAlive(states)
}

// A client that leaves before its answer is promised nothing.
func TestContextMemoryOfNoConnection(t *testing.T) {
	before := contextMemory.Load()
	ours, theirs := net.Pipe()
	failed := make(chan error)
	go func() {
		_, _, err := (&Upgrader{Compression: new(Compression)}).Upgrade(ours)
		failed <- err
	}()
	io.WriteString(theirs, strings.TrimSuffix(peerRequest, "\r\n")+"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
	theirs.Close()
	if err := <-failed; err == nil {
		t.Error("Upgrade = nil, want an error")
	}
	if got := contextMemory.Load(); got != before {
		t.Errorf("%d bytes are promised, want %d", got, before)
	}
}

// A handshake that a server's end refuses at the last moment is promised nothing.
func TestContextMemoryAtShutdown(t *testing.T) {
	before := contextMemory.Load()
	s := &Server{Handler: Events{}}
	s.Upgrader.Compression = new(Compression)
	s.Upgrader.OnUpgrade = func(*http.Request, *Accept) error {
		go s.Shutdown(t.Context())
		for !s.stopping.Load() {
			runtime.Gosched()
		}
		return nil
	}
	p := serveTCP(t, s)()
	p.send([]byte(strings.TrimSuffix(peerRequest, "\r\n") + "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"))
	for p.receive() == nil {
	}
	if !bytes.HasPrefix(p.in, []byte("HTTP/1.1 503 ")) {
		t.Errorf("answer %q; want 503", p.in)
	}
	if got := contextMemory.Load(); got != before {
		t.Errorf("%d bytes are promised, want %d", got, before)
	}
}

// Handshakes that wait for OnUpgrade at the same time aren't all promised what is
// left for one.
func TestContextMemoryOfManyHandshakes(t *testing.T) {
	const clients = 5
	asked, decide := make(chan bool), make(chan bool)
	u := &Upgrader{Compression: &Compression{ContextMemory: contextMemory.Load() + 1}}
	u.OnUpgrade = func(*http.Request, *Accept) error {
		asked <- true
		<-decide
		return nil
	}
	conns := make(chan *Conn)
	for range clients {
		ours, theirs := net.Pipe()
		go func() {
			c, _, _ := u.Upgrade(ours)
			conns <- c
		}()
		go io.Copy(io.Discard, theirs)
		go io.WriteString(theirs, strings.TrimSuffix(peerRequest, "\r\n")+"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
		defer theirs.Close()
		<-asked
	}
	compressed := 0
	for range clients {
		decide <- true
		c := <-conns
		defer c.CloseNow()
		if c.deflate != nil {
			compressed++
		}
	}
	if compressed != 1 {
		t.Errorf("%d of %d connections have a context, want 1", compressed, clients)
	}
}
