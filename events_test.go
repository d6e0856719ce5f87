package websocket

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A diary notes the events of connections, in their order.
type diary struct {
	mu      sync.Mutex
	entries []string
	ends    chan error // the errors of OnClose
}

func newDiary() *diary { return &diary{ends: make(chan error, 100)} }

func (d *diary) note(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.entries = append(d.entries, fmt.Sprintf(format, args...))
}

func (d *diary) all() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.entries, "; ")
}

func (d *diary) events() Events {
	return Events{
		OnOpen:    func(c *Conn, r *http.Request) { d.note("open %s", r.URL) },
		OnMessage: func(c *Conn, t MessageType, data []byte) { d.note("%v %s", t, data) },
		OnClose: func(c *Conn, err error) {
			var e *EndError
			errors.As(err, &e)
			d.note("close %d by %v", e.Received, e.By)
			d.ends <- err
		},
	}
}

// The same three moments come in the same order whichever way a connection is
// brought to its Events.
func TestEventsInOrder(t *testing.T) {
	ways := map[string]func(Events) Handler{
		"value":   func(e Events) Handler { return e },
		"pointer": func(e Events) Handler { return &e },
		"inside a function": func(e Events) Handler {
			return HandlerFunc(func(c *Conn, r *http.Request) { e.ServeWebSocket(c, r) })
		},
	}
	for name, handler := range ways {
		t.Run(name, func(t *testing.T) {
			d := newDiary()
			dial := serveTCP(t, &Server{Handler: handler(d.events())})
			p := dial()
			p.handshake()
			p.send(textFrame("one"), clientFrame(opBinary, true, "two"))
			p.send(clientFrame(opText, false, "th"), clientFrame(opPing, true, "?"), clientFrame(opContinuation, true, "ree"))
			p.want(opPong, "?")
			p.closeWith(4000, "")
			wantEndError(t, <-d.ends, EndError{By: SidePeer, Sent: 4000, Received: 4000, Clean: true}, nil)
			if got, want := d.all(), "open /chat; text one; binary two; text three; close 4000 by peer"; got != want {
				t.Errorf("events %q, want %q", got, want)
			}
		})
	}
}

func echoEvents() Events {
	return Events{OnMessage: func(c *Conn, t MessageType, data []byte) { c.WriteMessage(t, data) }}
}

// serveEvents serves c by e until the test ends.
func serveEvents(t *testing.T, c *Conn, e Events) {
	done := make(chan struct{})
	go func() {
		e.ServeWebSocket(c, nil)
		close(done)
	}()
	t.Cleanup(func() {
		c.CloseNow()
		<-done
	})
}

func TestEventsEchoOfEverySize(t *testing.T) {
	overTransports(t, func(t *testing.T, pair transport) {
		c, p := connect(t, new(Upgrader), pair)
		serveEvents(t, c, echoEvents())
		for _, size := range echoSizes {
			want := strings.Repeat("0123456789abcdef", size/16+1)[:size]
			half := clientFrame(opText, false, want[:size/2])
			for _, frames := range [][]byte{textFrame(want), append(half, clientFrame(opContinuation, true, want[size/2:])...)} {
				go p.nc.Write(frames)
				p.want(opText, want)
			}
		}
		p.closeWith(CloseNormal, "")
	})
}

// The data on loan is the application's to change until OnMessage returns.
func TestEventsDataMayBeChanged(t *testing.T) {
	c, p := connect(t, new(Upgrader), tcpPair)
	serveEvents(t, c, Events{OnMessage: func(c *Conn, typ MessageType, data []byte) {
		for i := range data {
			data[i] ^= 0x20
		}
		c.WriteMessage(typ, append(data, '!')) // must not run into the next frame
	}})
	p.send(textFrame("one"), textFrame("two"), textFrame("three"))
	for _, want := range []string{"ONE!", "TWO!", "THREE!"} {
		p.want(opText, want)
	}
}

func TestEventsAllNil(t *testing.T) {
	dial := serveTCP(t, &Server{Handler: Events{}})
	p := dial()
	p.handshake()
	p.send(textFrame("ignored"), clientFrame(opPing, true, "not this"))
	p.want(opPong, "not this")
	p.closeWith(CloseNormal, "")
}

// A countedConn is a connection whose writes are counted.
type countedConn struct {
	net.Conn
	writes atomic.Int64
}

func (cc *countedConn) Write(p []byte) (int, error) {
	cc.writes.Add(1)
	return cc.Conn.Write(p)
}

func connectCounted(t *testing.T, pair transport) (*Conn, *peer, *countedConn) {
	server, client := pair(t)
	cc := &countedConn{Conn: server}
	c, p := connect(t, new(Upgrader), func(testing.TB) (net.Conn, net.Conn) { return cc, client })
	cc.writes.Store(0)
	return c, p, cc
}

var (
	hundredTexts = bytes.Repeat(textFrame("twenty bytes of text"), 100)
	longAnswer   = strings.Repeat("2,000 bytes of text.", 100)
)

var batches = []struct {
	name   string
	sent   []byte
	answer func(c *Conn, n int, data []byte) // n counts from 1
	frames int
	writes int64
}{
	{"100 frames", hundredTexts, func(c *Conn, n int, data []byte) { c.WriteMessage(TextMessage, data) }, 100, 1},
	{"no answer to the last", hundredTexts, func(c *Conn, n int, data []byte) {
		if n < 100 {
			c.WriteMessage(TextMessage, data)
		}
	}, 99, 1},
	{"an answer to the first", hundredTexts, func(c *Conn, n int, data []byte) {
		if n == 1 {
			c.WriteMessage(TextMessage, data)
		}
	}, 1, 1},
	{"pings between and behind", bytes.Repeat(append(textFrame("x"), clientFrame(opPing, true, "y")...), 50),
		func(c *Conn, n int, data []byte) { c.WriteMessage(TextMessage, data) }, 100, 1},
	{"half a frame behind", append(hundredTexts[:len(hundredTexts):len(hundredTexts)], textFrame("the next")[:4]...),
		func(c *Conn, n int, data []byte) { c.WriteMessage(TextMessage, data) }, 100, 1},
	{"40 KB of answers", hundredTexts[:20*len(hundredTexts)/100],
		func(c *Conn, n int, data []byte) { c.WriteMessage(TextMessage, []byte(longAnswer)) }, 20, 3},
	{"a flush after each fiftieth", hundredTexts, func(c *Conn, n int, data []byte) {
		if c.WriteMessage(TextMessage, data); n%50 == 0 {
			c.Flush()
		}
	}, 100, 2},
}

// Answers to frames that came in one segment leave in one write, whoever is
// the last of them; and what 16 KiB don't hold makes another. In a bubble, since the
// sweeper would flush in the midst of a batch that takes a quarter of a second.
func TestBatchIsOneWrite(t *testing.T) {
	for _, test := range batches {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, p, cc := connectCounted(t, pipePair)
				n := 0
				serveEvents(t, c, Events{OnMessage: func(c *Conn, _ MessageType, data []byte) {
					n++
					test.answer(c, n, data)
				}})
				p.send(test.sent)
				for i := range test.frames {
					if _, _, err := p.frame(); err != nil {
						t.Fatalf("frame %d: %v", i, err)
					}
				}
				if got := cc.writes.Load(); got != test.writes {
					t.Errorf("%d answers took %d writes, want %d", test.frames, got, test.writes)
				}
			})
		})
	}
}

// Without Events nothing is held back, and Flush has nothing to do.
func TestNoCorkOutsideEvents(t *testing.T) {
	c, p, cc := connectCounted(t, tcpPair)
	p.send(bytes.Repeat(textFrame("x"), 10))
	for range 10 {
		if _, data, err := c.ReadMessage(); err != nil || c.WriteMessage(TextMessage, data) != nil {
			t.Fatalf("echo of %q: %v", data, err)
		}
	}
	if got := cc.writes.Load(); got != 10 {
		t.Errorf("10 answers took %d writes, want 10", got)
	}
}

// What an OnMessage that goes on for long wrote reaches the peer by Flush, and
// what other goroutines write meanwhile keeps its order.
func TestFlushInsideOnMessage(t *testing.T) {
	c, p := connect(t, new(Upgrader), tcpPair)
	arrived := make(chan struct{})
	serveEvents(t, c, Events{OnMessage: func(c *Conn, _ MessageType, data []byte) {
		c.WriteMessage(TextMessage, data)
		if string(data) != "first" {
			return
		}
		done := make(chan struct{})
		go func() {
			c.WriteMessage(TextMessage, []byte("from elsewhere"))
			close(done)
		}()
		<-done
		if err := c.Flush(); err != nil {
			t.Error(err)
		}
		<-arrived
	}})
	p.send(textFrame("first"), textFrame("second"))
	p.want(opText, "first")
	p.want(opText, "from elsewhere")
	close(arrived)
	p.want(opText, "second")
}

// The sweeper's ping and Shutdown's close frame take their place behind the
// answers that are held back, however full the batch is.
func TestControlFramesInABatch(t *testing.T) {
	ping := strings.Repeat("p", maxControlPayloadLen)
	for _, size := range []int{10, 4085} { // 28 bytes are left of 16 KiB
		synctest.Test(t, func(t *testing.T) {
			c, p, cc := connectCounted(t, pipePair)
			answer := strings.Repeat("x", size)
			n := 0
			serveEvents(t, c, Events{OnMessage: func(c *Conn, _ MessageType, data []byte) {
				c.WriteMessage(TextMessage, []byte(answer))
				if n++; n == 4 {
					if !c.tryControl(opPing, []byte(ping)) {
						t.Error("the ping found a writer at work")
					}
					c.Flush() // waits for the goroutine that the ping was left to
				}
			}})
			p.send(bytes.Repeat(textFrame("x"), 5))
			for range 4 {
				p.want(opText, answer)
			}
			p.want(opPing, ping)
			p.want(opText, answer)
			if got := cc.writes.Load(); got != 2 {
				t.Errorf("answers of %d bytes and a ping took %d writes, want 2", size, got)
			}
		})
	}
}

// After Close no message is handed over, though it had come before.
func TestNoMessageAfterClose(t *testing.T) {
	for name, end := range map[string]func(*Conn) error{
		"Close":    func(c *Conn) error { return c.Close(CloseNormal, "enough") },
		"CloseNow": (*Conn).CloseNow,
	} {
		t.Run(name, func(t *testing.T) {
			d := newDiary()
			e := d.events()
			e.OnMessage = func(c *Conn, _ MessageType, data []byte) {
				d.note("%s", data)
				c.WriteMessage(TextMessage, []byte("answer"))
				if err := end(c); err != nil {
					t.Errorf("%s in OnMessage: %v", name, err)
				}
				if err := c.WriteMessage(TextMessage, nil); !errors.Is(err, net.ErrClosed) {
					t.Errorf("WriteMessage after %s: %v, want %v", name, err, net.ErrClosed)
				}
			}
			c, p := connect(t, new(Upgrader), tcpPair)
			serveEvents(t, c, Events{OnMessage: e.OnMessage, OnClose: e.OnClose})
			p.send(textFrame("first"), textFrame("second"))
			if name == "Close" {
				p.want(opText, "answer")
				p.wantClose(CloseNormal, "enough")
				p.send(textFrame("third"), closeFrame(CloseNormal, ""))
				p.wantEnd()
			}
			wantEndError(t, <-d.ends, EndError{By: SideServer, Sent: c.end.Sent, Received: c.end.Received, Clean: name == "Close"}, net.ErrClosed)
			if got := d.all(); !strings.HasPrefix(got, "first; close") {
				t.Errorf("events %q, want one message", got)
			}
		})
	}
}

// OnOpen may end the connection too; OnMessage then never comes. Close doesn't wait
// there for the peer.
func TestCloseInOnOpen(t *testing.T) {
	d := newDiary()
	e := d.events()
	closed := make(chan error)
	e.OnOpen = func(c *Conn, _ *http.Request) { closed <- c.Close(4003, "not today") }
	for name, h := range map[string]Handler{"server": e, "function": HandlerFunc(e.ServeWebSocket)} {
		t.Run(name, func(t *testing.T) {
			p := serveTCP(t, &Server{Handler: h})()
			p.send([]byte(peerRequest), textFrame("hello"))
			p.wantBytes(peerAnswer)
			p.wantClose(4003, "not today")
			if err := <-closed; err != nil {
				t.Errorf("Close in OnOpen = %v, want nil", err)
			}
			p.send(closeFrame(4003, ""))
			p.wantEnd()
			wantEndError(t, <-d.ends, EndError{By: SideServer, Sent: 4003, SentReason: "not today", Received: 4003, Clean: true}, net.ErrClosed)
		})
	}
	if got, want := d.all(), "close 4003 by server; close 4003 by server"; got != want {
		t.Errorf("events %q, want %q", got, want)
	}
}

// Under Events nobody could read on after a deadline, so it ends the
// connection, and the peer is told.
func TestReadDeadlineUnderEvents(t *testing.T) {
	d := newDiary()
	e := d.events()
	e.OnOpen = func(c *Conn, _ *http.Request) { c.SetReadDeadline(time.Now().Add(10 * time.Millisecond)) }
	dial := serveTCP(t, &Server{Handler: e})
	p := dial()
	p.handshake()
	p.wantClose(CloseGoingAway, "read deadline")
	p.wantEnd()
	wantEndError(t, <-d.ends, EndError{By: SideServer, Sent: CloseGoingAway}, os.ErrDeadlineExceeded)
}

// A peer that is still sending then reads that it is told, and the stream's end, and no
// reset.
func TestReadDeadlineUnderEventsWhileSending(t *testing.T) {
	events := Events{OnOpen: func(c *Conn, _ *http.Request) { c.SetReadDeadline(time.Now().Add(10 * time.Millisecond)) }}
	for name, h := range map[string]Handler{"loop": events, "goroutine": HandlerFunc(events.ServeWebSocket)} {
		t.Run(name, func(t *testing.T) {
			p := serveTCP(t, &Server{Handler: h})()
			p.handshake()
			stopped := make(chan struct{})
			go func() {
				defer close(stopped)
				for err := error(nil); err == nil; {
					_, err = p.nc.Write(textFrame("x"))
				}
			}()
			p.wantClose(CloseGoingAway, "read deadline")
			p.wantEnd()
			<-stopped
		})
	}
}

var waysToEnd = []struct {
	name  string
	end   func(p *peer, c *Conn)
	want  EndError
	cause error
}{
	{"close frame", func(p *peer, _ *Conn) { p.closeWith(4001, "") }, EndError{By: SidePeer, Sent: 4001, Received: 4001, Clean: true}, nil},
	{"FIN", func(p *peer, _ *Conn) { p.nc.Close() }, EndError{By: SidePeer}, io.ErrUnexpectedEOF},
	{"FIN inside a frame", func(p *peer, _ *Conn) { p.send(textFrame("x")[:3]); p.nc.Close() }, EndError{By: SidePeer}, io.ErrUnexpectedEOF},
	{"half close", func(p *peer, _ *Conn) { p.nc.(*net.TCPConn).CloseWrite() }, EndError{By: SidePeer}, io.ErrUnexpectedEOF},
	{"reset", func(p *peer, _ *Conn) { p.nc.(*net.TCPConn).SetLinger(0); p.nc.Close() }, EndError{By: SidePeer}, nil},
	{"broken rule", func(p *peer, _ *Conn) { p.send([]byte{0xff, 0xff}); p.leave() }, EndError{By: SidePeer, Sent: CloseProtocolError}, nil},
	{"CloseNow", func(_ *peer, c *Conn) { c.CloseNow() }, EndError{By: SideServer}, net.ErrClosed},
	{"many at once", func(p *peer, c *Conn) {
		for range 4 {
			go c.CloseNow()
		}
		p.nc.Close()
	}, EndError{}, nil},
}

// OnClose comes exactly once, however a connection ends.
func TestOnCloseOnce(t *testing.T) {
	for _, test := range waysToEnd {
		t.Run(test.name, func(t *testing.T) {
			d := newDiary()
			e := d.events()
			opened := make(chan *Conn, 1)
			e.OnOpen = func(c *Conn, _ *http.Request) { opened <- c }
			s := &Server{Handler: e}
			p := serveTCP(t, s)()
			p.handshake()
			test.end(p, <-opened)
			err := <-d.ends
			if test.want != (EndError{}) {
				wantEndError(t, err, test.want, test.cause)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if got := d.all(); strings.Count(got, "close") != 1 {
				t.Errorf("events %q, want one close", got)
			}
		})
	}
}

// Whole messages that came before the end are handed over before OnClose.
func TestMessagesBeforeTheEnd(t *testing.T) {
	d := newDiary()
	p := serveTCP(t, &Server{Handler: d.events()})()
	p.send([]byte(peerRequest), textFrame("one"), textFrame("two"), clientFrame(opText, false, "half"))
	p.nc.(*net.TCPConn).CloseWrite()
	wantEndError(t, <-d.ends, EndError{By: SidePeer}, io.ErrUnexpectedEOF)
	if got := strings.Split(d.all(), "; "); !slices.Equal(got, []string{"open /chat", "text one", "text two", "close 0 by peer"}) {
		t.Errorf("events %q, want both messages before the end", got)
	}
}
