// Command idle measures what connections cost a server that do nothing: it
// opens many from several loopback addresses, lets each echo one message,
// waits, and reads the memory of the server's process. Then it wakes all at
// once with one message each. Every server gets the same treatment, and is in a
// process of its own on one CPU with GOMAXPROCS=1. With -deflate the messages
// are of 1 KiB, and each server that compresses runs a second time, with clients
// that ask for that and use it.
//
//	go run ./cmd/idle -conns 15000
package main

import (
	"context"
	"errors"
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
	conns     int
	wakes     int
	wait      time.Duration
	serverCPU int
	deflate   bool
	servers   []contender
	md        string
	most      limits // of a server's connection, after a collection
	mostLeft  limits // as the process leaves it
}

// A contender is a server in one of its shapes.
type contender struct {
	name string
	raw  bool
	echo.Config
}

func main() {
	child.Main()
	o := &options{}
	servers := flag.String("servers", "epoll-ws,gnet,gorilla,coder,gobwas,gws,nbio,ours-blocking,ours", "the servers to run")
	clientCPU := flag.Int("client-cpu", 1, "CPU of the client")
	flag.IntVar(&o.serverCPU, "server-cpu", 0, "CPU of the server")
	flag.IntVar(&o.conns, "conns", 15000, "connections")
	flag.IntVar(&o.wakes, "wakes", 3, "how often all are woken at once; the medians are printed")
	flag.DurationVar(&o.wait, "wait", 12*time.Second, "how long the connections are quiet, each time")
	flag.BoolVar(&o.deflate, "deflate", false, "measure what compression that was used leaves behind")
	o.most, o.mostLeft = limits{}, limits{}
	flag.Func("most", "fail if a connection costs more after a collection: SERVER=KIB, may be repeated", o.most.parse)
	flag.Func("most-left", "the same for the memory as the process leaves it", o.mostLeft.parse)
	flag.StringVar(&o.md, "md", "", "write the tables as Markdown to this file")
	flag.Parse()
	err := child.Pin(*clientCPU)
	if err == nil {
		if o.deflate {
			payload = compressible()
		}
		o.servers, err = contenders(*servers, o.deflate)
	}
	if err == nil {
		err = run(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "idle:", err)
		os.Exit(1)
	}
}

// zipped is the suffix of a server whose clients compress.
const zipped = "-deflate"

func contenders(names string, deflate bool) ([]contender, error) {
	var all []contender
	for name := range strings.SplitSeq(names, ",") {
		s, err := echo.Find(name)
		if err != nil {
			return nil, err
		}
		c := contender{name, s.Raw, echo.Config{Server: name, RawMessage: load.FrameSize(len(payload))}}
		all = append(all, c)
		if deflate && s.Deflates {
			c.name, c.Deflate = name+zipped, true
			all = append(all, c)
		}
	}
	return all, nil
}

// payload is what each connection echoes.
var payload = []byte(strings.Repeat("idle....", 16)[:125])

// compressible is 1 KiB that differs from line to line, as documents do.
func compressible() (p []byte) {
	for i := 0; len(p) < 1<<10; i++ {
		p = fmt.Appendf(p, `{"id":%d,"name":"user%d","active":true},`, i*7919, i*i)
	}
	return p[:1<<10]
}

func run(o *options) error {
	var all []*result
	for _, s := range o.servers {
		r, err := o.measure(s)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Fprintf(os.Stderr, "%s: %s per connection as the process leaves it, %s after a collection\n",
			s.name, report.Bytes(r.per(r.asIs)), report.Bytes(r.per(r.tidy.rss)))
		all = append(all, r)
	}
	return errors.Join(o.print(all),
		o.most.check(all, "after a collection", func(r *result) float64 { return r.per(r.tidy.rss) }),
		o.mostLeft.check(all, "as the process leaves it", func(r *result) float64 { return r.per(r.asIs) }))
}

// limits are KiB of RSS for each connection, by server.
type limits map[string]float64

func (l limits) parse(s string) error {
	name, kib, _ := strings.Cut(s, "=")
	most, err := strconv.ParseFloat(kib, 64)
	if err != nil {
		return fmt.Errorf("%q isn't SERVER=KIB", s)
	}
	l[name] = most
	return nil
}

// check compares with what is allowed. A server that wasn't run is a mistake.
func (l limits) check(all []*result, what string, bytes func(*result) float64) error {
	checked := 0
	for _, r := range all {
		most, ok := l[r.name]
		if !ok {
			continue
		}
		checked++
		if got := bytes(r) / 1024; got > most {
			return fmt.Errorf("%s: a connection costs %.2f KiB %s, want at most %.2f", r.name, got, what, most)
		}
	}
	if checked < len(l) {
		return fmt.Errorf("%d servers have a limit and %d of them were run", len(l), checked)
	}
	return nil
}

// measure is the life of one server.
func (o *options) measure(s contender) (*result, error) {
	srv, err := echo.Start(s.Config, o.serverCPU)
	if err != nil {
		return nil, err
	}
	defer srv.Stop()
	r := &result{name: s.name, conns: o.conns}
	if r.empty, err = tidyMemory(srv); err != nil {
		return nil, err
	}
	l := &load.Load{Addr: srv.Addr, Conns: o.conns, Payloads: [][]byte{payload}, Sources: 8, Raw: s.raw, Deflate: s.Deflate}
	defer l.Close()
	if err := l.Open(); err != nil {
		return nil, err
	}
	if err := l.Warm(o.conns); err != nil {
		return nil, err
	}
	for i := range o.wakes {
		ctx, cancel := context.WithTimeout(context.Background(), o.wait)
		err := l.Idle(ctx)
		cancel()
		if err != nil {
			return nil, err
		}
		if i == 0 {
			if err := r.measureMemory(srv); err != nil {
				return nil, err
			}
		}
		wake, err := l.Run(o.conns)
		if err != nil {
			return nil, fmt.Errorf("waking: %w", err)
		}
		r.wakes = append(r.wakes, wake)
	}
	return r, l.Warm(o.conns) // all alive, every byte right
}
