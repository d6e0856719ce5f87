//go:build !noloop && !race

// The race detector makes pools forget at random, so this file is for runs
// without it.

package websocket

import (
	"math"
	"net"
	"net/http"
	"runtime"
	"syscall"
	"testing"
)

// A rawClient opens connections to a server on the loop and allocates nothing, so
// that what is counted is the server's.
type rawClient struct {
	addr    syscall.SockaddrInet4
	request []byte
	answer  [1 << 10]byte
	open    []int
	s       *Server
}

func newRawClient(t testing.TB, u Upgrader, request []byte) *rawClient {
	t.Helper()
	s := &Server{Upgrader: u, Handler: echoEvents(), ErrorLog: new(logBook).logger()}
	ln := listen(t)
	serve(t, s, ln)
	c := &rawClient{request: request, open: make([]int, 0, 256), s: s}
	addr := ln.Addr().(*net.TCPAddr)
	c.addr.Port, c.addr.Addr = addr.Port, [4]byte(addr.IP.To4())
	t.Cleanup(func() { c.closeAll(t) })
	return c
}

// shakeHands opens one connection more.
func (c *rawClient) shakeHands(t testing.TB) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	c.open = append(c.open, fd)
	if err := syscall.Connect(fd, &c.addr); err != nil {
		t.Fatal(err)
	}
	if _, err := syscall.Write(fd, c.request); err != nil {
		t.Fatal(err)
	}
	const want = "HTTP/1.1 101"
	if n, err := syscall.Read(fd, c.answer[:]); err != nil || n < len(want) || string(c.answer[:len(want)]) != want {
		t.Fatalf("answer %q, %v", c.answer[:max(n, 0)], err)
	}
}

// closeAll ends the connections and waits until the server has seen it.
func (c *rawClient) closeAll(t testing.TB) {
	for _, fd := range c.open {
		syscall.Close(fd)
	}
	c.open = c.open[:0]
	eventually(t, "the connections have ended", func() bool { return c.s.Stats().Open == 0 })
}

// handshakeCosts are what a handshake allocates at most, the connection that is left
// behind included.
var handshakeCosts = []struct {
	name           string
	u              Upgrader
	request        []byte
	bytes, mallocs uint64
}{
	{"program", Upgrader{}, []byte(peerRequest), 860, 5},
	{"browser", Upgrader{}, browserRequest, 1320, 5},
	{"OnRefuse", Upgrader{OnRefuse: func(*http.Request, int, error) {}}, []byte(peerRequest), 1940, 8}, // may keep the request
	{"OnUpgrade", Upgrader{OnUpgrade: func(*http.Request, *Accept) error { return nil }}, []byte(peerRequest), 2480, 19},
}

func BenchmarkHandshake(b *testing.B) {
	for _, bench := range handshakeCosts {
		b.Run(bench.name, func(b *testing.B) {
			c := newRawClient(b, bench.u, bench.request)
			b.ReportAllocs()
			for b.Loop() {
				if c.shakeHands(b); len(c.open) == cap(c.open) {
					b.StopTimer()
					c.closeAll(b)
					b.StartTimer()
				}
			}
		})
	}
}

// A handshake leaves little garbage, so that a crowd that comes at once doesn't
// make the process large.
func TestHandshakeAllocatesLittle(t *testing.T) {
	for _, test := range handshakeCosts {
		t.Run(test.name, func(t *testing.T) {
			c := newRawClient(t, test.u, test.request)
			bytes, mallocs := c.cost(t, test.bytes, test.mallocs)
			if runtime.GOARCH == "386" {
				mallocs-- // package syscall accepts there, and makes an address
			}
			t.Logf("a handshake allocates %d bytes in %d pieces", bytes, mallocs)
			if bytes > test.bytes || mallocs > test.mallocs {
				t.Errorf("a handshake allocates %d bytes in %d pieces; want at most %d in %d", bytes, mallocs, test.bytes, test.mallocs)
			}
		})
	}
}

// cost is the least of a few rounds, of 20 where it isn't enough: the first fills the
// pools, and in any of them a worker may be new, whose buffer is made then.
func (c *rawClient) cost(t testing.TB, enoughBytes, enoughMallocs uint64) (bytes, mallocs uint64) {
	bytes, mallocs = math.MaxUint64, math.MaxUint64
	for round := 0; round < 5 || round < 20 && (bytes > enoughBytes || mallocs > enoughMallocs); round++ {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range cap(c.open) {
			c.shakeHands(t)
		}
		runtime.ReadMemStats(&after)
		n := uint64(cap(c.open))
		bytes, mallocs = min(bytes, (after.TotalAlloc-before.TotalAlloc)/n), min(mallocs, (after.Mallocs-before.Mallocs)/n)
		c.closeAll(t)
	}
	return bytes, mallocs
}
