package websocket

import "net/http"

// A deflateState is what permessage-deflate is to a connection.
type deflateState struct {
	deflateParams
	window *inflationWindow // nil unless the client keeps its context
}

// withoutWindow are the states that connections without one share, by the
// server's window bits: all that compression leaves with an idle one is a
// pointer.
var withoutWindow [maxWindowBits + 1]deflateState

func init() {
	for bits := range withoutWindow {
		withoutWindow[bits].serverBits = uint8(bits)
	}
}

// state is for one connection.
func (p deflateParams) state() *deflateState {
	if w := p.newWindow(); w != nil {
		return &deflateState{p, w}
	}
	return &withoutWindow[p.serverBits]
}

// negotiateDeflate agrees to the first offer that can be kept in full.
func (a *answer) negotiateDeflate(r *http.Request, c *Compression) error {
	offers, err := parseExtensions(r.Header["Sec-Websocket-Extensions"])
	if err != nil {
		return err
	}
	params, answer, ok := negotiateDeflate(offers, c)
	if ok {
		a.deflate = params.state()
		a.extensions = answer
	}
	return nil
}

// appendInflated reads the rest of a compressed message and appends what comes
// out of it to dst.
func (c *Conn) appendInflated(dst []byte) ([]byte, error) {
	p, err := c.compressedPayload()
	if err != nil {
		return dst, err
	}
	return c.inflate(dst, p)
}

// borrowInflated is appendInflated into a buffer on loan.
func (c *Conn) borrowInflated() ([]byte, error) {
	p, err := c.compressedPayload()
	if err != nil {
		return nil, err
	}
	b := getBuffer(inflatedGuess(len(p), c.maxMessageSize()))
	out, err := c.inflate(b.b[:0], p)
	if err != nil || cap(out) != cap(b.b) { // it has outgrown the buffer
		putBuffer(b)
		return out, err
	}
	c.read.msg = b
	return out, nil
}

// inflatedGuess is the room for a message before it is known what it inflates
// to. What compresses better than to an eighth is rare, or a bomb.
func inflatedGuess(payload int, limit uint64) int {
	return max(int(min(8*uint64(payload), limit)), smallSize)
}

// compressedPayload gathers the payload before any of it is inflated: bytes that
// a slow peer sends are cheap to keep, what inflates them isn't.
func (c *Conn) compressedPayload() ([]byte, error) {
	p, ok, err := c.messageInPlace()
	if !ok && err == nil {
		p, err = c.gather()
	}
	return p, err
}

// gather assembles a compressed payload that doesn't lie in one piece. After a
// deadline what had come is kept where it is: deadlines that pass, one for each
// byte, must not cost a copy each.
func (c *Conn) gather() ([]byte, error) {
	r := &c.read
	p, err := c.assemble(r.takeHeld(), 0, c.growPooled)
	if err != nil && interrupted(err) {
		r.hold(p)
		r.msg = nil // the pool won't have it back
	}
	return p, err
}

// inflate appends the message whose payload is p to dst.
func (c *Conn) inflate(dst, p []byte) ([]byte, error) {
	r := &c.read
	m := inflation{payload: p, limit: int(c.maxMessageSize()), window: c.deflate.window}
	if r.opcode == opText {
		m.text = &r.utf8
	}
	out, err := m.appendTo(dst)
	r.freeMessage()
	if err != nil {
		return dst, err
	}
	c.received(uint64(len(out) - len(dst)))
	n := c.reg.counters(c)
	n.deflatedIn.Add(r.size)
	n.inflatedIn.Add(uint64(len(out) - len(dst)))
	return out, nil
}

// freeMessage gives back the message that lay in a buffer of its own.
func (r *reader) freeMessage() {
	if r.msg != nil {
		putBuffer(r.msg)
		r.msg = nil
	}
}

// writeDeflated is WriteMessage of a message that is worth compressing.
func (c *Conn) writeDeflated(t MessageType, p []byte) error {
	b := getBuffer(max(len(p)/2, smallSize))
	defer putBuffer(b)
	h := header{fin: true, rsv1: true, opcode: opcode(t)}
	out, ok := c.reg.u.Compression.compress(b.b[:0], p, c.deflate.deflateParams)
	if !ok {
		h.rsv1, out = false, p
	}
	h.length = uint64(len(out))
	if err := c.lockData(); err != nil {
		return err
	}
	err := c.writeFrame(h, out)
	c.wrote(err, len(p))
	if ok && err == nil {
		c.countDeflated(len(out), len(p))
	}
	c.unlockWrite()
	return err
}

func (c *Conn) countDeflated(after, before int) {
	n := c.reg.counters(c)
	n.deflatedOut.Add(uint64(after))
	n.inflatedOut.Add(uint64(before))
}

// A deflatedFrame is a prepared message as it goes to the connections with the
// same setting.
type deflatedFrame struct {
	level int
	bits  uint8
	frame []byte
}

// frameOf returns the message as the connection sends it. It is compressed
// once for each setting, when the first connection with that needs it.
func (c *Conn) frameOf(m *PreparedMessage) []byte {
	if c.deflate == nil || len(m.payload) < c.reg.u.Compression.threshold() {
		return m.frame
	}
	level, bits := c.reg.u.Compression.level(), c.deflate.serverBits
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range m.deflated {
		if d.level == level && d.bits == bits {
			return d.frame
		}
	}
	d := deflatedFrame{level, bits, m.frame}
	if out, ok := c.reg.u.Compression.compress(nil, m.payload, c.deflate.deflateParams); ok {
		h := header{fin: true, rsv1: true, opcode: opcode(m.t), length: uint64(len(out))}
		d.frame = append(appendHeader(make([]byte, 0, maxHeaderLen+len(out)), h), out...)
	}
	m.deflated = append(m.deflated, d)
	return d.frame
}

// frameSize is what NextWriter gathers for one frame.
func (c *Conn) frameSize() int {
	if c.deflate != nil {
		return c.reg.u.Compression.frameSize()
	}
	return batchSize
}
