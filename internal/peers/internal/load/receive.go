package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Receivers are connections that send nothing and receive what a server
// broadcasts: messages made by StampMessage, numbered from 1 on.
type Receivers struct {
	Load
	Body []byte // what every payload has behind its stamp

	got   []uint64 // the number of the last message, for each connection
	heads [][StampLen]byte
}

// StampMessage writes a message's number, and the time, to the start of p.
func StampMessage(p []byte, number uint64) {
	binary.BigEndian.PutUint64(p, number)
	binary.BigEndian.PutUint64(p[8:], uint64(monotonic()))
}

// StampLen is the length of what StampMessage writes.
const StampLen = 16

// monotonic is a clock that all processes of the machine share.
func monotonic() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // every Linux has it
	}
	return time.Duration(ts.Nano())
}

// Open connects and upgrades every connection. Close must be called, also
// after an error.
func (r *Receivers) Open() error {
	r.got = make([]uint64, r.Conns)
	r.heads = make([][StampLen]byte, r.Conns)
	return r.Load.Open()
}

// Await reads until every connection has message number last. The latency is
// that from the stamp to the end of the message.
func (r *Receivers) Await(last uint64, limit time.Duration) (*Result, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	res := &Result{}
	start, left := time.Now(), 0
	for _, got := range r.got {
		left += int(last - got)
	}
	for left > 0 {
		n, err := unix.EpollWait(r.epoll, r.events, 100)
		if err != nil && err != unix.EINTR {
			return nil, err
		}
		if time.Since(start) > limit {
			return nil, fmt.Errorf("load: %d messages are missing after %v", left, limit)
		}
		now := monotonic()
		for _, ev := range r.events[:max(n, 0)] {
			count, err := r.receive(int(ev.Fd), now, &res.Latency)
			if err != nil {
				return nil, fmt.Errorf("connection %d: %w", ev.Fd, err)
			}
			left -= count
		}
	}
	res.Elapsed, res.Messages = time.Since(start), int(res.Latency.Count)
	res.Latency.Seal()
	return res, nil
}

// receive takes what one socket has, and returns how many messages that ended.
func (r *Receivers) receive(i int, now time.Duration, hist *Hist) (count int, err error) {
	c := &r.conns[i]
	for {
		n, err := readSome(c.fd, r.buf)
		if err != nil {
			return count, err
		}
		for b := r.buf[:n]; len(b) > 0; {
			taken, whole, err := r.take(i, b)
			if err != nil {
				return count, err
			}
			b = b[taken:]
			if whole {
				count++
				hist.Add(now - time.Duration(binary.BigEndian.Uint64(r.heads[i][8:])))
			}
		}
		if n < len(r.buf) {
			return count, nil
		}
	}
}

// take uses up some of b, at most to the end of a message.
func (r *Receivers) take(i int, b []byte) (taken int, whole bool, err error) {
	c := &r.conns[i]
	if !c.inFrame {
		if taken, err = c.feedHead(b); err != nil || !c.inFrame {
			return taken, false, err
		}
	}
	n := int(min(uint64(len(b)-taken), c.left))
	p := b[taken : taken+n]
	taken += n
	c.left -= uint64(n)
	if c.op >= opClose {
		c.control = append(c.control, p...)
	} else if err := r.check(i, p); err != nil {
		return taken, false, err
	}
	if c.left > 0 {
		return taken, false, nil
	}
	c.inFrame = false
	if c.op >= opClose {
		if err := c.endFrame(&r.Load, nil); err != nil || !c.closed {
			return taken, false, err
		}
		return taken, false, errors.New("load: the server closed the connection")
	}
	return taken, c.fin, r.end(i)
}

// check compares a piece of a message with what it has to be.
func (r *Receivers) check(i int, p []byte) error {
	c := &r.conns[i]
	if c.off < StampLen {
		n := copy(r.heads[i][c.off:], p)
		c.off += n
		p = p[n:]
	}
	at := c.off - StampLen
	if at < 0 || len(p) == 0 {
		return nil
	}
	if c.off += len(p); at+len(p) > len(r.Body) {
		return fmt.Errorf("load: a message of more than %d bytes", StampLen+len(r.Body))
	}
	if len(p) > 64 { // a short look at each piece
		at, p = at+len(p)-64, p[len(p)-64:]
	}
	if string(p) != string(r.Body[at:at+len(p)]) {
		return fmt.Errorf("load: message %d differs within bytes %d to %d", r.got[i]+1, StampLen+at, StampLen+at+len(p))
	}
	return nil
}

// end is called behind the last byte of a frame.
func (r *Receivers) end(i int) error {
	c := &r.conns[i]
	if !c.fin {
		return nil
	}
	number := binary.BigEndian.Uint64(r.heads[i][:])
	if c.off != StampLen+len(r.Body) || number != r.got[i]+1 {
		return fmt.Errorf("load: message %d of %d bytes; want message %d of %d", number, c.off, r.got[i]+1, StampLen+len(r.Body))
	}
	r.got[i]++
	return nil
}
