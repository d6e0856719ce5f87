package deflate

// A Window holds the last bytes of all messages of one direction, for the next
// message to refer to. It grows with what was sent, up to its size: a peer that
// sends little costs little. From then on it is a ring, so that a message costs
// a copy of itself and not of the window.
type Window struct {
	size int
	buf  []byte
	end  int // in buf, where the next byte goes
}

// NewWindow is for a context of 2^bits bytes.
func NewWindow(bits int) *Window { return &Window{size: 1 << bits} }

// Len is the number of bytes that can be referred to.
func (w *Window) Len() int {
	if w == nil {
		return 0
	}
	return len(w.buf)
}

// Add puts p behind what is there.
func (w *Window) Add(p []byte) {
	p = p[max(0, len(p)-w.size):]
	if len(w.buf) < w.size {
		w.grow(len(p))
		n := min(len(p), w.size-len(w.buf))
		w.buf = append(w.buf, p[:n]...)
		p = p[n:]
		if w.end = len(w.buf); len(p) == 0 {
			return
		}
	}
	n := copy(w.buf[w.end:], p)
	w.end += n
	if n < len(p) {
		w.end = copy(w.buf, p[n:])
	}
}

// grow makes room for n bytes more, as far as the window's size allows.
func (w *Window) grow(n int) {
	need := min(len(w.buf)+n, w.size)
	if need <= cap(w.buf) {
		return
	}
	room := min(max(need, 2*cap(w.buf), 64), w.size)
	w.buf = append(make([]byte, 0, room), w.buf...)
}

// from gives what begins back bytes before the end, in one or two pieces. back
// is at most Len.
func (w *Window) from(back int) (first, second []byte) {
	if i := w.end - back; i >= 0 {
		return w.buf[i:w.end], nil
	} else {
		return w.buf[len(w.buf)+i:], w.buf[:w.end]
	}
}
