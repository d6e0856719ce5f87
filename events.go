package websocket

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"github.com/rawws/websocket/internal/netloop"
)

// A Handler serves a connection. The request is the one that asked for the
// upgrade; its context is that of the connection, see Conn.Context. Each string in
// it keeps the whole head of the request in memory: strings.Clone what is kept for
// long. When ServeWebSocket returns, the connection is closed with 1000, or with
// Server.ShutdownCode while the server shuts down; when it panics, or calls
// runtime.Goexit, with 1011.
type Handler interface {
	ServeWebSocket(c *Conn, r *http.Request)
}

// A HandlerFunc is a function that is a Handler.
type HandlerFunc func(c *Conn, r *http.Request)

// ServeWebSocket calls f(c, r).
func (f HandlerFunc) ServeWebSocket(c *Conn, r *http.Request) { f(c, r) }

// Events is a Handler in the manner of the browser's API. The three functions,
// any of which may be nil, are called one after the other, never at the same
// time for one connection.
//
// Answers that OnMessage writes may leave together: see Conn.Flush. While it
// runs nothing else is read from its connection, so work that takes long
// belongs into a goroutine of the application's, with a copy of the data.
type Events struct {
	// OnOpen is called when the 101 has been written, the browser's onopen.
	OnOpen func(c *Conn, r *http.Request)
	// OnMessage is called for each message, in order. data is valid until it
	// returns, and may be changed.
	OnMessage func(c *Conn, t MessageType, data []byte)
	// OnClose is called exactly once for each connection that OnOpen was called
	// for, or would have been if it isn't set, when the socket is closed. err is
	// the *EndError.
	OnClose func(c *Conn, err error)
}

// ServeWebSocket serves the connection until it has ended, as a Server does, but on
// the goroutine that calls it: for a HandlerFunc, or behind Upgrade.
func (e Events) ServeWebSocket(c *Conn, r *http.Request) {
	c.mu.Lock()
	c.details().events = &e
	c.clock.handling.Store(handlerEvents)
	c.mu.Unlock()
	c.start(r, (*Conn).loop)
}

// callbacks returns the Events that a Server serves the connection by, and nil
// where that is another Handler or the caller of Upgrade.
func (c *Conn) callbacks() *Events {
	if c.own {
		return c.detail.own.callbacks
	}
	return c.reg.events
}

// events returns what serves the connection.
func (c *Conn) events() *Events {
	if e := c.callbacks(); e != nil {
		return e
	}
	return c.known().events
}

// start runs OnOpen, and then the loop, by run.
func (c *Conn) start(r *http.Request, run func(*Conn)) {
	opened := false
	defer func() { // behind runtime.Goexit too
		if !opened {
			c.closed(c.endError())
		}
	}()
	if opened = c.open(r); opened {
		run(c)
	}
}

// open runs OnOpen and reports whether the connection is to be served on.
func (c *Conn) open(r *http.Request) bool {
	return c.guard(func() {
		if f := c.events().OnOpen; f != nil {
			f(c, r)
		}
	})
}

// loop reads messages and hands them over until the connection ends.
func (c *Conn) loop() {
	defer func() { c.closed(c.endError()) }()
	c.lockReading()
	defer c.reading.Unlock()
	c.deliver()
}

// deliver hands messages over until the connection ends, or as far as the event
// loop can.
func (c *Conn) deliver() (err error) {
	if !c.guard(func() { err = c.messages() }) {
		return c.endError()
	}
	return err
}

// closed runs OnClose, the last that is heard of a connection.
func (c *Conn) closed(err error) {
	if c.callbacks() != nil {
		defer c.reg.done(c)
	}
	c.guard(func() {
		if f := c.events().OnClose; f != nil {
			f(c, err)
		}
	})
}

// messages is the loop that a message costs.
func (c *Conn) messages() error {
	onMessage := c.events().OnMessage
	r := c.read
	for late := 0; ; {
		// Most waits are here and not inside of borrowMessage: the stack of a
		// goroutine that waits with fewer calls on it is half as large.
		if !r.started {
			free(&r.msg)
		}
		if c.pendingEnd() != nil {
			c.closePending()
		}
		var err error
		if !r.pending() {
			err = c.fill()
		}
		t, p, ok := c.wholeMessage()
		if !ok && err == nil {
			t, p, err = c.borrowMessage()
		}
		if err != nil {
			if err = c.eventsFailed(err, &late); err != nil {
				return err
			}
			continue
		}
		if c.connState() != stateOpen || onMessage == nil {
			continue
		}
		more := c.buffered()
		before := c.write.has(corked)
		if more && !before {
			c.write.set(corked)
		} else if before && !more {
			c.write.clear(corked)
		}
		onMessage(c, t, p)
		c.touchMessage() // however long it took
		if before && !more {
			c.flushBatch() // the last of the batch may have had no answer
		}
	}
}

// What fillLate reads behind a deadline: more than a socket holds by default, and
// for as long as bytes that have come need to pass through TLS, where another
// goroutine may have its turn before the read.
const (
	lateBytes = 8 << 20
	lateTime  = 100 * time.Millisecond
)

// fillLate reads what had come before the read deadline passed, while a callback
// ran: the runtime doesn't look into the socket any more then. It reports false
// when there is nothing, or err isn't a deadline. late counts what it has read.
func (c *Conn) fillLate(err error, late *int) bool {
	if c.sock != nil || !isTimeout(err) || c.connState() != stateOpen || *late > lateBytes {
		return false
	}
	r := c.read
	n := 0
	if c.raw != nil {
		r.got = 0
		c.raw.Control(func(fd uintptr) {
			if c.tryRead(fd) {
				n = int(r.got)
			}
		})
		*late += max(n, 0)
	} else if *late == 0 {
		*late = lateBytes + 1
		c.reg.setDeadline(c.nc, net.Conn.SetReadDeadline, time.Now().Add(lateTime))
		n, _ = c.fillHeld()
	}
	return n > 0
}

// eventsFailed ends the connection for err; nil says that it goes on, to what came
// before a deadline or to an end that has begun. late is fillLate's.
func (c *Conn) eventsFailed(err error, late *int) error {
	if err == netloop.ErrWait {
		return err
	}
	if c.fillLate(err, late) {
		return nil
	}
	if isTimeout(err) {
		if c.beginClose(&EndError{By: SideServer, Err: err, code: CloseGoingAway, reason: "read deadline"}) {
			c.sendClose(true)
			c.trace.frameCut(err)
			c.read.drop()       // the peer may stay for a while
			c.lingerAndFinish() // what it still sends would make a reset
			return c.endError()
		}
		if c.connState() == stateClosing && *late >= 0 { // the deadline passed as it was taken off
			*late = -1 // once: a net.Conn may say so at each read
			c.reg.setDeadline(c.nc, net.Conn.SetReadDeadline, time.Time{})
			return nil
		}
		c.sendClose(false)
		c.finish(nil)
		return c.endError()
	}
	return c.readFailed(err)
}

// A panicError is a panic of the application's, as the cause of an end.
type panicError struct{ value any }

func (e *panicError) Error() string { return fmt.Sprintf("websocket: handler panicked: %v", e.value) }

// Unwrap returns the value if it is an error.
func (e *panicError) Unwrap() error {
	err, _ := e.value.(error)
	return err
}

// errGoexit is what a function that called runtime.Goexit has done.
var errGoexit = errors.New("websocket: handler called runtime.Goexit")

// A victim is what a function of the application's may cost.
type victim interface {
	remoteAddr() string
	fail(cause error)
}

// guard runs f, which calls functions of the application's, and reports whether
// it returned. One that panics, or ends the goroutine by runtime.Goexit (which
// (*testing.T).FailNow does), is counted and logged, and costs v. Behind a
// Goexit only deferred functions run: what has to be done in any case is done
// there, or by v.fail.
func (g *registry) guard(v victim, f func()) (returned bool) {
	defer func() {
		if returned {
			return
		}
		cause := errGoexit
		if value := recover(); value != nil {
			cause = &panicError{value}
		}
		g.panicked(v.remoteAddr(), cause, debug.Stack())
		v.fail(cause)
	}()
	f()
	return true
}

// guard makes what happens in f cost the connection and nothing else: the peer
// is told 1011.
func (c *Conn) guard(f func()) (returned bool) { return c.reg.guard(c, f) }

func (c *Conn) remoteAddr() string { return c.reg.remoteOf(c) }

// nobody is the victim where the application's function costs nothing.
type nobody struct{}

func (nobody) remoteAddr() string { return "" }
func (nobody) fail(error)         {}

// foreign reports whether methods of nc's may be the application's, which may block.
func foreign(nc net.Conn) bool {
	switch nc := nc.(type) {
	case *netloop.Socket, *net.TCPConn, *net.UnixConn:
		return false
	case *tls.Conn:
		return foreign(nc.NetConn())
	}
	return true
}

// aside calls f, on a goroutine of its own where it may block.
func aside(blocks bool, f func()) {
	if blocks {
		go f()
	} else {
		f()
	}
}

// moment is how long what may block in a method of the application's is waited for.
const moment = 500 * time.Millisecond

// apart runs functions on goroutines of their own, and waits for them, but no longer
// than a moment.
func apart(fs ...func()) {
	var wg sync.WaitGroup
	for _, f := range fs {
		wg.Go(f)
	}
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	t := time.NewTimer(moment)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	}
}

// read, write, closeConn and setDeadline call methods of nc that may be the
// application's. One that panics fails, as the network does: what is locked around
// them has to be let go, and who calls them may serve others too.
func (g *registry) read(nc net.Conn, p []byte) (n int, err error) {
	defer g.caught(nc, &err)
	return nc.Read(p)
}

func (g *registry) write(nc net.Conn, p []byte) (n int, err error) {
	defer g.caught(nc, &err)
	return nc.Write(p)
}

func (g *registry) closeConn(nc net.Conn) (err error) {
	defer g.caught(nc, &err)
	return nc.Close()
}

// setDeadline calls a method of net.Conn's that sets one.
func (g *registry) setDeadline(nc net.Conn, set func(net.Conn, time.Time) error, t time.Time) (err error) {
	defer g.caught(nc, &err)
	return set(nc, t)
}

// caught counts and logs a panic of nc's, and makes it err.
func (g *registry) caught(nc net.Conn, err *error) {
	if value := recover(); value != nil {
		cause := &panicError{value}
		g.panicked(g.remoteOf(nc), cause, debug.Stack())
		*err = cause
	}
}
