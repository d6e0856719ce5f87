package echo

import (
	"context"
	"net"
	"net/http"
	"unicode/utf8"

	"github.com/coder/websocket"
)

// serveCoder reads and writes whole messages. The library doesn't look at
// UTF-8 at all, so the handler does when the workload asks.
func serveCoder(ln net.Listener, cfg Config) error {
	opts := &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled}
	if cfg.Deflate {
		opts.CompressionMode = websocket.CompressionNoContextTakeover
		if cfg.Takeover {
			opts.CompressionMode = websocket.CompressionContextTakeover
		}
	}
	return http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, opts)
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(int64(cfg.maxMessage()))
		ctx := context.Background()
		for {
			t, p, err := c.Read(ctx)
			if err != nil {
				return
			}
			if cfg.Validate && t == websocket.MessageText && !utf8.Valid(p) {
				return
			}
			if err := c.Write(ctx, t, p); err != nil {
				return
			}
		}
	}))
}
