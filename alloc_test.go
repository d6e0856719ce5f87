//go:build !race

// The race detector makes pools forget at random, so this file is for runs
// without it.

package websocket

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
)

// exchangeAllocs sends and awaits the same bytes again and again, and returns
// what one exchange allocates on both sides; the peer's side allocates nothing.
func exchangeAllocs(t *testing.T, p *peer, send []byte, want int) float64 {
	t.Helper()
	got := make([]byte, want)
	exchange := func() {
		if _, err := p.nc.Write(send); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(p.nc, got); err != nil {
			t.Fatal(err)
		}
	}
	for range 10 { // fills the pools
		exchange()
	}
	return testing.AllocsPerRun(200, exchange)
}

// allocSizes are a size for each way through the buffers.
var allocSizes = []int{0, 20, 1000, 10000, 100000}

func TestEchoAllocatesNothing(t *testing.T) {
	for name, serve := range map[string]func(*Conn){
		"AppendMessage": func(c *Conn) {
			var buf []byte
			for {
				typ, data, err := c.AppendMessage(buf[:0])
				if err != nil || c.WriteMessage(typ, data) != nil {
					return
				}
				buf = data
			}
		},
		"Events": func(c *Conn) { echoEvents().ServeWebSocket(c, nil) },
	} {
		for _, size := range allocSizes {
			t.Run(fmt.Sprint(name, " ", size), func(t *testing.T) {
				c, p := connect(t, new(Upgrader), tcpPair)
				go serve(c)
				message := strings.Repeat("x", size)
				want := len(appendHeader(nil, header{length: uint64(size)})) + size
				if got := exchangeAllocs(t, p, textFrame(message), want); got != 0 {
					t.Errorf("an echo of %d bytes allocates %v times, want 0", size, got)
				}
				fragments := append(clientFrame(opText, false, message[:size/2]), clientFrame(opContinuation, true, message[size/2:])...)
				if got := exchangeAllocs(t, p, fragments, want); got != 0 {
					t.Errorf("an echo of %d bytes in two fragments allocates %v times, want 0", size, got)
				}
			})
		}
	}
}

// Neither does an echo that is inflated and compressed again, with contexts and
// without.
func TestDeflatedEchoAllocatesNothing(t *testing.T) {
	for _, size := range []int{600, 1000, 10000, 100000} {
		for _, u := range []*Upgrader{{Compression: &Compression{ContextMemory: -1}}, {Compression: &Compression{WindowBits: 10}}} {
			c, p := connectDeflate(t, u, tcpPair, "permessage-deflate")
			go echoEvents().ServeWebSocket(c, nil)
			message := sampleJSON(size)
			out, ok := u.Compression.compress(nil, message, c.deflate.bits)
			if !ok {
				t.Fatalf("%d bytes don't shrink", size)
			}
			want := len(appendHeader(nil, header{length: uint64(len(out))})) + len(out)
			if got := exchangeAllocs(t, p, clientCompressed(opText, message), want); got != 0 {
				t.Errorf("%+v: a compressed echo of %d bytes allocates %v times, want 0", u.Compression, size, got)
			}
			fragments := append(withRSV1(clientFrame(opText, false, string(out[:100]))), clientFrame(opContinuation, true, string(out[100:]))...)
			if got := exchangeAllocs(t, p, fragments, want); got != 0 {
				t.Errorf("%+v: a compressed echo of %d bytes in two fragments allocates %v times, want 0", u.Compression, size, got)
			}
		}
	}
}

// Nor does one that grows a thousandfold, which is what costs most for a byte received.
func TestBombAllocatesNothing(t *testing.T) {
	for _, size := range []int{10_000, 100_000, 1 << 20} {
		u := &Upgrader{Compression: new(Compression)}
		c, p := connectDeflate(t, u, tcpPair, "permessage-deflate")
		go echoEvents().ServeWebSocket(c, nil)
		message := bytes.Repeat([]byte("a"), size)
		out, _ := u.Compression.compress(nil, message, c.deflate.bits)
		want := len(appendHeader(nil, header{length: uint64(len(out))})) + len(out)
		if got := exchangeAllocs(t, p, clientCompressed(opText, message), want); got != 0 {
			t.Errorf("an echo of %d bytes in %d allocates %v times, want 0", size, len(out), got)
		}
	}
}

func TestPongAllocatesNothing(t *testing.T) {
	c, p := connect(t, new(Upgrader), tcpPair)
	go c.ReadMessage()
	if got := exchangeAllocs(t, p, clientFrame(opPing, true, "payload"), 2+len("payload")); got != 0 {
		t.Errorf("a pong allocates %v times, want 0", got)
	}
}

// A sink takes what is written to it.
type sink struct{ net.Conn }

func (sink) Write(p []byte) (int, error) { return len(p), nil }

func TestWriteAllocatesNothing(t *testing.T) {
	for name, wrap := range map[string]func(net.Conn) net.Conn{
		"socket": func(nc net.Conn) net.Conn { return nc },
		"sink":   func(nc net.Conn) net.Conn { return sink{nc} },
	} {
		server, client := tcpPair(t)
		c, _ := connect(t, new(Upgrader), func(testing.TB) (net.Conn, net.Conn) { return server, client })
		c.nc = wrap(server)
		if name == "sink" {
			c.raw = nil // as over TLS
		}
		go io.Copy(io.Discard, client)
		for _, size := range append(allocSizes, 1<<20) {
			payload := make([]byte, size)
			if got := testing.AllocsPerRun(100, func() {
				if err := c.WriteMessage(BinaryMessage, payload); err != nil {
					t.Fatal(err)
				}
			}); got != 0 {
				t.Errorf("%s: WriteMessage of %d bytes allocates %v times, want 0", name, size, got)
			}
		}
		payload := []byte("payload")
		if got := testing.AllocsPerRun(100, func() {
			if err := c.Ping(payload); err != nil {
				t.Fatal(err)
			}
		}); got != 0 {
			t.Errorf("%s: Ping allocates %v times, want 0", name, got)
		}
	}
}
