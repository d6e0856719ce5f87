package websocket

import (
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/rawws/websocket/internal/utf8x"
)

// An inflation is what it takes to inflate one message.
type inflation struct {
	payload []byte           // all of it, over all frames
	limit   int              // in inflated bytes; negative for none
	text    *utf8x.Validator // of a text message, else nil
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

// appendTo appends the inflated message to dst. An error is a *ProtocolError
// with 1007 or 1009; what was appended is then of no use.
func (m inflation) appendTo(dst []byte) ([]byte, error) {
	inflaters.slots <- struct{}{}
	defer func() { <-inflaters.slots }()
	in := takeInflater(m)
	defer in.giveBack()
	return in.appendTo(dst)
}

// inflaters have their message in memory, so that who waits for one waits for
// a computation, never for a peer.
var inflaters = newSlotted[*inflater](runtime.GOMAXPROCS(0), runtime.GOMAXPROCS(0))

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
	in.inflation, in.feed, in.n = m, feed{rest: m.payload}, 0
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
	if in.text != nil && (!in.text.Write(b[:n]) || err == io.EOF && !in.text.Complete()) {
		return 0, errInflatedText()
	}
	if in.window != nil {
		in.window.add(b[:n])
	}
	return n, err
}

// inflate tells an error with what came out before it, which may be too much
// already. It goes on over final blocks: a sender may use them anywhere in a
// message (RFC 7692, section 7.2.1). Behind one begins a stream of its own,
// which refers to nothing before it.
func (in *inflater) inflate(b []byte) (n int, err error) {
	for n == 0 && err == nil {
		n, err = in.fr.Read(b)
		switch {
		case in.feed.mark == markGiven: // and taken for data
			return 0, errInflateCut()
		case err == io.EOF:
			if len(in.feed.rest) == 0 {
				return n, errInflateCut() // the empty block is missing
			}
			err = nil
			in.reset(nil)
		case err == errMark:
			return n, io.EOF
		}
	}
	switch err.(type) {
	case nil:
		return n, nil
	case flate.CorruptInputError, flate.InternalError:
		return n, errInflateCorrupt(err)
	}
	return n, err
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
	rest []byte
	mark markState
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

func (f *feed) ReadByte() (byte, error) {
	if len(f.rest) == 0 {
		return 0, errInflateCut()
	}
	c := f.rest[0]
	f.rest = f.rest[1:]
	return c, nil
}

func (f *feed) Read(b []byte) (int, error) {
	switch {
	case len(f.rest) > 0:
		n := copy(b, f.rest)
		f.rest = f.rest[n:]
		return n, nil
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

func errInflatedText() error {
	return &ProtocolError{Code: CloseInvalidPayload, Reason: "compressed text that isn't UTF-8", Section: "RFC 6455, section 8.1"}
}

func errInflateCut() error {
	return &ProtocolError{Code: CloseInvalidPayload, Reason: "compressed message cut short", Section: "RFC 7692, section 7.2.1"}
}

func errInflateCorrupt(err error) error {
	return &ProtocolError{Code: CloseInvalidPayload, Reason: "compressed message that isn't one: " + err.Error(), Section: "RFC 7692, section 7.2.2"}
}
