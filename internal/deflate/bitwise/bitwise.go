// Package bitwise decompresses a message bit by bit, slowly and after the words
// of RFC 1951 and RFC 7692, for tests. It shares no line with package deflate
// or with compress/flate.
package bitwise

import (
	"errors"
	"slices"
)

// A Message is decompressed by Decode. It notes how far back the references
// reach, and sees where the payload ends, bit by bit.
type Message struct {
	In       []byte
	Out      []byte // begins with what may be referred to
	Most     int    // where Out may end; 0 for anywhere
	Finals   int    // final blocks that came
	Farthest int    // distance
	Blocks   [3]int // of each type

	bit    int
	stream int // where the stream of blocks begins in Out
}

var (
	ErrCut   = errors.New("cut short")
	ErrWrong = errors.New("not a DEFLATE stream")
	ErrMost  = errors.New("more than is wanted")
)

// bits takes n bits, the first being the lowest.
func (m *Message) bits(n int) (v int, err error) {
	if m.bit+n > 8*len(m.In) {
		return 0, ErrCut
	}
	for i := range n {
		v |= int(m.In[m.bit/8]>>(m.bit%8)&1) << i
		m.bit++
	}
	return v, nil
}

func (m *Message) align() { m.bit = (m.bit + 7) / 8 * 8 }

// Decode goes on until the empty block whose length was left out.
func (m *Message) Decode() error {
	for {
		final, err := m.bits(1)
		if err != nil {
			return err
		}
		kind, err := m.bits(2)
		if err != nil {
			return err
		}
		if kind < len(m.Blocks) {
			m.Blocks[kind]++
		}
		switch kind {
		case 0:
			if m.align(); m.bit == 8*len(m.In) {
				return nil
			}
			err = m.stored()
		case 1:
			err = m.codes(slices.Concat(
				slices.Repeat([]int{8}, 144), slices.Repeat([]int{9}, 112),
				slices.Repeat([]int{7}, 24), slices.Repeat([]int{8}, 8),
			), slices.Repeat([]int{5}, 32)) // RFC 1951, section 3.2.6
		case 2:
			err = m.dynamic()
		default:
			err = ErrWrong
		}
		if err != nil {
			return err
		}
		if final == 1 {
			m.align()
			m.stream = len(m.Out)
			m.Finals++
		}
	}
}

func (m *Message) stored() error {
	n, err := m.bits(16)
	if err != nil {
		return err
	}
	complement, err := m.bits(16)
	if err != nil {
		return err
	}
	if n != complement^0xffff {
		return ErrWrong
	}
	begin := m.bit / 8
	if begin+n > len(m.In) {
		m.Out = append(m.Out, m.In[begin:]...)
		return ErrCut
	}
	m.Out = append(m.Out, m.In[begin:begin+n]...)
	m.bit += 8 * n
	return nil
}

// A huffman has the symbols in the order of their codes, and how many of these
// there are of each length.
type huffman struct {
	symbols []int
	count   [16]int
}

// newHuffman is RFC 1951, section 3.2.2. Codes have to be complete, but for a
// single one of one bit and none at all, which compress/flate and zlib take.
func newHuffman(lengths []int) (h huffman, err error) {
	room := 1 // codes of the length n that are left
	for n := 1; n <= 15; n++ {
		room *= 2
		for symbol, length := range lengths {
			if length == n {
				h.symbols = append(h.symbols, symbol)
				h.count[n]++
				room--
			}
		}
		if room < 0 {
			return h, ErrWrong
		}
	}
	if room > 0 && len(h.symbols) > 0 && (len(h.symbols) > 1 || h.count[1] != 1) {
		return h, ErrWrong
	}
	return h, nil
}

func (m *Message) symbol(h huffman) (int, error) {
	code, first := 0, 0 // the first code of its length
	for n, rest := 1, h.symbols; n <= 15; n++ {
		b, err := m.bits(1)
		if err != nil {
			return 0, err
		}
		code = code<<1 | b
		if code-first < h.count[n] {
			return rest[code-first], nil
		}
		rest = rest[h.count[n]:]
		first = (first + h.count[n]) << 1
	}
	return 0, ErrWrong
}

// dynamic is RFC 1951, section 3.2.7.
func (m *Message) dynamic() error {
	var counts [3]int
	for i, n := range []int{5, 5, 4} {
		v, err := m.bits(n)
		if err != nil {
			return err
		}
		counts[i] = v
	}
	literals, distances := counts[0]+257, counts[1]+1
	if literals > 286 || distances > 30 {
		return ErrWrong
	}
	order := []int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}
	lengths := make([]int, 19)
	for i := range counts[2] + 4 {
		v, err := m.bits(3)
		if err != nil {
			return err
		}
		lengths[order[i]] = v
	}
	h, err := newHuffman(lengths)
	if err != nil {
		return err
	}
	if lengths, err = m.lengths(h, literals+distances); err != nil {
		return err
	}
	return m.codes(lengths[:literals], lengths[literals:])
}

func (m *Message) lengths(h huffman, n int) (lengths []int, err error) {
	for len(lengths) < n {
		s, err := m.symbol(h)
		if err != nil {
			return nil, err
		}
		if s < 16 {
			lengths = append(lengths, s)
			continue
		}
		value := 0
		if s == 16 {
			if len(lengths) == 0 {
				return nil, ErrWrong
			}
			value = lengths[len(lengths)-1]
		}
		times, err := m.bits([]int{2, 3, 7}[s-16])
		if err != nil {
			return nil, err
		}
		for range times + []int{3, 3, 11}[s-16] {
			lengths = append(lengths, value)
		}
	}
	if len(lengths) > n {
		return nil, ErrWrong
	}
	return lengths, nil
}

// codes is RFC 1951, section 3.2.5.
func (m *Message) codes(literalLengths, distanceLengths []int) error {
	literals, err := newHuffman(literalLengths)
	if err != nil {
		return err
	}
	distances, err := newHuffman(distanceLengths)
	if err != nil {
		return err
	}
	for {
		s, err := m.symbol(literals)
		switch {
		case m.Most > 0 && len(m.Out) > m.Most:
			return ErrMost
		case err != nil:
			return err
		case s < 256:
			m.Out = append(m.Out, byte(s))
			continue
		case s == 256:
			return nil
		case s > 285:
			return ErrWrong
		}
		length, extra := s-257+3, 0
		if s == 285 {
			length = 258
		} else if s >= 265 {
			extra = (s - 261) / 4
			length = (4+(s-265)%4)<<extra + 3
		}
		if length, err = m.add(length, extra); err != nil {
			return err
		}
		if s, err = m.symbol(distances); err != nil {
			return err
		}
		if s > 29 {
			return ErrWrong
		}
		distance, extra := s+1, 0
		if s >= 4 {
			extra = (s - 2) / 2
			distance = (2+s%2)<<extra + 1
		}
		if distance, err = m.add(distance, extra); err != nil {
			return err
		}
		if distance > len(m.Out)-m.stream {
			return ErrWrong
		}
		m.Farthest = max(m.Farthest, distance)
		for range length {
			m.Out = append(m.Out, m.Out[len(m.Out)-distance])
		}
	}
}

func (m *Message) add(v, bits int) (int, error) {
	more, err := m.bits(bits)
	return v + more, err
}
