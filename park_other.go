//go:build !linux || nopark

package websocket

// A parker does nothing here: an idle connection keeps its goroutine. The tag
// nopark shows on Linux what other systems do.
type parker struct{}

const canPark = false

func (p *parker) close()     {}
func (p *parker) count() int { return 0 }

func (c *Conn) park() bool     { return false }
func (c *Conn) unpark()        {}
func (c *Conn) stay()          {}
func (c *Conn) isParked() bool { return false }
