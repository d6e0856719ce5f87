package websocket

import (
	"sync/atomic"
	"time"
	"unsafe"
)

const countShards = 8

// counters are what connections count all the time. Each connection uses one
// shard of its registry's, so that cores don't fight over one cache line.
type counters struct {
	messagesIn, messagesOut  atomic.Uint64
	bytesIn, bytesOut        atomic.Uint64 // payload of messages
	pingsIn, pingsOut        atomic.Uint64
	pongsIn, pongsOut        atomic.Uint64
	dropped                  atomic.Uint64
	deflatedIn, inflatedIn   atomic.Uint64
	deflatedOut, inflatedOut atomic.Uint64
	_                        [24]byte // to two cache lines
}

// counters are those of c by where it lies, which takes no memory of its own: a
// Conn doesn't move, and its size class is a multiple of 128 bytes.
func (g *registry) counters(c *Conn) *counters {
	return &g.stat[uintptr(unsafe.Pointer(c))>>7%countShards]
}

// totals are what a connection counts once in its life or so.
type totals struct {
	accepted, failed    atomic.Uint64
	writeStalls, panics atomic.Uint64
	refused             [maxStatus - minStatus + 1]atomic.Uint64
	closes              [2][closeClasses]atomic.Uint64 // by Side
	rtt                 [rttBuckets]atomic.Uint64
	rttCount            atomic.Uint64
	rttSum              atomic.Int64
}

// The statuses that appendRefusal writes.
const minStatus, maxStatus = 300, 599

func (t *totals) refuse(e *HandshakeError) { t.refused[e.status()-minStatus].Add(1) }

// unaccept takes back the count of a connection whose 101 never left.
func (t *totals) unaccept(e *EndError) {
	t.accepted.Add(^uint64(0))
	by, class := e.class()
	t.closes[by][class].Add(^uint64(0))
}

// closeClasses are the codes from 1000 to 1015, those from 3000 to 3999 and
// those from 4000 to 4999. A peer that closes with 2,000 different codes must
// not make 2,000 counters.
const closeClasses = 18

func (t *totals) closed(e *EndError) {
	by, class := e.class()
	t.closes[by][class].Add(1)
}

// class returns where the end is counted.
func (e *EndError) class() (by Side, class int) {
	switch code := e.closeCode(); {
	case code >= 4000:
		return e.By, 17
	case code >= 3000:
		return e.By, 16
	default:
		return e.By, int(code - CloseNormal)
	}
}

func classCode(class int) CloseCode {
	if class >= 16 {
		return CloseCode(1000 * (class - 13))
	}
	return CloseNormal + CloseCode(class)
}

// rttBuckets bounds of round trips from 250 us to 16 s, doubling.
const (
	rttBuckets  = 17
	rttSmallest = 250 * time.Microsecond
)

func (t *totals) answered(rtt time.Duration) {
	t.rttCount.Add(1)
	t.rttSum.Add(int64(rtt))
	for i := range t.rtt {
		if rtt <= rttSmallest<<i {
			t.rtt[i].Add(1)
			return
		}
	}
}

// Stats are a Server's counters since it began. They are read one after the
// other while the server goes on, so they needn't fit each other to the last
// message. They marshal to JSON as they are.
type Stats struct {
	Open        int // connections now
	Handshaking int // sockets between accept and the 101
	HTTP        int // sockets that Server.HTTP has

	Accepted uint64         // upgrades answered with 101
	Refused  map[int]uint64 // upgrades refused, by the status of the answer
	Failed   uint64         // handshakes that ended without an answer: stalled, cut, or no TLS agreed on

	MessagesIn, MessagesOut uint64 // whole messages
	BytesIn, BytesOut       uint64 // payload of messages, inflated
	PingsIn, PingsOut       uint64
	PongsIn, PongsOut       uint64
	RTT                     RTTStats

	// ClosedByServer and ClosedByPeer count the ends by who began them (see
	// EndError.By) and by code: that of the close frame which began the end,
	// or 1006 without one. 3000 stands for all codes from 3000 to 3999, 4000
	// for those from 4000 to 4999.
	ClosedByServer, ClosedByPeer map[CloseCode]uint64

	WriteStalls uint64 // connections cut because the peer took nothing of a write for WriteTimeout
	Panics      uint64 // of handlers and callbacks
	Dropped     uint64 // messages that found a send queue full

	// What permessage-deflate did to the messages that were compressed: bytes
	// on the wire, and what they stand for.
	DeflatedIn, InflatedIn   uint64
	DeflatedOut, InflatedOut uint64
}

// RTTStats are the round trips of the keep-alive pings.
type RTTStats struct {
	Count   uint64
	Sum     time.Duration
	Buckets [rttBuckets]uint64 // the i-th counts those of up to 250 us << i that no smaller one holds
}

func (g *registry) stats() Stats {
	t := &g.total
	s := Stats{
		Open:     g.count(),
		Accepted: t.accepted.Load(), Failed: t.failed.Load(), Refused: make(map[int]uint64),
		ClosedByServer: make(map[CloseCode]uint64), ClosedByPeer: make(map[CloseCode]uint64),
		WriteStalls: t.writeStalls.Load(), Panics: t.panics.Load(),
		RTT: RTTStats{Count: t.rttCount.Load(), Sum: time.Duration(t.rttSum.Load())},
	}
	for i := range g.stat {
		n := &g.stat[i]
		s.MessagesIn += n.messagesIn.Load()
		s.MessagesOut += n.messagesOut.Load()
		s.BytesIn += n.bytesIn.Load()
		s.BytesOut += n.bytesOut.Load()
		s.PingsIn += n.pingsIn.Load()
		s.PingsOut += n.pingsOut.Load()
		s.PongsIn += n.pongsIn.Load()
		s.PongsOut += n.pongsOut.Load()
		s.Dropped += n.dropped.Load()
		s.DeflatedIn += n.deflatedIn.Load()
		s.InflatedIn += n.inflatedIn.Load()
		s.DeflatedOut += n.deflatedOut.Load()
		s.InflatedOut += n.inflatedOut.Load()
	}
	for i := range t.rtt {
		s.RTT.Buckets[i] = t.rtt[i].Load()
	}
	for i := range t.refused {
		if n := t.refused[i].Load(); n > 0 {
			s.Refused[minStatus+i] = n
		}
	}
	for class := range closeClasses {
		if n := t.closes[SideServer][class].Load(); n > 0 {
			s.ClosedByServer[classCode(class)] = n
		}
		if n := t.closes[SidePeer][class].Load(); n > 0 {
			s.ClosedByPeer[classCode(class)] = n
		}
	}
	return s
}
