package echo

import (
	"bufio"
	"io"
	"net"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

func serveGobwas(ln net.Listener, cfg Config) error {
	return serveConns(ln, func(nc net.Conn) { echoGobwas(nc, cfg, false) })
}

func serveGobwasCork(ln net.Listener, cfg Config) error {
	return serveConns(ln, func(nc net.Conn) { echoGobwas(nc, cfg, true) })
}

// echoGobwas is the leanest loop the library allows: its zero-copy upgrade,
// headers through buffers of our own, the payload read behind room for the
// answer's header so that both leave in one write, and, corked, in one write
// for all frames the reader holds.
func echoGobwas(nc net.Conn, cfg Config, cork bool) {
	defer nc.Close()
	if _, err := (ws.Upgrader{}).Upgrade(nc); err != nil {
		return
	}
	var (
		st  = ws.StateServerSide
		br  = bufio.NewReaderSize(nc, 4<<10)
		in  = make([]byte, ws.MaxHeaderSize)
		out = make([]byte, ws.MaxHeaderSize)
		buf = make([]byte, 0, 512) // answers not yet written
		aw  = appendWriter{&buf}
	)
	for {
		h, err := ws.ReadHeaderBuffer(br, in)
		if err != nil || !h.Masked || h.Length > int64(cfg.maxMessage()) || ws.CheckHeader(h, st) != nil {
			return
		}
		// The echo needs no assembly: fragments go back as they came.
		switch {
		case h.OpCode.IsControl():
		case h.Fin:
			st = st.Clear(ws.StateFragmented)
		default:
			st = st.Set(ws.StateFragmented)
		}
		answer := ws.Header{Fin: h.Fin, OpCode: h.OpCode, Length: h.Length}
		if h.OpCode == ws.OpPing {
			answer.OpCode = ws.OpPong
		}
		if err := ws.WriteHeaderBuffer(aw, answer, out); err != nil {
			return
		}
		start := len(buf)
		buf = grow(buf, int(h.Length))
		payload := buf[start:]
		if _, err := io.ReadFull(br, payload); err != nil {
			return
		}
		ws.Cipher(payload, h.Mask, 0)
		if cfg.Validate && h.OpCode == ws.OpText && !utf8.Valid(payload) {
			return
		}
		if !cork || br.Buffered() == 0 || len(buf) > 16<<10 || h.OpCode == ws.OpClose {
			if _, err := nc.Write(buf); err != nil {
				return
			}
			buf = buf[:0]
		}
		if h.OpCode == ws.OpClose {
			return
		}
	}
}

// appendWriter lets WriteHeaderBuffer append to a slice.
type appendWriter struct{ b *[]byte }

func (w appendWriter) Write(p []byte) (int, error) {
	*w.b = append(*w.b, p...)
	return len(p), nil
}

// grow lengthens b by n bytes without clearing what a reused buffer holds.
func grow(b []byte, n int) []byte {
	if cap(b)-len(b) < n {
		b = append(make([]byte, 0, len(b)+n), b...)
	}
	return b[:len(b)+n]
}
