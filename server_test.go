package websocket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// echoFunc is the echo in the way of a loop that reads.
func echoFunc(c *Conn, _ *http.Request) {
	for m, err := range c.Messages() {
		if err != nil || c.WriteMessage(m.Type, m.Data) != nil {
			return
		}
	}
}

var echoHandlers = map[string]Handler{"Events": echoEvents(), "HandlerFunc": HandlerFunc(echoFunc)}

func (p *peer) wantEcho(s string) {
	p.Helper()
	p.sendText(s)
	p.want(opText, s)
}

func TestServe(t *testing.T) {
	for name, h := range echoHandlers {
		t.Run(name, func(t *testing.T) {
			s := &Server{Handler: h}
			dial := serveTCP(t, s)
			var peers []*peer
			for i := range 10 {
				p := dial()
				p.handshake()
				p.wantEcho(fmt.Sprint("peer ", i))
				peers = append(peers, p)
			}
			if got := len(slices.Collect(s.Conns())); got != 10 {
				t.Errorf("%d connections in Conns, want 10", got)
			}
			for range s.Conns() {
				break
			}
			waitFor(t, "10 answers in Stats", func() bool { return s.Stats().MessagesOut == 10 })
			if stats := s.Stats(); stats.Open != 10 || stats.MessagesIn != 10 || stats.BytesIn != 60 || stats.BytesOut != 60 {
				t.Errorf("Stats() = %+v, want 10 connections with a message of 6 bytes each way", stats)
			}
			for _, p := range peers {
				p.closeWith(CloseNormal, "")
			}
			waitFor(t, "no connection in Conns", func() bool { return len(slices.Collect(s.Conns())) == 0 })
		})
	}
}

// A handler that returns closes its connection with 1000.
func TestHandlerReturns(t *testing.T) {
	p := serveTCP(t, &Server{Handler: HandlerFunc(func(c *Conn, _ *http.Request) { c.WriteMessage(TextMessage, []byte("bye")) })})()
	p.handshake()
	p.want(opText, "bye")
	p.wantClose(CloseNormal, "")
	p.send(closeFrame(CloseNormal, ""))
	p.wantEnd()
}

var panickingHandlers = map[string]Handler{
	"OnOpen":    Events{OnOpen: func(*Conn, *http.Request) { panic("ouch") }},
	"OnMessage": Events{OnMessage: func(*Conn, MessageType, []byte) { panic("ouch") }},
	"OnClose":   Events{OnClose: func(*Conn, error) { panic("ouch") }},
	"HandlerFunc": HandlerFunc(func(c *Conn, _ *http.Request) {
		c.ReadMessage()
		panic("ouch")
	}),
	"Events in a HandlerFunc": HandlerFunc(func(c *Conn, r *http.Request) {
		Events{OnMessage: func(*Conn, MessageType, []byte) { panic(errors.New("ouch")) }}.ServeWebSocket(c, r)
	}),
}

// A panic costs the one connection: its peer is told 1011, the log gets one
// line with the stack, and everybody else goes on.
func TestPanics(t *testing.T) {
	for name, h := range panickingHandlers {
		t.Run(name, func(t *testing.T) {
			var book logBook
			s := &Server{Handler: h, ErrorLog: book.logger()}
			dial := serveTCP(t, s)
			p := dial()
			p.handshake()
			var other *peer
			if name != "OnOpen" {
				other = dial()
				other.handshake()
			}
			switch name {
			case "OnOpen":
			case "OnClose":
				p.closeWith(CloseNormal, "")
			default:
				p.sendText("x")
			}
			if name != "OnClose" {
				p.wantClose(CloseInternalError, "")
				p.wantEnd()
			}
			waitFor(t, "the panic in Stats", func() bool { return s.Stats().Panics == 1 })
			waitFor(t, "the line in the log", func() bool { return len(book.all()) > 0 })
			lines := book.all()
			if len(lines) != 1 || !strings.Contains(lines[0], "ouch") || !strings.Contains(lines[0], "server_test.go") {
				t.Errorf("logged %q, want one line with the panic and its stack", lines)
			}
			if other != nil {
				other.send(clientFrame(opPing, true, "still there?"))
				other.want(opPong, "still there?")
			}
		})
	}
}

// A failingListener fails to accept as often as it is told to.
type failingListener struct {
	*pipeListener
	err   error
	left  int
	tries []time.Time
}

func (l *failingListener) Accept() (net.Conn, error) {
	l.tries = append(l.tries, time.Now())
	if l.left > 0 {
		l.left--
		return nil, &net.OpError{Op: "accept", Err: l.err}
	}
	return l.pipeListener.Accept()
}

// While descriptors are missing Accept is tried after 5 ms at first, then after
// twice as long, and never more than a second; then it begins anew.
func TestAcceptBacksOff(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ECONNABORTED} {
		synctest.Test(t, func(t *testing.T) {
			ln := &failingListener{pipeListener: newPipeListener(), err: errno, left: 13}
			var book logBook
			serve(t, &Server{Handler: echoEvents(), ErrorLog: book.logger()}, ln)
			p := ln.open(t)
			p.wantEcho("after all")
			synctest.Wait()
			var waits []time.Duration
			for i := range 13 {
				waits = append(waits, ln.tries[i+1].Sub(ln.tries[i])/time.Millisecond)
			}
			if want := []time.Duration{5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000, 1000, 1000, 1000}; !slices.Equal(waits, want) {
				t.Errorf("%v: waits of %d ms, want %d", errno, waits, want)
			}
			// 6.275 s have gone by.
			if lines := book.all(); len(lines) < 5 || len(lines) > 7 || !strings.Contains(lines[0], "accept") {
				t.Errorf("%v: %d lines were logged, want about one a second: %q", errno, len(lines), lines)
			}
			p.closeWith(CloseNormal, "")
		})
	}
}

func TestAcceptFails(t *testing.T) {
	broken := errors.New("broken for good")
	ln := &failingListener{pipeListener: newPipeListener(), err: broken, left: 1}
	if err := new(Server).Serve(ln); !errors.Is(err, broken) {
		t.Errorf("Serve = %v, want %v", err, broken)
	}
	select {
	case <-ln.done:
	default:
		t.Error("Serve has left its listener open")
	}
}

// The wait for descriptors doesn't hold up Shutdown.
func TestShutdownWhileBackingOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := &failingListener{pipeListener: newPipeListener(), err: syscall.EMFILE, left: 1 << 30}
		s := &Server{ErrorLog: new(logBook).logger()}
		done := make(chan error)
		go func() { done <- s.Serve(ln) }()
		time.Sleep(10500 * time.Millisecond)
		start := time.Now()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown = %v", err)
		}
		if err := <-done; err != ErrServerClosed || time.Since(start) != 0 {
			t.Errorf("Serve = %v, %v after Shutdown; want %v at once", err, time.Since(start), ErrServerClosed)
		}
	})
}

func TestServeAfterTheEnd(t *testing.T) {
	for name, end := range map[string]func(*Server) error{
		"Close":    (*Server).Close,
		"Shutdown": func(s *Server) error { return s.Shutdown(context.Background()) },
	} {
		s := new(Server)
		for range 2 {
			if err := end(s); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		ln := listen(t)
		if err := s.Serve(ln); err != ErrServerClosed {
			t.Errorf("Serve after %s = %v, want %v", name, err, ErrServerClosed)
		}
		if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Serve after %s has left its listener open", name)
		}
	}
}

// ListenAndServe is Serve on a listener of its own.
func TestListenAndServe(t *testing.T) {
	s := &Server{Addr: "127.0.0.1:0", Handler: echoEvents()}
	done := make(chan error)
	go func() { done <- s.ListenAndServe() }()
	var addr string
	waitFor(t, "a listener", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		for ln := range s.listeners {
			addr = ln.Addr().String()
		}
		return addr != ""
	})
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	p := newPeer(t, nc)
	p.handshake()
	p.wantEcho("served")
	p.closeWith(CloseNormal, "")
	if err := s.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
	if err := <-done; err != ErrServerClosed {
		t.Errorf("ListenAndServe = %v, want %v", err, ErrServerClosed)
	}
}

func TestListenFails(t *testing.T) {
	ln := listen(t)
	addr := ln.Addr().String()
	for name, err := range map[string]error{
		"ListenAndServe":           ListenAndServe(addr, echoEvents()),
		"Server.ListenAndServe":    (&Server{Addr: addr}).ListenAndServe(),
		"Server.ListenAndServeTLS": (&Server{Addr: addr}).ListenAndServeTLS("", ""),
	} {
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("%s of an address in use = %v, want %v", name, err, syscall.EADDRINUSE)
		}
	}
}

// Clients that were accepted before the listener was closed by somebody else are held
// to HandshakeTimeout, though Serve has returned.
func TestSilentClientsOutliveNoListener(t *testing.T) {
	s := &Server{Handler: Events{}, ErrorLog: new(logBook).logger(), Upgrader: Upgrader{HandshakeTimeout: 500 * time.Millisecond}}
	defer s.Close()
	ln := listen(t)
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	var silent []net.Conn
	for range 3 {
		silent = append(silent, dialAddr(t, ln.Addr().String()))
	}
	eventually(t, "they are accepted", func() bool { // and the time of some may be over
		got := s.Stats()
		return got.Handshaking+int(got.Failed) == len(silent)
	})
	ln.Close()
	if err := <-served; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve = %v, want that the listener is closed", err)
	}
	for _, nc := range silent {
		if _, err := nc.Read(make([]byte, 1)); isTimeout(err) {
			t.Error("a silent client is still connected")
		}
	}
	eventually(t, "nothing is left", s.isAtRest)
}
