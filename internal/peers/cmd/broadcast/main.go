// Command broadcast measures what one message to many costs: a server in a
// process of its own, on one CPU with GOMAXPROCS=1, sends to all of its
// connections, one message after the other and in bursts, and the figure is its
// CPU time per delivery. Then some of the receivers stop reading, and the
// figures are the latency of the others and the memory held.
//
//	go run ./cmd/broadcast
//	go run ./cmd/broadcast -slow-only
package main

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/rawws/websocket/internal/peers/internal/child"
	"github.com/rawws/websocket/internal/peers/internal/report"
)

type options struct {
	servers    []string
	conns      []int
	sizes      []int
	rounds     int
	scale      float64
	serverCPU  int
	fast, slow bool
	every      time.Duration
	slowConns  int
	slowSize   int
	slowCount  int
}

func main() {
	child.Register(serverRole, runServer)
	child.Main()
	o := &options{}
	servers := flag.String("servers", "gorilla,gws,ours", "the servers to run")
	conns := flag.String("conns", "1000,10000", "numbers of receivers")
	sizes := flag.String("sizes", "128,4096", "bytes of a message")
	clientCPU := flag.Int("client-cpu", 1, "CPU of the client")
	flag.IntVar(&o.serverCPU, "server-cpu", 0, "CPU of the server")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds, in which the servers take turns; medians are printed")
	flag.Float64Var(&o.scale, "scale", 1, "multiplies the number of messages, and so the time")
	fastOnly := flag.Bool("fast-only", false, "not the part with receivers that stop reading")
	slowOnly := flag.Bool("slow-only", false, "only that part")
	flag.DurationVar(&o.every, "every", 20*time.Millisecond, "with slow receivers: the time between two messages")
	flag.IntVar(&o.slowConns, "slow-conns", 1000, "with slow receivers: the number of all; 1% of them are slow")
	flag.IntVar(&o.slowSize, "slow-size", 4096, "with slow receivers: bytes of a message")
	flag.IntVar(&o.slowCount, "slow-count", 400, "with slow receivers: messages of a round, and as many before any is slow")
	flag.Parse()
	o.servers = strings.Split(*servers, ",")
	o.fast, o.slow = !*slowOnly, !*fastOnly
	err := child.Pin(*clientCPU)
	if err == nil {
		o.conns, err = numbers(*conns)
	}
	if err == nil {
		o.sizes, err = numbers(*sizes)
	}
	if err == nil {
		err = o.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "broadcast:", err)
		os.Exit(1)
	}
}

func numbers(s string) (all []int, err error) {
	for f := range strings.SplitSeq(s, ",") {
		n, err := strconv.Atoi(f)
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, nil
}

func (o *options) run() error {
	for _, name := range o.servers {
		if _, err := findHub(name); err != nil {
			return err
		}
	}
	if o.fast {
		for _, n := range o.conns {
			if err := o.measureAll(n); err != nil {
				return err
			}
		}
	}
	if o.slow {
		if err := o.measureSlow(); err != nil {
			return err
		}
	}
	fmt.Printf("%s; server pinned to CPU %d with GOMAXPROCS=1; %s; %s.\n", child.Machine(), o.serverCPU,
		report.Versions("github.com/gorilla/websocket", "github.com/lxzan/gws"), time.Now().UTC().Format("2 January 2006"))
	fmt.Println("gorilla: the hub of its chat example with PreparedMessage; gws: its Broadcaster; ours: Group.Broadcast.")
	return nil
}
