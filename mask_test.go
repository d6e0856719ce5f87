package websocket

import (
	"bytes"
	"fmt"
	"testing"
)

// maskBytewise is section 5.3 to the letter: octet i is XORed with octet i
// MOD 4 of the key.
func maskBytewise(b []byte, key [4]byte, pos int) int {
	for i := range b {
		b[i] ^= key[(pos+i)%4]
	}
	return (pos + len(b)) % 4
}

// checkMask masks payload at every offset within a word and expects what the
// byte loop gives, with not a byte before or behind touched.
func checkMask(t *testing.T, payload []byte, key [4]byte, pos int) {
	t.Helper()
	for offset := range 8 {
		got := append(bytes.Repeat([]byte{0xA5}, offset), payload...)
		got = append(got, 0x5A, 0x5A, 0x5A, 0x5A, 0x5A, 0x5A, 0x5A, 0x5A)
		want := bytes.Clone(got)
		gotPos := mask(got[offset:offset+len(payload)], key, pos)
		wantPos := maskBytewise(want[offset:offset+len(payload)], key, pos)
		if gotPos != wantPos {
			t.Errorf("mask(%d bytes, % x, %d) = %d, want %d", len(payload), key, pos, gotPos, wantPos)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("mask(%d bytes at offset %d, % x, %d): got % x, want % x",
				len(payload), offset, key, pos, got, want)
		}
	}
}

// The masked "Hello" of RFC 6455, section 5.7.
func TestMaskHello(t *testing.T) {
	b := []byte("Hello")
	pos := mask(b, [4]byte{0x37, 0xfa, 0x21, 0x3d}, 0)
	want := []byte{0x7f, 0x9f, 0x4d, 0x51, 0x58}
	if !bytes.Equal(b, want) || pos != 1 {
		t.Errorf("mask(Hello) = % x, %d; want % x, 1", b, pos, want)
	}
}

func TestMaskEveryLength(t *testing.T) {
	key := [4]byte{0x11, 0x22, 0x44, 0x88}
	payload := make([]byte, 700)
	for i := range payload {
		payload[i] = byte(i * 7)
	}
	for n := range len(payload) {
		for pos := range 4 {
			checkMask(t, payload[:n], key, pos)
		}
	}
}

// A payload that arrives in pieces is masked as if it had come whole.
func TestMaskPieces(t *testing.T) {
	key := [4]byte{1, 2, 3, 4}
	payload := bytes.Repeat([]byte("abcdefg"), 300)
	want := bytes.Clone(payload)
	maskBytewise(want, key, 0)
	for size := 1; size < 600; size += 7 {
		got := bytes.Clone(payload)
		pos := 0
		for b := got; len(b) > 0; {
			n := min(size, len(b))
			pos = mask(b[:n], key, pos)
			b = b[n:]
		}
		if !bytes.Equal(got, want) {
			t.Errorf("pieces of %d bytes: got % x, want % x", size, got, want)
		}
	}
}

func TestMaskAllocates(t *testing.T) {
	b := make([]byte, 1<<16)
	if got := testing.AllocsPerRun(10, func() { mask(b, [4]byte{1, 2, 3, 4}, 1) }); got != 0 {
		t.Errorf("mask of %d bytes allocates %v times, want 0", len(b), got)
	}
}

func FuzzMask(f *testing.F) {
	f.Add([]byte("Hello"), []byte{0x37, 0xfa, 0x21, 0x3d}, 0)
	f.Fuzz(func(t *testing.T, payload, k []byte, pos int) {
		var key [4]byte
		copy(key[:], k)
		checkMask(t, payload, key, pos&3)
	})
}

func BenchmarkMask(b *testing.B) {
	sizes := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 32, 125, 512, 1 << 10, 64 << 10, 1 << 20}
	for _, size := range sizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			buf := make([]byte, size+1)[1:]
			b.SetBytes(int64(size))
			pos := 1
			for b.Loop() {
				pos = mask(buf, [4]byte{1, 2, 3, 4}, pos)
			}
		})
	}
}
