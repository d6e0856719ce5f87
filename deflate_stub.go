package websocket

import "net/http"

type deflateState struct{}

func (a *answer) negotiateDeflate(r *http.Request, c *Compression) error { return nil }
func (c *Conn) inflateMessage(dst []byte, base int, grow growFunc) ([]byte, error) {
	return dst, nil
}
func (c *Conn) writeDeflated(t MessageType, p []byte) error { return nil }
