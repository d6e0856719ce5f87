package websocket

import (
	"math"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/rawws/websocket/internal/deflate/bitwise"
)

// deflate makes the case one of a client that offers permessage-deflate. The
// threshold keeps the echoes plain, so that a case can tell them byte by byte;
// compressed ones are judged in deflate_test.go and conn_deflate_test.go.
func (c *conformanceCase) deflate(offer string) {
	c.offer = offer
	c.u.Compression = &Compression{Threshold: math.MaxInt, ContextMemory: -1}
}

// deflates reports whether the client may compress.
func (c *conformanceCase) deflates() bool { return c.u.Compression != nil && !c.declined }

// request is what the client sends before the frames.
func (c *conformanceCase) request() string {
	if c.offer == "" {
		return conformanceRequest
	}
	return strings.TrimSuffix(conformanceRequest, "\r\n") + "Sec-WebSocket-Extensions: " + c.offer + "\r\n\r\n"
}

// wireLimit is that of the payload, as it is on the wire.
func (r *referenceServer) wireLimit() uint64 {
	if r.deflated {
		return 2*r.limit + 1024
	}
	return r.limit
}

// allow takes for right that of a message that is both too large and wrong the
// other was told. What is at fault first can't be said in the middle of a block.
func (r *referenceServer) allow(got *outcome) {
	if !r.wrongToo || got.end != "refused 1007" && got.end != "refused 1009" || r.closing {
		return
	}
	r.end = got.end
	last := &r.answers[len(r.answers)-1]
	if code := got.end[len("refused "):]; code == "1007" {
		last.payload = []byte("\x03\xef" + anyReason)
	} else {
		last.payload = []byte("\x03\xf1" + anyReason)
	}
}

// inflate is what must become of a compressed message: what came out before it
// is found to be wrong counts, in its order.
func (r *referenceServer) inflate() CloseCode {
	begin := len(r.window)
	m := bitwise.Message{In: r.message, Out: slices.Clone(r.window), Most: begin + int(r.limit)}
	var err error
	if len(r.message) > 0 { // nothing at all is an empty message
		err = m.Decode()
	}
	r.message = m.Out[begin:]
	invalid := err != nil || r.text && !utf8.Valid(r.message)
	r.wrongToo = invalid && uint64(len(r.message)) > r.limit
	switch {
	case r.text && !mayBecomeUTF8(r.message[:min(uint64(len(r.message)), r.limit)]):
		return 1007
	case uint64(len(r.message)) > r.limit:
		return 1009
	case err != nil:
		return 1007
	}
	if r.vector.u.Compression.ContextMemory >= 0 && !strings.Contains(r.vector.offer, "client_no_context_takeover") {
		size := 32768
		if strings.Contains(r.vector.offer, "client_max_window_bits=8") {
			size = 256
		}
		r.window = m.Out[max(0, len(m.Out)-size):]
	}
	return 0
}

// FuzzConnDeflate is FuzzConn with clients that compress: the reference
// inflates their messages with a decoder of its own.
func FuzzConnDeflate(f *testing.F) {
	for i, v := range loadCases(f, "testdata/conformance_deflate.txt") {
		if len(v.in) < 2000 {
			f.Add(v.in, []byte{byte(i % 8)}, byte(i)&3|fuzzTakeover)
			f.Add(v.in, []byte{160, 5, 2, 0}, byte(i)&^(fuzzFrames|fuzzTakeover))
		}
	}
	hello := "\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00\xc1\x05\xf2\x00\x11\x00\x00"
	f.Add([]byte(hello+"\x88\x02\x03\xe8"), []byte{200, 1}, byte(fuzzFrames|fuzzTakeover))
	f.Add([]byte("\x41\x02\xf2\x48\x89\x02hi\x80\x05\xcd\xc9\xc9\x07\x00"+hello), []byte{3}, byte(fuzzFrames|fuzzFragments|2))
	f.Add([]byte("\x42\x7f\x09\x00\x80\x01\x00"+hello), []byte{99}, byte(fuzzFrames|fuzzLimit|3))
	f.Fuzz(func(t *testing.T, script, sizes []byte, mode byte) {
		v := fuzzCase(script, mode)
		v.deflate("permessage-deflate; client_max_window_bits")
		if mode&fuzzTakeover != 0 {
			v.u.Compression.ContextMemory = 0
		}
		checkConn(t, v, sizes, mode)
	})
}
