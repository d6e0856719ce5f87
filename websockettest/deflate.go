package websockettest

import (
	"bytes"
	"compress/flate"
	"io"
	"strings"
)

// An inflater inflates the server's messages (RFC 7692, section 7.2.2).
type inflater struct {
	window []byte // what the next message may refer to
	forget bool   // server_no_context_takeover
}

// newInflater returns the inflater for the answer's extensions, nil where none
// of them is permessage-deflate.
func newInflater(extensions string) *inflater {
	if !strings.HasPrefix(extensions, "permessage-deflate") {
		return nil
	}
	return &inflater{forget: strings.Contains(extensions, "server_no_context_takeover")}
}

func (d *inflater) inflate(p []byte) ([]byte, error) {
	// The tail that the server left out, and a final block, at which the reader
	// ends.
	tail := "\x00\x00\xff\xff\x01\x00\x00\xff\xff"
	r := flate.NewReaderDict(io.MultiReader(bytes.NewReader(p), strings.NewReader(tail)), d.window)
	out, err := io.ReadAll(r)
	if !d.forget {
		d.window = append(d.window, out...)
		d.window = d.window[max(0, len(d.window)-32<<10):]
	}
	return out, err
}

// Deflate returns p as the payload of a compressed message that refers to no
// other, for a Frame with RSV1 (RFC 7692, section 7.2.1).
func Deflate(p []byte) []byte {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.DefaultCompression) // the level is lawful, a Buffer's Write can't fail
	w.Write(p)
	w.Flush()
	return bytes.TrimSuffix(b.Bytes(), []byte("\x00\x00\xff\xff"))
}
