package echo

import (
	"net"
	"net/http"
	"unicode/utf8"

	"github.com/gorilla/websocket"
)

// serveGorilla is the loop of gorilla's echo example. The library leaves UTF-8
// to the application, so the handler checks it when the workload asks.
func serveGorilla(ln net.Listener, cfg Config) error {
	u := websocket.Upgrader{EnableCompression: cfg.Deflate}
	return http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := u.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		c.SetReadLimit(int64(cfg.maxMessage()))
		for {
			t, p, err := c.ReadMessage()
			if err != nil {
				return
			}
			if cfg.Validate && t == websocket.TextMessage && !utf8.Valid(p) {
				return
			}
			cfg.sleep()
			if err := c.WriteMessage(t, p); err != nil {
				return
			}
		}
	}))
}
