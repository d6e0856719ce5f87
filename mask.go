package websocket

import "encoding/binary"

// mask XORs b in place with key, beginning at key[pos&3], and returns the
// position in the key for the byte after b. Masking and unmasking are the same
// operation (RFC 6455, section 5.3).
func mask(b []byte, key [4]byte, pos int) int {
	pos &= 3
	next := (pos + len(b)) & 3
	// The key as it lies over b: four bytes from pos on, twice.
	k32 := binary.LittleEndian.Uint32(key[:])
	k32 = k32>>(8*pos) | k32<<(32-8*pos)
	k := uint64(k32)<<32 | uint64(k32)
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^k)
		b = b[8:]
	}
	for i := range b {
		b[i] ^= byte(k)
		k >>= 8
	}
	return next
}
