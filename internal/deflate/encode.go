package deflate

import "sync"

// A Level says how much time goes into finding what repeats itself.
type Level uint8

const (
	Fast   Level = iota // takes the last place where the same four bytes were
	Better              // looks at four places, and at what begins a byte later
)

// A Compressor keeps the context of the messages of one direction: a window of
// 2^bits bytes, which grows with what is sent, and a table of at most 32 KiB,
// which is made with the first message. With 12 bits that is 12 KiB, with 15 it
// is 64. It is for one goroutine at a time.
type Compressor struct {
	level  Level
	window Window
	table  []uint32
	base   uint32 // the position of the next byte
}

// NewCompressor is for a context that reaches back 2^bits bytes.
func NewCompressor(bits int, level Level) *Compressor {
	return &Compressor{level: level, window: Window{size: 1 << bits}, base: firstBase}
}

// Append appends to dst a piece of a message, compressed. What it gives for the
// pieces of a message, one behind the other, is the payload. The last piece,
// which may be empty, is final.
func (c *Compressor) Append(dst, src []byte, final bool) []byte {
	if c.table == nil {
		c.table = make([]uint32, tableSize(c.window.size))
	}
	if c.base > lastBase {
		clear(c.table)
		c.base = firstBase
	}
	e := encoders.Get().(*encoder)
	m := matcher{
		src: src, table: c.table, base: c.base,
		farthest: c.window.size, history: &c.window, before: c.window.Len(),
	}
	dst = e.append(dst, &m, c.level, final)
	encoders.Put(e)
	c.window.Add(src)
	c.base += uint32(len(src))
	return dst
}

// Append is for a message, or a piece of one, that refers to nothing before it,
// and to nothing more than 2^bits bytes back. It keeps nothing.
func Append(dst, src []byte, bits int, level Level, final bool) []byte {
	e := encoders.Get().(*encoder)
	if e.base > lastBase {
		clear(e.table[:])
		e.base = firstBase
	}
	// A short message shall not spread over more of the cache than it has to.
	size := 1 << min(max(bitLen(len(src))+1, 8), tableBits)
	m := matcher{src: src, table: e.table[:size], base: e.base, farthest: 1 << bits}
	dst = e.append(dst, &m, level, final)
	e.base += uint32(len(src))
	encoders.Put(e)
	return dst
}

// tableSize is the number of entries for a window of so many bytes.
func tableSize(window int) int { return min(window/2, 8<<10) }

// Sent notes a message that went out compressed by the function Append: the
// receiver has it in its window.
func (c *Compressor) Sent(message []byte) {
	c.window.Add(message)
	c.base += uint32(len(message))
}

const (
	tableBits = 14

	// Positions go on from message to message, so that no table has to be
	// cleared for a new one: what is in it lies too far back. An empty entry,
	// 0, does so from the beginning. Long before positions begin again at 0
	// the table is cleared. A message that is longer than what is left then
	// may find places that aren't the last ones, but what lies there is always
	// compared.
	firstBase = 1 << (MaxBits + 1)
	lastBase  = 1 << 31
)

// An encoder is what it takes to compress a piece of a message.
type encoder struct {
	block block
	base  uint32
	table [1 << tableBits]uint32
	steps int // work of the last call, for tests: places looked at, and words compared
}

var encoders = sync.Pool{New: func() any { return &encoder{base: firstBase} }}

func (e *encoder) append(dst []byte, m *matcher, level Level, final bool) []byte {
	w := writer{out: dst[:cap(dst)], n: len(dst)}
	m.prepare(level)
	m.block = &e.block
	for begin := 0; begin < len(m.src); begin += blockSize {
		end := min(begin+blockSize, len(m.src))
		e.block.reset(m.src[begin:end])
		if level == Fast {
			m.fast(begin, end)
		} else {
			m.better(begin, end)
		}
		w.block(&e.block)
	}
	e.steps = m.steps
	e.block.src = nil
	w.reserve(5)
	w.put(blockStored, 3)
	w.align()
	if !final {
		w.put(0xffff0000, 32)
	}
	return w.out[:w.n]
}
