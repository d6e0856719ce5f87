package load

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"

	dictflate "github.com/klauspost/compress/flate"
)

// newDeflated frames payload compressed as RFC 7692 says.
func newDeflated(op byte, payload []byte) (*message, error) {
	var z bytes.Buffer
	w, err := flate.NewWriter(&z, flate.BestSpeed)
	if err != nil {
		return nil, err
	}
	return finishDeflated(op, payload, w, &z)
}

// newReferring is newDeflated of a message that refers to dict. The standard
// library's writer ignores a dictionary at its fastest level.
func newReferring(op byte, payload, dict []byte) (*message, error) {
	var z bytes.Buffer
	w, err := dictflate.NewWriterDict(&z, dictflate.BestSpeed, dict)
	if err != nil {
		return nil, err
	}
	return finishDeflated(op, payload, w, &z)
}

type flusher interface {
	io.Writer
	Flush() error
}

func finishDeflated(op byte, payload []byte, w flusher, z *bytes.Buffer) (*message, error) {
	if _, err := w.Write(payload); err != nil {
		return nil, err
	}
	if err := w.Flush(); err != nil {
		return nil, err
	}
	// The four bytes of the empty block that Flush wrote stay away (section 7.2.1).
	p := z.Bytes()[:z.Len()-4]
	return &message{want: payload, frame: appendFrame(nil, 0xc0|op, p), seqOff: -1}, nil
}

// referring frames the payloads for a client with context takeover: each message
// refers to earlier ones, at most 1<<bits bytes back. They are the same for
// every connection, which sends them in this order, and from messages[again] on
// once more when it has sent all. That is right since the payloads are sent
// over and over until the window is full, and once more behind that: what lies
// before messages[again] is what lies behind the last one.
//
// The payloads should be longer together than the window, or each is found in
// it whole.
func referring(op byte, payloads [][]byte, bits int) (messages []*message, again int, err error) {
	window, length := 1<<bits, 0
	for _, p := range payloads {
		if len(p) > window { // it would have to be kept from referring too far back to itself
			return nil, 0, fmt.Errorf("load: a payload of %d bytes is longer than the window of %d", len(p), window)
		}
		length += len(p)
	}
	stream := make([]byte, 0, window+2*length)
	for full := false; !full; {
		full = len(stream) >= window
		again = len(messages)
		for _, p := range payloads {
			history := stream[max(0, len(stream)-window):]
			// No byte of the message reaches back further than the window.
			reach := min(len(history), window-len(p))
			m, err := newReferring(op, p, history[len(history)-reach:])
			if err != nil {
				return nil, 0, err
			}
			m.history = history
			messages = append(messages, m)
			stream = append(stream, p...)
		}
	}
	return messages, again, nil
}

// inflate decompresses a message whose references reach into history. What it
// returns holds until the next call.
func (l *Load) inflate(p, history []byte) ([]byte, error) {
	const tail = "\x00\x00\xff\xff\x01\x00\x00\xff\xff"
	l.deflated.Reset()
	l.deflated.Write(p)
	l.deflated.WriteString(tail)
	if l.inflater == nil {
		l.inflater = flate.NewReader(&l.deflated)
	}
	if err := l.inflater.(flate.Resetter).Reset(&l.deflated, history); err != nil {
		return nil, err
	}
	l.inflated.Reset()
	_, err := io.Copy(&l.inflated, l.inflater)
	return l.inflated.Bytes(), err
}

// checkDeflated inflates one answer in 16: the client must stay cheaper than the
// server. Nothing is kept for that of the answers before: they were what had
// been sent, so it is known what the server may refer to.
func (c *conn) checkDeflated(l *Load, f *flight) error {
	if f.seq%16 != 0 && !l.verify {
		return nil
	}
	if l.verify && len(f.msg.history) > 0 {
		l.countReferring(c.z)
	}
	got, err := l.inflate(c.z, f.msg.history)
	if err != nil {
		return fmt.Errorf("load: answer %08x doesn't inflate: %w", f.seq, err)
	}
	if !bytes.Equal(got, f.msg.want) {
		return fmt.Errorf("load: answer %08x inflates to %d other bytes than were sent", f.seq, len(got))
	}
	return nil
}

// countReferring counts answers that need the ones before them.
func (l *Load) countReferring(p []byte) {
	if _, err := l.inflate(p, nil); err != nil {
		l.referring++
	} else {
		l.alone++
	}
}

// referred says whether the server uses its context: nothing in the handshake
// tells that it won't, unless the client asked for that (RFC 7692, section
// 7.1.1.1).
func (l *Load) referred() error {
	if l.alone > l.referring {
		return fmt.Errorf("load: %d answers refer to earlier ones, %d don't: the server keeps no context", l.referring, l.alone)
	}
	return nil
}
