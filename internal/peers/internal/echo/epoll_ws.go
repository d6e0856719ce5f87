package echo

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"net"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// epollFrames answers frames on an event loop with nothing around it: no rules
// but those that the bytes can't be read without, no limits but one, no time,
// no callbacks. What a library costs above it is what it does for that.
type epollFrames struct{ Config }

func serveEpollFrames(ln net.Listener, cfg Config) error { return serveEpoll(ln, epollFrames{cfg}) }

// frameLength reads the header at the start of b: its length, masking key
// included, and the payload's. head is 0 while it isn't whole.
func frameLength(b []byte) (head int, payload uint64) {
	if len(b) < 2 {
		return 0, 0
	}
	switch n := b[1] & 0x7f; n {
	case 126:
		if len(b) >= 8 {
			return 8, uint64(binary.BigEndian.Uint16(b[2:]))
		}
	case 127:
		if len(b) >= 14 {
			return 14, binary.BigEndian.Uint64(b[2:])
		}
	default:
		if len(b) >= 6 {
			return 6, uint64(n)
		}
	}
	return 0, 0
}

func (p epollFrames) whole(b []byte) int {
	head, n := frameLength(b)
	if n > uint64(p.maxMessage()) {
		return 0
	}
	return head + int(n)
}

func (p epollFrames) take(l *epollLoop, c *epollConn, b []byte) int {
	taken := 0
	if !c.open {
		end := bytes.Index(b, []byte("\r\n\r\n"))
		if end < 0 {
			return 0
		}
		taken = end + 4
		c.open = true
		if !l.send(c, upgradeAnswer(b[:taken])) {
			return -1
		}
	}
	l.out = l.out[:0]
	for {
		head, n := frameLength(b[taken:])
		if n > uint64(p.maxMessage()) {
			return -1
		}
		if head == 0 || len(b)-taken < head+int(n) {
			break
		}
		frame := b[taken : taken+head+int(n)]
		taken += len(frame)
		if !p.answer(l, c, frame, head) {
			return -1
		}
		if frame[0]&15 == byte(ws.OpClose) {
			l.send(c, l.out) // ends either way
			return -1
		}
	}
	if !l.send(c, l.out) {
		return -1
	}
	return taken
}

// answer unmasks a frame and sends it back: a small one with others of the same
// read, a large one from where it lies, the shorter header written over the key.
func (p epollFrames) answer(l *epollLoop, c *epollConn, frame []byte, head int) bool {
	payload := frame[head:]
	ws.Cipher(payload, [4]byte(frame[head-4:]), 0)
	if p.Validate && frame[0]&15 == byte(ws.OpText) && !utf8.Valid(payload) {
		return false
	}
	answer := frame[4:]
	copy(answer, frame[:head-4])
	answer[1] &= 0x7f
	if answer[0]&15 == byte(ws.OpPing) {
		answer[0] ^= byte(ws.OpPing ^ ws.OpPong)
	}
	if len(answer) <= 4<<10 {
		l.out = append(l.out, answer...)
		return true
	}
	ok := l.send(c, l.out) && l.send(c, answer)
	l.out = l.out[:0]
	return ok
}

// upgradeAnswer is the 101 to a request that nobody checks.
func upgradeAnswer(request []byte) []byte {
	_, key, _ := bytes.Cut(request, []byte("Sec-WebSocket-Key: "))
	key, _, _ = bytes.Cut(key, []byte("\r\n"))
	sum := sha1.Sum(append(bytes.Clone(key), "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"...))
	b := []byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ")
	return append(base64.StdEncoding.AppendEncode(b, sum[:]), "\r\n\r\n"...)
}
