package websocket

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Frames of many writers come whole, one after the other, each writer's in its
// order, and nothing but control frames inside a message of several.
func TestWritersDontInterleave(t *testing.T) {
	const writers, each = 8, 60
	overTransports(t, func(t *testing.T, pair transport) {
		c, p := connect(t, new(Upgrader), pair)
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for n := range each {
					if err := writeNumbered(c, w, n); err != nil {
						t.Errorf("writer %d, message %d: %v", w, n, err)
						return
					}
				}
			})
		}
		var next [writers]int
		pings := 0
		message := ""
		for got := 0; got < writers*each; {
			h, payload, err := p.frame()
			if err != nil {
				t.Fatal(err)
			}
			if h.opcode == opPing {
				pings++
				continue
			}
			if (h.opcode == opContinuation) != (message != "") {
				t.Fatalf("%v frame with %d bytes of a message before it", h.opcode, len(message))
			}
			if message += payload; h.fin {
				checkNumbered(t, message, &next)
				message = ""
				got++
			}
		}
		wg.Wait()
		if pings != writers*each/5 {
			t.Errorf("%d pings came, want %d", pings, writers*each/5)
		}
	})
}

// writeNumbered writes message n of writer w, in each way that there is.
func writeNumbered(c *Conn, w, n int) error {
	sizes := []int{10, 200, 5000, 40000}
	message := fmt.Appendf(nil, "%d %d ", w, n)
	message = append(message, bytes.Repeat([]byte{'a' + byte(w)}, sizes[n%len(sizes)])...)
	if n%5 == 0 {
		if err := c.Ping(message[:4]); err != nil {
			return err
		}
	}
	if n%3 != 0 {
		return c.WriteMessage(BinaryMessage, message)
	}
	m, err := c.NextWriter(TextMessage)
	if err != nil {
		return err
	}
	for len(message) > 0 {
		piece := message[:min(len(message), 7777)]
		if _, err := m.Write(piece); err != nil {
			return err
		}
		message = message[len(piece):]
	}
	return m.Close()
}

func checkNumbered(t *testing.T, message string, next *[8]int) {
	t.Helper()
	var w, n int
	if _, err := fmt.Sscanf(message, "%d %d ", &w, &n); err != nil {
		t.Fatalf("message %s: %v", quote(message), err)
	}
	if n != next[w] {
		t.Fatalf("writer %d: message %d, want %d", w, n, next[w])
	}
	next[w]++
	fill := message[strings.LastIndexByte(message, ' ')+1:]
	if strings.Trim(fill, string(rune('a'+w))) != "" {
		t.Fatalf("writer %d: other bytes in message %d: %s", w, n, quote(fill))
	}
}

// WriteMessage masks nothing and changes nothing of the caller's.
func TestWriteLeavesThePayload(t *testing.T) {
	c, p := connect(t, new(Upgrader), tcpPair)
	for _, size := range []int{5, 100000} {
		payload := bytes.Repeat([]byte("x"), size)
		if err := c.WriteMessage(BinaryMessage, payload); err != nil {
			t.Fatal(err)
		}
		p.want(opBinary, strings.Repeat("x", size))
		if !bytes.Equal(payload, bytes.Repeat([]byte("x"), size)) {
			t.Errorf("WriteMessage changed its payload of %d bytes", size)
		}
	}
}

func TestWriteRefusals(t *testing.T) {
	c, p := connect(t, new(Upgrader), tcpPair)
	for _, typ := range []MessageType{0, MessageType(opPing), MessageType(opClose), 3} {
		if err := c.WriteMessage(typ, nil); err == nil {
			t.Errorf("WriteMessage(%v) = nil, want an error", typ)
		}
		if _, err := c.NextWriter(typ); err == nil {
			t.Errorf("NextWriter(%v) = nil, want an error", typ)
		}
	}
	if err := c.Ping(make([]byte, 126)); err == nil {
		t.Error("Ping of 126 bytes = nil, want an error")
	}
	if err := c.Flush(); err != nil {
		t.Errorf("Flush with nothing held back: %v", err)
	}
	if err := c.Ping([]byte("all of it is left out")); err != nil {
		t.Errorf("Ping after the refusals: %v", err)
	}
	p.want(opPing, "all of it is left out")
}

func TestNextWriterFrames(t *testing.T) {
	tests := []struct{ size, piece, frames int }{
		{0, 1, 1}, {1, 1, 1}, {16384, 16384, 1}, {16385, 16385, 2}, {40 << 10, 1000, 3}, {48 << 10, 48 << 10, 3},
	}
	overTransports(t, func(t *testing.T, pair transport) {
		c, p := connect(t, new(Upgrader), pair)
		for _, test := range tests {
			message := strings.Repeat("0123456789", test.size/10+1)[:test.size]
			wrote := make(chan error, 1)
			go func() { wrote <- writeInPieces(c, message, test.piece) }()
			got, frames := "", 0
			for fin := false; !fin; frames++ {
				h, payload, err := p.frame()
				if err != nil {
					t.Fatal(err)
				}
				if first := frames == 0; first != (h.opcode == opText) || !first && h.opcode != opContinuation {
					t.Fatalf("frame %d is %v", frames, h.opcode)
				}
				got += payload
				fin = h.fin
			}
			if got != message || frames != test.frames {
				t.Errorf("%d bytes by %d came as %d bytes in %d frames, want %d frames", test.size, test.piece, len(got), frames, test.frames)
			}
			if err := <-wrote; err != nil {
				t.Errorf("%d bytes by %d: %v", test.size, test.piece, err)
			}
		}
	})
}

func writeInPieces(c *Conn, message string, piece int) error {
	m, err := c.NextWriter(TextMessage)
	if err != nil {
		return err
	}
	for ; len(message) > piece; message = message[piece:] {
		if n, err := io.WriteString(m, message[:piece]); n != piece || err != nil {
			return fmt.Errorf("Write of %d = %d, %w", piece, n, err)
		}
	}
	if n, err := io.WriteString(m, message); n != len(message) || err != nil {
		return fmt.Errorf("Write of %d = %d, %w", len(message), n, err)
	}
	return m.Close()
}

// Another message waits for the end of the one that was begun; a ping and a
// pong go between its frames.
func TestNextWriterHoldsMessagesNotControl(t *testing.T) {
	c, p := connect(t, new(Upgrader), tcpPair)
	go c.ReadMessage()
	m, err := c.NextWriter(BinaryMessage)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Write(make([]byte, batchSize+1)); err != nil {
		t.Fatal(err)
	}
	if h, payload, err := p.frame(); h.opcode != opBinary || h.fin || len(payload) != batchSize || err != nil {
		t.Fatalf("got %v (FIN %t) of %d bytes, %v; want a first fragment of %d", h.opcode, h.fin, len(payload), err, batchSize)
	}
	waiting := make(chan error, 2)
	go func() { waiting <- c.WriteMessage(TextMessage, []byte("second")) }()
	go func() { waiting <- writeInPieces(c, "second", 3) }()
	if err := c.Ping([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	p.want(opPing, "ping")
	p.send(clientFrame(opPing, true, "pong"))
	p.want(opPong, "pong")
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if h, payload, err := p.frame(); h.opcode != opContinuation || !h.fin || len(payload) != 1 || err != nil {
		t.Fatalf("got %v (FIN %t) of %d bytes, %v; want the last fragment", h.opcode, h.fin, len(payload), err)
	}
	for range 2 {
		p.want(opText, "second")
		if err := <-waiting; err != nil {
			t.Error(err)
		}
	}
	if n, err := m.Write([]byte("x")); n != 0 || err == nil {
		t.Errorf("Write after Close = %d, %v; want an error", n, err)
	}
	if err := m.Close(); err == nil {
		t.Error("the second Close = nil, want an error")
	}
}

// The connection's end fails a message that was begun, and those behind it.
func TestNextWriterEndsWithTheConnection(t *testing.T) {
	c, p := connect(t, new(Upgrader), tcpPair)
	m, err := c.NextWriter(BinaryMessage)
	if err != nil {
		t.Fatal(err)
	}
	waiting := make(chan error)
	go func() { waiting <- c.WriteMessage(TextMessage, []byte("second")) }()
	c.CloseNow()
	if err := <-waiting; !errors.Is(err, net.ErrClosed) {
		t.Errorf("the WriteMessage that waited: %v, want %v", err, net.ErrClosed)
	}
	if n, err := m.Write(make([]byte, batchSize+1)); n > batchSize || !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write after CloseNow = %d, %v; want %v", n, err, net.ErrClosed)
	}
	if err := m.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Close after CloseNow = %v; want %v", err, net.ErrClosed)
	}
	if _, err := c.NextWriter(TextMessage); !errors.Is(err, net.ErrClosed) {
		t.Errorf("NextWriter after CloseNow = %v; want %v", err, net.ErrClosed)
	}
	p.wantEnd()
}

// Half a frame may stand on the stream after a write deadline, so nothing can
// follow: the connection is cut, and the reads say so.
func TestWriteDeadlineCuts(t *testing.T) {
	overTransports(t, func(t *testing.T, pair transport) {
		c, p := connect(t, new(Upgrader), pair)
		if _, ok := p.nc.(*net.TCPConn); ok {
			p.takeLittle()
		}
		c.SetWriteDeadline(time.Now().Add(time.Hour))
		wrote := make(chan error, 1)
		go func() { wrote <- c.WriteMessage(BinaryMessage, make([]byte, 32<<20)) }()
		waitFor(t, "the write to begin", func() bool { return c.write.underWay() == writeData })
		c.SetWriteDeadline(time.Now())
		err := <-wrote
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("WriteMessage to a peer that doesn't read: %v, want %v", err, os.ErrDeadlineExceeded)
		}
		_, _, err = c.ReadMessage()
		wantEndError(t, err, EndError{By: SidePeer}, os.ErrDeadlineExceeded)
		if err := c.WriteMessage(BinaryMessage, nil); err == nil {
			t.Error("WriteMessage after the write deadline = nil, want an error")
		}
	})
}

// A brokenConn fails its writes.
type brokenConn struct {
	net.Conn
	broken atomic.Bool
}

var errBroken = errors.New("broken pipe")

func (bc *brokenConn) Write(p []byte) (int, error) {
	if bc.broken.Load() {
		return 0, errBroken
	}
	return bc.Conn.Write(p)
}

// A peer that goes away fails the writes first; what it had sent before, the
// close frame too, is still read.
func TestWriteFailureLosesNothingReceived(t *testing.T) {
	server, client := pipePair(t)
	bc := &brokenConn{Conn: server}
	c, p := connect(t, new(Upgrader), func(testing.TB) (net.Conn, net.Conn) { return bc, client })
	bc.broken.Store(true)
	if err := c.WriteMessage(TextMessage, nil); !errors.Is(err, errBroken) {
		t.Errorf("WriteMessage = %v, want %v", err, errBroken)
	}
	go func() {
		p.nc.Write(append(textFrame("one"), textFrame("two")...))
		p.nc.Write(closeFrame(CloseGoingAway, ""))
		p.nc.Close()
	}()
	for _, want := range []string{"one", "two"} {
		if _, got, err := c.ReadMessage(); string(got) != want || err != nil {
			t.Errorf("ReadMessage = %q, %v; want %q", got, err, want)
		}
	}
	_, _, err := c.ReadMessage()
	wantEndError(t, err, EndError{By: SidePeer, Received: CloseGoingAway}, nil)
	if err := c.Ping(nil); !errors.Is(err, errBroken) {
		t.Errorf("Ping = %v, want the first failure: %v", err, errBroken)
	}
}

func TestDeadlinesAfterTheEnd(t *testing.T) {
	c, _ := connect(t, new(Upgrader), tcpPair)
	if err := c.SetDeadline(time.Now().Add(time.Hour)); err != nil {
		t.Errorf("SetDeadline: %v", err)
	}
	c.CloseNow()
	for name, set := range map[string]func(time.Time) error{
		"SetDeadline": c.SetDeadline, "SetReadDeadline": c.SetReadDeadline, "SetWriteDeadline": c.SetWriteDeadline,
	} {
		if err := set(time.Now()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s after CloseNow = %v, want %v", name, err, net.ErrClosed)
		}
	}
}

// What Send takes doesn't care for a write deadline that passed long ago, whoever
// holds the writer when it comes.
func TestSendBehindAWriteDeadline(t *testing.T) {
	opened := make(chan *Conn, 1)
	for name, h := range eitherHandler(func(c *Conn, r *http.Request, _ []byte) {
		if r != nil {
			opened <- c
		}
	}) {
		t.Run(name, func(t *testing.T) {
			overServers(t, func() *Server { return &Server{Handler: h} }, func(t *testing.T, dial dialFunc, _ *Server) {
				client := dial(t)
				client.Handshake("/")
				c := <-opened
				c.SetWriteDeadline(time.Now().Add(-time.Second))
				if err := c.WriteMessage(TextMessage, nil); !isTimeout(err) {
					t.Errorf("WriteMessage behind its deadline = %v", err)
				}
				for _, holds := range []bool{false, true} {
					if holds {
						c.write.mu.Lock()
					}
					if err := c.Send(text("held %t", holds)); err != nil {
						t.Errorf("Send = %v", err)
					}
					if holds { // until the queue has found it so
						waitFor(t, "the queue to be looked at", func() bool {
							d := &c.reg.drains
							d.mu.Lock()
							defer d.mu.Unlock()
							return d.workers == 0
						})
						c.unlockWrite()
					}
					waitFor(t, "the queue to go", func() bool { return c.Queued() == 0 })
					client.WantText(fmt.Sprintf("held %t", holds))
				}
			})
		})
	}
}

// An answer that was written before the deadline and held back leaves behind it: the
// flush at the end of the batch is no write of the application's.
func TestHeldBackBehindAWriteDeadline(t *testing.T) {
	overTransports(t, func(t *testing.T, pair transport) {
		var err error
		for range 20 { // on a busy machine the sweeper may flush before
			if err = flushTooLate(t, pair); errors.Is(err, os.ErrDeadlineExceeded) {
				return
			}
		}
		t.Errorf("Flush behind the deadline = %v, want %v", err, os.ErrDeadlineExceeded)
	})
}

// flushTooLate returns what Flush does when the deadline has passed, with an answer
// held back that came before it.
func flushTooLate(t *testing.T, pair transport) (err error) {
	c, p := connect(t, new(Upgrader), pair)
	flushed := make(chan error, 1)
	serveEvents(t, c, Events{OnMessage: func(c *Conn, typ MessageType, data []byte) {
		if string(data) == "last" {
			c.SetWriteDeadline(time.Now().Add(-time.Second))
			flushed <- c.Flush()
			return
		}
		c.SetWriteDeadline(time.Now().Add(time.Minute))
		if err := c.WriteMessage(typ, data); err != nil {
			t.Errorf("WriteMessage before the deadline = %v", err)
		}
	}})
	go p.nc.Write(append(textFrame("first"), textFrame("last")...))
	p.want(opText, "first")
	p.closeWith(CloseNormal, "")
	return <-flushed
}

// A message of which nothing has left when the write deadline passes leaves the
// connection as it was, and lets others go on, whoever it had waited for.
func TestTooLateToBegin(t *testing.T) {
	overTransports(t, func(t *testing.T, pair transport) {
		c, p := connect(t, new(Upgrader), pair)
		for _, flushes := range []bool{false, true} { // a full buffer would leave before Close
			c.SetWriteDeadline(time.Time{})
			m, err := c.NextWriter(TextMessage)
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(m, "too late")
			c.SetWriteDeadline(time.Now().Add(-time.Second))
			if flushes {
				if _, err := m.Write(make([]byte, 2*batchSize)); err != errLate {
					t.Errorf("Write behind the deadline = %v, want %v", err, errLate)
				}
				c.SetWriteDeadline(time.Time{})
			}
			if err := m.Close(); err != errLate {
				t.Errorf("Close behind the deadline = %v, want %v", err, errLate)
			}
		}
		c.SetWriteDeadline(time.Time{})
		c.write.mu.Lock() // somebody is at work
		written := make(chan error)
		go func() { written <- c.WriteMessage(TextMessage, []byte("too late")) }()
		c.SetWriteDeadline(time.Now().Add(-time.Second))
		c.unlockWrite()
		if err := <-written; err != errLate {
			t.Errorf("WriteMessage whose turn came behind the deadline = %v, want %v", err, errLate)
		}
		c.SetWriteDeadline(time.Time{})
		go c.WriteMessage(TextMessage, []byte("in time"))
		p.want(opText, "in time")
	})
}
