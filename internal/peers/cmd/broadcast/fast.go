package main

import (
	"fmt"
	"os"
	"time"

	"github.com/rawws/websocket/internal/peers/internal/load"
	"github.com/rawws/websocket/internal/peers/internal/report"
)

// A work is one row of measurements.
type work struct {
	size, burst int
}

func (o *options) works() (all []work) {
	for _, size := range o.sizes {
		all = append(all, work{size, 1}, work{size, 20})
	}
	return all
}

// A sample is a server at a work in a round.
type sample struct {
	cpu time.Duration // per delivery
	p99 time.Duration
}

// samples are those of the rounds, by work and server.
type samples map[work]map[string][]sample

// deliveries of a sample: enough to be a good part of a second.
const deliveries = 400_000

func (o *options) measureAll(conns int) error {
	all := samples{}
	for round := range o.rounds {
		for i := range o.servers {
			name := o.servers[(i+round)%len(o.servers)]
			if err := o.measure(name, conns, all); err != nil {
				return fmt.Errorf("%s, %d connections: %w", name, conns, err)
			}
		}
	}
	for _, w := range o.works() {
		o.table(conns, w, all[w]).Text(os.Stdout)
	}
	return nil
}

// measure runs all works on a fresh server.
func (o *options) measure(name string, conns int, all samples) error {
	srv, err := start(serverConfig{Name: name}, o.serverCPU)
	if err != nil {
		return err
	}
	defer srv.Stop()
	r := &load.Receivers{Load: load.Load{Addr: srv.addr, Conns: conns, Sources: 8}}
	defer r.Close()
	if err := r.Open(); err != nil {
		return err
	}
	for _, w := range o.works() {
		if all[w] == nil {
			all[w] = map[string][]sample{}
		}
		n := max(int(o.scale*deliveries/float64(conns*w.burst)), 2)
		if w.size > 1<<10 {
			n = max(n/2, 2)
		}
		if _, err := srv.repeat(r, w, max(n/10, 1)); err != nil { // to warm up
			return err
		}
		s, err := srv.repeat(r, w, n)
		if err != nil {
			return err
		}
		all[w][name] = append(all[w][name], s)
	}
	return nil
}

// repeat lets the server broadcast n times, each time when all have what was
// sent before.
func (s *server) repeat(r *load.Receivers, w work, n int) (sample, error) {
	before, err := s.CPUTime()
	if err != nil {
		return sample{}, err
	}
	r.Body = body(w.size)
	var latency load.Hist
	for range n {
		if err := s.Tell(order{Burst: w.burst, Size: w.size, Await: r.Conns}); err != nil {
			return sample{}, err
		}
		s.last += uint64(w.burst)
		res, err := r.Await(s.last, 2*time.Minute)
		if err != nil {
			return sample{}, err
		}
		latency.Merge(&res.Latency)
		var a account
		if err := s.Hear(&a); err != nil {
			return sample{}, err
		}
		if a.Last != s.last || a.Conns != r.Conns {
			return sample{}, fmt.Errorf("the server sent %d messages, to %d connections; want %d, %d", a.Last, a.Conns, s.last, r.Conns)
		}
	}
	after, err := s.CPUTime()
	per := time.Duration(n * w.burst * r.Conns)
	return sample{(after - before) / per, latency.Quantile(0.99)}, err
}

func (o *options) table(conns int, w work, of map[string][]sample) *report.Table {
	t := &report.Table{
		Title:   fmt.Sprintf("%d B to %s connections, one by one (%d rounds)", w.size, report.Count(int64(conns)), o.rounds),
		Columns: []string{"server", "CPU/delivery", "lowest", "highest", "x gorilla", "x best peer", "p99"},
	}
	if w.burst > 1 {
		t.Title = fmt.Sprintf("%d B to %s connections, %d in a burst (%d rounds)", w.size, report.Count(int64(conns)), w.burst, o.rounds)
	}
	cpu := func(s sample) float64 { return float64(s.cpu) }
	best := ""
	for _, name := range o.servers {
		if name != "ours" && (best == "" || median(of[name], cpu) < median(of[best], cpu)) {
			best = name
		}
	}
	for _, name := range o.servers {
		lowest, highest := of[name][0].cpu, of[name][0].cpu
		for _, s := range of[name] {
			lowest, highest = min(lowest, s.cpu), max(highest, s.cpu)
		}
		t.Add(name, report.Duration(time.Duration(median(of[name], cpu))), report.Duration(lowest), report.Duration(highest),
			times(of[name], of["gorilla"]), times(of[name], of[best]),
			report.Duration(time.Duration(median(of[name], func(s sample) float64 { return float64(s.p99) }))))
	}
	return t
}

func median(all []sample, of func(sample) float64) float64 {
	var v []float64
	for _, s := range all {
		v = append(v, of(s))
	}
	return report.Median(v)
}

// times is the median of the rounds' own ratios.
func times(a, b []sample) string {
	if len(b) == 0 {
		return "-"
	}
	var v []float64
	for i := range a {
		v = append(v, float64(a[i].cpu)/float64(b[i].cpu))
	}
	return fmt.Sprintf("%.2f", report.Median(v))
}
