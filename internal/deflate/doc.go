// Package deflate compresses and decompresses messages with DEFLATE (RFC 1951)
// as permessage-deflate uses it (RFC 7692): from memory to memory, each message
// whole or in pieces, with or without the context of the messages before.
//
// It knows nothing of frames and connections. A message is what RFC 7692,
// section 7.2 makes of it: blocks, the last of them an empty stored block whose
// length, 00 00 ff ff, is left out.
package deflate

// The bounds of a window, as powers of two (RFC 7692, section 7.1.2).
const (
	MinBits = 8
	MaxBits = 15
)

// What RFC 1951 says of symbols and lengths (sections 3.2.5 and 3.2.7).
const (
	endOfBlock   = 256
	maxLit       = 286 // symbols of literals and lengths that may be used
	maxDist      = 30  // symbols of distances that may be used
	maxPre       = 19  // symbols of code lengths
	maxLength    = 258
	maxCodeBits  = 15
	maxPreBits   = 7
	fixedLit     = 288 // symbols of the fixed code, two of which mean nothing
	fixedDist    = 32
	blockStored  = 0
	blockFixed   = 1
	blockDynamic = 2
)

// preOrder is the order in which the lengths of the code for code lengths are
// sent (section 3.2.7).
var preOrder = [maxPre]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// lengthOf gives the shortest length of a symbol and the number of extra bits.
func lengthOf(symbol int) (base, extra int) {
	switch s := symbol - 257; {
	case s < 8:
		return s + 3, 0
	case s == 28:
		return maxLength, 0
	default:
		extra = s/4 - 1
		return (4+s%4)<<extra + 3, extra
	}
}

// distanceOf gives the shortest distance of a symbol and the number of extra bits.
func distanceOf(symbol int) (base, extra int) {
	if symbol < 4 {
		return symbol + 1, 0
	}
	extra = symbol/2 - 1
	return (2+symbol%2)<<extra + 1, extra
}

// fixedLengths are the lengths of the fixed code (section 3.2.6).
func fixedLengths() (lit [fixedLit]uint8, dist [fixedDist]uint8) {
	for i := range lit {
		switch {
		case i < 144, i >= 280:
			lit[i] = 8
		case i < 256:
			lit[i] = 9
		default:
			lit[i] = 7
		}
	}
	for i := range dist {
		dist[i] = 5
	}
	return lit, dist
}
