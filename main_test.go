package websocket

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestMain holds the suite to what the library promises an application: when
// the last connection has ended no goroutine and no descriptor is left of it.
func TestMain(m *testing.M) {
	settleRuntime()
	waitTogether()
	goroutines, descriptors := goroutineStacks(), countDescriptors()
	code := m.Run()
	if code == 0 {
		code = checkLeaks(goroutines, descriptors)
	}
	os.Exit(code)
}

// waitTogether lets more tests run in parallel than there are processors: most of
// those that may only wait for a timeout.
func waitTogether() {
	const atOnce = 8
	flag.Parse()
	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == parallel.DefValue && flag.Lookup("test.fuzz").Value.String() == "" {
		flag.Set("test.parallel", strconv.Itoa(max(atOnce, runtime.GOMAXPROCS(0))))
	}
}

// settleRuntime makes what the runtime makes once: the poller's descriptors,
// and the goroutine of signals, which fuzzing waits for.
func settleRuntime() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, "no loopback to test on:", err)
		os.Exit(2)
	}
	ln.Close()
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	signal.Stop(interrupted)
}

// checkLeaks gives what is about to end the time to do so, and prints what
// hasn't. A goroutine that closes a socket isn't gone when its peer knows.
func checkLeaks(before map[string]string, descriptors int) int {
	deadline := time.Now().Add(5 * time.Second)
	for wait := time.Millisecond; ; wait *= 2 {
		leaked, open := goroutineStacks(), countDescriptors()
		for id := range before {
			delete(leaked, id)
		}
		if len(leaked) == 0 && open <= descriptors {
			return 0
		}
		if time.Now().After(deadline) {
			for _, stack := range leaked {
				fmt.Fprintf(os.Stderr, "leaked %s\n\n", stack)
			}
			fmt.Fprintf(os.Stderr, "FAIL: %d goroutines leaked; %d descriptors before the tests, %d after\n",
				len(leaked), descriptors, open)
			return 1
		}
		runtime.GC() // sockets that nothing refers to are no leak
		time.Sleep(wait)
	}
}

// goroutineStacks returns the goroutines there are, by number.
func goroutineStacks() map[string]string {
	buf := make([]byte, 1<<20)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	stacks := make(map[string]string)
	for stack := range strings.SplitSeq(string(buf), "\n\n") {
		id, _, _ := strings.Cut(stack, " [")
		stacks[id] = stack
	}
	return stacks
}

// countDescriptors returns how many descriptors are open, 0 on a system that
// doesn't tell.
func countDescriptors() int {
	for _, dir := range []string{"/proc/self/fd", "/dev/fd"} {
		if entries, err := os.ReadDir(dir); err == nil {
			return len(entries)
		}
	}
	return 0
}

const (
	peerKey     = "dGhlIHNhbXBsZSBub25jZQ=="
	peerRequest = "GET /chat HTTP/1.1\r\nHost: server.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Key: " + peerKey + "\r\nSec-WebSocket-Version: 13\r\n\r\n"
	peerAnswer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"

	// patience is how long a peer on a real network waits for what must come.
	patience = 20 * time.Second
)

// A transport makes the two ends of a connection. Over TCP a Conn waits on the
// socket itself, over a pipe, as over TLS, with a buffer of its own.
type transport func(testing.TB) (server, client net.Conn)

var transports = map[string]transport{"tcp": tcpPair, "pipe": pipePair}

func tcpPair(t testing.TB) (server, client net.Conn) {
	t.Helper()
	ln := listen(t)
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if server, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	ln.Close()
	t.Cleanup(func() {
		client.Close()
		server.Close()
	})
	return server, client
}

func pipePair(t testing.TB) (server, client net.Conn) {
	server, client = net.Pipe()
	t.Cleanup(func() {
		client.Close()
		server.Close()
	})
	return server, client
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// overTransports runs f as a subtest of each transport.
func overTransports(t *testing.T, f func(t *testing.T, pair transport)) {
	for name, pair := range transports {
		t.Run(name, func(t *testing.T) { f(t, pair) })
	}
}

// connect returns both ends of a connection that u has upgraded.
func connect(t testing.TB, u *Upgrader, pair transport) (*Conn, *peer) {
	t.Helper()
	return connectBy(t, u, pair, (*peer).handshake)
}

// connectBy is connect with a handshake of the caller's.
func connectBy(t testing.TB, u *Upgrader, pair transport, handshake func(*peer)) (*Conn, *peer) {
	t.Helper()
	server, client := pair(t)
	p := newPeer(t, client)
	done := make(chan *Conn, 1)
	go func() {
		c, _, err := u.Upgrade(server)
		if err != nil {
			t.Errorf("Upgrade: %v", err)
		}
		done <- c
	}()
	handshake(p)
	c := <-done
	if c == nil {
		t.FailNow()
	}
	t.Cleanup(func() { c.CloseNow() })
	return c, p
}

// A peer is a client that does what a test tells it, lawful or not. Its
// methods that take no error out belong to the test's own goroutine.
type peer struct {
	testing.TB
	nc net.Conn
	in []byte // received and not looked at yet
}

func newPeer(t testing.TB, nc net.Conn) *peer {
	nc.SetDeadline(time.Now().Add(patience))
	return &peer{TB: t, nc: nc}
}

// clientFrame is a masked frame.
func clientFrame(op opcode, fin bool, payload string) []byte {
	h := header{fin: fin, opcode: op, masked: true, key: [4]byte{0x37, 0xfa, 0x21, 0x3d}, length: uint64(len(payload))}
	b := appendHeader(nil, h)
	n := len(b)
	b = append(b, payload...)
	mask(b[n:], h.key, 0)
	return b
}

func textFrame(s string) []byte { return clientFrame(opText, true, s) }

func closeFrame(code CloseCode, reason string) []byte {
	return clientFrame(opClose, true, string(appendClosePayload(nil, code, reason)))
}

// send writes the pieces in one write.
func (p *peer) send(pieces ...[]byte) {
	p.Helper()
	if _, err := p.nc.Write(bytes.Join(pieces, nil)); err != nil {
		p.Fatalf("peer: write: %v", err)
	}
}

func (p *peer) sendText(s string) {
	p.Helper()
	p.send(textFrame(s))
}

// handshake asks for the upgrade and wants it granted.
func (p *peer) handshake() {
	p.Helper()
	p.send([]byte(peerRequest))
	p.wantBytes(peerAnswer)
}

func (p *peer) wantBytes(want string) {
	p.Helper()
	for len(p.in) < len(want) {
		if err := p.receive(); err != nil {
			p.Fatalf("peer: read %q, then %v; want %q", p.in, err, want)
		}
	}
	if got := string(p.in[:len(want)]); got != want {
		p.Fatalf("peer: read %q, want %q", got, want)
	}
	p.in = p.in[len(want):]
}

// takeLittle gives p's socket a small receive buffer. One that the system sizes
// grows to tens of megabytes on a busy machine: what p doesn't read would leave
// the server all the same.
func (p *peer) takeLittle() {
	p.Helper()
	if err := p.nc.(interface{ SetReadBuffer(int) error }).SetReadBuffer(16 << 10); err != nil {
		p.Fatal(err)
	}
}

// receive reads what there is.
func (p *peer) receive() error {
	var b [16 << 10]byte
	n, err := p.nc.Read(b[:])
	p.in = append(p.in, b[:n]...)
	if n > 0 {
		return nil
	}
	return err
}

// frame returns the next frame, which has to be one that a server may send.
func (p *peer) frame() (header, string, error) {
	h, payload, err := p.anyFrame()
	if err == nil {
		h.masked = !h.masked // checkHeader is about clients
		err = checkHeader(h, h.opcode == opContinuation, false)
	}
	return h, payload, err
}

func (p *peer) anyFrame() (header, string, error) {
	for {
		h, n, err := parseHeader(p.in)
		if err != nil {
			return h, "", err
		}
		if n > 0 && uint64(len(p.in)-n) >= h.length {
			payload := string(p.in[n : n+int(h.length)])
			p.in = p.in[n+int(h.length):]
			return h, payload, nil
		}
		if err := p.receive(); err != nil {
			return h, "", err
		}
	}
}

// message returns the next message, put together.
func (p *peer) message() (opcode, string, error) {
	h, payload, err := p.frame()
	op := h.opcode
	for err == nil && !h.fin {
		var more string
		h, more, err = p.frame()
		if err == nil && h.opcode != opContinuation {
			return op, payload, fmt.Errorf("%v inside a message", h.opcode)
		}
		payload += more
	}
	return op, payload, err
}

func (p *peer) want(op opcode, payload string) {
	p.Helper()
	h, got, err := p.frame()
	if err != nil {
		p.Fatalf("peer: %v; want %v %s", err, op, quote(payload))
	}
	if h.opcode != op || got != payload || !h.fin {
		p.Fatalf("peer: got %v (FIN %t) of %d bytes %s; want %v of %d bytes %s",
			h.opcode, h.fin, len(got), quote(got), op, len(payload), quote(payload))
	}
}

func (p *peer) wantClose(code CloseCode, reason string) {
	p.Helper()
	p.want(opClose, string(appendClosePayload(nil, code, reason)))
}

// wantEnd wants the stream's end, and not a reset, and closes the peer's side.
// A pipe has no end of one direction, so there the peer just goes.
func (p *peer) wantEnd() {
	p.Helper()
	if p.nc.LocalAddr().Network() == "pipe" {
		p.nc.Close()
		return
	}
	for {
		if err := p.receive(); err == io.EOF {
			break
		} else if err != nil {
			p.Fatalf("peer: %v; want the stream's end", err)
		}
	}
	if len(p.in) > 0 {
		p.Fatalf("peer: %s before the stream's end", quote(p.in))
	}
	p.nc.Close()
}

// leave reads on in the background, as long as there is something, and then
// closes: a server that has closed its half waits for that.
func (p *peer) leave() {
	go func() {
		io.Copy(io.Discard, p.nc)
		p.nc.Close()
	}()
}

// closeWith does the client's closing handshake.
func (p *peer) closeWith(code CloseCode, reason string) {
	p.Helper()
	p.send(closeFrame(code, reason))
	p.wantClose(code, "")
	p.wantEnd()
}

// wantEndError wants err to be the record of an end, with these fields.
func wantEndError(t testing.TB, err error, want EndError, cause error) {
	t.Helper()
	var e *EndError
	if !errors.As(err, &e) {
		t.Errorf("got error %v (%T), want an *EndError", err, err)
		return
	}
	if e.By != want.By || e.Sent != want.Sent || e.Received != want.Received || e.Clean != want.Clean {
		t.Errorf("the end: by %v, sent %d, received %d, clean %t; want by %v, sent %d, received %d, clean %t (%v)",
			e.By, e.Sent, e.Received, e.Clean, want.By, want.Sent, want.Received, want.Clean, err)
	}
	if cause != nil && !errors.Is(err, cause) {
		t.Errorf("the end's cause: %v, want %v", e.Err, cause)
	}
}

// A pipeListener accepts pipes, so that a Server can be tested where time is
// faked: a pipe's ends wait as package synctest can see.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case nc := <-l.conns:
		return nc, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return plainAddr{} }

// dial returns the client's end of a new pipe whose other end is accepted. It
// has no deadline: there time is free.
func (l *pipeListener) dial(t testing.TB) *peer {
	server, client := pipePair(t)
	l.conns <- server
	p := newPeer(t, client)
	client.SetDeadline(time.Time{})
	return p
}

// open is dial and the handshake.
func (l *pipeListener) open(t testing.TB) *peer {
	t.Helper()
	p := l.dial(t)
	p.handshake()
	return p
}

// serve runs s on ln until the test ends.
func serve(t testing.TB, s *Server, ln net.Listener) {
	t.Helper()
	done := make(chan error)
	go func() { done <- s.Serve(ln) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-done; err != ErrServerClosed {
			t.Errorf("Serve = %v, want %v", err, ErrServerClosed)
		}
	})
}

// serveTCP runs s on a port of its own until the test ends, and returns a
// function that connects a new peer to it.
func serveTCP(t testing.TB, s *Server) (dial func() *peer) {
	t.Helper()
	ln := listen(t)
	serve(t, s, ln)
	return func() *peer {
		t.Helper()
		nc, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		return newPeer(t, nc)
	}
}

// A logBook keeps what a Server logs.
type logBook struct {
	mu    sync.Mutex
	lines []string
}

func (b *logBook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines = append(b.lines, string(p))
	return len(p), nil
}

func (b *logBook) logger() *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

func (b *logBook) all() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.lines...)
}
