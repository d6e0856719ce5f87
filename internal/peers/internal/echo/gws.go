package echo

import (
	"net"
	"net/http"

	"github.com/lxzan/gws"
)

type gwsEcho struct{ gws.BuiltinEventHandler }

func (gwsEcho) OnPing(c *gws.Conn, p []byte) { _ = c.WritePong(p) }

func (gwsEcho) OnMessage(c *gws.Conn, m *gws.Message) {
	defer m.Close()
	_ = c.WriteMessage(m.Opcode, m.Bytes())
}

// serveGWS uses the library's own server, which is leaner than net/http.
func serveGWS(ln net.Listener, cfg Config) error {
	s := gws.NewServer(gwsEcho{}, &gws.ServerOption{
		ReadMaxPayloadSize: cfg.maxMessage(),
		CheckUtf8Enabled:   cfg.Validate,
		PermessageDeflate:  gws.PermessageDeflate{Enabled: cfg.Deflate},
		Authorize:          func(*http.Request, gws.SessionStorage) bool { return true },
	})
	s.OnError = func(net.Conn, error) {} // its default prints every refused upgrade
	return s.RunListener(ln)
}
