package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/rawws/websocket/internal/peers/internal/ledger"
)

// compare holds the server's record against what the client did and saw.
func (c *client) compare(r *record) error {
	if c.wrong != nil {
		return c.wrong
	}
	return errors.Join(c.compareReceived(r), c.compareWritten(r), c.compareEnd(r))
}

// compareReceived is about what the client sent: a part of it, from the first
// message on, in order and unaltered; all of it, if the client was the one to
// end the connection and stayed to hear the answer.
func (c *client) compareReceived(r *record) error {
	n := r.Received.N
	if int(n) > len(c.sums) {
		return fmt.Errorf("the server received %d messages of %d", n, len(c.sums))
	}
	var chain ledger.Chain
	for seq, sum := range c.sums[:n] {
		chain.Add(uint32(seq), sum)
	}
	if chain != r.Received {
		return fmt.Errorf("the server received %d messages, but not the first %d that were sent: %v, want %v", n, n, r.Received, chain)
	}
	switch c.ending {
	case endClose, endFIN, endBreak:
		if r.ByPeer && n != c.sent {
			return fmt.Errorf("lost: the server received %d of %d messages; it ended with %s", n, c.sent, r.Error)
		}
	}
	return nil
}

// compareWritten is about what the server sent: nothing that it didn't, and,
// if the client has read to the end, all whose write returned nil. What Send
// took goes out when the server closes, and may be left over when the peer does.
func (c *client) compareWritten(r *record) error {
	whole := c.orderly() && c.ended()
	var failed error
	for i, s := range []struct {
		what      string
		got, want uint32
		whole     bool
	}{
		{"echoed", c.echoes, r.Echoed, whole},
		{"pushed", c.pushes, r.Pushed, whole},
		{"queued", c.sends, r.Queued, whole && !r.ByPeer && r.Clean},
	} {
		if s.got > r.Tried[i] {
			failed = errors.Join(failed, fmt.Errorf("the client got %d messages %s, of %d", s.got, s.what, r.Tried[i]))
		}
		if s.whole && s.got < s.want {
			failed = errors.Join(failed, fmt.Errorf("lost: the client got %d messages of %d %s; the server ended with %s",
				s.got, s.want, s.what, r.Error))
		}
	}
	return failed
}

// ended reports whether the stream came to the end it should have: behind a
// close frame or a FIN, not by a reset. A TLS server that cuts sends no alert.
func (c *client) ended() bool {
	return c.end == io.EOF || servers[c.server].tls && errors.Is(c.end, io.ErrUnexpectedEOF)
}

// compareEnd is about close codes, and about resets.
func (c *client) compareEnd(r *record) error {
	if c.orderly() && !c.ended() {
		return fmt.Errorf("the client's stream ended with %v, want its end; close code %d; the server ended with %s",
			c.end, c.gotCode, r.Error)
	}
	if c.soak.ending.Load() && !r.ByPeer {
		return nil // Shutdown was faster than the plan
	}
	want := record{Sent: r.Sent, Got: r.Got, ByPeer: r.ByPeer, Clean: r.Clean}
	code := c.gotCode
	switch c.ending {
	case endClose:
		want, code = record{Sent: c.closeCode, Got: c.closeCode, ByPeer: true, Clean: true}, c.closeCode
	case endFIN:
		want, code = record{ByPeer: true}, 0
	case endSlow: // its reader may have seen the close frame before it stopped
	case endCut, endReset, endStuck, endSilent:
		want.Clean = false
	case endBreak:
		code = broken[c.rule].code
		want = record{Sent: code, ByPeer: true}
	case endServer:
		code = serverCode
		if servers[c.server].blocking && !c.elsewhere {
			code = 1000
		}
		want = record{Sent: code, Got: code, Clean: true}
	case endNow:
		want, code = record{}, 0
	case endPanic:
		want.Sent, want.ByPeer, code = 1011, false, 1011
	}
	if code != c.gotCode || want.Sent != r.Sent || want.Got != r.Got || want.ByPeer != r.ByPeer || want.Clean != r.Clean {
		return fmt.Errorf("the client got close code %d, want %d; the server sent %d, got %d, by peer %t, clean %t; want %d, %d, %t, %t; it ended with %s",
			c.gotCode, code, r.Sent, r.Got, r.ByPeer, r.Clean, want.Sent, want.Got, want.ByPeer, want.Clean, r.Error)
	}
	return nil
}
