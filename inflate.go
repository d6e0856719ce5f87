package websocket

import (
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
)

// A payloadSource gives the rest of a compressed message piece by piece, over
// all its frames, unmasked. What it returns is valid until the next call.
// io.EOF comes after the last piece, alone; any other error ends the message.
type payloadSource interface {
	nextPayload() ([]byte, error)
}

// An inflation is what it takes to inflate one message.
type inflation struct {
	payload []byte           // the part of the payload that is at hand
	src     payloadSource    // where the rest comes from; nil if that was all
	limit   int              // in inflated bytes; negative for none
	text    *utf8Validator   // of a text message, else nil
	window  *inflationWindow // of the connection, else nil
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

// appendTo appends the inflated message to dst. An error is the source's own,
// or a *ProtocolError with 1007 or 1009; what was appended is then of no use.
func (m inflation) appendTo(dst []byte) ([]byte, error) {
	if m.src != nil && tryStream() {
		defer func() { <-streaming }()
	} else {
		if err := m.gather(); err != nil {
			return dst, err
		}
		inflaters.slots <- struct{}{}
		defer func() { <-inflaters.slots }()
	}
	in := takeInflater(m)
	defer in.giveBack()
	return in.appendTo(dst)
}

// gather makes all of the payload be at hand.
func (m *inflation) gather() error {
	if m.src == nil {
		return nil
	}
	var all []byte
	f := newFeed(*m)
	err := f.more()
	for ; err == nil; err = f.more() {
		all = append(all, f.chunk[f.pos:]...)
		f.pos = len(f.chunk)
	}
	m.payload, m.src = all, nil
	if err != io.EOF {
		return err
	}
	return nil
}

// reader is for an application that takes the inflated message piece by piece,
// as slowly as it likes. It must be closed, read to its end or not.
func (m inflation) reader() *inflateReader {
	if tryStream() {
		return &inflateReader{in: takeInflater(m)}
	}
	all, err := m.appendTo(nil)
	if err != nil {
		return &inflateReader{err: err}
	}
	return &inflateReader{rest: all, err: io.EOF}
}

// An inflateReader reads from an inflater, or, when there were too many of
// these, what was inflated in one go.
type inflateReader struct {
	in   *inflater
	rest []byte
	err  error // behind the rest
}

// Read returns the errors of appendTo, and io.EOF with or after the last bytes.
func (r *inflateReader) Read(b []byte) (n int, err error) {
	if len(b) == 0 {
		return 0, nil
	}
	if r.in != nil {
		if n, err = r.in.read(b); err != nil {
			r.err = err
			r.close()
		}
		return n, err
	}
	if len(r.rest) == 0 {
		return 0, r.err
	}
	n = copy(b, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// close gives back what the reader holds. It may be called again.
func (r *inflateReader) close() {
	if r.err == nil || len(r.rest) > 0 {
		r.err, r.rest = errInflateClosed, nil
	}
	if r.in != nil {
		r.in.giveBack()
		r.in = nil
		<-streaming
	}
}

var errInflateClosed = errors.New("websocket: read from a message that was left")

// The inflaters in the slots have their message in memory, so that waiting for
// a slot is waiting for a computation. Those in streaming wait for peers or for
// the application, which is why nobody waits for them: 256 stalled messages
// would stop all the others. 32 are kept between messages.
var (
	inflaters = newSlotted[*inflater](runtime.GOMAXPROCS(0), 32+runtime.GOMAXPROCS(0))
	streaming = make(chan struct{}, 256)
)

func tryStream() bool {
	select {
	case streaming <- struct{}{}:
		return true
	default:
		return false
	}
}

// An inflater takes one message after the other out of its payload.
type inflater struct {
	inflation
	feed  feed
	fr    flateReader // reads from feed
	n     int         // bytes that came out
	probe [1]byte     // looks for more when there is no room for it
}

type flateReader interface {
	io.Reader
	flate.Resetter
}

func takeInflater(m inflation) *inflater {
	in, ok := inflaters.pop(func(*inflater) bool { return true })
	if !ok {
		in = new(inflater)
		in.fr = flate.NewReader(&in.feed).(flateReader)
	}
	in.inflation, in.feed, in.n = m, newFeed(m), 0
	if m.window != nil {
		in.reset(m.window.bytes())
	} else {
		in.reset(nil)
	}
	return in
}

// reset begins a stream of blocks. flate copies the dictionary, and has no
// error to report.
func (in *inflater) reset(dict []byte) { _ = in.fr.Reset(&in.feed, dict) }

// giveBack lets go of all that belongs to the message.
func (in *inflater) giveBack() {
	in.inflation, in.feed = inflation{}, feed{}
	inflaters.push(in)
}

// appendTo hands flate all the room there is, as it tells the end together
// with the last bytes if they fit; a full buffer is grown only when a byte
// more is there.
func (in *inflater) appendTo(dst []byte) ([]byte, error) {
	for start := len(dst); ; {
		room := dst[len(dst):cap(dst)]
		full := len(room) == 0
		if full {
			room = in.probe[:]
		}
		n, err := in.read(room)
		switch {
		case !full:
			dst = dst[:len(dst)+n]
		case n > 0:
			dst = append(in.grow(dst, len(dst)-start), in.probe[0])
		}
		if err == io.EOF {
			return dst, nil
		}
		if err != nil {
			return dst, err
		}
	}
}

// grow doubles the room, beginning with a guess, but not beyond the limit. The
// byte in probe is already counted.
func (in *inflater) grow(dst []byte, length int) []byte {
	n := max(512, min(4*len(in.payload), 64<<10), length)
	if in.limit >= 0 {
		n = min(n, in.limit-in.n+1)
	}
	// Exactly, unlike slices.Grow: the limit is what a bomb may cost.
	return append(make([]byte, 0, len(dst)+n), dst...)
}

// read gives what comes next, checked, and io.EOF with or after the last of it.
func (in *inflater) read(b []byte) (int, error) {
	atLimit := in.n == in.limit
	if atLimit {
		b = in.probe[:]
	} else if in.limit >= 0 {
		b = b[:min(len(b), in.limit-in.n)]
	}
	n, err := in.inflate(b)
	if atLimit && n > 0 {
		return 0, errInflatedTooBig(in.limit)
	}
	in.n += n
	if in.text != nil && (!in.text.write(b[:n]) || err == io.EOF && !in.text.complete()) {
		return 0, errInflatedText()
	}
	if in.window != nil {
		in.window.add(b[:n])
	}
	return n, err
}

// inflate goes on over final blocks: a sender may use them anywhere in a
// message (RFC 7692, section 7.2.1). Behind one begins a stream of its own,
// which refers to nothing before it.
func (in *inflater) inflate(b []byte) (n int, err error) {
	for n == 0 && err == nil {
		n, err = in.fr.Read(b)
		switch {
		case in.feed.mark == markGiven: // and taken for data
			return 0, errInflateCut()
		case err == io.EOF:
			if err = in.feed.more(); err == io.EOF {
				return 0, errInflateCut() // the empty block is missing
			}
			in.reset(nil)
		case err == errMark:
			return n, io.EOF
		}
	}
	switch err.(type) {
	case nil:
		return n, nil
	case flate.CorruptInputError, flate.InternalError:
		return 0, errInflateCorrupt(err)
	}
	return 0, err
}

// A feed is what a flate.Reader reads the payload from: byte by byte, as it
// never takes more than it needs from what is an io.ByteReader.
//
// Behind the payload a mark tells whether the stream ends there as it must. It
// does if an empty stored block begins in its last byte, the length of which,
// 00 00 ff ff, was left out (RFC 7692, section 7.2.1). Simply adding these four
// doesn't tell: in a message that was cut they may well be taken for data or
// for Huffman codes. The mark is the length 01 00 fe ff instead, of a block of
// one byte that never comes. A flate.Reader asks for a length with a Read of
// four bytes, for codes with ReadByte, and for data with a Read of what is
// missing: only who takes the mark for a length asks for one byte next, before
// it has given anything out.
type feed struct {
	chunk []byte
	pos   int
	src   payloadSource // nil once it is used up
	taken uint64        // bytes of the payload, chunk included
	limit int           // of the inflated bytes
	mark  markState
}

type markState uint8

const (
	markWaits markState = iota
	markGiven
	markFound // as it should be
)

const lengthMark = "\x01\x00\xfe\xff"

// errMark is what flate reports where a message ends well.
var errMark = errors.New("websocket: end of a compressed message")

func newFeed(m inflation) feed {
	return feed{chunk: m.payload, src: m.src, taken: uint64(len(m.payload)), limit: m.limit}
}

// more makes sure that there is a byte to read; io.EOF if there will be none.
func (f *feed) more() error {
	for f.pos == len(f.chunk) {
		if f.src == nil {
			return io.EOF
		}
		chunk, err := f.src.nextPayload()
		if err != nil {
			f.chunk, f.pos, f.src = nil, 0, nil
			return err
		}
		f.chunk, f.pos = chunk, 0
		f.taken += uint64(len(chunk))
		if f.limit >= 0 && f.taken > compressedLimit(uint64(f.limit)) {
			return errDeflatedTooBig(f.limit)
		}
	}
	return nil
}

func (f *feed) ReadByte() (byte, error) {
	if f.pos == len(f.chunk) {
		if err := f.more(); err == io.EOF {
			return 0, errInflateCut()
		} else if err != nil {
			return 0, err
		}
	}
	c := f.chunk[f.pos]
	f.pos++
	return c, nil
}

func (f *feed) Read(b []byte) (int, error) {
	err := f.more()
	switch {
	case err == nil:
		n := copy(b, f.chunk[f.pos:])
		f.pos += n
		return n, nil
	case err != io.EOF:
		return 0, err
	case f.mark == markWaits && len(b) == len(lengthMark):
		f.mark = markGiven
		return copy(b, lengthMark), nil
	case f.mark == markGiven && len(b) == 1:
		f.mark = markFound
		return 0, errMark
	}
	return 0, errInflateCut()
}

// flateReadsAsExpected guards against a standard library whose flate.Reader
// asks in another way than feed relies on: no compression is better than
// messages refused.
var flateReadsAsExpected = sync.OnceValue(func() bool {
	hello := []byte("\xf2\x48\xcd\xc9\xc9\x07\x00") // RFC 7692, section 7.2.3.1
	got, err := inflation{payload: hello, limit: 5}.appendTo(nil)
	return err == nil && string(got) == "Hello"
})

// An inflationWindow holds the end of what a client sent, for its next message
// to refer to (RFC 7692, section 7.1.1.2). It takes an eighth more than it has
// to, so that not every message moves all of it.
type inflationWindow struct {
	size int
	b    []byte
}

// newWindow is for one connection; nil if the client's context isn't kept.
func (p deflateParams) newWindow() *inflationWindow {
	if !p.clientTakeover {
		return nil
	}
	return &inflationWindow{size: 1 << p.clientBits}
}

// bytes is what a message may refer to.
func (w *inflationWindow) bytes() []byte { return w.b[max(0, len(w.b)-w.size):] }

// add drops what has become too old, and lets the window grow only with what
// is sent: a client that sends little shall cost little.
func (w *inflationWindow) add(p []byte) {
	p = p[max(0, len(p)-w.size):]
	need, most := len(w.b)+len(p), w.size+w.size/8
	if need > most {
		w.b = w.b[:copy(w.b, w.b[need-w.size:])]
		need = w.size
	}
	if need > cap(w.b) {
		w.b = append(make([]byte, 0, min(most, max(need, 2*cap(w.b)))), w.b...)
	}
	w.b = append(w.b, p...)
}

func errInflatedTooBig(limit int) error {
	return &ProtocolError{Code: CloseMessageTooBig, Reason: fmt.Sprintf("compressed message inflates to more than %d bytes", limit)}
}

func errDeflatedTooBig(limit int) error {
	return &ProtocolError{Code: CloseMessageTooBig, Reason: fmt.Sprintf("compressed message takes more than %d bytes, for one of at most %d", compressedLimit(uint64(limit)), limit)}
}

func errInflatedText() error {
	return &ProtocolError{Code: CloseInvalidPayload, Reason: "compressed text that isn't UTF-8", Section: "RFC 6455, section 8.1"}
}

func errInflateCut() error {
	return &ProtocolError{Code: CloseInvalidPayload, Reason: "compressed message cut short", Section: "RFC 7692, section 7.2.1"}
}

func errInflateCorrupt(err error) error {
	return &ProtocolError{Code: CloseInvalidPayload, Reason: "compressed message that isn't one: " + err.Error(), Section: "RFC 7692, section 7.2.2"}
}
