package websocket

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/rawws/websocket/internal/httphead"
	"github.com/rawws/websocket/internal/netloop"
)

// A server whose connections the loop serves has it accept their sockets, too,
// and serve their handshakes: no goroutine and no buffer waits for a stranger
// who is slow.

// loopTick is how soon a listener that was closed from outside is noticed, and at the
// soonest a handshake of the loop's whose time is over is ended. It may have a part of
// HandshakeTimeout more: each look is one at all of a crowd that is silent.
const (
	loopTick  = 100 * time.Millisecond
	lateParts = 16
)

// loopListener returns ln for the loop, or nil where goroutines accept: where
// none of the connections would be the loop's, ln isn't a socket's, or the loop has it
// by another call of Serve.
func (s *Server) loopListener(ln net.Listener) *netloop.Listener {
	if s.reg.events == nil && (s.Handler != nil || s.Upgrader.OnUpgrade == nil) {
		return nil
	}
	a := s.reg.loop.Listen(ln)
	if a == nil || s.servings(ln) > 1 {
		return nil
	}
	return a
}

// servings counts the calls of Serve that have ln, a listener which can be compared.
func (s *Server) servings(ln net.Listener) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.listeners {
		if l.Listener == ln {
			n++
		}
	}
	return n
}

// serveOnLoop is the part of Serve that accepts.
func (s *Server) serveOnLoop(a *netloop.Listener) error {
	failed := make(chan error, 1)
	if err := a.Serve(func() bool { return s.acceptOnLoop(a, failed) }); err != nil {
		return err
	}
	defer func() {
		a.Stop()
		go s.endLate()
	}()
	t := time.NewTicker(loopTick)
	defer t.Stop()
	looked := time.Now()
	for {
		select {
		case <-s.stopped:
			return ErrServerClosed
		case err := <-failed:
			return err
		case now := <-t.C:
			if limit := s.Upgrader.handshakeTimeout(); limit > 0 && now.Sub(looked) >= limit/lateParts {
				looked = now
				s.wakeLate()
			}
			s.reg.loop.Trim()
			if !a.Open() && !s.stopping.Load() { // stop closes it, and then stopped
				return fmt.Errorf("websocket: accept: %w", net.ErrClosed)
			}
		}
	}
}

// acceptsInARow is how many clients are accepted before those that were have their
// turn: well below the time after which the runtime would take the processor away.
const acceptsInARow = 64

// acceptOnLoop accepts the clients that wait.
func (s *Server) acceptOnLoop(a *netloop.Listener, failed chan<- error) (more bool) {
	var wait time.Duration
	for range acceptsInARow {
		if s.stopping.Load() {
			return false
		}
		nc, err := a.Accept()
		if err == netloop.ErrWait {
			return false
		}
		if err == nil {
			wait = 0
			s.acceptedOnLoop(nc)
			continue
		}
		if err := s.backOff(err, &wait); err != nil {
			select {
			case failed <- err:
			default:
			}
			return false
		}
	}
	return true
}

// acceptedOnLoop has the loop serve the handshake of a socket.
func (s *Server) acceptedOnLoop(nc *netloop.Socket) {
	if !s.pings() {
		nc.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true}) // nobody else finds the dead
	}
	h := s.begin(nc, true)
	if h == nil {
		return
	}
	h.start()
	if err := nc.Serve(h); err != nil {
		h.end(err, nil)
		return
	}
	nc.Start()
}

// endLate ends the handshakes that are left when nobody accepts any more. A server
// that goes down ends them itself.
func (s *Server) endLate() {
	t := time.NewTicker(loopTick)
	defer t.Stop()
	for left := true; left; left = s.wakeLate() {
		select {
		case <-s.stopped:
			return
		case <-t.C:
		}
	}
}

// wakeLate has the loop look at the handshakes whose time is over: they wait for their
// request, and nothing else would wake them. It reports whether any are left.
func (s *Server) wakeLate() (left bool) {
	var late []*netloop.Socket
	s.mu.Lock()
	for h := range s.handshakes {
		if h.sock == nil {
			continue
		}
		if left = true; h.isLate() {
			late = append(late, h.sock)
		}
	}
	s.mu.Unlock()
	for _, nc := range late {
		nc.Notify()
	}
	return left
}

func (h *handshake) isLate() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.deadline.IsZero() && time.Until(h.deadline) <= 0
}

// Ready reads the request as far as it has come, and answers it when it is whole.
func (h *handshake) Ready(s *netloop.Socket, w *netloop.Worker) (more bool) {
	h.ready, h.stays = true, false
	defer func() { // also when a callback has called runtime.Goexit
		h.ready = false
		if !h.showsRequest() {
			h.r = nil // its memory is the worker's
		}
		if !h.stays {
			s.Done()
		}
	}()
	c, err := h.guard(func() (*Conn, error) { return h.readOnLoop(s, w) })
	switch {
	case err == netloop.ErrWait:
		h.stays = true
	case c == nil:
	case c.sock == nil:
		go h.s.run(c, h.r)
	case h.s.closed.Load(): // and has cut c, before its handler began
		h.s.leave(c)
	default:
		h.stays = true
		return (&opener{c, h.r}).Ready(s, w)
	}
	return false
}

// readOnLoop reads into the worker's buffer; what is in it when nothing more comes
// moves into one of the handshake's.
func (h *handshake) readOnLoop(s *netloop.Socket, w *netloop.Worker) (*Conn, error) {
	if h.gaveUp() {
		return nil, h.lost()
	}
	l := lenderOf(w)
	h.in = l.take(h.in)
	var memory *httphead.Memory
	if !h.showsRequest() {
		memory = &l.request
	}
	for {
		n, err := s.TryRead(h.room())
		if err == netloop.ErrWait && h.isLate() {
			err = os.ErrDeadlineExceeded
		}
		if err == netloop.ErrWait {
			h.keep()
			return nil, err
		}
		whole, err := h.received(n, err, memory)
		if err != nil {
			return nil, h.end(err, nil)
		}
		if whole {
			h.keep()
			if h.asksApplication() {
				s.OnHangup(h.clientLeft)
				defer s.OnHangup(nil)
			}
			return h.decide()
		}
	}
}

// adopt gives the socket to who will serve it: the loop, under callbacks and where it
// can, or a goroutine, for which the loop lets it go. net/http gives it up before.
func (h *handshake) adopt(callbacks *Events) (net.Conn, error) {
	if h.nc == nil {
		if err := h.takeOver(); err != nil {
			return nil, err
		}
	}
	s, onLoop := h.nc.(*netloop.Socket)
	if onLoop && callbacks == nil {
		nc, err := s.Detach()
		if err == nil {
			h.ready = false // for whoever ends it
			nc.SetDeadline(h.deadline)
		}
		return nc, err
	}
	if !onLoop && callbacks != nil {
		if s, err := h.reg.loop.Adopt(h.nc); err == nil {
			return s, nil
		}
	}
	return h.nc, nil
}

// keep moves what lies in the worker's buffer into one of the handshake's. A request
// that is whole isn't kept, but what came behind it; only net/http would read it again.
func (h *handshake) keep() {
	b := h.in
	if !b.lent {
		return
	}
	h.in = nil
	if h.r != nil && b.r == b.w && !h.s.isPage(h.r) || b.w == 0 {
		return
	}
	h.in = getBuffer(b.w)
	h.in.r, h.in.w = b.r, copy(h.in.b, b.b[:b.w])
}

var errClientLeft = errors.New("websocket: the client has left during its handshake")

// clientLeft ends the context of a request that the application looks at. Once the
// answer is settled it is a connection's, which ends with that.
func (h *handshake) clientLeft() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.phase == phaseDeciding && h.cancel != nil {
		h.cancel(errClientLeft)
	}
}

func (h *handshake) gaveUp() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.phase == phaseEnded
}

// A lingerer closes the socket of a handshake, on the loop, as linger does.
type lingerer struct {
	h    *handshake
	left int
}

func (l *lingerer) Ready(s *netloop.Socket, w *netloop.Worker) (more bool) {
	more, err := discardInput(s, w, &l.left)
	if err != nil {
		s.Close()
		s.Done()
		l.h.s.forget(l.h)
	}
	return more
}

// beginLinger is the first part of linger: who calls it reads on by discardInput.
func beginLinger(s *netloop.Socket, end time.Time) {
	s.CloseWrite()
	s.SetReadDeadline(end)
}

// discardInput throws away what comes. An error says that this is over: the stream
// has ended, the deadline has passed, or so many bytes have come.
func discardInput(s *netloop.Socket, w *netloop.Worker, left *int) (more bool, err error) {
	for range readsInARow {
		n, err := s.TryRead(w.Buf)
		if err == netloop.ErrWait {
			return false, nil
		}
		if *left -= n; err == nil && *left <= 0 {
			err = io.EOF
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}
