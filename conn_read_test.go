package websocket

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// fragments is "Hello, world" in four frames, with a ping among them.
var fragments = bytes.Join([][]byte{
	clientFrame(opText, false, "Hello"), clientFrame(opContinuation, false, ", "), clientFrame(opPing, true, "between"),
	clientFrame(opContinuation, false, ""), clientFrame(opContinuation, true, "world"),
}, nil)

func TestReadFragments(t *testing.T) {
	overTransports(t, func(t *testing.T, pair transport) {
		c, p := connect(t, new(Upgrader), pair)
		go p.nc.Write(append(fragments[:len(fragments):len(fragments)], clientFrame(opBinary, true, "next")...))
		read := make(chan Message, 2)
		go func() {
			defer close(read)
			for range 2 {
				typ, data, err := c.ReadMessage()
				if err != nil {
					t.Errorf("ReadMessage = %v, %q, %v", typ, data, err)
				}
				read <- Message{typ, data}
			}
		}()
		p.want(opPong, "between")
		for _, want := range []Message{{TextMessage, []byte("Hello, world")}, {BinaryMessage, []byte("next")}} {
			if got := <-read; got.Type != want.Type || !bytes.Equal(got.Data, want.Data) {
				t.Errorf("read %v %q, want %v %q", got.Type, got.Data, want.Type, want.Data)
			}
		}
	})
}

// With room enough AppendMessage stays in the caller's buffer, behind what is
// there; with an error it returns the buffer as it was.
func TestAppendMessage(t *testing.T) {
	overTransports(t, func(t *testing.T, pair transport) {
		c, p := connect(t, new(Upgrader), pair)
		for _, message := range []string{"short", strings.Repeat("long ", 10000)} {
			go p.nc.Write(textFrame(message))
			dst := append(make([]byte, 0, 1<<16), "before:"...)
			typ, got, err := c.AppendMessage(dst)
			if want := "before:" + message; typ != TextMessage || string(got) != want || err != nil {
				t.Fatalf("AppendMessage = %v, %d bytes, %v; want text of %d bytes", typ, len(got), err, len(want))
			}
			if &got[0] != &dst[0] {
				t.Errorf("AppendMessage of %d bytes into %d free ones left the buffer", len(message), cap(dst)-len(dst))
			}
		}
		go p.nc.Close()
		dst := []byte("before:")
		typ, got, err := c.AppendMessage(dst)
		if typ != 0 || string(got) != "before:" || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("AppendMessage at the stream's end = %v, %q, %v; want 0, %q, %v", typ, got, err, dst, io.ErrUnexpectedEOF)
		}
	})
}

func TestNextReader(t *testing.T) {
	overTransports(t, func(t *testing.T, pair transport) {
		c, p := connect(t, new(Upgrader), pair)
		go func() {
			p.nc.Write(fragments)
			p.frame()
			p.nc.Write(clientFrame(opBinary, true, strings.Repeat("x", 70000)))
			p.nc.Write(textFrame(""))
		}()
		for _, want := range []Message{{TextMessage, []byte("Hello, world")}, {BinaryMessage, bytes.Repeat([]byte("x"), 70000)}, {TextMessage, nil}} {
			typ, r, err := c.NextReader()
			if typ != want.Type || err != nil {
				t.Fatalf("NextReader = %v, %v; want %v", typ, err, want.Type)
			}
			if n, err := r.Read(nil); n != 0 || err != nil && len(want.Data) > 0 {
				t.Errorf("Read(nil) = %d, %v; want 0, nil", n, err)
			}
			got, err := io.ReadAll(iotest.OneByteReader(r))
			if !bytes.Equal(got, want.Data) || err != nil {
				t.Errorf("by single bytes: %d bytes %s, %v; want %d bytes", len(got), quote(got), err, len(want.Data))
			}
			if n, err := r.Read(make([]byte, 8)); n != 0 || err != io.EOF {
				t.Errorf("Read behind the message's end = %d, %v; want 0, io.EOF", n, err)
			}
		}
	})
}

// A reader that is left is skipped over, and must not take from the messages
// behind its own.
func TestNextReaderAbandoned(t *testing.T) {
	overTransports(t, func(t *testing.T, pair transport) {
		c, p := connect(t, new(Upgrader), pair)
		go func() {
			p.nc.Write(fragments)
			p.frame()
			p.nc.Write(textFrame(strings.Repeat("second ", 10000)))
			p.nc.Write(textFrame("third"))
			p.nc.Write(textFrame("fourth"))
		}()
		_, first, err := c.NextReader()
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 2)
		if _, err := io.ReadFull(first, b); string(b) != "He" || err != nil {
			t.Fatalf("read %q, %v; want %q", b, err, "He")
		}
		_, second, err := c.NextReader()
		if err != nil {
			t.Fatal(err)
		}
		if n, err := first.Read(b); n != 0 || err == nil {
			t.Errorf("the first reader read %q, %v after NextReader; want an error", b[:n], err)
		}
		if _, err := io.ReadFull(second, b); string(b) != "se" || err != nil {
			t.Errorf("the second reader read %q, %v; want %q", b, err, "se")
		}
		if _, got, err := c.ReadMessage(); string(got) != "third" || err != nil {
			t.Errorf("ReadMessage = %s, %v; want %q", quote(got), err, "third")
		}
		if n, err := second.Read(b); n != 0 || err == nil {
			t.Errorf("the second reader read %q, %v after ReadMessage; want an error", b[:n], err)
		}
		if _, got, err := c.ReadMessage(); string(got) != "fourth" || err != nil {
			t.Errorf("ReadMessage = %s, %v; want %q", quote(got), err, "fourth")
		}
	})
}

func TestNextReaderEndsWithTheConnection(t *testing.T) {
	c, p := connect(t, new(Upgrader), tcpPair)
	p.send(clientFrame(opText, false, "part"))
	_, r, err := c.NextReader()
	if err != nil {
		t.Fatal(err)
	}
	p.nc.Close()
	got, err := io.ReadAll(r)
	if string(got) != "part" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("read %q, %v; want %q, %v", got, err, "part", io.ErrUnexpectedEOF)
	}
	if _, _, again := c.NextReader(); again != c.endError() {
		t.Errorf("NextReader after the end: %v, want the same error again: %v", again, err)
	}
}

// What ReadMessage had begun when a deadline passed is NextReader's to hand
// out, and the other way round.
func TestNextReaderAfterADeadline(t *testing.T) {
	c, p := connect(t, new(Upgrader), tcpPair)
	p.send(clientFrame(opText, false, "one"), clientFrame(opContinuation, true, "two")[:7])
	c.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
	if _, _, err := c.ReadMessage(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("ReadMessage of half a message: %v, want %v", err, os.ErrDeadlineExceeded)
	}
	c.SetReadDeadline(time.Time{})
	p.send(clientFrame(opContinuation, true, "two")[7:], textFrame("three"))
	typ, r, err := c.NextReader()
	if typ != TextMessage || err != nil {
		t.Fatalf("NextReader = %v, %v; want text", typ, err)
	}
	if got, err := io.ReadAll(iotest.OneByteReader(r)); string(got) != "onetwo" || err != nil {
		t.Errorf("read %q, %v; want %q", got, err, "onetwo")
	}
	_, r, err = c.NextReader()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 16)
	n, err := r.Read(b)
	if string(b[:n]) != "three" || err != nil {
		t.Fatalf("read %q, %v; want %q", b[:n], err, "three")
	}
	if n, err = r.Read(b); n != 0 || err != io.EOF {
		t.Errorf("read %q, %v; want io.EOF", b[:n], err)
	}
	p.send(clientFrame(opText, false, "fo"))
	if _, r, err = c.NextReader(); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
	got, err := io.ReadAll(r)
	if string(got) != "fo" || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read %q, %v; want %q, %v", got, err, "fo", os.ErrDeadlineExceeded)
	}
	c.SetReadDeadline(time.Time{})
	p.send(clientFrame(opContinuation, true, "ur"))
	if got, err := io.ReadAll(r); string(got) != "ur" || err != nil {
		t.Errorf("the same reader went on with %q, %v; want %q", got, err, "ur")
	}
}

func TestMessages(t *testing.T) {
	c, p := connect(t, new(Upgrader), tcpPair)
	p.send(textFrame("a"), clientFrame(opBinary, true, "b"), textFrame("c"))
	var got []string
	for m, err := range c.Messages() {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, m.Type.String()+" "+string(m.Data))
		if len(got) == 2 {
			break // takes nothing that it didn't yield
		}
	}
	c.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
	var last error
	for m, err := range c.Messages() {
		if last = err; err == nil {
			got = append(got, m.Type.String()+" "+string(m.Data))
		}
	}
	if !errors.Is(last, os.ErrDeadlineExceeded) {
		t.Errorf("the iteration ended with %v, want %v", last, os.ErrDeadlineExceeded)
	}
	c.SetReadDeadline(time.Time{})
	p.send(textFrame("d"), closeFrame(CloseNormal, ""))
	p.leave()
	ended := 0
	for m, err := range c.Messages() {
		if last = err; err == nil {
			got = append(got, m.Type.String()+" "+string(m.Data))
		} else {
			ended++
		}
	}
	if want := "text a,binary b,text c,text d"; strings.Join(got, ",") != want || ended != 1 {
		t.Errorf("got %q and %d errors, want %q and 1", got, ended, want)
	}
	wantEndError(t, last, EndError{By: SidePeer, Sent: CloseNormal, Received: CloseNormal, Clean: true}, nil)
}

func TestMessageTooBig(t *testing.T) {
	tests := []struct {
		name  string
		sent  []byte
		limit int64
	}{
		{"declared", clientFrame(opBinary, true, strings.Repeat("x", 1001))[:8], 1000},
		{"default, declared", appendHeader(nil, header{fin: true, opcode: opBinary, masked: true, length: 1<<20 + 1}), 0},
		{"in fragments", append(clientFrame(opBinary, false, strings.Repeat("x", 600)), clientFrame(opContinuation, true, strings.Repeat("x", 401))[:8]...), 1000},
		{"2^63-1", appendHeader(nil, header{fin: true, opcode: opBinary, masked: true, length: 1<<63 - 1}), 1000},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, p := connect(t, &Upgrader{MaxMessageSize: test.limit}, tcpPair)
			p.send(test.sent)
			done := make(chan error)
			go func() {
				_, _, err := c.ReadMessage()
				done <- err
			}()
			h, payload, err := p.frame()
			if code, _, _ := parseClosePayload([]byte(payload)); h.opcode != opClose || code != CloseMessageTooBig || err != nil {
				t.Errorf("the peer got %v %q, %v; want close of %d", h.opcode, payload, err, CloseMessageTooBig)
			}
			p.wantEnd()
			err = <-done
			wantEndError(t, err, EndError{By: SidePeer, Sent: CloseMessageTooBig}, ErrMessageTooBig)
			var broken *ProtocolError
			if !errors.As(err, &broken) || broken.Code != CloseMessageTooBig {
				t.Errorf("ReadMessage: %v, want a *ProtocolError of %d", err, CloseMessageTooBig)
			}
		})
	}
}

// A large message may come in small frames: 4 MiB by 64 bytes, and an empty last
// one, are within what a peer may spread it over by default.
func TestManyFragments(t *testing.T) {
	c, p := connect(t, &Upgrader{MaxMessageSize: 4 << 20}, tcpPair)
	const frames = 4 << 20 / 64
	stream := clientFrame(opBinary, false, strings.Repeat("x", 64))
	for range frames - 1 {
		stream = append(stream, clientFrame(opContinuation, false, strings.Repeat("x", 64))...)
	}
	go p.nc.Write(append(stream, clientFrame(opContinuation, true, "")...))
	if _, data, err := c.ReadMessage(); len(data) != 4<<20 || err != nil {
		t.Errorf("ReadMessage of %d frames = %d bytes, %v; want 4 MiB", frames+1, len(data), err)
	}
}

// The limit itself is allowed, and a negative one is none.
func TestMessageOfTheLimit(t *testing.T) {
	for _, u := range []*Upgrader{{MaxMessageSize: 5000}, {MaxMessageSize: -1, MaxFragments: -1}} {
		c, p := connect(t, u, tcpPair)
		p.send(clientFrame(opBinary, false, strings.Repeat("x", 4000)), clientFrame(opContinuation, true, strings.Repeat("x", 1000)))
		if _, data, err := c.ReadMessage(); len(data) != 5000 || err != nil {
			t.Errorf("MaxMessageSize %d: ReadMessage = %d bytes, %v; want 5000", u.MaxMessageSize, len(data), err)
		}
	}
}

func TestTooManyFragments(t *testing.T) {
	tests := []struct {
		name string
		u    *Upgrader
		sent []byte
		want bool
	}{
		{"as many as allowed", &Upgrader{MaxFragments: 3}, joinFrames("a", "b"), true},
		{"one too many", &Upgrader{MaxFragments: 3}, joinFrames("a", "b", "c"), false},
		{"64 empty ones in a row", new(Upgrader), joinFrames(make([]string, 63)...), true},
		{"65 empty ones", new(Upgrader), joinFrames(make([]string, 65)...), false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, p := connect(t, test.u, tcpPair)
			go func() {
				p.nc.Write(test.sent)
				p.leave()
			}()
			_, _, err := c.ReadMessage()
			if test.want {
				if err != nil {
					t.Errorf("ReadMessage: %v, want nil", err)
				}
				return
			}
			var broken *ProtocolError
			if !errors.As(err, &broken) || broken.Code != ClosePolicyViolation {
				t.Errorf("ReadMessage: %v, want a *ProtocolError of %d", err, ClosePolicyViolation)
			}
		})
	}
}

// joinFrames returns a message of those fragments, and an "x" as its last.
func joinFrames(payloads ...string) []byte {
	b := []byte{}
	for i, s := range payloads {
		op := opContinuation
		if i == 0 {
			op = opText
		}
		b = append(b, clientFrame(op, false, s)...)
	}
	return append(b, clientFrame(opContinuation, true, "x")...)
}

// A length that was only declared costs at most what is made ahead of it.
func TestDeclaredLengthCostsNothing(t *testing.T) {
	c, p := connect(t, &Upgrader{MaxMessageSize: 1 << 30}, tcpPair)
	head := appendHeader(nil, header{fin: true, opcode: opBinary, masked: true, length: 1 << 30})
	p.send(head, make([]byte, 100<<10))
	c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if _, _, err := c.ReadMessage(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("ReadMessage of 100 KiB of 1 GiB: %v, want %v", err, os.ErrDeadlineExceeded)
	}
	if got := held(c); got > 256<<10 {
		t.Errorf("%d bytes are held for 100 KiB that have come", got)
	}
}

// A net.Conn may return no bytes and no error, as net.Pipe does for an empty
// write; that isn't the stream's end.
func TestReadOfNothing(t *testing.T) {
	for _, message := range []string{"short", strings.Repeat("long ", 20000)} {
		c, p := connect(t, new(Upgrader), pipePair)
		go func() {
			frame := textFrame(message)
			for _, cut := range []int{1, 8, len(frame) / 2, len(frame) - 1} {
				for _, piece := range [][]byte{nil, frame[:cut], nil, frame[cut:]} {
					p.nc.Write(piece)
				}
			}
		}()
		for range 4 {
			if _, got, err := c.ReadMessage(); string(got) != message || err != nil {
				t.Fatalf("ReadMessage = %d bytes, %v; want %d", len(got), err, len(message))
			}
		}
	}
}

func TestPongCarriesThePayload(t *testing.T) {
	overTransports(t, func(t *testing.T, pair transport) {
		c, p := connect(t, new(Upgrader), pair)
		go c.ReadMessage()
		for _, payload := range []string{"", "ping", strings.Repeat("\x00\xff", 62) + "!"} {
			p.send(clientFrame(opPing, true, payload))
			p.want(opPong, payload)
		}
		p.send(clientFrame(opPong, true, "nobody asked")) // section 5.5.3: no answer
		p.send(clientFrame(opPing, true, "after it"))
		p.want(opPong, "after it")
	})
}

// While a writer is stuck, reading goes on: of the pings that come, the newest
// is answered (section 5.5.3).
func TestOnePongWaits(t *testing.T) {
	c, p := connect(t, new(Upgrader), pipePair)
	wrote := make(chan error)
	go func() { wrote <- c.WriteMessage(TextMessage, []byte("stuck")) }()
	read := make(chan error)
	go func() {
		_, _, err := c.ReadMessage()
		read <- err
	}()
	var first [1]byte
	if _, err := p.nc.Read(first[:]); err != nil { // the write has begun
		t.Fatal(err)
	}
	p.in = append(p.in, first[0])
	for _, payload := range []string{"one", "two", "three"} {
		p.send(clientFrame(opPing, true, payload))
	}
	p.sendText("the reader isn't stuck")
	if err := <-read; err != nil {
		t.Fatalf("ReadMessage beside a stuck write: %v", err)
	}
	p.want(opText, "stuck")
	p.want(opPong, "three")
	if err := <-wrote; err != nil {
		t.Errorf("WriteMessage: %v", err)
	}
	go c.ReadMessage()
	p.send(clientFrame(opPing, true, "four"))
	p.want(opPong, "four")
}

// A peer that resets the connection leaves an error, and no part of a message.
func TestReadAfterReset(t *testing.T) {
	c, p := connect(t, new(Upgrader), tcpPair)
	p.send(textFrame("whole"), textFrame("half")[:8])
	if _, got, err := c.ReadMessage(); string(got) != "whole" || err != nil {
		t.Fatalf("ReadMessage = %q, %v; want %q", got, err, "whole")
	}
	p.nc.(*net.TCPConn).SetLinger(0)
	p.nc.Close()
	_, got, err := c.ReadMessage()
	wantEndError(t, err, EndError{By: SidePeer}, nil)
	if got != nil || errors.Is(err, net.ErrClosed) {
		t.Errorf("ReadMessage after a reset = %q, %v; want nothing and the network's error", got, err)
	}
}

// A frame that lies whole in the buffer, which is taken in one look, is held
// against the same rules as one that comes in pieces.
func TestWholeFramesAreChecked(t *testing.T) {
	fragment := clientFrame(opText, false, "begun")
	long := append([]byte{0x82, 0xFE, 0, 5, 0, 0, 0, 0}, "12345"...)
	// On the wire it is ASCII; unmasked it is C1 C1 C1 C1.
	masked := append([]byte{0x81, 0x84, 0x80, 0x80, 0x80, 0x80}, "AAAA"...)
	for _, test := range []struct {
		name string
		in   []byte
		want CloseCode
	}{
		{"a length of 5 in 16 bits", long, CloseProtocolError},
		{"a message inside another", append(fragment, textFrame("new")...), CloseProtocolError},
		{"text that is UTF-8 under its mask only", masked, CloseInvalidPayload},
		{"text that ends in a rune", textFrame("\xd0"), CloseInvalidPayload},
		{"more than the limit", textFrame("12345678901"), CloseMessageTooBig},
		{"a binary frame behind a close frame", append(closeFrame(CloseNormal, ""), clientFrame(opBinary, true, "late")...), CloseNormal},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := newRoom(t, Upgrader{MaxMessageSize: 10}).join(t, 1)[0]
			p.send(slices.Concat(textFrame("before"), test.in))
			p.want(opText, "before")
			op, payload, err := p.message()
			if err != nil || op != opClose || len(payload) < 2 || CloseCode(binary.BigEndian.Uint16([]byte(payload))) != test.want {
				t.Errorf("% x: got %v %q, %v; want close %d", test.in, op, payload, err, test.want)
			}
		})
	}
}

// A whole message counts as one for IdleTimeout.
func TestWholeMessagesAreNoted(t *testing.T) {
	const unset = -1
	s := &Server{
		Upgrader: Upgrader{IdleTimeout: time.Hour},
		Handler: Events{OnMessage: func(c *Conn, t MessageType, p []byte) {
			answer := "noted"
			if c.rare().message.Load() == unset {
				answer = "not noted"
			}
			c.WriteMessage(t, []byte(answer)) // which counts too
			c.rare().message.Store(unset)
		}},
	}
	p := serveTCP(t, s)()
	p.handshake()
	for range 3 {
		p.sendText("m")
		p.want(opText, "noted")
	}
}

// A limit that is set later holds for what comes then, in every form of a
// message, and in both ways of reading.
func TestSetMaxMessageSize(t *testing.T) {
	const first = 1000
	over := map[string]func() []byte{
		"whole": func() []byte { return textFrame(strings.Repeat("x", first+1)) },
		"fragments": func() []byte {
			return append(clientFrame(opText, false, strings.Repeat("x", first)), clientFrame(opContinuation, true, "x")...)
		},
		"its header": func() []byte { return textFrame(strings.Repeat("x", first+1))[:8] },
	}
	for name, frames := range over {
		for _, n := range []int64{0, first, first + 1, -1} {
			c, p := connect(t, &Upgrader{MaxMessageSize: first}, pipePair)
			go p.nc.Write(textFrame(strings.Repeat("x", first)))
			if _, _, err := c.ReadMessage(); err != nil {
				t.Fatal(err)
			}
			c.SetMaxMessageSize(n)
			go func() {
				p.nc.Write(frames())
				p.nc.Close()
			}()
			_, m, err := c.ReadMessage()
			tooBig := errors.Is(err, ErrMessageTooBig)
			switch {
			case n == 0 || n == first:
				if !tooBig {
					t.Errorf("%s, limit %d: %d bytes, %v; want %v", name, n, len(m), err, ErrMessageTooBig)
				}
			case name == "its header" && (tooBig || err == nil), name != "its header" && (len(m) != first+1 || err != nil):
				t.Errorf("%s, limit %d: %d bytes, %v; want them", name, n, len(m), err)
			}
		}
	}
}

// A reader whose message is being skipped is done with, also where a deadline stops
// the skipping half way.
func TestNextReaderWhileSkipping(t *testing.T) {
	c, p := connect(t, new(Upgrader), pipePair)
	message := textFrame("0123456789")
	go p.nc.Write(message[:10])
	_, old, err := c.NextReader()
	if err != nil {
		t.Fatalf("NextReader: %v", err)
	}
	if _, err := io.ReadFull(old, make([]byte, 1)); err != nil {
		t.Fatalf("Read: %v", err)
	}
	c.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
	if _, _, err := c.NextReader(); !isTimeout(err) {
		t.Fatalf("NextReader with half a message to skip = %v; want a timeout", err)
	}
	c.SetReadDeadline(time.Time{})
	go p.nc.Write(append(message[10:len(message):len(message)], textFrame("next")...))
	b := make([]byte, 10)
	if n, err := old.Read(b); n > 0 || err != errReader {
		t.Errorf("the first reader read %q, %v behind a gap; want %v", b[:n], err, errReader)
	}
	_, r, err := c.NextReader()
	if err != nil {
		t.Fatalf("NextReader: %v", err)
	}
	if got, err := io.ReadAll(r); string(got) != "next" || err != nil {
		t.Errorf("the next message = %q, %v; want %q", got, err, "next")
	}
}

// A message that is wrong at its end is no message, however often its reader is asked.
func TestNextReaderOfCutText(t *testing.T) {
	c, p := connect(t, new(Upgrader), pipePair)
	go io.Copy(io.Discard, p.nc)
	go p.nc.Write(textFrame("\xf0\x9f\x98"))
	_, r, err := c.NextReader()
	if err != nil {
		t.Fatalf("NextReader: %v", err)
	}
	io.ReadFull(r, make([]byte, 3))
	for range 2 {
		if n, err := r.Read(make([]byte, 1)); n > 0 || CloseStatus(err) != CloseInvalidPayload {
			t.Errorf("Read = %d, %v; want the end with %d", n, err, CloseInvalidPayload)
		}
	}
}
