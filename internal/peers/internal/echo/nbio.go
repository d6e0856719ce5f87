package echo

import (
	"net"
	"net/http"
	"runtime"

	"github.com/lesismal/nbio/logging"
	"github.com/lesismal/nbio/nbhttp"
	"github.com/lesismal/nbio/nbhttp/websocket"
)

// serveNBIO is the library's own engine as its examples have it: non-blocking
// sockets, callbacks on its pool of goroutines, buffers given back.
func serveNBIO(ln net.Listener, cfg Config) error {
	logging.SetLevel(logging.LevelNone) // it writes to standard output, where a child talks to its parent
	u := websocket.NewUpgrader()
	u.CheckOrigin = func(*http.Request) bool { return true }
	u.EnableCompression(cfg.Deflate)
	u.OnOpen(func(c *websocket.Conn) { c.EnableWriteCompression(cfg.Deflate) })
	u.OnMessage(func(c *websocket.Conn, t websocket.MessageType, p []byte) {
		cfg.sleep()
		_ = c.WriteMessage(t, p)
	})
	engine := nbhttp.NewEngine(nbhttp.Config{
		Network:                 "tcp",
		Addrs:                   []string{ln.Addr().String()},
		Listen:                  func(string, string) (net.Listener, error) { return ln, nil },
		NPoller:                 runtime.GOMAXPROCS(0),
		MaxLoad:                 1 << 20,
		ReadLimit:               cfg.maxMessage() + 16,
		ReleaseWebsocketPayload: true,
		Handler:                 http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = u.Upgrade(w, r, nil) }),
	})
	if err := engine.Start(); err != nil {
		return err
	}
	select {}
}
