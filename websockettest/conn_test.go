package websockettest

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestPipeCarriesBytes(t *testing.T) {
	client, server := Pipe()
	sent := bytes.Repeat([]byte("0123456789"), 50_000) // more than a stream holds
	go func() {
		client.Write(sent)
		client.(*conn).CloseWrite()
	}()
	got, err := io.ReadAll(server)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("ReadAll = %d bytes, %v; want %d", len(got), err, len(sent))
	}
	if n, err := server.Write([]byte("back")); n != 4 || err != nil {
		t.Errorf("Write after the peer's CloseWrite = %d, %v; want 4, nil", n, err)
	}
	b := make([]byte, 10)
	if n, err := client.Read(b); string(b[:n]) != "back" || err != nil {
		t.Errorf("Read = %q, %v; want %q", b[:n], err, "back")
	}
	if n, err := client.Read(nil); n != 0 || err != nil {
		t.Errorf("Read(nil) = %d, %v; want 0, nil", n, err)
	}
	if client.LocalAddr().String() != "192.0.2.1:1024" || server.RemoteAddr().String() != "192.0.2.1:1024" ||
		client.RemoteAddr().String() != "192.0.2.2:80" || server.LocalAddr().String() != "192.0.2.2:80" {
		t.Errorf("addresses %v and %v, %v and %v", client.LocalAddr(), client.RemoteAddr(), server.LocalAddr(), server.RemoteAddr())
	}
}

// What either end sees of the other's end.
func TestPipeEnds(t *testing.T) {
	unread := func(c net.Conn) { c.Write([]byte("unread")) }
	tests := []struct {
		name        string
		end         func(client, server net.Conn)
		read, write error // of the server
	}{
		{"close", func(c, s net.Conn) { c.Close() }, io.EOF, syscall.EPIPE},
		{"close with bytes unread", func(c, s net.Conn) { unread(s); c.Close() }, syscall.ECONNRESET, syscall.EPIPE},
		{"CloseWrite", func(c, s net.Conn) { c.(*conn).CloseWrite() }, io.EOF, nil},
		{"reset", func(c, s net.Conn) { unread(c); c.(*conn).reset() }, syscall.ECONNRESET, syscall.EPIPE},
		{"own close", func(c, s net.Conn) { s.Close() }, net.ErrClosed, net.ErrClosed},
		{"own CloseWrite", func(c, s net.Conn) { s.(*conn).CloseWrite(); unread(c) }, nil, syscall.EPIPE},
		{"read deadline", func(c, s net.Conn) { s.SetReadDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded, nil},
		{"deadline", func(c, s net.Conn) { s.SetDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded, os.ErrDeadlineExceeded},
		{"deadline taken back", func(c, s net.Conn) { s.SetDeadline(time.Unix(1, 0)); s.SetDeadline(time.Time{}); unread(c) }, nil, nil},
	}
	for _, test := range tests {
		client, server := Pipe()
		test.end(client, server)
		if _, err := server.Read(make([]byte, 1)); !errors.Is(err, test.read) {
			t.Errorf("%s: Read: %v; want %v", test.name, err, test.read)
		}
		if _, err := server.Write([]byte("x")); !errors.Is(err, test.write) {
			t.Errorf("%s: Write: %v; want %v", test.name, err, test.write)
		}
	}
}

func TestPipeClosedTwice(t *testing.T) {
	client, _ := Pipe()
	if err := client.Close(); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"Close": client.Close(), "CloseWrite": client.(*conn).CloseWrite(),
		"SetDeadline": client.SetDeadline(time.Now()), "SetWriteDeadline": client.SetWriteDeadline(time.Now()),
	} {
		var op *net.OpError
		if !errors.Is(err, net.ErrClosed) || !errors.As(err, &op) {
			t.Errorf("%s after Close: %v; want a *net.OpError of %v", name, err, net.ErrClosed)
		}
	}
}

// Whatever an end waits for, what happens to either end wakes it.
func TestPipeWakes(t *testing.T) {
	read := func(c net.Conn) error { _, err := c.Read(make([]byte, 1)); return err }
	write := func(c net.Conn) error { _, err := c.Write(make([]byte, 2*streamSize)); return err }
	tests := []struct {
		name string
		wait func(net.Conn) error
		wake func(client, server net.Conn)
		want error
	}{
		{"read, a byte", read, func(c, s net.Conn) { c.Write([]byte{1}) }, nil},
		{"read, peer's close", read, func(c, s net.Conn) { c.Close() }, io.EOF},
		{"read, own close", read, func(c, s net.Conn) { s.Close() }, net.ErrClosed},
		{"read, deadline", read, func(c, s net.Conn) { s.SetReadDeadline(time.Now().Add(time.Hour)) }, os.ErrDeadlineExceeded},
		{"write, room", write, func(c, s net.Conn) { io.CopyN(io.Discard, c, 2*streamSize) }, nil},
		{"write, peer's close", write, func(c, s net.Conn) { c.Close() }, syscall.EPIPE},
		{"write, own close", write, func(c, s net.Conn) { s.Close() }, net.ErrClosed},
		{"write, deadline", write, func(c, s net.Conn) { s.SetWriteDeadline(time.Now().Add(time.Hour)) }, os.ErrDeadlineExceeded},
		{"write, deadline moved", write, func(c, s net.Conn) {
			s.SetWriteDeadline(time.Now().Add(time.Hour))
			s.SetWriteDeadline(time.Now().Add(2 * time.Hour))
		}, os.ErrDeadlineExceeded},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server := Pipe()
				done := make(chan error, 1)
				go func() { done <- test.wait(server) }()
				synctest.Wait()
				test.wake(client, server)
				if err := <-done; !errors.Is(err, test.want) {
					t.Errorf("%v; want %v", err, test.want)
				}
				client.Close()
				server.Close()
			})
		})
	}
}

func TestListener(t *testing.T) {
	ln := NewListener()
	client, err := ln.Dial()
	if err != nil {
		t.Fatal(err)
	}
	client.Write([]byte("hello"))
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(server, b); string(b) != "hello" || err != nil {
		t.Errorf("read %q, %v", b, err)
	}
	if got := server.RemoteAddr().String(); got != "192.0.2.1:1024" {
		t.Errorf("the client's address is %s", got)
	}
	if _, err := ln.DialFrom("nowhere"); err == nil {
		t.Error("DialFrom(nowhere) succeeded")
	}
	named, err := ln.DialFrom("203.0.113.9:1234")
	if err != nil || named.LocalAddr().String() != "203.0.113.9:1234" {
		t.Errorf("DialFrom = %v, %v", named, err)
	}
	if err := ln.Close(); err != nil {
		t.Error(err)
	}
	if _, err := named.Read(b); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read of a connection that was never accepted: %v; want %v", err, syscall.ECONNRESET)
	}
	if _, err := ln.Dial(); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("Dial after Close: %v; want %v", err, syscall.ECONNREFUSED)
	}
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v; want %v", err, net.ErrClosed)
	}
	if err := ln.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second Close: %v; want %v", err, net.ErrClosed)
	}
}

func TestListenerAcceptWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := NewListener()
		var wg sync.WaitGroup
		wg.Go(func() {
			nc, err := ln.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			nc.Close()
			if _, err = ln.Accept(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Accept: %v; want %v", err, net.ErrClosed)
			}
		})
		synctest.Wait()
		ln.Dial()
		synctest.Wait()
		ln.Close()
		wg.Wait()
	})
}

// A test with very many clients gets no port 0, which no client has.
func TestListenerPorts(t *testing.T) {
	ln := NewListener()
	defer ln.Close()
	const ports = 1<<16 - 1024
	for i := range ports + 1 {
		c, err := ln.Dial()
		if err != nil {
			t.Fatal(err)
		}
		if got, want := c.LocalAddr().(*net.TCPAddr).Port, 1024+i%ports; got != want {
			t.Fatalf("client %d has port %d; want %d", i, got, want)
		}
		server, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		server.Close()
		c.Close()
	}
}
