package websocket

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
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
	rtt                 [rttBuckets + 1]atomic.Uint64  // the last one counts what takes longer
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
	bucket := 0
	for bucket < rttBuckets && rtt > rttSmallest<<bucket {
		bucket++
	}
	t.rtt[bucket].Add(1)
	t.rttSum.Add(int64(rtt))
}

// Stats are a Server's counters since it began. They are read one after the
// other while the server goes on, so they needn't fit each other to the last
// message. They marshal to JSON as they are.
type Stats struct {
	Open        int // connections now
	Handshaking int // sockets between accept and the 101
	HTTP        int // sockets that Server.HTTP has

	Accepted uint64         // upgrades answered with 101
	Refused  map[int]uint64 // upgrades refused, by status, also when too many to be told
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

	WriteStalls uint64 // connections cut because the peer took nothing for WriteTimeout, or not all by a deadline
	Panics      uint64 // of handlers, callbacks and hooks, and their calls of runtime.Goexit
	Dropped     uint64 // messages that found a send queue full, or had to leave it for newer ones

	// What permessage-deflate did to the messages that were compressed: bytes
	// on the wire, and what they stand for.
	DeflatedIn, InflatedIn   uint64
	DeflatedOut, InflatedOut uint64
}

// RTTStats are the round trips of the keep-alive pings. Buckets[0] counts those of
// up to 250 us; each of the 16 that follow has twice the bound of the one before it,
// and counts what that doesn't. Those over the last bound, 16.384 s, are in Count
// and Sum alone.
type RTTStats struct {
	Count   uint64
	Sum     time.Duration
	Buckets [rttBuckets]uint64
}

// Stats returns the counters as they are now.
func (s *Server) Stats() Stats {
	stats := s.reg.stats()
	s.mu.Lock()
	defer s.mu.Unlock()
	stats.Handshaking = len(s.handshakes) - int(s.waiting.Load())
	stats.HTTP = len(s.plainConns)
	return stats
}

func (g *registry) stats() Stats {
	t := &g.total
	s := Stats{
		Open:     g.count(),
		Accepted: t.accepted.Load(), Failed: t.failed.Load(), Refused: make(map[int]uint64),
		ClosedByServer: make(map[CloseCode]uint64), ClosedByPeer: make(map[CloseCode]uint64),
		WriteStalls: t.writeStalls.Load(), Panics: t.panics.Load(),
		RTT: RTTStats{Sum: time.Duration(t.rttSum.Load())},
	}
	for i := range g.stat {
		g.stat[i].addTo(&s)
	}
	for i := range s.RTT.Buckets {
		s.RTT.Buckets[i] = t.rtt[i].Load()
		s.RTT.Count += s.RTT.Buckets[i]
	}
	s.RTT.Count += t.rtt[rttBuckets].Load()
	for i := range t.refused {
		if n := t.refused[i].Load(); n > 0 {
			s.Refused[minStatus+i] = n
		}
	}
	for by, counts := range [...]map[CloseCode]uint64{SideServer: s.ClosedByServer, SidePeer: s.ClosedByPeer} {
		for class := range t.closes[by] {
			if n := t.closes[by][class].Load(); n > 0 {
				counts[classCode(class)] = n
			}
		}
	}
	return s
}

func (n *counters) addTo(s *Stats) {
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

// Expvar returns the counters as a variable of package expvar, so that
// expvar.Publish("websocket", s.Expvar()) shows them at /debug/vars. Its type
// isn't named expvar.Var because whoever imports that package has /debug/vars
// on http.DefaultServeMux, wanted or not.
func (s *Server) Expvar() fmt.Stringer { return statsVar{s} }

type statsVar struct{ s *Server }

// String returns the counters as JSON.
func (v statsVar) String() string {
	b, err := json.Marshal(v.s.Stats())
	if err != nil {
		return "null" // can't be: numbers, and maps of numbers
	}
	return string(b)
}

// MetricsHandler returns a handler that shows the counters in the text format
// of Prometheus, version 0.0.4, to be mounted where only the monitoring can
// reach it.
func (s *Server) MetricsHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "the counters can only be read", http.StatusMethodNotAllowed)
			return
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		w.Write(s.Stats().appendMetrics(nil))
	})
}

// appendMetrics appends all counters, in an order that doesn't change.
func (s Stats) appendMetrics(dst []byte) []byte {
	m := metrics{dst}
	m.gauge("connections", "Open connections.", s.Open)
	m.gauge("handshakes", "Sockets between accept and the answer 101.", s.Handshaking)
	m.gauge("http_connections", "Sockets that plain HTTP has.", s.HTTP)
	m.counter("accepted_total", "Upgrades answered with 101.", s.Accepted)
	m.family("refused_total", "counter", "Upgrades refused, by HTTP status.")
	for _, status := range slices.Sorted(maps.Keys(s.Refused)) {
		m.sample("refused_total", fmt.Sprintf(`{status="%d"}`, status), s.Refused[status])
	}
	m.counter("failed_handshakes_total", "Handshakes that ended without an answer.", s.Failed)
	m.directions("messages_total", "Whole messages.", s.MessagesIn, s.MessagesOut)
	m.directions("message_bytes_total", "Payload of messages, inflated.", s.BytesIn, s.BytesOut)
	m.directions("pings_total", "Ping frames.", s.PingsIn, s.PingsOut)
	m.directions("pongs_total", "Pong frames.", s.PongsIn, s.PongsOut)
	m.rtt(s.RTT)
	m.family("closed_total", "counter", "Ended connections, by who began the end and close code.")
	m.closed(SideServer, s.ClosedByServer)
	m.closed(SidePeer, s.ClosedByPeer)
	m.counter("write_stalls_total", "Connections cut because the peer took nothing of a write.", s.WriteStalls)
	m.counter("panics_total", "Panics of handlers and callbacks.", s.Panics)
	m.counter("dropped_messages_total", "Messages that found a send queue full.", s.Dropped)
	m.directions("deflated_bytes_total", "Payload of compressed messages, on the wire.", s.DeflatedIn, s.DeflatedOut)
	m.directions("inflated_bytes_total", "Payload of compressed messages, inflated.", s.InflatedIn, s.InflatedOut)
	return m.b
}

// metrics are lines of the text format.
type metrics struct{ b []byte }

const metricsPrefix = "websocket_"

func (m *metrics) family(name, kind, help string) {
	m.b = fmt.Appendf(m.b, "# HELP %s%s %s\n# TYPE %[1]s%[2]s %[4]s\n", metricsPrefix, name, help, kind)
}

func (m *metrics) sample(name, labels string, v uint64) {
	m.b = append(append(append(m.b, metricsPrefix...), name...), labels...)
	m.b = append(strconv.AppendUint(append(m.b, ' '), v, 10), '\n')
}

func (m *metrics) gauge(name, help string, v int) {
	m.family(name, "gauge", help)
	m.sample(name, "", uint64(max(v, 0)))
}

func (m *metrics) counter(name, help string, v uint64) {
	m.family(name, "counter", help)
	m.sample(name, "", v)
}

func (m *metrics) directions(name, help string, in, out uint64) {
	m.family(name, "counter", help)
	m.sample(name, `{direction="in"}`, in)
	m.sample(name, `{direction="out"}`, out)
}

func (m *metrics) closed(by Side, counts map[CloseCode]uint64) {
	for _, code := range slices.Sorted(maps.Keys(counts)) {
		m.sample("closed_total", fmt.Sprintf(`{by="%v",code="%d"}`, by, code), counts[code])
	}
}

// rtt writes the histogram, in which each bucket holds the smaller ones too.
func (m *metrics) rtt(r RTTStats) {
	m.family("rtt_seconds", "histogram", "Round trips of keep-alive pings.")
	sum := uint64(0)
	for i, n := range r.Buckets {
		sum += n
		m.sample("rtt_seconds_bucket", fmt.Sprintf(`{le="%g"}`, (rttSmallest<<i).Seconds()), sum)
	}
	m.sample("rtt_seconds_bucket", `{le="+Inf"}`, r.Count)
	m.b = fmt.Appendf(m.b, "%srtt_seconds_sum %g\n", metricsPrefix, r.Sum.Seconds())
	m.sample("rtt_seconds_count", "", r.Count)
}
