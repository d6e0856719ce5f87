// Package load is a lean WebSocket client that drives many connections from
// one thread with epoll: frames are built once, answers are compared as they
// come, nothing is allocated on the way. Linux only.
package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// A Load is a set of connections that send the same kind of message.
type Load struct {
	Addr     string
	Conns    int
	Pipeline int      // messages sent together, then awaited together; 0 is 1
	Payloads [][]byte // sent in turn; at least 8 bytes each, whose first 8 get overwritten unless Deflate
	Text     bool
	Raw      bool // the server is a bare TCP echo
	Deflate  bool
	Takeover bool // with Deflate: each side's messages refer to its earlier ones
	Bits     int  // of both windows, with Takeover; 0 is 15
	Spin     bool // never sleep: the server pays for no wake-up of the client
	Sources  int  // number of loopback addresses to connect from, 0 lets the kernel choose

	conns    []conn
	messages []*message
	again    int // with Takeover, the message behind the last one
	epoll    int
	events   []unix.EpollEvent
	buf      []byte // what is read, whatever the connection
	batch    []byte // a batch that is written
	seq      uint32
	left     int // messages to send in this run
	verify   bool
	start    time.Time
	hist     *Hist

	referring, alone   int // answers that refer to earlier ones, and that could have
	inflater           io.ReadCloser
	deflated, inflated bytes.Buffer // what it reads, and what comes out
}

// A Result is what the client saw of one run.
type Result struct {
	Messages int
	Elapsed  time.Duration
	Latency  Hist
}

func (l *Load) everything(seq uint32) bool { return l.verify || seq&15 == 0 }

// Open connects and upgrades every connection. Close must be called, also
// after an error.
func (l *Load) Open() error {
	addr, err := netip.ParseAddrPort(l.Addr)
	if err != nil {
		return err
	}
	l.epoll = -1
	l.Pipeline = max(l.Pipeline, 1)
	l.events = make([]unix.EpollEvent, 512)
	l.buf = make([]byte, 256<<10)
	l.conns = make([]conn, l.Conns)
	for i := range l.conns {
		l.conns[i].fd = -1
	}
	if err := l.build(); err != nil {
		return err
	}
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	// Some at a time: each batch fits the listener's backlog.
	const step = 256
	for from := 0; from < l.Conns; from += step {
		if err := l.openSome(addr, from, min(from+step, l.Conns)); err != nil {
			return err
		}
	}
	return nil
}

// build frames the payloads.
func (l *Load) build() error {
	op := byte(opBinary)
	if l.Text {
		op = opText
	}
	if err := l.frame(op); err != nil {
		return err
	}
	for _, m := range l.messages {
		if l.Raw && l.Deflate {
			m.want = m.frame
		}
	}
	return nil
}

func (l *Load) frame(op byte) (err error) {
	if x := l.extension(); x.takeover {
		l.messages, l.again, err = referring(op, l.Payloads, x.bits)
		return err
	}
	for _, p := range l.Payloads {
		m := newMessage(op, p, l.Raw)
		if l.Deflate {
			if m, err = newDeflated(op, p); err != nil {
				return err
			}
		}
		l.messages = append(l.messages, m)
	}
	return nil
}

// extension is what the connections ask for.
func (l *Load) extension() extension {
	x := extension{deflate: l.Deflate, takeover: l.Deflate && l.Takeover, bits: l.Bits}
	if x.bits == 0 {
		x.bits = maxBits
	}
	return x
}

func (l *Load) openSome(addr netip.AddrPort, from, to int) error {
	req := request(addr, l.extension())
	for i := from; i < to; i++ {
		c := &l.conns[i]
		c.flights = make([]flight, l.Pipeline)
		var err error
		if c.fd, err = dial(addr, source(i, l.Sources)); err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
		if l.Raw {
			continue
		}
		if _, err := unix.Write(c.fd, req); err != nil {
			return fmt.Errorf("load: connection %d: %w", i, err)
		}
	}
	for i := from; i < to; i++ {
		c := &l.conns[i]
		if !l.Raw {
			if err := l.awaitAnswer(c); err != nil {
				return fmt.Errorf("connection %d: %w", i, err)
			}
		}
		if err := unix.SetNonblock(c.fd, true); err != nil {
			return err
		}
		ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(i)}
		if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, c.fd, &ev); err != nil {
			return err
		}
	}
	return nil
}

// awaitAnswer reads the answer to the upgrade from the blocking socket.
func (l *Load) awaitAnswer(c *conn) error {
	limit := unix.Timeval{Sec: 20}
	if err := unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return err
	}
	for n := 0; ; {
		m, err := unix.Read(c.fd, l.buf[n:])
		if err == unix.EINTR { // a read with a timeout isn't restarted
			continue
		}
		if err != nil || m == 0 {
			return fmt.Errorf("load: the upgrade was answered with %q and then %w", l.buf[:n], errors.Join(err, io.ErrUnexpectedEOF))
		}
		n += m
		head, err := checkAnswer(l.buf[:n], l.extension())
		if err != nil {
			return err
		}
		if head > 0 {
			return c.feed(l, l.buf[head:n], func(*conn) {})
		}
	}
}

// Close closes every connection with a TCP reset, so that none lingers.
func (l *Load) Close() {
	for i := range l.conns {
		if fd := l.conns[i].fd; fd >= 0 {
			unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
			unix.Close(fd)
		}
	}
	if l.epoll > 0 {
		unix.Close(l.epoll)
	}
	l.conns = nil
}

// Warm sends n messages and compares every byte of every answer. With Takeover
// it wants most of them to refer to earlier ones.
func (l *Load) Warm(n int) error {
	l.verify = true
	defer func() { l.verify = false }()
	if _, err := l.Run(n); err != nil {
		return err
	}
	return l.referred()
}

// Run sends n messages and waits for all answers. It returns an error if one
// is missing for 30 s, wrong, or if a connection ends.
func (l *Load) Run(n int) (*Result, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r := &Result{Messages: n}
	l.left, l.hist, l.start = n, &r.Latency, time.Now()
	for i := range l.conns {
		if err := l.sendBatch(&l.conns[i]); err != nil {
			return nil, err
		}
	}
	deadline := 30 * time.Second
	for r.Latency.Count < uint64(n) {
		k, err := l.poll()
		if err != nil {
			return nil, err
		}
		now := time.Since(l.start)
		if k > 0 {
			deadline = now + 30*time.Second
		} else if now > deadline {
			return nil, fmt.Errorf("load: %d of %d answers are missing", uint64(n)-r.Latency.Count, n)
		}
		for _, ev := range l.events[:k] {
			if err := l.handle(&l.conns[ev.Fd], ev.Events, now); err != nil {
				return nil, fmt.Errorf("connection %d: %w", ev.Fd, err)
			}
		}
	}
	r.Elapsed = time.Since(l.start)
	r.Latency.Seal()
	return r, nil
}

// Idle sends nothing until ctx is done, and answers the server's pings as a
// browser would. It returns an error if a connection ends.
func (l *Load) Idle(ctx context.Context) error {
	for ctx.Err() == nil {
		k, err := unix.EpollWait(l.epoll, l.events, 100)
		if err != nil && err != unix.EINTR {
			return err
		}
		for _, ev := range l.events[:max(k, 0)] {
			if err := l.handle(&l.conns[ev.Fd], ev.Events, 0); err != nil {
				return fmt.Errorf("connection %d, idle: %w", ev.Fd, err)
			}
		}
	}
	return nil
}

func (l *Load) poll() (int, error) {
	timeout := 1000
	if l.Spin {
		timeout = 0
	}
	k, err := unix.EpollWait(l.epoll, l.events, timeout)
	if err == unix.EINTR {
		return 0, nil
	}
	return k, err
}

func (l *Load) handle(c *conn, events uint32, now time.Duration) error {
	if len(c.pending) > 0 {
		if err := c.flush(); err != nil {
			return err
		}
	}
	if events&^unix.EPOLLOUT == 0 {
		return nil
	}
	done := func(c *conn) {
		f := &c.flights[c.first]
		l.hist.Add(now - f.at)
		c.first = (c.first + 1) % len(c.flights)
		c.inAir--
	}
	for {
		n, err := readSome(c.fd, l.buf)
		if err != nil {
			return err
		}
		if err := c.feed(l, l.buf[:n], done); err != nil {
			return err
		}
		if c.closed {
			return errors.New("load: the server closed the connection")
		}
		// Edge-triggered: a short read means that the socket is empty.
		if n < len(l.buf) {
			break
		}
	}
	if c.inAir == 0 {
		return l.sendBatch(c)
	}
	return nil
}

// sendBatch sends as many messages as go together, if any are left.
func (l *Load) sendBatch(c *conn) error {
	n := min(l.Pipeline, l.left)
	if n <= 0 {
		return nil
	}
	l.left -= n
	now := time.Since(l.start)
	b := l.batch[:0]
	for range n {
		l.seq++
		m := l.next(c)
		m.number(l.seq)
		c.flights[(c.first+c.inAir)%len(c.flights)] = flight{l.seq, m, now}
		c.inAir++
		if n == 1 {
			return c.write(m.frame)
		}
		b = append(b, m.frame...)
	}
	l.batch = b
	return c.write(b)
}

// next gives the message whose turn it is: of all connections together, or with
// takeover of this one.
func (l *Load) next(c *conn) *message {
	if !l.extension().takeover {
		return l.messages[int(l.seq)%len(l.messages)]
	}
	m := l.messages[c.turn]
	if c.turn++; c.turn == len(l.messages) {
		c.turn = l.again
	}
	return m
}
