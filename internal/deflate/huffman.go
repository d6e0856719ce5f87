package deflate

import (
	"cmp"
	"math/bits"
	"slices"
)

// A codeword is written lowest bit first: its bits, and below them, in 8 bits,
// their number.
type codeword uint32

func (c codeword) bits() uint64 { return uint64(c >> 8) }
func (c codeword) len() uint    { return uint(c & 0xff) }

// A counter gives out the codewords of a canonical code (RFC 1951, section
// 3.2.2), the symbols coming in their order.
type counter [maxCodeBits + 1]uint16

// newCounter is for a code with so many codewords of each length.
func newCounter(perLength *[maxCodeBits + 1]int) (next counter) {
	for n := 2; n <= maxCodeBits; n++ {
		next[n] = (next[n-1] + uint16(perLength[n-1])) << 1
	}
	return next
}

func (next *counter) word(n uint8) codeword {
	v := next[n&maxCodeBits]
	next[n&maxCodeBits]++
	return codeword(bits.Reverse16(v)>>(16-n))<<8 | codeword(n)
}

// A huffman builds codes. It is kept for its memory.
type huffman struct {
	n      int
	used   [maxLit]uint32 // count and symbol of what is in use; n of them
	sorted [maxLit]uint32
	weight [2 * maxLit]uint32
	parent [2 * maxLit]uint16
	depth  [2 * maxLit]uint8
	length [symbolMask + 1]uint8
}

const (
	symbolBits = 9
	symbolMask = 1<<symbolBits - 1
	bucketed   = 128 // counts below are sorted by counting
)

// collect finds the symbols that are used, in their order.
func (h *huffman) collect(counts []uint32) {
	n := 0
	for symbol, count := range counts {
		if count != 0 {
			h.used[n] = count<<symbolBits | uint32(symbol)
			n++
		}
	}
	h.n = n
}

// code sets the codewords of what was collected, at most limit bits each and as
// good as that allows, within very little, and says how many bits all the
// symbols take. There are always two codes at least, as some decoders refuse a
// code that isn't complete.
func (h *huffman) code(words []codeword, limit int) (size int) {
	clear(words)
	if h.n < 2 {
		other := 0
		if h.n == 1 {
			other = int(h.used[0] & symbolMask)
			size = int(h.used[0] >> symbolBits)
		}
		words[0], words[max(other, 1)] = 1, 1<<8|1
		return size
	}
	sorted := h.sort()
	perLength := h.tree(sorted, limit)
	next := newCounter(&perLength)
	for length := limit; length > 0; length-- {
		for _, u := range sorted[:perLength[length]] {
			h.length[u&symbolMask] = uint8(length)
			size += length * int(u>>symbolBits)
		}
		sorted = sorted[perLength[length]:]
	}
	for _, u := range h.used[:h.n] {
		words[u&symbolMask] = next.word(h.length[u&symbolMask])
	}
	return size
}

// sort puts what is used less often first. Most counts of a block are small.
func (h *huffman) sort() []uint32 {
	var at [bucketed + 1]uint16
	for _, u := range h.used[:h.n] {
		at[min(u>>symbolBits, bucketed)]++
	}
	sum := uint16(0)
	for i, k := range at {
		at[i] = sum
		sum += k
	}
	large := at[bucketed]
	for _, u := range h.used[:h.n] {
		i := min(u>>symbolBits, bucketed)
		h.sorted[at[i]] = u
		at[i]++
	}
	slices.SortFunc(h.sorted[large:h.n], cmp.Compare[uint32])
	return h.sorted[:h.n]
}

// tree joins the two lightest trees until one is left, and counts the leaves at
// each depth. What comes together is heavier than what came before it, so that
// leaves and joined trees are both in order already.
func (h *huffman) tree(sorted []uint32, limit int) (perLength [maxCodeBits + 1]int) {
	n := len(sorted)
	for i, u := range sorted {
		h.weight[i] = u >> symbolBits
	}
	leaf, joined, root := 0, n, 2*n-2
	for next := n; next <= root; next++ {
		sum := uint32(0)
		for range 2 {
			i := joined
			if leaf < n && (joined == next || h.weight[leaf] <= h.weight[joined]) {
				i = leaf
				leaf++
			} else {
				joined++
			}
			sum += h.weight[i]
			h.parent[i] = uint16(next)
		}
		h.weight[next] = sum
	}
	h.depth[root] = 0
	for i := root - 1; i >= 0; i-- {
		h.depth[i] = h.depth[h.parent[i]] + 1
		if i < n {
			perLength[min(int(h.depth[i]), limit)]++
		}
	}
	shorten(&perLength, limit)
	return perLength
}

// shorten makes room for codes that were cut to the limit, and take more of the
// code space than there is. One of the longest goes below a shorter code, which
// becomes one bit longer.
func shorten(perLength *[maxCodeBits + 1]int, limit int) {
	taken := 0 // in codes of limit bits
	for n, k := range perLength[:limit+1] {
		taken += k << (limit - n)
	}
	for ; taken > 1<<limit; taken-- {
		d := limit - 1
		for perLength[d] == 0 {
			d--
		}
		perLength[d]--
		perLength[d+1] += 2
		perLength[limit]--
	}
}
