package main

import (
	"encoding/json"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rawws/websocket/internal/peers/internal/child"
)

const ceilingRole = "sleep"

func init() { child.Register(ceilingRole, sleepOnly) }

type ceilingConfig struct {
	Goroutines   int
	Sleep, While time.Duration
}

// sleepOnly is what a server would do if reading, writing and the client took no
// time: as many goroutines as there are connections sleep, again and again.
func sleepOnly(config json.RawMessage, link *child.Link) error {
	var cfg ceilingConfig
	if err := json.Unmarshal(config, &cfg); err != nil {
		return err
	}
	var sleeps atomic.Int64
	var all sync.WaitGroup
	began := time.Now()
	for range cfg.Goroutines {
		all.Go(func() {
			for time.Since(began) < cfg.While {
				time.Sleep(cfg.Sleep)
				sleeps.Add(1)
			}
		})
	}
	all.Wait()
	return link.Answer(float64(sleeps.Load()) / time.Since(began).Seconds())
}

// ceiling returns the sleeps in a second of such goroutines, in a process that is
// pinned as a server is.
func (o *options) ceiling(c cell) (float64, error) {
	p, err := child.StartOn(ceilingRole, o.serverCPU, 1, ceilingConfig{c.conns, c.sleep, o.during})
	if err != nil {
		return 0, err
	}
	defer p.Stop()
	var rate float64
	err = p.Hear(&rate)
	return rate, err
}
