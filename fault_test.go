package websocket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// An ending is a way for a connection to end, and what the record of it says.
type ending struct {
	name   string
	u      Upgrader
	inside func(c *Conn, s *Server) // in the handler
	peer   func(p *peer)            // from the other side
	want   EndError
	broken bool    // a *ProtocolError with the code that was sent
	is     []error // what errors.Is finds
}

var errApplication = errors.New("the application's own")

func endings() []ending {
	mute := func(p *peer) {}
	obey := func(p *peer) { // answers a close frame, and pings
		for {
			h, payload, err := p.frame()
			if err != nil {
				return
			}
			switch h.opcode {
			case opClose:
				p.nc.Write(closeFrame(4999, "as you wish"))
			case opPing:
				p.nc.Write(clientFrame(opPong, true, payload))
			}
		}
	}
	sends := func(pieces ...[]byte) func(p *peer) {
		return func(p *peer) {
			go func() {
				for _, piece := range pieces {
					p.nc.Write(piece)
				}
			}()
			obey(p)
		}
	}
	leaves := func(pieces ...[]byte) func(p *peer) {
		return func(p *peer) {
			go io.Copy(io.Discard, p.nc)
			for _, piece := range pieces {
				p.nc.Write(piece)
			}
			p.nc.Close()
		}
	}
	both := func(code CloseCode, reason string) EndError {
		return EndError{By: SideServer, Sent: code, SentReason: reason, Received: 4999, ReceivedReason: "as you wish", Clean: true}
	}
	cut := EndError{By: SideServer}
	lost := EndError{By: SidePeer}
	long := strings.Repeat("\u00e9", 100)
	return []ending{
		{"peer's close frame", Upgrader{}, nil, sends(closeFrame(4321, "enough")), EndError{By: SidePeer, Sent: 4321, Received: 4321, ReceivedReason: "enough", Clean: true}, false, nil},
		{"peer's empty close frame", Upgrader{}, nil, sends(closeFrame(CloseNoStatus, "")), EndError{By: SidePeer, Sent: 1005, Received: 1005, Clean: true}, false, nil},
		{"Close", Upgrader{}, func(c *Conn, _ *Server) { c.Close(4000, "done") }, obey, both(4000, "done"), false, []error{net.ErrClosed}},
		{"Close with a long reason", Upgrader{}, func(c *Conn, _ *Server) { c.Close(4000, long) }, obey, both(4000, long[:122]), false, []error{net.ErrClosed}},
		{"Close, answered with another code", Upgrader{}, func(c *Conn, _ *Server) { c.Close(1012, "") }, func(p *peer) { p.frame(); p.nc.Write(closeFrame(1002, "no")); p.leave() },
			EndError{By: SideServer, Sent: 1012, Received: 1002, ReceivedReason: "no"}, false, []error{net.ErrClosed}},
		{"Close, answered without a code", Upgrader{}, func(c *Conn, _ *Server) { c.Close(4000, "") }, func(p *peer) { p.frame(); p.nc.Write(closeFrame(1005, "")); p.leave() },
			EndError{By: SideServer, Sent: 4000, Received: 1005, Clean: true}, false, []error{net.ErrClosed}},
		{"Close without an answer", Upgrader{}, func(c *Conn, _ *Server) { c.Close(4000, "") }, func(p *peer) { p.frame() }, EndError{By: SideServer, Sent: 4000}, false, []error{net.ErrClosed}},
		{"Close to a deaf peer", Upgrader{}, func(c *Conn, _ *Server) { c.Close(4000, "") }, mute, cut, false, []error{net.ErrClosed}},
		{"CloseNow", Upgrader{}, func(c *Conn, _ *Server) { c.CloseNow() }, mute, cut, false, []error{net.ErrClosed}},
		{"NetConn closed", Upgrader{}, func(c *Conn, _ *Server) { c.NetConn().Close() }, mute, cut, false, nil},
		{"FIN", Upgrader{}, nil, leaves(), lost, false, []error{io.ErrUnexpectedEOF}},
		{"FIN in a header", Upgrader{}, nil, leaves([]byte{0x81}), lost, false, []error{io.ErrUnexpectedEOF}},
		{"FIN in a payload", Upgrader{}, nil, leaves(textFrame("hello")[:8]), lost, false, []error{io.ErrUnexpectedEOF}},
		{"FIN between fragments", Upgrader{}, nil, leaves(clientFrame(opText, false, "hel")), lost, false, []error{io.ErrUnexpectedEOF}},
		{"broken rule", Upgrader{}, nil, sends([]byte{0x83, 0x80}), EndError{By: SidePeer, Sent: 1002, SentReason: "reserved opcode 0x3"}, true, nil},
		{"not UTF-8", Upgrader{}, nil, sends(textFrame("\xff")), EndError{By: SidePeer, Sent: 1007, SentReason: "text is not UTF-8"}, true, nil},
		{"too big", Upgrader{MaxMessageSize: 4}, nil, sends(textFrame("hello")), EndError{By: SidePeer, Sent: 1009, SentReason: "message over the limit of 4 bytes"}, true, []error{ErrMessageTooBig}},
		{"too many pongs", Upgrader{MaxControlRate: 1}, nil, sends(clientFrame(opPong, true, ""), clientFrame(opPong, true, "")),
			EndError{By: SidePeer, Sent: 1008, SentReason: "more pings and pongs in a second than MaxControlRate"}, true, nil},
		{"pong timeout", Upgrader{}, nil, func(p *peer) { go io.Copy(io.Discard, p.nc) }, lost, false, []error{errPongTimeout, os.ErrDeadlineExceeded}},
		{"write timeout", Upgrader{}, func(c *Conn, _ *Server) { c.WriteMessage(TextMessage, nil) }, mute, lost, false, []error{errWriteTimeout, os.ErrDeadlineExceeded}},
		{"write deadline", Upgrader{}, func(c *Conn, _ *Server) {
			c.SetWriteDeadline(time.Now().Add(time.Second))
			c.WriteMessage(TextMessage, nil)
		}, mute, lost, false, []error{os.ErrDeadlineExceeded}},
		{"idle", Upgrader{IdleTimeout: time.Hour}, nil, obey, both(1000, "idle"), false, []error{errIdle, os.ErrDeadlineExceeded}},
		{"lifetime", Upgrader{MaxLifetime: time.Hour}, nil, obey, both(1001, "maximum lifetime"), false, []error{errMaxLifetime, os.ErrDeadlineExceeded}},
		{"full queue", Upgrader{SendQueue: 1}, func(c *Conn, _ *Server) {
			for c.Send(NewPreparedMessage(TextMessage, nil)) == nil { // an empty queue takes any
			}
		}, obey, both(1008, "reading too slowly"), true, []error{errSlow}},
		{"Shutdown", Upgrader{}, func(_ *Conn, s *Server) { go s.Shutdown(context.Background()) }, obey, both(1001, ""), false, []error{ErrServerClosed, net.ErrClosed}},
		{"Server.Close", Upgrader{}, func(_ *Conn, s *Server) { s.Close() }, obey, cut, false, []error{ErrServerClosed, net.ErrClosed}},
		{"panic", Upgrader{}, func(*Conn, *Server) { panic("text") }, mute, EndError{By: SideServer}, false, nil},
		{"panic with an error", Upgrader{}, func(*Conn, *Server) { panic(fmt.Errorf("%w", errApplication)) }, func(p *peer) { p.frame(); p.leave() },
			EndError{By: SideServer, Sent: 1011}, false, []error{errApplication}},
	}
}

// OnClose, every read after the end and the cause of Context carry one record,
// whichever the way to end and to serve.
func TestEveryWayToEnd(t *testing.T) {
	for _, e := range endings() {
		for _, way := range []string{"events", "function"} {
			t.Run(e.name+"/"+way, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := &Server{Upgrader: e.u, ErrorLog: new(logBook).logger()}
					conns, closed := make(chan *Conn, 1), make(chan error, 2)
					open := func(c *Conn) {
						c.Context() // asked for before the end here, and after it below
						conns <- c
						if e.inside != nil {
							e.inside(c, s)
						}
					}
					s.Handler = Events{
						OnOpen:  func(c *Conn, r *http.Request) { open(c) },
						OnClose: func(c *Conn, err error) { closed <- err },
					}
					if way == "function" {
						s.Handler = HandlerFunc(func(c *Conn, r *http.Request) {
							open(c)
							_, _, err := c.ReadMessage()
							closed <- err
						})
					}
					ln := newPipeListener()
					serve(t, s, ln)
					p := ln.open(t)
					go e.peer(p)
					c := <-conns
					<-c.Context().Done()
					err := context.Cause(c.Context())
					e.check(t, err)
					if _, _, again := c.ReadMessage(); again != err {
						t.Errorf("ReadMessage after the end: %v, want the cause of Context, %v", again, err)
					}
					synctest.Wait()
					s.Close()
					if panicked := strings.HasPrefix(e.name, "panic") && way == "function"; !panicked && <-closed != err {
						t.Errorf("the handler got another error than %v", err)
					}
					synctest.Wait()
					if len(closed) > 0 {
						t.Errorf("OnClose ran again, with %v", <-closed)
					}
				})
			})
		}
	}
}

func (e *ending) check(t *testing.T, err error) {
	t.Helper()
	got, ok := err.(*EndError)
	if !ok {
		t.Fatalf("the end is told by a %T: %v; want an *EndError", err, err)
	}
	fields := *got
	fields.Err, fields.code, fields.reason = nil, 0, ""
	if fields != e.want {
		t.Errorf("the record says %+v, want %+v (%v)", fields, e.want, err)
	}
	for _, cause := range e.is {
		if !errors.Is(err, cause) {
			t.Errorf("%v (%T) isn't %v", err, got.Err, cause)
		}
	}
	var broken *ProtocolError
	if errors.As(err, &broken) != e.broken || e.broken && broken.Code != got.Sent {
		t.Errorf("%v: a *ProtocolError with the code that was sent: want %t, got %v", err, e.broken, broken)
	}
	var closed *CloseError
	byFrame := got.By == SidePeer && got.Received != 0
	if errors.As(err, &closed) != byFrame || byFrame && (closed.Code != got.Received || closed.Reason != got.ReceivedReason) {
		t.Errorf("%v: a *CloseError with what was received: want %t, got %v", err, byFrame, closed)
	}
	if err.Error() == "" || strings.Contains(err.Error(), "%!") {
		t.Errorf("the text of the end: %q", err)
	}
}

// A witness notes what a server's connections went through, by the path that
// they asked for.
type witness struct {
	mu   sync.Mutex
	seen map[string]*testimony
}

type testimony struct {
	opens, closes int
	messages      []string
	err           error
	closed        chan struct{}
}

func (w *witness) of(path string) *testimony {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.seen == nil {
		w.seen = make(map[string]*testimony)
	}
	if w.seen[path] == nil {
		w.seen[path] = &testimony{closed: make(chan struct{})}
	}
	return w.seen[path]
}

func (w *witness) all() map[string]*testimony {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.seen)
}

// note changes what is noted of a connection.
func (w *witness) note(path string, f func(*testimony)) {
	seen := w.of(path)
	w.mu.Lock()
	defer w.mu.Unlock()
	f(seen)
}

func (w *witness) events() Events {
	return Events{
		OnOpen: func(c *Conn, r *http.Request) {
			c.Data = r.URL.Path
			w.note(r.URL.Path, func(s *testimony) { s.opens++ })
		},
		OnMessage: func(c *Conn, typ MessageType, data []byte) {
			w.note(c.Data.(string), func(s *testimony) { s.messages = append(s.messages, string(data)) })
		},
		OnClose: func(c *Conn, err error) {
			w.note(c.Data.(string), func(s *testimony) {
				if s.closes++; s.closes == 1 {
					s.err = err
					close(s.closed)
				}
			})
		},
	}
}

func (w *witness) function() Handler {
	e := w.events()
	return HandlerFunc(func(c *Conn, r *http.Request) {
		e.OnOpen(c, r)
		for m, err := range c.Messages() {
			if err != nil {
				e.OnClose(c, err)
				return
			}
			e.OnMessage(c, m.Type, m.Data)
		}
	})
}

// vanishing is a stream with all that a client sends, and the messages that
// are whole in its first n bytes.
func vanishing(path string) (stream []byte, handshake int, whole func(n int) []string) {
	stream = []byte(strings.Replace(peerRequest, "/chat", path, 1))
	handshake = len(stream)
	var ends []int
	var messages []string
	add := func(message string, frames ...[]byte) {
		stream = append(stream, bytes.Join(frames, nil)...)
		ends, messages = append(ends, len(stream)), append(messages, message)
	}
	long := strings.Repeat("long ", 30)
	add("text", textFrame("text"))
	add(long, clientFrame(opBinary, true, long))
	add("fragments", clientFrame(opText, false, "frag"), clientFrame(opPing, true, "?"), clientFrame(opContinuation, true, "ments"))
	stream = append(stream, closeFrame(4001, "bye")...)
	return stream, handshake, func(n int) []string {
		k := 0
		for k < len(ends) && ends[k] <= n {
			k++
		}
		return messages[:k]
	}
}

// A client may vanish at any byte, by FIN or by a reset. Of what it had sent
// whole before FIN nothing is lost, of the rest nothing is handed over, OnClose
// comes once, and nothing is left behind.
func TestClientsVanish(t *testing.T) {
	for _, way := range []string{"FIN", "reset", "reset with unread answers"} {
		for _, handler := range []string{"events", "function"} {
			t.Run(way+"/"+handler, func(t *testing.T) {
				var w witness
				s := &Server{Handler: w.events(), ErrorLog: new(logBook).logger()}
				if handler == "function" {
					s.Handler = w.function()
				}
				dial := serveTCP(t, s)
				stream, _, _ := vanishing("/00000")
				for n := range len(stream) + 1 {
					vanish(t, &w, dial(), fmt.Sprintf("/%05d", n), n, way)
				}
				eventually(t, "nothing is left", func() bool {
					if stats := s.Stats(); int(stats.Accepted+stats.Failed) != len(stream)+1 {
						return false // some are in the backlog
					}
					s.mu.Lock()
					defer s.mu.Unlock()
					return s.places[forSocket] == 0 && len(s.handshakes) == 0
				})
				for path, seen := range w.all() {
					n, _ := strconv.Atoi(path[1:])
					seen.check(t, &w, n, way)
				}
				p := dial()
				p.handshake()
				p.closeWith(CloseNormal, "")
			})
		}
	}
}

// vanish is a client that sends the first n bytes of its stream.
func vanish(t *testing.T, w *witness, p *peer, path string, n int, way string) {
	t.Helper()
	stream, handshake, _ := vanishing(path)
	p.send(stream[:n])
	opened := n >= handshake
	if opened && way != "reset with unread answers" {
		p.wantBytes(peerAnswer)
	}
	if way == "FIN" {
		p.nc.(*net.TCPConn).CloseWrite()
		if _, err := io.Copy(io.Discard, p.nc); err != nil {
			t.Errorf("after %d bytes and FIN: %v, want the stream's end", n, err)
		}
	} else {
		p.nc.(*net.TCPConn).SetLinger(0)
	}
	p.nc.Close()
	if !opened || way == "reset with unread answers" {
		return // or the 101 may have met the reset
	}
	seen := w.of(path)
	select {
	case <-seen.closed:
	case <-time.After(patience):
		t.Fatalf("after %d bytes and %s OnClose hasn't run within %v", n, way, patience)
	}
	seen.check(t, w, n, way)
}

// check holds what was noted of a client that vanished after n bytes against
// what it had sent.
func (seen *testimony) check(t *testing.T, w *witness, n int, way string) {
	t.Helper()
	stream, _, whole := vanishing("/00000")
	want := whole(n)
	exact := way == "FIN"
	w.mu.Lock()
	defer w.mu.Unlock()
	if exact && len(seen.messages) != len(want) || len(seen.messages) > len(want) || !slices.Equal(seen.messages, want[:len(seen.messages)]) {
		t.Errorf("after %d bytes and %s: messages %q, want %q (all of them: %t)", n, way, seen.messages, want, exact)
	}
	var e *EndError
	if seen.opens != 1 || seen.closes != 1 || !errors.As(seen.err, &e) || e.By != SidePeer {
		t.Errorf("after %d bytes and %s: OnOpen %d times, OnClose %d times with %v; want once, once, and an end by the peer", n, way, seen.opens, seen.closes, seen.err)
	} else if exact && e.Clean != (n == len(stream)) {
		t.Errorf("after %d of %d bytes and FIN: clean %t (%v)", n, len(stream), e.Clean, e)
	}
}

// A request and its frames may come in segments of one byte.
func TestOneByteSegments(t *testing.T) {
	for _, network := range []string{"tcp", "tls"} {
		t.Run(network, func(t *testing.T) {
			var w witness
			s := &Server{Handler: w.events()}
			var p *peer
			if network == "tls" {
				p = dialTLS(t, serveTLS(t, s), clientTLS())
			} else {
				p = serveTCP(t, s)()
			}
			stream, _, whole := vanishing("/drip")
			go func() {
				for i := range stream {
					p.nc.Write(stream[i : i+1])
				}
			}()
			p.wantBytes(peerAnswer)
			p.want(opPong, "?")
			p.wantClose(4001, "")
			p.wantEnd()
			seen := w.of("/drip")
			<-seen.closed
			if want := whole(len(stream)); !slices.Equal(seen.messages, want) {
				t.Errorf("messages %q, want %q", seen.messages, want)
			}
		})
	}
}

// With the socket's buffers full a write waits; a reset ends it at once, a peer
// that only doesn't read at WriteTimeout, and neither delays another.
func TestFullSocketBuffers(t *testing.T) {
	for _, way := range []string{"reset", "deaf"} {
		t.Run(way, func(t *testing.T) {
			ends := make(chan error, 1)
			timeout := map[string]time.Duration{"reset": patience, "deaf": 400 * time.Millisecond}[way]
			s := &Server{Upgrader: Upgrader{WriteTimeout: timeout}, Handler: HandlerFunc(func(c *Conn, r *http.Request) {
				if r.URL.Path != "/deaf" {
					echoHandler(nil).ServeWebSocket(c, r)
					return
				}
				var err error
				for err == nil {
					err = c.WriteMessage(BinaryMessage, make([]byte, 1<<20))
				}
				_, _, err = c.ReadMessage()
				ends <- err
			})}
			dial := serveTCP(t, s)
			deaf, good := dial(), dial()
			deaf.send([]byte(strings.Replace(peerRequest, "/chat", "/deaf", 1)))
			good.handshake()
			var c *Conn
			eventually(t, "a write is stuck, or was", func() bool {
				if s.Stats().WriteStalls > 0 {
					return true
				}
				for c = range s.Conns() {
					if since, _ := c.write.waitsSince(c.reg.now.Load()); since != 0 && c.reg.now.Load()-since > int64(100*time.Millisecond) {
						return true
					}
				}
				return false
			})
			if way == "reset" {
				deaf.nc.(*net.TCPConn).SetLinger(0)
				deaf.nc.Close()
			}
			good.sendText("are you there?")
			good.want(opText, "are you there?")
			err := <-ends
			if way == "deaf" {
				wantEndError(t, err, EndError{By: SidePeer}, errWriteTimeout)
			} else {
				wantEndError(t, err, EndError{By: SidePeer}, io.ErrUnexpectedEOF) // the write has met the reset
			}
			want := map[string]uint64{"reset": 0, "deaf": 1}[way]
			if got := s.Stats().WriteStalls; got != want {
				t.Errorf("write stalls: %d, want %d", got, want)
			}
			good.closeWith(CloseNormal, "")
		})
	}
}

// A panic costs the connection it happened on, and is counted and logged.
func TestCallbackPanics(t *testing.T) {
	boom := func(on string, c *Conn) {
		if c.Data == on {
			panic("boom " + on)
		}
	}
	events := Events{
		OnOpen: func(c *Conn, r *http.Request) {
			c.Data = strings.TrimPrefix(r.URL.Path, "/")
			boom("OnOpen", c)
		},
		OnMessage: func(c *Conn, typ MessageType, data []byte) {
			boom("OnMessage", c)
			c.WriteMessage(typ, data)
		},
		OnClose: func(c *Conn, err error) { boom("OnClose", c) },
	}
	function := HandlerFunc(func(c *Conn, r *http.Request) {
		events.OnOpen(c, r)
		boom("function", c)
		for m, err := range c.Messages() {
			if err != nil {
				events.OnClose(c, err)
				return
			}
			events.OnMessage(c, m.Type, m.Data)
		}
	})
	for name, handler := range map[string]Handler{"events": events, "function": function} {
		for _, on := range []string{"OnOpen", "OnMessage", "OnClose", "function"} {
			if name == "events" && on == "function" {
				continue
			}
			t.Run(name+"/"+on, func(t *testing.T) {
				var book logBook
				s := &Server{Handler: handler, ErrorLog: book.logger()}
				dial := serveTCP(t, s)
				good, p := dial(), dial()
				good.handshake()
				p.send([]byte(strings.Replace(peerRequest, "/chat", "/"+on, 1)), textFrame("x"))
				p.wantBytes(peerAnswer)
				switch on {
				case "OnClose":
					p.want(opText, "x")
					p.closeWith(CloseNormal, "")
				default:
					p.wantClosed(CloseInternalError, "")
				}
				good.sendText("still here")
				good.want(opText, "still here")
				good.closeWith(CloseNormal, "")
				eventually(t, "nothing is left", func() bool {
					s.mu.Lock()
					defer s.mu.Unlock()
					return s.places[forSocket] == 0
				})
				lines := book.all()
				if got := s.Stats().Panics; got != 1 || len(lines) != 1 || !strings.Contains(lines[0], "boom "+on) || !strings.Contains(lines[0], "fault_test.go") {
					t.Errorf("%d panics counted, the log says %q; want 1, and one line with the value and the stack", got, lines)
				}
			})
		}
	}
}

// A faultyListener returns errors while there are any.
type faultyListener struct {
	*pipeListener
	fails   atomic.Pointer[error]
	accepts atomic.Int64
}

func (l *faultyListener) Accept() (net.Conn, error) {
	l.accepts.Add(1)
	if err := l.fails.Load(); err != nil {
		return nil, *err
	}
	return l.pipeListener.Accept()
}

func (l *faultyListener) fail(err error) {
	if errno, ok := err.(syscall.Errno); ok {
		err = &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", errno)}
	}
	l.fails.Store(&err)
}

// When Accept fails for want of something the server tries again, about once a
// second, says so about once a second, and serves within a second when it may.
func TestAcceptUnderExhaustion(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ECONNABORTED, syscall.ENOBUFS, syscall.ENOMEM,
		syscall.EPROTO, syscall.EPERM, syscall.ENETDOWN, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.EHOSTUNREACH} {
		t.Run(errno.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var book logBook
				s := &Server{Handler: echoHandler(nil), ErrorLog: book.logger()}
				ln := &faultyListener{pipeListener: newPipeListener()}
				ln.fail(errno)
				serve(t, s, ln)
				const seconds = 60
				time.Sleep(seconds * time.Second)
				if got := ln.accepts.Load(); got < seconds/2 || got > seconds+10 {
					t.Errorf("%d calls of Accept in %d s of failures, want about one a second", got, seconds)
				}
				lines := book.all()
				if len(lines) < seconds/2 || len(lines) > seconds+1 || !strings.Contains(lines[len(lines)-1], "accept") {
					t.Errorf("%d lines in %d s, the last %q; want about one a second that says so", len(lines), seconds, lines[len(lines)-1:])
				}
				ln.fails.Store(nil)
				start := time.Now()
				ln.open(t).closeWith(CloseNormal, "")
				if took := time.Since(start); took > time.Second {
					t.Errorf("served again after %v, want 1 s at most", took)
				}
				synctest.Wait() // until Accept waits for the next
				before := ln.accepts.Load()
				ln.fail(errno)
				ln.open(t)
				time.Sleep(16 * time.Millisecond)
				if got := ln.accepts.Load() - before; got != 3 {
					t.Errorf("%d calls of Accept within 16 ms after a success, want 3: the first retry comes after 5 ms, the second after 10", got)
				}

				// Whoever shuts down needn't wait for the next attempt.
				time.Sleep(10 * time.Second)
				start = time.Now()
				s.Close()
				synctest.Wait()
				if before := ln.accepts.Load(); time.Since(start) != 0 || before == 0 {
					t.Errorf("Close took %v while Accept fails", time.Since(start))
				}
			})
		})
	}
	t.Run("for good", func(t *testing.T) {
		s := &Server{Handler: Events{}}
		ln := &faultyListener{pipeListener: newPipeListener()}
		ln.fail(errApplication)
		if err := s.Serve(ln); err != errApplication {
			t.Errorf("Serve = %v, want the error that won't go away, %v", err, errApplication)
		}
		select {
		case <-ln.done:
		default:
			t.Error("Serve has left the listener open")
		}
	})
}
