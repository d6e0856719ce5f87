package deflate

import "encoding/binary"

const (
	// A turn of the fast loop reads at most 8 bytes twice, and writes two
	// literals and a match, which is copied in steps of 8 bytes.
	fastIn  = 16
	fastOut = 2 + maxLength + 8
)

// codes is the data of a block, up to its end.
func (d *decoder) codes(t *tables) error {
	for {
		if len(d.src)-d.pos >= fastIn && len(d.out)-d.n >= fastOut {
			if end, err := d.fast(t); end || err != nil {
				return err
			}
		}
		if end, err := d.careful(t); end || err != nil {
			return err
		}
	}
}

// fast decodes as long as there is so much input and so much room that neither
// has to be looked at within a turn, or up to the end of the block.
func (d *decoder) fast(t *tables) (end bool, err error) {
	src, pos, acc, nb := d.src, d.pos, d.acc, d.bits
	out, n, start := d.out, d.n, d.n
	lastIn, lastOut := len(src)-fastIn, len(out)-fastOut
loop:
	for pos <= lastIn && n <= lastOut {
		acc |= binary.LittleEndian.Uint64(src[pos:]) << (nb & 63)
		pos += int(63-nb) >> 3
		nb |= 56
		e := t.lit[acc&litMask]
		if e&isLiteral != 0 {
			acc >>= e & 15
			nb -= uint(e & 15)
			out[n] = byte(e >> baseShift)
			n++
			e = t.lit[acc&litMask]
			if e&isLiteral != 0 {
				acc >>= e & 15
				nb -= uint(e & 15)
				out[n] = byte(e >> baseShift)
				n++
				continue
			}
			acc |= binary.LittleEndian.Uint64(src[pos:]) << (nb & 63)
			pos += int(63-nb) >> 3
			nb |= 56
		}
		if e&isSpecial != 0 {
			if e&isSubtable != 0 {
				acc >>= litBits
				nb -= litBits
				e = t.lit[uint(e>>baseShift)+uint(acc)&(1<<(e>>codeShift&15)-1)]
			}
			if e&isLiteral != 0 {
				acc >>= e & 15
				nb -= uint(e & 15)
				out[n] = byte(e >> baseShift)
				n++
				continue
			}
			if e&isSpecial != 0 {
				if end = e&isEnd != 0; !end {
					err = errNoCode
					break loop
				}
				acc >>= e & 15
				nb -= uint(e & 15)
				break loop
			}
		}
		length := int(e>>baseShift) + int(acc&(1<<(e&31)-1)>>(e>>codeShift&15))
		acc >>= e & 31
		nb -= uint(e & 31)

		e = t.dist[acc&distMask]
		if e&isSpecial != 0 {
			if e&isSubtable == 0 {
				err = errNoCode
				break loop
			}
			acc >>= distBits
			nb -= distBits
			e = t.dist[uint(e>>baseShift)+uint(acc)&(1<<(e>>codeShift&15)-1)]
		}
		distance := int(e>>baseShift) + int(acc&(1<<(e&31)-1)>>(e>>codeShift&15))
		acc >>= e & 31
		nb -= uint(e & 31)

		from := n - distance
		if from < d.stream {
			d.n = n
			if !d.match(length, distance) {
				err = errTooFar
				break loop
			}
			n = d.n
			continue
		}
		to := n + length
		if distance >= 8 {
			for {
				binary.LittleEndian.PutUint64(out[n:], binary.LittleEndian.Uint64(out[from:]))
				if n += 8; n >= to {
					break
				}
				from += 8
			}
		} else {
			fill(out[n:], out[from:], distance, length)
		}
		n = to
	}
	d.steps += n - start // each turn gives a byte or is the last
	d.pos, d.acc, d.bits, d.n = pos, acc, nb, n
	return end, err
}

// fill repeats the first distance bytes of from, fewer than 8, up to length.
// Both have 8 bytes of room more.
func fill(to, from []byte, distance, length int) {
	shift := uint(8 * distance)
	pattern := binary.LittleEndian.Uint64(from) & (1<<(shift&63) - 1)
	for ; shift < 64; shift *= 2 {
		pattern |= pattern << (shift & 63)
	}
	whole := 8 / distance * distance // bytes after which it begins again
	for i := 0; i < length; i += whole {
		binary.LittleEndian.PutUint64(to[i:], pattern)
	}
}

// match appends what is length bytes long and begins distance bytes before the
// end, for which there is room. It reports whether that lies within what may be
// referred to.
func (d *decoder) match(length, distance int) bool {
	if before := distance - (d.n - d.stream); before > 0 {
		if before > d.window.Len() {
			return false
		}
		first, second := d.window.from(before)
		n := copy(d.out[d.n:d.n+length], first)
		n += copy(d.out[d.n+n:d.n+length], second)
		d.n += n
		length -= n
	}
	for from := d.n - distance; length > 0; {
		// It repeats itself: twice as much is there to be copied with each turn.
		n := copy(d.out[d.n:d.n+length], d.out[from:d.n])
		d.n += n
		length -= n
	}
	return true
}

// careful decodes with a look at each bit and byte, until there is so much room
// again that fast can go on, or up to the end of the block.
func (d *decoder) careful(t *tables) (end bool, err error) {
	for room := len(d.out); ; {
		d.steps++
		e, err := d.symbol(t.lit[:], litBits)
		switch {
		case err != nil:
			return false, err
		case e&isLiteral != 0:
			if !d.reserve(1) {
				return false, ErrTooLong
			}
			d.out[d.n] = byte(e >> baseShift)
			d.n++
		case e&isEnd != 0:
			return true, nil
		default:
			if err := d.carefulMatch(t, e); err != nil {
				return false, err
			}
		}
		if len(d.out) != room {
			return false, nil
		}
	}
}

func (d *decoder) carefulMatch(t *tables, e entry) error {
	length, ok := d.extra(e)
	if !ok {
		return ErrCut
	}
	e, err := d.symbol(t.dist[:], distBits)
	if err != nil {
		return err
	}
	distance, ok := d.extra(e)
	if !ok {
		return ErrCut
	}
	fits := d.reserve(length)
	if !d.match(min(length, len(d.out)-d.n), distance) {
		return errTooFar
	}
	if !fits {
		return ErrTooLong
	}
	return nil
}

// symbol takes a code, without the extra bits behind it.
func (d *decoder) symbol(table []entry, root uint) (entry, error) {
	if d.bits < maxCodeBits {
		d.refill()
	}
	e := table[d.acc&(1<<root-1)]
	n := uint(e >> codeShift & 15)
	if e&isSubtable != 0 {
		i := uint(e>>baseShift) + uint(d.acc>>root)&(1<<n-1)
		e = table[i]
		n = root + uint(e>>codeShift&15)
	}
	if e&isSpecial != 0 && e&isEnd == 0 {
		if d.bits < maxCodeBits {
			return 0, ErrCut // what is behind the end is no bit of a code
		}
		return 0, errNoCode
	}
	if d.bits < n {
		return 0, ErrCut
	}
	d.take(n)
	return e, nil
}

// extra takes the extra bits behind the code of a length or distance.
func (d *decoder) extra(e entry) (int, bool) {
	n := uint(e&31) - uint(e>>codeShift&15)
	if !d.need(n) {
		return 0, false
	}
	return int(e>>baseShift) + int(d.take(n)), true
}
