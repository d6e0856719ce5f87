package websocket

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/rawws/websocket/internal/netloop"
)

// A descriptor is a socket that is read and written without its net.Conn.
type descriptor struct {
	netloop.Descriptor
	try func(fd uintptr) bool // Conn.tryRead; nil before the first wait
}

// A directSocket is written past net.Conn's Write: what that has taken so far is known,
// and it needn't wait.
type directSocket interface {
	TryWrite(p, q []byte) (int, error)
	WriteAll(p, q []byte, told netloop.Progress) (int, error)
	Unsent() (int, error)
	LimitUnsent() error
}

// direct returns the socket that is written to, nil where nc's Write has to be.
func (c *Conn) direct() directSocket {
	switch {
	case c.sock != nil:
		return c.sock
	case c.raw != nil:
		return c.raw
	}
	return nil
}

// bottom returns the socket that nc's bytes leave by, under TLS and under wrappers that
// show it, to be asked how many wait there: what is read and written goes through nc
// all the same. It is nil for another connection.
func (c *Conn) bottom() (d directSocket) {
	if d := c.direct(); d != nil {
		return d
	}
	var err error
	defer c.reg.caught(c.nc, &err)
	if sc, ok := innermost(c.nc).(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			return &netloop.Descriptor{RawConn: raw}
		}
	}
	return nil
}

// fill reads behind what is buffered, at least one byte. Answers that were held
// back go out before the wait.
func (c *Conn) fill() error {
	c.uncork()
	c.startWait()
	for {
		var n int
		var err error
		switch {
		case c.sock != nil:
			n, err = c.fillLoop()
		case c.raw != nil:
			n, err = c.fillRaw()
		default:
			n, err = c.fillHeld()
		}
		if n > 0 {
			c.touchReceived(n)
			c.stopWait(nil)
			return nil
		}
		if err != nil {
			c.stopWait(err)
			return err
		} // else nothing happened, says io.Reader
	}
}

// fillHeld reads into a buffer that stays with the connection.
func (c *Conn) fillHeld() (int, error) {
	n, err := c.reg.read(c.nc, c.read.room(smallSize))
	c.read.in.w += n
	return n, err
}

const _ = int16(batchSize) // what reader.got and seen count fits

// fillRaw waits for bytes and holds no buffer meanwhile. What tryRead finds
// comes back through the reader: the runtime calls a function, and one that
// knows its connection is allocated, so the connection keeps it.
func (c *Conn) fillRaw() (int, error) {
	r := c.read
	if c.raw.try == nil {
		c.raw.try = c.tryRead
	}
	if err := c.raw.Read(c.raw.try); err != nil {
		return 0, err
	}
	if r.got <= 0 {
		return 0, c.gotNothing()
	}
	return int(r.got), nil
}

// gotNothing returns why tryRead came back without a byte.
func (c *Conn) gotNothing() error {
	if got := c.read.got; got != 0 {
		return c.raw.Failure("read", syscall.Errno(-got))
	}
	return io.EOF
}

// tryRead is called by the runtime whenever the socket may be readable. It
// leaves in r.got how much it read, 0 at the end of the stream, or a negative
// errno. Returning false waits; then the buffer goes back, and a few pending
// bytes move into a small one, so that a peer can't make us hold 16 KiB by
// sending one.
func (c *Conn) tryRead(fd uintptr) bool {
	r := c.read
	p := r.room(batchSize)
	p = p[:min(len(p), batchSize)] // what the handshake left over may be larger
	n, errno := netloop.ReadDescriptor(fd, p)
	switch errno {
	case 0:
		r.in.w += n
		r.got = int16(n)
		return true
	case syscall.EAGAIN:
		if r.in.w-r.in.r <= stashSize {
			r.stash()
		}
		return false
	default:
		r.got = -int16(errno)
		return true
	}
}

// room returns where the next bytes go, in a buffer of at least size bytes: for a
// header, or for the payload under way if that fits.
func (r *reader) room(size int) []byte {
	if r.in == nil || len(r.in.b) < size { // a wait or the handshake left little
		r.moveTo(size)
	}
	b := r.in
	need := max(int(min(r.left, uint64(len(b.b)))), len(b.b)/2)
	if b.r == b.w {
		b.r, b.w = 0, 0
	} else if b.r > 0 && len(b.b)-b.w < need { // what is pending moves to the front
		b.w = copy(b.b, b.pending())
		b.r = 0
	}
	return b.b[b.w:]
}

// release gives the read buffer back when everything in it is used up.
func (r *reader) release() {
	if r.in != nil && !r.in.lent && !r.pending() {
		free(&r.in)
	}
}

// bufferSize returns the size of the buffer that a read fills.
func (c *Conn) bufferSize() int {
	switch {
	case c.sock != nil:
		return len(c.read.in.b)
	case c.raw != nil:
		return batchSize
	}
	return smallSize
}

func (r *reader) stash() {
	if r.release(); r.in != nil {
		r.moveTo(stashSize)
	}
}

func (r *reader) moveTo(size int) {
	b := getBuffer(size)
	b.w = copy(b.b, r.in.pending())
	free(&r.in)
	r.in = b
}

// canTry reports whether tryWrite works.
func (c *Conn) canTry() bool { return c.direct() != nil }

// tryWrite writes as much of p as the socket takes at once.
func (c *Conn) tryWrite(p []byte) (int, error) {
	c.limitUnsent(len(p))
	n, err := c.direct().TryWrite(p, nil)
	if err == netloop.ErrWait {
		err = nil
	}
	c.tookBytes(n)
	return n, err
}

// unsent returns how many of the bytes that were written the peer's system
// hasn't taken yet; known is false where the system doesn't tell.
func (c *Conn) unsent() (n int, known bool) {
	d := c.bottom()
	if d == nil {
		return 0, false
	}
	n, err := d.Unsent()
	return n, err == nil
}

// limitUnsent has the rest of what the peer is slow to take wait with us and not in
// the system, before that may have taken netloop.UnsentLimit: n bytes are about to be
// written. Where it can't be set, more waits in the system.
func (c *Conn) limitUnsent(n int) {
	w := &c.write
	if w.has(limited) || int64(w.written.Load())+int64(n) <= netloop.UnsentLimit {
		return
	}
	w.set(limited)
	if d := c.bottom(); d != nil {
		d.LimitUnsent()
	}
}

// A writeKind says whose write it is: the application's deadline holds for
// what the application writes, and never for a ping or a close frame of ours.
// It stands in the low bits of writer.since.
type writeKind uint32

const (
	writeControl writeKind = 1 // frames of ours
	writeQueued  writeKind = 2 // what Send took
	writeData    writeKind = 3 // a call of the application's, which waits for it

	writeKinds = 3 // the bits
)

// underWay returns whose write is under way, 0 when none is.
func (w *writer) underWay() writeKind { return writeKind(w.since.Load() & writeKinds) }

// waitsSince returns when the write under way began, 0 when none is.
func (w *writer) waitsSince(now int64) (int64, writeKind) {
	since := w.since.Load()
	if since == 0 {
		return 0, 0
	}
	t := instantOf(now)
	return timeOf(t-(t-since>>2)<<2>>2, now), writeKind(since & writeKinds)
}

// waitsFrom notes that a write waits for the peer from now on: the sweeper sees
// it, and whether it gets on.
func (c *Conn) waitsFrom(kind writeKind) {
	c.write.since.Store(instantOf(c.reg.now.Load())<<2 | uint32(kind))
}

// writeWaiting writes p and q behind it, as long as the peer takes to take
// them. The sweeper sees that a write waits, and whether it gets on.
func (c *Conn) writeWaiting(p, q []byte, kind writeKind) (err error) {
	w := &c.write
	c.waitsFrom(kind)
	c.limitUnsent(len(p) + len(q))
	if kind == writeData && c.writeDeadline() != nil {
		c.holdToDeadline()
	}
	if d := c.direct(); d != nil {
		_, err = d.WriteAll(p, q, (*progress)(c))
	} else {
		err = c.writePieces(p, q)
	}
	w.since.Store(0)
	if r := c.clock.rare.Load(); r != nil {
		if kind != writeControl {
			r.dataEnd.Store(w.written.Load())
		}
		if r.held.Load() {
			c.releaseDeadline()
		}
	}
	return err
}

// A progress is a Conn whose write gets on, or doesn't.
type progress Conn

func (p *progress) Took(n int) { (*Conn)(p).tookBytes(n) }
func (p *progress) Waits()     { (*Conn)(p).lookSoon() }

// pieceSize is how much is written at once. A whole batch is one piece; of a
// larger write to a connection of which nothing else is known, less.
func (c *Conn) pieceSize(n int) int {
	if _, ok := c.nc.(*tls.Conn); ok {
		return batchSize
	}
	if n <= batchSize+stashSize {
		return n
	}
	return smallSize
}

// writePieces writes by nc's own Write, in pieces: that one returns is the only
// progress that such a connection shows. Over TLS a piece is one record, and
// the first holds the header too: two writes would make two records.
func (c *Conn) writePieces(p, q []byte) error {
	c.lookSoon()
	if len(p) > 0 && len(q) > 0 {
		b := getBuffer(batchSize)
		defer putBuffer(b)
		n := copy(b.b, p)
		m := copy(b.b[n:], q)
		if n == len(p) {
			p, q = b.b[:n+m], q[m:]
		}
	}
	for _, part := range [2][]byte{p, q} {
		size := c.pieceSize(len(part))
		for len(part) > 0 {
			n, err := c.reg.write(c.nc, part[:min(len(part), size)])
			c.tookBytes(n)
			if err != nil {
				return err
			}
			part = part[n:]
		}
	}
	return nil
}

// tookBytes notes that the system took bytes.
func (c *Conn) tookBytes(n int) {
	w := &c.write
	w.written.Add(uint32(n))
	touch(&w.writtenAt, c.reg.now.Load())
}

// SetWriteDeadline sets the time after which the application's writes fail with
// an error that matches os.ErrDeadlineExceeded; the zero time means never. Until
// then it replaces WriteTimeout for them, and may be later than that. A write
// that had begun may have left half a frame on the stream, so its connection is
// cut; so it is when a frame of a NextWriter's message has left and the next
// comes too late. Any other write that begins too late sends nothing and leaves
// the connection as it was. Pings, pongs, close frames and what Send has queued
// don't care: a deadline that is set before each write and forgotten after it
// ends nothing by itself. So a write that comes while a goroutine writes the queue
// of a slow peer waits for its turn, and hears of its deadline then. Once the end
// has begun SetWriteDeadline returns net.ErrClosed.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.connState() != stateOpen {
		return net.ErrClosed // the closing handshake has a time of its own
	}
	r := c.rare()
	if t.IsZero() {
		r.deadline.Store(nil)
	} else {
		d := t
		r.deadline.Store(&d)
	}
	if r.moved != nil {
		close(r.moved)
		r.moved = nil
	}
	// A write under way is held to it too. Whichever comes later, this look or
	// the writer's at its end, finds what the other has done.
	held := r.held.Swap(true)
	if c.write.underWay() == writeData {
		return c.nc.SetWriteDeadline(t)
	}
	r.held.Store(held)
	return nil
}

// writeDeadline returns what SetWriteDeadline has set, or nil.
func (c *Conn) writeDeadline() *time.Time {
	if r := c.clock.rare.Load(); r != nil {
		return r.deadline.Load()
	}
	return nil
}

// holdToDeadline sets the deadline for the write that begins.
func (c *Conn) holdToDeadline() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := c.writeDeadline(); d != nil && c.connState() != stateClosed {
		c.rare().held.Store(true)
		c.reg.setDeadline(c.nc, net.Conn.SetWriteDeadline, *d)
	}
}

// tooLate is the error of a write whose deadline has passed before it begins.
func (c *Conn) tooLate() error {
	if d := c.writeDeadline(); d != nil && time.Until(*d) <= 0 {
		return errLate
	}
	return nil
}

// releaseDeadline takes the deadline off, so that it holds for nothing of ours.
func (c *Conn) releaseDeadline() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rare().held.Store(false)
	c.reg.setDeadline(c.nc, net.Conn.SetWriteDeadline, time.Time{})
}

// errLate is a write whose deadline had passed before it began.
var errLate = explain("write: the deadline had passed before it began", os.ErrDeadlineExceeded)

// explain says what failed with err. A deadline that passed stays a net.Error without
// a look inside: net/http and crypto/tls look no further, and take what isn't one for
// the end of a net.Conn.
func explain(what string, err error) error {
	wrapped := fmt.Errorf("websocket: %s: %w", what, err)
	if isTimeout(err) {
		return timeoutError{wrapped}
	}
	return wrapped
}

// A timeoutError is a deadline that passed.
type timeoutError struct{ error }

func (e timeoutError) Timeout() bool   { return true }
func (e timeoutError) Temporary() bool { return true } // as os.ErrDeadlineExceeded says of itself
func (e timeoutError) Unwrap() error   { return e.error }

// isTimeout reports whether err is a deadline that passed. The system's
// ETIMEDOUT, which calls itself a timeout too, is a peer that is gone.
func isTimeout(err error) bool {
	if err == errPeerClosed || err == io.EOF { // how nearly all connections end
		return false
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return false
	}
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
