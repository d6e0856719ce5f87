package main

import (
	"fmt"
	"sync"
	"time"
)

// members opens n connections that read as fast as they can.
func (b *bench) members(n int) ([]*client, error) {
	if err := b.start(); err != nil {
		return nil, err
	}
	all := make([]*client, n)
	for i := range all {
		c, err := b.dial(0, 0)
		if err != nil {
			return nil, err
		}
		all[i] = c
	}
	return all, nil
}

// together runs f for all clients and returns the first error.
func together(all []*client, f func(c *client) error) error {
	failed := make(chan error, len(all))
	for _, c := range all {
		go func() { failed <- f(c) }()
	}
	var first error
	for range all {
		if err := <-failed; err != nil && first == nil {
			first = err
		}
	}
	return first
}

// joined lets everybody who connects into a room, and returns when n are in it.
func (b *bench) joined(r room, n int) *sync.WaitGroup {
	var in sync.WaitGroup
	in.Add(n)
	b.open = func(c conn) { r.Join(c); in.Done() }
	return &in
}

func roomMessage(b *bench) error {
	const n, size = 20, 1 << 20
	r := b.subject.room()
	in := b.joined(r, n)
	b.message = func(_ conn, p []byte) { r.Broadcast(p) }
	all, err := b.members(n)
	if err != nil {
		return err
	}
	in.Wait()
	if err := all[0].say(numbered(size, 0)); err != nil {
		return err
	}
	return together(all, func(c *client) error {
		if err := c.readUntil(0, size, 20*time.Second); err != nil {
			return err
		}
		return c.readFor(2 * time.Second)
	})
}

// stuckMember broadcasts more than the queue and the buffers hold.
func stuckMember(b *bench) error {
	const n, messages, size = 30, 200, 64 << 10
	r := b.subject.room()
	in := b.joined(r, n)
	all, err := b.members(n - 1)
	if err != nil {
		return err
	}
	if _, err := b.dial(1, 4<<10); err != nil {
		return err
	}
	in.Wait()
	var mu sync.Mutex // guards written, latest
	written, latest := make([]time.Time, messages), time.Duration(0)
	go func() {
		for seq := range written {
			p := numbered(size, uint64(seq))
			mu.Lock()
			written[seq] = time.Now()
			mu.Unlock()
			r.Broadcast(p)
			time.Sleep(50 * time.Millisecond)
		}
	}()
	err = together(all, func(c *client) error {
		for seq := range written {
			if err := c.readUntil(uint64(seq), size, 10*time.Second); err != nil {
				return err
			}
			mu.Lock()
			latest = max(latest, time.Since(written[seq]))
			mu.Unlock()
		}
		return nil
	})
	if err != nil {
		return err
	}
	if latest > 2*time.Second {
		return fmt.Errorf("a message came after %s", seconds(latest))
	}
	return b.cutWith(1008, 20*time.Second)
}

// dashboard sends values of which only the newest counts, to a client that
// sleeps, and stops when it wakes: the last one has to come.
func dashboard(b *bench) error {
	stop, last := make(chan struct{}), make(chan uint64, 1)
	b.open = func(c conn) { go func() { last <- produce(c, 2*time.Millisecond, stop) }() }
	c, err := b.connect(0, 16<<10)
	if err != nil {
		close(stop)
		return err
	}
	c.gaps = true
	time.Sleep(4 * time.Second)
	close(stop)
	newest := <-last - 1
	if err := c.readFor(time.Second); err != nil {
		return err
	}
	if c.last != newest {
		return fmt.Errorf("value %d came last, %d is the newest", c.last, newest)
	}
	return nil
}
