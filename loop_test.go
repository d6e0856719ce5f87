//go:build linux && !noloop

package websocket

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"weak"

	"github.com/rawws/websocket/internal/httphead"
	"github.com/rawws/websocket/internal/netloop"
)

// A request that outgrows a worker's buffer moves out of it. The buffer stays the
// worker's: in a pool it would become another connection's too.
func TestRequestLargerThanTheWorkersBuffer(t *testing.T) {
	w := &netloop.Worker{Buf: make([]byte, batchSize)}
	h := new(handshake)
	h.in = lenderOf(w).take(h.in)
	lent := h.in
	for range batchSize {
		h.room()[0] = 'x'
		h.in.w++
	}
	if h.room()[0] = 'y'; h.in == lent || len(h.in.pending()) != batchSize {
		t.Fatalf("%d bytes of a request lie in a buffer of %d", len(h.in.pending()), len(h.in.b))
	}
	for range 100 {
		if b := getBuffer(batchSize); &b.b[0] == &w.Buf[0] {
			t.Fatal("the worker's buffer is in the pool")
		}
	}
	h.keep()
	if got := h.in.pending(); len(got) != batchSize || len(bytes.Trim(got, "x")) > 0 {
		t.Errorf("%d bytes are kept, want %d of x", len(got), batchSize)
	}
}

// Nor does it when a step panics that has it.
func TestPanicWithTheWorkersBuffer(t *testing.T) {
	reg := &registry{u: new(Upgrader)}
	reg.log.to = new(logBook).logger()
	for _, given := range []bool{false, true} {
		nc, _ := net.Pipe()
		w := &netloop.Worker{Buf: make([]byte, batchSize)}
		h := newHandshake(reg, nil, nc)
		h.in = lenderOf(w).take(h.in)
		h.guard(func() (*Conn, error) {
			if given {
				h.giveUp(errShutdown)
			}
			panic("a fault of ours")
		})
		for range 100 {
			if b := getBuffer(batchSize); &b.b[0] == &w.Buf[0] {
				t.Fatalf("the worker's buffer is in the pool; given up: %v", given)
			}
		}
	}
}

// A request that came in part to a worker with a large buffer goes on whole with one
// whose buffer is smaller.
func TestRequestGoesToASmallerBuffer(t *testing.T) {
	large, small := &netloop.Worker{Buf: make([]byte, 4*batchSize)}, &netloop.Worker{Buf: make([]byte, batchSize)}
	want := bytes.Repeat([]byte("0123456789"), batchSize/10*2)
	h := new(handshake)
	for i, w := range []*netloop.Worker{large, large, large, small} {
		h.in = lenderOf(w).take(h.in)
		for part := want[i*len(want)/4 : (i+1)*len(want)/4]; len(part) > 0; {
			n := copy(h.room(), part)
			h.in.w += n
			part = part[n:]
		}
		if h.keep(); !bytes.Equal(h.in.pending(), want[:(i+1)*len(want)/4]) {
			t.Fatalf("behind part %d %d bytes are kept, want the %d that came", i+1, len(h.in.pending()), (i+1)*len(want)/4)
		}
	}
}

// A large request that comes a byte at a time isn't copied for each: what had come
// stays where it is, whatever the worker's buffer could take.
func TestLargeRequestStays(t *testing.T) {
	w := &netloop.Worker{Buf: make([]byte, 16*batchSize)}
	for _, come := range []int{smallSize + 1, batchSize, 100_000} {
		h := &handshake{in: getBuffer(come)}
		h.in.w = come
		before := h.in
		for range 10 {
			h.in = lenderOf(w).take(h.in)
			h.in.w += copy(h.room(), "x")
			if h.in.lent {
				t.Fatalf("%d bytes of a request are copied into the worker's buffer", come)
			}
			h.keep()
		}
		if len(before.b)-come >= 10 && h.in != before {
			t.Errorf("%d bytes of a request are copied for 10 more", come)
		}
	}
}

// A socket that was adopted from net/http when Shutdown came in between leaves
// the loop again, or that would never end.
func TestAdoptedTooLate(t *testing.T) {
	s := &Server{Handler: echoEvents(), ErrorLog: new(logBook).logger()}
	s.Upgrader.OnUpgrade = func(*http.Request, *Accept) error {
		s.stopping.Store(true) // as if between here and the registration
		return nil
	}
	p := dialHTTPTest(t, httptest.NewUnstartedServer(s), false)
	p.send([]byte(peerRequest))
	p.wantAnswer(503, "the server is going down\n")
	p.wantEnd()
	eventuallyNoLoop(t)
}

// A socket that has left the loop for a HandlerFunc when Shutdown came in between is
// refused as any other, and Shutdown doesn't wait for it.
func TestGivenAwayTooLate(t *testing.T) {
	s := &Server{Handler: echoEvents(), ErrorLog: new(logBook).logger()}
	down := make(chan error, 1)
	s.Upgrader.OnUpgrade = func(_ *http.Request, a *Accept) error {
		go func() { down <- s.Shutdown(t.Context()) }()
		eventually(t, "the server goes down", s.stopping.Load)
		a.Handler = HandlerFunc(func(*Conn, *http.Request) { t.Error("it is served") })
		return nil
	}
	p := serveTCP(t, s)()
	p.send([]byte(peerRequest))
	p.wantAnswer(503, "the server is going down\n")
	p.wantEnd()
	select {
	case err := <-down:
		if err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	case <-time.After(patience / 4):
		t.Errorf("Shutdown waits for %d handshakes", s.Stats().Handshaking)
	}
}

// A client that closes its side while its 101 is on the way has a connection, whose
// context ends with that and for its reason.
func TestClientLeavesBehindTheDecision(t *testing.T) {
	causes := make(chan [2]error, 1)
	events := echoEvents()
	events.OnClose = func(c *Conn, err error) { causes <- [2]error{context.Cause(c.Context()), err} }
	s := &Server{Handler: events}
	s.Upgrader.OnUpgrade = func(*http.Request, *Accept) error { return nil }
	s.Upgrader.Trace = new(Trace)
	dial := serveTCP(t, s)
	other := dial()
	p := dial()
	s.Upgrader.Trace.Answer = func(id uint64, _, _ string, _ []byte) {
		if id == 1 {
			return
		}
		p.nc.(*net.TCPConn).CloseWrite()
		for range 10 { // what comes behind its end is served, and so was that
			other.sendText("x")
			other.want(opText, "x")
		}
	}
	other.handshake()
	p.handshake()
	p.wantEnd()
	if got := <-causes; got[0] != got[1] {
		t.Errorf("the context's cause is %v, the end's %v", got[0], got[1])
	}
	other.closeWith(CloseNormal, "")
	<-causes
}

// eventuallyNoLoop waits until no worker of a loop is left.
func eventuallyNoLoop(t *testing.T) {
	t.Helper()
	left := func() (n int) {
		for _, stack := range goroutineStacks() {
			if strings.Contains(stack, "netloop.(*set).work") {
				n++
			}
		}
		return n
	}
	eventually(t, "no worker serves a loop that nothing needs", func() bool { return left() == 0 })
}

// A crowd of new clients doesn't keep those that were accepted from being served:
// so many are accepted, and then the others have their turn.
func TestAcceptsTakeTurns(t *testing.T) {
	ln := listen(t)
	s := &Server{Handler: echoEvents(), ErrorLog: new(logBook).logger()}
	s.init()
	defer s.Close()
	a := s.loopListener(ln)
	for range acceptsInARow + 1 {
		nc, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
	}
	failed := make(chan error, 1)
	if more := s.acceptOnLoop(a, failed); !more || s.Stats().Handshaking != acceptsInARow {
		t.Errorf("the first turn: %v, %d handshakes, want %d and one more turn", more, s.Stats().Handshaking, acceptsInARow)
	}
	if more := s.acceptOnLoop(a, failed); more || s.Stats().Handshaking != acceptsInARow+1 {
		t.Errorf("the second turn: %v, %d handshakes, want %d and no more", more, s.Stats().Handshaking, acceptsInARow+1)
	}
}

// When descriptors run out the loop's acceptor waits and tries again, and serves
// within a second of there being some. On a busy machine that may take longer: it
// has to hold at one of three attempts.
func TestAcceptOutOfDescriptors(t *testing.T) {
	log := new(logBook)
	dial := serveTCP(t, &Server{Handler: echoEvents(), ErrorLog: log.logger()})
	first := dial()
	first.handshake()
	for attempt := 1; ; attempt++ {
		took := acceptLate(t, first, log)
		if took <= 2*time.Second {
			break
		}
		if attempt == 3 {
			t.Fatalf("%v after there was room: served at last, want a second", took)
		}
	}
	first.closeWith(CloseNormal, "")
}

// acceptLate connects to first's server, which has no descriptor left, and returns
// how long after there was one it is served.
func acceptLate(t *testing.T, first *peer, log *logBook) time.Duration {
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old)
	next, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(next)
	free, err := syscall.Dup(0)
	if err != nil {
		t.Fatal(err)
	}
	syscall.Close(free)
	limit := old
	limit.Cur = uint64(free)
	before, start := len(log.all()), time.Now()
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	addr := first.nc.RemoteAddr().(*net.TCPAddr)
	if err := syscall.Connect(next, &syscall.SockaddrInet4{Port: addr.Port, Addr: [4]byte(addr.IP.To4())}); err != nil {
		t.Fatal(err)
	}
	if _, err := syscall.Write(next, []byte(peerRequest)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the log tells of it", func() bool { return strings.Contains(strings.Join(log.all()[before:], ""), "too many open files") })
	first.sendText("who is connected is served")
	first.want(opText, "who is connected is served")
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	began, answer := time.Now(), make([]byte, len(peerAnswer))
	if n, err := syscall.Read(next, answer); string(answer[:max(n, 0)]) != peerAnswer {
		t.Fatalf("%v after there was room: %q, %v", time.Since(began), answer[:max(n, 0)], err)
	}
	took := time.Since(began)
	if lines, most := len(log.all())-before, 2+int(time.Since(start)/time.Second); lines > most {
		t.Errorf("%d lines in the log within %v: %v", lines, time.Since(start), log.all())
	}
	return took
}

// Close ends a server whose acceptor waits for a slot of MaxHandshakes.
func TestCloseWhileTheAcceptorWaits(t *testing.T) {
	s := &Server{Handler: echoEvents(), MaxHandshakes: 1, ErrorLog: new(logBook).logger()}
	dial := serveTCP(t, s)
	first := dial() // and says nothing
	eventually(t, "the first has the slot", func() bool { return s.Stats().Handshaking == 1 })
	second := dial()
	eventually(t, "the second waits", func() bool { return s.waiting.Load() == 1 })
	s.Close()
	for _, p := range []*peer{first, second} {
		if err := p.receive(); err == nil {
			t.Errorf("a handshake was answered behind Close: %q", p.in)
		}
	}
	eventuallyNoLoop(t)
}

// A request's address is what the socket's says, of every family.
func TestRequestAddress(t *testing.T) {
	for _, test := range []struct{ listen, network, dial string }{
		{"127.0.0.1:0", "tcp4", "127.0.0.1"},
		{"[::1]:0", "tcp6", "::1"},
		{"[::]:0", "tcp4", "127.0.0.1"}, // in IPv6 form to the system
		{filepath.Join(t.TempDir(), "socket"), "unix", ""},
	} {
		network := "tcp"
		if test.dial == "" {
			network = "unix"
		}
		ln, err := net.Listen(network, test.listen)
		if err != nil {
			t.Fatal(err)
		}
		addresses := make(chan [2]string, 1)
		serve(t, &Server{Handler: Events{OnOpen: func(c *Conn, r *http.Request) {
			addresses <- [2]string{r.RemoteAddr, c.RemoteAddr().String()}
		}}}, ln)
		to := ln.Addr().String()
		if test.dial != "" {
			to = net.JoinHostPort(test.dial, strconv.Itoa(ln.Addr().(*net.TCPAddr).Port))
		}
		nc, err := net.Dial(test.network, to)
		if err != nil {
			t.Fatal(err)
		}
		p := newPeer(t, nc)
		p.handshake()
		if got, want := <-addresses, nc.LocalAddr().String(); got != [2]string{want, want} {
			t.Errorf("%s over %s: the request's address is %q, the connection's %q; want %q", test.listen, test.network, got[0], got[1], want)
		}
		p.closeWith(CloseNormal, "")
		nc.Close()
	}
}

// A listener may be served twice at a time, as by net/http.
func TestServeTwice(t *testing.T) {
	ln := listen(t)
	s := &Server{Handler: echoEvents(), ErrorLog: new(logBook).logger()}
	ended := make(chan error, 2)
	for i := range 2 {
		go func() { ended <- s.Serve(ln) }()
		eventually(t, "it is served", func() bool { return s.servings(ln) == i+1 })
		p := newPeer(t, dialAddr(t, ln.Addr().String())) // behind which the first call has begun
		p.handshake()
		p.sendText("served")
		p.want(opText, "served")
	}
	select {
	case err := <-ended:
		t.Errorf("a call of Serve has returned: %v", err)
	default:
	}
	s.Close()
	for range cap(ended) {
		if err := <-ended; err != ErrServerClosed {
			t.Errorf("Serve behind Close: %v, want %v", err, ErrServerClosed)
		}
	}
}

// What a worker parses requests into keeps no connection, nor does a handshake that
// waits keep a worker's buffer.
func TestRequestMemoryKeepsNothing(t *testing.T) {
	s := &Server{Handler: Events{OnMessage: func(*Conn, MessageType, []byte) {}}}
	dial := serveTCP(t, s)
	p := dial()
	p.handshake()
	var c weak.Pointer[Conn]
	for open := range s.Conns() {
		c = weak.Make(open)
	}
	p.closeWith(CloseNormal, "")
	eventually(t, "the connection is garbage", func() bool { runtime.GC(); return c.Value() == nil })

	h := &handshake{reg: &registry{u: new(Upgrader)}}
	if h.parse([]byte("GET /"), new(httphead.Memory)); h.parser == nil || h.parser.Memory != nil {
		t.Errorf("a request that is to go on keeps %v", h.parser)
	}
}

// Who closes the socket under a connection ends it, on the loop as everywhere.
func TestSocketClosedUnderAConnection(t *testing.T) {
	end := make(chan error, 1)
	dial := serveTCP(t, &Server{Handler: Events{
		OnMessage: func(c *Conn, _ MessageType, _ []byte) { go c.NetConn().Close() },
		OnClose:   func(_ *Conn, err error) { end <- err },
	}, Upgrader: Upgrader{PingInterval: -1}})
	p := dial()
	p.handshake()
	p.sendText("close")
	select {
	case err := <-end:
		wantEndError(t, err, EndError{By: SideServer}, net.ErrClosed)
	case <-time.After(patience / 4):
		t.Error("OnClose doesn't come")
	}
}

// What comes in a batch is read while the peer is slow to take what Send took, as what
// comes alone is.
func TestBatchesBehindAFullSocket(t *testing.T) {
	got := make(chan string, 10)
	s := &Server{Handler: Events{
		OnOpen: func(c *Conn, _ *http.Request) { c.Send(NewPreparedMessage(BinaryMessage, make([]byte, 16<<20))) },
		OnMessage: func(c *Conn, _ MessageType, p []byte) {
			got <- string(p)
		},
	}}
	p := serveTCP(t, s)()
	p.takeLittle()
	p.handshake()
	eventually(t, "the socket is full", func() bool {
		cs := slices.Collect(s.Conns())
		return len(cs) == 1 && cs[0].write.has(full)
	})
	for _, want := range [][2]string{{"one", "two"}, {"three", "four"}} {
		p.send(append(textFrame(want[0]), textFrame(want[1])...))
		for _, want := range want {
			select {
			case m := <-got:
				if m != want {
					t.Errorf("OnMessage(%q), want %q", m, want)
				}
			case <-time.After(patience / 4):
				t.Fatalf("OnMessage isn't called, want %q", want)
			}
		}
	}
}
