package websocket

import (
	"fmt"
	"net/http"
	"runtime/debug"
	"time"
)

// A Handler serves a connection. The request is the one that asked for the
// upgrade. When ServeWebSocket returns, the connection is closed with 1000, or
// 1001 while the server shuts down; when it panics, with 1011.
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
	// OnClose is called exactly once, if OnOpen was due, when the socket is
	// closed. err is the *EndError.
	OnClose func(c *Conn, err error)
}

// ServeWebSocket serves the connection until it has ended. A Server whose
// Handler is an Events doesn't call it but lets idle connections park.
func (e Events) ServeWebSocket(c *Conn, r *http.Request) {
	c.mu.Lock()
	c.extras().events = &e
	c.mu.Unlock()
	c.start(r, (*Conn).loop)
}

// events returns what serves the connection.
func (c *Conn) events() *Events {
	if c.reg.events != nil {
		return c.reg.events
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.extra.events
}

// start runs OnOpen, and then the loop, by run.
func (c *Conn) start(r *http.Request, run func(*Conn)) {
	if c.open(r) {
		run(c)
	} else {
		c.closed(c.endError())
	}
}

// open runs OnOpen and reports whether the connection is to be served on.
func (c *Conn) open(r *http.Request) (ok bool) {
	defer c.recovered(&ok)
	if f := c.events().OnOpen; f != nil {
		f(c, r)
	}
	return true
}

// loop reads messages and hands them over until the connection ends or parks.
func (c *Conn) loop() {
	for {
		c.read.mu.Lock()
		err := c.deliver()
		c.read.mu.Unlock()
		if err != errAtRest {
			c.stay()
			c.closed(err)
			return
		}
		if !c.parks() {
			// A stack never shrinks below what the deepest call left of it, and
			// it is most of what the connection holds: wait on a new one.
			go c.loop()
			return
		}
		if c.park() {
			return
		}
		c.read.nap = awake // the set is not to be had: wait here
	}
}

// restOrLoop lets a connection park that has just opened, until its client
// says something, or serves it on a goroutine that never ran a handshake: its
// stack is small.
func (c *Conn) restOrLoop() {
	if !c.parks() || !c.atRest() || !c.park() {
		go c.loop()
	}
}

// parks reports whether the connection leaves its goroutine when it is quiet.
func (c *Conn) parks() bool { return canPark && c.renews() && c.reg.u.parkAfter() > 0 }

// renews reports whether it does, or at least takes a new one.
func (c *Conn) renews() bool { return c.raw != nil && c.reg.events != nil }

// atRest reports whether the reader stands between two messages with nothing
// buffered, and no deadline of the application's counts on its goroutine.
func (c *Conn) atRest() bool {
	r := &c.read
	if !c.renews() || r.started || r.pending() {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.connState() == stateOpen && !c.beat.deadline
}

// restAfter is how long a connection is quiet until it is asked to rest.
func (c *Conn) restAfter() time.Duration {
	if t := c.reg.u.parkAfter(); t > 0 {
		return t
	}
	return defaultParkAfter
}

// quietEnough reports whether the connection may rest.
func (c *Conn) quietEnough() bool {
	return c.atRest() && c.reg.now.Load()-c.heard.Load() >= int64(c.restAfter())
}

// noteMessage sees that a message has begun. One that comes alone leaves the
// connection parked behind it; messages that come closer together than
// ParkAfter are worth a goroutine that stays.
func (c *Conn) noteMessage() {
	r := &c.read
	now := uint32(c.reg.now.Load()/int64(time.Millisecond)) | 1
	stay := r.last != 0 && time.Duration(now-r.last)*time.Millisecond < c.reg.u.parkAfter()
	r.last = now
	if stay {
		r.nap = awake
		c.stay()
	} else if r.nap == awake {
		r.nap = napping
	}
}

// closed runs OnClose, the last that is heard of a connection.
func (c *Conn) closed(err error) {
	ok := true
	func() {
		defer c.recovered(&ok)
		if f := c.events().OnClose; f != nil {
			f(c, err)
		}
	}()
	if c.reg.events != nil {
		c.reg.done(c)
	}
}

func (c *Conn) deliver() (err error) {
	ok := false
	defer func() {
		if !ok {
			err = c.endError()
		}
	}()
	defer c.recovered(&ok)
	err = c.messages()
	ok = true
	return err
}

// messages is the loop that a message costs.
func (c *Conn) messages() error {
	onMessage := c.events().OnMessage
	r := &c.read
	for {
		// Most waits are here and not inside of borrowMessage: the stack of a
		// goroutine that waits with fewer calls on it is half as large.
		r.freeMessage()
		if !r.pending() {
			// What has come since the last read, the epoll set tells at once.
			if r.nap == drained && c.atRest() {
				c.uncork()
				return errAtRest
			}
			if err := c.fill(); err != nil {
				return c.eventsFailed(err)
			}
		}
		t, p, ok := c.wholeMessage()
		if !ok {
			var err error
			if t, p, err = c.borrowMessage(); err != nil {
				return c.eventsFailed(err)
			}
		}
		if c.connState() != stateOpen || onMessage == nil {
			continue
		}
		more := c.buffered()
		corked := c.write.corked.Load()
		if more != corked {
			c.write.corked.Store(more)
		}
		onMessage(c, t, p)
		if corked && !more {
			c.Flush() // the last of the batch may have had no answer
		}
	}
}

func (c *Conn) eventsFailed(err error) error {
	if err == errAtRest {
		return err
	}
	if isTimeout(err) && c.beginClose(&EndError{By: SideServer, Err: err, code: CloseGoingAway, reason: "read deadline"}) {
		c.sendClose()
		err = errPeerClosed
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

// recovered, deferred, makes a panic of the application's cost the connection
// and nothing else: the peer is told 1011, the log the stack.
func (c *Conn) recovered(ok *bool) {
	v := recover()
	if v == nil {
		return
	}
	*ok = false
	c.reg.panicked(c.RemoteAddr().String(), v, debug.Stack())
	c.fail(&panicError{v})
}
