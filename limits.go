package websocket

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime/debug"
	"syscall"
)

// takeSlot waits until a handshake may begin, and reports whether the server
// still serves then.
func (s *Server) takeSlot() bool {
	if s.slots == nil {
		return true
	}
	select {
	case s.slots <- struct{}{}:
		return true
	case <-s.stopped:
		return false
	}
}

func (s *Server) giveSlot() {
	if s.slots != nil {
		<-s.slots
	}
}

var (
	errGoingDown = refuse(http.StatusServiceUnavailable, "the server is going down")
	errTooMany   = refuse(http.StatusServiceUnavailable, "too many connections (Server.MaxConns)")
	errPanicked  = refuse(http.StatusInternalServerError, "internal server error")
)

// A client is who has connections, as MaxConnsPerIP sees it.
type client struct {
	ip netip.Addr
	n  int // guarded by Server.mu
}

// admit counts a connection in, unless there are too many or the server goes
// down. nc is nil when net/http has read the request, ip invalid when it isn't
// known yet. A refused nc is in its handshake too, so that Close finds it.
func (s *Server) admit(nc net.Conn, ip netip.Addr) (*client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping.Load() {
		return nil, errGoingDown
	}
	if nc != nil {
		if s.shaking == nil {
			s.shaking = make(map[net.Conn]struct{})
		}
		s.shaking[nc] = struct{}{}
	}
	if s.MaxConns > 0 && s.active >= s.MaxConns {
		return nil, errTooMany
	}
	cl, err := s.countClient(ip)
	if err != nil {
		return nil, err
	}
	s.active++
	return cl, nil
}

// countClient counts a connection of ip's in. It is called with mu held.
func (s *Server) countClient(ip netip.Addr) (*client, error) {
	if s.MaxConnsPerIP <= 0 || !ip.IsValid() {
		return nil, nil
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
	if cl.n >= s.MaxConnsPerIP {
		return nil, refuse(http.StatusTooManyRequests, "too many connections from %v (Server.MaxConnsPerIP)", ip)
	}
	cl.n++
	return cl, nil
}

// release counts a connection out.
func (s *Server) release(cl *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cl != nil {
		if cl.n--; cl.n == 0 {
			delete(s.clients, cl.ip)
		}
	}
	if s.active--; s.active == 0 && s.idle != nil {
		close(s.idle)
		s.idle = nil
	}
}

// shaken ends the handshake of nc.
func (s *Server) shaken(nc net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.shaking, nc)
}

// serve is the life of an accepted socket.
func (s *Server) serve(nc net.Conn) {
	c, r := s.receive(nc)
	s.giveSlot()
	if c != nil {
		s.run(c, r)
	}
}

// receive takes a socket from accept to the 101. Without a connection there is
// nothing more to do.
func (s *Server) receive(nc net.Conn) (c *Conn, r *http.Request) {
	s.Upgrader.startHandshake(nc) // a refusal too has to shake hands first, over TLS
	t := s.Upgrader.Trace.accepted(nc)
	var ip netip.Addr
	if s.ClientIP == nil {
		ip = hostIP(nc.RemoteAddr().String())
	}
	cl, err := s.admit(nc, ip)
	if err != nil {
		s.dismiss(nc, err, t)
		s.shaken(nc)
		return nil, nil
	}
	defer func() {
		if v := recover(); v != nil {
			c = nil
			s.dismiss(nc, s.callbackPanicked(nc.RemoteAddr().String(), v, r != nil), t)
		}
		s.shaken(nc)
		if c == nil {
			s.release(cl)
		} else {
			c.setClient(cl)
		}
	}()
	in, r, err := s.Upgrader.readRequest(nc, t)
	if err == nil && s.HTTP != nil && !wantsUpgrade(r) {
		t.plain()
		s.servePlain(&replayConn{nc, append(requestHead(in), in.pending()...), t})
		putBuffer(in)
		return nil, nil
	}
	if err == nil && s.ClientIP != nil {
		cl, err = s.identify(r)
	}
	if s.stopping.Load() && (err == nil || errors.Is(err, os.ErrDeadlineExceeded)) {
		err = errGoingDown // stop may have cut the request short
	}
	if err != nil {
		nc, err = plainUnderTLS(nc, err)
		s.dismiss(nc, err, t)
		return nil, r
	}
	if c, err = s.Upgrader.accept(nc, r, in, &s.reg, t); err != nil {
		s.note(nc.RemoteAddr().String(), err)
	}
	return c, r
}

// receiveHTTP is receive for a request that net/http has read.
func (s *Server) receiveHTTP(w http.ResponseWriter, r *http.Request) (c *Conn) {
	cl, err := s.admit(nil, netip.Addr{})
	if err != nil {
		s.note(r.RemoteAddr, err)
		refuseHTTP(w, r, err, nil)
		return nil
	}
	defer func() {
		if v := recover(); v != nil {
			c = nil
			err := s.callbackPanicked(r.RemoteAddr, v, true)
			s.note(r.RemoteAddr, err)
			refuseHTTP(w, r, err, nil)
		}
		if c == nil {
			s.release(cl)
		} else {
			c.setClient(cl)
		}
	}()
	if cl, err = s.identify(r); err != nil {
		s.note(r.RemoteAddr, err)
		refuseHTTP(w, r, err, nil)
		return nil
	}
	if c, err = s.Upgrader.upgradeHTTP(w, r, &s.reg); err != nil {
		s.note(r.RemoteAddr, err)
	}
	return c
}

// identify counts in the client that sent r.
func (s *Server) identify(r *http.Request) (*client, error) {
	var ip netip.Addr
	if s.ClientIP != nil {
		ip = s.ClientIP(r)
	} else {
		ip = hostIP(r.RemoteAddr)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.countClient(ip)
}

// callbackPanicked turns a panic of the application's during a handshake into
// the error that ends it: one that is answered once there is a request.
func (s *Server) callbackPanicked(remote string, v any, answered bool) error {
	s.reg.panicked(remote, v, debug.Stack())
	if answered {
		return errPanicked
	}
	return &panicError{v}
}

// dismiss counts a handshake that failed, and ends it.
func (s *Server) dismiss(nc net.Conn, err error, t *connTrace) {
	s.note(nc.RemoteAddr().String(), err)
	endHandshake(nc, nil, err, nil, t)
}

// note counts a handshake that failed, and logs what is of use to whoever runs
// the server: its own limits and faults, and TLS that isn't agreed on.
func (s *Server) note(remote string, err error) {
	var refused *HandshakeError
	if errors.As(err, &refused) {
		s.reg.total.refuse(refused)
		switch status := refused.status(); {
		case status < 500, err == errGoingDown, err == errPanicked:
			return
		case status == http.StatusNotImplemented, status == http.StatusHTTPVersionNotSupported: // asked for by the client
			return
		}
	} else {
		s.reg.total.failed.Add(1)
		for _, ordinary := range []error{io.ErrUnexpectedEOF, os.ErrDeadlineExceeded, syscall.ECONNRESET, syscall.EPIPE, net.ErrClosed} {
			if errors.Is(err, ordinary) {
				return
			}
		}
	}
	s.reg.log.write(logHandshake, "websocket: handshake failed", "remote", remote, "error", cut(err.Error(), 512))
}

// plainUnderTLS returns the socket under a TLS connection whose client speaks
// HTTP without TLS, and the answer: a reset would tell it nothing.
func plainUnderTLS(nc net.Conn, err error) (net.Conn, error) {
	var record tls.RecordHeaderError
	if !errors.As(err, &record) || record.Conn == nil || string(record.RecordHeader[:4]) != "GET " {
		return nc, err
	}
	return record.Conn, refuse(http.StatusBadRequest, "a ws: or http: request on a port that speaks wss: and https: (TLS)")
}
