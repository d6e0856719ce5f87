package websocket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
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
		{"full queue", Upgrader{SendQueue: 1}, func(c *Conn, _ *Server) { c.Send(NewPreparedMessage(TextMessage, nil)) }, obey, both(1008, "reading too slowly"), true, []error{errSlow}},
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
