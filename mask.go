package websocket

import "encoding/binary"

// mask XORs b in place with key, beginning at key[pos&3], and returns the
// position in the key for the byte after b. Masking and unmasking are the same
// operation (RFC 6455, section 5.3).
func mask(b []byte, key [4]byte, pos int) int {
	next := (pos + len(b)) & 3
	// The key as it lies over b, twice, to fill a word.
	shift := 8 * (pos & 3)
	half := binary.LittleEndian.Uint32(key[:])
	half = half>>shift | half<<(32-shift)
	word := uint64(half)<<32 | uint64(half)

	// Eight words at a time: from 64 bytes to 1 MiB this beats
	// subtle.XORBytes, which would need the key repeated in a buffer.
	for len(b) >= 64 {
		block := (*[64]byte)(b)
		maskWord((*[8]byte)(block[0:]), word)
		maskWord((*[8]byte)(block[8:]), word)
		maskWord((*[8]byte)(block[16:]), word)
		maskWord((*[8]byte)(block[24:]), word)
		maskWord((*[8]byte)(block[32:]), word)
		maskWord((*[8]byte)(block[40:]), word)
		maskWord((*[8]byte)(block[48:]), word)
		maskWord((*[8]byte)(block[56:]), word)
		b = b[64:]
	}
	for len(b) >= 8 {
		maskWord((*[8]byte)(b), word)
		b = b[8:]
	}
	if len(b) >= 4 {
		binary.LittleEndian.PutUint32(b, binary.LittleEndian.Uint32(b)^half)
		b = b[4:]
	}
	for i := range b {
		b[i] ^= byte(half)
		half >>= 8
	}
	return next
}

func maskWord(b *[8]byte, word uint64) {
	binary.LittleEndian.PutUint64(b[:], binary.LittleEndian.Uint64(b[:])^word)
}
