package main

import (
	"fmt"
	"os"
	"time"

	"github.com/rawws/websocket/internal/peers/internal/load"
	"github.com/rawws/websocket/internal/peers/internal/report"
)

// slowSendBuffer keeps the kernel from taking megabytes for a receiver that
// doesn't read, so that the servers' own queues fill within the run.
const slowSendBuffer = 128 << 10

// measureSlow broadcasts at a steady pace, in rounds: to connections that all
// read, then with 1% more that don't.
func (o *options) measureSlow() error {
	slow := max(o.slowConns/100, 1)
	t := &report.Table{
		Title: fmt.Sprintf("%d B every %v to %s connections, without and with %d more that don't read (%d rounds of each)",
			o.slowSize, o.every, report.Count(int64(o.slowConns)), slow, o.rounds),
		Columns: []string{"server", "p50", "with slow", "p99", "with slow", "p99 ratio", "lowest", "highest", "heap at most", "with slow", "cut", "how"},
	}
	for _, name := range o.servers {
		row, err := o.slowRow(name, slow)
		if err != nil && name == "ours" {
			return fmt.Errorf("ours, with slow receivers: %w", err)
		}
		if err != nil { // a hub may drop one that reads, when the machine is busy
			row = []string{name + " *"}
			t.Notes = append(t.Notes, fmt.Sprintf("* %s failed: %v.", name, err))
		}
		t.Add(row...)
	}
	t.Notes = append(t.Notes, fmt.Sprintf("%d messages a round, sockets with a send buffer of %s. The ratio is the median of the rounds' own. The heap is sampled as it is, without a collection.",
		o.slowCount, report.Bytes(slowSendBuffer)))
	t.Text(os.Stdout)
	return nil
}

// A slowRound is how it went without slow receivers, and with them.
type slowRound struct {
	latency [2]load.Hist
	heap    [2]int64
	cut     int
	how     string
}

func (r *slowRound) p99Ratio() float64 {
	return float64(r.latency[1].Quantile(0.99)) / float64(r.latency[0].Quantile(0.99))
}

func (o *options) slowRow(name string, slow int) ([]string, error) {
	srv, err := start(serverConfig{name, slowSendBuffer}, o.serverCPU)
	if err != nil {
		return nil, err
	}
	defer srv.Stop()
	r := &load.Receivers{Load: load.Load{Addr: srv.addr, Conns: o.slowConns, Sources: 8}, Body: body(o.slowSize)}
	defer r.Close()
	if err := r.Open(); err != nil {
		return nil, err
	}
	if _, _, err := o.steady(srv, r, o.slowCount/10, o.slowConns); err != nil { // to warm up
		return nil, err
	}
	var all []*slowRound
	cut := 0
	for range o.rounds {
		round, err := o.slowRound(srv, r, slow, cut)
		if err != nil {
			return nil, err
		}
		all = append(all, round)
		cut += round.cut
	}
	return slowCells(name, all, slow), nil
}

func slowCells(name string, all []*slowRound, slow int) []string {
	of := func(f func(*slowRound) float64) float64 {
		var v []float64
		for _, r := range all {
			v = append(v, f(r))
		}
		return report.Median(v)
	}
	row := []string{name}
	for _, q := range []float64{0.5, 0.99} {
		for i := range 2 {
			row = append(row, report.Duration(time.Duration(of(func(r *slowRound) float64 { return float64(r.latency[i].Quantile(q)) }))))
		}
	}
	lowest, highest, cut := all[0].p99Ratio(), all[0].p99Ratio(), 0
	var heap [2]int64
	for _, r := range all {
		lowest, highest = min(lowest, r.p99Ratio()), max(highest, r.p99Ratio())
		heap[0], heap[1] = max(heap[0], r.heap[0]), max(heap[1], r.heap[1])
		cut += r.cut
	}
	row = append(row, fmt.Sprintf("%.2f", of((*slowRound).p99Ratio)), fmt.Sprintf("%.2f", lowest), fmt.Sprintf("%.2f", highest))
	return append(row, report.Bytes(float64(heap[0])), report.Bytes(float64(heap[1])), fmt.Sprintf("%d of %d", cut, slow*len(all)), all[0].how)
}

// slowRound is one round. So many were cut before it.
func (o *options) slowRound(srv *server, r *load.Receivers, slow, cut int) (*slowRound, error) {
	calm, quiet, err := o.steady(srv, r, o.slowCount, o.slowConns)
	if err != nil {
		return nil, err
	}
	deaf := &load.Receivers{Load: load.Load{Addr: srv.addr, Conns: slow, Sources: 8}}
	defer deaf.Close()
	if err := deaf.Open(); err != nil {
		return nil, err
	}
	rough, loud, err := o.steady(srv, r, o.slowCount, o.slowConns+slow)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(15 * time.Second); loud.Cut < cut+slow && loud.CutHow != "of themselves" && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		peak := loud.Peak
		if err := srv.Ask(order{}, &loud); err != nil {
			return nil, err
		}
		loud.Peak = peak
	}
	return &slowRound{[2]load.Hist{calm.Latency, rough.Latency}, [2]int64{quiet.Peak, loud.Peak}, loud.Cut - cut, loud.CutHow}, nil
}

// steady lets the server broadcast n messages at a steady pace.
func (o *options) steady(srv *server, r *load.Receivers, n, conns int) (*load.Result, account, error) {
	var a account
	if err := srv.Tell(order{Burst: n, Size: o.slowSize, Every: o.every, Await: conns}); err != nil {
		return nil, a, err
	}
	srv.last += uint64(n)
	res, err := r.Await(srv.last, 60*time.Second+time.Duration(n)*o.every)
	if err == nil {
		err = srv.Hear(&a)
	}
	return res, a, err
}
