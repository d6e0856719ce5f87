//go:build !nopark

package websocket

import (
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
)

// A parker keeps the sockets of idle connections in an epoll set of its own,
// so that their goroutines can end. The set's descriptor waits in Go's poller
// like a socket: no thread is blocked. Both exist while a connection is parked
// or was, until the registry is empty.
type parker struct {
	mu    sync.Mutex
	file  *os.File // the epoll set; nil until the first connection parks
	fd    int
	slots []*Conn // by the number that epoll gives back
	free  []int32

	ctl struct { // one call of control; a function for each would be allocated
		op   int
		slot int32
		err  error
		call func(fd uintptr)
	}

	parked atomic.Int32
	waking atomic.Int32 // woken by the set, and waiting for a processor
}

// crowd is how many may be waking.
const crowd = 1024

// canPark spares the sweeper its rounds where it is false.
const canPark = true

const (
	notParked = iota
	isInSet
)

// park gives the connection to the epoll set. It reports false when the caller
// has to go on with it: the set can't take it, or its end has begun.
func (c *Conn) park() bool {
	p := &c.reg.parker
	c.read.release()
	if p.open() != nil {
		return false
	}
	op := syscall.EPOLL_CTL_MOD
	if c.slot == 0 {
		c.slot = p.take(c)
		op = syscall.EPOLL_CTL_ADD
	}
	p.parked.Add(1)
	c.parked.Store(isInSet)
	err := p.control(c, op)
	// Who ended the connection before it was marked couldn't know that nobody
	// reads any more.
	if (err != nil || c.connState() != stateOpen) && c.claim() {
		return false
	}
	return true
}

// claim takes a parked connection for the caller to go on with. One of many
// callers gets it. The socket stays in the set, which tells of one event only
// and then waits to be asked again: who wakes for one message costs no more.
func (c *Conn) claim() bool {
	if !c.parked.CompareAndSwap(isInSet, notParked) {
		return false
	}
	c.reg.parker.parked.Add(-1)
	return true
}

// unpark gives a parked connection a goroutine again.
func (c *Conn) unpark() {
	if c.claim() {
		c.read.nap = napping
		go c.loop()
	}
}

// wake is the goroutine of a connection that the set has woken.
func (c *Conn) wake() {
	c.reg.parker.waking.Add(-1)
	c.loop()
}

// stay takes the socket out of the set: its connection keeps its goroutine, or
// has ended.
func (c *Conn) stay() {
	if c.slot != 0 {
		p := &c.reg.parker
		p.control(c, syscall.EPOLL_CTL_DEL) // fails for a closed socket, which has left by itself
		p.give(c)
		c.slot = 0
	}
}

func (c *Conn) isParked() bool { return c.parked.Load() == isInSet }

// open makes the epoll set at the first use.
func (p *parker) open() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.file != nil {
		return nil
	}
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil { // or NewFile won't let it wait in the poller
		syscall.Close(fd)
		return os.NewSyscallError("setnonblock", err)
	}
	p.fd, p.file = fd, os.NewFile(uintptr(fd), "epoll")
	p.ctl.call = p.epollCtl
	go p.run(p.file)
	return nil
}

// close ends the set. It is called when the registry has no connection left.
func (p *parker) close() {
	p.mu.Lock()
	file := p.file
	p.file, p.slots, p.free = nil, nil, nil
	p.mu.Unlock()
	if file != nil {
		file.Close() // waits for run, which may wait for mu
	}
}

// take gives the connection a slot; they are numbered from 1.
func (p *parker) take(c *Conn) int32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		i := p.free[n-1]
		p.free = p.free[:n-1]
		p.slots[i-1] = c
		return i
	}
	p.slots = append(p.slots, c)
	return int32(len(p.slots))
}

// give frees the connection's slot, unless the set was closed since.
func (p *parker) give(c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if int(c.slot) <= len(p.slots) && p.slots[c.slot-1] == c {
		p.slots[c.slot-1] = nil
		p.free = append(p.free, c.slot)
	}
}

// count returns the number of parked connections.
func (p *parker) count() int { return int(p.parked.Load()) }

// control adds the connection's socket to the set, asks for one more event of
// it, or takes it out. The socket can't be closed meanwhile.
func (p *parker) control(c *Conn, op int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.file == nil {
		return os.ErrClosed
	}
	p.ctl.op, p.ctl.slot = op, c.slot
	if err := c.raw.Control(p.ctl.call); err != nil {
		return err
	}
	return p.ctl.err
}

func (p *parker) epollCtl(fd uintptr) {
	ev := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP | syscall.EPOLLONESHOT, Fd: p.ctl.slot}
	p.ctl.err = syscall.EpollCtl(p.fd, p.ctl.op, int(fd), &ev)
}

// run wakes the connections whose sockets have something, until the set is
// closed. All events are taken before the wait: the poller tells of new ones
// only.
func (p *parker) run(file *os.File) {
	raw, err := file.SyscallConn()
	if err != nil {
		return
	}
	events := make([]syscall.EpollEvent, 256)
	raw.Read(func(fd uintptr) bool {
		for {
			n, err := syscall.EpollWait(int(fd), events, 0)
			if err == syscall.EINTR {
				continue
			}
			if n <= 0 {
				return false
			}
			for _, ev := range events[:n] {
				p.wake(ev.Fd)
				// Those that are awake answer and park again before the next
				// ones wake, or a crowd would take a goroutine each, and the
				// runtime keeps what it has made. A busy server's few are far
				// from it: they wait for a processor once, like all others.
				for p.waking.Load() > crowd {
					runtime.Gosched()
				}
			}
		}
	})
}

// wake unparks who is in the slot. After a change of tenants since the event
// that is somebody who reads nothing and parks again.
func (p *parker) wake(slot int32) {
	p.mu.Lock()
	var c *Conn
	if int(slot) <= len(p.slots) {
		c = p.slots[slot-1]
	}
	p.mu.Unlock()
	if c != nil && c.claim() {
		c.read.nap = napping
		p.waking.Add(1)
		go c.wake()
	}
}
