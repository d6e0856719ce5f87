// Command soak lets many clients come, go, stall, reset and misbehave at
// random against servers of the library in a process of their own, while a
// ledger of every message, with its connection, its number and its checksum,
// shows whether one that was acknowledged is lost, doubled, reordered or
// altered. A tenth of them do nothing but read slowly and steadily, and are to
// get everything. In the end the servers are shut down in the middle of it all, and
// their process must be as it was before.
//
//	go run ./cmd/soak -dur 60s -conns 5000
//
// A connection does what its number and the seed say: -seed and -id repeat it.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rawws/websocket/internal/peers/internal/child"
	"github.com/rawws/websocket/internal/peers/internal/ledger"
)

func main() {
	child.Register(serverRole, runServer)
	child.Main()
	s := &soak{records: map[uint32]chan *record{}}
	flag.Uint64Var(&s.seed, "seed", uint64(time.Now().Unix()), "of everything that is random")
	flag.DurationVar(&s.duration, "dur", time.Minute, "how long clients come; then the server is shut down")
	flag.IntVar(&s.conns, "conns", 500, "clients at the same time")
	flag.IntVar(&s.only, "id", -1, "only this connection, over and over")
	flag.Parse()
	if err := s.run(); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// A soak is the clients' process.
type soak struct {
	seed     uint64
	duration time.Duration
	conns    int
	only     int

	maker  *ledger.Maker
	addrs  []string
	server *child.Process
	ending atomic.Bool // Shutdown is about to begin
	last   atomic.Uint32

	mu      sync.Mutex // guards what follows
	records map[uint32]chan *record
	faults  []string
	now     int
	most    int
	lives   map[ending]int
	peakRSS int64

	opened, steady, sent, received, bytes, faulty atomic.Int64

	final chan *final
}

// expect waits for the server's record of a connection.
func (s *soak) expect(id uint32) <-chan *record {
	s.mu.Lock()
	defer s.mu.Unlock()
	came := make(chan *record, 1)
	s.records[id] = came
	return came
}

func (s *soak) forget(id uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.records, id)
}

// open counts the connections there are.
func (s *soak) open(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now += n
	s.most = max(s.most, s.now)
}

const faultsShown = 20

func (s *soak) fault(text string) {
	s.faulty.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.faults) < faultsShown {
		s.faults = append(s.faults, text)
		fmt.Fprintln(os.Stderr, "FAULT:", text)
	}
}

func (s *soak) run() error {
	s.maker = ledger.NewMaker(s.seed)
	s.lives = map[ending]int{}
	s.final = make(chan *final, 1)
	fmt.Printf("soak: seed %d, %d clients, %v\n", s.seed, s.conns, s.duration)
	var err error
	if s.server, err = child.Start(serverRole, -1, serverConfig{s.seed}); err != nil {
		return err
	}
	defer s.server.Stop()
	var first serverAnswer
	if err := s.server.Hear(&first); err != nil {
		return err
	}
	s.addrs = first.Addrs
	go s.hear()
	began := time.Now()
	var clients sync.WaitGroup
	for i := range s.conns {
		clients.Go(func() {
			time.Sleep(2 * time.Second * time.Duration(i) / time.Duration(s.conns))
			s.clientele()
		})
	}
	s.watch(began)
	s.ending.Store(true)
	if err := s.server.Tell("shutdown"); err != nil {
		return err
	}
	clients.Wait()
	select {
	case f := <-s.final:
		return s.report(f)
	case <-time.After(shutdownTimeout + 30*time.Second):
		return errors.New("the server's process didn't come to its end")
	}
}

// clientele is one client after the other.
func (s *soak) clientele() {
	for !s.ending.Load() {
		id := s.last.Add(1)
		if s.only >= 0 {
			id = uint32(s.only)
		}
		p := newPlan(s.seed, id)
		err := s.live(p)
		if err != nil {
			s.fault(fmt.Sprintf("%v: %v", p, err))
		}
		s.mu.Lock()
		s.lives[p.ending]++
		s.mu.Unlock()
	}
}

// hear takes what the server's process says.
func (s *soak) hear() {
	for {
		var a serverAnswer
		if err := s.server.Hear(&a); err != nil {
			if s.ending.Load() {
				return
			}
			s.fault(fmt.Sprintf("the server's process is gone: %v", err))
			os.Exit(1)
		}
		switch {
		case a.Fault != "":
			s.fault(a.Fault)
		case a.Final != nil:
			s.final <- a.Final
			return
		case a.Record != nil:
			s.record(a.Record)
		}
	}
}

func (s *soak) record(r *record) {
	s.mu.Lock()
	came := s.records[r.ID]
	s.mu.Unlock()
	select {
	case came <- r:
	default:
		if !s.ending.Load() { // then one whose client was refused may have got as far
			s.fault(fmt.Sprintf("connection %d ended at the server, which no client waits for: %s", r.ID, r.Error))
		}
	}
}

// watch lets the time pass, and prints how it goes.
func (s *soak) watch(began time.Time) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for i := 1; time.Since(began) < s.duration; i++ {
		<-t.C
		if rss, err := s.server.RSS(); err == nil {
			s.peakRSS = max(s.peakRSS, rss)
		}
		if i%10 == 0 {
			s.mu.Lock()
			now := s.now
			s.mu.Unlock()
			fmt.Printf("%4d s: %d connections open, %d so far, %d messages sent, %d received, %d faults\n",
				i, now, s.opened.Load(), s.sent.Load(), s.received.Load(), s.faulty.Load())
		}
	}
}
