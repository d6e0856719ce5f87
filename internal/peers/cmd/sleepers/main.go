// Command sleepers measures servers whose callbacks block: each message is
// answered after a sleep, as after a query to a database, and each connection
// sends its next one when it has the answer. A server that serves every
// connection at the same time answers connections / sleep messages a second,
// until the CPU is the limit; one that lets a callback hold up another's
// connection answers fewer. Servers are in processes of their own on one CPU
// with GOMAXPROCS=1, the client on another, in interleaved rounds.
//
//	go run ./cmd/sleepers
//	go run ./cmd/sleepers -sleeps 5ms -conns 100 -servers ours
package main

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/rawws/websocket/internal/peers/internal/child"
	"github.com/rawws/websocket/internal/peers/internal/echo"
	"github.com/rawws/websocket/internal/peers/internal/load"
	"github.com/rawws/websocket/internal/peers/internal/report"
)

type options struct {
	servers   []echo.Server
	sleeps    []time.Duration
	conns     []int
	rounds    int
	during    time.Duration
	most      int
	serverCPU int
	clientCPU int
	spin      bool
	md        string
}

func main() {
	child.Main()
	o := &options{}
	servers := flag.String("servers", "gorilla,nbio,ours-blocking,ours", "the servers to run, of gorilla, nbio, ours and ours-blocking")
	sleeps := flag.String("sleeps", "0s,1ms,5ms,50ms", "how long a callback sleeps")
	conns := flag.String("conns", "100,5000", "connections")
	flag.IntVar(&o.rounds, "rounds", 3, "interleaved rounds")
	flag.DurationVar(&o.during, "during", 3*time.Second, "how long a round would last without any loss")
	flag.IntVar(&o.most, "most", 150_000, "messages of a round at most")
	flag.IntVar(&o.serverCPU, "server-cpu", 0, "CPU of the server")
	flag.IntVar(&o.clientCPU, "client-cpu", 1, "CPU of the client")
	flag.BoolVar(&o.spin, "spin", false, "the client polls without sleeping, so that what is lost is the server's")
	flag.StringVar(&o.md, "md", "", "write the table as Markdown to this file")
	flag.Parse()
	err := o.parse(*servers, *sleeps, *conns)
	if err == nil {
		err = child.Pin(o.clientCPU)
	}
	if err == nil {
		err = run(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "sleepers:", err)
		os.Exit(1)
	}
}

func (o *options) parse(servers, sleeps, conns string) error {
	for name := range strings.SplitSeq(servers, ",") {
		s, err := echo.Find(name)
		if err != nil {
			return err
		}
		if s.Raw || !s.Ours && name != "gorilla" && name != "nbio" {
			return fmt.Errorf("the callbacks of %s can't be told to sleep", name)
		}
		o.servers = append(o.servers, s)
	}
	for s := range strings.SplitSeq(sleeps, ",") {
		d, err := time.ParseDuration(s)
		if err != nil {
			return err
		}
		o.sleeps = append(o.sleeps, d)
	}
	for s := range strings.SplitSeq(conns, ",") {
		n, err := strconv.Atoi(s)
		if err != nil {
			return err
		}
		o.conns = append(o.conns, n)
	}
	return nil
}

// A cell is one number of connections and one sleep.
type cell struct {
	conns int
	sleep time.Duration
}

// limit is what there would be if nothing but the sleep took time; 0 without one.
func (c cell) limit() float64 {
	if c.sleep == 0 {
		return 0
	}
	return float64(c.conns) / c.sleep.Seconds()
}

// A sample is one server in one round.
type sample struct {
	*load.Result
	cpu time.Duration // of the server, per message
}

func run(o *options) error {
	t := &report.Table{
		Title: fmt.Sprintf("Callbacks that sleep, 125 B (%d interleaved rounds, medians)", o.rounds),
		Columns: []string{"connections, sleep", "server", "messages/s", "of what the sleep allows", "of only sleeping", "CPU/message",
			"p50", "p99", "p99.9", "worst"},
	}
	for _, conns := range o.conns {
		for _, sleep := range o.sleeps {
			if err := o.row(t, cell{conns, sleep}); err != nil {
				return err
			}
		}
	}
	t.Notes = append(t.Notes, "Only sleeping: as many goroutines that do nothing else, in a process of their own, in the same rounds. The system and the runtime wake late.")
	var modules []string
	for _, s := range o.servers {
		modules = append(modules, s.Module)
	}
	t.Notes = append(t.Notes, fmt.Sprintf("%s; server pinned to CPU %d with GOMAXPROCS=1, client on CPU %d; %s; %s.",
		child.Machine(), o.serverCPU, o.clientCPU, report.Versions(modules...), time.Now().UTC().Format("2 January 2006")))
	t.Text(os.Stdout)
	if o.md == "" {
		return nil
	}
	f, err := os.Create(o.md)
	if err != nil {
		return err
	}
	t.Markdown(f)
	return f.Close()
}

// row measures all servers in one cell. The servers take turns, and each round
// begins with another one.
func (o *options) row(t *report.Table, c cell) error {
	samples := make([][]sample, len(o.servers))
	var ceilings []float64
	for round := range o.rounds {
		if c.sleep > 0 {
			rate, err := o.ceiling(c)
			if err != nil {
				return err
			}
			ceilings = append(ceilings, rate)
		}
		for i := range o.servers {
			i = (i + round) % len(o.servers)
			s, err := o.measure(o.servers[i], c)
			if err != nil {
				return fmt.Errorf("%s, %d connections, %v: %w", o.servers[i].Name, c.conns, c.sleep, err)
			}
			samples[i] = append(samples[i], s)
		}
	}
	for i, s := range o.servers {
		median := func(of func(sample) float64) float64 {
			var v []float64
			for _, m := range samples[i] {
				v = append(v, of(m))
			}
			return report.Median(v)
		}
		rate := median(func(m sample) float64 { return float64(m.Messages) / m.Elapsed.Seconds() })
		share, ofCeiling := "-", "-"
		if c.sleep > 0 {
			share = fmt.Sprintf("%.0f%%", 100*rate/c.limit())
			ofCeiling = fmt.Sprintf("%.0f%%", 100*rate/report.Median(ceilings))
		}
		row := []string{fmt.Sprintf("%s, %s", report.Count(int64(c.conns)), c.sleep), s.Name, report.Count(int64(rate)), share, ofCeiling,
			report.Duration(time.Duration(median(func(m sample) float64 { return float64(m.cpu) })))}
		for _, q := range []float64{0.5, 0.99, 0.999} {
			row = append(row, report.Duration(time.Duration(median(func(m sample) float64 { return float64(m.Latency.Quantile(q)) }))))
		}
		worst := time.Duration(0)
		for _, m := range samples[i] {
			worst = max(worst, m.Latency.Max)
		}
		t.Add(append(row, report.Duration(worst))...)
		fmt.Fprintf(os.Stderr, "%s %s: %s messages/s\n", row[0], s.Name, row[2])
	}
	return nil
}

// measure starts a fresh server, lets every connection echo once, and measures.
func (o *options) measure(s echo.Server, c cell) (m sample, err error) {
	srv, err := echo.Start(echo.Config{Server: s.Name, Sleep: c.sleep}, o.serverCPU)
	if err != nil {
		return m, err
	}
	defer srv.Stop()
	l := &load.Load{Addr: srv.Addr, Conns: c.conns, Sources: 4, Spin: o.spin, Payloads: [][]byte{[]byte(strings.Repeat("sleeper.", 16)[:125])}}
	defer l.Close()
	if err := l.Open(); err != nil {
		return m, err
	}
	if err := l.Warm(max(c.conns, o.most/10)); err != nil {
		return m, fmt.Errorf("warm-up: %w", err)
	}
	before, err := srv.CPUTime()
	if err != nil {
		return m, err
	}
	if m.Result, err = l.Run(o.messages(c)); err != nil {
		return m, err
	}
	after, err := srv.CPUTime()
	m.cpu = (after - before) / time.Duration(m.Messages)
	return m, err
}

// messages is how many a round has: each connection sends a few at least.
func (o *options) messages(c cell) int {
	n := o.most
	if c.sleep > 0 {
		n = min(n, int(c.limit()*o.during.Seconds()))
	}
	return max(n, 4*c.conns)
}
