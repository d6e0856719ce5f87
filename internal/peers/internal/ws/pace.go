package ws

import (
	"net"
	"time"
)

// A Pace says how much may be read now, for a client that reads slowly and
// steadily. The zero value holds nobody up.
type Pace struct {
	Rate int // bytes a second; 0 for as fast as it goes

	taken int
	since time.Time
}

// Wait returns how many of n bytes may be read, after waiting until they may:
// those of a fiftieth of a second at most, but one at least.
func (p *Pace) Wait(n int) int {
	if p.Rate == 0 {
		return n
	}
	if p.since.IsZero() {
		p.since = time.Now()
	}
	n = min(n, max(p.Rate/50, 1))
	time.Sleep(time.Until(p.since.Add(time.Duration(float64(p.taken+n) / float64(p.Rate) * float64(time.Second)))))
	return n
}

// Took counts what was read. Time in which nothing came isn't made up for.
func (p *Pace) Took(n int, waited time.Duration) {
	p.taken += n
	if waited > 100*time.Millisecond {
		p.since, p.taken = time.Now(), 0
	}
}

// A PacedConn reads at its pace.
type PacedConn struct {
	net.Conn
	Pace
}

func (c *PacedConn) Read(p []byte) (int, error) {
	n := c.Wait(len(p))
	began := time.Now()
	n, err := c.Conn.Read(p[:n])
	c.Took(n, time.Since(began))
	return n, err
}
