package deflate

import (
	"encoding/binary"
	"math/bits"
)

func bitLen(n int) int { return bits.Len(uint(n)) }

// A matcher finds what repeats itself in src, and in the history before it.
type matcher struct {
	block    *block
	src      []byte
	table    []uint32 // of positions, by the hash of the four bytes there
	shift    uint     // gives an index of the table, or of its first entry
	base     uint32   // position of src[0]
	farthest int      // distance
	history  *Window  // nil if before is 0
	before   int      // bytes of the history
	steps    int
}

const (
	hashFactor = 0x9e3779b1 // an odd number near 2^32 divided by the golden ratio

	minMatch = 4 // bytes that a match begins with
	ways     = 4 // places looked at by better
	lazy     = 32
	enough   = 128 // for better to look no further
)

func (m *matcher) prepare(level Level) {
	n := bitLen(len(m.table)) - 1
	if level != Fast {
		n -= 2
	}
	m.shift = uint(32 - n)
}

// fast looks at one place for each position, and at fewer positions the longer
// nothing was found.
func (m *matcher) fast(begin, end int) {
	src, table, base, shift := m.src[:end], m.table, m.base, m.shift&31
	farthest, before := m.farthest, m.before
	literals, misses, steps := begin, 0, 0
	for i := begin; i <= len(src)-minMatch; {
		steps++
		v := binary.LittleEndian.Uint32(src[i:])
		h := v * hashFactor >> shift
		at := base + uint32(i)
		distance := int(at - table[h])
		table[h] = at
		n := 0
		if uint(distance-1) < uint(min(farthest, i+before)) {
			if from := i - distance; from < 0 {
				n = m.inHistory(i, distance, end)
			} else if binary.LittleEndian.Uint32(src[from:]) == v {
				n = minMatch + matchLen(src[from+minMatch:], src[i+minMatch:min(i+maxLength, end)])
			}
		}
		if n < minMatch {
			i += 1 + misses>>5
			misses++
			continue
		}
		misses = 0
		i, n = backwards(src, i, literals, n, distance)
		m.block.add(src[literals:i], n, distance)
		steps += n / 8
		i += n
		literals = i
		if i <= len(src)-minMatch {
			v := binary.LittleEndian.Uint64(src[i-minMatch:])
			table[uint32(v>>16)*hashFactor>>shift] = base + uint32(i-2)
			table[uint32(v>>24)*hashFactor>>shift] = base + uint32(i-1)
		}
	}
	if literals < end {
		m.block.add(src[literals:], 0, 0)
	}
	m.steps += steps
}

// backwards begins a match as early as it can.
func backwards(src []byte, i, literals, length, distance int) (begin, n int) {
	for i > max(literals, distance) && length < maxLength && src[i-1] == src[i-1-distance] {
		i--
		length++
	}
	return i, length
}

// matchLen is the length of what a and b have in common. a is at least as long
// as b.
func matchLen(a, b []byte) int {
	n := 0
	for ; len(b)-n >= 8; n += 8 {
		if x := binary.LittleEndian.Uint64(a[n:]) ^ binary.LittleEndian.Uint64(b[n:]); x != 0 {
			return n + bits.TrailingZeros64(x)>>3
		}
	}
	for n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// inHistory is the length of the match at i that begins in the history.
func (m *matcher) inHistory(i, distance, end int) int {
	b := m.src[i:min(i+maxLength, end)]
	first, second := m.history.from(distance - i)
	n := 0
	for _, a := range [...][]byte{first, second, m.src} {
		k := min(len(a), len(b)-n)
		got := matchLen(a[:k], b[n:n+k])
		if n += got; got < len(a) {
			break
		}
	}
	return n
}

// better looks at several places for each position, and takes a match only if
// none that begins a byte later is longer.
func (m *matcher) better(begin, end int) {
	src := m.src[:end]
	literals := begin
	length, distance := 0, 0 // of what was found a byte before
	for i := begin; i <= end-minMatch; i++ {
		n, d := 0, 0
		if length < lazy {
			n, d = m.best(i, end, length)
		} else {
			m.push(i)
		}
		if length == 0 || n > length {
			length, distance = n, d
			continue
		}
		start := i - 1
		m.block.add(src[literals:start], length, distance)
		literals = start + length
		i++
		if distance < length { // it repeats itself: the last of each place in it will do
			i = max(i, literals-distance)
		}
		last := min(literals, end-minMatch+1)
		m.steps += max(last-i, 0)
		for ; i < last; i++ {
			m.push(i)
		}
		i = literals - 1
		length = 0
	}
	if length > 0 {
		m.block.add(src[literals:end-minMatch], length, distance)
		literals = end - minMatch + length
	}
	if literals < end {
		m.block.add(src[literals:], 0, 0)
	}
}

// bucket is where the places are, the last one first.
func (m *matcher) bucket(i int) *[ways]uint32 {
	h := binary.LittleEndian.Uint32(m.src[i:]) * hashFactor >> (m.shift & 31) * ways
	return (*[ways]uint32)(m.table[h : h+ways])
}

func (m *matcher) push(i int) {
	b := m.bucket(i)
	b[3], b[2], b[1], b[0] = b[2], b[1], b[0], m.base+uint32(i)
}

// best finds the longest match at i that is longer than least.
func (m *matcher) best(i, end, least int) (length, distance int) {
	src := m.src[:end]
	least = max(least, minMatch-1)
	here := src[i:min(i+maxLength, end)]
	most := uint(min(m.farthest, i+m.before))
	for _, at := range m.bucket(i) {
		d := int(m.base + uint32(i) - at)
		if uint(d-1) >= most || length >= min(enough, len(here)) {
			break
		}
		m.steps++
		n := 0
		if from := i - d; from < 0 {
			n = m.inHistory(i, d, end)
		} else if least < len(here) && src[from+least] == here[least] {
			n = matchLen(src[from:], here)
		}
		m.steps += n / 8
		if n > least {
			length, distance, least = n, d, n
		}
	}
	m.push(i)
	return length, distance
}
