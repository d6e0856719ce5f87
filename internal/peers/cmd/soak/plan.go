package main

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/rawws/websocket/internal/peers/internal/ledger"
)

// An ending is how a connection is to end.
type ending string

const (
	endClose   ending = "close"    // the client does the closing handshake
	endFIN     ending = "fin"      // the client ends its stream behind a whole message
	endCut     ending = "cut"      // the client ends its stream inside a frame
	endReset   ending = "reset"    // the client resets, anywhere
	endBreak   ending = "break"    // the client breaks a rule
	endServer  ending = "server"   // the server does the closing handshake
	endNow     ending = "closenow" // the server cuts
	endPanic   ending = "panic"    // the handler panics
	endStuck   ending = "stuck"    // the client reads no more, and the server writes
	endSlow    ending = "slow"     // the client reads no more, and the server queues
	endSilent  ending = "silent"   // the client does nothing any more, not even answer pings
	endUpgrade ending = "upgrade"  // no upgrade: garbage, half a request, a stall
)

// weights are the parts of a hundred.
var weights = []struct {
	ending
	part int
}{
	{endClose, 38}, {endFIN, 9}, {endCut, 8}, {endReset, 14}, {endBreak, 10}, {endServer, 7},
	{endNow, 2}, {endPanic, 2}, {endStuck, 1}, {endSlow, 1}, {endSilent, 1}, {endUpgrade, 7},
}

// A plan is what both ends make of a connection's number, and so all that is
// to be known to repeat it.
type plan struct {
	id     uint32
	server int // an index of servers
	ending

	deflate   bool
	messages  uint32
	pace      time.Duration // the mean of the client's pauses
	closeCode int           // what the client closes with, 1005 for an empty frame
	rule      int           // an index of broken
	trickle   bool          // the client's writes go byte by byte, for a while
	stall     time.Duration // the client stops reading for so long, once
	steady    int           // the client reads so many bytes a second, 0 for as fast as it can

	// The server's part.
	endAfter  uint32 // messages, until it closes, cuts or panics
	pushes    uint32
	queued    uint32
	pushPace  time.Duration
	answer    int           // which way of writing the echo takes
	slow      time.Duration // the handler's time for a message, now and then
	elsewhere bool          // the end comes from a goroutine of its own
}

// newPlan makes the plan of a connection.
func newPlan(seed uint64, id uint32) *plan {
	r := rand.New(rand.NewPCG(seed, ledger.Mix(seed, uint64(id))))
	p := &plan{id: id, server: r.IntN(len(servers)), ending: pickEnding(r)}
	p.deflate = r.IntN(5) == 0
	p.messages = uint32(1 + r.IntN(1<<r.IntN(7)))
	p.pace = []time.Duration{0, time.Millisecond, 20 * time.Millisecond, 200 * time.Millisecond, 800 * time.Millisecond}[r.IntN(5)]
	p.closeCode = []int{1000, 1001, 1005, 3000, 4999}[r.IntN(5)]
	p.rule = r.IntN(len(broken))
	p.trickle = r.IntN(20) == 0
	if r.IntN(8) == 0 {
		p.stall = time.Duration(r.IntN(1500)) * time.Millisecond
	}
	p.endAfter = uint32(r.IntN(int(p.messages)))
	if r.IntN(3) == 0 {
		p.pushes = uint32(r.IntN(40))
	}
	if r.IntN(3) == 0 {
		p.queued = uint32(r.IntN(40))
	}
	p.pushPace = []time.Duration{0, 5 * time.Millisecond, 400 * time.Millisecond}[r.IntN(3)]
	p.answer = r.IntN(4)
	if r.IntN(20) == 0 {
		p.slow = 20 * time.Millisecond
	}
	p.elsewhere = r.IntN(2) == 0
	if r.IntN(100) < 15 { // a tenth, since only those have it who read to the end
		p.steady = 25_000 + r.IntN(100_000)
	}
	p.fit()
	return p
}

// fit makes the rest of the plan fit its ending.
func (p *plan) fit() {
	switch p.ending {
	case endStuck:
		p.pushes, p.queued, p.pushPace = flood, 0, 0
	case endSlow:
		p.pushes, p.queued, p.pushPace = 0, flood, 0
	case endPanic: // there is no handshake that would stop the client before the server stops reading
		p.messages = p.endAfter + 1
	case endFIN:
		if servers[p.server].tls { // whose end is an alert, not the stream's
			p.ending = endClose
		}
	}
	if !p.orderly() {
		p.steady = 0
	}
	if p.steady > 0 { // what it has to read is always more than it could
		p.pushes, p.pushPace = 150, 0
	}
	if p.deafens() {
		p.messages, p.pace = min(p.messages, 4), 0
	}
}

// deafens reports whether the client stops reading for good.
func (p *plan) deafens() bool {
	return p.ending == endStuck || p.ending == endSlow || p.ending == endSilent
}

// orderly reports whether the client stays and reads to the end, so that no
// reset may come between.
func (p *plan) orderly() bool {
	switch p.ending {
	case endClose, endFIN, endBreak, endServer, endPanic:
		return true
	}
	return false
}

func (p *plan) String() string {
	return fmt.Sprintf("connection %d (%s, %s, %d messages, pace %v, %d pushed, %d queued, every %v, deflate %t, reads %d B/s)",
		p.id, servers[p.server].name, p.ending, p.messages, p.pace, p.pushes, p.queued, p.pushPace, p.deflate, p.steady)
}

// flood is more than any socket and queue hold.
const flood = 1 << 30

func pickEnding(r *rand.Rand) ending {
	v := r.IntN(100)
	for _, w := range weights {
		if v -= w.part; v < 0 {
			return w.ending
		}
	}
	panic("the weights aren't a hundred")
}
