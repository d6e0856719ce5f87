// Package ledger makes messages that prove themselves: each carries its
// stream, its connection, its number and a checksum, and both ends can make it
// again from these, so that one which is lost, doubled, reordered or altered
// is noticed by whoever gets it.
package ledger

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/bits"
	"math/rand/v2"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A Stream is one of the orders that hold by themselves on a connection.
type Stream byte

// The streams.
const (
	Client Stream = 'C' // what the client sends and the server echoes
	Pushed Stream = 'P' // what the server writes by itself
	Queued Stream = 'S' // what the server gives to Send
)

// HeadLen is the length of the part that names a message: stream, connection,
// number, checksum, each in hexadecimal.
const HeadLen = 1 + 8 + 8 + 8

// A Maker makes messages. It is shared.
type Maker struct {
	seed   uint64
	text   []byte
	random []byte
}

// MaxSize is more than any message has.
const MaxSize = 256<<10 + 64

const sample = "Съешь же ещё этих мягких французских булок, да выпей чаю. 色は匂へど散りぬるを。 Grüße aus Österreich. 👩‍🚀🚀✨ plain "

// NewMaker makes the messages of a seed.
func NewMaker(seed uint64) *Maker {
	m := &Maker{seed: seed, random: make([]byte, 2*MaxSize)}
	m.text = []byte(strings.Repeat(sample, 2*MaxSize/len(sample)+2))
	r := rand.New(rand.NewPCG(seed, 0))
	for i := 0; i+8 <= len(m.random); i += 8 {
		binary.LittleEndian.PutUint64(m.random[i:], r.Uint64())
	}
	return m
}

// Mix spreads its arguments over 64 bits.
func Mix(v ...uint64) uint64 {
	h := uint64(0x9e3779b97f4a7c15)
	for _, x := range v {
		h = (h ^ x) * 0xff51afd7ed558ccd
		h ^= h >> 32
		h *= 0xc4ceb9fe1a85ec53
		h ^= h >> 29
	}
	return h
}

// Append appends message seq of a stream to dst, and reports whether it is text.
func (m *Maker) Append(dst []byte, s Stream, id, seq uint32) (p []byte, text bool) {
	h := Mix(m.seed, uint64(s), uint64(id)<<32|uint64(seq))
	size := size(h)
	body := m.random
	if text = h>>60&1 == 0; text {
		body = m.text
	}
	from := int(h >> 20 % MaxSize)
	to := from + size
	if text {
		for !utf8.RuneStart(body[from]) {
			from++
		}
		for !utf8.RuneStart(body[to]) {
			to++
		}
	}
	start := len(dst)
	dst = fmt.Appendf(dst, "%c%08x%08x", s, id, seq)
	sum := crc32.Update(crc32.Checksum(dst[start:], castagnoli), castagnoli, body[from:to])
	dst = fmt.Appendf(dst, "%08x", sum)
	return append(dst, body[from:to]...), text
}

// size makes many small messages and few large ones.
func size(h uint64) int {
	v := int(h >> 8 % (1 << 20))
	switch c := h % 1000; {
	case c < 700:
		return v % 200
	case c < 950:
		return v % (4 << 10)
	case c < 995:
		return v % (64 << 10)
	}
	return v % (256 << 10)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A Head names a message.
type Head struct {
	Stream  Stream
	ID, Seq uint32
	Sum     uint32
}

// Parse reads the head of p and holds the checksum against the bytes.
func Parse(p []byte) (Head, error) {
	if len(p) < HeadLen {
		return Head{}, fmt.Errorf("a message of %d bytes, shorter than its head: %q", len(p), p)
	}
	h := Head{Stream: Stream(p[0])}
	var failed error
	for i, to := range []*uint32{&h.ID, &h.Seq, &h.Sum} {
		v, err := strconv.ParseUint(string(p[1+8*i:9+8*i]), 16, 32)
		if err != nil {
			failed = err
		}
		*to = uint32(v)
	}
	if failed != nil {
		return h, fmt.Errorf("an altered message, its head is %q", p[:HeadLen])
	}
	if sum := crc32.Update(crc32.Checksum(p[:17], castagnoli), castagnoli, p[HeadLen:]); sum != h.Sum {
		return h, fmt.Errorf("an altered message %q of %d bytes, its checksum is %08x", p[:HeadLen], len(p), sum)
	}
	return h, nil
}

// Want makes message seq of a stream again, in buf, and compares. The error
// says what got is instead.
func (m *Maker) Want(buf []byte, s Stream, id, seq uint32, got []byte, gotText bool) ([]byte, error) {
	buf, text := m.Append(buf[:0], s, id, seq)
	if text == gotText && bytes.Equal(buf, got) {
		return buf, nil
	}
	h, err := Parse(got)
	switch {
	case err != nil:
		return buf, fmt.Errorf("%w; want %q", err, buf[:HeadLen])
	case h.Stream != s || h.ID != id:
		return buf, fmt.Errorf("message %q of another stream or connection; want %q", got[:HeadLen], buf[:HeadLen])
	case h.Seq < seq:
		return buf, fmt.Errorf("message %d of stream %c once more; want %d", h.Seq, s, seq)
	case h.Seq > seq:
		return buf, fmt.Errorf("message %d of stream %c, but %d hasn't come", h.Seq, s, seq)
	case text != gotText:
		return buf, fmt.Errorf("message %d of stream %c came as the other type", seq, s)
	}
	return buf, fmt.Errorf("message %d of stream %c is altered", seq, s)
}

// A Chain is a sum over messages in their order. The zero value has none.
type Chain struct {
	N   uint32
	Sum uint64
}

// Add takes the next message.
func (c *Chain) Add(seq, sum uint32) {
	c.N++
	c.Sum = bits.RotateLeft64(c.Sum^(uint64(seq)<<32|uint64(sum)), 23) * 0x9e3779b97f4a7c15
}
