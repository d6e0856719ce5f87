package websocket

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
)

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
	// What was counted meanwhile must not make the last bucket smaller than
	// the one before it.
	count := max(r.Count, sum)
	m.sample("rtt_seconds_bucket", `{le="+Inf"}`, count)
	m.b = fmt.Appendf(m.b, "%srtt_seconds_sum %g\n", metricsPrefix, r.Sum.Seconds())
	m.sample("rtt_seconds_count", "", count)
}
