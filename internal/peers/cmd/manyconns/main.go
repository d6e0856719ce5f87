// Command manyconns holds more connections on one address and one port than a
// port number has values. A connection is named by both ends' addresses and
// ports, so the server's port is no limit: descriptors and memory are. Several
// processes of the echo example share the port by SO_REUSEPORT, because one
// may have fewer descriptors than this needs; several processes connect from
// several loopback addresses, because one has some 28,000 ports for one
// destination. At the end every connection echoes.
//
//	go run ./cmd/manyconns -conns 80000
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/rawws/websocket/internal/peers/internal/child"
	"github.com/rawws/websocket/internal/peers/internal/example"
	"github.com/rawws/websocket/internal/peers/internal/report"
)

type options struct {
	conns   int
	servers int
	clients int
	sources int
	wait    time.Duration
}

func main() {
	child.Register(clientRole, runClient)
	child.Main()
	o := &options{}
	flag.IntVar(&o.conns, "conns", 80000, "connections in all")
	flag.IntVar(&o.servers, "servers", 5, "processes that serve the port")
	flag.IntVar(&o.clients, "clients", 5, "processes that connect")
	flag.IntVar(&o.sources, "sources", 8, "loopback addresses that they connect from, 127.0.0.2 the first")
	flag.DurationVar(&o.wait, "wait", 10*time.Second, "silence before the memory is read")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "manyconns:", err)
		os.Exit(1)
	}
}

// A crowd is all the processes of a run.
type crowd struct {
	servers []*example.Process
	empty   []int64 // their memory before the first connection
	clients []*child.Process
}

func (c *crowd) stop() {
	for _, p := range c.clients {
		p.Stop()
	}
	for _, p := range c.servers {
		p.Kill()
	}
}

func run(o *options) error {
	binary, dir, err := example.Build()
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	c := &crowd{}
	defer c.stop()
	if err := c.serve(o, binary); err != nil {
		return err
	}
	before, err := child.Kernel()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := c.connect(o); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "%s connections open after %s; %s of silence\n",
		report.Count(int64(o.conns)), report.Duration(time.Since(began)), o.wait)
	time.Sleep(o.wait)
	t, held, err := c.table(o)
	if err != nil {
		return err
	}
	after, err := child.Kernel()
	if err != nil {
		return err
	}
	began = time.Now()
	if err := c.echo(); err != nil {
		return err
	}
	t.Notes = append(t.Notes,
		fmt.Sprintf("All %s connections to %s were alive at the end: each echoed a message, every byte compared, all within %s.",
			report.Count(int64(o.conns)), c.servers[0].Addr, report.Duration(time.Since(began))))
	t.Notes = append(t.Notes, kernelNotes(o, before, after)...)
	t.Text(os.Stdout)
	if held < o.conns {
		return fmt.Errorf("the servers hold %d connections of %d", held, o.conns)
	}
	return nil
}

// serve starts the servers; the first one chooses the port.
func (c *crowd) serve(o *options, binary string) error {
	addr := "127.0.0.1:0"
	for range o.servers {
		p, err := example.Start(binary, "-quiet", "-reuseport", "-addr", addr)
		if err != nil {
			return err
		}
		c.servers = append(c.servers, p)
		addr = p.Addr
		rss, err := p.RSS()
		if err != nil {
			return err
		}
		c.empty = append(c.empty, rss)
	}
	return nil
}

// connect starts the clients, all of which connect at the same time.
func (c *crowd) connect(o *options) error {
	for i := range o.clients {
		conns := o.conns * (i + 1) / o.clients
		conns -= o.conns * i / o.clients
		p, err := child.Start(clientRole, -1, clientConfig{c.servers[0].Addr, conns, o.sources})
		if err != nil {
			return err
		}
		c.clients = append(c.clients, p)
	}
	return c.hear()
}

// echo lets each connection of each client echo.
func (c *crowd) echo() error {
	for _, p := range c.clients {
		if err := p.Tell("echo"); err != nil {
			return err
		}
	}
	return c.hear()
}

func (c *crowd) hear() error {
	var failed error
	for i, p := range c.clients {
		var answer string
		if err := p.Hear(&answer); err != nil {
			return err
		}
		if answer != "" {
			failed = errors.Join(failed, fmt.Errorf("client %d: %s", i, answer))
		}
	}
	return failed
}

// table reads what each server holds.
func (c *crowd) table(o *options) (t *report.Table, held int, err error) {
	t = &report.Table{
		Title:   fmt.Sprintf("%s connections on %s at the same time", report.Count(int64(o.conns)), c.servers[0].Addr),
		Columns: []string{"server process", "connections", "RSS", "RSS/connection"},
	}
	var total int64
	for i, p := range c.servers {
		n, err := p.Sockets()
		if err != nil {
			return nil, 0, err
		}
		rss, err := p.RSS()
		if err != nil {
			return nil, 0, err
		}
		n-- // the listener
		grown := rss - c.empty[i]
		t.Add(fmt.Sprint(p.PID), report.Count(int64(n)), report.Bytes(float64(rss)), report.Bytes(float64(grown)/float64(max(n, 1))))
		held += n
		total += grown
	}
	t.Add("together", report.Count(int64(held)), "", report.Bytes(float64(total)/float64(held)))
	return t, held, nil
}

func kernelNotes(o *options, before, after child.KernelMemory) []string {
	per := func(n int64) string { return report.Bytes(float64(n) / float64(o.conns)) }
	return []string{
		fmt.Sprintf("The kernel, for both ends of each connection: slab %s (%s a connection), socket buffers %s, "+
			"available memory down by %s (%s a connection, all processes included).",
			report.Bytes(float64(after.Slab-before.Slab)), per(after.Slab-before.Slab),
			report.Bytes(float64(after.Socket-before.Socket)),
			report.Bytes(float64(before.Free-after.Free)), per(before.Free-after.Free)),
		fmt.Sprintf("%d client processes on %d loopback addresses. RSS is anonymous memory over that of the empty process, as it left it by itself. %s; %s.",
			o.clients, o.sources, child.Machine(), time.Now().UTC().Format("2 January 2006")),
	}
}
