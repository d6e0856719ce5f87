package echo

import "net"

// serveRawTCP writes back what comes, one goroutine and one buffer per
// connection: what is left when a WebSocket server's protocol costs nothing.
func serveRawTCP(ln net.Listener, cfg Config) error {
	size := cfg.Buffer
	if size == 0 {
		size = 4 << 10
	}
	return serveConns(ln, func(nc net.Conn) {
		defer nc.Close()
		buf := make([]byte, size)
		for {
			n, err := nc.Read(buf)
			if err != nil {
				return
			}
			if _, err := nc.Write(buf[:n]); err != nil {
				return
			}
		}
	})
}
