package peers

import (
	"bufio"
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// Netty's client as its bytes: with the handler of its examples it offers
// permessage-deflate without parameters, keeps its context, and takes an answer
// for broken that has a no_context_takeover or a client_max_window_bits it
// didn't offer.
type nettyPeer struct {
	nc     net.Conn
	br     *bufio.Reader
	agreed bool

	zipped bytes.Buffer
	zip    *flate.Writer
	unzip  io.Reader
	window []byte // the end of what was inflated
}

func dialNetty(addr string) (*nettyPeer, error) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	p := &nettyPeer{nc: nc, br: bufio.NewReader(nc), unzip: flate.NewReader(nil)}
	p.zip, err = flate.NewWriter(&p.zipped, 6)
	if err == nil {
		err = p.upgrade(addr)
	}
	if err != nil {
		nc.Close()
		return nil, err
	}
	return p, nil
}

func (p *nettyPeer) upgrade(addr string) error {
	p.nc.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(p.nc, "GET / HTTP/1.1\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"+
		"host: %s\r\norigin: http://%s\r\nsec-websocket-version: 13\r\nsec-websocket-extensions: permessage-deflate\r\n\r\n", addr, addr)
	r, err := http.ReadResponse(p.br, nil)
	if err != nil {
		return err
	}
	if r.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("the upgrade was answered with %s", r.Status)
	}
	answer := r.Header.Get("Sec-WebSocket-Extensions")
	p.agreed = answer != ""
	for i, part := range strings.Split(answer, ";") {
		name, _, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch {
		case !p.agreed, i == 0 && name == "permessage-deflate", name == "server_max_window_bits":
		default:
			return fmt.Errorf("netty: invalid WebSocket extension handshake for %q: %q wasn't offered", answer, name)
		}
	}
	return nil
}

// write compresses every message, an empty one too.
func (p *nettyPeer) write(op ws.OpCode, b []byte) error {
	f := ws.NewFrame(op, true, b)
	if p.agreed {
		p.zipped.Reset()
		p.zip.Write(b) // a bytes.Buffer takes everything
		p.zip.Flush()
		f = ws.NewFrame(op, true, bytes.Clone(p.zipped.Bytes()[:p.zipped.Len()-4]))
		f.Header.Rsv = ws.Rsv(true, false, false)
	}
	return ws.WriteFrame(p.nc, ws.MaskFrame(f))
}

func (p *nettyPeer) read() (ws.OpCode, []byte, error) {
	f, err := ws.ReadFrame(p.br)
	op, zipped := f.Header.OpCode, f.Header.Rsv1()
	for err == nil && !f.Header.Fin {
		var next ws.Frame
		next, err = ws.ReadFrame(p.br)
		f.Payload, f.Header.Fin = append(f.Payload, next.Payload...), next.Header.Fin
	}
	if err != nil || !zipped {
		return op, f.Payload, err
	}
	tail := strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff")
	if err := p.unzip.(flate.Resetter).Reset(io.MultiReader(bytes.NewReader(f.Payload), tail), p.window); err != nil {
		return op, nil, err
	}
	b, err := io.ReadAll(p.unzip)
	p.window = append(p.window, b...)
	p.window = p.window[max(0, len(p.window)-32<<10):]
	return op, b, err
}

func TestNetty(t *testing.T) {
	server := startEcho(t)
	t.Cleanup(func() { stopEcho(t, server, 1) })
	p, err := dialNetty(server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer p.nc.Close()
	t.Logf("compression agreed on: %v", p.agreed)
	for i, m := range []struct {
		op ws.OpCode
		p  []byte
	}{
		{ws.OpText, payload(true, 2000)}, {ws.OpText, payload(true, 2000)}, {ws.OpBinary, payload(false, 5000)},
		{ws.OpText, nil}, {ws.OpBinary, nil}, {ws.OpBinary, payload(false, 1<<20)}, {ws.OpText, payload(true, 2000)},
	} {
		if err := p.write(m.op, m.p); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		op, got, err := p.read()
		if err != nil || op != m.op || !bytes.Equal(got, m.p) {
			t.Fatalf("message %d, %v of %d bytes, came back as %v of %d bytes, %.80q, %v", i, m.op, len(m.p), op, len(got), got, err)
		}
	}
	if err := ws.WriteFrame(p.nc, ws.MaskFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(4321, "bye")))); err != nil {
		t.Fatal(err)
	}
	op, got, err := p.read()
	if err != nil || op != ws.OpClose || len(got) < 2 || binary.BigEndian.Uint16(got) != 4321 {
		t.Errorf("close 4321 was answered with %v % x, %v; want the same code", op, got, err)
	}
}
