package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rawws/websocket"
	"github.com/rawws/websocket/internal/peers/internal/ledger"
)

// A record is the server's side of the ledger for one connection, made when
// nothing of it is left.
type record struct {
	ID             uint32
	Received       ledger.Chain // what was handed to the handler
	Echoed, Pushed uint32       // whose write returned nil
	Queued         uint32       // that Send took
	Tried          [3]uint32    // echoes, pushes and Sends begun
	Error          string
	ByPeer, Clean  bool
	Sent, Got      int // close codes
}

// A session is a connection at the server.
type session struct {
	host *host
	*plan
	buf      []byte
	received ledger.Chain
	echoed   uint32
	tried    uint32
	pushed   atomic.Uint32
	queued   atomic.Uint32
	pushTry  atomic.Uint32
	queueTry atomic.Uint32
	running  sync.WaitGroup // whoever changes the above
	closes   atomic.Int32
}

func (h *host) newSession(c *websocket.Conn, r *http.Request) *session {
	id, err := strconv.ParseUint(r.URL.Query().Get("id"), 10, 32)
	if err != nil {
		panic(err) // every client of ours says its number
	}
	s := &session{host: h, plan: newPlan(h.seed, uint32(id))}
	if s.pushes > 0 {
		s.running.Go(func() { s.push(c) })
	}
	if s.plan.queued > 0 {
		s.running.Go(func() { s.queue(c) })
	}
	return s
}

func (h *host) events() websocket.Events {
	return websocket.Events{
		OnOpen:    func(c *websocket.Conn, r *http.Request) { c.Data = h.newSession(c, r) },
		OnMessage: func(c *websocket.Conn, t websocket.MessageType, p []byte) { c.Data.(*session).message(c, t, p) },
		OnClose: func(c *websocket.Conn, err error) {
			s := c.Data.(*session)
			go s.ended(err)
		},
	}
}

// serve is the same server as a loop. What it can't see from inside, the end
// after it returned or panicked, the context tells.
func (h *host) serve(c *websocket.Conn, r *http.Request) {
	s := h.newSession(c, r)
	s.running.Add(1)
	defer s.running.Done()
	context.AfterFunc(c.Context(), func() { s.ended(context.Cause(c.Context())) })
	var buf []byte
	for {
		t, p, err := s.read(c, buf[:0])
		if err != nil {
			return
		}
		s.message(c, t, p)
		if s.ending == endServer && s.received.N > s.endAfter && !s.elsewhere {
			return // the library says 1000
		}
		buf = p
	}
}

// read takes turns with the ways of reading.
func (s *session) read(c *websocket.Conn, buf []byte) (websocket.MessageType, []byte, error) {
	switch s.received.N % 3 {
	case 0:
		return c.AppendMessage(buf)
	case 1:
		return c.ReadMessage()
	}
	t, r, err := c.NextReader()
	if err != nil {
		return 0, nil, err
	}
	p, err := io.ReadAll(r)
	return t, p, err
}

// message holds the next message against the ledger, does what the plan says,
// and echoes.
func (s *session) message(c *websocket.Conn, t websocket.MessageType, p []byte) {
	h, err := ledger.Parse(p)
	if err != nil {
		s.host.fault(s.id, "%v", err)
		return
	}
	if h.Stream != ledger.Client || h.ID != s.id || h.Seq != s.received.N {
		s.host.fault(s.id, "got %q, want message %d of the client", p[:ledger.HeadLen], s.received.N)
		return
	}
	s.received.Add(h.Seq, h.Sum)
	if s.slow > 0 && h.Seq%8 == 0 {
		time.Sleep(s.slow)
	}
	if h.Seq == s.endAfter {
		s.end(c)
	}
	s.tried++
	if s.echo(c, t, p) == nil {
		s.echoed++
	}
}

// end does the server's part of an ending.
func (s *session) end(c *websocket.Conn) {
	var end func()
	switch s.ending {
	case endPanic:
		panic("as planned")
	case endServer:
		if servers[s.server].blocking && !s.elsewhere {
			return // serve returns
		}
		end = func() { c.Close(serverCode, "as planned") }
	case endNow:
		end = func() { c.CloseNow() }
	default:
		return
	}
	if s.elsewhere {
		s.running.Go(end)
	} else {
		end()
	}
}

const serverCode = 4001

// echo writes the answer in the plan's way.
func (s *session) echo(c *websocket.Conn, t websocket.MessageType, p []byte) error {
	switch s.answer {
	case 0:
		return c.WritePrepared(websocket.NewPreparedMessage(t, p))
	case 1:
		w, err := c.NextWriter(t)
		if err != nil {
			return err
		}
		half := len(p) / 2
		_, err = w.Write(p[:half])
		_, err2 := w.Write(p[half:])
		return errors.Join(err, err2, w.Close())
	}
	return c.WriteMessage(t, p)
}

func messageType(text bool) websocket.MessageType {
	if text {
		return websocket.TextMessage
	}
	return websocket.BinaryMessage
}

// pause waits for d on the average, or until the connection has ended.
func pause(r *rand.Rand, d time.Duration) {
	if d > 0 {
		time.Sleep(time.Duration(float64(d) * min(r.ExpFloat64(), 4)))
	}
}

// push writes messages of the server's own from a goroutine of their own.
func (s *session) push(c *websocket.Conn) {
	r := rand.New(rand.NewPCG(s.host.seed, uint64(s.id)))
	var buf []byte
	for seq := range s.pushes {
		pause(r, s.pushPace)
		var text bool
		buf, text = s.host.maker.Append(buf[:0], ledger.Pushed, s.id, seq)
		s.pushTry.Add(1)
		if c.WriteMessage(messageType(text), buf) != nil {
			return
		}
		s.pushed.Add(1)
	}
}

// queue does the same by Send.
func (s *session) queue(c *websocket.Conn) {
	r := rand.New(rand.NewPCG(s.host.seed, uint64(s.id)))
	for seq := range s.plan.queued {
		pause(r, s.pushPace)
		p, text := s.host.maker.Append(nil, ledger.Queued, s.id, seq)
		s.queueTry.Add(1)
		if c.Send(websocket.NewPreparedMessage(messageType(text), p)) != nil {
			return
		}
		s.queued.Add(1)
	}
}

// ended makes the record when everything about the connection has ended.
func (s *session) ended(err error) {
	if n := s.closes.Add(1); n > 1 {
		s.host.fault(s.id, "ended %d times", n)
		return
	}
	s.running.Wait()
	r := &record{
		ID: s.id, Received: s.received, Echoed: s.echoed, Pushed: s.pushed.Load(), Queued: s.queued.Load(),
		Tried: [3]uint32{s.tried, s.pushTry.Load(), s.queueTry.Load()}, Error: fmt.Sprint(err),
	}
	if end, ok := errors.AsType[*websocket.EndError](err); ok {
		r.ByPeer, r.Clean = end.By == websocket.SidePeer, end.Clean
		r.Sent, r.Got = int(end.Sent), int(end.Received)
	} else {
		s.host.fault(s.id, "the end is %v (%T), not an EndError", err, err)
	}
	s.host.answer(serverAnswer{Record: r})
}
