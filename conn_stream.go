package websocket

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"sync"
	"time"
)

// NextReader returns the type of the next message and a reader of its payload,
// which ends with io.EOF. It is for messages that are used as they come, and, as
// ReadMessage, not for Events. Of text each piece was found to be UTF-8 as far as
// it goes. What is left of the message is skipped at the next call of NextReader
// or of another read; the reader returns an error then. A compressed message is
// read whole before NextReader returns. Errors, the reader's too, are those of
// ReadMessage; the limits of size hold.
func (c *Conn) NextReader() (MessageType, io.Reader, error) {
	if c.eventsReads() {
		return 0, nil, c.eventsRead()
	}
	c.lockReading()
	defer c.reading.Unlock()
	c.startRead()
	r := c.read
	half := r.started && r.stream == nil // by ReadMessage when a deadline passed
	if err := c.beginMessage(); err != nil {
		return 0, nil, c.readFailed(err)
	}
	if half || r.compressed {
		t, p, err := c.appendMessage(nil)
		r.release()
		if err != nil {
			return 0, nil, c.readFailed(err)
		}
		c.endRead()
		return t, bytes.NewReader(p), nil
	}
	c.endRead()
	r.stream = &messageReader{c: c}
	return MessageType(r.opcode), r.stream, nil
}

var errReader = errors.New("websocket: message reader used after the next read")

// skipping stands for the reader of a message whose own one is done with.
var skipping = new(messageReader)

// A messageReader reads one message.
type messageReader struct {
	c    *Conn
	done bool
}

func (m *messageReader) Read(p []byte) (int, error) {
	if m.done {
		return 0, io.EOF
	}
	c := m.c
	r := c.read
	c.lockReading()
	defer c.reading.Unlock()
	defer r.release()
	if c.connState() == stateClosed { // what followed wasn't kept
		return 0, c.endError()
	}
	if r.stream != m {
		return 0, errReader
	}
	for r.left == 0 {
		if r.fin {
			if err := c.endMessage(); err != nil {
				return 0, c.readFailed(err)
			}
			m.done = true
			return 0, io.EOF
		}
		if err := c.nextFrame(); err != nil {
			return 0, c.readFailed(err)
		}
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := c.readPayload(p)
	if err != nil {
		return 0, c.readFailed(err)
	}
	return n, nil
}

var errWriter = errors.New("websocket: message writer used after Close")

// NextWriter returns a writer of one message of unknown length. It sends a
// frame whenever 16 KiB have come together (Compression.FrameSize where
// compression was agreed on), and the last one at Close. Until then other messages
// wait, but control frames don't: a goroutine that calls WriteMessage before its
// own writer's Close waits for itself. Errors are those of WriteMessage, and a
// write after Close is one. A writer that is forgotten without Close ends the
// connection with 1011 when the garbage collector finds it, if a part of it was
// sent.
func (c *Conn) NextWriter(t MessageType) (io.WriteCloser, error) {
	if t != TextMessage && t != BinaryMessage {
		return nil, fmt.Errorf("websocket: NextWriter of %v", t)
	}
	if err := c.lockData(); err != nil {
		return nil, err
	}
	if c.connState() != stateOpen { // the close frame would have to wait for it
		c.unlockWrite()
		return nil, errClosing
	}
	s := &messageStream{c: c, opcode: opcode(t), done: make(chan struct{})}
	c.write.stream = s
	c.unlockWrite()
	m := &messageWriter{s}
	// What others wait for must not be forgotten: a writer that nobody can close
	// any more ends its connection.
	s.cleanup = runtime.AddCleanup(m, (*messageStream).abandoned, s)
	return m, nil
}

// A messageWriter is used by one goroutine; the connection's other methods
// stay free for the others.
type messageWriter struct{ s *messageStream }

func (m *messageWriter) Write(p []byte) (int, error) {
	defer runtime.KeepAlive(m)
	return m.s.write(p)
}

// Close sends the last frame. The message isn't whole before.
func (m *messageWriter) Close() error {
	defer runtime.KeepAlive(m)
	return m.s.close()
}

// A messageStream is a message that is written piece by piece.
type messageStream struct {
	c        *Conn
	opcode   opcode
	buf      *buffer
	size     int
	deflate  bool          // decided with the first frame
	deflated int           // bytes that size became
	begun    bool          // a frame has left; it, late and the counts are guarded by write.mu
	done     chan struct{} // closed when other messages may go on
	closed   bool
	late     bool // the write deadline had passed before a frame could leave
	cleanup  runtime.Cleanup
}

func (m *messageStream) write(p []byte) (int, error) {
	if m.closed {
		return 0, errWriter
	}
	n := 0
	for n < len(p) {
		size := m.c.frameSize() // the buffer's is a power of two
		if m.buf == nil {
			m.buf = getBuffer(size)
		}
		if m.buf.w == size {
			if err := m.send(false); err != nil {
				return n, err
			}
			continue
		}
		k := copy(m.buf.b[m.buf.w:size], p[n:])
		m.buf.w += k
		n += k
	}
	return n, nil
}

// send writes what has come together as a frame.
func (m *messageStream) send(fin bool) error {
	c, w := m.c, &m.c.write
	var p []byte
	if m.buf != nil {
		p = m.buf.pending()
		m.buf.w = 0
	}
	w.mu.Lock()
	defer c.unlockWrite()
	if w.err != nil {
		return w.err
	}
	if w.stream != m {
		if m.late {
			return errLate
		}
		return errClosing // the closing handshake didn't wait any longer
	}
	if err := c.tooLate(); err != nil {
		return m.tooLate(err)
	}
	m.size += len(p)
	err := m.sendFrame(fin, p)
	if err == nil && !fin {
		c.touchMessage()
		c.creditQueue(len(p))
	}
	if fin {
		c.wrote(err, m.size)
		if err == nil && m.deflate {
			c.countDeflated(m.deflated, m.size)
		}
		w.endStream(m)
	}
	return err
}

// tooLate ends the message, whose next frame comes behind the write deadline, and
// with it the connection if a part of it was sent.
func (m *messageStream) tooLate(err error) error {
	w := &m.c.write
	if !m.begun {
		m.late = true
		w.endStream(m)
		return err
	}
	m.c.writeFailed(err)
	return w.err
}

// sendFrame compresses and writes a frame. write.mu is held, since a window
// may go with the connection.
func (m *messageStream) sendFrame(fin bool, p []byte) error {
	c := m.c
	h := header{fin: fin, opcode: opContinuation}
	if !m.begun {
		m.begun = true
		m.deflate = c.deflate != nil && m.size >= c.reg.u.Compression.threshold()
		h.opcode, h.rsv1 = m.opcode, m.deflate
	}
	if m.deflate {
		b := getBuffer(c.frameSize())
		defer putBuffer(b)
		p = c.deflate.deflate(b.b[:0], p, c.reg.u.Compression.level(), fin)
		m.deflated += len(p)
	}
	h.length = uint64(len(p))
	return c.writeFrame(h, p)
}

// close sends the last frame.
func (m *messageStream) close() error {
	if m.closed {
		return errWriter
	}
	m.closed = true
	m.cleanup.Stop()
	err := m.send(true)
	free(&m.buf)
	return err
}

// errAbandoned is a writer of NextWriter that was forgotten before its Close.
var errAbandoned = errors.New("websocket: a writer of NextWriter was never closed, so no other message can follow")

// abandoned ends a connection whose writer nobody has any more.
func (m *messageStream) abandoned() {
	c, w := m.c, &m.c.write
	go func() { // the runtime's goroutine must not wait
		w.mu.Lock()
		if w.stream == m {
			w.giveUpStream()
		}
		half := w.has(halfSent)
		c.unlockWrite()
		if half {
			c.closeSoon(&EndError{By: SideServer, Err: errAbandoned, code: CloseInternalError})
		}
	}()
}

// endStream lets other messages go on behind m.
func (w *writer) endStream(m *messageStream) {
	if w.stream == m {
		close(m.done)
		w.stream = nil
	}
}

// giveUpStream wakes those that wait for a message that won't end.
func (w *writer) giveUpStream() {
	if w.stream != nil {
		if w.stream.begun {
			w.set(halfSent)
		}
		w.endStream(w.stream)
	}
}

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
// at most 64 KiB, between which no other Write's come. Text has to be UTF-8 in each
// call. A write deadline that passes ends the connection, unlike a socket's (see
// Conn.SetWriteDeadline).
//
// Close does the closing handshake with 1000, as Conn.Close does, and may wait as
// long as that; a second Close returns net.ErrClosed. There is no way to close one
// direction only: WebSocket has none.
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
	wmu    sync.Mutex // held by Write, whose messages stay together
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
	s.wmu.Lock()
	defer s.wmu.Unlock()
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
