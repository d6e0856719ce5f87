//go:build linux && !noloop

package netloop

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

// The clients of BenchmarkWorstAnswer are a process of their own, so that nothing
// but the loop runs on the server's processor: this test binary once more.
const clientsOf = "NETLOOP_CLIENTS_OF"

func TestMain(m *testing.M) {
	if addr := os.Getenv(clientsOf); addr != "" {
		if err := runClients(addr); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

const worstConns = 100

// runClients has each of the clients ask again as soon as it is answered, and
// prints the 99th percentile of the answers' times and the longest, in
// nanoseconds. Each says how many it asks for by os.Args.
func runClients(addr string) error {
	rounds, err := strconv.Atoi(os.Args[1])
	if err != nil {
		return err
	}
	took := make([][]time.Duration, worstConns)
	conns := make([]net.Conn, worstConns)
	for i := range conns {
		if conns[i], err = net.Dial("tcp", addr); err != nil {
			return err
		}
		took[i] = make([]time.Duration, 0, rounds)
	}
	var all sync.WaitGroup
	for i, nc := range conns {
		all.Go(func() {
			b := make([]byte, 125)
			for range rounds {
				began := time.Now()
				if _, failed := nc.Write(b); failed != nil {
					return
				}
				if _, failed := io.ReadFull(nc, b); failed != nil {
					return
				}
				took[i] = append(took[i], time.Since(began))
			}
		})
	}
	all.Wait()
	every := slices.Concat(took...)
	if len(every) != worstConns*rounds {
		return fmt.Errorf("%d answers, want %d", len(every), worstConns*rounds)
	}
	slices.Sort(every)
	fmt.Println(int64(every[len(every)*99/100]), int64(every[len(every)-1]))
	return nil
}

// BenchmarkWorstAnswer shows whether the runtime takes the processor from a worker
// that has an event in hand, which then lies in its global queue: one of many
// answers comes 30 to 270 ms late, while the 99th percentile knows nothing of it.
// It needs a second processor for the clients, and as many answers as fill some
// seconds: -benchtime 500000x.
func BenchmarkWorstAnswer(b *testing.B) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	e := serveEcho(b, "tcp")
	rounds := max(b.N/worstConns, 1)
	clients := exec.Command(os.Args[0], strconv.Itoa(rounds))
	clients.Env = append(os.Environ(), clientsOf+"="+e.ln.Addr().String(), "GOMAXPROCS=1")
	clients.Stderr = os.Stderr
	out, err := clients.Output()
	if err != nil {
		b.Fatal(err)
	}
	var p99, worst int64
	if _, err := fmt.Sscan(string(out), &p99, &worst); err != nil {
		b.Fatalf("the clients printed %q: %v", out, err)
	}
	b.ReportMetric(float64(p99)/1e6, "p99-ms")
	b.ReportMetric(float64(worst)/1e6, "worst-ms")
	eventually(b, "all clients have gone", func() bool { return e.open.Load() == 0 })
}
