//go:build linux || darwin

package websocket

import (
	"net"
	"net/http"
	"syscall"
	"testing"
)

// The system finds dead clients of plain HTTP, which has no pings of its own,
// also on a listener that leaves that to ours.
func TestPlainSocketsAreKeptAlive(t *testing.T) {
	s := &Server{Addr: "127.0.0.1:0", Handler: Events{}}
	options := make(chan int, 1)
	s.HTTP = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for pc := range s.plainConns {
			raw, err := pc.Conn.(*net.TCPConn).SyscallConn()
			if err != nil {
				t.Error(err)
				continue
			}
			raw.Control(func(fd uintptr) {
				on, _ := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_KEEPALIVE)
				options <- on
			})
		}
	})
	done := make(chan error, 1)
	go func() { done <- s.ListenAndServe() }()
	addr := ""
	eventually(t, "it listens", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		for ln := range s.listeners {
			addr = ln.Addr().String()
		}
		return addr != ""
	})
	p := newPeer(t, dialAddr(t, addr))
	p.send([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	p.wantAnswer(200, "")
	if on := <-options; on == 0 {
		t.Error("TCP's keep-alive is off on a socket of plain HTTP")
	}
	s.Close()
	<-done
}
