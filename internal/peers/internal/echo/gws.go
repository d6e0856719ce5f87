package echo

import (
	"errors"
	"net"
	"net/http"
	"runtime"

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
		PermessageDeflate: gws.PermessageDeflate{
			Enabled:               cfg.Deflate,
			ServerContextTakeover: cfg.Takeover, ClientContextTakeover: cfg.Takeover,
			ServerMaxWindowBits: cfg.windowBits(), ClientMaxWindowBits: cfg.windowBits(),
		},
		Authorize: func(*http.Request, gws.SessionStorage) bool { return true },
	})
	s.OnError = func(net.Conn, error) {} // its default prints every refused upgrade
	return s.RunListener(finalListener{ln})
}

// A finalListener ends the goroutine that accepts from it once it is closed:
// the library's server would try again for ever.
type finalListener struct{ net.Listener }

func (l finalListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if errors.Is(err, net.ErrClosed) {
		runtime.Goexit()
	}
	return nc, err
}
