package websocket

import (
	"compress/flate"
	"runtime"
	"slices"
	"strconv"
	"sync"

	"github.com/rawws/websocket/internal/httphead"
)

// Compression sets how messages are compressed with permessage-deflate
// (RFC 7692) on connections whose client offers it. The zero value is a good
// choice. A Compression may be shared; nothing is ever written to it.
//
// The server always declines to keep its own context from message to message:
// the window of a flate.Writer can't be had without the whole writer, and that
// is 0.8 to 1.2 MiB for every connection. For the same reason all connections
// share a few writers, each taken for the time of one frame: there are at most
// GOMAXPROCS of them, or four if that is less, hence 1.2 MiB for each CPU
// whatever the number of connections. What inflates messages takes 40 KiB
// each; there are GOMAXPROCS of them, and a message is gathered before it takes
// one. An idle connection holds neither.
//
// A client's message can grow a thousandfold: MaxMessageSize counts the
// inflated bytes.
type Compression struct {
	// Level is that of compress/flate: 1 (flate.BestSpeed) to 9
	// (flate.BestCompression), or flate.HuffmanOnly. 0 stands for 1, the only
	// one whose writer is ready for the next message without clearing tables
	// of 640 KiB. What lies outside is taken for the nearest that isn't.
	Level int

	// Threshold is the length in bytes from which on a message is compressed.
	// 0 stands for 512, below which headers and CPU time outweigh the gain; a
	// negative number compresses all messages.
	Threshold int

	// ContextTakeover lets clients refer to their earlier messages, which
	// makes small messages that resemble each other much smaller. It costs
	// each connection a window of what its client sent last, of at most 36 KiB
	// (less if the client promises to refer less far back), idle or not.
	ContextTakeover bool

	// FrameSize is the number of bytes of a message, before compression, that
	// a writer got from Conn.NextWriter gathers for one frame. 0 stands for
	// 32 KiB, the largest window there is: frames don't refer to each other.
	FrameSize int
}

const (
	defaultThreshold = 512
	defaultFrameSize = 32 << 10
)

func (c *Compression) level() int {
	if c.Level == 0 {
		return flate.BestSpeed
	}
	return min(max(c.Level, flate.HuffmanOnly), flate.BestCompression)
}

func (c *Compression) threshold() int {
	if c.Threshold == 0 {
		return defaultThreshold
	}
	return max(c.Threshold, 0)
}

func (c *Compression) frameSize() int {
	if c.FrameSize <= 0 {
		return defaultFrameSize
	}
	return c.FrameSize
}

// The bounds of the windows, as powers of two (RFC 7692, section 7.1.2).
const (
	minWindowBits = 8
	maxWindowBits = 15
)

// deflateParams are what the two sides agreed upon. The server's messages
// never refer to earlier ones.
type deflateParams struct {
	serverBits     uint8 // our back references reach at most 2^serverBits bytes
	clientBits     uint8 // the client's, if it keeps its context
	clientTakeover bool  // the client's messages may refer to its earlier ones
}

// negotiateDeflate takes the first offer of permessage-deflate that it
// understands and can keep in full, and gives the answer to it (RFC 7692,
// section 7.1). An offer that it can't take is none that it may change: a
// parameter that is unknown, repeated or out of range leaves the next offer.
func negotiateDeflate(offers []httphead.Element, c *Compression) (p deflateParams, answer string, ok bool) {
	if c == nil || !flateReadsAsExpected() {
		return deflateParams{}, "", false
	}
	for _, e := range offers {
		if e.Name != "permessage-deflate" {
			continue
		}
		if o, ok := parseDeflateOffer(e.Params); ok {
			p, answer = o.answer(c)
			return p, answer, true
		}
	}
	return deflateParams{}, "", false
}

// A deflateOffer holds an offer's parameters. A number of bits is 0 if it
// wasn't named.
type deflateOffer struct {
	serverBits, clientBits uint8
	clientNoTakeover       bool
}

func parseDeflateOffer(params []httphead.Param) (o deflateOffer, ok bool) {
	for i, param := range params {
		repeated := slices.ContainsFunc(params[:i], func(q httphead.Param) bool { return q.Name == param.Name })
		switch param.Name {
		case "server_no_context_takeover":
			ok = param.Value == "" // never done, thus nothing to note
		case "client_no_context_takeover":
			o.clientNoTakeover, ok = true, param.Value == ""
		case "server_max_window_bits":
			o.serverBits, ok = parseWindowBits(param.Value)
		case "client_max_window_bits":
			o.clientBits, ok = parseWindowBits(param.Value)
			// Without a value it says that the answer may hold one (section 7.1.2.2).
			ok = ok || param.Value == ""
		default:
			ok = false
		}
		if !ok || repeated {
			return deflateOffer{}, false
		}
	}
	return o, true
}

// parseWindowBits takes a number from 8 to 15 without leading zeros (RFC 7692,
// section 7.1.2).
func parseWindowBits(s string) (bits uint8, ok bool) {
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil || s[0] == '0' || n < minWindowBits || n > maxWindowBits {
		return 0, false
	}
	return uint8(n), true
}

// answer says what is kept, and nothing that the client didn't ask for but the
// two takeovers, which a server may decline on its own (RFC 7692, section 7.1.1).
func (o deflateOffer) answer(c *Compression) (deflateParams, string) {
	p := deflateParams{
		serverBits:     maxWindowBits,
		clientBits:     maxWindowBits,
		clientTakeover: c.ContextTakeover && !o.clientNoTakeover,
	}
	s := "permessage-deflate; server_no_context_takeover"
	if !p.clientTakeover {
		s += "; client_no_context_takeover"
	}
	if o.serverBits != 0 {
		p.serverBits = o.serverBits
		s += "; server_max_window_bits=" + strconv.Itoa(int(o.serverBits))
	}
	// The offer's value is but a hint until it is repeated (section 7.1.2.2),
	// and it only saves memory where a window is kept.
	if o.clientBits != 0 && p.clientTakeover {
		p.clientBits = o.clientBits
		s += "; client_max_window_bits=" + strconv.Itoa(int(o.clientBits))
	}
	return p, s
}

// A slotted bounds how many of something exist: whoever holds a slot may take
// one. Those kept for later are on a stack, so that under a light load few are
// made and these stay in the cache.
type slotted[T any] struct {
	slots chan struct{} // made with the package, so that any goroutine may wait
	keep  int

	mu   sync.Mutex
	free []T // guarded by mu
}

func newSlotted[T any](slots, keep int) *slotted[T] {
	return &slotted[T]{slots: make(chan struct{}, slots), keep: keep}
}

// pop takes the newest that fits. If none does the caller makes one, for which
// the oldest has to go when the kept ones and those in the slots, the
// caller's included, are more than may be kept.
func (s *slotted[T]) pop(fits func(T) bool) (t T, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.free) - 1; i >= 0; i-- {
		if t = s.free[i]; fits(t) {
			s.free = slices.Delete(s.free, i, i+1)
			return t, true
		}
	}
	if len(s.free) > 0 && len(s.free)+len(s.slots) > s.keep {
		s.free = slices.Delete(s.free, 0, 1)
	}
	return *new(T), false
}

// push keeps t unless enough are kept.
func (s *slotted[T]) push(t T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.free) < s.keep {
		s.free = append(s.free, t)
	}
}

// deflaters work on memory alone: no more of them can be of use than there are
// CPUs, and who waits for one waits for a computation, never for a peer. Four
// at least may be kept, for connections with different levels.
var deflaters = newSlotted[*deflater](runtime.GOMAXPROCS(0), max(4, runtime.GOMAXPROCS(0)))

// A deflater is a flate.Writer that appends to out.
type deflater struct {
	w     *flate.Writer
	level int
	out   []byte
}

// Write is what the flate.Writer calls. It can't fail, hence neither can Write
// and Flush of the flate.Writer, whose errors are those of its own writer.
func (d *deflater) Write(p []byte) (int, error) {
	d.out = append(d.out, p...)
	return len(p), nil
}

func newDeflater(level int) *deflater {
	d := &deflater{level: level}
	w, err := flate.NewWriter(d, level)
	if err != nil {
		panic("websocket: a level that Compression.level can't give: " + err.Error())
	}
	d.w = w
	return d
}

// compress appends the payload of a whole message to dst. ok is false, and dst
// as it was, if the message is better sent as it is: it is below the threshold
// or doesn't shrink.
func (c *Compression) compress(dst, src []byte, p deflateParams) (out []byte, ok bool) {
	if len(src) < c.threshold() {
		return dst, false
	}
	out = p.deflate(dst, src, c.level(), true)
	if len(out)-len(dst) >= len(src) {
		return out[:len(dst)], false
	}
	return out, true
}

// deflate appends a piece of a message, compressed, to dst. The pieces of a
// message don't refer to each other, so that no writer is held between two of
// them: what they give, put one behind the other, is the payload. The last
// one, which may be empty, ends it (RFC 7692, section 7.2.1).
func (p deflateParams) deflate(dst, src []byte, level int, last bool) []byte {
	if len(src) == 0 && !last {
		return dst
	}
	deflaters.slots <- struct{}{}
	defer func() { <-deflaters.slots }()
	d, ok := deflaters.pop(func(d *deflater) bool { return d.level == level })
	if !ok {
		d = newDeflater(level)
	}
	d.out = dst
	// The writer's own window is of 32 KiB. A smaller one is kept by making it
	// forget: what it writes after Reset refers to nothing before, and what it
	// was given since reaches no further back than the window.
	for window := 1 << p.serverBits; ; {
		n := len(src)
		if p.serverBits < maxWindowBits {
			n = min(n, window)
		}
		d.w.Reset(d)
		_, _ = d.w.Write(src[:n])
		_ = d.w.Flush()
		if src = src[n:]; len(src) == 0 {
			break
		}
	}
	dst, d.out = d.out, nil
	deflaters.push(d)
	if last {
		dst = dst[:len(dst)-4] // 00 00 ff ff of the flush
	}
	return dst
}
