package deflate

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"testing"
)

// A feed gives compress/flate a payload byte by byte, as it never takes more
// than it needs from an io.ByteReader, and tells whether the message ends as it
// must. Adding the four bytes that were left out doesn't tell: in a message that
// was cut they may be taken for data or for codes. Behind the payload comes the
// length of a stored block of one byte instead. A flate.Reader asks for a length
// with a Read of four bytes, for codes with ReadByte, and for data with a Read
// of what is missing: only who takes these four for a length asks for one byte
// next.
type feed struct {
	rest  []byte
	given bool
	found bool
}

var errEnd = errors.New("end of the message")

func (f *feed) ReadByte() (byte, error) {
	if len(f.rest) == 0 {
		return 0, io.ErrUnexpectedEOF
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
	case !f.given && len(b) == 4:
		f.given = true
		return copy(b, "\x01\x00\xfe\xff"), nil
	case f.given && len(b) == 1:
		f.found = true
		return 0, errEnd
	}
	return 0, io.ErrUnexpectedEOF
}

// flateMessage is what compress/flate makes of a payload, up to limit bytes,
// and whether it is a message.
func flateMessage(payload, dict []byte, limit int) (out []byte, ok bool) {
	f := &feed{rest: payload}
	for {
		r := flate.NewReaderDict(f, dict)
		b, err := io.ReadAll(io.LimitReader(r, int64(limit+1-len(out))))
		out = append(out, b...)
		if len(out) > limit {
			return out, false
		}
		if err != nil || len(f.rest) == 0 {
			return out, f.found && errors.Is(err, errEnd)
		}
		dict = nil // behind a final block
	}
}

// flateCompress gives the payloads of messages, with context or without.
func flateCompress(tb testing.TB, level int, context bool, messages ...[]byte) (payloads [][]byte) {
	tb.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, level)
	if err != nil {
		tb.Fatal(err)
	}
	for _, m := range messages {
		b.Reset()
		if !context {
			w.Reset(&b)
		}
		if _, err := w.Write(m); err != nil {
			tb.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			tb.Fatal(err)
		}
		payloads = append(payloads, bytes.Clone(b.Bytes()[:b.Len()-4]))
	}
	return payloads
}
