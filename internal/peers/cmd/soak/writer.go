package main

import (
	"encoding/binary"
	"time"

	"github.com/rawws/websocket/internal/peers/internal/ledger"
	"github.com/rawws/websocket/internal/peers/internal/ws"
)

// write sends the messages and ends the connection, as the plan says.
func (c *client) write() {
	var buf []byte
	for seq := uint32(0); seq < c.messages; {
		buf = buf[:0]
		batch := 1
		if c.rand.IntN(3) == 0 {
			batch = 1 + c.rand.IntN(16)
		}
		var sums []uint32
		for ; batch > 0 && seq < c.messages; batch-- {
			var sum uint32
			buf, sum = c.appendMessage(buf, seq)
			sums = append(sums, sum)
			seq++
			if len(buf) > 256<<10 {
				break
			}
		}
		c.sums = append(c.sums, sums...)
		if c.send(buf) != nil {
			return // the server ends it, says the plan, or the ledger will say
		}
		c.sent += uint32(len(sums))
		c.soak.sent.Add(int64(len(sums)))
		pause(c.rand, c.pace)
	}
	c.finish()
}

// appendMessage appends message seq in as many frames as it happens, with
// pings between them.
func (c *client) appendMessage(dst []byte, seq uint32) ([]byte, uint32) {
	p, text := c.soak.maker.Append(nil, ledger.Client, c.id, seq)
	h, err := ledger.Parse(p)
	if err != nil {
		panic(err) // it was made a line above
	}
	first := byte(ws.Binary)
	if text {
		first = ws.Text
	}
	if c.deflate && c.rand.IntN(3) > 0 {
		p, first = ws.Deflate(p), first|ws.Rsv1
	}
	pieces := 1
	if c.rand.IntN(4) == 0 {
		pieces += c.rand.IntN(5)
	}
	for ; pieces > 1; pieces-- {
		n := 0
		if len(p) > 0 {
			n = c.rand.IntN(len(p))
		}
		dst = ws.AppendFrame(dst, first, c.key(), p[:n])
		p, first = p[n:], ws.Continuation
		if c.rand.IntN(3) == 0 {
			dst = c.appendPing(dst)
		}
	}
	dst = ws.AppendFrame(dst, first|ws.Fin, c.key(), p)
	if c.rand.IntN(10) == 0 {
		dst = c.appendPing(dst)
	}
	return dst, h.Sum
}

func (c *client) key() (k [4]byte) {
	binary.BigEndian.PutUint32(k[:], c.rand.Uint32())
	return k
}

func (c *client) appendPing(dst []byte) []byte {
	n := c.pings.Add(1)
	return ws.AppendFrame(dst, ws.Fin|ws.Ping, c.key(), binary.BigEndian.AppendUint32(nil, n))
}

// finish ends the connection, or leaves that to the server.
func (c *client) finish() {
	switch c.ending {
	case endClose:
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.closed {
			c.closed = true
			var p []byte
			if c.closeCode != 1005 {
				p = ws.ClosePayload(c.closeCode, "as planned")
			}
			c.sendLocked(ws.AppendFrame(nil, ws.Fin|ws.Close, c.key(), p))
		}
	case endFIN:
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.closed {
			c.closed = true
			c.tcp.CloseWrite()
		}
	case endCut, endReset:
		c.partial()
	case endBreak:
		c.breakRule()
	case endStuck, endSlow, endSilent:
		// The reader may be inside of a read; what it has come to is its last.
		close(c.deaf)
		c.nc.SetReadDeadline(time.Unix(1, 0))
	}
}

// partial sends a part of a frame, or nothing, and goes.
func (c *client) partial() {
	p, _ := c.soak.maker.Append(nil, ledger.Client, c.id, c.messages) // one that isn't in the ledger
	b := ws.AppendFrame(nil, ws.Fin|ws.Binary, c.key(), p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.closed = true
		c.nc.SetWriteDeadline(time.Now().Add(patience))
		c.nc.Write(b[:c.rand.IntN(min(len(b), 64<<10))])
		if c.ending == endReset {
			c.tcp.SetLinger(0)
		}
		c.tcp.Close()
	}
}

// breakRule sends what no client may, and more behind it: the answer has to
// come all the same.
func (c *client) breakRule() {
	b := append([]byte(nil), broken[c.rule].bytes...)
	if c.id%3 == 0 {
		b = append(b, make([]byte, 100<<10)...)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.closed = true
	c.nc.SetWriteDeadline(time.Now().Add(patience))
	c.nc.Write(b)
}
