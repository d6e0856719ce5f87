//go:build linux && !noloop

package netloop

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// ErrWait is what TryRead and TryWrite return when the socket has nothing to
// give or no room to take: Ready is called when it has something, and for room
// there is WantWrite.
var ErrWait = errors.New("netloop: nothing to do yet")

var errNotServed = errors.New("netloop: a socket that isn't served can't wait")

// A Socket is a TCP or unix socket, and a net.Conn. Read and Write wait, as
// those of package net do; the handler of a socket that is served uses TryRead.
// One goroutine reads and one writes at a time; the other methods may be called
// by any number.
type Socket struct {
	fd         int32
	generation uint32
	state      atomic.Uint32 // a socketState and the events told since
	uses       atomic.Int32  // calls that use fd, below 0 once it is closed
	set        *set          // nil until it is served
	handler    Handler
	waits      atomic.Pointer[waits] // nil until somebody waits or sets a deadline
	ends       *ends
	ip4        [4]byte // the peer's, unless ends says that it is no IPv4 address
	port       uint16  // the peer's
	flags      flags   // of the goroutine that runs Ready
}

type flags uint8

const (
	flagDrained flags = 1 << iota // the last read took all that had come
	flagHungUp                    // the peer has closed its side, so that there is always something to read
	flagDone                      // Ready isn't to be called any more
	flagWatched                   // the set has a function of OnHangup's
)

// The states of a socket that is served, in the lower bits of Socket.state. The
// bits above are the events of epoll that came during stateAgain.
const (
	stateIdle    = iota
	stateRunning // Ready runs, or is about to
	stateAgain   // the same, and something has happened since it was called
	stateDone    // Ready is never called again
	stateMask    = 3

	// isQueued stands for the events of a socket that is in stateRunning and comes
	// from the queue.
	isQueued = ^uint32(0)

	// The events that epoll tells need their two lowest bits for nothing: EPOLLIN
	// is 1, EPOLLPRI, which isn't asked for, 2.
	toldShift = 2
)

const (
	eventsIn     = uint32(syscall.EPOLLIN | syscall.EPOLLRDHUP)
	eventOut     = uint32(syscall.EPOLLOUT)
	eventsBroken = uint32(syscall.EPOLLHUP | syscall.EPOLLERR)
	eventsEnd    = syscall.EPOLLRDHUP | eventsBroken
)

// usesClosed is what uses counts from when the socket is closed, and usesGone
// when the descriptor is.
const (
	usesClosed = -1 << 30
	usesGone   = -1 << 29
)

// use keeps the descriptor from being closed, and its number from being given to
// another socket, until unuse. It reports false when the socket is closed.
func (s *Socket) use() bool {
	if s.uses.Add(1) > 0 {
		return true
	}
	s.unuse()
	return false
}

// unuse closes the descriptor if it was the last that a closed socket waited for.
// Who comes and finds it closed may pass through here as well: one swap counts.
func (s *Socket) unuse() {
	if s.uses.Add(-1) == usesClosed && s.uses.CompareAndSwap(usesClosed, usesGone) {
		if s.set != nil {
			s.set.table.remove(s) // before the number can have another owner
		}
		s.closeFD()
	}
}

// mayLinger says that closing the descriptor may wait.
func (s *Socket) mayLinger() { s.waiting().lingers.Store(true) }

// closeFD closes the descriptor. That doesn't wait, unless SO_LINGER says so.
func (s *Socket) closeFD() {
	if s.Lingers() {
		syscall.Close(int(s.fd))
		return
	}
	syscall.RawSyscall(syscall.SYS_CLOSE, uintptr(s.fd), 0, 0)
}

// Close closes the socket. Calls that wait return with net.ErrClosed, and Ready is
// called, as by Notify, to find that TryRead does.
func (s *Socket) Close() error {
	for {
		n := s.uses.Load()
		if n < 0 {
			return s.failure("close", net.ErrClosed)
		}
		if s.uses.CompareAndSwap(n, n+1+usesClosed) {
			break
		}
	}
	if w := s.waits.Load(); w != nil {
		w.close()
	}
	s.unuse()
	s.Notify()
	return nil
}

func (s *Socket) isClosed() bool { return s.uses.Load() < 0 }

// Serve gives the socket to the loop, which calls h from Start to Done.
func (s *Socket) Serve(h Handler) error {
	err := s.serve(h)
	if err != nil {
		s.state.Store(stateDone)
	}
	return err
}

func (s *Socket) serve(h Handler) error {
	if !s.use() { // first: Close looks for the set
		return s.failure("serve", net.ErrClosed)
	}
	defer s.unuse()
	l := s.loop()
	if err := l.Hold(); err != nil {
		return err
	}
	s.handler, s.set = h, l.set
	s.set.table.put(s)
	if err := s.set.control(syscall.EPOLL_CTL_ADD, int(s.fd), eventsIn, s.generation); err != nil {
		s.set.table.remove(s)
		l.Release()
		return err
	}
	return nil
}

// Start ends what Serve began: from now on Ready is called, at once if something
// has come or Notify was called. When Serve has failed it does nothing.
func (s *Socket) Start() {
	if !s.state.CompareAndSwap(stateRunning, stateIdle) && s.state.Load() != stateDone {
		s.set.push(s)
	}
}

// Become makes h the handler, inside of Ready.
func (s *Socket) Become(h Handler) { s.handler = h }

// Done says, inside of Ready, that it isn't to be called any more. It doesn't
// close the socket, which then belongs to nobody.
func (s *Socket) Done() { s.flags |= flagDone }

func (s *Socket) isDone() bool { return s.flags&flagDone != 0 }

func (s *Socket) finish() {
	s.forgetHangup()
	s.state.Store(stateDone)
	s.loop().Release()
}

// Detach gives the socket away, inside of Ready, as a net.Conn of package net
// that the loop knows nothing of. It is done and closed behind that.
func (s *Socket) Detach() (net.Conn, error) {
	s.Done()
	defer s.Close()
	f, err := s.File()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if s.use() {
		s.set.control(syscall.EPOLL_CTL_DEL, int(s.fd), 0, 0) // the copy would keep it in the set
		s.unuse()
	}
	return net.FileConn(f)
}

// Notify has Ready called, as if something had come.
func (s *Socket) Notify() {
	if s.claim(0) {
		s.set.push(s)
	}
}

// claim reports whether the caller is to call Ready. Otherwise somebody does who
// will find the events.
func (s *Socket) claim(events uint32) bool {
	for {
		switch old := s.state.Load(); old & stateMask {
		case stateIdle:
			if s.state.CompareAndSwap(old, stateRunning) {
				return true
			}
		case stateDone:
			return false
		default:
			if s.state.CompareAndSwap(old, old&^stateMask|stateAgain|events<<toldShift) {
				if events&eventsEnd != 0 {
					s.set.hangups.tell(s)
				}
				return false
			}
		}
	}
}

// begin prepares a call of Ready.
func (s *Socket) begin(events uint32) {
	s.flags &^= flagDrained
	if events&eventsEnd != 0 {
		s.flags |= flagHungUp
	}
}

// TryRead reads what has come, without waiting; it is for Ready. A read that
// didn't fill p has taken everything, so that the next one needs no system call
// to say so. The errors are ErrWait, io.EOF, os.ErrDeadlineExceeded when nothing
// is there and the deadline has passed, or the system's.
func (s *Socket) TryRead(p []byte) (int, error) {
	if s.flags&flagDrained != 0 {
		return 0, s.nothingYet()
	}
	if !s.use() {
		return 0, s.failure("read", net.ErrClosed)
	}
	n, errno := rawRead(int(s.fd), p)
	s.unuse()
	switch {
	case errno == syscall.EAGAIN:
		s.flags |= flagDrained
		return 0, s.nothingYet()
	case errno != 0:
		return 0, s.failure("read", os.NewSyscallError("read", errno))
	case n == 0 && len(p) > 0:
		return 0, io.EOF
	}
	if n < len(p) && !s.HungUp() {
		s.flags |= flagDrained
	}
	return n, nil
}

func (s *Socket) nothingYet() error {
	if w := s.waits.Load(); w != nil && w.read.expired() {
		return s.failure("read", os.ErrDeadlineExceeded)
	}
	return ErrWait
}

// TryWrite writes p, and q behind it, in one system call and as far as the
// socket takes them. With ErrWait, Ready is called when there is room again.
func (s *Socket) TryWrite(p, q []byte) (n int, err error) {
	if len(p) == 0 {
		p, q = q, nil
	}
	if len(p) == 0 {
		return 0, nil
	}
	if !s.use() {
		return 0, s.failure("write", net.ErrClosed)
	}
	defer s.unuse()
	var errno syscall.Errno
	if len(q) == 0 {
		n, errno = rawWrite(int(s.fd), p)
	} else {
		n, errno = rawWritev(int(s.fd), p, q)
	}
	switch {
	case errno == syscall.EAGAIN:
		return 0, ErrWait
	case errno != 0:
		return 0, s.failure("write", os.NewSyscallError("write", errno))
	}
	return n, nil
}

// A Writer goes on with a write.
type Writer interface {
	// Writable is called when the socket may take more, also while Ready runs, which
	// may take long. It must not block.
	Writable()
}

// WantWrite has next called when there is room to write, once. It is called
// after a write that wasn't taken whole.
func (s *Socket) WantWrite(next Writer) {
	w := s.waiting()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next = next
	w.arm(s, eventOut)
}

// Unsent returns how many bytes that were written the peer's system hasn't
// taken: it falls as long as the peer makes progress.
func (s *Socket) Unsent() (int, error) {
	if !s.use() {
		return 0, s.failure("ioctl", net.ErrClosed)
	}
	defer s.unuse()
	n, err := unsent(uintptr(s.fd))
	return n, os.NewSyscallError("ioctl", err)
}

// Arrived returns how many bytes have come that weren't read yet.
func (s *Socket) Arrived() int {
	if !s.use() {
		return 0
	}
	defer s.unuse()
	n, errno := countOf(int(s.fd), syscall.TIOCINQ)
	if errno != 0 {
		return 0
	}
	return n
}

// waits are what a socket needs that somebody waits for, or that has deadlines.
type waits struct {
	mu          sync.Mutex
	closed      bool
	armed       bool // EPOLLOUT is asked for
	read, write direction
	next        Writer      // of WantWrite; nil for none
	lingers     atomic.Bool // closing the descriptor may wait
}

type direction struct {
	wake     chan struct{} // closed when it is worth another try; nil when nobody waits
	deadline atomic.Int64  // in nanoseconds since start, 0 for none
	timer    *time.Timer
}

var start = time.Now()

func (d *direction) expired() bool {
	at := d.deadline.Load()
	return at != 0 && int64(time.Since(start)) >= at
}

// wakeUp is called with the lock held.
func (d *direction) wakeUp() {
	if d.wake != nil {
		close(d.wake)
		d.wake = nil
	}
}

func (s *Socket) waiting() *waits {
	w := s.waits.Load()
	if w == nil {
		w = new(waits)
		if !s.waits.CompareAndSwap(nil, w) {
			w = s.waits.Load()
		}
	}
	return w
}

func (w *waits) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for _, d := range []*direction{&w.read, &w.write} {
		d.wakeUp()
		if d.timer != nil {
			d.timer.Stop()
		}
	}
}

// wakeAll wakes who waits for what the events tell, and returns who is to go on with
// its write. A peer that has closed its side may read on, and makes no room by that:
// arm is told of it each time.
func (w *waits) wakeAll(s *Socket, events uint32) (next Writer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if events&(eventsIn|eventsEnd) != 0 {
		w.read.wakeUp()
	}
	if events&(eventOut|eventsBroken) == 0 {
		return nil
	}
	w.write.wakeUp()
	next, w.next = w.next, nil
	if w.armed && s.isUnix() && s.use() { // one of these tells of room whenever its peer reads
		w.armed = false
		s.set.control(syscall.EPOLL_CTL_MOD, int(s.fd), eventsIn, s.generation)
		s.unuse()
	}
	return next
}

// arm asks the set again, and for events as well. What is the case already is
// told at once, so that no event is lost between a try and this. The lock is held.
func (w *waits) arm(s *Socket, events uint32) error {
	if s.set == nil {
		return s.failure("wait", errNotServed)
	}
	if !s.use() {
		return s.failure("wait", net.ErrClosed)
	}
	defer s.unuse()
	w.armed = w.armed || events&eventOut != 0
	if w.armed {
		events |= eventOut
	}
	return s.set.control(syscall.EPOLL_CTL_MOD, int(s.fd), eventsIn|events, s.generation)
}

// wait returns when another try is worth it.
func (s *Socket) wait(op string, d *direction, w *waits, events uint32) error {
	w.mu.Lock()
	if w.closed || s.isClosed() {
		w.mu.Unlock()
		return s.failure(op, net.ErrClosed)
	}
	if d.expired() {
		w.mu.Unlock()
		return s.failure(op, os.ErrDeadlineExceeded)
	}
	if d.wake == nil {
		d.wake = make(chan struct{})
	}
	wake := d.wake
	err := w.arm(s, events)
	w.mu.Unlock()
	if err != nil {
		return err
	}
	<-wake
	return nil
}

// Read reads as a net.Conn does. It isn't for a socket whose handler reads.
func (s *Socket) Read(p []byte) (int, error) {
	w := s.waiting()
	for {
		if w.read.expired() {
			return 0, s.failure("read", os.ErrDeadlineExceeded)
		}
		if !s.use() {
			return 0, s.failure("read", net.ErrClosed)
		}
		n, errno := rawRead(int(s.fd), p)
		s.unuse()
		switch {
		case errno == 0 && n == 0 && len(p) > 0:
			return 0, io.EOF
		case errno == 0:
			return n, nil
		case errno != syscall.EAGAIN:
			return 0, s.failure("read", os.NewSyscallError("read", errno))
		}
		if err := s.wait("read", &w.read, w, 0); err != nil {
			return 0, err
		}
	}
}

// Write writes as a net.Conn does.
func (s *Socket) Write(p []byte) (int, error) { return s.WriteAll(p, nil, nil) }

// WriteAll writes p, and q behind it, and waits until the system has taken both. It
// returns how many bytes that were, and says to told how it gets on, if that isn't nil.
func (s *Socket) WriteAll(p, q []byte, told Progress) (n int, err error) {
	if told != nil && len(p)+len(q) > UnsentLimit {
		s.limitUnsent(noLimit)
		defer s.limitUnsent(UnsentLimit)
	}
	for {
		if w := s.waits.Load(); w != nil && w.write.expired() {
			return n, s.failure("write", os.ErrDeadlineExceeded)
		}
		m, err := s.TryWrite(p, q)
		n += m
		k := min(m, len(p))
		p, q = p[k:], q[m-k:]
		if told != nil && m > 0 {
			told.Took(m)
		}
		if err == ErrWait {
			if told != nil {
				told.Waits()
			}
			err = s.waitWrite()
		} else if len(p)+len(q) == 0 {
			return n, err
		}
		if err != nil {
			return n, err
		}
	}
}

// waitWrite waits until there may be room to write again.
func (s *Socket) waitWrite() error {
	w := s.waiting()
	return s.wait("write", &w.write, w, eventOut)
}

// failure is err as package net would return it.
func (s *Socket) failure(op string, err error) error {
	return &net.OpError{Op: op, Net: s.network(), Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: err}
}
