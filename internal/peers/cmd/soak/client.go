package main

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rawws/websocket/internal/peers/internal/ledger"
	"github.com/rawws/websocket/internal/peers/internal/ws"
)

// patience is how long anything may take that has to happen.
const patience = 60 * time.Second

// A client is one connection at its other end.
type client struct {
	*plan
	soak *soak
	tcp  *net.TCPConn
	nc   net.Conn // tcp, or TLS over it
	rd   *ws.Reader
	rand *rand.Rand // of the goroutine that writes

	mu     sync.Mutex // a frame at a time; guards closing
	closed bool       // a close frame went out: nothing may follow

	sums     []uint32 // of the messages that were begun, in their order
	sent     uint32   // how many of them the socket took whole
	pings    atomic.Uint32
	deaf     chan struct{} // closed when the client reads no more
	readDone chan struct{}

	// What the reader saw; valid after readDone.
	echoes, pushes, sends uint32
	pong                  uint32 // the newest ping that was answered
	gotCode               int    // of the server's close frame
	end                   error  // io.EOF is the end that should be
	wrong                 error  // a fault of the server's
}

// live is a connection from its beginning to the comparison of the ledgers.
// It returns what was wrong.
func (s *soak) live(p *plan) error {
	c := &client{plan: p, soak: s, deaf: make(chan struct{}), readDone: make(chan struct{})}
	c.rand = rand.New(rand.NewPCG(s.seed, ledger.Mix(s.seed, 1, uint64(p.id))))
	if p.ending == endUpgrade {
		return c.misbehave()
	}
	came := s.expect(p.id)
	defer s.forget(p.id)
	if err := c.connect(); err != nil {
		var refused *ws.Refusal
		if s.ending.Load() && (errors.As(err, &refused) || !isTimeout(err)) {
			return nil // the server is going down
		}
		return err
	}
	defer c.tcp.Close()
	s.opened.Add(1)
	s.open(1)
	defer s.open(-1)
	go c.read()
	c.write()
	if !p.deafens() {
		<-c.readDone
	}
	var r *record
	select {
	case r = <-came:
	case <-time.After(patience):
		c.tcp.Close()
		return fmt.Errorf("the server has not ended the connection after %v", patience)
	}
	c.tcp.Close()
	<-c.readDone
	return c.compare(r)
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

func (c *client) dial() (err error) {
	buffer := 0
	if c.steady > 0 {
		buffer = 16 << 10 // what lies in front of the reader is the server's concern
	}
	nc, err := ws.DialBuffer("tcp", c.soak.addrs[c.server], 1+int(c.id), buffer)
	if err != nil {
		return err
	}
	c.tcp = nc.(*net.TCPConn)
	c.tcp.SetDeadline(time.Now().Add(patience))
	c.nc = c.tcp
	return nil
}

func (c *client) connect() error {
	if err := c.dial(); err != nil {
		return err
	}
	if servers[c.server].tls {
		tc := tls.Client(c.tcp, &tls.Config{InsecureSkipVerify: true}) // a certificate made for this run
		if err := tc.Handshake(); err != nil {
			c.tcp.Close()
			return fmt.Errorf("TLS: %w", err)
		}
		c.nc = tc
	}
	if c.steady > 0 {
		c.nc = &ws.PacedConn{Conn: c.nc, Pace: ws.Pace{Rate: c.steady}}
		c.soak.steady.Add(1)
	}
	_, err := c.nc.Write(ws.Request("soak.example", fmt.Sprintf("/?id=%d", c.id), c.deflate))
	c.rd = ws.NewReader(c.nc, 4<<10)
	if err == nil {
		err = c.rd.Answer()
	}
	if err == nil && c.deflate && !c.rd.Deflated {
		err = errors.New("permessage-deflate wasn't agreed on")
	}
	if err != nil {
		c.tcp.Close()
		return err
	}
	return c.tcp.SetDeadline(time.Time{})
}

// read takes what the server sends until the stream ends, and holds it against
// the ledger.
func (c *client) read() {
	defer close(c.readDone)
	var buf []byte
	stallAt := uint32(c.id % 16)
	for {
		c.nc.SetReadDeadline(time.Now().Add(patience))
		select {
		case <-c.deaf: // whoever closes it sets the deadline next
			return
		default:
		}
		op, p, err := c.rd.Next()
		if err != nil {
			c.end = err
			return
		}
		switch {
		case c.gotCode != 0:
			err = fmt.Errorf("a frame of opcode %d behind the close frame", op)
		case op >= ws.Close:
			err = c.control(op, p)
		default:
			buf, err = c.take(buf, p, op == ws.Text)
		}
		if err != nil {
			c.wrong = err
			c.tcp.Close()
			return
		}
		if c.stall > 0 && c.echoes == stallAt {
			time.Sleep(c.stall)
			c.stall = 0
		}
	}
}

// take holds the next message against its stream.
func (c *client) take(buf, p []byte, text bool) ([]byte, error) {
	h, err := ledger.Parse(p)
	if err != nil {
		return buf, err
	}
	next := map[ledger.Stream]*uint32{ledger.Client: &c.echoes, ledger.Pushed: &c.pushes, ledger.Queued: &c.sends}[h.Stream]
	if next == nil {
		return buf, fmt.Errorf("a message of stream %q", h.Stream)
	}
	buf, err = c.soak.maker.Want(buf, h.Stream, c.id, *next, p, text)
	*next++
	c.soak.received.Add(1)
	c.soak.bytes.Add(int64(len(p)))
	return buf, err
}

func (c *client) control(op byte, p []byte) error {
	switch op {
	case ws.Ping:
		if c.ending != endSilent {
			c.send(frame(ws.Fin|ws.Pong, string(p)))
		}
	case ws.Pong:
		if len(p) != 4 {
			return fmt.Errorf("a pong with % x, which is nobody's ping", p)
		}
		n := binary.BigEndian.Uint32(p)
		if n <= c.pong || n > c.pings.Load() {
			return fmt.Errorf("a pong for ping %d after that for %d, of %d pings", n, c.pong, c.pings.Load())
		}
		c.pong = n
	case ws.Close:
		c.gotCode = 1005
		if len(p) >= 2 {
			c.gotCode = int(binary.BigEndian.Uint16(p))
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.closed {
			c.closed = true
			c.nc.Write(ws.AppendFrame(nil, ws.Fin|ws.Close, maskKey, p))
		}
	}
	return nil
}

// send writes whole frames, unless a close frame has gone out.
func (c *client) send(b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	return c.sendLocked(b)
}

func (c *client) sendLocked(b []byte) error {
	c.nc.SetWriteDeadline(time.Now().Add(patience))
	if c.trickle { // a segment for each byte
		for i := range min(len(b), 100) {
			if _, err := c.nc.Write(b[i : i+1]); err != nil {
				return err
			}
		}
		b = b[min(len(b), 100):]
	}
	_, err := c.nc.Write(b)
	return err
}
