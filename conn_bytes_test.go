package websocket_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rawws/websocket"
	"github.com/rawws/websocket/websockettest"
)

// streamPair returns a Stream of type mt and its client, and what ends the
// Stream's handler.
func streamPair(t *testing.T, mt websocket.MessageType) (net.Conn, *websocket.Conn, *websockettest.Client) {
	streams := make(chan *websocket.Conn)
	done := make(chan struct{})
	s := &websocket.Server{Handler: websocket.HandlerFunc(func(c *websocket.Conn, _ *http.Request) {
		streams <- c
		<-done
	})}
	client := websockettest.Dial(t, websockettest.Serve(t, s), "/")
	t.Cleanup(func() { close(done) })
	c := <-streams
	return websocket.Stream(c, mt), c, client
}

func TestStreamCarriesBytes(t *testing.T) {
	s, _, client := streamPair(t, websocket.BinaryMessage)
	up := bytes.Repeat([]byte("0123456789"), 30_000)
	client.ReadInBackground()
	client.SendFrame(websockettest.Frame{Opcode: websockettest.Binary}) // an empty one is no end
	client.SendFrame(websockettest.Frame{Opcode: websockettest.Binary, Payload: up[:7], More: true}, websockettest.Frame{Payload: up[7:1000]})
	go func() {
		client.SendBinary(up[1000:])
		client.SendClose(1000, "")
	}()
	got, err := io.ReadAll(s)
	if !bytes.Equal(got, up) || err != nil {
		t.Errorf("ReadAll = %d bytes, %v; want %d", len(got), err, len(up))
	}
	if n, err := s.Read(nil); n != 0 || err != nil {
		t.Errorf("Read(nil) = %d, %v; want 0, nil", n, err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close behind the peer's: %v", err)
	}
	if err := s.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second Close: %v; want %v", err, net.ErrClosed)
	}
}

// Binary goes out in messages that a peer's limit takes, text whole: a piece
// could end inside a rune.
func TestStreamWrites(t *testing.T) {
	p := []byte(strings.Repeat("ü", 50_000))
	s, c, client := streamPair(t, websocket.BinaryMessage)
	client.ReadInBackground()
	if n, err := s.Write(p); n != len(p) || err != nil {
		t.Errorf("Write = %d, %v; want %d", n, err, len(p))
	}
	client.WantBinary(p[:64<<10])
	client.WantBinary(p[64<<10:])
	if n, err := s.Write(nil); n != 0 || err != nil {
		t.Errorf("Write(nil) = %d, %v; want 0", n, err)
	}
	n, err := websocket.Stream(c, websocket.TextMessage).Write(p)
	if n != len(p) || err != nil {
		t.Errorf("Write = %d, %v; want %d", n, err, len(p))
	}
	client.WantText(string(p))
	if s.LocalAddr() != c.LocalAddr() || s.RemoteAddr() != c.RemoteAddr() {
		t.Errorf("addresses %v and %v; want the connection's", s.LocalAddr(), s.RemoteAddr())
	}
}

func TestStreamEnds(t *testing.T) {
	tests := []struct {
		name string
		end  func(*websockettest.Client)
		want error
		code websocket.CloseCode
	}{
		{"1000", func(c *websockettest.Client) { c.SendClose(1000, "") }, io.EOF, 0},
		{"1001", func(c *websockettest.Client) { c.SendClose(1001, "") }, io.EOF, 0},
		{"no code", func(c *websockettest.Client) { c.SendClose(1005, "") }, io.EOF, 0},
		{"an error's code", func(c *websockettest.Client) { c.SendClose(1011, "") }, nil, 1011},
		{"cut", func(c *websockettest.Client) { c.Cut() }, io.ErrUnexpectedEOF, 1006},
		{"the other type", func(c *websockettest.Client) { c.SendText("x"); c.SendClose(1003, "") }, net.ErrClosed, 1003},
		{"inside a message", func(c *websockettest.Client) {
			c.SendFrame(websockettest.Frame{Opcode: websockettest.Binary, More: true})
			c.SendBinary(nil)
		}, nil, 1002},
	}
	for _, test := range tests {
		synctest.Test(t, func(t *testing.T) {
			s, _, client := streamPair(t, websocket.BinaryMessage)
			test.end(client)
			client.ReadInBackground()
			_, err := s.Read(make([]byte, 1))
			if test.want != nil && !errors.Is(err, test.want) || err == nil {
				t.Errorf("%s: Read: %v; want %v", test.name, err, test.want)
			}
			if got := websocket.CloseStatus(err); got != test.code {
				t.Errorf("%s: CloseStatus = %d; want %d", test.name, got, test.code)
			}
			if _, err := s.Write([]byte("x")); err == nil {
				t.Errorf("%s: Write behind the end succeeded", test.name)
			}
		})
	}
}

// Close does the closing handshake, with and without a Read under way.
func TestStreamClose(t *testing.T) {
	for _, reading := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s, _, client := streamPair(t, websocket.BinaryMessage)
			client.ReadInBackground()
			read := make(chan error, 1)
			if reading {
				go func() {
					_, err := s.Read(make([]byte, 1))
					read <- err
				}()
				synctest.Wait()
			}
			if err := s.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			client.WantClose(1000)
			if reading {
				if err := <-read; !errors.Is(err, net.ErrClosed) {
					t.Errorf("Read: %v; want %v", err, net.ErrClosed)
				}
			}
		})
	}
}

func TestStreamDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c, client := streamPair(t, websocket.BinaryMessage)
		whole := websockettest.Frame{Opcode: websockettest.Binary, Payload: []byte("0123456789")}.Append(nil)
		client.SendRaw(whole[:10])
		s.SetReadDeadline(time.Now().Add(time.Second))
		got := make([]byte, 0, 10)
		for len(got) < 10 {
			n, err := s.Read(got[len(got):10])
			got = got[:len(got)+n]
			if err != nil {
				if !errors.Is(err, os.ErrDeadlineExceeded) || len(got) == 10 {
					t.Fatalf("Read: %v after %q", err, got)
				}
				s.SetDeadline(time.Time{})
				client.SendRaw(whole[10:])
			}
		}
		if string(got) != "0123456789" {
			t.Errorf("read %q", got)
		}
		s.SetWriteDeadline(time.Now().Add(time.Second)) // the client reads nothing
		if _, err := s.Write(make([]byte, 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write: %v; want %v", err, os.ErrDeadlineExceeded)
		}
		<-c.Context().Done()
	})
}

// What passes a deadline is a net.Error itself, without a look inside it: net/http and
// crypto/tls on a Stream go on behind one, and end at anything else.
func TestStreamTimeoutIsNetError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, _ := streamPair(t, websocket.BinaryMessage)
		past, soon := time.Now().Add(-time.Second), time.Now().Add(time.Second)
		for _, test := range []struct {
			name  string
			until time.Time
			do    func([]byte) (int, error)
		}{
			{"Read", soon, s.Read},
			{"Read behind the deadline", past, s.Read},
			{"Write behind the deadline", past, s.Write},
			{"Write", soon, s.Write}, // the client reads nothing
		} {
			s.SetDeadline(test.until)
			_, err := test.do(make([]byte, 1<<20))
			if ne, ok := err.(net.Error); !ok || !ne.Timeout() || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: %T %v; want a net.Error with Timeout", test.name, err, err)
			}
		}
	})
}

// Each Write's bytes stay together, however many goroutines write at the same time.
func TestStreamWritesDontMix(t *testing.T) {
	const writers, size = 8, 1 << 20
	s, _, client := streamPair(t, websocket.BinaryMessage)
	for i := range writers {
		go s.Write(bytes.Repeat([]byte{byte(i)}, size))
	}
	var got []byte
	for len(got) < writers*size {
		_, p := client.Read()
		got = append(got, p...)
	}
	for ; len(got) > 0; got = got[size:] {
		if whole := bytes.Repeat(got[:1], size); !bytes.Equal(got[:size], whole) {
			t.Fatalf("of writer %d's %d bytes only %d came before another's", got[0], size, len(got)-len(bytes.TrimLeft(got, string(got[:1]))))
		}
	}
}

// A write deadline also holds for who waits for the end of another message, whether
// it was set before that or meanwhile.
func TestWriteDeadlineBehindAWriter(t *testing.T) {
	for _, before := range []time.Duration{0, time.Hour, time.Second} { // 0 for none
		synctest.Test(t, func(t *testing.T) {
			s, c, _ := streamPair(t, websocket.BinaryMessage)
			w, err := c.NextWriter(websocket.BinaryMessage)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			start := time.Now()
			if before > 0 {
				s.SetWriteDeadline(start.Add(before))
			}
			written := make(chan error)
			go func() {
				_, err := s.Write([]byte("behind it"))
				written <- err
			}()
			synctest.Wait()
			if before != time.Second {
				s.SetWriteDeadline(start.Add(time.Second))
			}
			err = <-written
			if took := time.Since(start); took != time.Second || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("with a deadline of %v before: %v after %v; want %v after a second", before, err, took, os.ErrDeadlineExceeded)
			}
			s.SetWriteDeadline(time.Time{})
		})
	}
}
