package websocket

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rawws/websocket/internal/netloop"
)

// A MessageType says whether a message is text or binary (RFC 6455, section 5.6).
type MessageType uint8

// The two types of messages.
const (
	TextMessage   MessageType = MessageType(opText)   // UTF-8
	BinaryMessage MessageType = MessageType(opBinary) // any bytes
)

// String returns "text" or "binary".
func (t MessageType) String() string { return opcode(t).String() }

// A Message is a whole message with its type.
type Message struct {
	Type MessageType
	Data []byte
}

// A connState is where a connection is in its life. It only moves forward.
type connState uint8

const (
	// Messages go both ways (section 4.1, "OPEN").
	stateOpen connState = iota
	// A close frame was sent or received, or the stream broke: nothing more is
	// sent, and what still arrives is thrown away (section 7.1.3, "CLOSING").
	stateClosing
	// The socket is closed and the EndError final (section 7.1.4, "CLOSED").
	stateClosed
)

// A Conn is the server's end of a WebSocket connection.
//
// One goroutine at a time reads: ReadMessage, AppendMessage, ReadJSON, NextReader
// and the reader it returns, Messages. (Calls from several are queued, but which
// message goes to which is then chance.) Any number of goroutines may call
// everything else at the same time, WriteMessage, Ping, Send, Flush, Close,
// CloseNow, SetMaxMessageSize and the deadlines among them; frames are never
// interleaved. The connection answers pings and closing handshakes while
// something reads; under Events the library does, between two callbacks. A Conn
// comes from a Handler or an Upgrade: the zero value is of no use.
type Conn struct {
	// Data is a slot for the application: who it is, or its state. It begins as
	// what OnUpgrade gave to Accept.Data; the library never looks at it.
	Data any

	// What each message needs comes first, down to state, in as few cache lines
	// as can be: with thousands of connections none of them is in a cache.

	nc  net.Conn
	raw *descriptor // nil where a wait needs a buffer: TLS, pipes, Windows; and on the loop
	reg *registry

	sock *netloop.Socket // nc as a socket that the loop serves, or nil

	trace   *connTrace    // nil without Upgrader.Trace
	deflate *deflateState // nil when permessage-deflate wasn't negotiated

	read  *reader // on the loop a worker's while it serves the connection, and nil when nothing is half read
	write writer

	queue atomic.Pointer[sendQueue]
	limit atomic.Uint64 // of a message that comes in
	state atomic.Uint32 // a connState, written under mu
	visit atomic.Uint32 // the registry's tick of the sweeper's next visit, or one of visiting, visitAgain

	controls   uint32 // pings and pongs that came in the second from controlAt on
	controlAt  uint32 // in milliseconds, monotonic
	large      bool   // the last message didn't fit a worker's buffer: the next one won't, either
	lingering  bool   // the close frame is out, and what comes is thrown away
	own        bool   // detail.own serves; both are set before anybody else knows the connection
	registered bool   // in the registry, whose mu guards it

	reading sync.Mutex // held by the goroutine that reads
	qmu     sync.Mutex // guards what queue points to; never held over a call that waits
	mu      sync.Mutex // guards what follows; never held over a call that waits
	end     *EndError  // being filled from stateClosing on, final in stateClosed
	detail  *details   // nil until something of it is asked for

	link  link // in the registry's wheel
	clock clock
}

// details are what most connections never need.
type details struct {
	subprotocol string

	ctx    context.Context         // without a cancel: what it is to be made of
	cancel context.CancelCauseFunc // of ctx
	groups []*Group                // to be told of the end
	client *client                 // in the Server's count; Server.register leaves it here
	events *Events                 // of Events.ServeWebSocket
	own    *particulars            // as they were made; nil for none
}

// particulars are what few connections have for themselves from the handshake on.
type particulars struct {
	handler   Handler // of Accept, instead of the Server's; nil for none
	callbacks *Events // the handler, if it is an Events
	from      *net.TCPAddr
}

// details returns c.detail, made at the first use. mu is held.
func (c *Conn) details() *details {
	if c.detail == nil {
		c.detail = new(details)
	}
	return c.detail
}

// known returns a copy of what c.detail says now.
func (c *Conn) known() (x details) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.detail != nil {
		x = *c.detail
	}
	return x
}

func newConn(nc net.Conn, reg *registry, t *connTrace) *Conn {
	c := &Conn{nc: nc, reg: reg, trace: t}
	c.SetMaxMessageSize(0)
	if s, ok := nc.(*netloop.Socket); ok {
		c.sock = s
		return c
	}
	if d := netloop.DescriptorOf(nc); d != nil {
		c.raw = &descriptor{Descriptor: *d}
	}
	c.read = new(reader)
	return c
}

func (c *Conn) connState() connState { return connState(c.state.Load()) }

// Messages returns an iterator over the messages to come, as ReadMessage returns
// them. The last pair holds the error that ended it; a deadline that passed ends
// the iteration too, and a new one may follow.
func (c *Conn) Messages() iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		for {
			t, p, err := c.ReadMessage()
			if !yield(Message{t, p}, err) || err != nil {
				return
			}
		}
	}
}

// Context returns a context that is done when the connection has ended; its
// cause, by context.Cause, is the *EndError. The request that OnOpen and a
// HandlerFunc get has a context which ends with it. Both have the values of the
// one that OnUpgrade saw. It is made when it is first asked for, so that a
// connection nobody asks costs nothing.
func (c *Conn) Context() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	x := c.details()
	if x.cancel == nil && c.connState() == stateClosed {
		c.mu.Unlock()
		c.rare().finishing.Lock() // the groups hear of it first
		c.rare().finishing.Unlock()
		c.mu.Lock()
	}
	if x.ctx == nil {
		x.ctx = context.Background()
	}
	if x.cancel == nil {
		x.ctx, x.cancel = context.WithCancelCause(x.ctx)
		if c.connState() == stateClosed {
			x.cancel(c.end)
		}
	}
	return x.ctx
}

// A connContext is Conn.Context for a request: made when somebody asks it.
type connContext struct{ c *Conn }

func (x connContext) Deadline() (deadline time.Time, ok bool) { return time.Time{}, false }
func (x connContext) Done() <-chan struct{}                   { return x.c.Context().Done() }
func (x connContext) Err() error                              { return x.c.Context().Err() }
func (x connContext) Value(key any) any                       { return x.c.Context().Value(key) }

// Subprotocol returns the subprotocol that was agreed on, "" for none.
func (c *Conn) Subprotocol() string {
	return c.known().subprotocol
}

// RTT returns the round trip of the last keep-alive ping that was answered, 0
// before the first. It is measured to the microsecond.
func (c *Conn) RTT() time.Duration { return time.Duration(c.clock.rtt.Load()) * time.Microsecond }

// LocalAddr returns the server's address of the connection.
func (c *Conn) LocalAddr() net.Addr { return c.nc.LocalAddr() }

// RemoteAddr returns the peer's address, or, behind a proxy that
// Server.ProxyProtocol names, that of the proxy's client.
func (c *Conn) RemoteAddr() net.Addr {
	if own := c.known().own; own != nil && own.from != nil {
		return own.from
	}
	return c.nc.RemoteAddr()
}

// NetConn returns the connection underneath, to set its options. It is what Accept
// returned or Upgrade was given, but for a socket of the event loop: that isn't a
// *net.TCPConn, and has the methods of one that set options, as SetNoDelay and
// SetReadBuffer, and SyscallConn. So assert an interface with the method that you
// need. Reading, writing or closing it breaks the framing; CloseNow is the way to
// cut it.
func (c *Conn) NetConn() net.Conn { return c.nc }

// SetMaxMessageSize limits the messages that come in from here on, in bytes,
// after inflating: a client that has logged in may send larger ones. It is
// MaxMessageSize of the Upgrader for this connection: 0 stands for that, a
// negative number for no limit. A message under way is held against it from its
// next frame on.
func (c *Conn) SetMaxMessageSize(n int64) {
	u := Upgrader{MaxMessageSize: cmp.Or(n, c.reg.u.MaxMessageSize)}
	c.limit.Store(u.maxMessageSize())
}

// maxMessageSize returns what SetMaxMessageSize has set.
func (c *Conn) maxMessageSize() uint64 { return c.limit.Load() }

// SetDeadline sets the read and the write deadline: see SetReadDeadline and
// SetWriteDeadline.
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline sets the time after which reads fail with an error that
// matches os.ErrDeadlineExceeded; the zero time means never. The connection
// stays usable: what had come of a message is kept, and the next read goes on
// with it. The *EndError of a connection that was cut for its silence matches that
// too: a loop that reads on behind deadlines looks for an *EndError first. A connection
// under Events ends when its read deadline passes, after the messages that had come
// whole; the peer is told 1001. Once the end has begun SetReadDeadline returns
// net.ErrClosed.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.connState() != stateOpen {
		return net.ErrClosed // the closing handshake has a time of its own
	}
	return c.nc.SetReadDeadline(t)
}

// A buffer is borrowed from a pool of its size: bytes [r, w) of b are pending.
type buffer struct {
	b    []byte
	r, w int
	lent bool // no pool's
}

const (
	stashSize = 256       // holds what is pending of a header or control frame
	smallSize = 4 << 10   // stays with a connection that can't wait without one
	batchSize = 16 << 10  // one read, one write
	drainSize = 128 << 10 // the most of a send queue that leaves in one write
	aheadSize = 64 << 10  // the most that is allocated ahead of what has come

	beyondLimit = 128 << 10 // of a message's buffer, over MaxMessageSize

	minBufferBits = 8
	maxBufferBits = 24 // larger ones are left to the garbage collector
)

var bufferPools [maxBufferBits + 1]sync.Pool

// getBuffer returns an empty buffer of at least n bytes, its size a power of two.
func getBuffer(n int) *buffer {
	bits := max(bitLen(n-1), minBufferBits)
	if bits > maxBufferBits {
		return &buffer{b: make([]byte, n)}
	}
	if b, ok := bufferPools[bits].Get().(*buffer); ok {
		return b
	}
	return &buffer{b: make([]byte, 1<<bits)}
}

func putBuffer(b *buffer) {
	bits := bitLen(len(b.b) - 1)
	if b.lent || bits > maxBufferBits || len(b.b) != 1<<bits {
		return
	}
	b.r, b.w = 0, 0
	bufferPools[bits].Put(b)
}

// free gives back the buffer that b points to, if it does to one.
func free(b **buffer) {
	if *b != nil {
		putBuffer(*b)
		*b = nil
	}
}

// pending returns the bytes that aren't used up, none without a buffer.
func (b *buffer) pending() []byte {
	if b == nil {
		return nil
	}
	return b.b[b.r:b.w]
}

// closeWriter is a TCP, unix or TLS connection whose sending half can be closed.
type closeWriter interface{ CloseWrite() error }

const (
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 4 << 20
)

// linger closes nc so that what was written last reaches the peer. A socket that
// is closed with unread bytes answers with a reset, which destroys what the peer
// has not read yet; so the sending half is closed, and what is in flight is read and
// thrown away (RFC 6455, section 7.1.1), here for lingerTime.
func (g *registry) linger(nc net.Conn) {
	if g.setDeadline(nc, net.Conn.SetDeadline, time.Now().Add(lingerTime)) == nil { // or it could be for ever
		g.closeSending(nc)
		g.discardUntilEnd(nc)
	}
	g.closeConn(nc)
}

// closeSending reports whether nc has half of it closed.
func (g *registry) closeSending(nc net.Conn) (half bool) {
	var err error
	defer g.caught(nc, &err)
	cw, ok := nc.(closeWriter)
	return ok && cw.CloseWrite() == nil
}

// discardUntilEnd throws away what comes, up to lingerBytes. Most who make it wait
// send nothing, so it holds little.
func (g *registry) discardUntilEnd(nc net.Conn) {
	b := getBuffer(smallSize)
	defer putBuffer(b)
	for left := lingerBytes; left > 0; {
		n, err := g.read(nc, b.b)
		if left -= n; err != nil {
			return
		}
	}
}

// streamEnd turns the end of the stream into the error of one without a
// closing handshake.
func streamEnd(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// ErrJSON is matched, through errors.Is, by the error of ReadJSON and WriteJSON
// whose document, and not whose connection, is at fault. It unwraps to
// encoding/json's too.
var ErrJSON = errors.New("websocket: JSON")

// ReadJSON reads the next message, of either type, as one document of JSON into
// v, by the rules of json.Unmarshal. When the document is wrong, or isn't one
// that v takes, the error matches ErrJSON, and the connection goes on with the
// next message. Other errors are those of ReadMessage. As that it isn't for
// Events: there json.Unmarshal takes what OnMessage gets.
func (c *Conn) ReadJSON(v any) error {
	_, p, err := c.ReadMessage()
	if err != nil {
		return err
	}
	if err := json.Unmarshal(p, v); err != nil {
		return fmt.Errorf("%w: %w", ErrJSON, err)
	}
	return nil
}

// WriteJSON sends v as a text message of JSON, by the rules of json.Marshal.
// Where v can't be one the error matches ErrJSON, and nothing was sent. Other
// errors are those of WriteMessage.
func (c *Conn) WriteJSON(v any) error {
	p, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrJSON, err)
	}
	return c.WriteMessage(TextMessage, p)
}
