package echo

import (
	"net"
	"net/http"

	"github.com/rawws/websocket"
)

// ours lists this library in its two shapes. Nothing else of the package knows
// the library.
var ours = []Server{
	{Name: "ours", Note: "this library, Events", Ours: true, Engine: true, Checks: true, Deflates: true, Takeover: true, Windows: true, serve: serveOurs},
	{Name: "ours-blocking", Note: "this library, HandlerFunc with AppendMessage", Ours: true, Engine: true, Checks: true, Deflates: true, Takeover: true, Windows: true, serve: serveOursBlocking},
}

func serveOurs(ln net.Listener, cfg Config) error {
	return ourServer(cfg, websocket.Events{
		OnMessage: func(c *websocket.Conn, t websocket.MessageType, p []byte) {
			cfg.sleep()
			c.WriteMessage(t, p)
		},
	}).Serve(ln)
}

func serveOursBlocking(ln net.Listener, cfg Config) error {
	return ourServer(cfg, websocket.HandlerFunc(func(c *websocket.Conn, _ *http.Request) {
		var buf []byte
		for {
			t, p, err := c.AppendMessage(buf[:0])
			if err != nil {
				return
			}
			cfg.sleep()
			if c.WriteMessage(t, p) != nil {
				return
			}
			buf = p
		}
	})).Serve(ln)
}

func ourServer(cfg Config, h websocket.Handler) *websocket.Server {
	s := &websocket.Server{Handler: h}
	s.Upgrader.MaxMessageSize = int64(cfg.maxMessage())
	if cfg.Deflate {
		s.Upgrader.Compression = &websocket.Compression{ServerContext: cfg.Takeover, WindowBits: cfg.windowBits()}
	}
	return s
}
