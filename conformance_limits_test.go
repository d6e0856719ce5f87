package websocket

import (
	"math"
	"runtime"
	"strings"
	"testing"
)

// fragmentsOf is the beginning of a message: n frames with the payloads that
// payload gives.
func fragmentsOf(n int, payload func(i int) string) (stream []byte) {
	for i := range n {
		f := vectorFrame{key: []byte{1, 2, 3, 4}, form: 7}
		if i == 0 {
			f.opcode = 0x2
		}
		f.payload = []byte(payload(i))
		f.length = uint64(len(f.payload))
		stream = f.appendTo(stream)
	}
	return stream
}

// A message of a million fragments is refused for their number, at the frame
// that is one too many and not before, and in the memory of a small one.
func TestTinyFragments(t *testing.T) {
	for _, test := range []struct {
		name    string
		n       int
		payload func(i int) string
		taken   int // frames before the refusal
	}{
		{"900,000 of one byte", 900_000, func(int) string { return "x" }, 131072},
		{"a million without any", 1_000_000, func(int) string { return "" }, 64},
		{"a byte behind each 64 without any", 900_000, func(i int) string { return "x"[min(i%65, 1):] }, 131072},
	} {
		stream := fragmentsOf(test.n, test.payload)
		taken := len(fragmentsOf(test.taken, test.payload))
		for _, w := range servings {
			v := &conformanceCase{name: test.name}
			s := &scriptConn{
				pieces: [][]byte{[]byte(conformanceRequest), stream[:taken], stream[taken:]},
				waits:  checkHeld(t, v),
			}
			o := w.run(t, v, s)
			want := []wireFrame{{0x8, []byte("\x03\xf0" + anyReason)}}
			if err := o.compare(nil, want, "refused 1008"); err != nil {
				t.Errorf("%s: %v: %v", test.name, w, err)
			}
			if w.loop != nil { // which doesn't tell when it waits
				continue
			}
			if answered := s.out[:s.atLast]; answered[len(answered)-1] != '\n' {
				t.Errorf("%s: %v: refused before frame %d", test.name, w, test.taken+1)
			}
		}
	}
}

// allocated returns what serving these bytes allocates, at the least of some
// runs: a pool may be empty by chance.
func (w serving) allocated(t *testing.T, v *conformanceCase) uint64 {
	least := uint64(math.MaxUint64)
	for range 10 {
		var before, after runtime.MemStats
		s := &scriptConn{quiet: true, pieces: [][]byte{[]byte(conformanceRequest), v.in}}
		runtime.ReadMemStats(&before)
		w.run(t, v, s)
		runtime.ReadMemStats(&after)
		least = min(least, after.TotalAlloc-before.TotalAlloc)
	}
	return least
}

// A length that was only declared costs nothing when it is refused, and 64 KiB
// ahead of what has come when it isn't. (slices.Grow makes the room twice under
// the race detector.)
func TestDeclaredLength(t *testing.T) {
	const slack = 32 << 10 // buffers that the race detector keeps out of the pools
	for _, test := range []struct {
		declared uint64
		come     int
		want     uint64
	}{
		{1 << 62, 0, 0},
		{1<<63 - 1, 1000, 0},
		{1<<20 + 1, 0, 0},
		{1 << 20, 0, 64 << 10},
		{1 << 20, 1, 64 << 10},
		{1 << 20, 5000, 64 << 10},
		{1 << 20, 64 << 10, 64<<10 + 256<<10},
		{1 << 20, 300_000, 64<<10 + 256<<10 + 1<<20},
	} {
		f := vectorFrame{bits: 0x80, key: make([]byte, 4), form: 7, length: test.declared}
		f.opcode, f.payload = 0x2, make([]byte, test.come)
		v := &conformanceCase{name: "declared", in: f.appendTo(nil)}
		for _, w := range servings[:3] { // the fourth puts the message together itself
			w.interrupt = false
			none := w.allocated(t, &conformanceCase{in: []byte{0x88, 0x80, 0, 0, 0, 0}})
			got := w.allocated(t, v)
			if got > none+2*test.want+slack {
				t.Errorf("%v: %d bytes declared, %d come: %d bytes allocated, want at most %d",
					w, test.declared, test.come, got-none, 2*test.want+slack)
			}
		}
	}
}

// While a frame drips in, Events never hold more than 64 KiB, or three times as
// much again, ahead of what has come.
func TestMemoryAhead(t *testing.T) {
	f := vectorFrame{bits: 0x80, key: []byte{1, 2, 3, 4}, form: 7, length: 1 << 20}
	f.opcode, f.payload = 0x2, make([]byte, 1<<20)
	stream := []byte(conformanceRequest + string(f.appendTo(nil)))
	for _, w := range servings[:2] {
		s := &scriptConn{quiet: true, pieces: inPiecesOf(stream, 1000)}
		s.waits = func(c *Conn) {
			come := 0
			if c.read.fin {
				come = int(c.read.size - c.read.left)
			}
			if got := held(c); got > come+max(3*come, 64<<10)+2*batchSize {
				t.Fatalf("%v: %d bytes held when %d have come", w, got, come)
			}
		}
		w.run(t, &conformanceCase{name: "ahead"}, s)
	}
}

// Half a message of 64 KiB holds no buffer to read into beside the one for it.
func TestMemoryOfHalfAMessage(t *testing.T) {
	f := vectorFrame{bits: 0x80, key: []byte{1, 2, 3, 4}, form: 7, length: 60_000}
	f.opcode, f.payload = 0x2, []byte("x")
	for _, w := range servings[:3] {
		w.interrupt = false
		halves := 0
		s := &scriptConn{quiet: true, pieces: [][]byte{[]byte(conformanceRequest), f.appendTo(nil), []byte("y")}}
		s.waits = func(c *Conn) {
			if !c.read.started {
				return
			}
			halves++
			if got := held(c); got > 64<<10 {
				t.Errorf("%v: %d bytes held for one that came, want at most 64 KiB", w, got)
			}
		}
		if w.run(t, &conformanceCase{name: "half"}, s); halves == 0 {
			t.Errorf("%v: no wait inside of a message", w)
		}
	}
}

// A message as large as may be, in one frame or in many, stays within the
// limit plus 256 KiB, whatever the limit.
func TestMemoryOfLargeMessages(t *testing.T) {
	for _, limit := range []int{70_000, 1 << 20, 1_100_000, 3_000_000} {
		v := &conformanceCase{name: "large", closes: true, code: 1000}
		v.u.MaxMessageSize = int64(limit)
		f := vectorFrame{bits: 0x80, key: []byte{1, 2, 3, 4}, form: 7, length: uint64(limit)}
		f.opcode, f.payload = 0x2, make([]byte, limit)
		kilobyte := string(make([]byte, 1000))
		for _, in := range [][]byte{f.appendTo(nil), fragmentsOf(limit/1000, func(int) string { return kilobyte })} {
			for _, w := range servings[:2] {
				s := &scriptConn{quiet: true, pieces: inPiecesOf([]byte(conformanceRequest+string(in)), 1460)}
				s.waits = checkHeld(t, v)
				v.in = in
				if o := w.run(t, v, s); o.end != "lost" || len(o.faults) > 0 {
					t.Errorf("limit %d, %v: end %s, faults %v; want lost, none", limit, w, o.end, o.faults)
				}
			}
		}
	}
}

// Fragments of a byte behind a message that no pool has a buffer for aren't a copy of
// it each: one of 16 MiB, or a compressed one that is larger than what it holds may be.
func TestFragmentsBehindMuch(t *testing.T) {
	const empty = "\x00\x00\x00\xff\xff" // a stored block of no bytes
	for _, test := range []struct {
		name      string
		limit     int64
		first     string
		fragments int
	}{
		{"plain", 64 << 20, string(make([]byte, 1<<24)), 100},
		{"compressed", 256 << 10, strings.Repeat(empty, 256<<10/len(empty)+1), 5000},
	} {
		v := &conformanceCase{name: test.name}
		stream := clientFrame(opBinary, false, test.first)
		if test.name == "compressed" {
			v.deflate("permessage-deflate")
			withRSV1(stream)
		}
		v.u.MaxMessageSize = test.limit
		for i := range test.fragments {
			stream = append(stream, clientFrame(opContinuation, false, empty[i%5:i%5+1])...)
		}
		stream = append(stream, clientFrame(opContinuation, true, "\x00")...)
		stream = append(stream, closeFrame(CloseNormal, "")...)
		for _, w := range servings[:2] {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			o := w.run(t, v, &scriptConn{quiet: true, pieces: [][]byte{[]byte(v.request()), stream}})
			runtime.ReadMemStats(&after)
			if o.end != `closed 1000 ""` || len(o.faults) > 0 {
				t.Errorf("%s, %v: end %s, faults %v; want a close with 1000", test.name, w, o.end, o.faults)
			}
			most := uint64(8 * len(test.first))
			if got := after.TotalAlloc - before.TotalAlloc; got > most {
				t.Errorf("%s, %v: %d bytes allocated for %d fragments behind %d bytes; want at most %d",
					test.name, w, got, test.fragments, len(test.first), most)
			}
		}
	}
}
