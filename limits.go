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

// defaultMaxHTTPConns is about 60 MiB of net/http's buffers and goroutines.
const defaultMaxHTTPConns = 4096

// takeSlot waits until a handshake may begin, and reports whether the server
// still serves then.
func (s *Server) takeSlot(h *handshake) bool {
	if s.slots == nil {
		return true
	}
	s.waiting.Add(1)
	defer s.waiting.Add(-1)
	select {
	case s.slots <- struct{}{}:
		h.slot.Store(true)
		return true
	case <-s.stopped:
		return false
	}
}

// awaitSlot is takeSlot for a request that net/http has read, whose client may
// leave meanwhile.
func (s *Server) awaitSlot(h *handshake) error {
	if s.slots == nil {
		return nil
	}
	var late <-chan time.Time
	if !h.deadline.IsZero() {
		t := time.NewTimer(time.Until(h.deadline))
		defer t.Stop()
		late = t.C
	}
	s.waiting.Add(1)
	defer s.waiting.Add(-1)
	select {
	case s.slots <- struct{}{}:
		h.slot.Store(true)
		return nil
	case <-late:
		return refuse(http.StatusServiceUnavailable, "too many handshakes (Server.MaxHandshakes)")
	case <-h.r.Context().Done():
		return context.Cause(h.r.Context())
	case <-s.stopped:
		return errGoingDown
	}
}

var (
	errGoingDown    = refuse(http.StatusServiceUnavailable, "the server is going down")
	errTooMany      = refuse(http.StatusServiceUnavailable, "too many connections (Server.MaxConns)")
	errTooManyPlain = refuse(http.StatusServiceUnavailable, "too many connections (Server.MaxHTTPConns)")
	errPanicked     = refuse(http.StatusInternalServerError, "internal server error")
)

// A client is who has connections, as MaxConnsPerIP sees it.
type client struct {
	ip    netip.Addr
	n     int // WebSockets, those in their handshake included; guarded by Server.mu
	plain int // sockets of plain HTTP; guarded by Server.mu
}

// A plainPlace is one socket in the count of those that HTTP has.
type plainPlace struct {
	client *client // nil for one that isn't limited, or isn't known yet
	over   error   // why there was none among the WebSockets, should it turn out to be one
}

// admit counts a handshake in, unless there are too many or the server goes
// down. From here on Close finds it, also when it is to be refused. A socket
// for which there is no place may still be for HTTP, which has places of its
// own: then it is read, and refused if it turns out to be an upgrade.
func (s *Server) admit(h *handshake) error {
	var ip netip.Addr
	if s.MaxConnsPerIP > 0 && s.ClientIP == nil && h.w == nil && !h.proxied {
		ip = hostIP(h.remote)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errShutdown
	}
	if s.handshakes == nil {
		s.handshakes = make(map[*handshake]struct{})
	}
	s.handshakes[h] = struct{}{}
	if s.stopping.Load() {
		return errGoingDown
	}
	err := s.takePlace(h, ip)
	if err != nil && s.pages() != nil && h.w == nil && s.takePlainPlace(h, ip) == nil {
		h.plain.over, err = err, nil
	}
	return err
}

// takePlace counts a connection in. It is called with mu held. ip is invalid
// when it isn't known yet.
func (s *Server) takePlace(h *handshake, ip netip.Addr) error {
	if s.MaxConns > 0 && s.active >= s.MaxConns {
		return errTooMany
	}
	cl, err := s.countClient(ip)
	if err != nil {
		return err
	}
	h.place, h.client = true, cl
	s.active++
	return nil
}

// takePlainPlace counts a socket of plain HTTP in. It is called with mu held.
func (s *Server) takePlainPlace(h *handshake, ip netip.Addr) error {
	if most := orDefault(s.MaxHTTPConns, defaultMaxHTTPConns, math.MaxInt); s.plainActive >= most {
		return errTooManyPlain
	}
	p := new(plainPlace)
	if err := s.countPlain(p, ip); err != nil {
		return err
	}
	h.plain = p
	s.plainActive++
	return nil
}

// countPlain counts a socket of plain HTTP as one of ip's. It is called with mu held.
func (s *Server) countPlain(p *plainPlace, ip netip.Addr) error {
	cl := s.clientOf(ip)
	if cl == nil {
		return nil
	}
	if cl.plain >= s.MaxConnsPerIP {
		return errTooManyOf(cl.ip)
	}
	cl.plain++
	p.client = cl
	return nil
}

// clientOf returns the entry of ip's, a new one if need be, or nil where it
// doesn't count. It is called with mu held.
func (s *Server) clientOf(ip netip.Addr) *client {
	if s.MaxConnsPerIP <= 0 || !ip.IsValid() {
		return nil
	}
	ip = ip.Unmap().WithZone("")
	if ip.Is6() {
		network, _ := ip.Prefix(64)
		ip = network.Addr()
	}
	cl := s.clients[ip]
	if cl == nil {
		if s.clients == nil {
			s.clients = make(map[netip.Addr]*client)
		}
		cl = &client{ip: ip}
		s.clients[ip] = cl
	}
	return cl
}

func errTooManyOf(ip netip.Addr) error {
	return refuse(http.StatusTooManyRequests, "too many connections from %v (Server.MaxConnsPerIP)", ip)
}

// countClient counts a connection of ip's in. It is called with mu held.
func (s *Server) countClient(ip netip.Addr) (*client, error) {
	cl := s.clientOf(ip)
	if cl == nil {
		return nil, nil
	}
	if cl.n >= s.MaxConnsPerIP {
		return nil, errTooManyOf(cl.ip)
	}
	cl.n++
	return cl, nil
}

// forgetClient drops the entry of a client that has nothing left. It is called
// with mu held.
func (s *Server) forgetClient(cl *client) {
	if cl.n == 0 && cl.plain == 0 {
		delete(s.clients, cl.ip)
	}
}

// release counts a connection out.
func (s *Server) release(cl *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropPlace(cl)
}

func (s *Server) dropPlace(cl *client) {
	if cl != nil {
		cl.n--
		s.forgetClient(cl)
	}
	s.active--
	s.checkIdle()
}

// dropPlain counts a socket of plain HTTP out. It is called with mu held.
func (s *Server) dropPlain(p *plainPlace) {
	if p.client != nil {
		p.client.plain--
		s.forgetClient(p.client)
	}
	s.plainActive--
}

// identify counts in the client that sent the request, where that wasn't known
// when it was accepted.
func (s *Server) identify(h *handshake) error {
	var ip netip.Addr
	if s.ClientIP != nil {
		ip = s.ClientIP(h.r)
	} else {
		ip = hostIP(h.remote)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case h.out: // given up meanwhile
		return errGoingDown
	case h.plain != nil && h.plain.over != nil: // there may be room by now
		if err := s.takePlace(h, ip); err != nil {
			return h.plain.over
		}
		s.dropPlain(h.plain)
		h.plain = nil
	case h.client == nil:
		cl, err := s.countClient(ip)
		h.client = cl
		return err
	}
	return nil
}

// register brings the connection of h's among the others.
func (s *Server) register(h *handshake, c *Conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping.Load() {
		return errGoingDown
	}
	if h.client != nil {
		c.details().client = h.client // c.mu is held
	}
	s.reg.add(c)
	delete(s.handshakes, h)
	h.conn = c
	return nil
}

// passOn leaves what was counted for h to its connection.
func (s *Server) passOn(h *handshake) {
	s.freeSlot(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	h.place, h.client, h.out = false, nil, true
}

// giveBack counts h out, once.
func (s *Server) giveBack(h *handshake) {
	s.freeSlot(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	h.out = true
	if h.place {
		h.place = false
		s.dropPlace(h.client)
	}
	if h.plain != nil {
		s.dropPlain(h.plain)
		h.plain = nil
	}
}

func (s *Server) freeSlot(h *handshake) {
	if h.slot.Swap(false) {
		<-s.slots
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

func (s *Server) isIdle() bool { return s.active == 0 && len(s.handshakes) == 0 }

// bound holds a socket that isn't the loop's to HandshakeTimeout. A net.Conn of the
// application's may have no deadlines, as a channel of SSH: a timer cuts it.
func (h *handshake) bound() {
	if h.nc.SetDeadline(h.deadline) != nil && !h.deadline.IsZero() {
		h.watch = time.AfterFunc(time.Until(h.deadline), h.cut)
	}
}

// maxRefusals bounds the sockets that are turned away at the same time, each
// on a goroutine, which TLS may keep for all of refusalTime.
const maxRefusals = 64

// turnAway ends a handshake that admit has refused. It holds no slot of
// MaxHandshakes: a silent crowd would keep those from others. Few get an
// answer, which over TLS they have to shake hands for; the rest are closed.
func (s *Server) turnAway(h *handshake, err error) {
	if s.refusing.Add(1) > maxRefusals {
		s.refusing.Add(-1)
		s.note(h.remote, err)
		s.reg.cutConn(h.nc)
		s.forget(h)
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

// serve is the life of an accepted socket on a goroutine.
func (s *Server) serve(h *handshake) {
	c, _ := h.guard(func() (*Conn, error) {
		h.start()
		return h.read()
	})
	if c != nil {
		s.run(c, h.r)
	}
}

// serveUpgrade is serve for a request that net/http has read.
func (s *Server) serveUpgrade(w http.ResponseWriter, r *http.Request) {
	h := newHandshakeHTTP(&s.reg, s, w, r)
	c, _ := h.guard(func() (*Conn, error) {
		h.start()
		err := s.admit(h)
		if err == nil {
			err = s.awaitSlot(h)
		}
		if err != nil {
			return nil, h.end(err, nil)
		}
		return h.decide()
	})
	if c != nil {
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
	s.reg.log.writeAt(level, kind, "websocket: handshake failed", "remote", remote, "error", cut(err.Error(), 512))
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
