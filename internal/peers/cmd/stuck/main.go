// Command stuck measures what clients that send and never read do to the
// others: in one run of one server, rounds without them and rounds with them
// take turns, and the figures are the latencies of the others.
//
//	go run ./cmd/stuck -conns 1000 -stuck 10
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/rawws/websocket/internal/peers/internal/child"
	"github.com/rawws/websocket/internal/peers/internal/echo"
	"github.com/rawws/websocket/internal/peers/internal/load"
	"github.com/rawws/websocket/internal/peers/internal/report"
)

type options struct {
	conns     int
	stuck     int
	rounds    int
	messages  int
	size      int
	serverCPU int
	servers   []string
	limit     float64
}

func main() {
	child.Main()
	o := &options{}
	servers := flag.String("servers", "ours", "the servers to run, of "+strings.Join(echo.Names(), ", "))
	clientCPU := flag.Int("client-cpu", 1, "CPU of the client")
	flag.IntVar(&o.serverCPU, "server-cpu", 0, "CPU of the server")
	flag.IntVar(&o.conns, "conns", 1000, "connections that echo")
	flag.IntVar(&o.stuck, "stuck", 0, "connections that send and never read; 1% of the others by default")
	flag.IntVar(&o.rounds, "rounds", 9, "rounds of each kind; the medians are printed")
	flag.IntVar(&o.messages, "messages", 50000, "messages of a round")
	flag.IntVar(&o.size, "size", 125, "bytes of a message")
	flag.Float64Var(&o.limit, "limit", 1.2, "fail when ours has a p99 so many times that of the undisturbed rounds; 0 for never")
	flag.Parse()
	o.servers = strings.Split(*servers, ",")
	if o.stuck == 0 {
		o.stuck = max(o.conns/100, 1)
	}
	err := child.Pin(*clientCPU)
	if err == nil {
		err = run(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "stuck:", err)
		os.Exit(1)
	}
}

func run(o *options) error {
	t := &report.Table{
		Title: fmt.Sprintf("%s connections echo %d B in a closed loop, without and with %d that send and never read (%d rounds of each)",
			report.Count(int64(o.conns)), o.size, o.stuck, o.rounds),
		Columns: []string{"server", "p50", "with stuck", "p99", "with stuck", "p99 ratio", "lowest", "highest", "messages/s", "with stuck"},
	}
	var failed error
	for _, name := range o.servers {
		r, err := o.measure(name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		t.Add(r.row(name)...)
		if s, err := echo.Find(name); err == nil && s.Ours && o.limit > 0 && r.ratio() > o.limit {
			failed = errors.Join(failed, fmt.Errorf("%s: p99 is %.2f times the undisturbed one, want at most %.2f", name, r.ratio(), o.limit))
		}
	}
	t.Notes = append(t.Notes, fmt.Sprintf("The ratio is the median of the rounds' own, each with the undisturbed one before it. %s; server pinned to CPU %d with GOMAXPROCS=1; %s.",
		child.Machine(), o.serverCPU, time.Now().UTC().Format("2 January 2006")))
	t.Text(os.Stdout)
	return failed
}

// A pair is a round without stuck clients, and one with them.
type pair [2]*load.Result

type result []pair

func (r result) values(of func(pair) float64) []float64 {
	var v []float64
	for _, p := range r {
		v = append(v, of(p))
	}
	return v
}

func p99(r *load.Result) float64 { return float64(r.Latency.Quantile(0.99)) }

func ratio(p pair) float64 { return p99(p[1]) / p99(p[0]) }

func (r result) ratio() float64 { return report.Median(r.values(ratio)) }

func (r result) row(name string) []string {
	row := []string{name}
	for _, q := range []float64{0.5, 0.99} {
		for i := range 2 {
			v := report.Median(r.values(func(p pair) float64 { return float64(p[i].Latency.Quantile(q)) }))
			row = append(row, report.Duration(time.Duration(v)))
		}
	}
	lowest, highest := ratio(r[0]), ratio(r[0])
	for _, p := range r {
		lowest, highest = min(lowest, ratio(p)), max(highest, ratio(p))
	}
	row = append(row, fmt.Sprintf("%.2f", r.ratio()), fmt.Sprintf("%.2f", lowest), fmt.Sprintf("%.2f", highest))
	for i := range 2 {
		v := report.Median(r.values(func(p pair) float64 { return float64(p[i].Messages) / p[i].Elapsed.Seconds() }))
		row = append(row, report.Count(int64(v)))
	}
	return row
}

func (o *options) measure(name string) (result, error) {
	s, err := echo.Find(name)
	if err != nil {
		return nil, err
	}
	srv, err := echo.Start(echo.Config{Server: name, RawMessage: load.FrameSize(o.size)}, o.serverCPU)
	if err != nil {
		return nil, err
	}
	defer srv.Stop()
	l := &load.Load{Addr: srv.Addr, Conns: o.conns, Sources: 4, Raw: s.Raw,
		Payloads: [][]byte{[]byte(strings.Repeat("stuck...", o.size/8+1)[:o.size])}}
	defer l.Close()
	if err := l.Open(); err != nil {
		return nil, err
	}
	if err := l.Warm(o.messages / 2); err != nil {
		return nil, err
	}
	var all result
	for range o.rounds {
		var p pair
		if p[0], err = l.Run(o.messages); err != nil {
			return nil, err
		}
		if p[1], err = o.disturbed(l); err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// disturbed is a round with clients that got stuck just before.
func (o *options) disturbed(l *load.Load) (*load.Result, error) {
	jam := &load.Jam{Addr: l.Addr, Conns: o.stuck}
	defer jam.Close()
	if err := jam.Open(); err != nil {
		return nil, err
	}
	return l.Run(o.messages)
}
