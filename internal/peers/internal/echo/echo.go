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
	"time"

	"golang.org/x/sys/unix"
)

// A Config says which server to run and how. It crosses a process boundary as
// JSON.
type Config struct {
	Server     string // a name of All
	Addr       string // host:port; port 0 lets the kernel choose
	Procs      int    // GOMAXPROCS, and the number of CPUs; 0 is 1
	Deflate    bool   // offer permessage-deflate
	Takeover   bool   // with Deflate: let each side's messages refer to its earlier ones
	WindowBits int    // of both windows, with Takeover; 0 is 15
	Validate   bool   // text must be checked for UTF-8, by the handler where the library doesn't
	MaxMessage int    // bytes, 0 is 4 MiB
	RawMessage int    // bytes of a message for those that know no frames, 0 answers whatever was read
	ReusePort  bool   // listen with SO_REUSEPORT

	// Sleep is how long a callback sleeps before it answers; only ours, gorilla
	// and nbio know it.
	Sleep time.Duration
}

func (c Config) maxMessage() int {
	if c.MaxMessage == 0 {
		return 4 << 20
	}
	return c.MaxMessage
}

func (c Config) windowBits() int {
	if c.WindowBits == 0 {
		return 15
	}
	return c.WindowBits
}

func (c Config) sleep() {
	if c.Sleep > 0 {
		time.Sleep(c.Sleep)
	}
}

// A Server is an echo server that can be run by name.
type Server struct {
	Name     string
	Module   string // whose version the reports print
	Note     string // what a reader of a table must know of it
	Ours     bool
	Raw      bool // answers bytes, knows no frames
	Engine   bool // a library for frames; not so a reference
	rebinds  bool // closes the listener and opens its address again
	Deflates bool // knows permessage-deflate
	Takeover bool // and context takeover both ways
	Windows  bool // and smaller windows for that
	Checks   bool // the library itself refuses text that isn't UTF-8
	serve    func(net.Listener, Config) error
}

// All lists the servers: the references, what others made, and ours last.
var All = slices.Concat([]Server{
	{Name: "rawtcp", Raw: true, Note: "bare TCP, no protocol: the floor of a goroutine per connection", serve: serveRawTCP},
	{Name: "epoll", Raw: true, Note: "bare epoll, no protocol: the floor of an event loop", serve: serveEpollBytes},
	{Name: "epoll-ws", Note: "frames unmasked and sent back on that loop, without rules, limits, time or callbacks", serve: serveEpollFrames},
	{Name: "gnet", Raw: true, Module: "github.com/panjf2000/gnet/v2", Note: "its event loop, bytes only, sent back as they come", rebinds: true, serve: serveGnet},
	{Name: "gorilla", Engine: true, Module: "github.com/gorilla/websocket", Deflates: true, serve: serveGorilla},
	{Name: "coder", Engine: true, Module: "github.com/coder/websocket", Deflates: true, Takeover: true, serve: serveCoder},
	{Name: "gobwas", Engine: true, Module: "github.com/gobwas/ws", Note: "by hand: ReadHeaderBuffer, WriteHeaderBuffer, reused buffers, one write per message", serve: serveGobwas},
	{Name: "gobwas-cork", Engine: true, Module: "github.com/gobwas/ws", Note: "the same, answers gathered while the reader holds more", serve: serveGobwasCork},
	{Name: "gws", Engine: true, Module: "github.com/lxzan/gws", Deflates: true, Takeover: true, Windows: true, Checks: true, serve: serveGWS},
	{Name: "fasthttp", Engine: true, Module: "github.com/fasthttp/websocket", Deflates: true, serve: serveFastHTTP},
	{Name: "nbio", Engine: true, Module: "github.com/lesismal/nbio", Deflates: true, Checks: true, serve: serveNBIO},
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

// Serve runs the server on ln until ln is closed; the event loops run for as
// long as the process.
func Serve(ln net.Listener, cfg Config) error {
	s, err := Find(cfg.Server)
	if err != nil {
		return err
	}
	return s.serve(ln, cfg)
}

// Go is Serve on a goroutine. It returns when clients can connect.
func Go(ln net.Listener, cfg Config) (failed <-chan error) {
	done := make(chan error, 1)
	s, err := Find(cfg.Server)
	rebinds := err == nil && s.rebinds
	if rebinds {
		ln.Close() // who connects from here on meets the server
	}
	go func() { done <- Serve(ln, cfg) }()
	if rebinds {
		awaitListener(ln.Addr())
	}
	return done
}

// awaitListener returns when somebody listens on addr, or after 5 s: the client
// will say that nobody does.
func awaitListener(addr net.Addr) {
	for began := time.Now(); time.Since(began) < 5*time.Second; {
		nc, err := net.Dial(addr.Network(), addr.String())
		if err == nil {
			nc.Close()
			return
		}
		time.Sleep(time.Millisecond)
	}
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
