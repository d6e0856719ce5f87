// Package echo holds one echo server per library, each in the shape its own
// documentation recommends for whole messages, so that the commands beside it
// can compare like with like.
package echo

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Config says which server to run and how. It crosses a process boundary as
// JSON.
type Config struct {
	Server     string // a name of All
	Addr       string // host:port; port 0 lets the kernel choose
	Deflate    bool   // offer permessage-deflate
	Validate   bool   // text must be checked for UTF-8, by the handler where the library doesn't
	MaxMessage int    // bytes, 0 is 4 MiB
	RawMessage int    // rawtcp: bytes of a message, 0 answers whatever was read
	ReusePort  bool   // listen with SO_REUSEPORT
}

func (c Config) maxMessage() int {
	if c.MaxMessage == 0 {
		return 4 << 20
	}
	return c.MaxMessage
}

// A Server is an echo server that can be run by name.
type Server struct {
	Name     string
	Module   string // whose version the reports print
	Note     string // what a reader of a table must know of it
	Ours     bool
	Deflates bool // knows permessage-deflate
	Checks   bool // the library itself refuses text that isn't UTF-8
	serve    func(net.Listener, Config) error
}

// All lists the servers, the floor first and ours last.
var All = slices.Concat([]Server{
	{Name: "rawtcp", Note: "bare TCP, no protocol: the floor of a goroutine per connection", serve: serveRawTCP},
	{Name: "gorilla", Module: "github.com/gorilla/websocket", Deflates: true, serve: serveGorilla},
	{Name: "coder", Module: "github.com/coder/websocket", Deflates: true, serve: serveCoder},
	{Name: "gobwas", Module: "github.com/gobwas/ws", Note: "by hand: ReadHeaderBuffer, WriteHeaderBuffer, reused buffers, one write per message", serve: serveGobwas},
	{Name: "gobwas-cork", Module: "github.com/gobwas/ws", Note: "the same, answers gathered while the reader holds more", serve: serveGobwasCork},
	{Name: "gws", Module: "github.com/lxzan/gws", Deflates: true, Checks: true, serve: serveGWS},
	{Name: "fasthttp", Module: "github.com/fasthttp/websocket", Deflates: true, serve: serveFastHTTP},
}, ours)

// Find returns the server of that name.
func Find(name string) (Server, error) {
	for _, s := range All {
		if s.Name == name {
			return s, nil
		}
	}
	return Server{}, fmt.Errorf("echo: no server is called %q; there are %s", name, strings.Join(Names(), ", "))
}

// Names returns the names of All.
func Names() []string {
	var names []string
	for _, s := range All {
		names = append(names, s.Name)
	}
	return names
}

// Listen opens the listener that Config asks for.
func Listen(cfg Config) (net.Listener, error) {
	var lc net.ListenConfig
	if cfg.ReusePort {
		lc.Control = func(_, _ string, rc syscall.RawConn) error {
			var serr error
			err := rc.Control(func(fd uintptr) {
				serr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			})
			if err != nil {
				return err
			}
			return serr
		}
	}
	addr := cfg.Addr
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	return lc.Listen(context.Background(), "tcp", addr)
}

// ListenTLS wraps ln with a certificate.
func ListenTLS(ln net.Listener, cert tls.Certificate) net.Listener {
	return tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}})
}

// Serve runs the server on ln until ln is closed.
func Serve(ln net.Listener, cfg Config) error {
	s, err := Find(cfg.Server)
	if err != nil {
		return err
	}
	return s.serve(ln, cfg)
}

// serveConns accepts for the servers that bring no HTTP server of their own.
func serveConns(ln net.Listener, handle func(net.Conn)) error {
	for {
		nc, err := ln.Accept()
		if err != nil {
			return err
		}
		go handle(nc)
	}
}
