//go:build linux && !noloop

package netloop

import (
	"net"
	"testing"
)

// Nothing is left of a function that was to be told, whoever forgets it.
func TestHangupForgotten(t *testing.T) {
	count := func(h *hangups) int {
		h.mu.Lock()
		defer h.mu.Unlock()
		return len(h.of)
	}
	for name, forget := range map[string]func(*Socket){
		"OnHangup(nil)":          func(s *Socket) { s.OnHangup(nil) },
		"OnHangup(nil), twice":   func(s *Socket) { s.OnHangup(nil); s.OnHangup(nil) },
		"Done":                   func(s *Socket) {},
		"another, and then Done": func(s *Socket) { s.OnHangup(func() {}) },
	} {
		loop, s, _, h := serveTold(t, "tcp")
		set := &loop.set.hangups
		s.Notify()
		h.call(t, func(s *Socket) bool {
			s.OnHangup(func() { t.Errorf("%s: told of a peer that has stayed", name) })
			if n := count(set); n != 1 {
				t.Errorf("%s: %d functions are kept before, want 1", name, n)
			}
			forget(s)
			return end(s)
		})
		eventually(t, name+": nothing is kept", func() bool { return count(set) == 0 })
	}
}

// A call of Ready that has forgotten its function isn't told, and another socket's
// function isn't called for it.
func TestHangupOfAnother(t *testing.T) {
	loop, s, nc, h := serveTold(t, "tcp")
	_, server := pair(t)
	other, err := loop.Adopt(server)
	if err != nil {
		t.Fatal(err)
	}
	otherCalls := &told{make(chan struct{}), make(chan func(*Socket) bool)}
	if err := other.Serve(otherCalls); err != nil {
		t.Fatal(err)
	}
	watched, stay, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	other.Notify()
	other.Start()
	<-otherCalls.ready
	otherCalls.next <- func(other *Socket) bool {
		other.OnHangup(func() { t.Error("a socket was told of another's end") })
		close(watched)
		<-stay
		defer close(ended)
		return end(other)
	}
	<-watched
	s.Notify()
	h.call(t, func(s *Socket) bool {
		s.OnHangup(func() { t.Error("told behind OnHangup(nil)") })
		s.OnHangup(nil)
		nc.(*net.TCPConn).CloseWrite()
		eventually(t, "the end has come", func() bool { return s.state.Load()>>toldShift&eventsEnd != 0 })
		return false
	})
	h.call(t, end)
	close(stay)
	<-ended // before its peer is closed, of which it would be told
}
