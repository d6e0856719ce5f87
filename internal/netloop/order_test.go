//go:build linux && !noloop

package netloop

import "testing"

// What Ready did before it wrote has happened when the client reads that, and the
// other way round, as with sockets of package net: the race detector says so too.
func TestBytesOrderMemory(t *testing.T) {
	_, _, nc, h := serveTold(t, "tcp")
	there, back := 0, 0
	go func() {
		<-h.ready
		b := make([]byte, 10)
		h.next <- func(s *Socket) bool {
			s.TryRead(b)
			if there != 1 {
				t.Errorf("Ready saw %d, want what was set before the client's write", there)
			}
			back = 1
			s.TryWrite(b[:1], b[:1])
			return end(s)
		}
	}()
	there = 1
	nc.Write([]byte("x"))
	if _, err := nc.Read(make([]byte, 2)); err != nil || back != 1 {
		t.Errorf("the client read %v and saw %d, want what was set before", err, back)
	}

}
