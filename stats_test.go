package websocket

import (
	"bufio"
	"bytes"
	"encoding/json"
	"expvar"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Every counter counts what it says, once, and all of them are read while the
// server goes on.
func TestStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const delay = 3 * time.Millisecond
		s := &Server{ErrorLog: new(logBook).logger(), Handler: HandlerFunc(func(c *Conn, r *http.Request) {
			for m, err := range c.Messages() {
				if err != nil {
					return
				}
				switch string(m.Data) {
				case "panic":
					panic("at the disco")
				case "cut":
					c.CloseNow()
				case "close":
					c.Close(4001, "")
				case "ping":
					c.Ping(nil)
				default:
					c.WriteMessage(m.Type, m.Data)
				}
			}
		})}
		ln := newPipeListener()
		serve(t, s, ln)

		if got, want := s.Stats(), (Stats{Refused: map[int]uint64{}, ClosedByServer: map[CloseCode]uint64{}, ClosedByPeer: map[CloseCode]uint64{}}); !reflect.DeepEqual(got, want) {
			t.Errorf("at first Stats() = %+v, want zeros", got)
		}
		for _, request := range []string{
			strings.Replace(peerRequest, "GET", "PUT", 1), strings.Replace(peerRequest, "13", "12", 1),
			strings.Replace(peerRequest, "13", "11", 1), "\x16\x03\x01 garbage\r\n\r\n",
		} {
			ln.dial(t).status(request)
		}
		ln.dial(t).nc.Close()
		stalled := ln.dial(t)

		p := ln.open(t)
		for range 3 {
			go p.nc.Write(textFrame("four"))
			p.want(opText, "four")
		}
		go p.nc.Write(bytes.Join([][]byte{clientFrame(opBinary, false, "fo"), clientFrame(opPing, true, "x"), clientFrame(opPong, true, "y"), clientFrame(opContinuation, true, "ur")}, nil))
		p.want(opPong, "x")
		p.want(opBinary, "four")
		go p.nc.Write(textFrame("ping"))
		p.want(opPing, "")
		for range 2 { // of the keep-alive, answered late
			_, stamp, err := p.frame()
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(delay)
			p.send(clientFrame(opPong, true, stamp))
		}
		synctest.Wait()
		if got := s.Stats(); got.Open != 1 || got.Handshaking != 0 || got.Failed != 2 {
			t.Errorf("open %d, shaking hands %d, failed %d; want 1, 0, 2: one was given up, one stalled", got.Open, got.Handshaking, got.Failed)
		}
		stalled.nc.Close()
		p.closeWith(3999, "")

		for _, end := range []struct {
			text string
			code CloseCode
		}{{"panic", 1011}, {"cut", 0}, {"close", 4001}} {
			p := ln.open(t)
			go p.nc.Write(textFrame(end.text))
			if end.code != 0 {
				p.wantClosed(end.code, "")
			}
		}
		p = ln.open(t)
		go p.nc.Write([]byte{0x8f, 0x80})
		p.wantClosed(CloseProtocolError, "reserved opcode 0xf")
		ln.open(t).nc.Close()
		ln.open(t).closeWith(CloseNormal, "")
		p = ln.open(t)
		p.send(clientFrame(opClose, true, ""))
		p.wantClose(CloseNoStatus, "")
		p.wantEnd()
		synctest.Wait()

		got := s.Stats()
		want := Stats{
			Accepted: 8, Refused: map[int]uint64{400: 1, 405: 1, 426: 2}, Failed: 2,
			MessagesIn: 8, MessagesOut: 4, BytesIn: 4*4 + 4 + 5 + 3 + 5, BytesOut: 16,
			PingsIn: 1, PingsOut: 3, PongsIn: 3, PongsOut: 1, Panics: 1,
			RTT:            RTTStats{Count: 2, Sum: 2 * delay},
			ClosedByServer: map[CloseCode]uint64{1006: 1, 1011: 1, 4000: 1},
			ClosedByPeer:   map[CloseCode]uint64{1000: 1, 1002: 1, 1005: 1, 1006: 1, 3000: 1},
		}
		want.RTT.Buckets[4] = 2 // up to 4 ms
		if !reflect.DeepEqual(got, want) {
			t.Errorf("Stats() =\n%+v, want\n%+v", got, want)
		}
	})
}

// A bucket holds its bound, and what is slower than all counts all the same.
func TestRTTBuckets(t *testing.T) {
	var g registry
	slowest := rttSmallest << (rttBuckets - 1)
	for _, rtt := range []time.Duration{0, rttSmallest, rttSmallest + 1, slowest, slowest + 1} {
		g.total.answered(rtt)
	}
	want := RTTStats{Count: 5, Sum: 2*rttSmallest + 2*slowest + 2}
	want.Buckets[0], want.Buckets[1], want.Buckets[rttBuckets-1] = 2, 1, 1
	if got := g.stats().RTT; got != want {
		t.Errorf("RTT = %+v, want %+v", got, want)
	}
}

// Peers that close with every code there is, and ask for every status, make no
// more counters than there are.
func TestStatsAreBounded(t *testing.T) {
	var total totals
	for code := range CloseCode(5000) {
		for _, e := range []*EndError{{By: SideServer, Sent: code}, {By: SidePeer, Received: code}, {By: SidePeer, Sent: code}} {
			if code == 0 || code == CloseNoStatus || code.sendable() {
				total.closed(e)
			}
		}
	}
	for status := range 1000 {
		total.refuse(&HandshakeError{Status: status})
	}
	g := registry{}
	sum := uint64(0)
	for class := range closeClasses {
		for side := range total.closes {
			n := total.closes[side][class].Load()
			g.total.closes[side][class].Add(n)
			sum += n
		}
	}
	if want := uint64(3 * (2 + 4 + 8 + 2000)); sum != want {
		t.Errorf("%d ends were counted, want %d", sum, want)
	}
	s := g.stats()
	if s.ClosedByServer[3000] != 1000 || s.ClosedByServer[4000] != 1000 || s.ClosedByPeer[3000] != 2000 || len(s.ClosedByPeer) != 16 {
		t.Errorf("by server %v, by peer %v; want 1000 and 2000 for each thousand of codes, and 16 codes", s.ClosedByServer, s.ClosedByPeer)
	}
}

var (
	metricsHead   = regexp.MustCompile(`^# (HELP|TYPE) (websocket_[a-z_]+) (.+)$`)
	metricsSample = regexp.MustCompile(`^(websocket_[a-z_]+)(?:\{([a-z]+="[^"\\]*"(?:,[a-z]+="[^"\\]*")*)\})? ([0-9.e+-]+)$`)
)

// readMetrics reads the text format as strictly as it is defined: each family
// once, introduced by its help and type, and no sample twice.
func readMetrics(t *testing.T, text string) map[string]float64 {
	t.Helper()
	samples, kinds := make(map[string]float64), make(map[string]string)
	family := ""
	for sc := bufio.NewScanner(strings.NewReader(text)); sc.Scan(); {
		line := sc.Text()
		if m := metricsHead.FindStringSubmatch(line); m != nil {
			if m[1] == "TYPE" && m[2] == family {
				kinds[family] = m[3]
			} else if family = m[2]; kinds[family] != "" {
				t.Errorf("the family of %q has been before", line)
			}
			continue
		}
		m := metricsSample.FindStringSubmatch(line)
		if m == nil {
			t.Errorf("line %q isn't one of the text format", line)
			continue
		}
		base := m[1]
		if kinds[family] == "histogram" {
			base = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(base, "_bucket"), "_sum"), "_count")
		}
		if base != family || kinds[family] == "" {
			t.Errorf("line %q under the family %s of type %q", line, family, kinds[family])
		}
		if (kinds[family] == "counter") != strings.HasSuffix(base, "_total") {
			t.Errorf("line %q of type %s: counters end in _total, and nothing else does", line, kinds[family])
		}
		key, _, _ := strings.Cut(line, " ")
		v, err := strconv.ParseFloat(m[3], 64)
		if _, twice := samples[key]; twice || err != nil {
			t.Errorf("line %q: twice %t, %v", line, twice, err)
		}
		samples[key] = v
	}
	return samples
}

// fillCounters gives each number in v another value.
func fillCounters(v reflect.Value, next *int) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fillCounters(v.Field(i), next)
		}
	case reflect.Array:
		for i := range v.Len() {
			fillCounters(v.Index(i), next)
		}
	case reflect.Int, reflect.Int64:
		*next++
		v.SetInt(int64(*next))
	case reflect.Uint64:
		*next++
		v.SetUint(uint64(*next))
	}
}

// No counter is forgotten by the publishers: each of Stats, filled with another
// number, is found again.
func TestMetricsHaveAllCounters(t *testing.T) {
	var s Stats
	next := 1000
	fillCounters(reflect.ValueOf(&s).Elem(), &next)
	s.RTT.Sum = 2500 * time.Millisecond
	s.RTT.Count = 1_000_000
	s.Refused = map[int]uint64{403: 7, 503: 8}
	s.ClosedByServer = map[CloseCode]uint64{1001: 9}
	s.ClosedByPeer = map[CloseCode]uint64{1001: 10, 3000: 11}
	samples := readMetrics(t, string(s.appendMetrics(nil)))
	for key, want := range map[string]float64{
		`websocket_refused_total{status="403"}`:           7,
		`websocket_refused_total{status="503"}`:           8,
		`websocket_closed_total{by="server",code="1001"}`: 9,
		`websocket_closed_total{by="peer",code="1001"}`:   10,
		`websocket_closed_total{by="peer",code="3000"}`:   11,
		`websocket_rtt_seconds_sum`:                       2.5,
		`websocket_rtt_seconds_count`:                     1_000_000,
		`websocket_rtt_seconds_bucket{le="+Inf"}`:         1_000_000,
		`websocket_rtt_seconds_bucket{le="0.00025"}`:      float64(s.RTT.Buckets[0]),
		`websocket_rtt_seconds_bucket{le="0.0005"}`:       float64(s.RTT.Buckets[0] + s.RTT.Buckets[1]),
		`websocket_messages_total{direction="in"}`:        float64(s.MessagesIn),
		`websocket_messages_total{direction="out"}`:       float64(s.MessagesOut),
		`websocket_message_bytes_total{direction="in"}`:   float64(s.BytesIn),
		`websocket_deflated_bytes_total{direction="out"}`: float64(s.DeflatedOut),
		`websocket_connections`:                           float64(s.Open),
		`websocket_failed_handshakes_total`:               float64(s.Failed),
	} {
		if got, ok := samples[key]; !ok || got != want {
			t.Errorf("%s = %v (there: %t), want %v", key, got, ok, want)
		}
	}
	values := make(map[float64]bool)
	for _, v := range samples {
		values[v] = true
	}
	v := reflect.ValueOf(s)
	for i := range v.NumField() {
		if f := v.Field(i); f.CanInt() && !values[float64(f.Int())] || f.CanUint() && !values[float64(f.Uint())] {
			t.Errorf("Stats.%s = %v isn't among the metrics", v.Type().Field(i).Name, f)
		}
	}
	last := 0.0
	for i := range s.RTT.Buckets {
		n := samples[fmt.Sprintf(`websocket_rtt_seconds_bucket{le="%g"}`, (rttSmallest<<i).Seconds())]
		if n <= last {
			t.Errorf("bucket %d of the round trips holds %v, the smaller one %v", i, n, last)
		}
		last = n
	}
}

func TestPublishers(t *testing.T) {
	s := &Server{Handler: Events{}}
	dial := serveTCP(t, s)
	dial().handshake()
	p := dial()
	p.handshake()
	p.closeWith(4321, "")
	eventually(t, "one connection is left", func() bool { st := s.Stats(); return st.Open == 1 && st.ClosedByPeer[4000] == 1 })

	h := s.MetricsHandler()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	samples := readMetrics(t, w.Body.String())
	if got := samples["websocket_connections"]; w.Code != 200 || got != 1 || samples["websocket_accepted_total"] != 2 ||
		samples[`websocket_closed_total{by="peer",code="4000"}`] != 1 {
		t.Errorf("metrics: %d with %v, want 200, 1 connection, 2 accepted and 1 closed", w.Code, samples)
	}
	if got, want := w.Header().Get("Content-Type"), "text/plain; version=0.0.4; charset=utf-8"; got != want {
		t.Errorf("Content-Type %q, want %q", got, want)
	}
	w = httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("POST", "/metrics", nil))
	if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") == "" {
		t.Errorf("POST of the metrics: %d, Allow %q; want 405 and what is allowed", w.Code, w.Header().Get("Allow"))
	}

	var v expvar.Var = s.Expvar()
	var got Stats
	if err := json.Unmarshal([]byte(v.String()), &got); err != nil || !reflect.DeepEqual(got, s.Stats()) {
		t.Errorf("Expvar() = %s, %v; want the JSON of %+v", v, err, s.Stats())
	}
}

func BenchmarkStats(b *testing.B) {
	s := &Server{Handler: Events{}}
	b.ReportAllocs()
	for b.Loop() {
		s.Stats()
	}
}

// What wasn't sent isn't counted, and a closing handshake whose time is over is
// no write that stalled.
func TestNothingSentNothingCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan *Conn, 1)
		s := &Server{Handler: HandlerFunc(func(c *Conn, _ *http.Request) {
			c.Close(CloseNormal, "") // to a peer that takes nothing
			if err := c.Ping(nil); err == nil {
				t.Error("Ping on a closed Conn returned nil")
			}
			ended <- c
		})}
		ln := newPipeListener()
		serve(t, s, ln)
		p := ln.open(t)
		<-ended
		p.nc.Close()
		synctest.Wait()
		if got := s.Stats(); got.PingsOut != 0 || got.PongsOut != 0 || got.WriteStalls != 0 {
			t.Errorf("%d pings, %d pongs, %d write stalls counted; want none", got.PingsOut, got.PongsOut, got.WriteStalls)
		}
	})
}

// A client that has read its 101 finds itself in Stats and Conns, whatever the
// way in.
func TestCountedBeforeTheAnswer(t *testing.T) {
	for _, way := range []string{"tcp", "tls", "net/http"} {
		for name, h := range echoHandlers {
			for range 50 {
				s := &Server{Handler: h}
				p := openBy(t, s, way)
				stats, conns := s.Stats(), 0
				for range s.Conns() {
					conns++
				}
				if stats.Open != 1 || stats.Accepted != 1 || stats.Handshaking != 0 || conns != 1 {
					t.Fatalf("%s, %s: behind the 101 %d open, %d accepted, %d in their handshake, %d in Conns; want 1, 1, 0, 1",
						way, name, stats.Open, stats.Accepted, stats.Handshaking, conns)
				}
				p.nc.Close()
				s.Close()
			}
		}
	}
}

// An answer that doesn't leave makes no connection that was accepted.
func TestUnsentAnswerIsNotAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Handler: echoEvents(), ErrorLog: new(logBook).logger()}
		ln := newPipeListener()
		serve(t, s, ln)
		p := ln.dial(t)
		p.send([]byte(peerRequest)) // and reads nothing
		time.Sleep(time.Minute)
		got := s.Stats()
		if got.Accepted != 0 || got.Failed != 1 || got.Open != 0 || len(got.ClosedByPeer)+len(got.ClosedByServer) != 0 || !s.isAtRest() {
			t.Errorf("%+v; want one failed handshake and nothing else", got)
		}
	})
}

// Refusals are logged, for a browser hides them from its user: the client's
// faults as information, a line a second of each kind at most.
func TestRefusalsAreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var book logBook
		s := &Server{Handler: Events{}, MaxConns: 1, ErrorLog: book.logger()}
		ln := newPipeListener()
		serve(t, s, ln)
		evil := strings.Replace(peerRequest, "\r\n\r\n", "\r\nOrigin: https://evil.example\r\n\r\n", 1)
		for range 10 {
			ln.dial(t).status(evil)
		}
		synctest.Wait()
		ln.open(t)
		for range 10 {
			ln.dial(t).status(peerRequest)
		}
		synctest.Wait()
		lines := book.all()
		if len(lines) != 2 || !strings.Contains(lines[0], "level=INFO") || !strings.Contains(lines[0], "evil.example") ||
			!strings.Contains(lines[1], "level=ERROR") || !strings.Contains(lines[1], "MaxConns") {
			t.Errorf("logged %q; want a line of information about the Origin, and one of error about MaxConns", lines)
		}
	})
}
