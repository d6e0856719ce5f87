package websocket

import (
	"errors"
	"net"
	"slices"
	"time"

	"github.com/rawws/websocket/internal/netloop"
	"github.com/rawws/websocket/internal/utf8x"
)

// A reader is the receiving half of a connection. It is a pull parser: what it
// knows between two calls is the frame under way and how much of it has come.
type reader struct {
	in  *buffer // what has come and isn't used up; nil when that is nothing
	msg *buffer // a message that didn't lie in one piece in in: on loan to OnMessage, or interrupted by a deadline

	left   uint64         // bytes of the payload of the frame under way that aren't consumed yet
	size   uint64         // of the message's payload, as declared so far
	stream *messageReader // the one that NextReader returned for the message

	got       int16 // what tryRead found
	seen      int16 // bytes behind in.r that are unmasked and checked in place
	fragments int32 // of the message under way

	key        [4]byte         // of the frame under way
	pos        uint8           // in the key
	fin        bool            // it is the message's last
	opcode     opcode          // of the message under way
	empties    uint8           // frames of it in a row without a byte
	started    bool            // a data frame was read whose message isn't handed over yet
	compressed bool            // RSV1 was set on its first frame
	turnOver   bool            // there is more to read, after the others
	reads      uint8           // since Ready was called
	utf8       utf8x.Validator // of a text message
}

// idle reports whether r knows nothing that the next bytes depend on.
func (r *reader) idle() bool {
	return r.in == nil && r.msg == nil && !r.started && r.stream == nil
}

// ReadMessage reads the next message, whatever its number of fragments. The
// caller owns the bytes. Text was found to be UTF-8 (RFC 6455, section 8.1). It is
// for a HandlerFunc, and for who called Upgrade: under Events OnMessage gets the
// messages, and ReadMessage returns an error.
//
// The error is an *EndError once the connection has ended, and the same one
// from then on. After Close it throws away what still comes, until the end.
// See SetReadDeadline for the one error after which reading may go on.
func (c *Conn) ReadMessage() (MessageType, []byte, error) { return c.AppendMessage(nil) }

// AppendMessage is ReadMessage into the caller's buffer: the message is appended
// to dst, which is returned unchanged with an error. It allocates only when dst
// is too small.
func (c *Conn) AppendMessage(dst []byte) (MessageType, []byte, error) {
	if c.eventsReads() {
		return 0, dst, c.eventsRead()
	}
	c.lockReading()
	defer c.reading.Unlock()
	c.startRead()
	t, p, err := c.appendMessage(dst)
	c.read.release()
	if err != nil {
		return 0, dst, c.readFailed(err)
	}
	c.endRead()
	return t, p, nil
}

// errEventsRead is what a read gets where Events reads: it would wait for the
// callback that calls it, or take a message from OnMessage.
var errEventsRead = errors.New("websocket: read of a connection that Events serves: OnMessage gets its messages")

// eventsReads reports whether Events serves the connection, a Server's or one whose
// ServeWebSocket was called.
func (c *Conn) eventsReads() bool { return c.clock.handling.Load() == handlerEvents }

func (c *Conn) eventsRead() error {
	if c.connState() == stateClosed {
		return c.endError()
	}
	return errEventsRead
}

func (c *Conn) appendMessage(dst []byte) (MessageType, []byte, error) {
	r := c.read
	if err := c.beginMessage(); err != nil {
		return 0, nil, err
	}
	if r.compressed || r.msg != nil { // which a deadline had interrupted
		p, err := c.borrowPayload()
		if err == nil && r.compressed {
			dst, err = c.inflate(nil, dst, p)
		} else if err == nil {
			dst = append(dst, p...)
			free(&r.msg)
		}
		return MessageType(r.opcode), dst, err
	}
	p, ok, err := c.messageInPlace()
	if err != nil {
		return 0, nil, err
	}
	if ok {
		return MessageType(r.opcode), append(dst, p...), nil
	}
	base := len(dst)
	dst, err = c.assemble(dst, base, growSlice)
	if came := dst[base:]; len(came) > 0 && err != nil && isTimeout(err) {
		// Deadlines that pass, one for each byte, must not cost a copy each.
		c.growPooled(nil, len(came))
		r.msg.w = copy(r.msg.b, came)
	}
	return MessageType(r.opcode), dst, err
}

// borrowMessage is appendMessage without the copy: the bytes are valid until
// the next read. A message that lies whole in the read buffer is unmasked there.
func (c *Conn) borrowMessage() (MessageType, []byte, error) {
	r := c.read
	if !r.started {
		free(&r.msg)
	}
	if err := c.beginMessage(); err != nil {
		return 0, nil, err
	}
	if r.compressed {
		p, err := c.borrowInflated()
		return MessageType(r.opcode), p, err
	}
	p, err := c.borrowPayload()
	return MessageType(r.opcode), p, err
}

// borrowPayload returns the payload of the message: where it lies, or put together
// in r.msg. What had come of it when a deadline passed is kept there: deadlines that
// pass, one for each byte, must not cost a copy each.
func (c *Conn) borrowPayload() ([]byte, error) {
	p, ok, err := c.messageInPlace()
	if ok || err != nil {
		return p, err
	}
	r := c.read
	p, err = c.assemble(r.msg.pending(), 0, c.growPooled)
	if err != nil && r.msg != nil {
		r.msg.w = len(p)
	}
	return p, err
}

// wholeMessage is borrowMessage for what most messages are: one frame of less
// than 64 KiB that lies whole in the buffer, with nothing wrong about it.
// Whatever else it finds, faults among it, it leaves as it was.
func (c *Conn) wholeMessage() (t MessageType, p []byte, ok bool) {
	r := c.read
	b := r.in.pending()
	if len(b) < 6 || b[1] < bitMASK || r.started || c.trace != nil || c.connState() != stateOpen {
		return 0, nil, false
	}
	switch b[0] {
	case bitFIN | byte(opText), bitFIN | byte(opBinary):
	default:
		return 0, nil, false
	}
	n, head := int(b[1]-bitMASK), 6
	if n == 126 {
		n, head = int(b[2])<<8|int(b[3]), 8
		if n < 126 {
			return 0, nil, false
		}
	}
	if b[1] == bitMASK|127 || head+n > len(b) || uint64(n) > c.maxMessageSize() {
		return 0, nil, false
	}
	key := [4]byte(b[head-4:])
	p = b[head : head+n : head+n]
	mask(p, key, 0)
	if t = MessageType(b[0] - bitFIN); t == TextMessage {
		var v utf8x.Validator
		if !v.Write(p) || !v.Complete() {
			mask(p, key, 0)
			return 0, nil, false
		}
	}
	r.in.r += head + n
	c.touchMessage()
	c.received(uint64(n))
	return t, p, true
}

// beginMessage reads up to the payload of a message's first frame, or finds
// that a message is under way, which a deadline had interrupted.
func (c *Conn) beginMessage() error {
	r := c.read
	if c.connState() == stateClosed {
		return net.ErrClosed // what was half read when the end came stays so
	}
	// What skipFrame left while the connection closes may not be looked at.
	if r.stream != nil || r.started && c.connState() == stateClosing {
		r.stream = skipping // a deadline may stop it half way
		if err := c.skipMessage(); err != nil {
			return err
		}
	}
	if r.started {
		return nil
	}
	return c.nextFrame()
}

// nextFrame reads the header of the next data frame and serves the control
// frames before it.
func (c *Conn) nextFrame() error {
	r := c.read
	for {
		h, err := c.readHeader()
		if err != nil {
			return err
		}
		if h.opcode.control() {
			if err := c.readControl(h); err != nil {
				return err
			}
			continue
		}
		if err := c.startFrame(h); err != nil {
			c.trace.frameSkipped(err)
			return err
		}
		if c.connState() == stateOpen {
			return nil
		}
		// Section 5.5.1: after our close frame nothing that comes matters but
		// the peer's.
		if err := c.skipFrame(); err != nil {
			return err
		}
		if r.started = !h.fin; h.fin {
			c.messageEnded()
		}
	}
}

// readHeader reads a header, and of a control frame the payload too: it stays
// in the buffer, so that nothing is half read when a deadline passes.
func (c *Conn) readHeader() (header, error) {
	r := c.read
	for {
		if r.in != nil && r.in.w-r.in.r >= 2 {
			b := r.in.pending()
			h, n, err := parseHeader(b)
			if err != nil { // what the first two bytes say comes first, however many have come
				h, _, _ = parseHeader(b[:2])
			}
			if wrong := checkHeader(h, r.started, c.deflate != nil); wrong != nil {
				err = wrong
			}
			if err != nil {
				c.trace.frameRefused(b, err)
				return h, err
			}
			if n > 0 && (!h.opcode.control() || uint64(len(b)-n) >= h.length) {
				r.in.r += n
				return h, nil
			}
		}
		if err := c.fill(); err != nil {
			return header{}, err
		}
	}
}

// startFrame holds a data frame against the limits, before any of its payload
// is stored.
func (c *Conn) startFrame(h header) error {
	r := c.read
	r.key, r.fin, r.left, r.pos, r.seen = h.key, h.fin, h.length, 0, 0
	c.trace.frameStarted(h)
	c.touchMessage()
	if h.opcode != opContinuation {
		r.started, r.opcode, r.compressed = true, h.opcode, h.rsv1
		r.utf8 = utf8x.Validator{}
		r.fragments, r.empties, r.size = 0, 0, 0
		c.messageBegun()
	}
	r.fragments++
	if int(r.fragments) > c.reg.u.maxFragments() {
		return &ProtocolError{ClosePolicyViolation, "message of too many fragments", ""}
	}
	// Each empty fragment costs the peer six bytes and us a turn of the loop.
	if r.empties++; h.length > 0 || h.fin {
		r.empties = 0
	} else if r.empties > maxEmptyFragments {
		return &ProtocolError{ClosePolicyViolation, "too many empty fragments in a row", ""}
	}
	// Neither side of the comparison can overflow: both are below 2^63.
	limit := c.maxMessageSize()
	if r.compressed {
		limit = compressedLimit(limit)
	}
	if r.size += h.length; r.size > limit {
		return tooBig(c.maxMessageSize())
	}
	if h.length == 0 && c.trace != nil {
		c.trace.payloadRead(r, nil, nil)
	}
	return nil
}

// readControl serves the control frame whose payload lies in the buffer.
func (c *Conn) readControl(h header) error {
	r := c.read
	p := r.in.b[r.in.r : r.in.r+int(h.length)]
	mask(p, h.key, 0)
	r.in.r += len(p)
	if c.trace != nil {
		c.trace.controlRead(h, p)
	}
	if h.opcode != opClose && c.tooManyControls() {
		return &ProtocolError{ClosePolicyViolation, "more pings and pongs in a second than MaxControlRate", ""}
	}
	switch h.opcode {
	case opPing:
		c.reg.counters(c).pingsIn.Add(1)
		c.answerPing(p)
	case opPong:
		c.reg.counters(c).pongsIn.Add(1)
		c.clock.pong(p, &c.reg.total)
	default:
		return c.peerClosed(p)
	}
	return nil
}

// tooManyControls counts a ping or pong.
func (c *Conn) tooManyControls() bool {
	// The registry's time stands still between ticks, which would cut a second
	// short. Milliseconds come around after 49 days, and one second too long.
	if now := uint32(monotonic() / int64(time.Millisecond)); now-c.controlAt >= 1000 {
		c.controlAt, c.controls = now, 0
	}
	c.controls++
	return int64(c.controls) > int64(c.reg.u.maxControlRate())
}

// messageInPlace waits for an unfragmented message that fits the read buffer
// and returns it where it lies; ok is false for any other. On the loop a message
// that isn't whole yet doesn't lie in the worker's buffer until it is.
func (c *Conn) messageInPlace() (p []byte, ok bool, err error) {
	r := c.read
	if !r.fin || r.fragments != 1 || r.msg != nil {
		return nil, false, nil
	}
	c.large = c.sock != nil && r.left > uint64(len(r.in.b))
	if r.in == nil || r.left > uint64(c.bufferSize()) {
		if r.left == 0 {
			return nil, true, c.endMessage()
		}
		return nil, false, nil
	}
	size := int(r.left)
	for r.in.w-r.in.r < size {
		if c.sock == nil {
			came := r.in.pending()
			if err := c.checkPayload(came[r.seen:]); err != nil {
				return nil, false, err
			}
			r.seen = int16(len(came))
		}
		if err := c.fill(); err == netloop.ErrWait {
			return nil, false, nil
		} else if err != nil {
			return nil, false, err
		}
		c.touchMessage()
	}
	p = r.in.b[r.in.r : r.in.r+size : r.in.r+size]
	if err := c.checkPayload(p[r.seen:]); err != nil {
		return nil, false, err
	}
	r.in.r += size
	r.left = 0
	return p, true, c.endMessage()
}

// checkPayload unmasks p, the next bytes of the frame's payload, and of text
// finds the first byte that can't be UTF-8, long before the frame is whole.
func (c *Conn) checkPayload(p []byte) error {
	r := c.read
	r.pos = uint8(mask(p, r.key, int(r.pos)))
	var err error
	if r.opcode == opText && !r.compressed && !r.utf8.Write(p) {
		err = errNotUTF8
	}
	if c.trace != nil && len(p) > 0 {
		c.trace.payloadRead(r, p, err)
	}
	return err
}

// endMessage hands the message over, if its text doesn't stop inside a rune.
func (c *Conn) endMessage() error {
	r := c.read
	r.started, r.stream = false, nil
	c.messageEnded()
	if r.compressed {
		return nil // what counts is what it inflates to
	}
	if r.opcode == opText && !r.utf8.Complete() {
		return errNotUTF8
	}
	c.received(r.size)
	return nil
}

// received counts a message of n bytes.
func (c *Conn) received(n uint64) {
	count := c.reg.counters(c)
	count.messagesIn.Add(1)
	count.bytesIn.Add(n)
}

// A growFunc makes room for at least n bytes behind b.
type growFunc func(b []byte, n int) []byte

func growSlice(b []byte, n int) []byte { return slices.Grow(b, n) }

// growPooled is a growFunc whose memory is that of r.msg. The pools' sizes are
// powers of two; where that would go far beyond the largest message there can
// be, or there is no such pool, a buffer is made that no pool takes back. It is
// twice as large as the one before if it may be: fragments of one byte must not
// cost a copy each.
func (c *Conn) growPooled(b []byte, n int) []byte {
	if cap(b)-len(b) >= n {
		return b
	}
	var next *buffer
	size, most := uint64(len(b)+n), c.maxMessageSize()
	if bits := bitLen(len(b) + n - 1); bits > maxBufferBits || uint64(1)<<bits > most+beyondLimit {
		if size > most { // it is compressed
			most = compressedLimit(most)
		}
		next = &buffer{b: make([]byte, max(size, min(2*uint64(len(b)), most)))}
	} else {
		next = getBuffer(len(b) + n)
	}
	b = append(next.b[:0], b...)
	free(&c.read.msg)
	c.read.msg = next
	return b
}

// assemble appends the rest of the message under way to dst, whose bytes from
// base on are its beginning. Room is made for 64 KiB ahead of what has come,
// or for three times as much again: a length that was only declared costs
// nothing, and little is copied.
func (c *Conn) assemble(dst []byte, base int, grow growFunc) ([]byte, error) {
	r := c.read
	for {
		for r.left > 0 {
			if len(dst) == cap(dst) || uint64(cap(dst)-len(dst)) < min(r.left, smallSize) {
				ahead := max(aheadSize, 3*(len(dst)-base))
				if c.sock != nil && r.left > uint64(ahead) {
					ahead = max(ahead, c.sock.Arrived())
				}
				dst = grow(dst, int(min(r.left, uint64(ahead))))
			}
			n, err := c.readPayload(dst[len(dst):cap(dst)])
			dst = dst[:len(dst)+n]
			if err != nil {
				return dst, err
			}
		}
		if r.fin {
			return dst, c.endMessage()
		}
		if err := c.nextFrame(); err != nil {
			return dst, err
		}
	}
}

// readPayload reads into p the next bytes of the frame under way, at least one.
// What isn't buffered yet goes straight into a p that is large enough to be
// worth a system call of its own.
func (c *Conn) readPayload(p []byte) (int, error) {
	r := c.read
	if uint64(len(p)) > r.left {
		p = p[:r.left]
	}
	n := 0
	if !r.pending() && len(p) > smallSize {
		c.uncork()
		r.release() // p is held while this waits, and that is enough
		c.startWait()
		var err error
		if c.sock != nil {
			n, err = c.tryReadLoop(p)
		} else {
			n, err = c.reg.read(c.nc, p)
		}
		c.stopWait(err)
		if n == 0 {
			return 0, err
		}
		c.touchReceived(n)
	} else {
		if !r.pending() {
			if err := c.fill(); err != nil {
				return 0, err
			}
		}
		n = copy(p, r.in.pending())
		r.in.r += n
	}
	r.left -= uint64(n)
	c.touchMessage()
	return n, c.checkPayload(p[:n])
}

// skipFrame throws away what is left of the frame under way.
func (c *Conn) skipFrame() error {
	r := c.read
	r.seen = 0
	if r.left > 0 {
		c.trace.frameSkipped(nil)
	}
	for r.left > 0 {
		if !r.pending() {
			if err := c.fill(); err != nil {
				return err
			}
		}
		n := int(min(r.left, uint64(r.in.w-r.in.r)))
		r.in.r += n
		r.left -= uint64(n)
	}
	return nil
}

// skipMessage throws away what is left of the message under way.
func (c *Conn) skipMessage() error {
	r := c.read
	for {
		if err := c.skipFrame(); err != nil {
			return err
		}
		if r.fin {
			r.started, r.stream = false, nil
			c.messageEnded()
			return nil
		}
		if err := c.nextFrame(); err != nil {
			return err
		}
	}
}

// pending reports whether bytes have come that aren't used up.
func (r *reader) pending() bool { return r.in != nil && r.in.r < r.in.w }

// drop gives all memory back at the end of the connection.
func (r *reader) drop() {
	free(&r.msg)
	free(&r.in)
}

// buffered reports whether a whole frame lies unread in the buffer.
func (c *Conn) buffered() bool {
	in := c.read.in
	if in == nil || in.w-in.r < 2 {
		return false
	}
	b := in.pending()
	if n := int(b[1] &^ bitMASK); n <= 125 {
		return 6+n <= len(b)
	}
	h, n, err := parseHeader(b)
	return err == nil && n > 0 && h.length <= uint64(len(b)-n)
}
