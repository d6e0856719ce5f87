package websocket

import (
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/rawws/websocket/internal/netloop"
)

// In every way in, what a peer is slow to take waits with us and not in the
// system, and what is written leaves at once.
func TestSocketOptions(t *testing.T) {
	const tcpNotsentLowat = 25 // package syscall doesn't name it
	opened := make(chan *Conn, 1)
	handlers := eitherHandler(func(c *Conn, r *http.Request, _ []byte) {
		if r != nil {
			opened <- c
		}
	})
	for name, h := range handlers {
		t.Run(name, func(t *testing.T) {
			overServers(t, func() *Server { return &Server{Handler: h} }, func(t *testing.T, dial dialFunc, _ *Server) {
				client := dial(t)
				client.Handshake("/")
				c := <-opened
				s, ok := innermost(c.nc).(syscall.Conn) // the loop's has it too
				if !ok {
					return // in memory
				}
				raw, err := s.SyscallConn()
				if err != nil {
					t.Fatal(err)
				}
				for sent := 0; sent <= netloop.UnsentLimit; sent += batchSize { // less can't wait there
					if err := c.WriteMessage(BinaryMessage, make([]byte, batchSize)); err != nil {
						t.Fatal(err)
					}
				}
				raw.Control(func(fd uintptr) {
					low, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotsentLowat)
					if low != netloop.UnsentLimit || err != nil {
						t.Errorf("TCP_NOTSENT_LOWAT = %d, %v; want %d", low, err, netloop.UnsentLimit)
					}
					now, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_NODELAY)
					if now != 1 || err != nil {
						t.Errorf("TCP_NODELAY = %d, %v; want 1", now, err)
					}
				})
			})
		})
	}
}

// What a peer that was cut didn't take is forgotten: the system would try for minutes
// to send it, and keep it.
func TestCutForgets(t *testing.T) {
	var cut chan error
	u := Upgrader{WriteTimeout: 200 * time.Millisecond, PingInterval: -1}
	write := func(c *Conn) {
		go func(cut chan<- error) { cut <- c.WriteMessage(BinaryMessage, make([]byte, 32<<20)) }(cut)
	}
	for way, dial := range slowWays(t, u, write) {
		t.Run(way, func(t *testing.T) {
			cut = make(chan error, 1)
			p := dial()
			p.send([]byte(peerRequest)) // and reads nothing
			if err := <-cut; err == nil {
				t.Fatal("the peer took 32 MiB")
			}
			nc := p.nc
			if tc, ok := nc.(*tls.Conn); ok {
				nc = tc.NetConn()
			}
			if n, err := io.Copy(io.Discard, nc); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("after %d bytes more the stream ends with %v, want a reset", n, err)
			}
		})
	}
}
