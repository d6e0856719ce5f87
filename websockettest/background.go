package websockettest

import (
	"os"
	"sync"
	"time"
)

// ReadInBackground reads from here on whether or not a method waits, as a
// browser does: pings and the close frame are answered at once, and messages
// are kept for the methods that want them. ReadFrame isn't called any more.
func (c *Client) ReadInBackground() {
	if c.ahead != nil {
		return
	}
	a := new(readAhead)
	a.changed = sync.NewCond(&a.mu)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			f, err := c.receive(time.Time{})
			a.add(f, err)
			if err != nil {
				return
			}
		}
	}()
	c.ahead = a
	c.t.Cleanup(func() {
		c.nc.Close()
		<-done
	})
}

// A readAhead is what was read and no method has wanted yet.
type readAhead struct {
	mu      sync.Mutex // guards the rest
	changed *sync.Cond
	frames  []Frame
	err     error // behind them
}

func (a *readAhead) add(f Frame, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err = err; err == nil {
		a.frames = append(a.frames, f)
	}
	a.changed.Broadcast()
}

func (a *readAhead) next(until time.Time) (Frame, error) {
	t := time.AfterFunc(time.Until(until), func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.changed.Broadcast()
	})
	defer t.Stop()
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		switch {
		case len(a.frames) > 0:
			f := a.frames[0]
			a.frames = a.frames[1:]
			return f, nil
		case a.err != nil:
			return Frame{}, a.err
		case !time.Now().Before(until):
			return Frame{}, os.ErrDeadlineExceeded
		}
		a.changed.Wait()
	}
}
