package websocket

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestCloseByServer goes through the closing handshake as RFC 6455, section
// 7.1.2 has it, with and without a goroutine that reads beside Close.
func TestCloseByServer(t *testing.T) {
	tests := []struct {
		code         CloseCode
		reason, sent string
		answer       CloseCode
	}{
		{CloseNormal, "", "", CloseNormal},
		{CloseGoingAway, "back soon", "back soon", CloseGoingAway},
		{4999, "Grüße", "Grüße", 4000},
		{CloseNoStatus, "", "", CloseNoStatus},
		{CloseNormal, strings.Repeat("x", 124), strings.Repeat("x", 123), CloseNormal},
		{CloseNormal, strings.Repeat("x", 121) + "世", strings.Repeat("x", 121), CloseNormal},
		{3000, "\xff", "\uFFFD", CloseNoStatus},
	}
	overTransports(t, func(t *testing.T, pair transport) {
		for _, test := range tests {
			for _, reading := range []bool{true, false} {
				closeByServer(t, pair, test.code, test.reason, test.sent, test.answer, reading)
			}
		}
	})
}

func closeByServer(t *testing.T, pair transport, code CloseCode, reason, sent string, answer CloseCode, reading bool) {
	t.Helper()
	c, p := connect(t, new(Upgrader), pair)
	read := make(chan error, 1)
	if reading {
		go func() {
			_, _, err := c.ReadMessage()
			read <- err
		}()
	}
	closed := make(chan error)
	go func() { closed <- c.Close(code, reason) }()
	p.wantClose(code, sent)
	p.send(closeFrame(answer, ""))
	p.wantEnd()
	if err := <-closed; err != nil {
		t.Errorf("Close(%d, %q) = %v", code, reason, err)
	}
	if !reading {
		_, _, err := c.ReadMessage()
		read <- err
	}
	err := <-read
	wantEndError(t, err, EndError{By: SideServer, Sent: code, Received: answer, Clean: true}, net.ErrClosed)
	if cause := context.Cause(c.Context()); cause != err {
		t.Errorf("cause of Context = %v, ReadMessage returned %v", cause, err)
	}
	if _, _, again := c.ReadMessage(); again != err {
		t.Errorf("ReadMessage again: %v, want the same error: %v", again, err)
	}
	for name, err := range map[string]error{
		"Close": c.Close(CloseNormal, ""), "CloseNow": c.CloseNow(), "Ping": c.Ping(nil), "WriteMessage": c.WriteMessage(TextMessage, nil),
	} {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s after the end = %v, want %v", name, err, net.ErrClosed)
		}
	}
}

// A peer that answers a close frame with a fault of its own doesn't agree on the end.
func TestCloseAnsweredWithAFault(t *testing.T) {
	for answer, clean := range map[CloseCode]bool{CloseProtocolError: false, CloseInternalError: false,
		CloseServiceRestart: true, CloseNormal: true, CloseNoStatus: true, 4000: true} {
		c, p := connect(t, new(Upgrader), tcpPair)
		ended := c.Context().Done()
		go c.Close(CloseServiceRestart, "")
		p.wantClose(CloseServiceRestart, "")
		p.send(closeFrame(answer, ""))
		<-ended
		wantEndError(t, c.endError(), EndError{By: SideServer, Sent: CloseServiceRestart, Received: answer, Clean: clean}, net.ErrClosed)
	}
}

func TestCloseByPeer(t *testing.T) {
	tests := []struct {
		code   CloseCode
		reason string
	}{{CloseNormal, ""}, {CloseGoingAway, "the page was left"}, {CloseNoStatus, ""}, {4000, "Grüße"},
		{CloseProtocolError, "a fault of ours"}} // which is told, and no reason to leave it without an answer
	overTransports(t, func(t *testing.T, pair transport) {
		for _, test := range tests {
			c, p := connect(t, new(Upgrader), pair)
			read := make(chan error)
			go func() {
				_, _, err := c.ReadMessage()
				read <- err
			}()
			p.send(closeFrame(test.code, test.reason))
			p.wantClose(test.code, "")
			p.wantEnd()
			err := <-read
			wantEndError(t, err, EndError{By: SidePeer, Sent: test.code, Received: test.code, Clean: true}, nil)
			var closed *CloseError
			if !errors.As(err, &closed) || closed.Code != test.code || closed.Reason != test.reason {
				t.Errorf("ReadMessage: %v, want a *CloseError of %d %q", err, test.code, test.reason)
			}
		}
	})
}

// Nothing behind the peer's close frame is looked at (section 5.5.1), and what
// came before it is read.
func TestNothingBehindTheCloseFrame(t *testing.T) {
	overTransports(t, func(t *testing.T, pair transport) {
		c, p := connect(t, new(Upgrader), pair)
		go p.nc.Write(append(append(textFrame("before"), closeFrame(CloseNormal, "")...),
			append(clientFrame(opPing, true, "after"), 0xff, 0xff)...))
		read := make(chan error)
		go func() {
			_, data, err := c.ReadMessage()
			if string(data) != "before" || err != nil {
				t.Errorf("ReadMessage = %q, %v; want %q", data, err, "before")
			}
			_, _, err = c.ReadMessage()
			read <- err
		}()
		p.wantClose(CloseNormal, "")
		p.wantEnd()
		err := <-read
		wantEndError(t, err, EndError{By: SidePeer, Sent: CloseNormal, Received: CloseNormal, Clean: true}, nil)
		if _, _, again := c.ReadMessage(); again != err {
			t.Errorf("ReadMessage again: %v, want the same error: %v", again, err)
		}
	})
}

// A browser's close() and ours can cross; each takes the other's for the answer.
func TestCloseFramesCross(t *testing.T) {
	c, p := connect(t, new(Upgrader), tcpPair)
	p.send(textFrame("on its way"), clientFrame(opText, false, "and half"), closeFrame(CloseGoingAway, "me too"))
	if err := c.Close(CloseNormal, "bye"); err != nil {
		t.Errorf("Close: %v", err)
	}
	p.wantClose(CloseNormal, "bye")
	p.wantEnd()
	wantEndError(t, c.endError(), EndError{By: SideServer, Sent: CloseNormal, Received: CloseGoingAway, Clean: true}, net.ErrClosed)
}

// What a peer sends before it answers our close frame is thrown away, half a
// message included; its pings too.
func TestCloseThrowsAwayWhatComes(t *testing.T) {
	overTransports(t, func(t *testing.T, pair transport) {
		c, p := connect(t, new(Upgrader), pair)
		go p.nc.Write(clientFrame(opText, false, "half of "))
		_, r, err := c.NextReader()
		if err != nil {
			t.Fatal(err)
		}
		closed := make(chan error)
		go func() { closed <- c.Close(CloseNormal, "") }()
		p.wantClose(CloseNormal, "")
		p.send(clientFrame(opContinuation, true, "a message"), clientFrame(opPing, true, ""),
			clientFrame(opBinary, true, strings.Repeat("x", 100000)), closeFrame(CloseNormal, ""))
		p.wantEnd()
		if err := <-closed; err != nil {
			t.Errorf("Close: %v", err)
		}
		if got, err := io.ReadAll(r); len(got) > len("half of ") || !errors.Is(err, net.ErrClosed) {
			t.Errorf("the message's reader after Close: %q, %v; want %v", got, err, net.ErrClosed)
		}
		wantEndError(t, c.endError(), EndError{By: SideServer, Sent: CloseNormal, Received: CloseNormal, Clean: true}, net.ErrClosed)
	})
}

func TestCloseCodesThatCannotBeSent(t *testing.T) {
	c, p := connect(t, new(Upgrader), tcpPair)
	for _, code := range []CloseCode{0, 999, 1004, CloseAbnormal, CloseTLSHandshake, 1016, 2999, 5000, 65535} {
		if err := c.Close(code, ""); err == nil || errors.Is(err, net.ErrClosed) {
			t.Errorf("Close(%d) = %v, want an error about the code", code, err)
		}
	}
	if err := c.WriteMessage(TextMessage, []byte("still open")); err != nil {
		t.Errorf("WriteMessage after refused codes: %v", err)
	}
	p.want(opText, "still open")
}

func TestCloseNow(t *testing.T) {
	overTransports(t, func(t *testing.T, pair transport) {
		c, p := connect(t, new(Upgrader), pair)
		read := make(chan error)
		go func() {
			_, _, err := c.ReadMessage()
			read <- err
		}()
		if err := c.CloseNow(); err != nil {
			t.Errorf("CloseNow: %v", err)
		}
		p.wantEnd()
		wantEndError(t, <-read, EndError{By: SideServer}, net.ErrClosed)
		if err := c.CloseNow(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the second CloseNow = %v, want %v", err, net.ErrClosed)
		}
	})
}

// Each wrong close frame is told so, and not taken for a closing handshake.
func TestWrongCloseFrames(t *testing.T) {
	for payload, want := range map[string]CloseCode{
		"\x03": CloseProtocolError, "\x03\xec": CloseProtocolError, "\x03\xed": CloseProtocolError, "\x00\x00": CloseProtocolError,
		"\x03\xe8\xff": CloseInvalidPayload,
	} {
		c, p := connect(t, new(Upgrader), tcpPair)
		p.send(clientFrame(opClose, true, payload))
		p.leave()
		_, _, err := c.ReadMessage()
		wantEndError(t, err, EndError{By: SidePeer, Sent: want}, nil)
		var broken *ProtocolError
		if !errors.As(err, &broken) || broken.Code != want || broken.Section == "" {
			t.Errorf("close frame %q: %v, want a *ProtocolError of %d", payload, err, want)
		}
	}
}

// The end of the stream at any byte of a message is an error and no message.
func TestStreamEndsAnywhere(t *testing.T) {
	stream := append(clientFrame(opText, false, "Hel"), clientFrame(opContinuation, true, "lo")...)
	overTransports(t, func(t *testing.T, pair transport) {
		for cut := range len(stream) {
			c, p := connect(t, new(Upgrader), pair)
			go func() {
				p.nc.Write(stream[:cut])
				p.nc.Close()
			}()
			typ, data, err := c.ReadMessage()
			if typ != 0 || data != nil {
				t.Errorf("ReadMessage of %d bytes = %v, %q; want nothing", cut, typ, data)
			}
			wantEndError(t, err, EndError{By: SidePeer}, io.ErrUnexpectedEOF)
		}
	})
}

// A peer that never answers our close frame holds Close up for CloseTimeout,
// and a peer that doesn't even take it no longer than that.
func TestCloseTimeout(t *testing.T) {
	for _, takes := range []bool{true, false} {
		for _, reading := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				c, p := connect(t, &Upgrader{CloseTimeout: 3 * time.Second}, pipePair)
				read := make(chan error, 1)
				readOne := func() {
					_, _, err := c.ReadMessage()
					read <- err
				}
				if reading {
					go readOne()
					synctest.Wait()
				}
				start := time.Now()
				if takes {
					go p.frame()
				}
				if err := c.Close(CloseNormal, ""); err != nil {
					t.Errorf("Close: %v", err)
				}
				if !reading {
					readOne()
				}
				err := <-read
				if got := time.Since(start); got < 3*time.Second || got > 3*time.Second+slack {
					t.Errorf("peer takes the frame %t, reading %t: closed after %v, want 3s", takes, reading, got)
				}
				want := EndError{By: SideServer}
				if takes {
					want.Sent = CloseNormal
				}
				wantEndError(t, err, want, net.ErrClosed)
			})
		}
	}
}

// Who reads while another goroutine closes waits for the end, which comes where time
// is faked as well: whoever waits there for a mutex stops the clock.
func TestReadBehindClose(t *testing.T) {
	for name, read := range map[string]func(c *Conn) error{
		"ReadMessage": func(c *Conn) error { _, _, err := c.ReadMessage(); return err },
		"NextReader":  func(c *Conn) error { _, _, err := c.NextReader(); return err },
		"Events": func(c *Conn) (end error) {
			Events{OnClose: func(_ *Conn, err error) { end = err }}.ServeWebSocket(c, nil)
			return end
		},
		"CloseRead": func(c *Conn) error {
			<-c.CloseRead().Done()
			return c.endError()
		},
	} {
		t.Run(name, func(t *testing.T) {
			defer time.AfterFunc(patience, func() { panic("the clock stands still") }).Stop()
			synctest.Test(t, func(t *testing.T) {
				c, p := connectPipe(t, &Upgrader{PingInterval: -1})
				start := time.Now()
				go c.Close(CloseNormal, "")
				p.wantClose(CloseNormal, "")
				synctest.Wait() // until it reads
				wantEndError(t, read(c), EndError{By: SideServer, Sent: CloseNormal}, net.ErrClosed)
				if took := time.Since(start); took > 5*time.Second+slack {
					t.Errorf("the end came after %v, want CloseTimeout", took)
				}
			})
		})
	}
}

// Behind a write that is stuck the close frame waits, and Close with it, but
// for CloseTimeout only.
func TestCloseBehindAStuckWrite(t *testing.T) {
	c, p := connect(t, &Upgrader{CloseTimeout: 50 * time.Millisecond, WriteTimeout: -1}, tcpPair)
	p.takeLittle()
	wrote := make(chan error)
	go func() { wrote <- c.WriteMessage(BinaryMessage, make([]byte, 32<<20)) }()
	for c.write.since.Load() == 0 {
		runtime.Gosched() // until the write has begun
	}
	if err := c.Close(CloseNormal, ""); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := <-wrote; err == nil {
		t.Error("the stuck WriteMessage = nil, want an error")
	}
	wantEndError(t, c.endError(), EndError{By: SideServer}, net.ErrClosed)
}

// A client that is in the middle of 1.8 MB when it breaks a rule still reads
// why: a socket closed with unread bytes would have sent a reset instead.
func TestRefusalReachesABusyPeer(t *testing.T) {
	c, p := connect(t, new(Upgrader), tcpPair)
	read := make(chan error)
	go func() {
		_, _, err := c.ReadMessage()
		read <- err
	}()
	bad := clientFrame(opText, true, "unmasked")
	bad[1] &^= bitMASK
	p.send(bad, make([]byte, 1800<<10))
	h, payload, err := p.frame()
	if err != nil || h.opcode != opClose {
		t.Fatalf("the peer got %v, %v; want a close frame", h.opcode, err)
	}
	if code, reason, err := parseClosePayload([]byte(payload)); code != CloseProtocolError || reason == "" || err != nil {
		t.Errorf("close frame %d %q, %v; want %d and a reason", code, reason, err, CloseProtocolError)
	}
	p.wantEnd()
	wantEndError(t, <-read, EndError{By: SidePeer, Sent: CloseProtocolError}, nil)
}

// A wrappedConn is a connection around another, as those that limit or count
// connections are.
type wrappedConn struct {
	net.Conn
	closed atomic.Int64
}

func (wc *wrappedConn) NetConn() net.Conn { return wc.Conn }

func (wc *wrappedConn) Close() error {
	wc.closed.Add(1)
	return wc.Conn.Close()
}

func TestWrappedConnIsClosed(t *testing.T) {
	server, client := pipePair(t)
	wc := &wrappedConn{Conn: server}
	c, p := connect(t, new(Upgrader), func(testing.TB) (net.Conn, net.Conn) { return wc, client })
	c.CloseNow()
	if _, err := p.nc.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the peer read %v after CloseNow, want io.EOF", err)
	}
	if wc.closed.Load() == 0 {
		t.Error("CloseNow has closed what lies under the connection and not the connection")
	}
}

func TestErrorTexts(t *testing.T) {
	for err, want := range map[error]string{
		&CloseError{CloseNormal, ""}:                                    "websocket: peer closed with 1000",
		&CloseError{4000, "x\n"}:                                        `websocket: peer closed with 4000 "x\n"`,
		&ProtocolError{1002, "fragmented ping", "RFC 6455, 5.5"}:        "websocket: fragmented ping (RFC 6455, 5.5)",
		&ProtocolError{1009, "too much", ""}:                            "websocket: too much",
		&HandshakeError{404, "no such room"}:                            "websocket: refused with 404 Not Found: no such room",
		&EndError{Err: net.ErrClosed, Sent: 1001}:                       "websocket: connection closed by the server with 1001",
		&EndError{Err: &CloseError{CloseNormal, ""}}:                    "websocket: peer closed with 1000",
		&EndError{Err: io.ErrUnexpectedEOF, By: SidePeer, Received: 12}: "unexpected EOF",
	} {
		if got := err.Error(); got != want {
			t.Errorf("%T: %q, want %q", err, got, want)
		}
	}
	if SideServer.String() != "server" || SidePeer.String() != "peer" {
		t.Errorf("sides %v and %v, want server and peer", SideServer, SidePeer)
	}
}

// A client that closes its side and reads on gets the message whole that is on its
// way, however slowly it reads.
func TestHalfCloseLetsTheWriteEnd(t *testing.T) {
	const size = 2 << 20
	message := strings.Repeat("m", size)
	var began chan struct{}
	write := func(c *Conn) {
		go func() {
			close(began)
			c.WriteMessage(TextMessage, []byte(message))
		}()
	}
	send := func(c *Conn) {
		c.Send(NewPreparedMessage(TextMessage, []byte(message)))
		close(began)
	}
	for name, do := range map[string]func(*Conn){"WriteMessage": write, "Send": send} {
		for kind, handler := range map[string]Handler{
			"events": Events{OnOpen: func(c *Conn, _ *http.Request) { do(c) }},
			"function": HandlerFunc(func(c *Conn, _ *http.Request) {
				do(c)
				c.ReadMessage()
			}),
		} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				began = make(chan struct{})
				p := serveTCP(t, &Server{Handler: handler})()
				p.takeLittle()
				p.handshake()
				<-began
				in := io.MultiReader(bytes.NewReader(p.in), p.nc)
				if _, err := io.ReadFull(in, make([]byte, 10)); err != nil { // the header
					t.Fatal(err)
				}
				p.nc.(*net.TCPConn).CloseWrite()
				if n, err := io.Copy(io.Discard, in); n != size || err != nil {
					t.Errorf("behind FIN: %d bytes, %v; want %d", n, err, size)
				}
			})
		}
	}
}

// A tardyConn tells of a read whose deadline has passed, and returns from it when it
// is let.
type tardyConn struct {
	net.Conn
	late, release chan struct{}
}

func (tc *tardyConn) Read(p []byte) (int, error) {
	n, err := tc.Conn.Read(p)
	if err != nil && isTimeout(err) {
		close(tc.late)
		<-tc.release
	}
	return n, err
}

// A read deadline that passes just as Close begins is no end of its own: the closing
// handshake goes on.
func TestReadDeadlineCrossesClose(t *testing.T) {
	for name, read := range map[string]func(*testing.T, *Conn, chan<- error){
		"ReadMessage": func(_ *testing.T, c *Conn, end chan<- error) {
			go func() {
				_, _, err := c.ReadMessage()
				for isTimeout(err) {
					_, _, err = c.ReadMessage()
				}
				end <- err
			}()
		},
		"Events": func(t *testing.T, c *Conn, end chan<- error) {
			serveEvents(t, c, Events{OnClose: func(_ *Conn, err error) { end <- err }})
		},
	} {
		t.Run(name, func(t *testing.T) {
			server, client := pipePair(t)
			nc := &tardyConn{server, make(chan struct{}), make(chan struct{})}
			c, p := connect(t, new(Upgrader), func(testing.TB) (net.Conn, net.Conn) { return nc, client })
			end := make(chan error, 1)
			c.SetReadDeadline(time.Now().Add(time.Millisecond))
			read(t, c, end)
			<-nc.late
			go c.Close(4000, "")
			p.wantClose(4000, "")
			close(nc.release)
			p.send(closeFrame(4000, ""))
			p.nc.Close()
			wantEndError(t, <-end, EndError{By: SideServer, Sent: 4000, Received: 4000, Clean: true}, net.ErrClosed)
		})
	}
}

// A readWatch calls before with the size of what is asked for at each read.
type readWatch struct {
	net.Conn
	before func(size int)
}

func (w readWatch) Read(p []byte) (int, error) {
	w.before(len(p))
	return w.Conn.Read(p)
}

// Who has sent something wrong, or nothing in time, and stays, as long as CloseTimeout
// lets him, costs no buffer of what he had sent, and a small one for what still comes.
func TestWaitForTheEndHoldsLittle(t *testing.T) {
	for name, test := range map[string]struct {
		sent   []byte
		serve  func(t *testing.T, c *Conn) (end <-chan error)
		code   CloseCode
		reason string
	}{
		"wrong": {append(clientFrame(opText, true, "\xff"), make([]byte, 1000)...),
			func(_ *testing.T, c *Conn) <-chan error { return readEnd(c) }, CloseInvalidPayload, errNotUTF8.Reason},
		"late under Events": {clientFrame(opText, true, strings.Repeat("x", 1<<10))[:1000], func(t *testing.T, c *Conn) <-chan error {
			end := make(chan error, 1)
			c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
			serveEvents(t, c, Events{OnClose: func(_ *Conn, err error) { end <- err }})
			return end
		}, CloseGoingAway, "read deadline"},
	} {
		t.Run(name, func(t *testing.T) {
			server, client := tcpPair(t)
			var watched atomic.Pointer[Conn]
			var waits atomic.Int32
			watch := readWatch{server, func(size int) {
				c := watched.Load()
				if c == nil || c.connState() == stateOpen {
					return
				}
				waits.Add(1)
				if n := held(c); n > 0 || size > smallSize {
					t.Errorf("%d bytes held, and a buffer of %d, for who is about to leave; want none and at most %d", n, size, smallSize)
				}
			}}
			c, p := connect(t, new(Upgrader), func(testing.TB) (net.Conn, net.Conn) { return watch, client })
			watched.Store(c)
			p.send(test.sent)
			end := test.serve(t, c)
			p.wantClose(test.code, test.reason)
			p.send([]byte("more"))
			p.leave()
			<-end
			if waits.Load() == 0 {
				t.Error("nothing was read behind the close frame")
			}
		})
	}
}
