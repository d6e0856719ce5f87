package websocket

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// A writer is the sending half of a connection.
type writer struct {
	mu  sync.Mutex // frames leave one after the other, and guards the rest
	out *buffer    // frames not written yet; nil when there are none
	err error      // why nothing can be sent any more

	stream *messageStream            // between NextWriter and its Close
	pong   atomic.Pointer[pongFrame] // the answer that waits for mu

	since     atomic.Uint32 // when the write under way began, and its writeKind; 0 while none is
	written   atomic.Uint32 // bytes that the system took; it comes around
	writtenAt atomic.Uint32 // when it took the last of them
	flags     atomic.Uint32 // a set of writerFlags
}

// A writerFlag is something about a writer that others look at without mu.
type writerFlag uint32

const (
	corked   writerFlag = 1 << iota // the Events loop holds more frames
	watched                         // the registry looks whether what is held back stays for long
	full                            // the loop goes on with out, and the queue, when the socket has room
	halfSent                        // a message was begun that will never end: no other may follow it
	limited                         // LimitUnsent was called
)

func (w *writer) has(f writerFlag) bool { return w.flags.Load()&uint32(f) != 0 }

// set reports whether f wasn't set.
func (w *writer) set(f writerFlag) bool { return w.flags.Or(uint32(f))&uint32(f) == 0 }

func (w *writer) clear(f writerFlag) { w.flags.And(^uint32(f)) }

const copySize = 4 << 10 // a larger payload isn't copied behind its header

// WriteMessage sends p as one message in one frame, and returns when the
// system has taken it. Text has to be UTF-8; that is the caller's word, since
// a check would cost every sender what only one needs. p isn't kept or changed.
//
// Under Events, answers of OnMessage may be held back while more whole frames
// of the same read wait: see Flush.
//
// After an error the connection can't send any more, and every later write fails
// too; the error matches net.ErrClosed after Close and after the peer's close
// frame. Two errors send nothing and change nothing: a type that is none, and a
// write deadline that had passed before (see SetWriteDeadline). The reads go on
// until they find the end, so nothing that had arrived is lost.
func (c *Conn) WriteMessage(t MessageType, p []byte) error {
	if t != TextMessage && t != BinaryMessage {
		return fmt.Errorf("websocket: WriteMessage of %v", t)
	}
	if c.deflate != nil && len(p) >= c.reg.u.Compression.threshold() {
		return c.writeDeflated(t, p)
	}
	if err := c.lockData(); err != nil {
		return err
	}
	err := c.writeFrame(header{fin: true, opcode: opcode(t), length: uint64(len(p))}, p)
	c.wrote(err, len(p))
	c.unlockWrite()
	return err
}

// lockData locks the writer for a data frame: not inside another message.
func (c *Conn) lockData() error {
	w := &c.write
	for {
		if err := c.tooLate(); err != nil {
			return err
		}
		w.mu.Lock()
		if w.stream == nil || c.dead() != nil {
			break
		}
		done := w.stream.done
		c.unlockWrite()
		c.waitFor(done)
	}
	err := c.dead()
	if err == nil && w.has(halfSent) {
		err = errAbandoned
	}
	if err == nil {
		err = c.tooLate() // it may have waited for the writer
	}
	if err == nil && c.queue.Load() != nil {
		c.drainQueue(writeData) // what Send took comes first
		err = w.err
	}
	if err != nil {
		c.unlockWrite()
	}
	return err
}

// dead returns why nothing can be sent any more. OnClose, and whoever asks the
// Context, may know of the end before the one who made it comes to the writer.
func (c *Conn) dead() error {
	if c.write.err == nil && c.connState() == stateClosed {
		c.write.err = errClosing
	}
	return c.write.err
}

// waitFor waits for the end of another message, or for the write deadline, or until
// that is another one.
func (c *Conn) waitFor(done <-chan struct{}) {
	c.mu.Lock()
	r := c.rare()
	if r.moved == nil {
		r.moved = make(chan struct{})
	}
	moved, d := r.moved, r.deadline.Load()
	c.mu.Unlock()
	var late <-chan time.Time
	if d != nil {
		t := time.NewTimer(time.Until(*d))
		defer t.Stop()
		late = t.C
	}
	select {
	case <-done:
	case <-late:
	case <-moved:
	}
}

// wrote counts a message of n bytes of payload.
func (c *Conn) wrote(err error, n int) {
	if err == nil {
		count := c.reg.counters(c)
		count.messagesOut.Add(1)
		count.bytesOut.Add(uint64(n))
		c.touchMessage()
	}
}

// unlockWrite lets go of the writer, but not with a pong left behind: a reader
// that found it locked has left its answer there and gone on.
func (c *Conn) unlockWrite() {
	for again := true; again; again = c.release() {
		c.writePong()
	}
}

// unlockNow is unlockWrite for who serves other connections too, and must not
// wait for this one's peer to take a pong.
func (c *Conn) unlockNow() {
	if w := &c.write; w.pong.Load() != nil && !w.has(full) || c.release() {
		go c.unlockWrite() // which has taken over mu
	}
}

// release lets go of mu. Where the socket is full the loop goes on when there is
// room, with a pong that waits as well; it may have been told of the room while
// the writer was locked. Otherwise release reports whether a pong has come
// meanwhile, and mu is taken again.
func (c *Conn) release() (again bool) {
	w := &c.write
	if w.has(full) {
		w.mu.Unlock()
		c.sock.WantWrite((*loopConn)(c))
		return false
	}
	w.mu.Unlock()
	return w.lockForPong()
}

// lockForPong locks mu for a pong that waits, if nobody has it. A TryLock that fails is
// in no order with what was stored before, so that it may have looked at mu before the
// pong was there. It can't do that behind an atomic look at the pong.
func (w *writer) lockForPong() bool { return w.pong.Load() != nil && w.mu.TryLock() }

// writePong sends the pong that waits. Who holds mu is the only one to take it.
func (c *Conn) writePong() {
	w := &c.write
	if w.pong.Load() == nil || w.has(full) {
		return
	}
	f := w.pong.Swap(nil)
	if c.writeFrame(header{fin: true, opcode: opPong, length: uint64(f.n)}, f.p[:f.n]) == nil {
		c.reg.counters(c).pongsOut.Add(1)
	}
	pongFrames.Put(f)
}

// holdPong puts the pong that waits behind what is held back, so that it leaves
// with that.
func (c *Conn) holdPong() {
	w := &c.write
	if w.pong.Load() == nil || w.err != nil {
		return
	}
	f := w.pong.Swap(nil)
	c.hold(opPong, f.p[:f.n], batchSize+stashSize)
	c.reg.counters(c).pongsOut.Add(1)
	pongFrames.Put(f)
}

// hold puts a control frame behind what is held back, in a buffer of at least size
// bytes where it doesn't fit there.
func (c *Conn) hold(op opcode, p []byte, size int) {
	w := &c.write
	h := header{fin: true, opcode: op, length: uint64(len(p))}
	if c.trace != nil {
		c.trace.frameWritten(h, p)
	}
	if w.out == nil || len(w.out.b)-w.out.w < maxHeaderLen+len(p) {
		b := getBuffer(len(w.out.pending()) + size)
		b.w = copy(b.b, w.out.pending())
		free(&w.out)
		w.out = b
	}
	w.out.w = len(append(appendHeader(w.out.b[:w.out.w], h), p...))
}

// writeFrame sends a frame, after what is held back. A small payload is copied
// behind its header, a large one leaves from where it lies by writev.
func (c *Conn) writeFrame(h header, p []byte) error {
	w := &c.write
	if err := c.dead(); err != nil {
		return err
	}
	if c.trace != nil {
		c.trace.frameWritten(h, p)
	}
	small := len(p) <= copySize
	kind := writeData
	if h.opcode.control() {
		kind = writeControl
	}
	need := maxHeaderLen
	if small {
		need += len(p)
	}
	if w.out != nil && len(w.out.b)-w.out.w < need {
		if err := c.flush(nil, kind); err != nil {
			return err
		}
	}
	if w.out == nil {
		w.out = getBuffer(batchSize)
	}
	out := appendHeader(w.out.b[:w.out.w], h)
	if !small {
		w.out.w = len(out)
		return c.flush(p, kind)
	}
	w.out.w = len(append(out, p...))
	if w.has(corked) {
		c.watchHeld()
		return nil
	}
	return c.flush(nil, kind)
}

// flush writes what is held back, and p behind it, in one system call where
// the system has one for that.
func (c *Conn) flush(p []byte, kind writeKind) error {
	w := &c.write
	if w.has(full) {
		c.writeRest()
		c.reg.drains.add(c) // the loop would have gone on with the queue
	}
	if w.err != nil || w.out == nil && p == nil {
		return w.err
	}
	c.wroteOut(c.writeWaiting(w.out.pending(), p, kind))
	return w.err
}

// writeRest writes what the socket had no room for, and waits until it has.
func (c *Conn) writeRest() {
	c.write.clear(full)
	c.wroteOut(c.writeWaiting(c.write.out.pending(), nil, writeQueued))
}

// wroteOut ends a write of w.out: the buffer goes back, a failure is kept.
func (c *Conn) wroteOut(err error) {
	free(&c.write.out)
	if err != nil {
		c.writeFailed(err)
	}
}

// writeFramed sends a whole frame, after what is held back.
func (c *Conn) writeFramed(frame []byte) error {
	w := &c.write
	if len(frame) <= copySize && w.has(corked) {
		h, n, _ := parseHeader(frame)
		return c.writeFrame(h, frame[n:])
	}
	if c.trace != nil && w.err == nil {
		c.trace.framedWritten(frame)
	}
	return c.flush(frame, writeData)
}

// writeFailed makes the failure the answer to every write to come, and wakes
// those that wait for another message's end. A peer that reset or closed the
// stream may have sent whole messages before, so the reads find the end by
// themselves, for as long as something comes; after a deadline half a frame may
// stand on the stream, and nobody reads at the other side: the connection is
// cut. A write that the end of the connection woke has that for its error.
func (c *Conn) writeFailed(err error) {
	w := &c.write
	if c.connState() == stateClosed {
		err = c.endError()
	}
	w.err = explain("write", err)
	w.clear(full)
	w.giveUpStream()
	c.rare().failed.Store(c.reg.now.Load())
	if c.connState() != stateClosed && isTimeout(err) {
		c.reg.total.writeStalls.Add(1)
		go c.finish(&EndError{By: SidePeer, Err: w.err}) // it needs the lock that is held here
		return
	}
	c.lookSoon()
}

// Flush sends what is held back. Under Events, while OnMessage runs and more
// whole frames of the same read wait for it, what is written to the connection
// is gathered, and one write takes it all when the last of them is handled or
// 16 KiB have come together. An OnMessage that goes on for long after it wrote
// calls Flush, or the peer waits for it, up to half a second. What other
// goroutines write in that time goes the same way, to keep its place. Nothing
// else is ever held back. Errors are those of WriteMessage.
func (c *Conn) Flush() error {
	c.write.mu.Lock()
	defer c.unlockWrite()
	if c.write.out != nil {
		if err := c.tooLate(); err != nil {
			return err
		}
	}
	return c.flush(nil, writeData)
}

// flushBatch is Flush at the end of a batch. Who wrote the answers had a deadline
// that hadn't passed, and may have forgotten it: that ends nothing. Where the socket is
// full the loop goes on by itself, and the messages to come needn't wait for that.
func (c *Conn) flushBatch() {
	c.write.mu.Lock()
	defer c.unlockWrite()
	if c.write.has(full) {
		return
	}
	kind := writeData
	if c.tooLate() != nil {
		kind = writeQueued
	}
	c.flush(nil, kind)
}

// watchHeld has the registry flush what is held back if it stays for long: a
// callback of the batch is slow.
func (c *Conn) watchHeld() {
	if !c.write.has(watched) && c.write.set(watched) {
		c.reg.watchHeld(c)
	}
}

// flushHeld flushes what was held back, and never waits.
func (c *Conn) flushHeld() {
	w := &c.write
	if !w.mu.TryLock() {
		c.watchHeld() // who writes may hold it back, too
		return
	}
	if w.err != nil || w.out == nil || w.has(full) {
		c.unlockNow()
		return
	}
	c.flushNow(writeQueued, false)
}

// flushNow writes what is held back, a close frame as the last of it or not, as far
// as the socket takes it at once. A goroutine waits for the rest and ends with it.
// The caller holds write.mu, which is let go.
func (c *Conn) flushNow(kind writeKind, closing bool) {
	w := &c.write
	if c.canTry() {
		n, err := c.tryWrite(w.out.pending())
		if w.out.r += n; err != nil || w.out.r == w.out.w {
			c.wroteOut(err)
			if err == nil && closing {
				c.sentClose()
			}
			c.unlockNow()
			return
		}
	}
	go func() {
		if c.flush(nil, kind) == nil && closing {
			c.sentClose()
		}
		c.unlockWrite()
	}()
}

// uncork ends a batch: what was held back leaves, and nothing is from here on.
func (c *Conn) uncork() {
	if c.write.has(corked) {
		c.write.clear(corked)
		c.flushBatch()
	}
}

// Ping sends a ping with a payload of at most 125 bytes (RFC 6455, section
// 5.5.2); a longer one is an error, and nothing is sent. Other errors are those of
// WriteMessage. Nothing tells of its pong: the keep-alive sends pings of its own,
// and it is their answers that RTT measures.
func (c *Conn) Ping(payload []byte) error {
	if len(payload) > maxControlPayloadLen {
		return fmt.Errorf("websocket: ping with a payload of %d bytes (RFC 6455, section 5.5)", len(payload))
	}
	c.write.mu.Lock()
	defer c.unlockWrite()
	err := c.writeFrame(header{fin: true, opcode: opPing, length: uint64(len(payload))}, payload)
	if err == nil {
		c.reg.counters(c).pingsOut.Add(1)
	}
	return err
}

// A pongFrame is the one pong that may wait for the writer.
type pongFrame struct {
	n int
	p [maxControlPayloadLen]byte
}

var pongFrames = sync.Pool{New: func() any { return new(pongFrame) }}

// answerPing sends the pong, or leaves it to whoever is writing: the reader
// never waits for a writer that is stuck. A pong that waits already is replaced
// (section 5.5.3).
func (c *Conn) answerPing(p []byte) {
	w := &c.write
	f := pongFrames.Get().(*pongFrame)
	f.n = copy(f.p[:], p)
	if old := w.pong.Swap(f); old != nil {
		pongFrames.Put(old)
	}
	if w.lockForPong() { // or whoever holds it finds the pong
		c.unlockWrite()
	}
}

// tryControl sends a control frame without ever waiting, for the sweeper: what
// the socket doesn't take at once is left to a goroutine that ends with it. It
// reports false when a writer is at work, or nothing can be sent any more.
func (c *Conn) tryControl(op opcode, payload []byte) bool {
	w := &c.write
	if !w.mu.TryLock() {
		return false
	}
	if w.err != nil || w.has(full) || op == opClose && (w.stream != nil || c.hasQueued()) {
		c.unlockNow()
		return false
	}
	c.hold(op, payload, stashSize)
	c.flushNow(writeControl, op == opClose)
	return true
}
