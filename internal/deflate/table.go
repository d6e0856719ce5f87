package deflate

import (
	"math/bits"
	"sync"
)

// An entry of a table says what the next bits mean:
//
//	literal    1....... bbbbbbbb 0000nnnn 0000nnnn    byte b
//	length     0......b bbbbbbbb 0000nnnn 000ttttt    length b and more
//	distance   0bbbbbbb bbbbbbbb 0000nnnn 000ttttt    distance b and more
//	subtable   0...iiii iiiiiiii 1100kkkk 00000000    k bits more decide, in a table at i
//	end        0....... ........ 1010.... 0000nnnn    of the block
//	nothing    00000000 00000000 10000000 00000000    no code begins with these bits
//
// n is the length of the code, t that of the code and the extra bits behind it.
// In a subtable both leave out the bits that led there.
type entry = uint32

const (
	isLiteral  entry = 1 << 31
	isSpecial  entry = 1 << 15 // neither a literal nor a length or distance
	isSubtable entry = 1 << 14
	isEnd      entry = 1 << 13
	noCode           = isSpecial
)

// The first look-up takes so many bits. A subtable of k bits holds a complete
// code of at least k+1 symbols, k being at most 15 less the bits of the first
// look-up: 288 symbols make at most 288/6 subtables of 2^5 entries, 32 at most
// 32/8 of 2^7.
const (
	litBits   = 10
	distBits  = 8
	litSize   = 1<<litBits + fixedLit/6<<5
	distSize  = 1<<distBits + fixedDist/8<<7
	litMask   = 1<<litBits - 1
	distMask  = 1<<distBits - 1
	preMask   = 1<<maxPreBits - 1
	codeShift = 8
	baseShift = 16
)

// tables decode one block.
type tables struct {
	lit  [litSize]entry
	dist [distSize]entry
}

// What the entries of a symbol have in common, without the length of its code.
var (
	litEntries  = makeLitEntries()
	distEntries = makeDistEntries()
	preEntries  = makePreEntries()
)

func makeLitEntries() (e [fixedLit]entry) {
	for i := range e {
		switch {
		case i < endOfBlock:
			e[i] = isLiteral | entry(i)<<baseShift
		case i == endOfBlock:
			e[i] = isSpecial | isEnd
		case i < maxLit:
			base, extra := lengthOf(i)
			e[i] = entry(base)<<baseShift | entry(extra)
		default:
			e[i] = noCode
		}
	}
	return e
}

func makeDistEntries() (e [fixedDist]entry) {
	for i := range e {
		if i >= maxDist {
			e[i] = noCode
			continue
		}
		base, extra := distanceOf(i)
		e[i] = entry(base)<<baseShift | entry(extra)
	}
	return e
}

func makePreEntries() (e [maxPre]entry) {
	for i := range e {
		e[i] = entry(i) << baseShift
	}
	return e
}

// withCode adds the length of the code to what entries of a symbol have in
// common.
func withCode(e entry, n int) entry { return e + entry(n)<<codeShift + entry(n) }

// fixedTables are those of the fixed code.
var fixedTables = sync.OnceValue(func() *tables {
	lit, dist := fixedLengths()
	var used [fixedLit]codeLength
	t := new(tables)
	for symbol, n := range lit {
		used[symbol] = makeCodeLength(symbol, n)
	}
	buildTable(t.lit[:], litBits, used[:], litEntries[:])
	for symbol, n := range dist {
		used[symbol] = makeCodeLength(symbol, n)
	}
	buildTable(t.dist[:], distBits, used[:fixedDist], distEntries[:])
	return t
})

// A codeLength is a symbol that has a code, and the length of that.
type codeLength uint16

func makeCodeLength(symbol int, n uint8) codeLength { return codeLength(symbol<<4) | codeLength(n) }

// A code is a canonical Huffman code as its lengths give it (RFC 1951, section
// 3.2.2).
type code struct {
	count  [maxCodeBits + 1]uint16
	sorted [fixedLit]uint16 // symbols in the order of their codes
}

// set takes the symbols that have a code, in their order, and reports whether
// the lengths are those of a complete code. So are none, which nothing can be
// told with, and one code of a single bit, the other bit meaning nothing.
func (c *code) set(used []codeLength) bool {
	for _, u := range used {
		c.count[u&maxCodeBits]++
	}
	room := 1 // codes of n bits that are left
	var next [maxCodeBits + 2]uint16
	for n := 1; n <= maxCodeBits; n++ {
		room = 2*room - int(c.count[n])
		if room < 0 {
			return false
		}
		next[n+1] = next[n] + c.count[n]
	}
	if room > 0 && len(used) > 0 && !(len(used) == 1 && c.count[1] == 1) {
		return false
	}
	for _, u := range used {
		n := u & maxCodeBits
		c.sorted[next[n]] = uint16(u >> 4)
		next[n]++
	}
	return true
}

// buildTable fills a table whose first look-up takes root bits, and reports
// whether the lengths make a code.
func buildTable(table []entry, root int, used []codeLength, entries []entry) bool {
	var c code
	if !c.set(used) {
		return false
	}
	table[0] = noCode
	size, word, k := 1, uint16(0), 0
	for n := 1; n <= root; n++ {
		// What fewer bits told is told by one bit more, whatever it is.
		copy(table[size:2*size], table[:size])
		size *= 2
		word *= 2
		for range c.count[n] {
			symbol := c.sorted[k]
			table[bits.Reverse16(word)>>(16-n)] = withCode(entries[symbol], n)
			word++
			k++
		}
	}
	c.subtables(table, root, word, k, entries)
	return true
}

// subtables is for the codes longer than root, from the k-th on. word is the
// next code, of root bits.
func (c *code) subtables(table []entry, root int, word uint16, k int, entries []entry) {
	end := 1 << root
	start, width := 0, 0 // of the subtable; the width is in bits
	prefix := -1
	for n := root + 1; n <= maxCodeBits; n++ {
		word *= 2
		for left := c.count[n]; left > 0; left-- {
			if p := int(word >> (n - root)); p != prefix {
				prefix, start = p, end
				width = c.width(n-root, root, int(left))
				end = start + 1<<width
				first := bits.Reverse16(uint16(p)) >> (16 - root)
				table[first] = isSpecial | isSubtable | entry(start)<<baseShift | entry(width)<<codeShift
			}
			e := withCode(entries[c.sorted[k]], n-root)
			low := bits.Reverse16(word << (16 - (n - root)))
			for i := start + int(low); i < end; i += 1 << (n - root) {
				table[i] = e
			}
			word++
			k++
		}
	}
}

// width is the number of bits that tell apart the codes with the same first
// root bits. The first of them has width bits more than these, as have left
// codes from it on, of whatever prefix.
func (c *code) width(width, root, left int) int {
	room := 1<<width - left
	for room > 0 {
		width++
		room = 2*room - int(c.count[root+width])
	}
	return width
}
