package websocket

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"sync/atomic"

	"github.com/rawws/websocket/internal/deflate"
)

// A deflateState is what permessage-deflate is to a connection.
type deflateState struct {
	bits   int             // our back references reach at most 2^bits bytes
	window *deflate.Window // what the client sent; nil unless its context is kept
	memory int64           // that both contexts may take

	// Our context, nil unless it is kept. Messages are compressed in the order
	// in which they leave: guarded by write.mu.
	out *deflate.Compressor
}

// withoutContext are the states that connections without a context share, by
// the bits of our window: all that compression leaves with an idle one is a
// pointer.
var withoutContext [deflate.MaxBits + 1]deflateState

func init() {
	for bits := range withoutContext {
		withoutContext[bits].bits = bits
	}
}

// newDeflateState is for one connection.
func newDeflateState(p deflate.Params, level deflate.Level) *deflateState {
	if !p.ServerContext && !p.ClientContext {
		return &withoutContext[p.ServerBits]
	}
	d := &deflateState{bits: p.ServerBits, memory: p.Memory()}
	if p.ClientContext {
		d.window = deflate.NewWindow(p.ClientBits)
	}
	if p.ServerContext {
		d.out = deflate.NewCompressor(p.ServerBits, level)
	}
	return d
}

// count adds the memory that the contexts may take, or with -1 takes it away.
func (d *deflateState) count(sign int64) {
	if d != nil {
		contextMemory.Add(sign * d.memory)
	}
}

// deflate appends a piece of a message, compressed, to dst: what the pieces
// give, put one behind the other, is the payload. The last one, which may be
// empty, ends it (RFC 7692, section 7.2.1). Without a context the pieces don't
// refer to each other, so that nothing is held between two of them.
func (d *deflateState) deflate(dst, src []byte, level deflate.Level, last bool) []byte {
	switch {
	case len(src) == 0 && !last:
		return dst
	case d.out != nil:
		return d.out.Append(dst, src, last)
	}
	return deflate.Append(dst, src, d.bits, level, last)
}

// negotiateDeflate agrees to the first offer that can be kept in full.
func (a *answer) negotiateDeflate(r *http.Request, c *Compression) error {
	offers, err := parseExtensions(r.Header["Sec-Websocket-Extensions"])
	if err != nil {
		return err
	}
	params, answer, ok := deflate.Negotiate(offers, c.policy())
	if ok {
		a.deflate = newDeflateState(params, c.level())
		a.extensions = answer
	}
	return nil
}

// borrowInflated reads the rest of a compressed message and inflates it into a
// buffer on loan.
func (c *Conn) borrowInflated() ([]byte, error) {
	p, err := c.borrowPayload()
	if err != nil {
		return nil, err
	}
	// What compresses better than to an eighth is rare, or a bomb.
	b := getBuffer(max(int(min(8*uint64(len(p)), c.maxMessageSize())), smallSize))
	out, err := c.inflate(b, b.b[:0], p)
	if err != nil {
		putBuffer(b)
		return nil, err
	}
	c.read.msg = b
	return out, nil
}

// Grow makes b, whose bytes p are in use, larger. It takes a larger buffer's memory and
// leaves that its own: what a bomb inflates to isn't garbage.
func (b *buffer) Grow(p []byte, n int) []byte {
	size := len(p) + n
	var next *buffer
	if 1<<bitLen(size-1)-size <= beyondLimit {
		next = getBuffer(size)
	} else {
		next = &buffer{b: make([]byte, size)}
	}
	copy(next.b, p)
	b.b, next.b = next.b, b.b
	putBuffer(next)
	return b.b[:len(p)]
}

// inflate appends the message whose payload is p to dst, with more room from m if that
// isn't nil. The payload is gathered before any of it is inflated: bytes that a slow
// peer sends are cheap to keep, what inflates them isn't.
func (c *Conn) inflate(m deflate.Memory, dst, p []byte) ([]byte, error) {
	r := c.read
	limit := int(min(c.maxMessageSize(), math.MaxInt))
	out, err := deflate.DecompressInto(m, dst, p, c.deflate.window, limit)
	free(&r.msg)
	size := len(out) - len(dst)
	// Text that is wrong comes first, wherever the message breaks later.
	if r.opcode == opText && (!r.utf8.Write(out[len(dst):]) || err == nil && !r.utf8.Complete()) {
		err = errInflatedText
	}
	if err != nil {
		return dst, inflateError(err, limit)
	}
	c.received(uint64(size))
	n := c.reg.counters(c)
	n.deflatedIn.Add(r.size)
	n.inflatedIn.Add(uint64(size))
	return out, nil
}

var errInflatedText = errors.New("compressed text that isn't UTF-8")

// inflateError says what the peer did wrong.
func inflateError(err error, limit int) error {
	switch err {
	case deflate.ErrTooLong:
		return &ProtocolError{Code: CloseMessageTooBig, Reason: fmt.Sprintf("compressed message inflates to more than %d bytes", limit)}
	case errInflatedText:
		return &ProtocolError{Code: CloseInvalidPayload, Reason: err.Error(), Section: "RFC 6455, section 8.1"}
	case deflate.ErrCut:
		return &ProtocolError{Code: CloseInvalidPayload, Reason: "compressed message cut short", Section: "RFC 7692, section 7.2.1"}
	}
	return &ProtocolError{Code: CloseInvalidPayload, Reason: "compressed message that isn't one: " + err.Error(), Section: "RFC 7692, section 7.2.2"}
}

// writeDeflated is WriteMessage of a message that is worth compressing. With a
// context that waits for the message's turn, and always compresses it: the next
// one may refer to it.
func (c *Conn) writeDeflated(t MessageType, p []byte) error {
	b := getBuffer(max(len(p)/2, smallSize))
	defer putBuffer(b)
	d := c.deflate
	out, ok := p, true
	if d.out == nil {
		if out, ok = c.reg.u.Compression.compress(b.b[:0], p, d.bits); !ok {
			out = p
		}
	}
	if err := c.lockData(); err != nil {
		return err
	}
	if d.out != nil {
		out = d.out.Append(b.b[:0], p, true)
	}
	err := c.writeFrame(header{fin: true, rsv1: ok, opcode: opcode(t), length: uint64(len(out))}, out)
	c.wrote(err, len(p))
	if ok && err == nil {
		c.countDeflated(len(out), len(p))
	}
	c.unlockWrite()
	return err
}

func (c *Conn) countDeflated(after, before int) {
	n := c.reg.counters(c)
	n.deflatedOut.Add(uint64(after))
	n.inflatedOut.Add(uint64(before))
}

// A deflatedFrame is a prepared message as it goes to the connections with the
// same setting.
type deflatedFrame struct {
	level deflate.Level
	bits  int
	frame []byte
}

// frameOf returns the message as the connection sends it. It is compressed
// once for each setting, when the first connection with that needs it.
func (c *Conn) frameOf(m *PreparedMessage) []byte {
	if c.deflate == nil || len(m.payload) < c.reg.u.Compression.threshold() {
		return m.frame
	}
	level, bits := c.reg.u.Compression.level(), c.deflate.bits
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range m.deflated {
		if d.level == level && d.bits == bits {
			return d.frame
		}
	}
	d := deflatedFrame{level, bits, m.frame}
	if out, ok := c.reg.u.Compression.compress(nil, m.payload, bits); ok {
		h := header{fin: true, rsv1: true, opcode: opcode(m.t), length: uint64(len(out))}
		d.frame = append(appendHeader(make([]byte, 0, maxHeaderLen+len(out)), h), out...)
	}
	m.deflated = append(m.deflated, d)
	return d.frame
}

// sendingFrame is called for a frame that frameOf gave, when its turn has come:
// compressed without our context, it becomes part of it.
func (c *Conn) sendingFrame(m *PreparedMessage, frame []byte) {
	if d := c.deflate; d != nil && d.out != nil && frame[0]&bitRSV1 != 0 {
		d.out.Sent(m.payload)
	}
}

// frameSize is what NextWriter gathers for one frame.
func (c *Conn) frameSize() int {
	if c.deflate != nil {
		return c.reg.u.Compression.frameSize()
	}
	return batchSize
}

// Compression sets how messages are compressed with permessage-deflate
// (RFC 7692) on connections whose client offers it. The zero value is a good
// choice. A Compression may be shared; nothing is ever written to it.
//
// A client's messages may refer to its earlier ones, which makes small messages
// that resemble each other much smaller: a connection keeps what its client
// sent last, at most 32 KiB and no more than there was. The server's messages
// refer to earlier ones with ServerContext. These contexts live as long as the
// connection, since the protocol has no word to give one up with. What compresses
// and decompresses a message is pooled, and nothing else stays with an idle
// connection.
//
// A client's message can grow a thousandfold: MaxMessageSize counts the
// inflated bytes.
type Compression struct {
	// Level says how much time goes into compressing: 1, fast, or 2, which takes
	// about twice the time and saves a few percent more. 0 stands for 1; what
	// lies outside is taken for the nearest that doesn't.
	Level int

	// Threshold is the length in bytes from which on a message is compressed, if
	// that makes it shorter. 0 stands for 512, below which headers and CPU time
	// outweigh the gain; a negative number compresses all messages, those that
	// don't shrink too.
	Threshold int

	// ServerContext lets the server's messages refer to its earlier ones, where
	// the client allows it. It costs each connection a window and a table: 12 KiB
	// from the first message on, 64 KiB with a WindowBits of 15. It is for many
	// small messages of WriteMessage that resemble each other. A PreparedMessage
	// is compressed once for all connections, and refers to nothing.
	ServerContext bool

	// WindowBits bounds how far back messages refer, to 2^WindowBits bytes: 8 to
	// 15. 0 stands for 15, and with ServerContext for 12, 4 KiB: small messages
	// gain little from more, and with thousands of connections windows of 32 KiB
	// are in no cache. A client's window is bounded only if it offers
	// client_max_window_bits, as browsers do, and not below 9.
	WindowBits int

	// ContextMemory bounds what the contexts of all connections of the process
	// may take, in bytes. 0 stands for 512 MiB, which is 16,384 clients with
	// windows of 32 KiB. Once that much is promised, new connections keep none,
	// neither of the server's nor of the client's: a client that doesn't offer
	// to do without its context gets no compression. With a negative number none
	// are kept, and clients are told so, which some don't follow: Netty's refuses
	// the answer; Tornado 6 and Mojolicious keep their context all the same, and
	// are closed with 1007.
	ContextMemory int64

	// FrameSize is the number of bytes of a message, before compression, that
	// a writer got from Conn.NextWriter gathers for one frame. It takes as much
	// memory, and as much again while it compresses. 0 stands for 32 KiB, the
	// largest window there is: without ServerContext frames don't refer to each
	// other. More than 16 MiB count as 16 MiB.
	FrameSize int
}

const (
	defaultThreshold     = 512
	defaultFrameSize     = 32 << 10
	maxFrameSize         = 1 << maxBufferBits // a writer has a buffer of that size
	defaultContextMemory = 512 << 20
	contextBits          = 12 // the window that ServerContext has by default
)

func (c *Compression) level() deflate.Level {
	if c.Level <= 1 {
		return deflate.Fast
	}
	return deflate.Better
}

func (c *Compression) threshold() int {
	if c.Threshold == 0 {
		return defaultThreshold
	}
	return max(c.Threshold, 0)
}

// windowBits is for windows of which the server's is kept, or isn't.
func (c *Compression) windowBits(kept bool) int {
	switch {
	case c.WindowBits == 0 && kept:
		return contextBits
	case c.WindowBits == 0:
		return deflate.MaxBits
	}
	return min(max(c.WindowBits, deflate.MinBits), deflate.MaxBits)
}

func (c *Compression) frameSize() int {
	if c.FrameSize <= 0 {
		return defaultFrameSize
	}
	return min(c.FrameSize, maxFrameSize)
}

// contextMemory is what the contexts of all open connections may take.
var contextMemory atomic.Int64

// policy is for the next connection.
func (c *Compression) policy() deflate.Policy {
	p := deflate.Policy{Tell: c.ContextMemory < 0}
	limit := c.ContextMemory
	if limit == 0 {
		limit = defaultContextMemory
	}
	if contextMemory.Load() < limit {
		p.ClientContext, p.ServerContext = true, c.ServerContext
	}
	p.Bits = c.windowBits(p.ServerContext)
	return p
}

// compress appends the payload of a whole message to dst, whose length Threshold
// allows. ok is false, and dst
// as it was, if the message is better sent as it is.
func (c *Compression) compress(dst, src []byte, bits int) (out []byte, ok bool) {
	out = deflate.Append(dst, src, bits, c.level(), true)
	if c.Threshold >= 0 && len(out)-len(dst) >= len(src) {
		return out[:len(dst)], false
	}
	return out, true
}

// compressedLimit bounds the payload of a message whose inflated bytes are
// limited. A lawful sender may flush often and compress badly, but nobody has
// to receive empty blocks without end.
func compressedLimit(limit uint64) uint64 {
	if limit >= 1<<61 {
		return 1<<63 - 1 // no message is longer
	}
	return 2*limit + 1024
}
