package websocket

import (
	"fmt"
	"net/http"
	"time"
)

// The ways in which a handshake ends without a connection.

// end ends the handshake without a connection, because of err, which it
// returns: a *HandshakeError is answered, with extra in its header. When the
// handshake was given up before, that error is returned.
func (h *handshake) end(err error, extra http.Header) error {
	if !h.claim() {
		return h.lost()
	}
	h.mu.Lock()
	h.phase = phaseEnded
	if h.nc != nil {
		h.nc, err = plainUnderTLS(h.nc, err)
	}
	h.mu.Unlock()
	if h.in != nil {
		putBuffer(h.in)
		h.in = nil
	}
	if h.cancel != nil {
		h.cancel(err)
	}
	h.conclude(h.r, h.trace, err, extra, h.ready)
	return err
}

// conclude counts the end, gives back what the handshake held, answers, and
// closes. The peer may take its time with that, but it holds nothing meanwhile.
func (h *handshake) conclude(r *http.Request, t *connTrace, err error, extra http.Header, inside bool) {
	defer h.reg.tellRefusal(r, h.remote, err) // last: it may take its time
	if h.s != nil {
		h.s.note(h.remote, err)
		h.s.giveBack(h)
		defer func() {
			if !h.lingers { // else it is found until it is closed
				h.s.forget(h)
			}
		}()
	}
	switch {
	case h.nc == nil:
		refuseHTTP(h.w, r, err, extra)
	case h.conn != nil: // an answer behind half a 101 would be one more lie
		h.conn.finish(&EndError{By: SidePeer, Err: err})
		if !h.ready {
			h.conn.unserved()
		}
		h.reg.total.unaccept(h.conn.end) // which is final
	default:
		h.hangUp(r, t, err, extra, inside)
	}
}

// hangUp answers err, if it is a refusal, and closes the socket: on the loop
// without waiting, if the caller is inside of Ready.
func (h *handshake) hangUp(r *http.Request, t *connTrace, err error, extra http.Header, inside bool) {
	switch answered := answerRefusal(h.nc, r, err, extra, t); {
	case !answered:
		cutConn(h.nc) // TLS may have counted a 101 that never left: an alert behind it wouldn't decrypt
	case inside:
		beginLinger(h.sock)
		h.lingers = true
	default:
		linger(h.nc)
	}
	t.closed(err)
}

// giveUp ends a handshake from outside, unless its answer is settled: a
// *HandshakeError is answered where there is a request, anything else cuts the
// socket. What the application decides afterwards is thrown away.
func (h *handshake) giveUp(err error) (given bool) {
	h.mu.Lock()
	if h.phase >= phaseAnswering {
		h.mu.Unlock()
		return false
	}
	h.phase, h.err = phaseEnded, err
	if h.nc == nil {
		h.taken = make(chan struct{})
	}
	cancel, t := h.cancel, h.trace
	var r *http.Request
	if h.w != nil || cancel != nil {
		r = h.r // which isn't being read any more
	}
	h.mu.Unlock()
	if cancel != nil {
		cancel(err)
	}
	if h.taken != nil {
		failed := h.takeOver()
		close(h.taken)
		if failed != nil { // who serves it will answer
			if h.s != nil {
				h.s.note(h.remote, err)
				h.s.giveBack(h)
				h.s.forget(h)
			}
			h.reg.tellRefusal(r, h.remote, err)
			return true
		}
		t = h.trace
	}
	h.nc.SetDeadline(time.Now().Add(refusalTime))
	h.conclude(r, t, err, nil, false)
	h.notify()
	return true
}

// cut closes the socket under a handshake whose answer is settled already.
func (h *handshake) cut() {
	h.mu.Lock()
	nc := h.nc
	h.mu.Unlock()
	if nc != nil {
		cutConn(nc)
		h.notify()
	}
}

// refusalTime is what a client has to take an answer for which it waited too
// long, or one that is due before its TLS handshake.
const refusalTime = 2 * time.Second

// lost returns why the handshake was given up, to the one that served it.
func (h *handshake) lost() error {
	h.mu.Lock()
	err, taken := h.err, h.taken
	h.mu.Unlock()
	if taken != nil {
		if <-taken; h.nc == nil {
			refuseHTTP(h.w, h.r, err, nil)
		}
	} else if h.in != nil {
		putBuffer(h.in)
		h.in = nil
	}
	h.trace.closed(err) // unless that was seen
	return err
}

// guard runs a step in which the application's functions are called, those of a
// net.Conn of its own among them. One that panics or calls runtime.Goexit costs
// this handshake.
func (h *handshake) guard(step func() (*Conn, error)) (c *Conn, err error) {
	if !h.reg.guard(h, func() { c, err = step() }) {
		return nil, h.failure
	}
	return c, err
}

func (h *handshake) remoteAddr() string { return h.remote }

// fail ends the handshake: the client gets 500 once there is a request to answer.
func (h *handshake) fail(cause error) {
	if h.r != nil {
		cause = fmt.Errorf("%w (%w)", cause, errPanicked)
	}
	h.failure = h.end(cause, nil)
}
