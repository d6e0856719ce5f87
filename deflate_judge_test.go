package websocket

import (
	"errors"
	"slices"
)

// A judge inflates one message, slowly and after the words of RFC 1951 and RFC
// 7692. It doesn't share a line with compress/flate, notes how far back the
// references reach, and sees where the payload ends, bit by bit.
type judge struct {
	in       []byte
	bit      int
	out      []byte
	stream   int // where the stream of blocks begins in out
	finals   int // final blocks before it
	farthest int
	most     int // where out may end; 0 for anywhere
}

var (
	errJudgeCut   = errors.New("cut short")
	errJudgeWrong = errors.New("not a DEFLATE stream")
	errJudgeMost  = errors.New("more than is wanted")
)

// bits takes n bits, the first being the lowest.
func (j *judge) bits(n int) (v int, err error) {
	if j.bit+n > 8*len(j.in) {
		return 0, errJudgeCut
	}
	for i := range n {
		v |= int(j.in[j.bit/8]>>(j.bit%8)&1) << i
		j.bit++
	}
	return v, nil
}

func (j *judge) align() { j.bit = (j.bit + 7) / 8 * 8 }

// message goes on until the empty block whose length was left out.
func (j *judge) message() error {
	for {
		final, err := j.bits(1)
		if err != nil {
			return err
		}
		kind, err := j.bits(2)
		if err != nil {
			return err
		}
		switch kind {
		case 0:
			if j.align(); j.bit == 8*len(j.in) {
				return nil
			}
			err = j.stored()
		case 1:
			err = j.codes(slices.Concat(
				slices.Repeat([]int{8}, 144), slices.Repeat([]int{9}, 112),
				slices.Repeat([]int{7}, 24), slices.Repeat([]int{8}, 8),
			), slices.Repeat([]int{5}, 32)) // RFC 1951, section 3.2.6
		case 2:
			err = j.dynamic()
		default:
			err = errJudgeWrong
		}
		if err != nil {
			return err
		}
		if final == 1 {
			j.align()
			j.stream = len(j.out)
			j.finals++
		}
	}
}

func (j *judge) stored() error {
	n, err := j.bits(16)
	if err != nil {
		return err
	}
	complement, err := j.bits(16)
	if err != nil {
		return err
	}
	if n != complement^0xffff {
		return errJudgeWrong
	}
	begin := j.bit / 8
	if begin+n > len(j.in) {
		j.out = append(j.out, j.in[begin:]...)
		return errJudgeCut
	}
	j.out = append(j.out, j.in[begin:begin+n]...)
	j.bit += 8 * n
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
			return h, errJudgeWrong
		}
	}
	if room > 0 && len(h.symbols) > 0 && (len(h.symbols) > 1 || h.count[1] != 1) {
		return h, errJudgeWrong
	}
	return h, nil
}

func (j *judge) symbol(h huffman) (int, error) {
	code, first := 0, 0 // the first code of its length
	for n, rest := 1, h.symbols; n <= 15; n++ {
		b, err := j.bits(1)
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
	return 0, errJudgeWrong
}

// dynamic is RFC 1951, section 3.2.7.
func (j *judge) dynamic() error {
	var counts [3]int
	for i, n := range []int{5, 5, 4} {
		v, err := j.bits(n)
		if err != nil {
			return err
		}
		counts[i] = v
	}
	literals, distances := counts[0]+257, counts[1]+1
	if literals > 286 || distances > 30 {
		return errJudgeWrong
	}
	order := []int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}
	lengths := make([]int, 19)
	for i := range counts[2] + 4 {
		v, err := j.bits(3)
		if err != nil {
			return err
		}
		lengths[order[i]] = v
	}
	h, err := newHuffman(lengths)
	if err != nil {
		return err
	}
	if lengths, err = j.lengths(h, literals+distances); err != nil {
		return err
	}
	return j.codes(lengths[:literals], lengths[literals:])
}

func (j *judge) lengths(h huffman, n int) (lengths []int, err error) {
	for len(lengths) < n {
		s, err := j.symbol(h)
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
				return nil, errJudgeWrong
			}
			value = lengths[len(lengths)-1]
		}
		times, err := j.bits([]int{2, 3, 7}[s-16])
		if err != nil {
			return nil, err
		}
		for range times + []int{3, 3, 11}[s-16] {
			lengths = append(lengths, value)
		}
	}
	if len(lengths) > n {
		return nil, errJudgeWrong
	}
	return lengths, nil
}

// codes is RFC 1951, section 3.2.5.
func (j *judge) codes(literalLengths, distanceLengths []int) error {
	literals, err := newHuffman(literalLengths)
	if err != nil {
		return err
	}
	distances, err := newHuffman(distanceLengths)
	if err != nil {
		return err
	}
	for {
		s, err := j.symbol(literals)
		switch {
		case j.most > 0 && len(j.out) > j.most:
			return errJudgeMost
		case err != nil:
			return err
		case s < 256:
			j.out = append(j.out, byte(s))
			continue
		case s == 256:
			return nil
		case s > 285:
			return errJudgeWrong
		}
		length, extra := s-257+3, 0
		if s == 285 {
			length = 258
		} else if s >= 265 {
			extra = (s - 261) / 4
			length = (4+(s-265)%4)<<extra + 3
		}
		if length, err = j.add(length, extra); err != nil {
			return err
		}
		if s, err = j.symbol(distances); err != nil {
			return err
		}
		if s > 29 {
			return errJudgeWrong
		}
		distance, extra := s+1, 0
		if s >= 4 {
			extra = (s - 2) / 2
			distance = (2+s%2)<<extra + 1
		}
		if distance, err = j.add(distance, extra); err != nil {
			return err
		}
		if distance > len(j.out)-j.stream {
			return errJudgeWrong
		}
		j.farthest = max(j.farthest, distance)
		for range length {
			j.out = append(j.out, j.out[len(j.out)-distance])
		}
	}
}

func (j *judge) add(v, bits int) (int, error) {
	more, err := j.bits(bits)
	return v + more, err
}
