//go:build linux && !noloop

package netloop

import "sync"

// hangups are the functions that OnHangup was given. Few sockets have one at a time,
// and none that is quiet: so a socket has no room for it.
type hangups struct {
	mu sync.Mutex
	of map[*Socket]func()
}

func (h *hangups) put(s *Socket, f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.of == nil {
		h.of = make(map[*Socket]func())
	}
	h.of[s] = f
}

func (h *hangups) remove(s *Socket) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.of, s)
}

// tell calls the function of s, if there is one.
func (h *hangups) tell(s *Socket) {
	h.mu.Lock()
	f := h.of[s]
	h.mu.Unlock()
	if f != nil {
		f()
	}
}

// OnHangup has f called when the peer closes its side, or has done so, while
// Ready runs. It is for Ready to call. f must not block, may be called more than
// once, and is forgotten when OnHangup is called with nil, or behind Done.
func (s *Socket) OnHangup(f func()) {
	if f == nil {
		s.forgetHangup()
		return
	}
	s.flags |= flagWatched
	s.set.hangups.put(s, f)
	// Who is told of the end adds it to the state first, and looks for f then.
	if s.HungUp() || s.state.Load()>>toldShift&eventsEnd != 0 {
		f()
	}
}

func (s *Socket) forgetHangup() {
	if s.flags&flagWatched != 0 {
		s.flags &^= flagWatched
		s.set.hangups.remove(s)
	}
}

// HungUp reports, inside of Ready, whether the peer has closed its side.
func (s *Socket) HungUp() bool { return s.flags&flagHungUp != 0 }
