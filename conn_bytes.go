package websocket

import (
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"time"
)

// Stream returns c as a stream of bytes, for code that wants a net.Conn: a
// tunnel to a TCP service, io.Copy, a protocol with framing of its own. The
// bytes travel as the payloads of messages of type t; where a message begins
// and ends means nothing. (Conn.NetConn is another thing: the socket
// underneath, on which the bytes are frames.)
//
// Read returns the bytes of the next messages. A message of the other type
// closes the connection with 1003. After the peer's close frame with 1000, 1001
// or no code it returns io.EOF, after any other end the *EndError. A deadline
// that passes leaves the stream usable.
//
// Write sends its bytes in one message, or, when they are binary, in several of
// at most 64 KiB. Text has to be UTF-8 in each call. A write deadline that
// passes ends the connection, unlike a socket's (see Conn.SetWriteDeadline).
//
// Close does the closing handshake with 1000, which takes CloseTimeout at most.
// There is no way to close one direction only: WebSocket has none.
//
// Any number of goroutines may use it. It is the reader of its Conn, and so
// not for one that Events serves.
func Stream(c *Conn, t MessageType) net.Conn { return &byteStream{c: c, t: t} }

// streamChunk bounds a message of a Stream: its peer has a limit too.
const streamChunk = 64 << 10

// A byteStream is what Stream returns.
type byteStream struct {
	c *Conn
	t MessageType

	mu     sync.Mutex // held by Read, and guards r
	r      io.Reader  // the message under way, nil between two
	closed sync.Once
}

func (s *byteStream) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if s.r == nil {
			t, r, err := s.c.NextReader()
			if err != nil {
				return 0, endOfStream(err)
			}
			if t != s.t {
				s.c.Close(CloseUnsupportedData, "only "+s.t.String()+" messages are read here")
				continue // to the end's error
			}
			s.r = r
		}
		n, err := s.r.Read(p)
		if err == io.EOF {
			s.r, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, endOfStream(err)
		}
	}
}

// endOfStream returns io.EOF for an end that a peer means as one.
func endOfStream(err error) error {
	var peer *CloseError
	if errors.As(err, &peer) && slices.Contains([]CloseCode{CloseNormal, CloseGoingAway, CloseNoStatus}, peer.Code) {
		return io.EOF
	}
	return err
}

func (s *byteStream) Write(p []byte) (n int, err error) {
	for len(p) > 0 && err == nil {
		k := len(p)
		if s.t != TextMessage { // a piece of text could end inside a rune
			k = min(k, streamChunk)
		}
		if err = s.c.WriteMessage(s.t, p[:k]); err == nil {
			n, p = n+k, p[k:]
		}
	}
	return n, err
}

func (s *byteStream) Close() error {
	err := net.ErrClosed
	s.closed.Do(func() {
		if err = s.c.Close(CloseNormal, ""); errors.Is(err, net.ErrClosed) {
			err = nil // the peer came first
		}
	})
	return err
}

func (s *byteStream) LocalAddr() net.Addr                { return s.c.LocalAddr() }
func (s *byteStream) RemoteAddr() net.Addr               { return s.c.RemoteAddr() }
func (s *byteStream) SetDeadline(t time.Time) error      { return s.c.SetDeadline(t) }
func (s *byteStream) SetReadDeadline(t time.Time) error  { return s.c.SetReadDeadline(t) }
func (s *byteStream) SetWriteDeadline(t time.Time) error { return s.c.SetWriteDeadline(t) }
