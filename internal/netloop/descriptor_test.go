//go:build linux

package netloop

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

func connectedPair(t *testing.T, network string) (server, client net.Conn) {
	t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = t.TempDir() + "/socket"
	}
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if client, err = net.Dial(network, ln.Addr().String()); err == nil {
		server, err = ln.Accept()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close(); client.Close() })
	return server, client
}

// A tally is a Progress that counts.
type tally struct {
	took, waits int
	waiting     chan struct{} // if there is one, is closed by the first wait
}

func (c *tally) Took(n int) { c.took += n }

func (c *tally) Waits() {
	if c.waits++; c.waits == 1 && c.waiting != nil {
		close(c.waiting)
	}
}

// What is written past a net.Conn's Write arrives whole and in order, in one part or
// two, and who waits is told how it gets on.
func TestDescriptorWrites(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		server, client := connectedPair(t, network)
		d := DescriptorOf(server)
		sent := bytes.Repeat([]byte("0123456789abcde"), 1<<19) // more than a socket holds
		n := 0
		var err error
		for err == nil {
			var k int
			k, err = d.TryWrite(sent[n:n+1], sent[n+1:n+3000])
			n += k
		}
		if left, failed := d.Unsent(); err != ErrWait || n == 0 || left == 0 || failed != nil {
			t.Errorf("%s: TryWrite ends with %v behind %d bytes, Unsent() = %d, %v; want ErrWait, and some of both", network, err, n, left, failed)
		}
		got := make(chan []byte)
		told := tally{waiting: make(chan struct{})}
		go func() {
			select { // or all would fit that is left
			case <-told.waiting:
			case <-time.After(20 * time.Second):
			}
			b, _ := io.ReadAll(client)
			got <- b
		}()
		k, err := d.WriteAll(sent[n:n+10], sent[n+10:], &told)
		if n+k != len(sent) || told.took != k || told.waits == 0 || err != nil {
			t.Errorf("%s: WriteAll of %d bytes = %d, %v; told of %d bytes and %d waits", network, len(sent)-n, k, err, told.took, told.waits)
		}
		server.Close()
		if b := <-got; !bytes.Equal(b, sent) {
			t.Errorf("%s: %d bytes came, or others; want %d", network, len(b), len(sent))
		}
	}
}

// The limit of unsent bytes is lifted while a larger write waits, and only then.
func TestDescriptorLimit(t *testing.T) {
	server, client := connectedPair(t, "tcp")
	d := DescriptorOf(server)
	low := func() (n int) {
		d.Control(func(fd uintptr) { n, _ = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotsentLowat) })
		return n
	}
	if err := d.LimitUnsent(); err != nil || low() != UnsentLimit {
		t.Fatalf("LimitUnsent() = %v, and the limit is %d; want %d", err, low(), UnsentLimit)
	}
	high := 0
	_, err := d.WriteAll(nil, make([]byte, 16<<20), waiter(func() {
		if high == 0 {
			high = low()
			go io.Copy(io.Discard, client)
		}
	}))
	if err != nil || high != noLimit || low() != UnsentLimit {
		t.Errorf("WriteAll = %v; the limit was %d during it and is %d; want %d and %d", err, high, low(), noLimit, UnsentLimit)
	}
}

// A waiter is a Progress that is called when a write waits.
type waiter func()

func (waiter) Took(int) {}
func (w waiter) Waits() { w() }

// Errors are those of package net, and what isn't exactly a socket has no descriptor.
func TestDescriptorErrors(t *testing.T) {
	server, client := connectedPair(t, "tcp")
	d := DescriptorOf(server)
	server.SetWriteDeadline(time.Now().Add(-time.Second))
	if _, err := d.WriteAll([]byte("x"), nil, new(tally)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("WriteAll behind the deadline: %v", err)
	}
	server.SetWriteDeadline(time.Time{})
	client.(*net.TCPConn).SetLinger(0)
	client.Close()
	server.Read(make([]byte, 1)) // which has the reset
	var op *net.OpError
	if _, err := d.TryWrite([]byte("x"), nil); !errors.Is(err, syscall.EPIPE) || !errors.As(err, &op) || op.Addr != server.RemoteAddr() {
		t.Errorf("TryWrite behind a reset: %v", err)
	}
	server.Close()
	if _, err := d.TryWrite([]byte("x"), nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("TryWrite of a closed socket: %v", err)
	}
	if _, err := d.Unsent(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Unsent of a closed socket: %v", err)
	}
	if err := d.LimitUnsent(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("LimitUnsent of a closed socket: %v", err)
	}
	if d := DescriptorOf(struct{ *net.TCPConn }{server.(*net.TCPConn)}); d != nil {
		t.Error("DescriptorOf a wrapper isn't nil")
	}
}
