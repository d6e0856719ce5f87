package echo

import (
	"io"
	"net"
)

// serveRawTCP writes back what comes, one goroutine and one buffer per
// connection: what is left when a WebSocket server's protocol costs nothing.
// It knows how long a message is and answers whole ones, as a WebSocket server
// must; echoing each piece of a large message would cost it more writes.
func serveRawTCP(ln net.Listener, cfg Config) error {
	size := max(4<<10, cfg.RawMessage)
	return serveConns(ln, func(nc net.Conn) {
		defer nc.Close()
		buf := make([]byte, size)
		for {
			n, err := io.ReadAtLeast(nc, buf, max(1, cfg.RawMessage))
			if err != nil {
				return
			}
			if _, err := nc.Write(buf[:n]); err != nil {
				return
			}
		}
	})
}
