// Cluster is one chat on several nodes, which tell each other through NATS what
// is said.
//
//	go run .                                                     # node a, with a NATS server in it
//	go run . -node b -addr 127.0.0.1:9012 -nats nats://127.0.0.1:4222
//
// Open http://127.0.0.1:9011/ and http://127.0.0.1:9012/: it is one room. The
// README says how the same shape goes to many machines.
package main

import (
	"context"
	"embed"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

//go:embed page
var files embed.FS

type options struct {
	node  string
	addr  string
	nats  string        // URLs with commas between; "" for a server in this process
	embed string        // where that one listens
	beat  time.Duration // how often a node says who is on it
	wait  time.Duration // for the history of a room, 0 for historyWait

	proxies []netip.Prefix // whose word on who the client is, is believed
}

func main() {
	o := options{beat: 5 * time.Second}
	flag.StringVar(&o.node, "node", "a", "this node's `name`, shown on the page")
	flag.StringVar(&o.addr, "addr", "127.0.0.1:9011", "serve the page at `host:port`")
	flag.StringVar(&o.nats, "nats", "", "the NATS servers' `URLs`, with commas between; one in this process when empty")
	flag.StringVar(&o.embed, "embed", "127.0.0.1:4222", "where the NATS server in this process listens, `host:port`")
	flag.Func("proxy", "believe the X-Forwarded-For of a proxy in `CIDR` (repeatable)", func(s string) error {
		p, err := netip.ParsePrefix(s)
		o.proxies = append(o.proxies, p)
		return err
	})
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C kills
	if err := run(ctx, o); err != nil {
		log.Fatal(err)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, o options) error {
	if o.nats == "" {
		ns, err := startNATS(o.embed)
		if err != nil {
			return err
		}
		defer ns.WaitForShutdown()
		defer ns.Shutdown()
		o.nats = ns.ClientURL()
		log.Printf("a NATS server in this process: more nodes join with -nats %s", o.nats)
	}
	ln, err := net.Listen("tcp", o.addr)
	if err != nil {
		return err
	}
	n, err := newNode(o)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	web := newWeb(n.routes())
	served := make(chan error, 1)
	go func() { served <- web.Serve(ln) }()
	log.Printf("node %s: open http://%s/; Ctrl-C ends", o.node, ln.Addr())
	select {
	case err = <-served:
	case <-ctx.Done():
	}
	return errors.Join(err, shutDown(n, web))
}

// newWeb bounds the pages' side in every direction. A WebSocket that has left
// it is under none of these: the chat's own limits hold.
func newWeb(h http.Handler) *http.Server {
	web := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       20 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
	limitSockets(web, maxSockets)
	return web
}

// limitSockets bounds the sockets that net/http holds, silent ones among them:
// it closes the newest. One that becomes a WebSocket isn't counted any more.
func limitSockets(web *http.Server, most int64) {
	var n atomic.Int64
	web.ConnState = func(nc net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			if n.Add(1) > most {
				nc.Close()
			}
		case http.StateHijacked, http.StateClosed:
			n.Add(-1)
		}
	}
}

// shutDown sends the users away first, tells the other nodes, and then waits
// for whoever is slow to take a page. Newcomers get 503 from the first moment.
func shutDown(n *node, web *http.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err := n.shutdown(ctx)
	ctx, cancel = context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if web.Shutdown(ctx) != nil {
		web.Close() // who hasn't taken a page by now is cut
	}
	return err
}

// startNATS runs a NATS server in this process, for one machine and for trying.
func startNATS(addr string) (*server.Server, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	o := &server.Options{Host: host, NoSigs: true, NoLog: true}
	if o.Port, err = strconv.Atoi(port); err != nil {
		return nil, fmt.Errorf("-embed %s: %w", addr, err)
	}
	// A port that is taken, the server would tell to its log alone.
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%w; use its server with -nats, or another port with -embed", err)
	}
	ln.Close()
	ns, err := server.NewServer(o)
	if err != nil {
		return nil, err
	}
	ns.Start()
	if !ns.ReadyForConnections(10 * time.Second) {
		ns.Shutdown()
		return nil, fmt.Errorf("the NATS server at %s doesn't get ready", addr)
	}
	return ns, nil
}
