package websocket

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/rawws/websocket/internal/netloop"
)

// rawCapable says whether a socket can be read from inside RawConn.Read, which
// takes a non-blocking descriptor as the unix systems have it.
const rawCapable = runtime.GOOS != "windows" && runtime.GOOS != "plan9" &&
	runtime.GOOS != "js" && runtime.GOOS != "wasip1"

// A descriptor is a socket that is read and written without its net.Conn.
type descriptor struct {
	syscall.RawConn
	try func(fd uintptr) bool // Conn.tryRead; nil before the first wait
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
	got := c.read.got
	if got == 0 {
		return io.EOF
	}
	return &net.OpError{Op: "read", Net: c.nc.RemoteAddr().Network(), Source: c.nc.LocalAddr(),
		Addr: c.nc.RemoteAddr(), Err: os.NewSyscallError("read", syscall.Errno(-got))}
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
	for {
		n, err := withFD(syscall.Read, fd, p)
		errno, _ := err.(syscall.Errno) // numbers compare faster than errors
		switch errno {
		case 0:
			r.in.w += n
			r.got = int16(n)
			return true
		case syscall.EINTR:
			continue
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

// withFD calls read or write with the descriptor in the system's own type: an
// int, or on Windows a Handle, where rawCapable keeps this from running.
func withFD[T ~int | ~uintptr](call func(T, []byte) (int, error), fd uintptr, p []byte) (int, error) {
	return call(T(fd), p)
}

// canTry reports whether tryWrite works.
func (c *Conn) canTry() bool { return c.raw != nil || c.sock != nil }

// tryWrite writes as much of p as the socket takes at once.
func (c *Conn) tryWrite(p []byte) (int, error) {
	c.limitUnsent(len(p))
	if c.sock != nil {
		n, err := c.sock.TryWrite(p, nil)
		if err == netloop.ErrWait {
			err = nil
		}
		c.tookBytes(n)
		return n, err
	}
	return c.writeSocket(p, nil, false)
}

// unsent returns how many of the bytes that were written the peer's system
// hasn't taken yet; known is false where the system doesn't tell.
func (c *Conn) unsent() (n int, known bool) {
	if c.sock != nil {
		n, err := c.sock.Unsent()
		return n, err == nil
	}
	raw := socketOf(c.nc)
	if raw == nil {
		return 0, false
	}
	var left int
	var err error
	failed := raw.Control(func(fd uintptr) { left, err = netloop.Unsent(fd) })
	return left, failed == nil && err == nil
}

// limitUnsent makes the system take no more than notsentLimit bytes beyond what
// is on its way, so that the rest waits with us, before it may have taken as many: n
// are about to be written. Where that can't be set, more waits in the system.
func (c *Conn) limitUnsent(n int) {
	w := &c.write
	if w.has(limited) || int64(w.written.Load())+int64(n) <= notsentLimit {
		return
	}
	w.set(limited)
	if c.sock != nil {
		c.sock.LimitUnsent(notsentLimit)
	} else if raw := socketOf(c.nc); raw != nil && netloop.Direct {
		raw.Control(func(fd uintptr) { netloop.LimitUnsent(fd, notsentLimit) })
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

// notsentLimit is TCP_NOTSENT_LOWAT: what lies in the system can't be passed by
// a ping or a newer message, so most of a slow peer's bytes are to wait with us.
const notsentLimit = 128 << 10

// noLimit is what holds while a larger frame leaves: nothing can pass the rest of one
// that has begun, and it would cost a turn for each part.
const noLimit = math.MaxInt32

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
	switch {
	case c.sock != nil:
		err = c.writeLoop(p, q)
	case c.raw != nil && netloop.Direct:
		_, err = c.writeSocket(p, q, true)
	default:
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

// A socketWrite is one write to the descriptor itself, which counts each part
// that the system takes. It is pooled, since the runtime wants a function, and few
// connections are written to at a time.
type socketWrite struct {
	c     *Conn
	p, q  []byte // what wasn't taken yet
	err   error
	wait  bool // until all is taken
	large bool
	try   func(fd uintptr) bool
}

var socketWrites = sync.Pool{New: func() any {
	sw := new(socketWrite)
	sw.try = sw.write
	return sw
}}

// writeSocket writes p, and q behind it: whole, or what is taken at once.
func (c *Conn) writeSocket(p, q []byte, wait bool) (n int, err error) {
	sw := socketWrites.Get().(*socketWrite)
	sw.c, sw.p, sw.q, sw.err, sw.wait = c, p, q, nil, wait
	sw.large = wait && len(p)+len(q) > notsentLimit
	err = c.raw.Write(sw.try)
	if err == nil {
		err = sw.err
	}
	n = len(p) + len(q) - len(sw.p) - len(sw.q)
	sw.c, sw.p, sw.q = nil, nil, nil
	socketWrites.Put(sw)
	return n, err
}

func (sw *socketWrite) write(fd uintptr) (done bool) {
	if !sw.large {
		return sw.writeParts(fd)
	}
	netloop.LimitUnsent(fd, noLimit)
	if done = sw.writeParts(fd); done {
		netloop.LimitUnsent(fd, notsentLimit)
	}
	return done
}

func (sw *socketWrite) writeParts(fd uintptr) (done bool) {
	c := sw.c
	for len(sw.p)+len(sw.q) > 0 {
		var n int
		var err error
		if len(sw.q) == 0 { // always, where Writev does nothing
			n, err = withFD(syscall.Write, fd, sw.p)
		} else {
			n, err = netloop.Writev(fd, sw.p, sw.q)
		}
		switch {
		case n > 0:
			c.tookBytes(n)
			k := min(n, len(sw.p))
			sw.p, sw.q = sw.p[k:], sw.q[n-k:]
		case err == syscall.EAGAIN && sw.wait:
			c.lookSoon()
			return false
		case err == syscall.EAGAIN, err == syscall.EINTR:
		default:
			sw.err = &net.OpError{Op: "write", Net: c.nc.RemoteAddr().Network(), Source: c.nc.LocalAddr(),
				Addr: c.nc.RemoteAddr(), Err: os.NewSyscallError("write", err)}
			return true
		}
		if !sw.wait {
			break
		}
	}
	return true
}

// writeLoop is writeSocket for a socket of the loop's.
func (c *Conn) writeLoop(p, q []byte) error {
	if len(p)+len(q) > notsentLimit {
		c.sock.LimitUnsent(noLimit)
		defer c.sock.LimitUnsent(notsentLimit)
	}
	for len(p)+len(q) > 0 {
		n, err := c.sock.TryWrite(p, q)
		switch {
		case n > 0:
			c.tookBytes(n)
			k := min(n, len(p))
			p, q = p[k:], q[n-k:]
		case err == netloop.ErrWait:
			c.lookSoon()
			err = c.sock.WaitWrite()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

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

// SetWriteDeadline sets the time after which the application's writes fail
// with an error that matches os.ErrDeadlineExceeded; the zero time means
// never. Until then it replaces WriteTimeout for them, and may be later than
// that. A write that had begun may have left half a frame on the stream, so
// its connection is cut; one that begins too late sends nothing and leaves the
// connection as it was. Pings, pongs, close frames and what Send has queued
// don't care: a deadline that is set before each write and forgotten after it
// ends nothing by itself.
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
		c.nc.SetWriteDeadline(*d)
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
	c.nc.SetWriteDeadline(time.Time{})
}

// errLate is a write whose deadline had passed before it began.
var errLate = fmt.Errorf("websocket: write: the deadline had passed before it began: %w", os.ErrDeadlineExceeded)

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

// socketOf returns the socket that nc's bytes leave by, under TLS and under wrappers
// that show it, to be asked how many wait there: what is read and written goes through
// nc all the same. It is nil for another connection.
func socketOf(nc net.Conn) (raw syscall.RawConn) {
	if sc, ok := innermost(nc).(syscall.Conn); ok {
		raw, _ = sc.SyscallConn()
	}
	return raw
}
