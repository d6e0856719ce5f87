package netloop

import (
	"math"
	"net"
	"os"
	"sync"
	"syscall"
)

// A Descriptor is a socket of package net's that is read and written past its Read
// and Write: a read needs no buffer while it waits, and a write that waits says how it
// gets on. RawConn.Read gives the descriptor to read from.
type Descriptor struct {
	syscall.RawConn
	Of net.Conn // whose addresses errors tell
}

// DescriptorOf returns the socket of the two types whose bytes are the stream's, nil
// for another. The type has to be exactly one of them: a connection that embeds a
// *net.TCPConn has its SyscallConn too, and Read and Write of its own, which count,
// limit or decrypt what the descriptor would give as it came.
func DescriptorOf(nc net.Conn) *Descriptor {
	var raw syscall.RawConn
	switch nc := nc.(type) {
	case *net.TCPConn:
		raw, _ = nc.SyscallConn()
	case *net.UnixConn:
		raw, _ = nc.SyscallConn()
	}
	if raw == nil || !Readable {
		return nil
	}
	return &Descriptor{raw, nc}
}

// UnsentLimit is TCP_NOTSENT_LOWAT of a socket behind LimitUnsent. What lies in the
// system can't be passed by what is written later, so that most of what a slow peer is
// to get should wait where it can be changed.
const UnsentLimit = 128 << 10

// noLimit holds while a larger write waits: nothing can pass the rest of one that has
// begun, and it would cost a turn for each part.
const noLimit = math.MaxInt32

// A Progress is told how a write gets on.
type Progress interface {
	Took(n int) // the system has taken so many bytes
	Waits()     // it takes no more for now
}

// A descriptorWrite is one write to a Descriptor. It is pooled, since RawConn wants a
// function, and few sockets are written to at a time.
type descriptorWrite struct {
	d     *Descriptor
	p, q  []byte   // what wasn't taken yet
	told  Progress // nil for a write that doesn't wait
	large bool
	err   error
	try   func(fd uintptr) (done bool)
}

var descriptorWrites = sync.Pool{New: func() any {
	w := new(descriptorWrite)
	w.try = w.write
	return w
}}

// TryWrite writes p, and q behind it, as far as the socket takes them in one call. The
// error is ErrWait if that isn't a byte.
func (d *Descriptor) TryWrite(p, q []byte) (int, error) { return d.writeBoth(p, q, nil) }

// WriteAll writes p, and q behind it, and waits until the system has taken both. It
// returns how many bytes that were, and says to told how it gets on.
func (d *Descriptor) WriteAll(p, q []byte, told Progress) (int, error) {
	return d.writeBoth(p, q, told)
}

func (d *Descriptor) writeBoth(p, q []byte, told Progress) (n int, err error) {
	w := descriptorWrites.Get().(*descriptorWrite)
	w.d, w.p, w.q, w.told, w.err = d, p, q, told, nil
	w.large = told != nil && len(p)+len(q) > UnsentLimit
	if err = d.Write(w.try); err == nil {
		err = w.err
	}
	n = len(p) + len(q) - len(w.p) - len(w.q)
	w.d, w.p, w.q, w.told = nil, nil, nil, nil
	descriptorWrites.Put(w)
	return n, err
}

func (w *descriptorWrite) write(fd uintptr) (done bool) {
	if !w.large {
		return w.writeParts(fd)
	}
	limitUnsent(fd, noLimit)
	if done = w.writeParts(fd); done {
		limitUnsent(fd, UnsentLimit)
	}
	return done
}

func (w *descriptorWrite) writeParts(fd uintptr) (done bool) {
	for len(w.p)+len(w.q) > 0 {
		n, errno := writev(fd, w.p, w.q)
		switch {
		case errno == syscall.EINTR:
			continue
		case errno == syscall.EAGAIN && w.told != nil:
			w.told.Waits()
			return false
		case errno == syscall.EAGAIN:
			w.err = ErrWait
			return true
		case errno != 0:
			w.err = w.d.Failure("write", errno)
			return true
		}
		k := min(n, len(w.p))
		w.p, w.q = w.p[k:], w.q[n-k:]
		if w.told == nil {
			return true
		}
		w.told.Took(n)
	}
	return true
}

// Unsent returns how many of the bytes that were written the peer's system hasn't
// taken yet. A unix socket counts the memory they take, in steps of up to 36 KiB.
func (d *Descriptor) Unsent() (n int, err error) {
	failed := d.Control(func(fd uintptr) { n, err = unsent(fd) })
	if failed != nil {
		err = failed
	}
	return n, err
}

// LimitUnsent makes a TCP socket take no more while UnsentLimit bytes haven't left yet.
func (d *Descriptor) LimitUnsent() (err error) {
	failed := d.Control(func(fd uintptr) { err = limitUnsent(fd, UnsentLimit) })
	if failed != nil {
		err = failed
	}
	return err
}

// Lingers reports whether closing the socket may wait, as SO_LINGER says.
func (d *Descriptor) Lingers() (waits bool) {
	d.Control(func(fd uintptr) { waits = lingers(fd) })
	return waits
}

// Failure is what the system said, as package net would return it.
func (d *Descriptor) Failure(op string, errno syscall.Errno) error {
	return &net.OpError{Op: op, Net: d.Of.RemoteAddr().Network(), Source: d.Of.LocalAddr(),
		Addr: d.Of.RemoteAddr(), Err: os.NewSyscallError(op, errno)}
}
