package deflate

import (
	"encoding/binary"

	"math"
	"math/bits"
	"slices"
)

// maxEncodedBits bounds our own codes, so that four literals, and a length with
// its distance, fit behind 7 bits into 64.
const maxEncodedBits = 14

// A sequence is a run of literals and the match behind it, if length isn't 0.
type sequence struct {
	literals uint32
	length   uint16
	distance uint16 // less 1
}

// blockSize is the input of a block. A stored block could hold little more.
const blockSize = 32 << 10

// A block is what is found out about a piece of the input before it is written.
type block struct {
	seqs []sequence
	src  []byte
	lit  [maxLit]uint32 // how often a symbol comes
	dist [maxDist]uint32

	extra    int // bits behind the codes, whatever these are
	huffman  huffman
	litWords [maxLit]codeword
	dstWords [maxDist]codeword
	items    []uint16 // the lengths as they are sent: a symbol, extra bits above it
	pre      [maxPre]uint32
	preWords [maxPre]codeword
	lits     int // how many lengths are sent
	dists    int
	pres     int
}

func (b *block) reset(src []byte) {
	b.seqs = b.seqs[:0]
	b.src = src
	clear(b.lit[:])
	clear(b.dist[:])
	b.lit[endOfBlock] = 1
	b.extra = 0
}

// add notes literals, and the match behind them if length isn't 0.
func (b *block) add(literals []byte, length, distance int) {
	for _, c := range literals {
		b.lit[c]++
	}
	if length > 0 {
		l := &lengthCodes[length-minLength]
		b.lit[257+int(l.symbol)]++
		symbol, extra := distanceSymbol(uint(distance - 1))
		b.dist[symbol]++
		b.extra += int(uint(l.extra) + extra)
	}
	b.seqs = append(b.seqs, sequence{uint32(len(literals)), uint16(length), uint16(distance - 1)})
}

const minLength = 3

// A lengthCode is the symbol of a length, less 257, and the extra bits.
type lengthCode struct{ symbol, extra, value uint8 }

var lengthCodes = func() (codes [maxLength - minLength + 1]lengthCode) {
	for symbol := 257; symbol < maxLit; symbol++ {
		base, extra := lengthOf(symbol)
		for i := range 1 << extra {
			codes[base-minLength+i] = lengthCode{uint8(symbol - 257), uint8(extra), uint8(i)}
		}
	}
	return codes
}()

// distanceSymbol is for a distance less 1. The extra bits are its lowest.
func distanceSymbol(d uint) (symbol, extra uint) {
	if d < 4 {
		return d, 0
	}
	extra = uint(bits.Len(d)) - 2
	return 2*extra + d>>extra, extra
}

// The fixed code.
var fixedWords = func() *struct {
	lit  [fixedLit]codeword
	dist [fixedDist]codeword
} {
	words := new(struct {
		lit  [fixedLit]codeword
		dist [fixedDist]codeword
	})
	lit, dist := fixedLengths()
	next := newCounter(&[maxCodeBits + 1]int{7: 24, 8: 152, 9: 112})
	for symbol, n := range lit {
		words.lit[symbol] = next.word(n)
	}
	next = newCounter(&[maxCodeBits + 1]int{5: 32})
	for symbol, n := range dist {
		words.dist[symbol] = next.word(n)
	}
	return words
}()

// sizes says how many bits the block takes with the fixed code, and with codes
// of its own, which it makes.
func (b *block) sizes() (fixed, dynamic int) {
	b.huffman.collect(b.dist[:])
	for _, u := range b.huffman.used[:b.huffman.n] {
		fixed += 5 * int(u>>symbolBits)
	}
	dynamic = b.huffman.code(b.dstWords[:], maxEncodedBits)
	b.huffman.collect(b.lit[:])
	for _, u := range b.huffman.used[:b.huffman.n] {
		fixed += int(fixedWords.lit[u&symbolMask].len()) * int(u>>symbolBits)
	}
	if !b.mayBeDynamic() {
		return 3 + b.extra + fixed, math.MaxInt
	}
	dynamic += b.huffman.code(b.litWords[:], maxEncodedBits)
	dynamic += b.setHeader()
	return 3 + b.extra + fixed, 3 + b.extra + dynamic
}

// setHeader prepares what tells the codes to the receiver, and says how many
// bits it takes.
func (b *block) setHeader() (size int) {
	b.lits, b.dists = maxLit, maxDist
	for b.lits > 257 && b.litWords[b.lits-1] == 0 {
		b.lits--
	}
	for b.dstWords[b.dists-1] == 0 {
		b.dists--
	}
	b.items = b.items[:0]
	clear(b.pre[:])
	b.setItems(b.litWords[:b.lits])
	b.setItems(b.dstWords[:b.dists])
	b.huffman.collect(b.pre[:])
	size = b.huffman.code(b.preWords[:], maxPreBits)
	b.pres = maxPre
	for b.preWords[preOrder[b.pres-1]] == 0 {
		b.pres--
	}
	return size + 14 + 3*b.pres + 2*int(b.pre[16]) + 3*int(b.pre[17]) + 7*int(b.pre[18])
}

// setItems puts down the lengths of a code as they are sent (RFC 1951, section
// 3.2.7).
func (b *block) setItems(words []codeword) {
	for i := 0; i < len(words); {
		v := uint8(words[i].len())
		run := 1
		for i+run < len(words) && uint8(words[i+run].len()) == v {
			run++
		}
		i += run
		if v != 0 {
			b.item(v, 0)
			run--
		}
		for run > 0 {
			switch {
			case run < 3:
				b.item(v, 0)
				run--
			case v != 0:
				n := min(run, 6)
				b.item(16, n-3)
				run -= n
			case run <= 10:
				b.item(17, run-3)
				run = 0
			default:
				n := min(run, 138)
				b.item(18, n-11)
				run -= n
			}
		}
	}
}

func (b *block) item(symbol uint8, extra int) {
	b.items = append(b.items, uint16(symbol)|uint16(extra)<<8)
	b.pre[symbol]++
}

// A writer puts bits behind each other, the first one lowest. There is always
// room in out for what is written.
type writer struct {
	out  []byte
	n    int
	acc  uint64
	bits uint
}

// put takes up to 56 bits.
func (w *writer) put(v uint64, n uint) {
	w.acc |= v << (w.bits & 63)
	w.bits += n
	w.flush()
}

// flush leaves at most 7 bits.
func (w *writer) flush() {
	binary.LittleEndian.PutUint64(w.out[w.n:], w.acc)
	w.n += int(w.bits >> 3)
	w.acc >>= w.bits & 56
	w.bits &= 7
}

// reserve makes room for n bytes and what flush writes too much.
func (w *writer) reserve(n int) {
	if need := n + 16; need > len(w.out)-w.n {
		w.out = slices.Grow(w.out[:w.n], need)
		w.out = w.out[:cap(w.out)]
	}
}

// align fills up the last byte.
func (w *writer) align() {
	w.bits = (w.bits + 7) &^ 7
	w.flush()
}

// block writes b in the shortest way.
func (w *writer) block(b *block) {
	stored := 3 + 7 + 32 + 8*len(b.src)
	fixed, dynamic := b.sizes()
	w.reserve(min(fixed, stored, dynamic)/8 + 1)
	switch {
	case stored < min(fixed, dynamic):
		w.stored(b.src)
	case fixed <= dynamic:
		w.put(blockFixed<<1, 3)
		w.data(b, fixedWords.lit[:], fixedWords.dist[:])
	default:
		w.put(blockDynamic<<1, 3)
		w.header(b)
		w.data(b, b.litWords[:], b.dstWords[:])
	}
}

// mayBeDynamic saves making codes that would be longer than what they save.
func (b *block) mayBeDynamic() bool { return len(b.src) >= 64 }

func (w *writer) stored(src []byte) {
	w.put(blockStored, 3)
	w.align()
	w.put(uint64(len(src))|uint64(^uint16(len(src)))<<16, 32)
	w.n += copy(w.out[w.n:], src)
}

// preExtra is the number of extra bits behind symbols of code lengths.
var preExtra = [maxPre]uint8{16: 2, 17: 3, 18: 7}

func (w *writer) header(b *block) {
	w.put(uint64(b.lits-257)|uint64(b.dists-1)<<5|uint64(b.pres-4)<<10, 14)
	for _, symbol := range preOrder[:b.pres] {
		w.put(uint64(b.preWords[symbol].len()), 3)
	}
	for _, item := range b.items {
		symbol := item & 0xff
		c := b.preWords[symbol]
		w.put(c.bits()|uint64(item>>8)<<(c.len()&63), c.len()+uint(preExtra[symbol]))
	}
}

// data writes the symbols of a block.
func (w *writer) data(b *block, lit, dist []codeword) {
	lit, dist = lit[:maxLit], dist[:maxDist]
	out, n, acc, nb := w.out, w.n, w.acc, w.bits
	rest := b.src
	for _, s := range b.seqs {
		run := rest[:s.literals]
		rest = rest[int(s.literals)+int(s.length):]
		for ; len(run) >= 4; run = run[4:] {
			acc, nb = with(acc, nb, lit[run[0]])
			acc, nb = with(acc, nb, lit[run[1]])
			acc, nb = with(acc, nb, lit[run[2]])
			acc, nb = with(acc, nb, lit[run[3]])
			binary.LittleEndian.PutUint64(out[n:], acc)
			n, acc, nb = n+int(nb>>3), acc>>(nb&56), nb&7
		}
		for _, c := range run {
			acc, nb = with(acc, nb, lit[c])
		}
		binary.LittleEndian.PutUint64(out[n:], acc)
		n, acc, nb = n+int(nb>>3), acc>>(nb&56), nb&7
		if s.length == 0 {
			continue
		}
		l := &lengthCodes[s.length-minLength]
		acc, nb = with(acc, nb, lit[257+int(l.symbol)])
		acc |= uint64(l.value) << (nb & 63)
		nb += uint(l.extra)
		symbol, extra := distanceSymbol(uint(s.distance))
		acc, nb = with(acc, nb, dist[symbol])
		acc |= uint64(s.distance) & (1<<extra - 1) << (nb & 63)
		nb += extra
		binary.LittleEndian.PutUint64(out[n:], acc)
		n, acc, nb = n+int(nb>>3), acc>>(nb&56), nb&7
	}
	w.n, w.acc, w.bits = n, acc, nb
	w.put(lit[endOfBlock].bits(), lit[endOfBlock].len())
}

// with puts c behind the n bits in acc.
func with(acc uint64, n uint, c codeword) (uint64, uint) {
	return acc | c.bits()<<(n&63), n + c.len()
}
