package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/rawws/websocket/internal/peers/internal/report"
)

// What may stay behind: the runtime keeps what describes a goroutine, to use it
// again, and the library its few compressors, 1.2 MiB each.
const (
	heapPerGoroutine = 600
	heapSlack        = 5 << 20
)

// report prints the summary and returns an error if anything was wrong.
func (s *soak) report(f *final) error {
	count := report.Count
	fmt.Printf("\n%s connections, at most %s at a time:", count(s.opened.Load()), count(int64(s.most)))
	for _, e := range slices.Sorted(maps.Keys(s.lives)) {
		fmt.Printf(" %s %s,", count(int64(s.lives[e])), e)
	}
	fmt.Printf(" %s of them slow and steady readers", count(s.steady.Load()))
	fmt.Printf("\n%s messages sent, %s received, %s, each held against the ledger\n",
		count(s.sent.Load()), count(s.received.Load()), report.Bytes(float64(s.bytes.Load())))
	for i, st := range f.Stats {
		fmt.Printf("%s: %s accepted, %s in, %s out, %s pings, %d write stalls, %d panics, %d dropped, %d open\n", servers[i].name,
			count(int64(st.Accepted)), count(int64(st.MessagesIn)), count(int64(st.MessagesOut)), count(int64(st.PingsOut)),
			st.WriteStalls, st.Panics, st.Dropped, st.Open)
	}
	fmt.Printf("Shutdown took %v\n", f.Shutdown)
	fmt.Printf("the server's process, before and after: goroutines %d, %d (at most %s); descriptors %d, %d; heap %s, %s; RSS at most %s\n",
		f.Before.Goroutines, f.After.Goroutines, count(int64(f.Goroutines)), f.Before.Descriptors, f.After.Descriptors,
		report.Bytes(float64(f.Before.Heap)), report.Bytes(float64(f.After.Heap)), report.Bytes(float64(s.peakRSS)))
	err := errors.Join(s.checkEnd(f), s.checkFaults())
	if err == nil {
		fmt.Println("0 lost, doubled, reordered or altered; no leak")
	}
	return err
}

func (s *soak) checkFaults() error {
	n := s.faulty.Load()
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%d faults; -seed %d repeats it", n, s.seed)
}

func (s *soak) checkEnd(f *final) error {
	var failed []error
	if f.After.Goroutines > f.Before.Goroutines {
		failed = append(failed, fmt.Errorf("%d goroutines leaked:\n%s", f.After.Goroutines-f.Before.Goroutines, strings.TrimSpace(f.StillGoroutines)))
	}
	if f.After.Descriptors > f.Before.Descriptors {
		failed = append(failed, fmt.Errorf("%d descriptors leaked", f.After.Descriptors-f.Before.Descriptors))
	}
	if limit := f.Before.Heap + int64(f.Goroutines)*heapPerGoroutine + heapSlack; f.After.Heap > limit {
		failed = append(failed, fmt.Errorf("the heap has %s, want at most %s", report.Bytes(float64(f.After.Heap)), report.Bytes(float64(limit))))
	}
	for i, st := range f.Stats {
		if st.Open != 0 {
			failed = append(failed, fmt.Errorf("%s: %d connections are still counted as open", servers[i].name, st.Open))
		}
	}
	return errors.Join(failed...)
}
