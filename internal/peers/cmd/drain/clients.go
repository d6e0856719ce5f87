package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/rawws/websocket/internal/peers/internal/ws"
)

// clients are all connections of the run.
type clients struct {
	addr        string
	interrupted time.Time // set before the process is interrupted
	running     sync.WaitGroup
	stuck       []net.Conn

	mu   sync.Mutex // guards ends
	ends []end
}

// An end is what a client saw of its connection's.
type end struct {
	code  int
	told  time.Duration // from the Ctrl-C to the close frame
	wrong string
}

// connect opens all connections, some at a time.
func (c *clients) connect(o *options) error {
	failed := make(chan error, o.conns+o.stuck)
	slots := make(chan struct{}, 64)
	var opening sync.WaitGroup
	for i := range o.conns + o.stuck {
		slots <- struct{}{}
		opening.Go(func() {
			defer func() { <-slots }()
			cl, err := dial(c.addr, i)
			if err != nil {
				failed <- fmt.Errorf("connection %d: %w", i, err)
				return
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			if i >= o.conns {
				c.stuck = append(c.stuck, cl.nc)
				return
			}
			cl.talks = i < o.talking
			c.running.Go(func() { c.add(cl.live(c)) })
		})
	}
	opening.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

func (c *clients) add(e end) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ends = append(c.ends, e)
}

func (c *clients) stop() {
	c.running.Wait()
	for _, nc := range c.stuck {
		nc.Close()
	}
}

type client struct {
	nc    net.Conn
	rd    *ws.Reader
	talks bool

	sent, got uint64
}

func dial(addr string, i int) (*client, error) {
	nc, err := ws.Dial(addr, 1+i%8)
	if err != nil {
		return nil, err
	}
	c := &client{nc: nc, rd: ws.NewReader(nc, 512)}
	if _, err = nc.Write(ws.Request(addr, "/", false)); err == nil {
		err = c.rd.Answer()
	}
	if err == nil {
		return c, nil
	}
	nc.Close()
	return nil, err
}

var key = [4]byte{0x37, 0xfa, 0x21, 0x3d}

// live is a browser's tab: it answers pings and the closing handshake, and
// talks if it is one of those, a message at a time.
func (c *client) live(all *clients) (e end) {
	defer c.nc.Close()
	if err := c.say(); err != nil {
		return end{wrong: err.Error()}
	}
	for {
		op, p, err := c.rd.Next()
		switch {
		case err == io.EOF && e.code == 1001:
			return e
		case err != nil:
			e.wrong = fmt.Sprintf("close code %d, then %v", e.code, err)
			return e
		case e.code != 0:
			e.wrong = fmt.Sprintf("a frame of opcode %d behind the close frame", op)
			return e
		case op == ws.Ping:
			c.nc.Write(ws.AppendFrame(nil, ws.Fin|ws.Pong, key, p))
		case op == ws.Close:
			e.told = time.Since(all.interrupted)
			e.code = 1005
			if len(p) >= 2 {
				e.code = int(binary.BigEndian.Uint16(p))
			}
			c.nc.Write(ws.AppendFrame(nil, ws.Fin|ws.Close, key, p))
		case op == ws.Binary:
			c.got++
			if len(p) != 8 || binary.BigEndian.Uint64(p) != c.got {
				e.wrong = fmt.Sprintf("message % x, want number %d", p, c.got)
				return e
			}
			if c.talks {
				time.Sleep(time.Millisecond)
				c.say() // what fails here fails the next read too
			}
		}
	}
}

func (c *client) say() error {
	c.sent++
	_, err := c.nc.Write(ws.AppendFrame(nil, ws.Fin|ws.Binary, key, binary.BigEndian.AppendUint64(nil, c.sent)))
	return err
}
