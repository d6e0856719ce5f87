package websocket

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// connectDeflate returns both ends of a connection that compresses. An offer
// may have parameters.
func connectDeflate(t testing.TB, u *Upgrader, pair transport, offer string) (*Conn, *peer) {
	t.Helper()
	return connectBy(t, u, pair, func(p *peer) { p.handshakeDeflate(offer) })
}

// handshakeDeflate wants the offer agreed to.
func (p *peer) handshakeDeflate(offer string) {
	p.Helper()
	p.send([]byte(strings.TrimSuffix(peerRequest, "\r\n") + "Sec-WebSocket-Extensions: " + offer + "\r\n\r\n"))
	p.wantBytes(strings.TrimSuffix(peerAnswer, "\r\n") + "Sec-WebSocket-Extensions: permessage-deflate")
	for !bytes.Contains(p.in, []byte("\r\n\r\n")) {
		if err := p.receive(); err != nil {
			p.Fatalf("peer: read %q, then %v; want the answer's end", p.in, err)
		}
	}
	_, p.in, _ = bytes.Cut(p.in, []byte("\r\n\r\n"))
}

// clientCompressed is a message in one frame with RSV1 set.
func clientCompressed(op opcode, message []byte) []byte {
	return withRSV1(clientFrame(op, true, string(compressed(message))))
}

func withRSV1(frame []byte) []byte {
	frame[0] |= 0x40
	return frame
}

// plainInflated inflates a payload with what everyone has: the four bytes that
// were left out go back, and a final block ends the stream.
func plainInflated(payload string) (string, error) {
	b, err := io.ReadAll(flate.NewReader(strings.NewReader(payload + "\x00\x00\xff\xff\x01\x00\x00\xff\xff")))
	return string(b), err
}

// wantMessage wants the next message in one frame, compressed or not, and
// returns the length of its payload.
func (p *peer) wantMessage(op opcode, deflated bool, want string) int {
	p.Helper()
	h, payload, err := p.anyFrame()
	got := payload
	if err == nil && deflated {
		got, err = plainInflated(payload)
	}
	if err != nil || h.opcode != op || !h.fin || h.masked || h.rsv1 != deflated || got != want {
		p.Fatalf("peer: got %+v, %s, %v; want a final %v, RSV1 %t, %s", h, quote(got), err, op, deflated, quote(want))
	}
	return len(payload)
}

// A message is compressed if it is long enough, and if that makes it shorter;
// without a threshold in any case.
func TestWriteMessageDeflates(t *testing.T) {
	noise := string(deflateSamples()["noise of 65536"])
	long := string(sampleJSON(100_000))
	for _, test := range []struct {
		threshold int
		message   string
		deflated  bool
	}{
		{0, "", false},
		{0, long[:511], false},
		{0, long[:512], true},
		{0, long, true},
		{0, noise[:600], false},
		{0, noise, false},
		{1000, long[:999], false},
		{1000, long[:1000], true},
		{-1, long[:100], true},
		{-1, "aaaaaaaaaaaaaaaaaaaa", true},
		{-1, "x", true},
		{-1, "", true},
		{-1, noise, true},
	} {
		overTransports(t, func(t *testing.T, pair transport) {
			c, p := connectDeflate(t, &Upgrader{Compression: &Compression{Threshold: test.threshold}}, pair, "permessage-deflate")
			done := make(chan error)
			go func() { done <- c.WriteMessage(BinaryMessage, []byte(test.message)) }()
			n := p.wantMessage(opBinary, test.deflated, test.message)
			if err := <-done; err != nil {
				t.Errorf("WriteMessage of %s: %v", quote(test.message), err)
			}
			if test.deflated && test.threshold >= 0 && n >= len(test.message) {
				t.Errorf("threshold %d: %d bytes became %d", test.threshold, len(test.message), n)
			}
		})
	}
}

// A message of NextWriter has frames of FrameSize bytes each before
// compression, RSV1 on the first alone (RFC 7692, section 6.1), and is one
// stream to whoever reads it, within the window that was asked for.
func TestNextWriterDeflates(t *testing.T) {
	long := string(sampleJSON(10_500))
	for _, test := range []struct {
		offer                string
		threshold, frameSize int
		message              string
		deflated             bool
		frames, window       int
	}{
		{"permessage-deflate", 0, 1000, long, true, 11, 1000},
		{"permessage-deflate", 0, 1000, long[:2000], true, 2, 1000},
		{"permessage-deflate", 0, 1000, long[:2001], true, 3, 1000},
		{"permessage-deflate", 0, 100, long[:600], false, 6, 0},
		{"permessage-deflate", -1, 1, long[:9], true, 9, 0},
		{"permessage-deflate", 0, 0, long, true, 1, 32768},
		{"permessage-deflate", 0, math.MaxInt, long, true, 1, 32768},
		{"permessage-deflate", 0, 0, long[:511], false, 1, 0},
		{"permessage-deflate", -1, 0, "", true, 1, 0},
		{"permessage-deflate", 0, 0, "", false, 1, 0},
		{"permessage-deflate; server_max_window_bits=8", 0, 4096, long, true, 3, 256},
		{"permessage-deflate; server_max_window_bits=9", 0, 4096, long, true, 3, 512},
	} {
		name := fmt.Sprintf("%s, %d bytes, threshold %d, FrameSize %d", test.offer, len(test.message), test.threshold, test.frameSize)
		c, p := connectDeflate(t, &Upgrader{Compression: &Compression{Threshold: test.threshold, FrameSize: test.frameSize}}, tcpPair, test.offer)
		w, err := c.NextWriter(TextMessage)
		for rest := test.message; err == nil && rest != ""; {
			n := min(333, len(rest))
			_, err = io.WriteString(w, rest[:n])
			rest = rest[n:]
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		payload, frames := "", 0
		for fin := false; !fin; frames++ {
			h, piece, err := p.anyFrame()
			first := frames == 0
			if err != nil || h.rsv1 != (first && test.deflated) || (h.opcode == opText) != first {
				t.Fatalf("%s: frame %d is %+v, %v", name, frames, h, err)
			}
			payload += piece
			fin = h.fin
		}
		got := payload
		if test.deflated {
			if got, err = plainInflated(payload); err != nil {
				t.Errorf("%s: inflating: %v", name, err)
			}
			checkPayload(t, name, []byte(payload), []byte(test.message), test.window)
		}
		if got != test.message || frames != test.frames {
			t.Errorf("%s: got %s in %d frames, want %d", name, quote(got), frames, test.frames)
		}
	}
}

// NextReader gives a compressed message as any other, as much of it as is
// wanted; what is left of it is part of the window all the same.
func TestNextReaderInflates(t *testing.T) {
	overTransports(t, func(t *testing.T, pair transport) {
		c, p := connectDeflate(t, &Upgrader{Compression: new(Compression)}, pair, "permessage-deflate; client_max_window_bits")
		long := sampleJSON(50_000)
		go p.nc.Write(bytes.Join([][]byte{
			clientCompressed(opBinary, long), withRSV1(textFrame("\xf2\x48\xcd\xc9\xc9\x07\x00")),
			withRSV1(textFrame("\xf2\x00\x11\x00\x00")), textFrame("plain"),
		}, nil))
		typ, r, err := c.NextReader()
		if err != nil {
			t.Fatalf("NextReader: %v", err)
		}
		if got, err := io.ReadAll(r); typ != BinaryMessage || err != nil || !bytes.Equal(got, long) {
			t.Errorf("read %v %s, %v; want binary %s", typ, describe(got), err, describe(long))
		}
		if _, r, err = c.NextReader(); err != nil {
			t.Fatalf("NextReader: %v", err)
		}
		var two [2]byte
		if n, err := r.Read(two[:]); string(two[:n]) != "He" || err != nil {
			t.Errorf("Read = %q, %v; want %q", two[:n], err, "He")
		}
		for _, want := range []string{"Hello", "plain"} {
			if _, r, err = c.NextReader(); err != nil {
				t.Fatalf("NextReader: %v", err)
			}
			if got, err := io.ReadAll(r); string(got) != want || err != nil {
				t.Errorf("read %q, %v; want %q", got, err, want)
			}
		}
	})
}

// Stats tells what compression made of the messages that it was used for, and
// counts the others as before.
func TestStatsOfDeflate(t *testing.T) {
	s := &Server{Handler: echoEvents(), Upgrader: Upgrader{Compression: &Compression{}}}
	p := serveTCP(t, s)()
	p.handshakeDeflate("permessage-deflate")
	message := sampleJSON(2000)
	in := clientCompressed(opText, message)
	p.send(in)
	out := p.wantMessage(opText, true, string(message))
	p.sendText("plain")
	p.want(opText, "plain")
	noise := string(deflateSamples()["noise of 512"])
	p.send(clientCompressed(opBinary, []byte(noise)))
	p.wantMessage(opBinary, false, noise)
	p.closeWith(CloseNormal, "") // a message is counted when its write has returned
	got := s.Stats()
	want := Stats{
		MessagesIn: 3, MessagesOut: 3, BytesIn: 2000 + 5 + 512, BytesOut: 2000 + 5 + 512,
		DeflatedIn: uint64(len(in)-8) + uint64(len(clientCompressed(opBinary, []byte(noise)))-8), InflatedIn: 2000 + 512,
		DeflatedOut: uint64(out), InflatedOut: 2000,
	}
	if got.MessagesIn != want.MessagesIn || got.MessagesOut != want.MessagesOut || got.BytesIn != want.BytesIn || got.BytesOut != want.BytesOut {
		t.Errorf("messages in %d, out %d, bytes in %d, out %d; want %d, %d, %d, %d", got.MessagesIn, got.MessagesOut,
			got.BytesIn, got.BytesOut, want.MessagesIn, want.MessagesOut, want.BytesIn, want.BytesOut)
	}
	if got.DeflatedIn != want.DeflatedIn || got.InflatedIn != want.InflatedIn || got.DeflatedOut != want.DeflatedOut || got.InflatedOut != want.InflatedOut {
		t.Errorf("deflated in %d, inflated in %d, deflated out %d, inflated out %d; want %d, %d, %d, %d", got.DeflatedIn,
			got.InflatedIn, got.DeflatedOut, got.InflatedOut, want.DeflatedIn, want.InflatedIn, want.DeflatedOut, want.InflatedOut)
	}
}

// bomb is a message of 200 KB that holds 200 MiB.
func bomb() []byte {
	var megabyte bytes.Buffer
	w, _ := flate.NewWriter(&megabyte, flate.BestCompression)
	w.Write(make([]byte, 1<<20))
	w.Flush() // to a whole byte, so that the same can follow
	payload := strings.Repeat(megabyte.String(), 200)
	return withRSV1(clientFrame(opBinary, true, payload[:len(payload)-4]))
}

func TestBomb(t *testing.T) {
	stream := bomb()
	if len(stream) > 250_000 {
		t.Fatalf("the bomb takes %d bytes, want about 200 KB", len(stream))
	}
	s := &Server{Handler: echoEvents(), Upgrader: Upgrader{Compression: &Compression{}}}
	p := serveTCP(t, s)()
	p.handshakeDeflate("permessage-deflate")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	p.send(stream)
	h, payload, err := p.frame()
	runtime.ReadMemStats(&after)
	if err != nil || h.opcode != opClose || !strings.HasPrefix(payload, "\x03\xf1") {
		t.Errorf("the bomb was answered by %v %q, %v; want a close frame of 1009", h.opcode, payload, err)
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown >= 4<<20 {
		t.Errorf("the bomb had %d bytes allocated, want less than 4 MiB for a limit of 1 MiB", grown)
	}
	p.leave()
}

// A deadline that passes inside a compressed message costs nothing of what had
// come, be it the payload's or the window's.
func TestReadDeadlineInsideDeflated(t *testing.T) {
	long := string(sampleJSON(300_000))
	whole := string(clientCompressed(opText, []byte(long)))
	hello := string(withRSV1(clientFrame(opText, false, "\xf2\x48\xcd"))) + string(clientFrame(opContinuation, true, "\xc9\xc9\x07\x00"))
	again := string(withRSV1(textFrame("\xf2\x00\x11\x00\x00")))
	overTransports(t, func(t *testing.T, pair transport) {
		c, p := connectDeflate(t, &Upgrader{Compression: new(Compression)}, pair, "permessage-deflate")
		readInPieces(t, c, p, whole, []int{1, 5, 14, 15, 5000, 20000, len(whole) - 1}, long)
		readInPieces(t, c, p, hello, []int{1, 6, 7, 9, 10, 15, 16}, "Hello")
		readInPieces(t, c, p, again, []int{6, 8, 10}, "Hello")
	})
}

// interruptedReads serves a client whose bytes come in pieces, with a deadline
// before each.
func interruptedReads(t *testing.T, v *conformanceCase, pieces [][]byte) (allocated uint64) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	o := servings[2].run(t, v, &scriptConn{quiet: true, pieces: pieces})
	runtime.ReadMemStats(&after)
	if o.end != `closed 1000 ""` || len(o.faults) > 0 {
		t.Errorf("end %s, faults %v; want a close with 1000", o.end, o.faults)
	}
	return after.TotalAlloc - before.TotalAlloc
}

// Deadlines that pass, one for each few bytes of a message, don't copy what
// has come each time.
func TestReadDeadlinesInsideDeflatedAreCheap(t *testing.T) {
	message := bytes.Repeat(deflateSamples()["noise of 65536"], 4)
	frames := bytes.Join([][]byte{clientCompressed(opBinary, message), closeFrame(CloseNormal, "")}, nil)
	v := &conformanceCase{name: "deadlines"}
	v.deflate("permessage-deflate")
	pieces := append([][]byte{[]byte(v.request())}, inPiecesOf(frames, 100)...)
	once := interruptedReads(t, v, [][]byte{[]byte(v.request()), frames})
	if got := interruptedReads(t, v, pieces); got > once+8<<20 {
		t.Errorf("%d deadlines in a message of 256 KiB had %d bytes allocated, %d without them", len(pieces), got, once)
	}
}

// A connection that used compression without contexts, both ways, holds nothing
// of it when it waits for the next message, and no more than a buffer to read
// into.
func TestIdleDeflateHoldsNothing(t *testing.T) {
	message := sampleJSON(20_000)
	for _, w := range servings {
		if !w.pipe {
			continue
		}
		w.interrupt = false
		v := &conformanceCase{name: "idle", offer: "permessage-deflate"}
		v.u.Compression = &Compression{ContextMemory: -1}
		compressed := clientCompressed(opText, message)
		waits := 0
		s := &scriptConn{
			quiet:  true,
			pieces: [][]byte{[]byte(v.request()), compressed, compressed[:2000], compressed[2000:], closeFrame(CloseNormal, "")},
		}
		s.waits = func(c *Conn) {
			if waits++; len(s.pieces) == 2 {
				return // half a message has come
			}
			if got := held(c); got > smallSize || c.deflate != &withoutContext[15] {
				t.Errorf("%v: at wait %d the connection holds %d bytes and %+v, want at most %d and nothing of its own", w, waits, got, c.deflate, smallSize)
			}
		}
		o := w.run(t, v, s)
		if o.end != `closed 1000 ""` || len(o.faults) > 0 || waits < 4 {
			t.Errorf("%v: end %s, faults %v, %d waits; want a close with 1000 and 4 or more", w, o.end, o.faults, waits)
		}
	}
}

// A deadline while a message is written by NextWriter, compressed, ends the
// connection as it does any other.
func TestNextWriterDeflatedDeadline(t *testing.T) {
	c, _ := connectDeflate(t, &Upgrader{Compression: &Compression{FrameSize: 4096}}, pipePair, "permessage-deflate")
	w, err := c.NextWriter(BinaryMessage)
	if err != nil {
		t.Fatal(err)
	}
	c.SetWriteDeadline(time.Now().Add(5 * time.Millisecond))
	if _, err := w.Write(make([]byte, 10_000)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Write to a peer that doesn't read: %v, want %v", err, os.ErrDeadlineExceeded)
	}
	if err := w.Close(); err == nil {
		t.Error("Close of a message that wasn't sent: nil, want an error")
	}
}

func TestSetMaxMessageSizeInflated(t *testing.T) {
	u := &Upgrader{MaxMessageSize: 10, Compression: new(Compression)}
	c, p := connectDeflate(t, u, pipePair, "permessage-deflate")
	message := clientCompressed(opText, bytes.Repeat([]byte("x"), 5000))
	c.SetMaxMessageSize(5000)
	go p.nc.Write(message)
	if _, m, err := c.ReadMessage(); len(m) != 5000 || err != nil {
		t.Errorf("ReadMessage = %d bytes, %v; want 5000", len(m), err)
	}
	c.SetMaxMessageSize(4999)
	go func() {
		p.nc.Write(message)
		p.nc.Close()
	}()
	if _, _, err := c.ReadMessage(); !errors.Is(err, ErrMessageTooBig) {
		t.Errorf("ReadMessage: %v; want %v", err, ErrMessageTooBig)
	}
}
