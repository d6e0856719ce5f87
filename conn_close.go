package websocket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/rawws/websocket/internal/netloop"
)

var (
	// errClosing is what a write gets behind the close frame.
	errClosing = fmt.Errorf("websocket: write after the closing handshake began: %w", net.ErrClosed)

	// errNoReader is part of an end that a reader would have seen otherwise.
	errNoReader = errors.New("websocket: nobody reads this connection")

	// What readControl tells the caller apart from a failure.
	errPeerClosed = errors.New("websocket: close frame received")

	errNotUTF8 = &ProtocolError{CloseInvalidPayload, "text is not UTF-8", "RFC 6455, section 8.1"}
)

func tooBig(limit uint64) error {
	return &ProtocolError{CloseMessageTooBig, fmt.Sprintf("message over the limit of %d bytes", limit), ""}
}

// Close does the closing handshake (RFC 6455, section 7.1.2): it sends a close
// frame with code and reason, behind everything written before, and waits for
// the peer's, as long as CloseTimeout doesn't pass without progress. Where
// another goroutine reads, and under Events, the frame goes out and the reader
// does the rest. A message that NextWriter has begun is waited for as long.
// Messages that still come are thrown away, as a browser does after close(). It
// returns nil also when the peer never answers: EndError.Clean tells.
//
// The reason is UTF-8, cut to 123 bytes. CloseNoStatus sends an empty frame;
// another code that can't stand in one is an error, and nothing is done. So is
// a connection that is closing or closed: that error matches net.ErrClosed.
func (c *Conn) Close(code CloseCode, reason string) error {
	if !code.sendable() && code != CloseNoStatus {
		return fmt.Errorf("websocket: close code %d can't be sent (RFC 6455, section 7.4)", code)
	}
	return c.closeBecause(net.ErrClosed, code, reason)
}

// closeBecause is Close with a code that can be sent.
func (c *Conn) closeBecause(cause error, code CloseCode, reason string) error {
	if !c.beginClose(serverEnd(cause, code, reason)) {
		return errClosing
	}
	c.closeAndWait()
	return nil
}

// serverEnd is the record of an end that the application asks for. What it says to
// the peer may be any bytes.
func serverEnd(cause error, code CloseCode, reason string) *EndError {
	return &EndError{By: SideServer, Err: cause, code: code, reason: strings.ToValidUTF8(reason, "\uFFFD")}
}

// CloseRead is for a HandlerFunc that only writes: from here on the connection
// answers pings and the peer's close frame by itself, in a goroutine that ends
// with it. A message that comes all the same ends the connection with 1008. The
// context is that of Context, done when the connection has ended. Nothing else may
// read any more. Under Events, which reads anyway, it only returns the context.
func (c *Conn) CloseRead() context.Context {
	if !c.eventsReads() {
		go c.refuseMessages()
	}
	return c.Context()
}

var errUnwanted = &ProtocolError{ClosePolicyViolation, "a message where none is read", ""}

// refuseMessages reads until the end.
func (c *Conn) refuseMessages() {
	c.lockReading()
	defer c.reading.Unlock()
	c.startRead()
	err := c.beginMessage()
	for quick := 0; isTimeout(err) && quick < 10 && c.connState() != stateClosed; { // a deadline that was for the reads before
		c.reg.setDeadline(c.nc, net.Conn.SetReadDeadline, time.Time{})
		began := time.Now()
		if err = c.beginMessage(); time.Since(began) > time.Millisecond {
			quick = 0
		}
		quick++
	}
	if isTimeout(err) { // without a deadline
		c.finish(&EndError{By: SidePeer, Err: err})
		return
	}
	if err == nil {
		err = errUnwanted
	}
	c.readFailed(err)
}

// CloseNow cuts the connection without a closing handshake; the peer's
// onclose gets 1006. Calls that wait return with an error. Of a connection that
// has ended already it returns an error that matches net.ErrClosed.
func (c *Conn) CloseNow() error {
	if c.connState() == stateClosed {
		return errClosing
	}
	c.finish(&EndError{By: SideServer, Err: net.ErrClosed})
	return nil
}

// beginClose moves to stateClosing with e as the record of the end. The sweeper
// ends what follows when it makes no progress for CloseTimeout. It reports
// false when the end had begun.
func (c *Conn) beginClose(e *EndError) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.connState() != stateOpen {
		return false
	}
	c.end = e
	c.rare().closing.Store(c.reg.now.Load())
	c.state.Store(uint32(stateClosing))
	if e.code != 0 { // else no closing handshake
		c.trace.state(stateClosing)
	}
	c.reg.setDeadline(c.nc, net.Conn.SetReadDeadline, time.Time{}) // the application's
	if c.rare().held.Load() {
		c.reg.setDeadline(c.nc, net.Conn.SetWriteDeadline, time.Time{})
	}
	c.lookSoon()
	return true
}

// sendClose sends the close frame of the end that has begun, once, whoever
// comes first: the side that closes, or the reader that met the peer's frame. It
// goes behind what was written and queued before. A message that NextWriter has
// begun is waited for, since nothing but control frames may stand between its
// fragments (section 5.4); but not when the peer wants nothing more.
func (c *Conn) sendClose(wait bool) {
	w := &c.write
	w.mu.Lock()
	for wait && w.stream != nil && w.err == nil {
		done := w.stream.done
		c.unlockWrite()
		<-done // or the sweeper gives the message up
		w.mu.Lock()
	}
	defer c.unlockWrite()
	if w.stream == nil && !w.has(halfSent) {
		c.drainQueue(writeQueued)
	}
	if w.err != nil {
		return
	}
	b := getBuffer(maxControlPayloadLen)
	defer putBuffer(b)
	p := appendClosePayload(b.b[:0], c.end.code, c.end.reason)
	err := c.writeFrame(header{fin: true, opcode: opClose, length: uint64(len(p))}, p)
	if err == nil {
		err = c.flush(nil, writeControl) // when corked
	}
	if err == nil {
		c.sentClose()
	}
}

// sentClose notes that the close frame is out: nothing may follow it.
func (c *Conn) sentClose() {
	c.write.err = errClosing
	c.write.giveUpStream()
	c.rare().closeSent.Store(c.reg.now.Load())
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
	c.sendClose(false)
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
	r := c.read
	if r.started {
		if err := c.skipMessage(); err != nil {
			return err
		}
	}
	return c.nextFrame() // in stateClosing it returns with an error only
}

// readFailed ends the connection in the way that err asks for, and returns
// what the read returns. A deadline that passed ends nothing, nor an end that has
// begun meanwhile.
func (c *Conn) readFailed(err error) error {
	if isTimeout(err) && c.connState() != stateClosed {
		return explain("read", err)
	}
	c.trace.frameCut(streamEnd(err))
	unread := c.read.pending()
	c.read.drop() // the peer may stay for a while
	switch {
	case err != errPeerClosed:
		c.readBroken(err)
	case c.raw == nil && c.sock == nil || unread:
		c.lingerAndFinish() // TLS has an alert to send, and unread bytes would make a reset
	default:
		c.finish(nil)
	}
	return c.endError()
}

// readBroken is readFailed without a closing handshake of the peer's.
func (c *Conn) readBroken(err error) {
	var broken *ProtocolError
	if errors.As(err, &broken) {
		if c.beginClose(&EndError{By: SidePeer, Err: broken, code: broken.Code, reason: broken.Reason}) {
			c.dropQueue()
		} // else ours comes behind what Send took
		c.sendClose(false)
		c.lingerAndFinish()
		return
	}
	e := &EndError{By: SidePeer, Err: streamEnd(err)}
	if errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe) { // NetConn was closed under us
		e.By = SideServer
	}
	if err == io.EOF {
		c.endWrite(e)
	}
	c.finish(e)
}

// endWrite lets the frame that is half out end whole, and what is held back leave,
// for a peer that has closed its side only and reads on; one that is gone resets
// the write, and one that takes nothing is cut by WriteTimeout. Nothing is sent
// behind that, and nothing of the queue is left out between two that are: Send takes
// no more before what it took is dropped.
func (c *Conn) endWrite(e *EndError) {
	w := &c.write
	if c.queue.Load() == nil && w.mu.TryLock() { // mostly there is nothing
		idle := w.err == nil && w.out == nil && c.queue.Load() == nil
		if idle {
			w.err = errClosing
		}
		c.unlockNow()
		if idle {
			return
		}
	}
	c.beginClose(e)
	w.mu.Lock()
	defer c.unlockWrite()
	c.dropQueue()
	c.flush(nil, writeQueued)
	if w.err == nil {
		w.err = errClosing
	}
}

// endError returns the record of the end.
func (c *Conn) endError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.end
}

// cutUnwaited is finish for the sweeper, which has others to look after: closing may
// take its time, where the net.Conn is the application's, and where SO_LINGER is set and
// the peer's host is gone.
func (c *Conn) cutUnwaited(e *EndError) {
	if c.becomeClosed(e) {
		go c.closeSocket()
	}
}

// finish closes the socket, moves to stateClosed and makes the record final:
// the one that an end under way had begun, or else e. When it returns, whoever
// called it, the groups and the registry have forgotten the connection and its
// context is done: OnClose comes behind that.
func (c *Conn) finish(e *EndError) {
	if c.becomeClosed(e) {
		c.closeSocket()
	}
}

// becomeClosed is finish without the socket, and reports whether that is to follow.
func (c *Conn) becomeClosed(e *EndError) (first bool) {
	c.rare().finishing.Lock()
	defer c.rare().finishing.Unlock()
	x, first := c.moveToClosed(e)
	if first {
		for _, g := range x.groups {
			g.remove(c)
		}
		if x.cancel != nil {
			x.cancel(c.end)
		}
		c.reg.remove(c)
	}
	return first
}

// closeSocket is the rest of finish.
func (c *Conn) closeSocket() {
	c.reg.cutConn(c.nc)
	c.dropQueue()
	c.write.mu.Lock() // soon: whoever holds it fails now
	c.write.shut()
	c.unlockWrite()
	c.trace.closed(c.end) // behind the last frame that is written
}

// moveToClosed makes the end final, once, and returns what has to hear of it.
func (c *Conn) moveToClosed(e *EndError) (x details, first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.connState() == stateClosed {
		return x, false
	}
	if c.end == nil {
		c.end = e
	}
	c.state.Store(uint32(stateClosed))
	c.trace.state(stateClosed)
	if c.detail != nil {
		x = *c.detail
		c.detail.groups = nil
	}
	c.reg.total.closed(c.end)
	c.deflate.count(-1)
	return x, true
}

// cutConn closes a socket at once. A tls.Conn would try to send an alert, and
// could wait for that, so what lies under it comes first; but it is closed too,
// since a connection around it may count on that.
func (g *registry) cutConn(nc net.Conn) {
	if _, ok := nc.(interface{ NetConn() net.Conn }); ok {
		if inner := g.innermost(nc); inner != nil {
			g.closeConn(inner)
		}
	}
	g.closeConn(nc)
}

// closingWaits reports whether closing nc may wait: in a method of the application's, or
// for the peer's system where SO_LINGER is set.
func closingWaits(nc net.Conn) bool {
	if foreign(nc) {
		return true
	}
	nc = innermost(nc)
	if s, ok := nc.(*netloop.Socket); ok {
		return s.Lingers()
	}
	d := netloop.DescriptorOf(nc)
	return d != nil && d.Lingers()
}

// innermost returns nil where nc panics, or has nothing under it.
func (g *registry) innermost(nc net.Conn) (inner net.Conn) {
	var err error
	defer g.caught(nc, &err)
	return innermost(nc)
}

// innermost returns what lies under the connections that tell, as tls.Conn does.
func innermost(nc net.Conn) net.Conn {
	for range 8 { // or forever, if one tells of itself
		outer, ok := nc.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		nc = outer.NetConn()
	}
	return nc
}

// shut makes every write to come fail, and wakes those that wait for another
// message's end.
func (w *writer) shut() {
	if w.err == nil {
		w.err = errClosing
	}
	free(&w.out)
	w.clear(full)
	w.giveUpStream()
}

// fail tells the peer 1011 and ends the connection with cause, from the
// goroutine that serves it.
func (c *Conn) fail(cause error) {
	if c.beginClose(&EndError{By: SideServer, Err: cause, code: CloseInternalError}) {
		c.sendClose(false)
	}
	if c.connState() != stateClosed {
		c.lingerAndFinish()
	}
}

// errShutdown is the cause of an end by Shutdown, a local close among others.
var errShutdown = fmt.Errorf("%w: %w", ErrServerClosed, net.ErrClosed)

// shutdown begins the closing handshake for a server that goes down, when the
// handler isn't at work on a message. Otherwise the end waits until it reads on,
// so that the answer goes out first. OnMessage may take as long as Shutdown's
// context; a HandlerFunc, which may never read again, has CloseTimeout.
func (c *Conn) shutdown(code CloseCode, reason string) {
	e := serverEnd(errShutdown, code, reason)
	if !c.atWork() {
		c.closeSoon(e)
		return
	}
	if !c.eventsReads() {
		c.rare().pendingBy.Store(c.reg.now.Load() + int64(c.reg.u.closeTimeout()))
	}
	c.rare().pending.Store(e)
	if !c.atWork() { // it may have looked before
		c.closePending()
	} else {
		c.lookSoon()
	}
}

// closePending begins the end that has waited for the handler.
func (c *Conn) closePending() {
	if e := c.rare().pending.Swap(nil); e != nil {
		c.rare().pendingBy.Store(0)
		c.closeSoon(e)
	}
}

// closeSoon begins the closing handshake of e without waiting: a connection
// whose peer is stuck gets a goroutine, which the sweeper ends.
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
		go c.sendClose(true)
	}
}

// endClose ends a closing handshake that makes no progress. A message that was
// begun and isn't finished is given up first, so that our close frame can leave.
func (c *Conn) endClose(now int64) {
	if w := &c.write; c.rare().closeSent.Load() == 0 && w.mu.TryLock() {
		given := w.stream != nil && w.err == nil
		if given {
			w.giveUpStream()
			c.rare().closing.Store(now)
		}
		c.unlockNow()
		if given {
			return
		}
	}
	if !c.awaitsBytes() {
		c.mu.Lock()
		if c.connState() == stateClosing {
			c.end.Err = fmt.Errorf("%w: %w", errNoReader, c.end.Err)
		}
		c.mu.Unlock()
	}
	if n, _ := c.unsent(); n > 0 {
		c.discard()
	} // else a reset would only destroy what its application hasn't read yet
	c.cutUnwaited(nil)
}

// closeAndWait sends the close frame, and reads on to the peer's unless
// another goroutine does.
func (c *Conn) closeAndWait() {
	c.sendClose(true)
	if !c.eventsReads() && c.reading.TryLock() {
		c.readFailed(c.awaitClose())
		c.reading.Unlock()
	}
}

// awaitEnd ends the closing handshake that has begun, after the handler: who
// closed may have left the peer's close frame to a reader that came out with
// one more message, and didn't read on.
func (c *Conn) awaitEnd() {
	c.lockReading()
	defer c.reading.Unlock()
	if c.connState() == stateClosing {
		c.readFailed(c.awaitClose())
	}
}

// lockReading locks reading. The one who closes may hold it until the end, and who comes
// then waits for that by channels: a goroutine that waits for a mutex keeps the clock of
// testing/synctest from going on, and the end may be one that only time brings.
func (c *Conn) lockReading() {
	for wait := 10 * time.Millisecond; !c.reading.TryLock(); wait *= 2 {
		if c.connState() != stateClosing {
			c.reading.Lock()
			return
		}
		late := time.NewTimer(wait)
		select {
		case <-c.Context().Done():
		case <-late.C: // whoever held it may have met a deadline, and reads no more
		}
		late.Stop()
	}
}
