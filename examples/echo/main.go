// Echo is a WebSocket server that sends every message back, and a page to try
// it from a browser.
//
//	go run ./examples/echo
//
// serves ws://127.0.0.1:9001/ and, on the same port, the page at
// http://127.0.0.1:9001/. Run it with -help for its flags. The first Ctrl-C
// closes every connection with 1001 and waits for the answers, the second
// kills.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/rawws/websocket"
)

// shutdownTimeout is how long peers may take to answer our close frame before
// they are cut.
const shutdownTimeout = 10 * time.Second

// options are the flags of the command.
type options struct {
	addr       string
	maxMessage int64
	blocking   bool
	reusePort  bool
	origins    []string
	proxies    []netip.Prefix
	quiet      bool
	trace      bool
	deflate    bool
	takeover   bool
	ping       time.Duration
	maxConns   int
	metrics    string

	tlsCert, tlsKey string
	tlsSelfSigned   bool
}

func (o *options) secure() bool { return o.tlsCert != "" || o.tlsSelfSigned }

// parseFlags writes the list of flags to help if that is what was asked for.
func parseFlags(args []string, help io.Writer) (*options, error) {
	o := &options{}
	fs := flag.NewFlagSet("echo", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // main reports errors
	fs.StringVar(&o.addr, "addr", "127.0.0.1:9001", "listen on `host:port`")
	fs.Int64Var(&o.maxMessage, "max-message", 1<<20, "refuse a message over `BYTES` with 1009")
	fs.BoolVar(&o.blocking, "blocking", false, "read in a loop with ReadMessage instead of by Events")
	fs.Func("origin", "also allow pages of `ORIGIN`: host[:port], scheme://host[:port], *.host, or * (repeatable)", func(s string) error {
		o.origins = append(o.origins, s)
		return nil
	})
	fs.Func("proxy", "a proxy of `CIDR`, as 10.0.0.7/32, begins each connection with the PROXY protocol's header (repeatable)", func(s string) error {
		p, err := netip.ParsePrefix(s)
		o.proxies = append(o.proxies, p)
		return err
	})
	fs.BoolVar(&o.reusePort, "reuseport", false, "share the port with other processes that ask for it too, each with its own limit\n"+
		"of descriptors; the kernel spreads the connections over them (SO_REUSEPORT, Linux)")
	fs.BoolVar(&o.quiet, "quiet", false, "don't log connections and messages")
	fs.BoolVar(&o.trace, "trace", false, "log what goes over the wire: handshakes, and frames bit by bit")
	fs.BoolVar(&o.deflate, "deflate", false, "compress for clients that offer it (permessage-deflate)")
	fs.BoolVar(&o.takeover, "deflate-takeover", false, "and let the answers refer to earlier ones, for 12 KiB a connection")
	fs.DurationVar(&o.ping, "ping", 25*time.Second, "send a keep-alive ping to each connection every `TIME`; 0 for none")
	fs.IntVar(&o.maxConns, "max-conns", 0, "refuse connections over `N` with 503; 0 for no limit")
	fs.StringVar(&o.metrics, "metrics", "", "serve the counters at /metrics, as Prometheus reads them, and at /debug/vars, on\n"+
		"`[host]:port`, an address of its own; of the loopback without a host")
	fs.StringVar(&o.tlsCert, "tls-cert", "", "serve wss:// with the certificate chain in `FILE` (PEM)")
	fs.StringVar(&o.tlsKey, "tls-key", "", "the private key for -tls-cert, in `FILE` (PEM)")
	fs.BoolVar(&o.tlsSelfSigned, "tls-self-signed", false, "serve wss:// with a certificate made in memory, for trying")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fs.SetOutput(help)
			fs.PrintDefaults()
		}
		return nil, err
	}
	return o, o.check(fs.Args())
}

// check finds what the flag package can't: flags that contradict each other.
func (o *options) check(rest []string) error {
	switch {
	case len(rest) > 0:
		return fmt.Errorf("unexpected argument %q", rest[0])
	case o.maxMessage < 1:
		return fmt.Errorf("-max-message is %d, want at least 1", o.maxMessage)
	case o.ping < 0:
		return fmt.Errorf("-ping is %v, want at least 0", o.ping)
	case o.maxConns < 0:
		return fmt.Errorf("-max-conns is %d, want at least 0", o.maxConns)
	case o.takeover && !o.deflate:
		return errors.New("-deflate-takeover needs -deflate")
	case (o.tlsCert == "") != (o.tlsKey == ""):
		return errors.New("-tls-cert and -tls-key go together")
	case o.tlsCert != "" && o.tlsSelfSigned:
		return errors.New("-tls-self-signed and -tls-cert exclude each other")
	}
	return nil
}

func main() {
	o, err := parseFlags(os.Args[1:], os.Stdout)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = run(o)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "echo: %v\n", err)
		os.Exit(1)
	}
}

// run serves until the first signal, then shuts down.
func run(o *options) error {
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	server, err := newServer(o)
	if err != nil {
		return err
	}
	ln, err := listen(o)
	if err != nil {
		return err
	}
	announce(o, ln.Addr(), server)
	if o.metrics != "" {
		counters, addr, err := startMetrics(o.metrics, server)
		if err != nil {
			return errors.Join(err, ln.Close())
		}
		defer counters.Close() // the last to go: the end is to be seen there, too
		log.Printf("the counters are at http://%s/metrics", addr)
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	served := make(chan error, 1)
	go func() { served <- serve(server, ln) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}

	stop() // from here on a signal has its usual effect: it kills
	log.Printf("shutting down; Ctrl-C again kills")
	return shutDown(server, served)
}

// shutDown says goodbye to every connection, and waits for Serve as well.
func shutDown(server *websocket.Server, served <-chan error) error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	err := server.Shutdown(ctx)
	if served := <-served; !errors.Is(served, websocket.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	if err != nil {
		return fmt.Errorf("shutdown: %w", err)
	}
	log.Printf("bye")
	return nil
}

func listen(o *options) (net.Listener, error) {
	var lc net.ListenConfig
	if o.reusePort {
		lc.Control = setReusePort
	}
	return lc.Listen(context.Background(), "tcp", o.addr)
}

// announce says what to open, always, since -quiet is about the connections.
func announce(o *options, addr net.Addr, server *websocket.Server) {
	ws, page := "ws", "http"
	if o.secure() {
		ws, page = "wss", "https"
	}
	mode := "Events"
	if o.blocking {
		mode = "ReadMessage"
	}
	log.Printf("echo by %s on %s://%s/", mode, ws, addr)
	log.Printf("open %s://%s/ in a browser", page, addr)
	if len(o.origins) > 0 {
		log.Printf("extra origins: %s", strings.Join(o.origins, ", "))
	}
	if o.tlsSelfSigned {
		explainSelfSigned(server.TLSConfig, addr)
	}
}
