// Command drain presses Ctrl-C: it runs the echo example, connects many
// clients, some of which are talking and some quiet, interrupts the process,
// and looks how each client's connection ends and how long the process takes.
//
//	go run ./cmd/drain -conns 5000
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/rawws/websocket/internal/peers/internal/example"
	"github.com/rawws/websocket/internal/peers/internal/load"
	"github.com/rawws/websocket/internal/peers/internal/report"
)

type options struct {
	conns   int
	talking int
	stuck   int
	wait    time.Duration
	limit   time.Duration
	args    string
}

// closeTimeout is the library's default, which the example has.
const closeTimeout = 5 * time.Second

func main() {
	o := &options{}
	flag.IntVar(&o.conns, "conns", 5000, "connections")
	flag.IntVar(&o.talking, "talking", 500, "how many of them echo all the time; the others are quiet")
	flag.IntVar(&o.stuck, "stuck", 0, "so many more that never answer: the server has to cut them after its CloseTimeout")
	flag.DurationVar(&o.wait, "wait", 8*time.Second, "how long before the Ctrl-C")
	flag.DurationVar(&o.limit, "limit", time.Second, "how long the process may take to end, beside CloseTimeout when some are stuck")
	flag.StringVar(&o.args, "args", "", "more flags for the echo example, parted by spaces")
	flag.Parse()
	if o.stuck > 0 {
		o.limit += closeTimeout
	}
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "drain:", err)
		os.Exit(1)
	}
}

func run(o *options) error {
	binary, dir, err := example.Build()
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	server, err := example.Start(binary, append([]string{"-quiet", "-addr", "127.0.0.1:0"}, strings.Fields(o.args)...)...)
	if err != nil {
		return err
	}
	defer server.Kill()
	c := &clients{addr: server.Addr}
	if err := c.connect(o); err != nil {
		return err
	}
	time.Sleep(o.wait)
	c.interrupted = time.Now()
	if err := server.Interrupt(); err != nil {
		return err
	}
	log, err := server.Wait(o.limit + 30*time.Second)
	took := time.Since(c.interrupted)
	c.stop()
	if err != nil {
		return fmt.Errorf("the echo example ended with %w: %s", err, strings.Join(log, "\n"))
	}
	return c.report(o, took)
}

// report prints what became of the clients.
func (c *clients) report(o *options, took time.Duration) error {
	var at load.Hist
	first := took
	for _, e := range c.ends {
		if e.code == 1001 {
			at.Add(e.told)
			first = min(first, e.told)
		}
	}
	at.Seal()
	fmt.Printf("Ctrl-C with %s clients, %s of them talking, %s more that never answer\n",
		report.Count(int64(o.conns)), report.Count(int64(o.talking)), report.Count(int64(o.stuck)))
	fmt.Printf("%s read 1001: the first after %s, half of them after %s, the last after %s\n", report.Count(int64(at.Count)),
		report.Duration(first), report.Duration(at.Quantile(0.5)), report.Duration(at.Max))
	fmt.Printf("the process ended after %s\n", report.Duration(took))
	var wrong []string
	for _, e := range c.ends {
		if e.wrong != "" {
			wrong = append(wrong, e.wrong)
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%d of %d connections didn't end with 1001 and the stream's end; the first: %s", len(wrong), o.conns, wrong[0])
	}
	fmt.Println("none was reset or cut short; every echo came in its order")
	if took > o.limit {
		return fmt.Errorf("the process took %v to end, want at most %v", took, o.limit)
	}
	return nil
}
