package websocket

import (
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
)

// rawCapable says whether a socket can be read from inside RawConn.Read, which
// takes a non-blocking descriptor as the unix systems have it.
const rawCapable = runtime.GOOS != "windows" && runtime.GOOS != "plan9" &&
	runtime.GOOS != "js" && runtime.GOOS != "wasip1"

// A rawRead is one wait for bytes that holds no buffer. It is pooled because
// the runtime wants a function, and a function that knows its connection would
// be allocated for every read.
type rawRead struct {
	c    *Conn
	need int
	n    int
	err  error
	try  func(fd uintptr) bool
}

var rawReads = sync.Pool{New: func() any {
	rr := new(rawRead)
	rr.try = rr.read
	return rr
}}

func (c *Conn) fillRaw(need int) (int, error) {
	rr := rawReads.Get().(*rawRead)
	rr.c, rr.need, rr.n, rr.err = c, need, 0, nil
	err := c.raw.Read(rr.try)
	n, failed := rr.n, rr.err
	rr.c = nil
	rawReads.Put(rr)
	if err == nil && failed == errAtRest {
		return 0, errAtRest
	}
	if err == nil && failed != nil {
		err = &net.OpError{Op: "read", Net: c.nc.RemoteAddr().Network(), Source: c.nc.LocalAddr(),
			Addr: c.nc.RemoteAddr(), Err: os.NewSyscallError("read", failed)}
	}
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

// read is called by the runtime whenever the socket may be readable. Returning
// false waits; then the buffer goes back, and a few pending bytes move into a
// small one, so that a peer can't make us hold 16 KiB by sending one.
func (rr *rawRead) read(fd uintptr) bool {
	r := &rr.c.read
	if r.in == nil {
		r.in = getBuffer(batchSize)
	} else if len(r.in.b) < batchSize {
		r.moveTo(batchSize)
	}
	r.in.compact(max(rr.need, batchSize/2))
	for {
		n, err := withFD(syscall.Read, fd, r.in.b[r.in.w:])
		switch err {
		case nil:
			if r.nap != awake && n < len(r.in.b)-r.in.w {
				r.nap = drained
			} else if r.nap == drained {
				r.nap = napping
			}
			r.in.w += n
			rr.n = n
			return true
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			if r.in.w-r.in.r <= stashSize {
				r.stash()
			}
			if r.nap != awake && rr.c.atRest() { // a pong or nothing woke it
				rr.err = errAtRest
				return true
			}
			return false
		default:
			rr.err = err
			return true
		}
	}
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

// tryWrite writes as much of p as the socket takes at once.
func (c *Conn) tryWrite(p []byte) (int, error) {
	rw := rawWrites.Get().(*rawWrite)
	rw.p, rw.n, rw.err = p, 0, nil
	err := c.raw.Write(rw.try)
	n := rw.n
	if err == nil {
		err = rw.err
	}
	rw.p = nil
	rawWrites.Put(rw)
	return n, err
}

// A rawWrite is one attempt to write without waiting, pooled like a rawRead.
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
