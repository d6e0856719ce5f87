// Command idle measures what connections cost a server that do nothing: it
// opens many from several loopback addresses, lets each echo one message,
// waits, and reads the memory of the server's process. Then it wakes all at
// once with one message each. Every server gets the same treatment, and is in a
// process of its own on one CPU with GOMAXPROCS=1. With -deflate each server runs
// once for each of several ways to compress, and the connections have echoed as
// many documents of 1 KiB as fill the windows of context takeover.
//
//	go run ./cmd/idle -conns 15000
//	go run ./cmd/idle -conns 10000 -servers ours -deflate none,no-takeover,takeover
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
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
	bits      int // of the windows, with context takeover
	messages  messages
	servers   []contender
	md        string
	most      limits // of a server's connection, after a collection
	mostLeft  limits // as the process leaves it
	mostMore  limits // more than without compression, after a collection
}

// A contender is a server in one of its shapes.
type contender struct {
	name string
	raw  bool
	echo.Config
}

// messages are what each connection echoes before it is idle.
type messages struct {
	payloads [][]byte
	each     int
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
	deflate := flag.String("deflate", none, "measure what compression that was used leaves behind: some of "+strings.Join(ways, ", "))
	flag.IntVar(&o.bits, "window-bits", 12, "bits of both windows with takeover; 12 is 4 KiB")
	o.most, o.mostLeft, o.mostMore = limits{}, limits{}, limits{}
	flag.Func("most", "fail if a connection costs more after a collection: SERVER=KIB, may be repeated", o.most.parse)
	flag.Func("most-left", "the same for the memory as the process leaves it", o.mostLeft.parse)
	flag.Func("most-more", "fail if a connection costs more than that above the server with -deflate none, after a collection", o.mostMore.parse)
	flag.StringVar(&o.md, "md", "", "write the tables as Markdown to this file")
	flag.Parse()
	err := child.Pin(*clientCPU)
	if err == nil {
		err = o.choose(strings.Split(*servers, ","), strings.Split(*deflate, ","))
	}
	if err == nil {
		err = run(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "idle:", err)
		os.Exit(1)
	}
}

func (m messages) String() string {
	if m.each == 1 {
		return "one echo"
	}
	return fmt.Sprintf("%d echoes of %d B", m.each, len(m.payloads[0]))
}

// The ways to use permessage-deflate. With takeover each side's messages refer
// to its earlier ones.
const (
	none       = "none"
	noTakeover = "no-takeover"
	takeover   = "takeover"
)

var ways = []string{none, noTakeover, takeover}

// choose makes a contender of each server for each way that it knows.
func (o *options) choose(servers, chosen []string) error {
	o.messages = messagesFor(chosen, o.bits)
	for _, name := range servers {
		s, err := echo.Find(name)
		if err != nil {
			return err
		}
		for _, way := range chosen {
			c := contender{name, s.Raw, echo.Config{Server: name, RawMessage: load.FrameSize(len(o.messages.payloads[0]))}}
			switch way {
			case none:
			case noTakeover:
				c.Deflate = s.Deflates
			case takeover:
				// What a server can't bound isn't comparable.
				c.Deflate = s.Takeover && (s.Windows || o.bits == 15)
				c.Takeover, c.WindowBits = true, o.bits
			default:
				return fmt.Errorf("-deflate %s: want some of %s", way, strings.Join(ways, ", "))
			}
			if way != none {
				c.name += "-" + way
			}
			if way == none || c.Deflate {
				o.servers = append(o.servers, c)
			}
		}
	}
	return nil
}

// messagesFor are one of 125 bytes where nothing is compressed, and else
// documents that differ, as many as fill the window and one more: what was
// allocated for them counts for every way.
func messagesFor(ways []string, bits int) messages {
	if slices.Equal(ways, []string{none}) {
		return messages{[][]byte{[]byte(strings.Repeat("idle....", 16)[:125])}, 1}
	}
	const size = 1 << 10
	n := (1<<bits+size-1)/size + 1
	return messages{load.Documents(2*n, size), n}
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
	for _, r := range all {
		r.findPlain(all)
	}
	return errors.Join(o.print(all),
		o.most.check(all, "after a collection", func(r *result) float64 { return r.per(r.tidy.rss) }),
		o.mostLeft.check(all, "as the process leaves it", func(r *result) float64 { return r.per(r.asIs) }),
		o.mostMore.check(all, "more than without compression", (*result).more))
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
	r := &result{name: s.name, server: s.Server, conns: o.conns}
	if r.empty, err = tidyMemory(srv); err != nil {
		return nil, err
	}
	l := o.load(s, srv.Addr)
	defer l.Close()
	if err := l.Open(); err != nil {
		return nil, err
	}
	for range o.messages.each { // one on each connection
		if err := l.Warm(o.conns); err != nil {
			return nil, err
		}
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

// load is the clients of one server.
func (o *options) load(s contender, addr string) *load.Load {
	return &load.Load{
		Addr: addr, Conns: o.conns, Payloads: o.messages.payloads, Sources: 8, Raw: s.raw,
		Deflate: s.Deflate, Takeover: s.Takeover, Bits: s.WindowBits,
	}
}
