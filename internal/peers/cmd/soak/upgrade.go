package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/rawws/websocket/internal/peers/internal/ws"
)

// misbehave connects and never gets as far as a connection. The server has to
// end it in time.
func (c *client) misbehave() error {
	if err := c.dial(); err != nil {
		if c.soak.ending.Load() {
			return nil
		}
		return err
	}
	defer c.tcp.Close()
	c.soak.opened.Add(1)
	request := ws.Request("soak.example", "/?id=0", false)
	half := request[:c.rand.IntN(len(request)-1)]
	waits := true // for the server to end it
	switch c.rand.IntN(6) {
	case 0:
		c.tcp.Write([]byte(strings.Repeat("\x16\x03\x01 no request at all\r\n\r\n", 20)))
	case 1: // stalls
		c.tcp.Write(half)
	case 2:
		c.tcp.Write(half)
		c.tcp.SetLinger(0)
		waits = false
	case 3:
		c.tcp.Write(half)
		c.tcp.CloseWrite()
	case 4: // drips, and goes on after the server's patience if that lets it
		go func() {
			for i := range half {
				if _, err := c.tcp.Write(half[i : i+1]); err != nil {
					return
				}
				time.Sleep(100 * time.Millisecond)
			}
		}()
	case 5:
		c.tcp.Write([]byte("GET /?id=0 HTTP/1.1\r\nHost: soak.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"))
	}
	if !waits {
		return nil
	}
	limit := handshakeTimeout + 10*time.Second
	c.tcp.SetReadDeadline(time.Now().Add(limit))
	if _, err := io.Copy(io.Discard, c.tcp); isTimeout(err) {
		return errors.Join(fmt.Errorf("a stalled handshake was left open for %v", limit), err)
	}
	return nil
}
