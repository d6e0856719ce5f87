// Command compare measures what a message costs the servers of several
// libraries: each runs in a process of its own on one CPU with GOMAXPROCS=1,
// the client on another, in interleaved rounds, always the same number of
// messages. The figure is the server's CPU time per message; its ratio to a
// bare TCP echo is what carries from machine to machine.
//
//	go run ./cmd/compare -quick
//	go run ./cmd/compare -only small100,1KiB -servers rawtcp,epoll,ours
//	go run ./cmd/compare -procs 2
//	go run ./cmd/compare -md out/compare.md -svg out/compare.svg -syscalls
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/rawws/websocket/internal/peers/internal/child"
	"github.com/rawws/websocket/internal/peers/internal/echo"
)

type options struct {
	servers   []echo.Server
	workloads []workload
	rounds    int
	quick     bool
	syscalls  bool
	clientCPU int
	md, svg   string
	bench
}

func main() {
	child.Main()
	o, err := parseFlags()
	if err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(2)
	}
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

func parseFlags() (*options, error) {
	o := &options{}
	servers := flag.String("servers", strings.Join(echo.Names(), ","), "the servers to run")
	only := flag.String("only", "", "the workloads, all by default: "+strings.Join(workloadNames(), ", "))
	flag.IntVar(&o.rounds, "rounds", 5, "interleaved rounds")
	flag.Float64Var(&o.scale, "scale", 1, "multiplies the number of messages, and so the time")
	flag.BoolVar(&o.quick, "quick", false, "2 rounds of a twentieth: a look, not a measurement")
	flag.IntVar(&o.bits, "window-bits", 15, "bits of both windows with context takeover; 15 is 32 KiB")
	flag.BoolVar(&o.syscalls, "syscalls", false, "count system calls per message with strace")
	flag.BoolVar(&o.spin, "spin", false, "the client polls without sleeping, so that the server never pays for waking it")
	flag.IntVar(&o.serverCPU, "server-cpu", 0, "CPU of the server, the first of them with -procs")
	flag.IntVar(&o.procs, "procs", 1, "GOMAXPROCS of the servers, and the number of their CPUs")
	flag.IntVar(&o.clientCPU, "client-cpu", 1, "CPU of the client")
	flag.StringVar(&o.md, "md", "", "write the tables as Markdown to this file")
	flag.StringVar(&o.svg, "svg", "", "write a bar chart to this file")
	flag.Parse()
	if o.quick {
		o.rounds, o.scale = 2, o.scale/20
	}
	var err error
	for name := range strings.SplitSeq(*servers, ",") {
		s, err := echo.Find(name)
		if err != nil {
			return nil, err
		}
		o.servers = append(o.servers, s)
	}
	if o.workloads, err = chosen(*only); err != nil {
		return nil, err
	}
	return o, child.Pin(o.clientCPU)
}

// chosen returns the workloads of those names, all of them for none.
func chosen(names string) ([]workload, error) {
	if names == "" {
		return workloads, nil
	}
	var found []workload
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(workloads, func(w workload) bool { return w.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("no workload is called %q; there are %s", name, strings.Join(workloadNames(), ", "))
		}
		found = append(found, workloads[i])
	}
	return found, nil
}

func workloadNames() []string {
	var names []string
	for _, w := range workloads {
		names = append(names, w.Name)
	}
	return names
}

// run measures everything and prints what it has after each workload.
func run(o *options) error {
	var all []*outcome
	for _, w := range o.workloads {
		began := time.Now()
		out, err := o.measureAll(w)
		if err != nil {
			return err
		}
		all = append(all, out)
		out.table().Text(os.Stdout)
		fmt.Fprintf(os.Stderr, "%s took %s\n", w.Name, time.Since(began).Round(time.Second))
	}
	for _, t := range summaries(o, all) {
		t.Text(os.Stdout)
	}
	for _, line := range conditions(o) {
		fmt.Println(line)
	}
	if o.md != "" {
		if err := writeFile(o.md, func(w io.Writer) error { return writeMarkdown(w, o, all) }); err != nil {
			return err
		}
	}
	if o.svg != "" {
		return writeFile(o.svg, chart(o, all).SVG)
	}
	return nil
}

// measureAll runs the rounds of one workload. The servers take turns, and each
// round begins with another one.
func (o *options) measureAll(w workload) (*outcome, error) {
	out := &outcome{workload: w, rounds: o.rounds, messages: o.messages(w)}
	for _, s := range o.servers {
		for _, v := range w.variants(s, o.bits) {
			out.servers = append(out.servers, &series{server: s, work: v})
		}
	}
	for round := range o.rounds {
		for i := range out.servers {
			s := out.servers[(i+round)%len(out.servers)]
			m, err := o.measure(s.server, s.work)
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", w.Name, s.name(), err)
			}
			s.samples = append(s.samples, m)
		}
	}
	if !o.syscalls {
		return out, nil
	}
	for _, s := range out.servers {
		var err error
		if s.calls, err = o.countCalls(s.server, s.work); err != nil {
			return nil, fmt.Errorf("%s, %s: %w", w.Name, s.name(), err)
		}
	}
	return out, nil
}

func writeFile(name string, write func(io.Writer) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	if err := write(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
