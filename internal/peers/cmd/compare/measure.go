package main

import (
	"fmt"
	"time"

	"github.com/rawws/websocket/internal/peers/internal/echo"
	"github.com/rawws/websocket/internal/peers/internal/load"
)

// A sample is one server under one workload in one round.
type sample struct {
	CPU  time.Duration // of the server, per message
	Wall time.Duration // per message
	P50  time.Duration
	P99  time.Duration
	P999 time.Duration
	Max  time.Duration
}

// bench holds what is the same for all measurements.
type bench struct {
	serverCPU int
	procs     int
	spin      bool
	scale     float64
	bits      int // of the windows, with context takeover
}

func (b *bench) config(s echo.Server, w workload) echo.Config {
	cfg := echo.Config{Server: s.Name, Procs: b.procs, Deflate: w.Deflate, Takeover: w.Takeover, WindowBits: b.bits, Validate: w.Text && !w.Deflate}
	// Compressed messages differ in length, and an upgrade has another one.
	if !w.Deflate && !w.Upgrades {
		cfg.RawMessage = load.FrameSize(len(w.Payloads()[0]))
	}
	return cfg
}

func (b *bench) load(s echo.Server, w workload, addr string) *load.Load {
	l := &load.Load{
		Addr: addr, Conns: w.Conns, Pipeline: w.Pipeline, Text: w.Text, Raw: s.Raw,
		Deflate: w.Deflate, Takeover: w.Takeover, Bits: b.bits, Spin: b.spin, Sources: w.Sources,
	}
	if w.Payloads != nil {
		l.Payloads = w.Payloads()
	}
	return l
}

func (b *bench) messages(w workload) int {
	return max(int(float64(w.Messages)*b.scale), w.Conns*max(w.Pipeline, 1))
}

// warmUp is a tenth of the messages. With context takeover the windows are full
// then, so that a short run costs what a long one does.
func (b *bench) warmUp(w workload) int {
	each := max(w.Pipeline, 1)
	if w.Takeover {
		each = (1<<b.bits)/len(w.Payloads()[0]) + 1
	}
	return max(b.messages(w)/10, w.Conns*each)
}

// measure starts a fresh server, warms it up, every answer compared byte by
// byte, and measures.
func (b *bench) measure(s echo.Server, w workload) (sample, error) {
	srv, err := echo.Start(b.config(s, w), b.serverCPU)
	if err != nil {
		return sample{}, err
	}
	defer srv.Stop()
	l := b.load(s, w, srv.Addr)
	run, warm := l.Run, l.Warm
	if w.Upgrades {
		run = l.Handshakes
		warm = func(n int) error { _, err := l.Handshakes(n); return err }
	} else {
		defer l.Close()
		if err := l.Open(); err != nil {
			return sample{}, err
		}
	}
	n := b.messages(w)
	if err := warm(b.warmUp(w)); err != nil {
		return sample{}, fmt.Errorf("warm-up: %w", err)
	}
	before, err := srv.CPUTime()
	if err != nil {
		return sample{}, err
	}
	r, err := run(n)
	if err != nil {
		return sample{}, err
	}
	// What the server does behind the last answer belongs to it.
	time.Sleep(5 * time.Millisecond)
	after, err := srv.CPUTime()
	if err != nil {
		return sample{}, err
	}
	per := func(d time.Duration) time.Duration { return d / time.Duration(n) }
	return sample{
		CPU: per(after - before), Wall: per(r.Elapsed),
		P50: r.Latency.Quantile(0.5), P99: r.Latency.Quantile(0.99), P999: r.Latency.Quantile(0.999), Max: r.Latency.Max,
	}, nil
}
