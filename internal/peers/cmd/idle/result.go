package main

import (
	"fmt"
	"math"
	"os"
	"slices"
	"time"

	"github.com/rawws/websocket/internal/peers/internal/child"
	"github.com/rawws/websocket/internal/peers/internal/echo"
	"github.com/rawws/websocket/internal/peers/internal/load"
	"github.com/rawws/websocket/internal/peers/internal/report"
)

// A memory is one look at a server's process.
type memory struct {
	rss int64
	child.Memory
}

// A result is what one server was seen to do.
type result struct {
	name   string
	server string
	conns  int
	empty  memory // before the first connection
	asIs   int64  // RSS with all connections idle, as the process left it
	tidy   memory // then, after two collections with the free pages given back
	wakes  []*load.Result
	plain  *result // of the same server without compression; nil if that wasn't run, or is this one
}

// tidyMemory lets the server collect its garbage, and looks.
func tidyMemory(srv *echo.Process) (m memory, err error) {
	if m.Memory, err = srv.Memory(); err != nil {
		return m, err
	}
	m.rss, err = srv.RSS()
	return m, err
}

func (r *result) measureMemory(srv *echo.Process) (err error) {
	if r.asIs, err = srv.RSS(); err != nil {
		return err
	}
	r.tidy, err = tidyMemory(srv)
	return err
}

// per returns the growth of the RSS for each connection.
func (r *result) per(rss int64) float64 { return float64(rss-r.empty.rss) / float64(r.conns) }

// findPlain looks for what the result is compared with.
func (r *result) findPlain(all []*result) {
	for _, other := range all {
		if other != r && other.name == r.server {
			r.plain = other
		}
	}
}

// more is what compression adds to a connection, after a collection, and
// moreLeft as the process left it. Both are infinite if there is nothing to
// compare with, which no limit allows.
func (r *result) more() float64 {
	if r.plain == nil {
		return math.Inf(1)
	}
	return r.per(r.tidy.rss) - r.plain.per(r.plain.tidy.rss)
}

func (r *result) moreLeft() float64 {
	if r.plain == nil {
		return math.Inf(1)
	}
	return r.per(r.asIs) - r.plain.per(r.plain.asIs)
}

func (r *result) median(of func(*load.Result) time.Duration) float64 {
	var v []float64
	for _, w := range r.wakes {
		v = append(v, float64(of(w)))
	}
	return report.Median(v)
}

func (o *options) print(all []*result) error {
	t := &report.Table{
		Title:   fmt.Sprintf("%s idle connections, after %s each and %s of silence", report.Count(int64(o.conns)), o.messages, o.wait),
		Columns: []string{"server", "RSS as left", "after GC"},
	}
	compresses := slices.ContainsFunc(all, func(r *result) bool { return r.name != r.server })
	if compresses {
		t.Columns = append(t.Columns, "more as left", "more after GC")
	}
	t.Columns = append(t.Columns, "heap", "stacks", "goroutines", "wake all", "p50", "p99", "max")
	for _, r := range all {
		heap := float64(r.tidy.Heap-r.empty.Heap) / float64(r.conns)
		stack := float64(r.tidy.Stack-r.empty.Stack) / float64(r.conns)
		row := []string{r.name, report.Bytes(r.per(r.asIs)), report.Bytes(r.per(r.tidy.rss))}
		if compresses {
			row = append(row, difference(r.moreLeft()), difference(r.more()))
		}
		row = append(row, report.Bytes(heap), report.Bytes(stack), report.Count(int64(r.tidy.Goroutines)))
		for _, of := range []func(*load.Result) time.Duration{
			func(w *load.Result) time.Duration { return w.Elapsed },
			func(w *load.Result) time.Duration { return w.Latency.Quantile(0.5) },
			func(w *load.Result) time.Duration { return w.Latency.Quantile(0.99) },
			func(w *load.Result) time.Duration { return w.Latency.Max },
		} {
			row = append(row, report.Duration(time.Duration(r.median(of))))
		}
		t.Add(row...)
	}
	t.Notes = o.notes(all)
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

// difference prints what was compared with something.
func difference(bytes float64) string {
	if math.IsInf(bytes, 1) {
		return "-"
	}
	return report.Bytes(bytes)
}

func (o *options) notes(all []*result) []string {
	notes := []string{
		"RSS is anonymous resident memory over that of the empty process, for each connection: first as the process left it by itself, " +
			"then after two collections with free pages given back, the same for every server.",
		fmt.Sprintf("Waking: one message on each connection at once, from the first byte sent to the last echo; "+
			"p50, p99 and max are those of the single echoes; medians of %d.", o.wakes),
	}
	if slices.ContainsFunc(all, func(r *result) bool { return r.name != r.server }) {
		notes = append(notes, fmt.Sprintf("no-takeover: permessage-deflate, each message by itself; takeover: each side's messages refer to its earlier ones, "+
			"up to %s back; more: than the same server without permessage-deflate.", report.Bytes(float64(int(1)<<o.bits))))
	}
	var modules []string
	for _, r := range all {
		if s, err := echo.Find(r.server); err == nil {
			modules = append(modules, s.Module)
		}
	}
	return append(notes, fmt.Sprintf("%s; server pinned to CPU %d with GOMAXPROCS=1; %s; %s.",
		child.Machine(), o.serverCPU, report.Versions(modules...), time.Now().UTC().Format("2 January 2006")))
}
