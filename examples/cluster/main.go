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
	"os"
	"os/signal"
	"strconv"
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
}

func main() {
	o := options{beat: 5 * time.Second}
	flag.StringVar(&o.node, "node", "a", "this node's `name`, shown on the page")
	flag.StringVar(&o.addr, "addr", "127.0.0.1:9011", "serve the page at `host:port`")
	flag.StringVar(&o.nats, "nats", "", "the NATS servers' `URLs`, with commas between; one in this process when empty")
	flag.StringVar(&o.embed, "embed", "127.0.0.1:4222", "where the NATS server in this process listens, `host:port`")
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
	web := &http.Server{Handler: n.routes(), ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- web.Serve(ln) }()
	log.Printf("node %s: open http://%s/; Ctrl-C ends", o.node, ln.Addr())
	select {
	case err = <-served:
	case <-ctx.Done():
	}
	// Nobody new, then everybody away, then the other nodes are told.
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return errors.Join(err, web.Shutdown(ctx), n.shutdown(ctx))
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
