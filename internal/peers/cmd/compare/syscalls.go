package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rawws/websocket/internal/peers/internal/echo"
)

// calls is what strace counted.
type calls struct {
	perMessage float64
	detail     string // the most frequent ones
}

// countCalls repeats a part of the workload under strace, whose slowness only
// the CPU time would notice.
func (b *bench) countCalls(s echo.Server, w workload) (*calls, error) {
	if w.Upgrades {
		return &calls{detail: "not counted"}, nil
	}
	srv, err := echo.Start(b.config(s, w), b.serverCPU)
	if err != nil {
		return nil, err
	}
	defer srv.Stop()
	l := b.load(s, w, srv.Addr)
	defer l.Close()
	if err := l.Open(); err != nil {
		return nil, err
	}
	n := max(w.Messages/50, 4*w.Conns*max(w.Pipeline, 1))
	if err := l.Warm(n); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "syscalls")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "summary")
	strace := exec.Command("strace", "-c", "-f", "-o", file, "-p", strconv.Itoa(srv.PID))
	if err := strace.Start(); err != nil {
		return nil, err
	}
	runErr := awaitTracer(srv.PID)
	if runErr == nil {
		_, runErr = l.Run(n)
	}
	strace.Process.Signal(os.Interrupt)
	strace.Wait() // ends by the signal, which isn't an error here
	if runErr != nil {
		return nil, runErr
	}
	return parseSummary(file, n)
}

// awaitTracer returns when every thread of the process is traced.
func awaitTracer(pid int) error {
	for range 500 {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
		if err != nil {
			return err
		}
		traced := !slices.ContainsFunc(tasks, func(f string) bool {
			b, err := os.ReadFile(f)
			return err != nil || strings.Contains(string(b), "TracerPid:\t0\n")
		})
		if traced && len(tasks) > 0 {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return errors.New("strace didn't attach within 5 s")
}

func parseSummary(file string, n int) (*calls, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	type count struct {
		name string
		n    int
	}
	var counts []count
	total := 0
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		// The runtime's monitor thread sleeps by time, not by message.
		if len(f) < 5 || f[len(f)-1] == "total" || f[len(f)-1] == "nanosleep" {
			continue
		}
		if k, err := strconv.Atoi(f[3]); err == nil {
			counts = append(counts, count{f[len(f)-1], k})
			total += k
		}
	}
	if total == 0 {
		return nil, fmt.Errorf("strace counted nothing: %q", b)
	}
	slices.SortFunc(counts, func(a, b count) int { return cmp.Compare(b.n, a.n) })
	var detail []string
	for _, c := range counts[:min(4, len(counts))] {
		detail = append(detail, fmt.Sprintf("%s %.2f", c.name, float64(c.n)/float64(n)))
	}
	return &calls{float64(total) / float64(n), strings.Join(detail, ", ")}, nil
}
