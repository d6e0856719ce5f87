package websocket

import (
	"sync/atomic"

	"github.com/rawws/websocket/internal/deflate"
)

// Compression sets how messages are compressed with permessage-deflate
// (RFC 7692) on connections whose client offers it. The zero value is a good
// choice. A Compression may be shared; nothing is ever written to it.
//
// A client's messages may refer to its earlier ones, which makes small messages
// that resemble each other much smaller: a connection keeps what its client
// sent last, at most 32 KiB and no more than there was. The server's messages
// refer to earlier ones with ServerContext. These contexts live as long as the
// connection, since the protocol has no word to give one up with. What compresses
// and decompresses a message is pooled, and nothing else stays with an idle
// connection.
//
// A client's message can grow a thousandfold: MaxMessageSize counts the
// inflated bytes.
type Compression struct {
	// Level says how much time goes into compressing: 1, fast, or 2, which takes
	// about twice the time and saves a few percent more. 0 stands for 1; what
	// lies outside is taken for the nearest that doesn't.
	Level int

	// Threshold is the length in bytes from which on a message is compressed, if
	// that makes it shorter. 0 stands for 512, below which headers and CPU time
	// outweigh the gain; a negative number compresses all messages, those that
	// don't shrink too.
	Threshold int

	// ServerContext lets the server's messages refer to its earlier ones, where
	// the client allows it. It costs each connection a window and a table: 64 KiB
	// from the first message on, 12 KiB with a WindowBits of 12. It is for many
	// small messages of WriteMessage that resemble each other. A PreparedMessage
	// is compressed once for all connections, and refers to nothing.
	ServerContext bool

	// WindowBits bounds how far back messages refer, to 2^WindowBits bytes: 8 to
	// 15. 0 stands for 15. A client's window is bounded only if it offers
	// client_max_window_bits, as browsers do, and not below 9.
	WindowBits int

	// ContextMemory bounds what the contexts of all connections of the process
	// may take, in bytes. 0 stands for 512 MiB, which is 16,384 clients with
	// windows of 32 KiB. Once that much is promised, new connections keep none,
	// neither of the server's nor of the client's: a client that doesn't offer
	// to do without its context gets no compression. With a negative number none
	// are kept, and clients are told so, which some don't follow: Netty's refuses
	// the answer; Tornado 6 and Mojolicious keep their context all the same, and
	// are closed with 1007.
	ContextMemory int64

	// FrameSize is the number of bytes of a message, before compression, that
	// a writer got from Conn.NextWriter gathers for one frame. 0 stands for
	// 32 KiB, the largest window there is: without ServerContext frames don't
	// refer to each other.
	FrameSize int
}

const (
	defaultThreshold     = 512
	defaultFrameSize     = 32 << 10
	defaultContextMemory = 512 << 20
)

func (c *Compression) level() deflate.Level {
	if c.Level <= 1 {
		return deflate.Fast
	}
	return deflate.Better
}

func (c *Compression) threshold() int {
	if c.Threshold == 0 {
		return defaultThreshold
	}
	return max(c.Threshold, 0)
}

func (c *Compression) windowBits() int {
	if c.WindowBits == 0 {
		return deflate.MaxBits
	}
	return min(max(c.WindowBits, deflate.MinBits), deflate.MaxBits)
}

func (c *Compression) frameSize() int {
	if c.FrameSize <= 0 {
		return defaultFrameSize
	}
	return c.FrameSize
}

// contextMemory is what the contexts of all open connections may take.
var contextMemory atomic.Int64

// policy is for the next connection.
func (c *Compression) policy() deflate.Policy {
	p := deflate.Policy{Bits: c.windowBits(), Tell: c.ContextMemory < 0}
	limit := c.ContextMemory
	if limit == 0 {
		limit = defaultContextMemory
	}
	if contextMemory.Load() < limit {
		p.ClientContext, p.ServerContext = true, c.ServerContext
	}
	return p
}

// compress appends the payload of a whole message to dst. ok is false, and dst
// as it was, if the message is better sent as it is.
func (c *Compression) compress(dst, src []byte, bits int) (out []byte, ok bool) {
	if len(src) < c.threshold() {
		return dst, false
	}
	out = deflate.Append(dst, src, bits, c.level(), true)
	if c.Threshold >= 0 && len(out)-len(dst) >= len(src) {
		return out[:len(dst)], false
	}
	return out, true
}

// compressedLimit bounds the payload of a message whose inflated bytes are
// limited. A lawful sender may flush often and compress badly, but nobody has
// to receive empty blocks without end.
func compressedLimit(limit uint64) uint64 {
	if limit >= 1<<61 {
		return 1<<63 - 1 // no message is longer
	}
	return 2*limit + 1024
}
