package peers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	coder "github.com/coder/websocket"
	"github.com/gobwas/httphead"
	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsflate"
	"github.com/gorilla/websocket"
	"github.com/lxzan/gws"
)

// patience is how long a peer waits for anything.
const patience = 20 * time.Second

// gorilla/websocket

type gorillaPeer struct {
	c    *websocket.Conn
	pong string
	got  bool
}

func dialGorilla(_ *testing.T, o dialOptions) (peer, error) {
	d := websocket.Dialer{Subprotocols: o.subprotocols, EnableCompression: o.deflate, TLSClientConfig: o.target.tls(), HandshakeTimeout: patience}
	if o.fragments {
		d.WriteBufferSize = 300 // a frame for each buffer
	}
	c, _, err := d.Dial(o.target.url, nil)
	if err != nil {
		return nil, err
	}
	p := &gorillaPeer{c: c}
	c.SetReadDeadline(time.Now().Add(patience))
	c.SetPongHandler(func(s string) error { p.pong, p.got = s, true; return nil })
	return p, nil
}

func gorillaType(text bool) int {
	if text {
		return websocket.TextMessage
	}
	return websocket.BinaryMessage
}

func (p *gorillaPeer) Write(text bool, b []byte) error {
	return p.c.WriteMessage(gorillaType(text), b)
}

func (p *gorillaPeer) WriteFragments(text bool, b []byte) error { return p.Write(text, b) }

func (p *gorillaPeer) Read() (bool, []byte, error) {
	t, b, err := p.c.ReadMessage()
	if ce, ok := errors.AsType[*websocket.CloseError](err); ok {
		err = closed{ce.Code, ce.Text}
	}
	return t == websocket.TextMessage, b, err
}

func (p *gorillaPeer) Ping(payload string, b []byte) (string, []byte, error) {
	p.got = false
	if err := p.c.WriteControl(websocket.PingMessage, []byte(payload), time.Now().Add(patience)); err != nil {
		return "", nil, err
	}
	if err := p.Write(true, b); err != nil {
		return "", nil, err
	}
	_, echo, err := p.Read()
	if err == nil && !p.got {
		err = errors.New("the echo came before the pong")
	}
	return p.pong, echo, err
}

func (p *gorillaPeer) Close(code int, reason string) (closed, error) {
	if err := p.c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason), time.Now().Add(patience)); err != nil {
		return closed{}, err
	}
	return awaitClose(p)
}

func (p *gorillaPeer) Subprotocol() string { return p.c.Subprotocol() }
func (p *gorillaPeer) Cut()                { p.c.Close() }

// awaitClose reads until the server's close frame.
func awaitClose(p peer) (closed, error) {
	for {
		_, _, err := p.Read()
		if got, ok := errors.AsType[closed](err); ok {
			return got, nil
		}
		if err != nil {
			return closed{}, err
		}
	}
}

// coder/websocket

type coderPeer struct {
	c     *coder.Conn
	ctx   context.Context
	pongs chan string
}

func dialCoder(t *testing.T, o dialOptions) (peer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	p := &coderPeer{ctx: ctx, pongs: make(chan string, 16)}
	opts := &coder.DialOptions{
		HTTPClient:     &http.Client{Transport: &http.Transport{TLSClientConfig: o.target.tls()}},
		Subprotocols:   o.subprotocols,
		OnPongReceived: func(_ context.Context, b []byte) { p.pongs <- string(b) },
	}
	if o.deflate {
		opts.CompressionMode = coder.CompressionContextTakeover
	}
	c, _, err := coder.Dial(ctx, o.target.url, opts)
	if err != nil {
		return nil, err
	}
	c.SetReadLimit(16 << 20)
	p.c = c
	return p, nil
}

func coderType(text bool) coder.MessageType {
	if text {
		return coder.MessageText
	}
	return coder.MessageBinary
}

func (p *coderPeer) Write(text bool, b []byte) error {
	return p.c.Write(p.ctx, coderType(text), b)
}

func (p *coderPeer) WriteFragments(text bool, b []byte) error {
	w, err := p.c.Writer(p.ctx, coderType(text))
	if err != nil {
		return err
	}
	third := len(b)/3 + 1
	for len(b) > 0 {
		n := min(third, len(b))
		if _, err := w.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return w.Close()
}

func (p *coderPeer) Read() (bool, []byte, error) {
	t, b, err := p.c.Read(p.ctx)
	if ce, ok := errors.AsType[coder.CloseError](err); ok {
		err = closed{int(ce.Code), ce.Reason}
	}
	return t == coder.MessageText, b, err
}

// Ping can't choose its payload here: the library numbers its pings and waits
// for the pong while another goroutine reads.
func (p *coderPeer) Ping(_ string, b []byte) (string, []byte, error) {
	pinged := make(chan error, 1)
	echoed := make(chan error, 1)
	var echo []byte
	go func() {
		var err error
		_, echo, err = p.Read()
		echoed <- err
	}()
	go func() { pinged <- p.c.Ping(p.ctx) }()
	if err := <-pinged; err != nil {
		return "", nil, err
	}
	if err := p.Write(true, b); err != nil {
		return "", nil, err
	}
	err := <-echoed
	return <-p.pongs, echo, err
}

func (p *coderPeer) Close(code int, reason string) (closed, error) {
	// The library's Close swallows the answer; it returns nil only if the
	// server's code was the same.
	if err := p.c.Close(coder.StatusCode(code), reason); err != nil {
		return closed{}, err
	}
	return closed{code, reason}, nil
}

func (p *coderPeer) Subprotocol() string { return p.c.Subprotocol() }
func (p *coderPeer) Cut()                { p.c.CloseNow() }

// gobwas/ws, by hand

type gobwasPeer struct {
	nc      net.Conn
	r       io.Reader
	hs      ws.Handshake
	deflate bool
	closing bool // our close frame went out
	pongs   []string
}

func dialGobwas(_ *testing.T, o dialOptions) (peer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	d := ws.Dialer{Protocols: o.subprotocols, TLSConfig: o.target.tls()}
	if o.deflate {
		d.Extensions = []httphead.Option{wsflate.DefaultParameters.Option()}
	}
	nc, br, hs, err := d.Dial(ctx, o.target.url)
	if err != nil {
		return nil, err
	}
	p := &gobwasPeer{nc: nc, r: nc, hs: hs}
	if br != nil {
		p.r = br
	}
	for _, e := range hs.Extensions {
		p.deflate = p.deflate || bytes.Equal(e.Name, wsflate.ExtensionNameBytes)
	}
	if o.deflate && !p.deflate {
		return nil, fmt.Errorf("permessage-deflate was declined: %v", hs.Extensions)
	}
	return p, nc.SetDeadline(time.Now().Add(patience))
}

func gobwasOp(text bool) ws.OpCode {
	if text {
		return ws.OpText
	}
	return ws.OpBinary
}

func (p *gobwasPeer) send(f ws.Frame) error { return ws.WriteFrame(p.nc, ws.MaskFrame(f)) }

func (p *gobwasPeer) Write(text bool, b []byte) error {
	f := ws.NewFrame(gobwasOp(text), true, b)
	if p.deflate {
		var err error
		if f, err = wsflate.CompressFrame(f); err != nil {
			return err
		}
	}
	return p.send(f)
}

// WriteFragments sends an empty first frame, four with the payload and a ping
// between each two of them.
func (p *gobwasPeer) WriteFragments(text bool, b []byte) error {
	whole := ws.NewFrame(gobwasOp(text), true, b)
	if p.deflate {
		var err error
		if whole, err = wsflate.CompressFrame(whole); err != nil {
			return err
		}
	}
	first := ws.NewFrame(gobwasOp(text), false, nil)
	first.Header.Rsv = whole.Header.Rsv
	if err := p.send(first); err != nil {
		return err
	}
	rest, part := whole.Payload, len(whole.Payload)/4+1
	for i := range 4 {
		n := min(part, len(rest))
		if err := p.send(ws.NewPingFrame(fmt.Appendf(nil, "between %d", i))); err != nil {
			return err
		}
		if err := p.send(ws.NewFrame(ws.OpContinuation, i == 3, rest[:n])); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

func (p *gobwasPeer) Read() (bool, []byte, error) {
	var whole ws.Frame
	started := false
	for {
		f, err := ws.ReadFrame(p.r)
		if err != nil {
			return false, nil, err
		}
		if f.Header.Masked {
			return false, nil, errors.New("a masked frame from the server")
		}
		switch f.Header.OpCode {
		case ws.OpPing:
			if err := p.send(ws.NewPongFrame(f.Payload)); err != nil {
				return false, nil, err
			}
			continue
		case ws.OpPong:
			p.pongs = append(p.pongs, string(f.Payload))
			continue
		case ws.OpClose:
			code, reason := ws.ParseCloseFrameData(f.Payload)
			if !p.closing { // a second close frame would meet a closed socket, and cause a reset
				p.send(ws.NewCloseFrame(ws.NewCloseFrameBody(code, "")))
			}
			// The server closes TCP, in good order (section 7.1.1).
			if n, err := io.Copy(io.Discard, p.r); n > 0 || err != nil {
				return false, nil, fmt.Errorf("behind the close frame: %d bytes and %v; want the end of the stream", n, err)
			}
			return false, nil, closed{int(code), reason}
		case ws.OpContinuation:
			if !started {
				return false, nil, errors.New("a continuation without a start")
			}
			whole.Payload = append(whole.Payload, f.Payload...)
		default:
			whole, started = f, true
		}
		if f.Header.Fin {
			break
		}
	}
	whole.Header.Fin, whole.Header.Length = true, int64(len(whole.Payload))
	if zipped, err := wsflate.IsCompressed(whole.Header); err != nil || zipped {
		if err != nil {
			return false, nil, err
		}
		if whole, err = wsflate.DecompressFrame(whole); err != nil {
			return false, nil, err
		}
	}
	return whole.Header.OpCode == ws.OpText, whole.Payload, nil
}

func (p *gobwasPeer) Ping(payload string, b []byte) (string, []byte, error) {
	p.pongs = nil
	if err := p.send(ws.NewPingFrame([]byte(payload))); err != nil {
		return "", nil, err
	}
	if err := p.Write(true, b); err != nil {
		return "", nil, err
	}
	_, echo, err := p.Read()
	if err == nil && len(p.pongs) != 1 {
		return "", nil, fmt.Errorf("pongs before the echo: %q; want one", p.pongs)
	}
	if err != nil {
		return "", nil, err
	}
	return p.pongs[0], echo, nil
}

func (p *gobwasPeer) Close(code int, reason string) (closed, error) {
	p.closing = true
	if err := p.send(ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusCode(code), reason))); err != nil {
		return closed{}, err
	}
	return awaitClose(p)
}

func (p *gobwasPeer) Subprotocol() string { return p.hs.Protocol }
func (p *gobwasPeer) Cut()                { p.nc.Close() }

// lxzan/gws

type gwsPeer struct {
	gws.BuiltinEventHandler
	c     *gws.Conn
	pongs chan string
	in    chan gwsRead
	once  sync.Once
}

type gwsRead struct {
	text bool
	p    []byte
	err  error
}

func dialGWS(_ *testing.T, o dialOptions) (peer, error) {
	p := &gwsPeer{pongs: make(chan string, 16), in: make(chan gwsRead, 1024)}
	opts := &gws.ClientOption{
		Addr: o.target.url, TlsConfig: o.target.tls(), ReadMaxPayloadSize: 16 << 20, CheckUtf8Enabled: true,
		PermessageDeflate: gws.PermessageDeflate{
			Enabled: o.deflate, ServerContextTakeover: true, ClientContextTakeover: true, Threshold: 1,
			ServerMaxWindowBits: o.window, ClientMaxWindowBits: o.window,
		},
		HandshakeTimeout: patience,
	}
	if len(o.subprotocols) > 0 {
		opts.RequestHeader = http.Header{"Sec-Websocket-Protocol": {strings.Join(o.subprotocols, ", ")}}
	}
	c, _, err := gws.NewClient(p, opts)
	if err != nil {
		return nil, err
	}
	p.c = c
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	go c.ReadLoop()
	return p, nil
}

func (p *gwsPeer) OnPing(c *gws.Conn, b []byte) { c.WritePong(b) }
func (p *gwsPeer) OnPong(_ *gws.Conn, b []byte) { p.pongs <- string(b) }

func (p *gwsPeer) OnMessage(_ *gws.Conn, m *gws.Message) {
	p.in <- gwsRead{text: m.Opcode == gws.OpcodeText, p: bytes.Clone(m.Bytes())}
	m.Close()
}

func (p *gwsPeer) OnClose(_ *gws.Conn, err error) {
	if ce, ok := errors.AsType[*gws.CloseError](err); ok {
		err = closed{int(ce.Code), string(ce.Reason)}
	}
	p.in <- gwsRead{err: err}
	close(p.in)
}

func gwsOp(text bool) gws.Opcode {
	if text {
		return gws.OpcodeText
	}
	return gws.OpcodeBinary
}

func (p *gwsPeer) Write(text bool, b []byte) error { return p.c.WriteMessage(gwsOp(text), b) }

// WriteFragments makes a frame of each 128 KiB.
func (p *gwsPeer) WriteFragments(text bool, b []byte) error {
	return p.c.WriteFile(gwsOp(text), bytes.NewReader(b))
}

func (p *gwsPeer) Read() (bool, []byte, error) {
	r, ok := <-p.in
	if !ok {
		return false, nil, net.ErrClosed
	}
	return r.text, r.p, r.err
}

func (p *gwsPeer) Ping(payload string, b []byte) (string, []byte, error) {
	if err := p.c.WritePing([]byte(payload)); err != nil {
		return "", nil, err
	}
	if err := p.Write(true, b); err != nil {
		return "", nil, err
	}
	_, echo, err := p.Read()
	if err != nil {
		return "", nil, err
	}
	select {
	case pong := <-p.pongs:
		return pong, echo, nil
	default:
		return "", nil, errors.New("the echo came before the pong")
	}
}

// Close goes past the library's WriteClose, which ends the connection without
// waiting for the server's answer.
func (p *gwsPeer) Close(code int, reason string) (closed, error) {
	frame := ws.MaskFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusCode(code), reason)))
	if err := ws.WriteFrame(p.c.NetConn(), frame); err != nil {
		return closed{}, err
	}
	return awaitClose(p)
}

func (p *gwsPeer) Subprotocol() string { return p.c.SubProtocol() }
func (p *gwsPeer) Cut()                { p.once.Do(func() { p.c.NetConn().Close() }) }
