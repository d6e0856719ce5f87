package websocket

import "sync/atomic"

const countShards = 8

// counters are what connections count. Each connection uses one shard of its
// registry's, so that cores don't fight over one cache line.
type counters struct {
	messagesIn, messagesOut  atomic.Uint64
	bytesIn, bytesOut        atomic.Uint64 // payload of messages
	pingsIn, pingsOut        atomic.Uint64
	pongsIn, pongsOut        atomic.Uint64
	writeStalls, panics      atomic.Uint64
	dropped                  atomic.Uint64
	deflatedIn, inflatedIn   atomic.Uint64
	deflatedOut, inflatedOut atomic.Uint64
	_                        [8]byte // to two cache lines
}

func (g *registry) counters(c *Conn) *counters { return &g.stat[c.shard] }

// Stats are a Server's counters. They are read one after the other while the
// server goes on, so they needn't fit each other to the last message.
type Stats struct {
	Open                    int    // connections now
	MessagesIn, MessagesOut uint64 // whole messages
	BytesIn, BytesOut       uint64 // payload of messages
	PingsIn, PingsOut       uint64
	PongsIn, PongsOut       uint64
	WriteStalls             uint64 // connections cut because their peer took nothing
	Panics                  uint64 // of handlers
	Dropped                 uint64 // messages that found a send queue full

	// What permessage-deflate did to the messages that were compressed: bytes
	// on the wire, and what they stand for.
	DeflatedIn, InflatedIn   uint64
	DeflatedOut, InflatedOut uint64
}

func (g *registry) stats() Stats {
	s := Stats{Open: g.count()}
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
		s.WriteStalls += n.writeStalls.Load()
		s.Panics += n.panics.Load()
		s.Dropped += n.dropped.Load()
		s.DeflatedIn += n.deflatedIn.Load()
		s.InflatedIn += n.inflatedIn.Load()
		s.DeflatedOut += n.deflatedOut.Load()
		s.InflatedOut += n.inflatedOut.Load()
	}
	return s
}
