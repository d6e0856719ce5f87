package websocket

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
)

// A flood of events makes a line a second for each kind, and each line says
// how many it stands for, so that none is forgotten.
func TestLogIsALineASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var book logBook
		reg := &registry{log: lineLog{to: book.logger()}}
		const seconds, each = 5, 100
		for range seconds * each {
			for kind := range logKinds {
				reg.logFault(kind, fmt.Sprintf("kind %d", kind))
			}
			time.Sleep(time.Second / each)
		}
		for kind := range logKinds {
			lines, stoodFor := 0, 0
			for _, line := range book.all() {
				if !strings.Contains(line, fmt.Sprintf(`msg="kind %d"`, kind)) {
					continue
				}
				lines++
				if _, more, ok := strings.Cut(line, `more="`); ok {
					var n int
					fmt.Sscan(more, &n)
					stoodFor += n
				}
			}
			if all := lines + stoodFor; lines != seconds || all <= (seconds-1)*each || all > seconds*each {
				t.Errorf("kind %d: %d events in %d s made %d lines that stand for %d more; want %d lines", kind, seconds*each, seconds, lines, stoodFor, seconds)
			}
		}
	})
}

// The limit holds between any two lines, not between the seconds of the clock,
// where one could come just before and one just after midnight.
func TestLogAcrossTheSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var book logBook
		reg := &registry{log: lineLog{to: book.logger()}}
		time.Sleep(990 * time.Millisecond)
		for range 20 {
			reg.logFault(logAccept, "no descriptors")
			time.Sleep(time.Millisecond)
		}
		if got := book.all(); len(got) != 1 {
			t.Errorf("20 events within 20 ms around a full second made %d lines, want 1: %q", len(got), got)
		}
	})
}

// What a connection costs while it is idle is its Conn; the allocator's next
// size up is 480 bytes.
func TestConnSize(t *testing.T) {
	if got := unsafe.Sizeof(Conn{}); unsafe.Sizeof(uintptr(0)) == 8 && got > 288 {
		t.Errorf("a Conn takes %d bytes, want at most 288", got)
	}
}

// An addrConn claims to come from an address.
type addrConn struct {
	net.Conn
	from string
}

func (ac addrConn) RemoteAddr() net.Addr { return addrText(ac.from) }

type addrText string

func (addrText) Network() string  { return "tcp" }
func (a addrText) String() string { return string(a) }

// dialFrom is dial for a client of an address.
func (l *pipeListener) dialFrom(t testing.TB, from string) *peer {
	server, client := pipePair(t)
	l.conns <- addrConn{server, from}
	return &peer{TB: t, nc: client}
}

// status asks for the upgrade, and returns the status of the answer and its text.
func (p *peer) status(request string) (int, http.Header, string) {
	p.Helper()
	go io.WriteString(p.nc, request)
	resp, err := http.ReadResponse(bufio.NewReader(p.nc), nil)
	if err != nil {
		p.Fatalf("peer: %v; want an answer", err)
	}
	var text []byte
	if resp.StatusCode != http.StatusSwitchingProtocols {
		text, _ = io.ReadAll(resp.Body)
		p.nc.Close()
	}
	return resp.StatusCode, resp.Header, string(text)
}

func TestMaxConns(t *testing.T) {
	for name, handler := range map[string]Handler{"events": Events{}, "function": echoHandler(nil)} {
		t.Run(name, func(t *testing.T) {
			var book logBook
			s := &Server{Handler: handler, MaxConns: 2, ErrorLog: book.logger()}
			dial := serveTCP(t, s)
			start := time.Now()
			first, second := dial(), dial()
			first.handshake()
			eventually(t, "the second is in its handshake", func() bool { return s.Stats().Handshaking == 1 })
			for range 3 {
				status, header, text := dial().status(peerRequest)
				if status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" || !strings.Contains(text, "MaxConns") {
					t.Errorf("over MaxConns: %d, Retry-After %q, %q; want 503 with Retry-After and the option", status, header.Get("Retry-After"), text)
				}
			}
			second.handshake() // which was counted from its accept on
			first.closeWith(CloseNormal, "")
			eventually(t, "there is room again", func() bool { // behind the handler, which comes behind Open
				s.mu.Lock()
				defer s.mu.Unlock()
				return s.places[forSocket] == 1
			})
			third := dial()
			third.handshake()
			if got := s.Stats(); got.Accepted != 3 || got.Refused[503] != 3 {
				t.Errorf("accepted %d, refused with 503 %d; want 3 and 3", got.Accepted, got.Refused[503])
			}
			if got := book.all(); len(got) == 0 || len(got) > 2+int(time.Since(start)/time.Second) || !strings.Contains(got[0], "MaxConns") {
				t.Errorf("the log says %q, want a line a second that names MaxConns", got)
			}
			second.closeWith(CloseNormal, "")
			third.closeWith(CloseNormal, "")
		})
	}
}

func TestMaxHandshakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Handler: Events{}, MaxHandshakes: 2, MaxConns: 4, ErrorLog: new(logBook).logger()}
		ln := newPipeListener()
		serve(t, s, ln)
		stalled := []*peer{ln.dial(t), ln.dial(t)}
		waiting := ln.dial(t)
		go waiting.nc.Write([]byte(peerRequest))
		synctest.Wait()
		if got := s.Stats(); got.Handshaking != 2 || got.Open != 0 {
			t.Errorf("with two stalled handshakes: %d under way, %d open; want 2 and 0", got.Handshaking, got.Open)
		}
		stalled[0].nc.Close()
		waiting.wantBytes(peerAnswer)
		synctest.Wait() // until the one that left has given back its place too

		// The others free their places when their time is over, and a refusal
		// takes one only as long as it lasts.
		start := time.Now()
		ln.open(t)
		ln.open(t)
		if got := time.Since(start); got != 0 {
			t.Errorf("two handshakes beside a stalled one took %v, want none", got)
		}
		if status, _, _ := ln.dial(t).status(peerRequest); status != http.StatusServiceUnavailable {
			t.Errorf("over MaxConns: %d, want 503", status)
		}
		if got := s.Stats().Failed; got != 1 {
			t.Errorf("failed handshakes: %d, want the one that was given up", got)
		}
	})
}

// Whoever waits for a place when the server goes down doesn't hold it up.
func TestShutdownWhileWaitingForAHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Handler: Events{}, MaxHandshakes: 1}
		ln := newPipeListener()
		serve(t, s, ln)
		stalled := ln.dial(t)
		waiting := ln.dial(t)
		synctest.Wait()
		done := make(chan error)
		start := time.Now()
		go func() { done <- s.Shutdown(t.Context()) }()
		if n, err := waiting.nc.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("who waited read %d bytes, %v; want the stream's end", n, err)
		}
		if answer, err := io.ReadAll(stalled.nc); !strings.HasPrefix(string(answer), "HTTP/1.1 503 ") {
			t.Errorf("the stalled one read %q, %v; want 503", answer, err)
		}
		if err := <-done; err != nil || time.Since(start) > 2*time.Second {
			t.Errorf("Shutdown = %v after %v, want nil within 2 s", err, time.Since(start))
		}
	})
}

func TestMaxConnsPerIP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Handler: Events{}, MaxConnsPerIP: 2}
		ln := newPipeListener()
		serve(t, s, ln)
		var open []*peer
		for _, test := range []struct {
			from string
			want int
		}{
			{"192.0.2.1:1000", 101},
			{"192.0.2.1:1001", 101},
			{"192.0.2.1:1002", 429},
			{"[::ffff:192.0.2.1]:1003", 429}, // the same, as a socket for both families names it
			{"192.0.2.2:1000", 101},
			{"[2001:db8:0:1::1]:1000", 101},
			{"[2001:db8:0:1:ffff::]:1000", 101},
			{"[2001:db8:0:1:1234::9%eth0]:1000", 429}, // one subscriber's /64
			{"[2001:db8:0:2::1]:1000", 101},
			{"@", 101}, {"@", 101}, {"@", 101}, // a unix socket
		} {
			p := ln.dialFrom(t, test.from)
			status, header, text := p.status(peerRequest)
			if status != test.want {
				t.Errorf("from %s: %d %q, want %d", test.from, status, text, test.want)
			}
			if status == 429 && (header.Get("Retry-After") == "" || !strings.Contains(text, "MaxConnsPerIP")) {
				t.Errorf("from %s: Retry-After %q, %q; want both the header and the option", test.from, header.Get("Retry-After"), text)
			}
			if status == 101 {
				open = append(open, p)
			}
		}
		for _, p := range open {
			p.nc.Close()
		}
		synctest.Wait()
		if n := len(s.clients); n != 0 || s.places[forSocket] != 0 {
			t.Errorf("with all connections closed %d clients and %d connections are counted, want none", n, s.places[forSocket])
		}
		ln.dialFrom(t, "192.0.2.1:2000").handshake()
	})
}

// An application's ClientIP may name one address in several forms.
func TestClientIsOneInEveryForm(t *testing.T) {
	s := &Server{MaxConnsPerIP: 1}
	s.init()
	for i, ip := range []string{"192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", "2001:db8::2%eth0"} {
		p := place{kind: forSocket}
		err := s.countClient(&p, netip.MustParseAddr(ip))
		if again := i%2 == 1; again != (err != nil) || again != (p.client == nil) {
			t.Errorf("%s: counted as %v, %v; want it refused: %t", ip, p.client, err, again)
		}
	}
}

// Behind a proxy the client is known with the request, and counted under every
// way in: on a socket, and by net/http.
func TestMaxConnsPerForwardedIP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Handler: Events{}, MaxConnsPerIP: 1,
			ClientIP: ForwardedIP("X-Forwarded-For", netip.MustParsePrefix("10.0.0.0/8"))}
		ln, behind := newPipeListener(), newPipeListener()
		serve(t, s, ln)
		hs := &http.Server{Handler: s}
		go hs.Serve(behind)
		defer hs.Close()
		request := func(client string) string {
			return strings.Replace(peerRequest, "\r\n\r\n", "\r\nX-Forwarded-For: "+client+"\r\n\r\n", 1)
		}
		for _, test := range []struct {
			ln     *pipeListener
			client string
			want   int
		}{
			{ln, "192.0.2.1", 101},
			{ln, "192.0.2.1", 429},
			{behind, "192.0.2.1", 429},
			{behind, "192.0.2.2", 101},
			{ln, "192.0.2.2", 429},
			{ln, "10.9.9.9, 192.0.2.2", 429}, // the left is the client's word
			{ln, "192.0.2.3", 101},
		} {
			if status, _, text := test.ln.dialFrom(t, "10.0.0.1:1234").status(request(test.client)); status != test.want {
				t.Errorf("X-Forwarded-For: %s: %d %q, want %d", test.client, status, text, test.want)
			}
		}
	})
}

func TestForwardedIP(t *testing.T) {
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for _, test := range []struct {
		header string
		remote string
		lines  []string
		want   string // "" for none
	}{
		{"X-Forwarded-For", "192.0.2.9:80", nil, "192.0.2.9"},
		{"X-Forwarded-For", "192.0.2.9:80", []string{"198.51.100.1"}, "192.0.2.9"}, // not a proxy of ours
		{"X-Forwarded-For", "10.0.0.1:80", nil, "10.0.0.1"},
		{"X-Forwarded-For", "10.0.0.1:80", []string{"198.51.100.1"}, "198.51.100.1"},
		{"X-Forwarded-For", "[::ffff:10.0.0.1]:80", []string{"198.51.100.1"}, "198.51.100.1"},
		{"X-Forwarded-For", "[fd00::1]:80", []string{"2001:db8::1"}, "2001:db8::1"},
		{"X-Forwarded-For", "10.0.0.1:80", []string{"203.0.113.7, 198.51.100.1,\t10.2.2.2"}, "198.51.100.1"},
		{"X-Forwarded-For", "10.0.0.1:80", []string{"203.0.113.7", "198.51.100.1", "10.2.2.2"}, "198.51.100.1"},
		{"X-Forwarded-For", "10.0.0.1:80", []string{"10.3.3.3, 10.2.2.2"}, "10.3.3.3"},
		{"X-Forwarded-For", "10.0.0.1:80", []string{"198.51.100.1:4711"}, "198.51.100.1"},
		{"X-Forwarded-For", "10.0.0.1:80", []string{"[2001:db8::1]:4711"}, "2001:db8::1"},
		{"X-Forwarded-For", "10.0.0.1:80", []string{"[2001:db8::1]"}, "2001:db8::1"},
		{"X-Forwarded-For", "10.0.0.1:80", []string{"198.51.100.1, unknown"}, "10.0.0.1"},
		{"X-Forwarded-For", "10.0.0.1:80", []string{"198.51.100.1, unknown, 10.2.2.2"}, "10.2.2.2"},
		{"X-Forwarded-For", "10.0.0.1:80", []string{""}, "10.0.0.1"},
		{"X-Forwarded-For", "10.0.0.1:80", []string{"198.51.100.1,"}, "10.0.0.1"},
		{"X-Forwarded-For", "@", []string{"198.51.100.1"}, "198.51.100.1"}, // a unix socket
		{"X-Forwarded-For", "@", nil, ""},
		{"x-real-ip", "10.0.0.1:80", []string{"198.51.100.1"}, "198.51.100.1"},
		{"Forwarded", "10.0.0.1:80", []string{"for=198.51.100.1"}, "198.51.100.1"},
		{"forwarded", "10.0.0.1:80", []string{`proto=http; FOR="198.51.100.1:99" ;by=10.0.0.1`}, "198.51.100.1"},
		{"Forwarded", "10.0.0.1:80", []string{`for="[2001:db8:cafe::17]:4711"`}, "2001:db8:cafe::17"},
		{"Forwarded", "10.0.0.1:80", []string{"for=203.0.113.7;by=10.9.9.9, for=198.51.100.1", `for=10.2.2.2;host="a,b;for=1.1.1.1"`}, "198.51.100.1"},
		{"Forwarded", "10.0.0.1:80", []string{"for=_hidden, for=10.2.2.2"}, "10.2.2.2"},
		{"Forwarded", "10.0.0.1:80", []string{"by=198.51.100.1"}, "10.0.0.1"},
		// A client that leaves a quoted string open can't hide what the proxy wrote.
		{"Forwarded", "10.0.0.1:80", []string{`for="203.0.113.7, for=198.51.100.1`}, "198.51.100.1"},
		{"Forwarded", "10.0.0.1:80", []string{`for=203.0.113.7;x=", for="198.51.100.1"`}, "198.51.100.1"},
	} {
		r := &http.Request{RemoteAddr: test.remote, Header: http.Header{
			// A header that isn't asked for is the client's word.
			"X-Forwarded-For": {"203.0.113.66"}, "Forwarded": {"for=203.0.113.66"},
		}}
		delete(r.Header, http.CanonicalHeaderKey(test.header))
		for _, line := range test.lines {
			r.Header.Add(test.header, line)
		}
		got := ForwardedIP(test.header, proxies...)(r)
		var want netip.Addr
		if test.want != "" {
			want = netip.MustParseAddr(test.want)
		}
		if got != want {
			t.Errorf("%s %q from %s: client %v, want %v", test.header, test.lines, test.remote, got, want)
		}
	}
}

// What a callback of the handshake panics with costs that request: it is
// answered with 500, and what was counted is given back.
func TestHandshakeCallbackPanics(t *testing.T) {
	for name, s := range map[string]*Server{
		"OnUpgrade":   {Upgrader: Upgrader{OnUpgrade: func(*http.Request, *Accept) error { panic("boom") }}},
		"CheckOrigin": {Upgrader: Upgrader{CheckOrigin: func(*http.Request) bool { panic("boom") }}},
		"ClientIP":    {MaxConnsPerIP: 9, ClientIP: func(*http.Request) netip.Addr { panic("boom") }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var book logBook
				s.ErrorLog = book.logger()
				ln, behind := newPipeListener(), newPipeListener()
				serve(t, s, ln)
				hs := &http.Server{Handler: s}
				go hs.Serve(behind)
				defer hs.Close()
				for _, l := range []*pipeListener{ln, behind} {
					if status, _, text := l.dial(t).status(peerRequest); status != 500 || strings.Contains(text, "boom") {
						t.Errorf("%d %q, want 500 that tells the client nothing", status, text)
					}
				}
				time.Sleep(time.Second)
				if got := s.Stats(); got.Panics != 2 || got.Refused[500] != 2 || got.Handshaking != 0 || s.places[forSocket] != 0 {
					t.Errorf("panics %d, refused with 500 %d, in handshake %d, counted %d; want 2, 2, 0, 0",
						got.Panics, got.Refused[500], got.Handshaking, s.places[forSocket])
				}
				if got := book.all(); len(got) != 1 || !strings.Contains(got[0], "boom") || !strings.Contains(got[0], "limits_test.go") {
					t.Errorf("the log says %q, want one line with the panic and its stack", got)
				}
			})
		})
	}
}

// wantClosed reads up to the close frame, answers pings on the way, and ends
// the closing handshake. It returns when the frame came.
func (p *peer) wantClosed(code CloseCode, reason string) time.Time {
	p.Helper()
	for {
		h, payload, err := p.frame()
		if err != nil {
			p.Fatalf("peer: %v; want close with %d", err, code)
		}
		switch h.opcode {
		case opPing:
			p.send(clientFrame(opPong, true, payload))
		case opClose:
			at := time.Now()
			if want := string(appendClosePayload(nil, code, reason)); payload != want {
				p.Fatalf("peer: close with % x, want % x", payload, want)
			}
			p.send(closeFrame(code, ""))
			p.wantEnd()
			return at
		}
	}
}

// Connections that began together end at most MaxLifetime later, and not
// together.
func TestMaxLifetime(t *testing.T) {
	const lifetime = 10 * time.Minute
	ends := make(chan error, 40)
	for name, handler := range map[string]Handler{
		"events": Events{OnClose: func(c *Conn, err error) { ends <- err }},
		"function": HandlerFunc(func(c *Conn, r *http.Request) {
			_, _, err := c.ReadMessage()
			ends <- err
		}),
		"function that doesn't read": HandlerFunc(func(c *Conn, r *http.Request) {
			ctx := c.Context()
			<-ctx.Done()
			ends <- context.Cause(ctx)
		}),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ln := newPipeListener()
				s := &Server{Handler: handler, Upgrader: Upgrader{MaxLifetime: lifetime, PingInterval: -1}}
				serve(t, s, ln)
				start := time.Now()
				ages := make(chan time.Duration, 40)
				for range cap(ages) {
					p := ln.open(t)
					go func() { ages <- p.wantClosed(CloseGoingAway, "maximum lifetime").Sub(start) }()
				}
				var first, last time.Duration
				for range cap(ages) {
					age := <-ages
					if age < lifetime*9/10 || age > lifetime+slack {
						t.Errorf("closed at the age of %v, want %v or up to a tenth less", age, lifetime)
					}
					if last = age; first == 0 {
						first = age
					}
					wantEndError(t, <-ends, EndError{By: SideServer, Sent: 1001, Received: 1001, Clean: true}, errMaxLifetime)
				}
				if last-first < lifetime/50 {
					t.Errorf("all were closed within %v, want them spread over up to %v", last-first, lifetime/10)
				}
			})
		})
	}
}

// Only messages count: who answers pings is there, but not of use.
func TestIdleTimeout(t *testing.T) {
	const timeout, minutes = 2 * time.Minute, 10
	frame := clientFrame(opBinary, true, strings.Repeat("x", minutes<<13-maxHeaderLen))
	for _, test := range []struct {
		name string
		busy func(c *Conn, p *peer, minute int)
		keep bool // whether it keeps the connection
	}{
		{"nothing", func(*Conn, *peer, int) {}, false},
		{"messages in", func(c *Conn, p *peer, _ int) { p.nc.Write(textFrame("")) }, true},
		{"fragments in", func(c *Conn, p *peer, minute int) {
			op := opContinuation
			if minute == 1 {
				op = opText
			}
			p.nc.Write(clientFrame(op, false, ""))
		}, true},
		{"pieces of a frame in", func(c *Conn, p *peer, minute int) { p.nc.Write(frame[(minute-1)<<13 : minute<<13]) }, true},
		{"messages out", func(c *Conn, p *peer, _ int) { c.WriteMessage(TextMessage, nil) }, true},
		{"queued messages out", func(c *Conn, p *peer, _ int) { c.Send(NewPreparedMessage(TextMessage, nil)) }, true},
		{"fragments out", func(c *Conn, p *peer, minute int) {
			if minute == 1 {
				c.Data, _ = c.NextWriter(BinaryMessage)
			}
			c.Data.(io.Writer).Write(make([]byte, 20<<10))
		}, true},
		{"pings in", func(c *Conn, p *peer, _ int) { p.nc.Write(clientFrame(opPing, true, "")) }, false},
		{"pings out", func(c *Conn, p *peer, _ int) { c.Ping(nil) }, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, p := connectPipe(t, &Upgrader{IdleTimeout: timeout, PingInterval: -1})
				end := readEnd(c)
				start := time.Now()
				done := make(chan struct{})
				go func() {
					defer close(done)
					for minute := range minutes {
						time.Sleep(time.Minute)
						test.busy(c, p, minute+1)
					}
				}()
				want := timeout
				if test.keep {
					want += minutes * time.Minute
				}
				late := slack
				if test.name == "fragments out" { // the message under way is given up first
					late += 5*time.Second + slack
				}
				if got := p.wantClosed(CloseNormal, "idle").Sub(start); got < want || got > want+late {
					t.Errorf("closed after %v, want %v", got, want)
				}
				wantEndError(t, <-end, EndError{By: SideServer, Sent: 1000, Received: 1000, Clean: true}, errIdle)
				<-done
			})
		})
	}
}

// A peer that floods with control frames is told 1008; as many as allowed, in
// every second, are no flood, and nor are those of a message.
func TestMaxControlRate(t *testing.T) {
	for _, test := range []struct {
		name  string
		rate  int // of the Upgrader
		burst int // of pings and pongs
		pause time.Duration
		want  bool
	}{
		{"default", 0, 1000, time.Second, true},
		{"over the default", 0, 1001, time.Second, false},
		{"5", 5, 5, time.Second, true},
		{"over 5", 5, 6, time.Second, false},
		{"5 and 5 in less than a second", 5, 5, 990 * time.Millisecond, false},
		{"off", -1, 20_000, 0, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, p := connectPipe(t, &Upgrader{MaxControlRate: test.rate, PingInterval: -1})
				end := readEnd(c)
				done := make(chan struct{})
				defer func() { <-done }()
				go func() {
					defer close(done)
					flood := bytes.Repeat(clientFrame(opPong, true, ""), test.burst-1)
					for range 3 {
						p.nc.Write(flood)
						p.nc.Write(clientFrame(opPing, true, "last"))
						time.Sleep(test.pause)
					}
				}()
				if !test.want {
					if test.burst <= test.rate {
						p.want(opPong, "last")
					}
					p.wantClose(ClosePolicyViolation, "more pings and pongs in a second than MaxControlRate")
					p.leave()
					err := <-end
					wantEndError(t, err, EndError{By: SidePeer, Sent: ClosePolicyViolation}, nil)
					return
				}
				for range 3 {
					p.want(opPong, "last")
				}
				p.sendText("and on")
				p.closeWith(CloseNormal, "")
			})
		})
	}
}

// Whoever is being refused when the server is closed is cut with the others: a
// TLS client that stalls would keep it for the whole HandshakeTimeout.
func TestCloseCutsRefusals(t *testing.T) {
	s := &Server{Handler: Events{}, MaxConns: 1, ErrorLog: new(logBook).logger()}
	addr := serveTLS(t, s)
	p := dialTLS(t, addr, clientTLS())
	p.handshake()
	stalled := dialAddr(t, addr)
	eventually(t, "the second is in its handshake", func() bool { return s.Stats().Handshaking == 1 })
	s.Close()
	if _, err := stalled.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("the stalled client read %v, want its socket to be closed", err)
	}
	eventually(t, "nobody is in a handshake", func() bool { return s.Stats().Handshaking == 0 })
}

// A flood of peers that break rules with long and ugly bytes makes a short line
// of plain ASCII in each second.
func TestLogOfBadPeers(t *testing.T) {
	ugly := strings.Repeat("\xff\xfe\u202e\"\\", 1000)
	for name, s := range map[string]*Server{
		"OnUpgrade's header": {Upgrader: Upgrader{OnUpgrade: func(r *http.Request, a *Accept) error {
			a.Header.Set("X-Echo", r.Header.Get("X-Ugly")+"\n")
			return nil
		}}},
		"OnUpgrade's error": {Upgrader: Upgrader{OnUpgrade: func(r *http.Request, a *Accept) error {
			return &HandshakeError{500, r.Header.Get("X-Ugly")}
		}}},
		"OnUpgrade's panic": {Upgrader: Upgrader{OnUpgrade: func(r *http.Request, a *Accept) error { panic(r.Header.Get("X-Ugly")) }}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var book logBook
				s.Handler, s.ErrorLog = Events{}, book.logger()
				ln := newPipeListener()
				serve(t, s, ln)
				header := "\r\nX-Ugly: " + ugly + "\r\n\r\n"
				const seconds, each = 5, 20
				statuses := make(map[int]int)
				for range seconds * each {
					status, _, _ := ln.dial(t).status(strings.Replace(peerRequest, "\r\n\r\n", header, 1))
					statuses[status]++
					time.Sleep(time.Second / each)
				}
				lines := book.all()
				if len(lines) != seconds || statuses[500] != seconds*each {
					t.Errorf("%d bad peers in %d s, answered with %v, made %d lines; want 500 and a line a second", seconds*each, seconds, statuses, len(lines))
				}
				for _, line := range lines {
					// A panic's line has its stack.
					if stack := strings.Index(line, " stack="); stack > 0 {
						line = line[:stack]
					}
					if bad := strings.IndexFunc(line, func(r rune) bool { return r > '~' || r < ' ' && r != '\n' }); len(line) > 6<<10 || bad >= 0 {
						t.Errorf("a line of %d bytes with a wild one at %d: %.200q", len(line), bad, line)
					}
				}
			})
		})
	}
}

// Whatever a client writes into the header, what the proxy adds at its right
// names the client.
func FuzzForwardedIP(f *testing.F) {
	f.Add("Forwarded", `for="203.0.113.7`, false)
	f.Add("Forwarded", `for=203.0.113.7;x="\"`, true)
	f.Add("X-Forwarded-For", "unknown, 10.0.0.1,,", false)
	f.Add("X-Forwarded-For", "[::", true)
	proxies := netip.MustParsePrefix("10.0.0.0/8")
	f.Fuzz(func(t *testing.T, header, word string, sameLine bool) {
		added, want := "198.51.100.1", netip.MustParseAddr("198.51.100.1")
		if http.CanonicalHeaderKey(header) == "Forwarded" {
			added = `for="198.51.100.1:80";proto=http`
		}
		lines := []string{word, added}
		if sameLine {
			lines = []string{word + ", " + added}
		}
		r := &http.Request{RemoteAddr: "10.1.2.3:80", Header: http.Header{http.CanonicalHeaderKey(header): lines}}
		if got := ForwardedIP(header, proxies)(r); got != want {
			t.Errorf("%s: %q: client %v, want %v", header, lines, got, want)
		}
	})
}
