package echo

import (
	"log"
	"net"
	"runtime"

	"github.com/panjf2000/gnet/v2"
)

// gnetEcho sends back what comes, as the library's own examples do: it knows
// bytes only.
type gnetEcho struct{ gnet.BuiltinEventEngine }

func (*gnetEcho) OnTraffic(c gnet.Conn) gnet.Action {
	b, err := c.Next(-1)
	if err != nil {
		return gnet.Close
	}
	if _, err := c.Write(b); err != nil {
		return gnet.Close
	}
	return gnet.None
}

// serveGnet listens again on ln's address: the library takes no listener.
func serveGnet(ln net.Listener, cfg Config) error {
	addr := ln.Addr()
	ln.Close()
	return gnet.Run(&gnetEcho{}, addr.Network()+"://"+addr.String(), gnet.WithOptions(gnet.Options{
		NumEventLoop:  runtime.GOMAXPROCS(0),
		ReuseAddr:     true,
		ReadBufferCap: max(64<<10, cfg.RawMessage),
		TCPNoDelay:    gnet.TCPNoDelay,
		Logger:        gnetLog{},
	}))
}

// gnetLog keeps the library's words off standard output, where a child talks to
// its parent.
type gnetLog struct{}

func (gnetLog) Debugf(string, ...any)             {}
func (gnetLog) Infof(string, ...any)              {}
func (gnetLog) Warnf(string, ...any)              {}
func (gnetLog) Errorf(string, ...any)             {}
func (gnetLog) Fatalf(format string, args ...any) { log.Fatalf(format, args...) }
