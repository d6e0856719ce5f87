package websocket

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

var (
	// errClosing is what a write gets behind the close frame.
	errClosing = fmt.Errorf("websocket: write after the closing handshake began: %w", net.ErrClosed)

	// What readControl tells the caller apart from a failure.
	errPeerClosed = errors.New("websocket: close frame received")

	errNotUTF8 = &ProtocolError{CloseInvalidPayload, "text is not UTF-8", "RFC 6455, section 8.1"}
)

func tooBig(limit uint64) error {
	return &ProtocolError{CloseMessageTooBig, fmt.Sprintf("message over the limit of %d bytes", limit), ""}
}

// Close does the closing handshake (RFC 6455, section 7.1.2): it sends a close
// frame with code and reason, behind everything written before, and waits for
// the peer's, at most CloseTimeout in all. Where another goroutine reads, and
// so in OnMessage, the frame goes out and the reader does the rest. Messages
// that still come are thrown away, as a browser does after close().
//
// The reason is UTF-8, cut to 123 bytes. CloseNoStatus sends an empty frame;
// another code that can't stand in one is an error, and nothing is done. So is
// a connection that is closing or closed: that error matches net.ErrClosed.
func (c *Conn) Close(code CloseCode, reason string) error {
	if !code.sendable() && code != CloseNoStatus {
		return fmt.Errorf("websocket: close code %d can't be sent (RFC 6455, section 7.4)", code)
	}
	e := &EndError{By: SideServer, Err: net.ErrClosed, code: code, reason: strings.ToValidUTF8(reason, "\uFFFD")}
	if !c.beginClose(e) {
		return errClosing
	}
	c.closeAndWait()
	return nil
}

// CloseNow cuts the connection without a closing handshake; the peer's
// onclose gets 1006. Calls that wait return with an error.
func (c *Conn) CloseNow() error {
	if c.connState() == stateClosed {
		return errClosing
	}
	c.cut(&EndError{By: SideServer, Err: net.ErrClosed})
	return nil
}

// beginClose moves to stateClosing with e as the record of the end, and gives
// all that follows CloseTimeout. It reports false when the end had begun.
func (c *Conn) beginClose(e *EndError) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.connState() != stateOpen {
		return false
	}
	c.end = e
	timeout := c.reg.u.closeTimeout()
	c.beat.endBy.Store(c.reg.now.Load() + int64(timeout))
	c.state.Store(uint32(stateClosing))
	c.trace.state(stateClosing)
	if e.Received == 0 { // else all there is to do is one write, and WriteTimeout holds
		c.nc.SetDeadline(time.Now().Add(timeout))
	}
	return true
}

// sendClose sends the close frame of the end that has begun, once, whoever
// comes first: the side that closes, or the reader that met the peer's frame.
func (c *Conn) sendClose() {
	w := &c.write
	w.mu.Lock()
	defer c.unlockWrite()
	c.drainQueue()
	if w.err != nil {
		return
	}
	code := c.end.code
	p := appendClosePayload(make([]byte, 0, maxControlPayloadLen), code, c.end.reason)
	err := c.writeFrame(header{fin: true, opcode: opClose, length: uint64(len(p))}, p)
	if err == nil {
		err = c.flush(nil) // when corked
	}
	if err == nil {
		c.sentClose()
	}
}

// sentClose notes that the close frame is out: nothing may follow it.
func (c *Conn) sentClose() {
	c.write.err = errClosing
	c.mu.Lock()
	if c.connState() != stateClosed {
		c.end.Sent = c.end.code
		if p := appendClosePayload(nil, c.end.code, c.end.reason); len(p) > 2 {
			c.end.SentReason = string(p[2:]) // as much of it as went out
		}
	}
	c.mu.Unlock()
}

// peerClosed takes the payload of the peer's close frame, and answers it with
// the same code when ours isn't out yet (section 5.5.1).
func (c *Conn) peerClosed(p []byte) error {
	code, reason, err := parseClosePayload(p)
	if err != nil {
		return err
	}
	if c.beginClose(&EndError{By: SidePeer, Received: code, Err: &CloseError{code, reason}, code: code}) {
		c.dropQueue() // it wants nothing more
	} // else the two frames cross, and ours comes behind what Send took
	c.sendClose()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.connState() != stateClosed {
		c.end.Received, c.end.ReceivedReason = code, reason
		c.end.Clean = c.end.Sent != 0 && (code == c.end.Sent || !code.complains())
	}
	return errPeerClosed
}

// awaitClose reads on, with nobody to read for, until the peer's close frame
// or the deadline.
func (c *Conn) awaitClose() error {
	r := &c.read
	if r.started {
		if err := c.skipMessage(); err != nil {
			return err
		}
	}
	return c.nextFrame() // in stateClosing it returns with an error only
}

// readFailed ends the connection in the way that err asks for, and returns
// what the read returns. A deadline that passed ends nothing.
func (c *Conn) readFailed(err error) error {
	if isTimeout(err) && c.connState() == stateOpen {
		return fmt.Errorf("websocket: read: %w", err)
	}
	c.trace.frameCut(streamEnd(err))
	var broken *ProtocolError
	switch {
	case errors.As(err, &broken):
		e := &EndError{By: SidePeer, Err: broken, code: broken.Code, reason: broken.Reason}
		c.beginClose(e)
		c.dropQueue()
		c.sendClose()
		c.lingerAndFinish(nil)
	case err == errPeerClosed && (c.raw == nil && c.sock == nil || c.read.pending()):
		c.lingerAndFinish(nil) // TLS has an alert to send, and unread bytes would make a reset
	default:
		e := &EndError{By: SidePeer, Err: streamEnd(err)}
		if errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe) { // NetConn was closed under us
			e.By = SideServer
		}
		c.finish(e)
	}
	c.read.drop()
	return c.endError()
}

// endError returns the record of the end.
func (c *Conn) endError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.end
}

// cut ends the connection from outside the goroutine that reads.
func (c *Conn) cut(e *EndError) {
	c.finish(e)
	if c.sock != nil {
		c.sock.Notify() // for OnClose
	}
}

// finish closes the socket, moves to stateClosed and makes the record final:
// the one that an end under way had begun, or else e.
func (c *Conn) finish(e *EndError) {
	c.mu.Lock()
	if c.connState() == stateClosed {
		c.mu.Unlock()
		return
	}
	if c.end == nil {
		c.end = e
	}
	c.state.Store(uint32(stateClosed))
	c.trace.state(stateClosed)
	var x extras
	if c.extra != nil {
		x = *c.extra
		c.extra.groups = nil
	}
	c.reg.total.closed(c.end)
	c.deflate.close()
	c.mu.Unlock()

	cutConn(c.nc)
	c.trace.closed(c.end)
	if x.cancel != nil {
		x.cancel(c.end)
	}
	for _, g := range x.groups {
		g.remove(c)
	}
	c.reg.remove(c)
	c.dropQueue()
	c.write.mu.Lock() // soon: whoever holds it fails now
	c.write.shut()
	c.unlockWrite()
}

// cutConn closes a socket at once. A tls.Conn would try to send an alert, and
// could wait for that, so what lies under it comes first; but it is closed too,
// since a connection around it may count on that.
func cutConn(nc net.Conn) {
	if inner, ok := nc.(interface{ NetConn() net.Conn }); ok {
		inner.NetConn().Close()
	}
	nc.Close()
}

// shut makes every write to come fail, and wakes those that wait for another
// message's end.
func (w *writer) shut() {
	if w.err == nil {
		w.err = errClosing
	}
	if w.out != nil {
		putBuffer(w.out)
		w.out = nil
	}
	w.endStream(w.stream)
}

// fail tells the peer 1011 and ends the connection with cause, from the
// goroutine that serves it.
func (c *Conn) fail(cause error) {
	if c.beginClose(&EndError{By: SideServer, Err: cause, code: CloseInternalError}) {
		c.sendClose()
	}
	if c.connState() != stateClosed {
		c.lingerAndFinish(nil)
	}
}

// errShutdown is the cause of an end by Shutdown, a local close among others.
var errShutdown = fmt.Errorf("%w: %w", ErrServerClosed, net.ErrClosed)

// shutdown is closeSoon for a server that goes down.
func (c *Conn) shutdown() {
	c.closeSoon(&EndError{By: SideServer, Err: errShutdown, code: CloseGoingAway})
}

// closeSoon begins the closing handshake of e without waiting: a connection
// whose peer is stuck gets a goroutine, which its deadline ends.
func (c *Conn) closeSoon(e *EndError) {
	if !c.beginClose(e) {
		return
	}
	if c.callbacks() == nil {
		go c.closeAndWait()
		return
	}
	p := appendClosePayload(make([]byte, 0, maxControlPayloadLen), e.code, e.reason)
	if !c.tryControl(opClose, p) {
		go c.sendClose()
	}
}

// closeAndWait sends the close frame, and reads on to the peer's unless
// another goroutine does.
func (c *Conn) closeAndWait() {
	c.sendClose()
	if c.callbacks() == nil && c.read.mu.TryLock() {
		c.readFailed(c.awaitClose())
		c.read.mu.Unlock()
	}
}

// awaitEnd ends the closing handshake that has begun, after the handler: who
// closed may have left the peer's close frame to a reader that came out with
// one more message, and didn't read on.
func (c *Conn) awaitEnd() {
	c.read.mu.Lock()
	defer c.read.mu.Unlock()
	if c.connState() == stateClosing {
		c.readFailed(c.awaitClose())
	}
}
