package websocket

import (
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/rawws/websocket/internal/httphead"
	"github.com/rawws/websocket/internal/netloop"
)

// A connection under Events that the loop can serve has no goroutine: Ready is
// called when something has come, and reads until nothing is left. The reader
// stops wherever that is the case, as it does for a deadline, and goes on from
// there.

// readsInARow is how often one connection reads before the others have their turn.
const readsInARow = 8

// startLoop has the loop serve c from now on, OnOpen first.
func (c *Conn) startLoop(r *http.Request) {
	c.sock.Become(&opener{c, r})
	c.sock.Notify()
	c.sock.Start()
}

// An opener is a connection before OnOpen: the request isn't needed for longer.
type opener struct {
	c *Conn
	r *http.Request
}

// Ready calls OnOpen, and goes on as the connection.
func (o *opener) Ready(s *netloop.Socket, w *netloop.Worker) (more bool) {
	s.Become((*loopConn)(o.c)) // first: OnOpen may end the goroutine
	if !o.c.open(o.r) && !o.c.lingering {
		return o.c.loopEnded(s, o.c.endError())
	}
	return (*loopConn)(o.c).Ready(s, w)
}

// A loopConn is a Conn as the loop sees it, whose method isn't for anybody else.
type loopConn Conn

// Ready serves the connection as far as that goes without waiting for the peer.
func (l *loopConn) Ready(s *netloop.Socket, w *netloop.Worker) (more bool) {
	c := (*Conn)(l)
	c.reading.Lock()
	defer c.reading.Unlock()
	var err error
	if !c.lingering {
		more, err = c.deliverLent(w)
	}
	if c.lingering {
		return c.lingerOn(s, w)
	}
	if err == netloop.ErrWait {
		return more
	}
	return c.loopEnded(s, err)
}

// Writable goes on with what the socket had no room for, also while a callback runs.
func (l *loopConn) Writable() { (*Conn)(l).drainOn() }

// deliverLent delivers what fits into the worker's buffer, which goes back also
// when a callback ends the worker by runtime.Goexit. more says that the others have
// their turn first.
func (c *Conn) deliverLent(w *netloop.Worker) (more bool, err error) {
	l := lenderOf(w)
	c.lend(l)
	defer c.takeBack(l)
	err = c.deliver()
	return c.read.turnOver, err
}

func (c *Conn) loopEnded(s *netloop.Socket, err error) bool {
	defer s.Done() // behind runtime.Goexit too, or OnClose would be called again
	c.closed(err)
	return false
}

// unserved has the loop let go of a connection that was registered, whose handler
// never began, and which is closed.
func (c *Conn) unserved() {
	if c.sock != nil {
		c.sock.Become(unserved{})
		c.sock.Start()
	}
}

// unserved is the handler of a socket that the loop only has to let go of.
type unserved struct{}

func (unserved) Ready(s *netloop.Socket, _ *netloop.Worker) (more bool) {
	s.Done()
	return false
}

// A lender is what a worker lends to the connection that it serves: with thousands
// of them, what it reads with is in the processor's cache and the connection isn't.
type lender struct {
	buffer  buffer
	reader  reader          // zero between two loans
	request httphead.Memory // of a handshake
}

func lenderOf(w *netloop.Worker) *lender {
	l, ok := w.Local.(*lender)
	if !ok {
		l = &lender{buffer: buffer{b: w.Buf, lent: true}}
		w.Local = l
	}
	return l
}

// begin takes what came behind the handshake.
func (c *Conn) begin(in *buffer) {
	if c.read == nil {
		c.read = readers.Get().(*reader)
	}
	c.read.in = in
	c.read.release()
}

// readers are for connections of the loop's that are inside of a frame or of a
// message when a worker leaves them.
var readers = sync.Pool{New: func() any { return new(reader) }}

// take returns the worker's buffer with what is pending in in, which is given back; or
// in itself where that is much: a request that comes a byte at a time shall not be
// copied to and fro for each.
func (l *lender) take(in *buffer) *buffer {
	b, pending := &l.buffer, in.pending()
	if len(pending) > smallSize {
		return in
	}
	b.r, b.w = 0, copy(b.b, pending)
	free(&in)
	return b
}

// lend gives c the worker's buffer, and its reader if c has none.
func (c *Conn) lend(l *lender) {
	if c.read == nil {
		c.read = &l.reader
	}
	r := c.read
	r.reads, r.turnOver = 0, false
	r.in = l.take(r.in)
}

// takeBack ends lend: what is left over, a part of a header or of a control
// frame, moves into a small buffer of the connection's, and what is known of a
// message under way into a reader of its own.
func (c *Conn) takeBack(l *lender) {
	r := c.read
	if r.in != &l.buffer {
		r.release()
	} else {
		p := r.in.pending()
		if r.in = nil; len(p) > 0 {
			r.in = getBuffer(len(p))
			r.in.w = copy(r.in.b, p)
		}
	}
	idle := r.idle()
	switch {
	case r == &l.reader:
		if c.read = nil; !idle {
			c.read = readers.Get().(*reader)
			*c.read = *r
		}
		*r = reader{}
	case idle:
		c.read = nil
		*r = reader{}
		readers.Put(r)
	}
}

// fillLoop reads what the socket has at once.
func (c *Conn) fillLoop() (int, error) {
	r := c.read
	p := r.room(stashSize)
	if c.large && len(p) > batchSize {
		p = p[:batchSize] // it moves behind its header: little of it is to be copied
	}
	n, err := c.tryReadLoop(p)
	r.in.w += n
	return n, err
}

func (c *Conn) tryReadLoop(p []byte) (int, error) {
	r := c.read
	if r.reads == readsInARow {
		r.turnOver = true
		return 0, netloop.ErrWait
	}
	r.reads++
	return c.sock.TryRead(p)
}

// lingerOn is linger for a connection of the loop's.
func (c *Conn) lingerOn(s *netloop.Socket, w *netloop.Worker) (more bool) {
	left := int(c.rare().lingerLeft)
	more, err := discardInput(s, w, &left)
	if c.rare().lingerLeft = int32(left); err == nil {
		return more
	}
	c.finish(nil)
	return c.loopEnded(s, c.endError())
}

// lingerAndFinish closes the connection, whose close frame is out, as linger does.
// A peer that has sent its own sends nothing more. Another has as long as the sweeper
// gives a closing handshake: what a slow one was sent may lie in its system for a
// while before its application comes to the close frame.
func (c *Conn) lingerAndFinish() {
	soon := time.Now().Add(lingerTime)
	var end time.Time
	c.mu.Lock()
	if c.end.Received != 0 {
		end = soon
	}
	c.mu.Unlock()
	c.startWait()
	if c.sock != nil {
		c.lingering, c.rare().lingerLeft = true, lingerBytes
		beginLinger(c.sock, end)
		return
	}
	c.reg.setDeadline(c.nc, net.Conn.SetWriteDeadline, soon) // of TLS' alert
	if !c.reg.closeSending(c.nc) {
		end = soon // the peer doesn't see ours before this is over
	}
	c.reg.setDeadline(c.nc, net.Conn.SetReadDeadline, end)
	c.reg.discardUntilEnd(c.nc)
	c.finish(nil)
}
