package deflate

import (
	"encoding/binary"
	"math"
	"sync"
)

// A decoder takes one message out of its payload.
type decoder struct {
	src  []byte
	pos  int    // in src, of the bytes that aren't in acc yet
	acc  uint64 // the next bits, the first one lowest
	bits uint   // of them, as far as they count

	out    []byte // all the room there is, up to the limit
	n      int    // bytes of out in use
	begin  int    // of the message in out
	stream int    // of what may be referred to in out
	most   int    // where out may end
	window *Window
	memory Memory // where more room comes from; nil for the garbage collector's
	steps  int    // work done, for tests: entries of tables, symbols and blocks

	used    [maxLit + maxDist]codeLength
	pre     [1 << maxPreBits]entry
	dynamic tables
}

var decoders = sync.Pool{New: func() any { return new(decoder) }}

// Decompress appends to dst what a message's payload src decompresses to. The
// message may refer to what is in w, to which it is added; w is nil if the
// context isn't kept. A message longer than limit is ErrTooLong; a negative
// limit is none. With any error what came out before is returned, and w must
// not be used any more.
//
// A message may hold several final blocks (RFC 7692, section 7.2.3.4). Behind
// one begins a stream of its own, at a whole byte, which refers to nothing
// before it. A message ends with an empty stored block without its length, and
// with nothing else; but no payload at all is an empty message too, as several
// clients send it.
func Decompress(dst, src []byte, w *Window, limit int) ([]byte, error) {
	return DecompressInto(nil, dst, src, w, limit)
}

// A Memory has room for messages of any size.
type Memory interface {
	// Grow returns b with room for n bytes more behind it at least. Whoever has called
	// it doesn't use b any more.
	Grow(b []byte, n int) []byte
}

// DecompressInto is Decompress with more room from m, if that isn't nil, when dst is
// too small.
func DecompressInto(m Memory, dst, src []byte, w *Window, limit int) ([]byte, error) {
	d := decoders.Get().(*decoder)
	d.memory = m
	out, err := d.message(dst, src, w, limit)
	d.release()
	decoders.Put(d)
	return out, err
}

func (d *decoder) message(dst, src []byte, w *Window, limit int) ([]byte, error) {
	d.src, d.pos, d.acc, d.bits = src, 0, 0, 0
	d.begin, d.stream, d.n, d.steps = len(dst), len(dst), len(dst), 0
	d.most = math.MaxInt
	if limit >= 0 && limit < math.MaxInt-len(dst) {
		d.most = len(dst) + limit
	}
	d.out = dst[:min(cap(dst), d.most)]
	d.window = w
	var err error
	if len(src) > 0 {
		err = d.blocks()
	}
	out := d.out[:d.n]
	if w != nil && err == nil {
		w.Add(out[d.begin:])
	}
	return out, err
}

// release lets go of all that belongs to the message.
func (d *decoder) release() { d.src, d.out, d.window, d.memory = nil, nil, nil, nil }

// blocks goes on until the empty block that ends the message.
func (d *decoder) blocks() error {
	for {
		d.steps++
		if !d.need(3) {
			return ErrCut
		}
		final, kind := d.take(1), d.take(2)
		var err error
		switch kind {
		case blockStored:
			if d.align(); d.pos == len(d.src) {
				return nil // 00 00 ff ff was left out
			}
			err = d.stored()
		case blockFixed:
			err = d.codes(fixedTables())
		case blockDynamic:
			if err = d.header(); err == nil {
				err = d.codes(&d.dynamic)
			}
		default:
			err = errBlockType
		}
		if err != nil {
			return err
		}
		if final == 1 {
			d.align()
			d.stream, d.window = d.n, nil
		}
	}
}

// refill makes 56 bits count, or as many as there are. Bits in acc that don't
// count are those of src at pos all the same: they may be set once more.
func (d *decoder) refill() {
	if len(d.src)-d.pos >= 8 {
		d.acc |= binary.LittleEndian.Uint64(d.src[d.pos:]) << (d.bits & 63)
		d.pos += int(63-d.bits) >> 3
		d.bits |= 56
		return
	}
	for d.bits < 56 && d.pos < len(d.src) {
		d.acc |= uint64(d.src[d.pos]) << (d.bits & 63)
		d.pos++
		d.bits += 8
	}
}

// need reports whether n bits, at most 56, are there.
func (d *decoder) need(n uint) bool {
	if d.bits < n {
		d.refill()
	}
	return d.bits >= n
}

// take is for bits that are needed.
func (d *decoder) take(n uint) uint {
	v := uint(d.acc) & (1<<n - 1)
	d.acc >>= n & 63
	d.bits -= n
	return v
}

// align goes to the next whole byte, and gives back what was read ahead.
func (d *decoder) align() {
	d.pos -= int(d.bits >> 3)
	d.acc, d.bits = 0, 0
}

// stored is RFC 1951, section 3.2.4, from a whole byte on.
func (d *decoder) stored() error {
	src := d.src[d.pos:]
	if len(src) < 4 {
		return ErrCut
	}
	n := int(binary.LittleEndian.Uint16(src))
	if n != int(binary.LittleEndian.Uint16(src[2:]))^0xffff {
		return errStored
	}
	src = src[4:]
	cut := n > len(src)
	src = src[:min(n, len(src))]
	d.pos += 4 + len(src)
	fits := d.reserve(len(src))
	d.n += copy(d.out[d.n:], src)
	if !fits {
		return ErrTooLong
	}
	if cut {
		return ErrCut
	}
	return nil
}

// reserve makes room for n bytes more, or reports that the limit leaves less.
func (d *decoder) reserve(n int) bool {
	if n <= len(d.out)-d.n {
		return true
	}
	left := d.most - d.n
	fits := n <= left
	n = min(n, left)
	// In proportion to what has arrived or come out, but never past the limit,
	// which is what a bomb may cost.
	room := max(n, 512, min(4*len(d.src), 64<<10), d.n-d.begin)
	room = min(room, left)
	switch {
	case room <= len(d.out)-d.n:
	case d.memory != nil:
		out := d.memory.Grow(d.out[:d.n], room)
		d.out = out[:min(cap(out), d.most)]
	default:
		out := make([]byte, d.n+room)
		copy(out, d.out[:d.n])
		d.out = out
	}
	return fits
}

// header reads the codes of a dynamic block (RFC 1951, section 3.2.7).
func (d *decoder) header() error {
	if !d.need(14) {
		return ErrCut
	}
	lits, dists, pres := int(d.take(5))+257, int(d.take(5))+1, int(d.take(4))+4
	if lits > maxLit || dists > maxDist {
		return errTooMany
	}
	if err := d.preCode(pres); err != nil {
		return err
	}
	used, distUsed, err := d.codeLengths(lits, dists)
	if err != nil {
		return err
	}
	d.steps += len(d.pre) + 1<<litBits + 1<<distBits
	if !buildTable(d.dynamic.lit[:], litBits, used, litEntries[:]) {
		return errLitCode
	}
	if !buildTable(d.dynamic.dist[:], distBits, distUsed, distEntries[:]) {
		return errDistCode
	}
	return nil
}

// preCode reads the code for code lengths.
func (d *decoder) preCode(n int) error {
	var lengths [maxPre]uint8
	for _, symbol := range preOrder[:n] {
		if !d.need(3) {
			return ErrCut
		}
		lengths[symbol] = uint8(d.take(3))
	}
	used := d.used[:0]
	for symbol, n := range lengths {
		if n != 0 {
			used = append(used, makeCodeLength(symbol, n))
		}
	}
	if !buildTable(d.pre[:], maxPreBits, used, preEntries[:]) {
		return errPreCode
	}
	return nil
}

// codeLengths reads the lengths of both codes. A repetition may go on from the
// first to the second.
func (d *decoder) codeLengths(lits, dists int) (lit, dist []codeLength, err error) {
	used := d.used[:0]
	length, times := uint8(0), 0
	for i := 0; i < lits+dists; {
		symbol, err := d.preSymbol()
		switch {
		case err != nil:
			return nil, nil, err
		case symbol < 16:
			length, times = symbol, 1
		case symbol == 16 && i == 0:
			return nil, nil, errNoRepeat
		default:
			if length, times = d.repeat(symbol, length); times == 0 {
				return nil, nil, ErrCut
			}
		}
		if times > lits+dists-i {
			return nil, nil, errRepeat
		}
		if length == 0 {
			i += times
			continue
		}
		for ; times > 0; times-- {
			used = append(used, makeCodeLength(i, length))
			i++
		}
	}
	split := len(used)
	for split > 0 && used[split-1]>>4 >= codeLength(lits) {
		split--
		used[split] -= codeLength(lits) << 4
	}
	return used[:split], used[split:], nil
}

func (d *decoder) preSymbol() (uint8, error) {
	if d.bits < maxPreBits+7 {
		d.refill()
	}
	e := d.pre[d.acc&preMask]
	n := uint(e & 15)
	if d.bits < n || e == noCode && d.bits < maxPreBits {
		return 0, ErrCut // what is behind the end is no bit of a code
	}
	if e == noCode {
		return 0, errNoCode
	}
	d.take(n)
	return uint8(e >> baseShift), nil
}

// repeat reads which length is repeated, and how often; 0 if that is missing.
func (d *decoder) repeat(symbol, last uint8) (length uint8, times int) {
	base, extra := 3, uint(3)
	switch symbol {
	case 16:
		length, extra = last, 2
	case 18:
		base, extra = 11, 7
	}
	if d.bits < extra {
		return 0, 0
	}
	return length, base + int(d.take(extra))
}
