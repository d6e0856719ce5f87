package load

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Handshakes opens, upgrades and closes n connections, Conns of them at a
// time: connect, request, 101, close frame, the server's close frame, the end
// of the stream. In raw mode the same bytes are echoed and the client ends the
// stream. The latency is that from connecting to the whole 101.
func (l *Load) Handshakes(n int) (*Result, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	addr, err := netip.ParseAddrPort(l.Addr)
	if err != nil {
		return nil, err
	}
	h := &handshakes{Load: l, addr: addr, req: request(addr, l.extension()), left: n, slots: make([]slot, l.Conns)}
	l.events = make([]unix.EpollEvent, 512)
	l.buf = make([]byte, 16<<10)
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, err
	}
	defer h.close()
	return h.run(n)
}

type handshakes struct {
	*Load
	addr  netip.AddrPort
	req   []byte
	slots []slot
	left  int
	open  int
	count int
}

// A slot is one connection on its way.
type slot struct {
	fd    int
	at    time.Duration
	stage int // 0 awaits the 101, 1 awaits the end
	got   []byte
}

var closeFrame = appendFrame(nil, 0x80|opClose, []byte{0x03, 0xe8})

func (h *handshakes) run(n int) (*Result, error) {
	r := &Result{Messages: n}
	h.start, h.hist = time.Now(), &r.Latency
	for i := range h.slots {
		h.slots[i].fd = -1
		if err := h.begin(i); err != nil {
			return nil, err
		}
	}
	last := h.start
	for h.open > 0 {
		k, err := h.poll()
		if err != nil {
			return nil, err
		}
		if now := time.Now(); k > 0 {
			last = now
		} else if now.Sub(last) > 30*time.Second {
			return nil, fmt.Errorf("load: %d handshakes hang", h.open)
		}
		for _, ev := range h.events[:k] {
			if err := h.step(int(ev.Fd)); err != nil {
				return nil, err
			}
		}
	}
	r.Elapsed = time.Since(h.start)
	r.Latency.Seal()
	return r, nil
}

func (h *handshakes) begin(i int) error {
	if h.left == 0 {
		return nil
	}
	h.left--
	h.count++
	s := &h.slots[i]
	*s = slot{fd: -1, at: time.Since(h.start), got: s.got[:0]}
	var err error
	if s.fd, err = dial(h.addr, source(h.count, h.Sources)); err != nil {
		return err
	}
	h.open++
	if err := unix.SetNonblock(s.fd, true); err != nil {
		return err
	}
	if _, err := unix.Write(s.fd, h.req); err != nil {
		return err
	}
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}
	return unix.EpollCtl(h.epoll, unix.EPOLL_CTL_ADD, s.fd, &ev)
}

func (h *handshakes) step(i int) error {
	s := &h.slots[i]
	n, err := readSome(s.fd, h.buf)
	if errors.Is(err, io.EOF) && s.stage == 1 {
		if err := h.checkEnd(s); err != nil {
			return err
		}
		unix.Close(s.fd)
		s.fd = -1
		h.open--
		return h.begin(i)
	}
	if err != nil {
		return fmt.Errorf("load: after %q: %w", s.got, err)
	}
	s.got = append(s.got, h.buf[:n]...)
	if s.stage == 1 {
		if h.Raw && len(s.got) == len(closeFrame) {
			return unix.Shutdown(s.fd, unix.SHUT_WR)
		}
		return nil
	}
	whole := h.Raw && len(s.got) == len(h.req)
	if !h.Raw {
		head, err := checkAnswer(s.got, h.extension())
		if err != nil {
			return err
		}
		whole = head > 0
	}
	if !whole {
		return nil
	}
	h.hist.Add(time.Since(h.start) - s.at)
	s.stage, s.got = 1, s.got[:0]
	_, err = unix.Write(s.fd, closeFrame)
	return err
}

// checkEnd wants the close frame with the code that was sent, and nothing else.
func (h *handshakes) checkEnd(s *slot) error {
	if h.Raw || string(s.got) == "\x88\x02\x03\xe8" {
		return nil
	}
	return fmt.Errorf("load: close 1000 was answered with % x", s.got)
}

func (h *handshakes) close() {
	for i := range h.slots {
		if h.slots[i].fd > 0 {
			unix.Close(h.slots[i].fd)
		}
	}
	unix.Close(h.epoll)
}
