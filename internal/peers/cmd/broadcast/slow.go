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

// measureSlow broadcasts at a steady pace, first to connections that all read,
// then with 1% more that don't.
func (o *options) measureSlow() error {
	slow := max(o.slowConns/100, 1)
	t := &report.Table{
		Title: fmt.Sprintf("%d B every %v to %s connections, then with %d more that don't read",
			o.slowSize, o.every, report.Count(int64(o.slowConns)), slow),
		Columns: []string{"server", "p50", "with slow", "p99", "with slow", "ratio", "heap at most", "with slow", "cut", "how"},
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
	t.Notes = append(t.Notes, fmt.Sprintf("%d messages each time, sockets with a send buffer of %s. The heap is sampled as it is, without a collection.",
		o.slowCount/2, report.Bytes(slowSendBuffer)))
	t.Text(os.Stdout)
	return nil
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
	if _, _, err := o.steady(srv, r, o.slowCount/20, o.slowConns); err != nil { // to warm up
		return nil, err
	}
	calm, quiet, err := o.steady(srv, r, o.slowCount/2, o.slowConns)
	if err != nil {
		return nil, err
	}
	deaf := &load.Receivers{Load: load.Load{Addr: srv.addr, Conns: slow, Sources: 8}}
	defer deaf.Close()
	if err := deaf.Open(); err != nil {
		return nil, err
	}
	rough, loud, err := o.steady(srv, r, o.slowCount/2, o.slowConns+slow)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(15 * time.Second); loud.Cut < slow && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		peak := loud.Peak
		if err := srv.Ask(order{}, &loud); err != nil {
			return nil, err
		}
		loud.Peak = peak
	}
	row := []string{name}
	for _, q := range []float64{0.5, 0.99} {
		row = append(row, report.Duration(calm.Latency.Quantile(q)), report.Duration(rough.Latency.Quantile(q)))
	}
	return append(row, fmt.Sprintf("%.2f", float64(rough.Latency.Quantile(0.99))/float64(calm.Latency.Quantile(0.99))),
		report.Bytes(float64(quiet.Peak)), report.Bytes(float64(loud.Peak)), fmt.Sprintf("%d of %d", loud.Cut, slow), loud.CutHow), nil
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
