package websocket

import (
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"

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

func newDescriptor(raw syscall.RawConn) *descriptor {
	if raw == nil {
		return nil
	}
	return &descriptor{RawConn: raw}
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
	r := &c.read
	if r.in == nil {
		r.in = getBuffer(smallSize)
	} else if len(r.in.b) < smallSize { // what a hijack left over
		r.moveTo(smallSize)
	}
	r.compact()
	n, err := c.nc.Read(r.in.b[r.in.w:])
	r.in.w += n
	return n, err
}

const _ = int16(batchSize) // what reader.got and seen count fits

// fillRaw waits for bytes and holds no buffer meanwhile. What tryRead finds
// comes back through the reader: the runtime calls a function, and one that
// knows its connection is allocated, so the connection keeps it.
func (c *Conn) fillRaw() (int, error) {
	r := &c.read
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
	r := &c.read
	if r.in == nil {
		r.in = getBuffer(batchSize)
	} else if len(r.in.b) < batchSize {
		r.moveTo(batchSize)
	}
	r.compact()
	p := r.in.b[r.in.w:]
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

// compact makes room in the read buffer, for a header or for the payload under
// way if that fits.
func (r *reader) compact() {
	size := len(r.in.b)
	r.in.compact(max(int(min(r.left, uint64(size))), size/2))
}

// release gives the read buffer back when everything in it is used up.
func (r *reader) release() {
	if r.in != nil && !r.lent && !r.pending() {
		putBuffer(r.in)
		r.in = nil
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
	putBuffer(r.in)
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
	if c.sock != nil {
		n, err := c.sock.TryWrite(p, nil)
		if err == netloop.ErrWait {
			err = nil
		}
		c.tookBytes(n)
		return n, err
	}
	rw := rawWrites.Get().(*rawWrite)
	rw.p, rw.n, rw.err = p, 0, nil
	err := c.raw.Write(rw.try)
	n := rw.n
	if err == nil {
		err = rw.err
	}
	rw.p = nil
	rawWrites.Put(rw)
	c.tookBytes(n)
	return n, err
}

// A rawWrite is one attempt to write without waiting. It is pooled, since the
// runtime wants a function, and few connections are written to at a time.
type rawWrite struct {
	p   []byte
	n   int
	err error
	try func(fd uintptr) bool
}

var rawWrites = sync.Pool{New: func() any {
	rw := new(rawWrite)
	rw.try = rw.write
	return rw
}}

func (rw *rawWrite) write(fd uintptr) bool {
	n, err := withFD(syscall.Write, fd, rw.p)
	rw.n = max(n, 0)
	if err != nil && err != syscall.EAGAIN && err != syscall.EINTR {
		rw.err = os.NewSyscallError("write", err)
	}
	return true
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
// is on its way, so that the rest waits with us. Where it can't be set, more
// waits in the system.
func limitUnsent(nc net.Conn) {
	if !netloop.Direct {
		return
	}
	if raw := socketOf(nc); raw != nil {
		raw.Control(func(fd uintptr) { netloop.LimitUnsent(fd, notsentLimit) })
	}
}
