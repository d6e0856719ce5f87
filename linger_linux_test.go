package websocket

import (
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"
)

// Where SO_LINGER is set, closing a socket waits for the peer's system. Server.Close
// lets none wait for another.
func TestCloseOfLingeringConns(t *testing.T) {
	for kind, h := range eitherHandler(func(c *Conn, _ *http.Request, text []byte) {
		if text != nil {
			c.WriteMessage(BinaryMessage, make([]byte, 64<<20))
		}
	}) {
		t.Run(kind, func(t *testing.T) {
			lingers := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) (err error) {
				failed := rc.Control(func(fd uintptr) {
					err = syscall.SetsockoptLinger(int(fd), syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1, Linger: 2})
				})
				if failed != nil {
					err = failed
				}
				return err
			}}
			ln, err := lingers.Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			s := &Server{Handler: h, ErrorLog: new(logBook).logger()}
			serve(t, s, ln)
			const n = 3
			for range n {
				p := newPeer(t, dialAddr(t, ln.Addr().String()))
				p.handshake()
				p.sendText("more than the socket takes")
				if err := p.receive(); err != nil {
					t.Fatal(err)
				}
			}
			began := time.Now()
			s.Close()
			if took := time.Since(began); took > 4*time.Second {
				t.Errorf("Close took %v for %d sockets that linger for 2 s each, one after the other", took, n)
			}
			eventually(t, "nothing is left", s.isAtRest)
		})
	}
}
