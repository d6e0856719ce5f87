package websocket

import (
	"sync/atomic"
	"time"
)

// rateWindow is the time over which MinRate is measured.
const rateWindow = 30 * time.Second

// A rateMeter measures, where MinRate is set, how fast the message under way
// comes, and how fast what waits to go is taken.
type rateMeter struct {
	bytes atomic.Int64 // received
	begun atomic.Int64 // when the message under way began; 0 between two

	in, out rateSpan // the sweeper's alone
}

// A rateSpan is a time in which a peer may show what it can.
type rateSpan struct {
	since, bytes int64
	target       int64 // of what comes, the message; of what goes, where the bytes end that waited
}

var (
	errSlowSender = &ProtocolError{ClosePolicyViolation, "a message came with less than MinRate", ""}
	errSlowReader = &ProtocolError{ClosePolicyViolation, "a message was taken with less than MinRate", ""}
)

// tooSlow reports which way the connection has been slower than MinRate for
// half a minute; nil for neither.
func (c *Conn) tooSlow(now int64) *ProtocolError {
	if c.reg.u.MinRate <= 0 {
		return nil
	}
	m, k := c.rare().rate, &c.clock
	least := int64(rateWindow/time.Second) * int64(c.reg.u.MinRate)
	if begun := m.begun.Load(); begun == 0 || begun != m.in.target || !c.awaitsBytes() {
		m.in = rateSpan{now, m.bytes.Load(), begun} // between messages, or we are the slow ones
	} else if m.in.over(now) {
		if m.bytes.Load()-m.in.bytes < least {
			return errSlowSender
		}
		m.in = rateSpan{now, m.bytes.Load(), begun}
	}
	taken := k.written - k.unsent
	if int32(taken-uint32(m.out.target)) >= 0 {
		m.out = rateSpan{now, int64(taken), int64(k.written)}
		if c.write.underWay() != 0 {
			m.out.target++ // more waits than the system has
		}
	} else if m.out.over(now) {
		if int64(taken-uint32(m.out.bytes)) < least {
			return errSlowReader
		}
		m.out.since, m.out.bytes = now, int64(taken)
	}
	return nil
}

func (s *rateSpan) over(now int64) bool { return now-s.since >= int64(rateWindow) }

// messageBegun and messageEnded note when a message is under way.
func (c *Conn) messageBegun() {
	if c.reg.u.MinRate > 0 {
		c.rare().rate.begun.Store(c.reg.now.Load())
	}
}

func (c *Conn) messageEnded() {
	if c.reg.u.MinRate > 0 {
		c.rare().rate.begun.Store(0)
	}
}

// closeTooSlow ends a connection that is slower than MinRate. One that doesn't
// read may not read the close frame either, and has CloseTimeout for it.
func (c *Conn) closeTooSlow(now int64, e *ProtocolError) {
	reason := "sending too slowly"
	if e == errSlowReader {
		reason = "reading too slowly"
	}
	c.rare().closeBy.Store(now + int64(c.reg.u.closeTimeout()))
	if !c.beginClose(&EndError{By: SideServer, Err: e, code: e.Code, reason: reason}) {
		return
	}
	c.dropQueue()
	if e == errSlowSender {
		go c.closeAndWait()
	} else { // behind the message that it doesn't take there is no use in waiting
		c.tryControl(opClose, appendClosePayload(nil, e.Code, reason))
	}
}
