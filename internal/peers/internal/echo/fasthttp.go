package echo

import (
	"net"
	"unicode/utf8"

	"github.com/fasthttp/websocket"
	"github.com/valyala/fasthttp"
)

// serveFastHTTP is fasthttp's fork of gorilla's library on fasthttp's server.
func serveFastHTTP(ln net.Listener, cfg Config) error {
	u := websocket.FastHTTPUpgrader{EnableCompression: cfg.Deflate}
	s := fasthttp.Server{Handler: func(ctx *fasthttp.RequestCtx) {
		_ = u.Upgrade(ctx, func(c *websocket.Conn) {
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
				if err := c.WriteMessage(t, p); err != nil {
					return
				}
			}
		})
	}}
	return s.Serve(ln)
}
