//go:build linux && !noloop

package netloop

import (
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A Loop serves sockets. The zero value is ready; what it needs of the system
// exists while it is held: by Hold, or by a socket that is served.
type Loop struct {
	mu     sync.Mutex
	holds  int
	set    *set                 // nil while holds is 0
	shared map[sharedEnds]*ends // by sockets
}

// A Handler is told what happens to a Socket.
type Handler interface {
	// Ready is called when bytes, their end or a call of Notify may be there, or when
	// a read deadline has passed. It takes what it can by TryRead. It may block: others
	// then serve the other sockets. Calls for one socket never run at the same time,
	// and what happens during one is followed by another. Returning true asks for one
	// more call, after the other sockets had their turn.
	Ready(s *Socket, w *Worker) (more bool)
}

// A Worker is the goroutine that calls Ready, with memory that it lends.
type Worker struct {
	// Buf belongs to the handler until Ready returns. What lies in it is lost then.
	Buf []byte
	// Local is for the handler to keep something of its own with the worker.
	Local any

	set     *set
	current *Socket // whose Ready runs
	big     bool
}

const (
	// A worker's buffer is as large as the reads that are worth one system call,
	// and stays in the processor's cache. Few workers run at a time; the many
	// whose callbacks block get a small one.
	bigBuffer, smallBuffer = 256 << 10, 16 << 10

	// A worker gives way after so many events, or so much time, which is looked at
	// every few of them: well below the 10 ms after which the runtime would take the
	// processor from it with an event in hand. A message of a megabyte takes a
	// hundred times what a small one does.
	turnsInARow = 128
	timeInARow  = 2 * time.Millisecond
	turnsALook  = 4

	// So many goroutines wait for a callback that blocks, instead of ending.
	maxSleepers = 64
)

// Hold keeps the loop's descriptors open until Release.
func (l *Loop) Hold() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.set == nil {
		set, err := newSet()
		if err != nil {
			return err
		}
		l.set = set
	}
	l.holds++
	return nil
}

// Release ends what Hold began.
func (l *Loop) Release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holds--; l.holds == 0 {
		l.set.close()
		l.set, l.shared = nil, nil
	}
}

// Trim ends goroutines that callbacks which blocked have left behind. It is for
// somebody to call now and then.
func (l *Loop) Trim() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.set != nil {
		l.set.baton.trim()
	}
}

// A set is an epoll set and the goroutines that serve it. The set's descriptor
// waits in Go's poller, so that no thread is blocked.
//
// One set serves all processors: its baton is passed on within some 50 ns. A
// machine whose processors fight over that would have several, and Loop.set
// would become a choice by the descriptor's number.
type set struct {
	epfd, wakefd int
	file         *os.File
	raw          syscall.RawConn
	poll         func(fd uintptr) bool // kept, or each wait would allocate it
	look         func(fd uintptr)      // poll without a wait

	baton   baton
	table   table
	hangups hangups
	bigs    atomic.Int32 // workers with a big buffer
	workers sync.Pool    // of goroutines that have ended, with a small one: callbacks that block need many

	// Guarded by the baton: only who holds it touches them.
	events [256]syscall.EpollEvent
	at, n  int
	again  []*Socket
	atTurn int
	failed bool

	mu      sync.Mutex
	queue   []*Socket // to be called without an event
	polling bool      // nobody would look into queue without a wake-up
	closed  bool      // epfd and wakefd are somebody else's numbers by now
}

func newSet() (*set, error) {
	epfd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	syscall.SetNonblock(epfd, true) // what makes os.NewFile give it to the poller
	t := &set{epfd: epfd, file: os.NewFile(uintptr(epfd), "epoll")}
	t.poll = func(uintptr) bool {
		t.n, t.failed = epollNow(t.epfd, t.events[:])
		return t.n > 0 || t.failed
	}
	t.look = func(fd uintptr) { t.poll(fd) }
	if t.raw, err = t.file.SyscallConn(); err == nil {
		t.wakefd, err = eventfd()
	}
	if err == nil {
		// Edge-triggered, so that nobody has to read it.
		if err = t.control(syscall.EPOLL_CTL_ADD, t.wakefd, syscall.EPOLLIN, 0); err != nil {
			syscall.Close(t.wakefd)
		}
	}
	if err != nil {
		t.file.Close()
		return nil, err
	}
	t.baton.wake = make(chan bool, maxSleepers)
	t.baton.seekers = 1
	t.spawn()
	return t, nil
}

// close ends the workers. No socket is served any more, but calls that were made
// while one was may still be on their way to control or push.
func (t *set) close() {
	t.baton.end()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	t.file.Close() // the one that polls comes out
	syscall.Close(t.wakefd)
}

func (t *set) control(op, fd int, events uint32, generation uint32) error {
	ev := syscall.EpollEvent{Events: events | epollET, Fd: int32(fd), Pad: int32(generation)}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return net.ErrClosed
	}
	return os.NewSyscallError("epoll_ctl", epollCtl(t.epfd, op, fd, &ev))
}

// A baton says who polls: one goroutine at a time. Who gives it up sees to it
// that somebody is on the way to it, so that a callback that blocks stops nobody.
type baton struct {
	mu       sync.Mutex // for a few instructions at a time
	held     bool
	ended    bool
	seekers  int       // on their way to take it
	sleepers int       // waiting for wake
	fewest   int       // of them since the last trim
	wake     chan bool // false: end instead
}

// take returns true when the caller holds the baton, and false when it isn't
// needed. counted says that it is one of the seekers.
func (b *baton) take(counted bool) bool {
	for {
		b.mu.Lock()
		if counted {
			b.seekers--
		}
		if b.ended {
			b.mu.Unlock()
			return false
		}
		if !b.held {
			b.held = true
			b.mu.Unlock()
			return true
		}
		if b.sleepers == maxSleepers {
			b.mu.Unlock()
			return false
		}
		b.sleepers++
		b.mu.Unlock()
		if !<-b.wake {
			return false
		}
		counted = true
	}
}

// give passes the baton on; it reports whether a goroutine is to be made for it.
func (b *baton) give() (spawn bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held = false
	if b.seekers > 0 || b.ended {
		return false
	}
	b.seekers++
	if b.sleepers == 0 {
		return true
	}
	b.sleepers--
	b.fewest = min(b.fewest, b.sleepers)
	b.wake <- true // there is room for every sleeper
	return false
}

// trim ends some of the sleepers that nobody has needed since the last call. One
// is left, to follow whoever polls.
func (b *baton) trim() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for range (min(b.fewest, b.sleepers) + 2) / 4 {
		if b.sleepers > 1 && !b.ended {
			b.sleepers--
			b.wake <- false
		}
	}
	b.fewest = b.sleepers
}

// giveWay lets others run while nothing is in hand. The caller goes to the end of
// the runtime's global queue, where it is found as soon as the processor has
// nothing else: so it counts as one who is on the way to the baton.
func (b *baton) giveWay() {
	b.mu.Lock()
	b.seekers++
	b.mu.Unlock()
	runtime.Gosched()
}

func (b *baton) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	close(b.wake)
}

func (t *set) spawn() { go t.work() }

// work takes one event after the other. Before it serves one it passes the
// baton on. Where the callbacks are quick, one goroutine for each processor does
// everything without a switch: who was to follow finds the baton taken again.
func (t *set) work() {
	w, ok := t.workers.Get().(*Worker)
	if !ok {
		w = &Worker{set: t}
	}
	defer w.end()
	counted := true
	began := time.Now()
	for turns := 1; t.baton.take(counted); turns++ {
		counted = false
		s, events := t.next()
		if t.baton.give() {
			t.spawn()
		}
		if s != nil {
			w.serve(s, events)
		}
		if turns%turnsALook == 0 && (turns >= turnsInARow || time.Since(began) > timeInARow) {
			// The runtime takes the processor from a goroutine after 10 ms, wherever it
			// is, and finds it again late: so not with an event in hand.
			t.baton.giveWay()
			counted, turns, began = true, 0, time.Now()
			if !w.big && t.bigs.Load() < mostBig() {
				w.Buf, w.Local = nil, nil // it was one of a crowd
			}
		}
	}
}

// end is called when the worker's goroutine ends, by runtime.Goexit in a callback
// as well: the call counts as one that came back.
func (w *Worker) end() {
	if s := w.current; s != nil && s.isDone() {
		s.finish()
	} else if s != nil {
		w.set.push(s)
	}
	if w.big {
		w.set.bigs.Add(-1)
	} else if w.current == nil {
		w.set.workers.Put(w)
	}
}

// next returns a socket to serve, nil if the set was closed or the event was for
// nobody. The caller holds the baton, and waits here.
func (t *set) next() (*Socket, uint32) {
	for {
		if t.at < t.n {
			ev := &t.events[t.at]
			t.at++
			return t.table.find(ev.Fd, uint32(ev.Pad)), ev.Events
		}
		if t.atTurn < len(t.again) {
			s := t.again[t.atTurn]
			t.again[t.atTurn] = nil
			t.atTurn++
			return s, isQueued
		}
		t.mu.Lock()
		t.again, t.queue, t.atTurn = t.queue, t.again[:0], 0
		wait := len(t.again) == 0
		t.polling = wait
		t.mu.Unlock()
		t.at, t.n = 0, 0
		var err error // the set is closed; otherwise its number is nobody else's meanwhile
		if wait {
			err = t.raw.Read(t.poll)
		} else {
			err = t.raw.Control(t.look)
		}
		if err != nil || t.failed {
			return nil, 0
		}
	}
}

// push asks for a call of s, which is in stateRunning, after the others.
func (t *set) push(s *Socket) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.queue = append(t.queue, s)
	if t.polling && !t.closed {
		addOne(t.wakefd)
	}
	t.polling = false
}

// serve calls the handler of s until nothing has happened meanwhile.
func (w *Worker) serve(s *Socket, events uint32) {
	if events == isQueued {
		events = 0
	} else {
		// Who waits inside of Ready, or holds up who runs it, is woken first.
		if waits := s.waits.Load(); waits != nil {
			if next := waits.wakeAll(s, events); next != nil {
				next.Writable()
			}
		}
		if events == eventOut || !s.claim(events) {
			return
		}
	}
	if w.Buf == nil {
		w.makeBuffer()
	}
	for {
		s.begin(events)
		w.current = s
		more := s.handler.Ready(s, w)
		w.current = nil
		switch {
		case s.isDone():
			s.finish()
			return
		case more:
			w.set.push(s)
			return
		case s.state.CompareAndSwap(stateRunning, stateIdle):
			return
		}
		events = s.state.Swap(stateRunning) >> toldShift
	}
}

// mostBig is how many workers have a big buffer.
func mostBig() int32 { return int32(2 * runtime.GOMAXPROCS(0)) }

func (w *Worker) makeBuffer() {
	size := smallBuffer
	if w.big = w.set.bigs.Add(1) <= mostBig(); w.big {
		size = bigBuffer
	} else {
		w.set.bigs.Add(-1)
	}
	w.Buf = make([]byte, size)
}

// A table finds a socket by its descriptor. An event that was taken for a
// descriptor whose number has a new owner by now tells its generation.
type table struct {
	chunks atomic.Pointer[[]*chunk]
	mu     sync.Mutex // guards growing
	last   atomic.Uint32
}

const chunkBits = 10

type chunk [1 << chunkBits]atomic.Pointer[Socket]

func (t *table) find(fd int32, generation uint32) *Socket {
	p := t.slot(int(fd))
	if p == nil {
		return nil
	}
	if s := p.Load(); s != nil && s.generation == generation {
		return s
	}
	return nil
}

func (t *table) slot(fd int) *atomic.Pointer[Socket] {
	chunks := t.chunks.Load()
	if i := fd >> chunkBits; chunks != nil && i < len(*chunks) && (*chunks)[i] != nil {
		return &(*chunks)[i][fd&(1<<chunkBits-1)]
	}
	return nil
}

// put makes s the owner of its descriptor's number.
func (t *table) put(s *Socket) {
	s.generation = t.last.Add(1)
	p := t.slot(int(s.fd))
	if p == nil {
		t.grow(int(s.fd))
		p = t.slot(int(s.fd))
	}
	p.Store(s)
}

func (t *table) remove(s *Socket) {
	if p := t.slot(int(s.fd)); p != nil {
		p.CompareAndSwap(s, nil)
	}
}

func (t *table) grow(fd int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := fd >> chunkBits
	var chunks []*chunk
	if old := t.chunks.Load(); old != nil {
		chunks = append(chunks, *old...)
	}
	for len(chunks) <= i {
		chunks = append(chunks, nil)
	}
	if chunks[i] == nil {
		chunks[i] = new(chunk)
	}
	t.chunks.Store(&chunks)
}
