package websocket

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// defaultMaxHTTPConns is 80 to 120 MiB of net/http's buffers and goroutines.
const defaultMaxHTTPConns = 4096

// takeSlot waits until a handshake may begin. The clock of a request that net/http
// has read runs already, and its client may leave meanwhile.
func (s *Server) takeSlot(h *handshake) error {
	if s.slots == nil {
		return nil
	}
	ctx := context.Background()
	if h.r != nil {
		ctx = h.r.Context()
	}
	if !h.deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, h.deadline, errTooManyHandshakes)
		defer cancel()
	}
	s.waiting.Add(1)
	defer s.waiting.Add(-1)
	select {
	case s.slots <- struct{}{}:
		h.slot.Store(true)
		if h.gaveUp() { // by Close, which may have looked for the slot before
			h.freeSlot()
			return errShutdown
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.stopped:
		if h.w == nil {
			return errShutdown // nobody waits for its answer
		}
		return errGoingDown
	}
}

var (
	errGoingDown         = refuse(http.StatusServiceUnavailable, "the server is going down")
	errTooMany           = refuse(http.StatusServiceUnavailable, "too many connections (Server.MaxConns)")
	errTooManyPlain      = refuse(http.StatusServiceUnavailable, "too many connections (Server.MaxHTTPConns)")
	errTooManyHandshakes = refuse(http.StatusServiceUnavailable, "too many handshakes (Server.MaxHandshakes)")
	errPanicked          = refuse(http.StatusInternalServerError, "internal server error")
)

// A place is what a socket takes of the limits: one of MaxConns or MaxHTTPConns, and,
// where its client is known, one of MaxConnsPerIP. All of it is guarded by Server.mu.
type place struct {
	kind   placeKind
	client *client // nil for one that isn't limited, or isn't known yet
}

// A placeKind says what has the socket, or may get it.
type placeKind uint8

const (
	noPlace   placeKind = iota
	forSocket           // a WebSocket, or its handshake
	forPages            // Server.HTTP
	placeKinds
)

// A client is who has connections, as MaxConnsPerIP sees it.
type client struct {
	ip netip.Addr
	n  [placeKinds]int // its places
}

// admit lets a handshake begin, when there is a slot for it, unless there are too
// many connections or the server goes down.
func (s *Server) admit(h *handshake) error {
	if err := s.count(h); err != nil {
		return err
	}
	return s.takeSlot(h)
}

// count counts a handshake in. From here on Close finds it, also when it is to be
// refused. A socket for which there is no place may still be for HTTP, which has
// places of its own: then it is read, and refused if it turns out to be an upgrade.
func (s *Server) count(h *handshake) error {
	ip := s.socketIP(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed.Load() {
		return errShutdown
	}
	s.handshakes[h] = struct{}{}
	if s.stopping.Load() {
		return errGoingDown
	}
	err := s.takePlace(&h.place, forSocket, ip)
	if err != nil && s.pages() != nil && h.w == nil && s.takePlace(&h.place, forPages, ip) == nil {
		return nil
	}
	return err
}

// socketIP returns the client's address by the socket, or by the header of a proxy
// that forwards it. It is invalid where that isn't known yet, or doesn't count.
func (s *Server) socketIP(h *handshake) (ip netip.Addr) {
	if s.MaxConnsPerIP > 0 && s.ClientIP == nil && !h.proxied {
		ip = hostIP(h.remote)
	}
	return ip
}

// identify gives the client that sent the request a place among the WebSockets:
// there may be room by now, or it wasn't known when it was accepted.
func (s *Server) identify(h *handshake) error {
	ip := s.socketIP(h)
	if s.ClientIP != nil {
		ip = s.ClientIP(h.r)
	}
	return s.placeAs(h, forSocket, ip)
}

// placeAs makes h's place one of kind and of ip's.
func (s *Server) placeAs(h *handshake, kind placeKind, ip netip.Addr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping.Load() || h.gone {
		return errGoingDown
	}
	return s.takePlace(&h.place, kind, ip)
}

// takePlace makes p one of kind and of ip's, which is invalid when it isn't known. It
// is called with mu held, as what follows.
func (s *Server) takePlace(p *place, kind placeKind, ip netip.Addr) error {
	if p.kind == kind {
		return s.countClient(p, ip)
	}
	most, full := orDefault(s.MaxConns, math.MaxInt, math.MaxInt), errTooMany
	if kind == forPages {
		most, full = orDefault(s.MaxHTTPConns, defaultMaxHTTPConns, math.MaxInt), errTooManyPlain
	}
	if s.places[kind] >= most {
		return full
	}
	taken := place{kind: kind}
	if err := s.countClient(&taken, ip); err != nil {
		return err
	}
	s.places[kind]++
	s.dropPlace(p)
	*p = taken
	return nil
}

// countClient makes p one of ip's, unless it is somebody's already.
func (s *Server) countClient(p *place, ip netip.Addr) error {
	if p.client != nil || s.MaxConnsPerIP <= 0 || !ip.IsValid() {
		return nil
	}
	ip = ip.Unmap().WithZone("")
	if ip.Is6() {
		network, _ := ip.Prefix(64)
		ip = network.Addr()
	}
	cl := s.clients[ip]
	if cl == nil {
		cl = &client{ip: ip}
		s.clients[ip] = cl
	}
	if cl.n[p.kind] >= s.MaxConnsPerIP {
		return refuse(http.StatusTooManyRequests, "too many connections from %v (Server.MaxConnsPerIP)", ip)
	}
	cl.n[p.kind]++
	p.client = cl
	return nil
}

// dropPlace gives p back, if it is one.
func (s *Server) dropPlace(p *place) {
	if p.kind == noPlace {
		return
	}
	if cl := p.client; cl != nil {
		if cl.n[p.kind]--; cl.n == [placeKinds]int{} {
			delete(s.clients, cl.ip)
		}
	}
	s.places[p.kind]--
	*p = place{}
	s.checkIdle()
}

// register brings c among the connections, which is the moment in which the
// handshake becomes one: Shutdown and Close find either. Its place is c's from then on.
func (h *handshake) register(c *Conn) error {
	if s := h.s; s != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.stopping.Load() {
			return errGoingDown
		}
		if h.place.client != nil {
			c.details().client = h.place.client // c.mu is held
		}
		h.place = place{}
		delete(s.handshakes, h)
	}
	h.reg.add(c)
	c.deflate.count(1) // which the connection's end takes back
	h.conn = c
	return nil
}

// leave counts a connection out whose handler has returned. Who ended it may
// still be about to take it off the registry.
func (s *Server) leave(c *Conn) {
	if c.connState() == stateClosed {
		s.reg.remove(c)
	}
	p := place{forSocket, c.known().client}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropPlace(&p)
}

// giveBack counts h out, once.
func (s *Server) giveBack(h *handshake) {
	h.freeSlot()
	s.mu.Lock()
	defer s.mu.Unlock()
	h.gone = true
	s.dropPlace(&h.place)
}

func (h *handshake) freeSlot() {
	if h.slot.Swap(false) {
		<-h.s.slots
	}
}

// forget ends the handshake: nothing of it is left to be cut.
func (s *Server) forget(h *handshake) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.handshakes, h)
	s.checkIdle()
}

// checkIdle tells Shutdown of the last end. It is called with mu held.
func (s *Server) checkIdle() {
	if s.idle != nil && s.isIdle() {
		close(s.idle)
		s.idle = nil
	}
}

func (s *Server) isIdle() bool { return s.places[forSocket] == 0 && len(s.handshakes) == 0 }

// maxRefusals bounds the sockets that are turned away at the same time, each
// on a goroutine, which TLS may keep for all of refusalTime.
const maxRefusals = 64

// turnAway ends a handshake that admit has refused. It holds no slot of
// MaxHandshakes: a silent crowd would keep those from others. Few get an
// answer, which over TLS they have to shake hands for; the rest are closed.
func (s *Server) turnAway(h *handshake, err error) {
	if s.refusing.Add(1) > maxRefusals || err == errShutdown {
		s.refusing.Add(-1)
		if h.claim() { // or Close has counted it
			s.note(h.remote, err)
			s.giveBack(h)
		}
		aside(h.closingWaits(), func() { // who accepts waits for nobody
			s.reg.cutConn(h.nc)
			s.forget(h)
		})
		return
	}
	go func() {
		defer s.refusing.Add(-1)
		if h.sock != nil && h.sock.Serve(unserved{}) == nil { // for what waits below
			defer h.sock.Start()
		}
		h.guard(func() (*Conn, error) {
			h.start()
			h.nc.SetDeadline(time.Now().Add(refusalTime))
			h.readProxyHeader() // an answer needs the TLS behind it
			return nil, h.end(err, nil)
		})
	}()
}

// serve is the life of a socket on a goroutine.
func (s *Server) serve(h *handshake) {
	if c, _ := h.serve(); c != nil {
		s.run(c, h.r)
	}
}

// note counts a handshake that failed, and logs why: the server's limits and
// faults and TLS that isn't agreed on as errors, a request that was wrong or not
// allowed as information, since a browser tells its user nothing of it.
func (s *Server) note(remote string, err error) {
	var refused *HandshakeError
	level, kind := slog.LevelError, logHandshake
	switch {
	case errors.As(err, &refused):
		s.reg.total.refuse(refused)
		switch status := refused.status(); {
		case errors.Is(err, errGoingDown), errors.Is(err, errPanicked): // the log has it
			return
		case status < 500, status == http.StatusNotImplemented, status == http.StatusHTTPVersionNotSupported:
			level, kind = slog.LevelInfo, logRefused
		}
	default:
		s.reg.total.failed.Add(1)
		for _, ordinary := range ordinaryEnds {
			if errors.Is(err, ordinary) {
				return
			}
		}
	}
	s.reg.logAt(level, kind, "websocket: handshake failed", "remote", remote, "error", cut(err.Error(), 512))
}

// ordinaryEnds are those of clients that leave, or are kept from staying.
var ordinaryEnds = []error{io.ErrUnexpectedEOF, os.ErrDeadlineExceeded, syscall.ECONNRESET, syscall.EPIPE,
	net.ErrClosed, io.ErrClosedPipe, context.Canceled}

// plainUnderTLS returns the socket under a TLS connection whose client speaks
// HTTP without TLS, and the answer: a reset would tell it nothing.
func plainUnderTLS(nc net.Conn, err error) (net.Conn, error) {
	var record tls.RecordHeaderError
	if !errors.As(err, &record) || record.Conn == nil || string(record.RecordHeader[:4]) != "GET " {
		return nc, err
	}
	return record.Conn, refuse(http.StatusBadRequest, "a ws: or http: request on a port that speaks wss: and https: (TLS)")
}
