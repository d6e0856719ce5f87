package websocket

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// The limits of a request's head hold for the first request on a socket and for
// the second, and behind net/http, as far as that lets them be seen.
func TestHeadLimitsInEveryWay(t *testing.T) {
	with := func(header string) string {
		return strings.Replace(peerRequest, "\r\n\r\n", "\r\n"+header+"\r\n\r\n", 1)
	}
	for _, test := range []struct {
		name, request string
		u             Upgrader
		want          int
	}{
		{"15 KiB of header", with("X: " + strings.Repeat("x", 15<<10)), Upgrader{}, 101},
		{"17 KiB of header", with("X: " + strings.Repeat("x", 17<<10)), Upgrader{}, 431},
		{"300 KiB of header", with("X: " + strings.Repeat("x", 300<<10)), Upgrader{}, 431},
		{"MaxHeaderBytes", with("X: " + strings.Repeat("x", 1000)), Upgrader{MaxHeaderBytes: 1000}, 431},
		{"100 header lines", with(strings.TrimSuffix(strings.Repeat("X: x\r\n", 95), "\r\n")), Upgrader{}, 101},
		{"101 header lines", with(strings.TrimSuffix(strings.Repeat("X: x\r\n", 96), "\r\n")), Upgrader{}, 431},
		{"a target of 8,000 bytes", strings.Replace(peerRequest, "/chat", "/"+strings.Repeat("x", 7999), 1), Upgrader{}, 101},
		{"a target of 8 KiB", strings.Replace(peerRequest, "/chat", "/"+strings.Repeat("x", 8191), 1), Upgrader{}, 414},
	} {
		for way, connect := range waysIn {
			t.Run(test.name+"/"+way, func(t *testing.T) {
				p := connect(t, test.u)
				go p.nc.Write([]byte(test.request))
				if resp, text := p.answer(); resp.StatusCode != test.want {
					t.Errorf("answer %s %q, want %d", resp.Status, text, test.want)
				}
			})
		}
	}
}

// A gate holds up what passes through it, and counts how much that is at the
// same time.
type gate struct {
	open         chan struct{}
	inside, peak atomic.Int32
}

func newGate() *gate { return &gate{open: make(chan struct{})} }

func (g *gate) pass() {
	n := g.inside.Add(1)
	for most := g.peak.Load(); n > most && !g.peak.CompareAndSwap(most, n); most = g.peak.Load() {
	}
	<-g.open
	g.inside.Add(-1)
}

// MaxHandshakes bounds how many requests are decided on at the same time, those
// that net/http has read among them.
func TestMaxHandshakesBehindNetHTTP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		s := &Server{Handler: Events{}, MaxHandshakes: 1, ErrorLog: new(logBook).logger(), Upgrader: Upgrader{
			OnUpgrade: func(*http.Request, *Accept) error { g.pass(); return nil }}}
		ln := newPipeListener()
		hs := &http.Server{Handler: s}
		go hs.Serve(ln)
		defer hs.Close()
		defer s.Close()
		answers := make(chan int, 20)
		for range cap(answers) {
			p := ln.dial(t)
			go func() {
				status, _, _ := p.status(peerRequest)
				answers <- status
			}()
		}
		synctest.Wait()
		if got := s.Stats().Handshaking; g.inside.Load() != 1 || got != 1 {
			t.Errorf("with MaxHandshakes 1 %d of 20 requests are in OnUpgrade, %d in Stats; want 1", g.inside.Load(), got)
		}
		close(g.open)
		for range cap(answers) {
			if status := <-answers; status != 101 {
				t.Errorf("answer %d, want 101", status)
			}
		}
		if g.peak.Load() != 1 {
			t.Errorf("up to %d requests were in OnUpgrade, want 1", g.peak.Load())
		}
	})
}

// Who waits for a slot behind net/http has HandshakeTimeout for that.
func TestWaitForASlotEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		defer close(g.open)
		s := &Server{Handler: Events{}, MaxHandshakes: 1, ErrorLog: new(logBook).logger(), Upgrader: Upgrader{
			HandshakeTimeout: time.Second,
			OnUpgrade:        func(*http.Request, *Accept) error { g.pass(); return nil }}}
		ln := newPipeListener()
		hs := &http.Server{Handler: s}
		go hs.Serve(ln)
		defer hs.Close()
		start := time.Now()
		var wg sync.WaitGroup
		for range 3 {
			p := ln.dial(t)
			wg.Go(func() {
				if status, _, text := p.status(peerRequest); status != 503 || time.Since(start) > 1100*time.Millisecond {
					t.Errorf("answer %d %q after %v, want 503 after 1 s", status, text, time.Since(start))
				}
			})
		}
		wg.Wait()
	})
}

// What comes to a TLS port and isn't TLS leaves nothing in any table.
func TestPlainRequestsOnTLSLeaveNothing(t *testing.T) {
	s := &Server{Handler: Events{}, MaxConnsPerIP: 50, ErrorLog: new(logBook).logger()}
	addr := serveTLS(t, s)
	for range 20 {
		nc := dialAddr(t, addr)
		io.WriteString(nc, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if answer, err := io.ReadAll(nc); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") {
			t.Errorf("answer %q, %v; want 400", answer, err)
		}
		nc.Close()
	}
	eventually(t, "nothing is left", s.isAtRest)
	if got := s.Stats(); got.Handshaking != 0 || got.Refused[400] != 20 {
		t.Errorf("%d in their handshake, %d refused with 400; want 0 and 20", got.Handshaking, got.Refused[400])
	}
}

// A rememberingListener knows whom it has accepted.
type rememberingListener struct {
	net.Listener
	seen sync.Map
}

func (l *rememberingListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err == nil {
		l.seen.Store(nc.RemoteAddr().String(), true)
	}
	return nc, err
}

// A socket that is admitted in the moment in which the server stops is closed
// with the others, whether it came before Close looked or after.
func TestCloseFindsEverySocket(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("TLS %t", secure), func(t *testing.T) {
			for range 10 {
				s := &Server{Handler: Events{}, HTTP: plainHandler, ErrorLog: new(logBook).logger()}
				ln := &rememberingListener{Listener: listen(t)}
				served := make(chan error, 1)
				go func() {
					if secure {
						s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{testCertificate()}}
						served <- s.ServeTLS(ln, "", "")
					} else {
						served <- s.Serve(ln)
					}
				}()
				var wg sync.WaitGroup
				some := make(chan struct{}, 1000)
				for range 20 {
					wg.Go(func() {
						for {
							nc, err := net.Dial("tcp", ln.Addr().String())
							if err != nil {
								return
							}
							some <- struct{}{}
							wg.Go(func() { // silent, until the server closes it
								defer nc.Close()
								nc.SetDeadline(time.Now().Add(5 * time.Second))
								// A socket that the system has made and nobody accepted may stay.
								_, err := nc.Read(make([]byte, 1))
								if _, accepted := ln.seen.Load(nc.LocalAddr().String()); accepted && isTimeout(err) {
									t.Error("a silent socket was still open 5 s after Close")
								}
							})
							if len(some) > 200 {
								return
							}
						}
					})
				}
				for range 50 {
					<-some
				}
				s.Close()
				if err := <-served; err != ErrServerClosed {
					t.Errorf("Serve = %v, want ErrServerClosed", err)
				}
				eventually(t, "nothing is left", s.isAtRest)
				ln.Close()
				wg.Wait()
			}
		})
	}
}

// serveTLSPipes is serve over TLS.
func serveTLSPipes(t *testing.T, s *Server, ln net.Listener) {
	s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{testCertificate()}}
	done := make(chan error)
	go func() { done <- s.ServeTLS(ln, "", "") }()
	t.Cleanup(func() {
		s.Close()
		<-done
	})
}

// A silent crowd over MaxConns, or of one address over MaxConnsPerIP, is turned
// away within two seconds, and costs others no slot of MaxHandshakes meanwhile.
func TestSilentCrowdOverTLS(t *testing.T) {
	testCertificate()
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Handler: echoEvents(), MaxConns: 10, MaxConnsPerIP: 2, MaxHandshakes: 4, ErrorLog: new(logBook).logger()}
		ln := newPipeListener()
		serveTLSPipes(t, s, ln)
		start := time.Now()
		ends := make(chan time.Duration, 200)
		for range cap(ends) {
			p := ln.dialFrom(t, "192.0.2.1:1000")
			go func() {
				io.Copy(io.Discard, p.nc)
				ends <- time.Since(start)
			}()
		}
		synctest.Wait()
		if got := s.Stats().Handshaking; got > 2+maxRefusals {
			t.Errorf("%d of 200 silent sockets are held at first, want the 2 allowed and %d that may still get an answer", got, maxRefusals)
		}
		other := ln.dialFrom(t, "192.0.2.2:1000")
		p := newPeer(t, tls.Client(other.nc, &tls.Config{InsecureSkipVerify: true})) // there it is the year 2000
		p.handshake()
		if took := time.Since(start); took != 0 {
			t.Errorf("another address waited %v, want nothing", took)
		}
		late := 0
		for range cap(ends) {
			if at := <-ends; at > refusalTime {
				late++
			}
		}
		if late != 2 {
			t.Errorf("%d silent sockets were held for longer than %v, want the 2 that were allowed", late, refusalTime)
		}
	})
}

// A body that doesn't come, an answer that isn't read, a request that stops or
// doesn't follow: each socket of plain HTTP has its bound, and Shutdown ends.
func TestPlainHTTPIsBounded(t *testing.T) {
	head := "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"
	big := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 1<<20)) })
	deaf := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	for _, test := range []struct {
		name     string
		h        http.Handler
		send     string
		read     bool // the client reads what comes
		from, to time.Duration
	}{
		{"no body", plainHandler, head, true, 10 * time.Second, 11 * time.Second},
		{"half a body", plainHandler, head + "hello", true, 10 * time.Second, 11 * time.Second},
		{"no body, and the handler doesn't look", deaf, head, true, 10 * time.Second, 11 * time.Second},
		{"no chunk", plainHandler, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", true, 10 * time.Second, 11 * time.Second},
		{"half a second request", plainHandler, "GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HT", true, 10 * time.Second, 11 * time.Second},
		{"no second request", plainHandler, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", true, time.Minute, time.Minute + time.Second},
		{"an answer that isn't read", big, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", false, 10 * time.Second, 11 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &Server{Handler: Events{}, HTTP: test.h, ErrorLog: new(logBook).logger()}
				ln := newPipeListener()
				serve(t, s, ln)
				start := time.Now()
				p := ln.dial(t)
				go p.nc.Write([]byte(test.send))
				if test.read {
					go io.Copy(io.Discard, p.nc)
				}
				synctest.Wait()
				if got := s.Stats(); got.HTTP != 1 || got.Handshaking != 0 {
					t.Errorf("Stats: %d sockets of HTTP, %d in their handshake; want 1 and 0", got.HTTP, got.Handshaking)
				}
				for s.Stats().HTTP > 0 && time.Since(start) < 10*time.Minute {
					time.Sleep(50 * time.Millisecond)
				}
				if took := time.Since(start); took < test.from || took > test.to {
					t.Errorf("the socket was held for %v, want %v to %v", took, test.from, test.to)
				}
			})
		})
	}
}

// A slow client is no silent one: a body that drips in and an answer that is
// taken a little at a time may take minutes, and so may a long poll.
func TestPlainHTTPMayBeSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipeListener()
		serve(t, &Server{HTTP: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			time.Sleep(3 * time.Minute)
			if len(body) != 20 || err != nil || r.Context().Err() != nil {
				t.Errorf("body of %d bytes, %v, context %v; want 20 and nothing wrong", len(body), err, r.Context().Err())
			}
			w.Write(make([]byte, 1<<20))
		})}, ln)
		p := ln.dial(t)
		p.nc.Write([]byte("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n"))
		for range 20 {
			time.Sleep(9 * time.Second)
			p.nc.Write([]byte("x"))
		}
		resp, err := http.ReadResponse(bufio.NewReaderSize(slowReader{p.nc, 64 << 10, 9 * time.Second}, 64<<10), nil)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, resp.Body); n != 1<<20 || err != nil {
			t.Errorf("read %d bytes of the answer, %v; want all of it", n, err)
		}
	})
}

// A slowReader reads a piece at a time, and rests after each.
type slowReader struct {
	r     io.Reader
	piece int
	rest  time.Duration
}

func (s slowReader) Read(p []byte) (int, error) {
	n, err := io.ReadAtLeast(s.r, p[:min(len(p), s.piece)], 1)
	time.Sleep(s.rest * time.Duration(n) / time.Duration(s.piece))
	return n, err
}

// The sockets of plain HTTP have a bound of their own, and one for each client.
func TestMaxHTTPConns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Handler: Events{}, HTTP: plainHandler, MaxConns: 2, MaxHTTPConns: 5, MaxConnsPerIP: 3, ErrorLog: new(logBook).logger()}
		ln := newPipeListener()
		serve(t, s, ln)
		var kept []*peer
		get := func(from string) (status int) {
			p := ln.dialFrom(t, from)
			go io.WriteString(p.nc, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			resp, err := http.ReadResponse(bufio.NewReader(p.nc), nil)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, resp.Body)
			if kept = append(kept, p); resp.Close {
				p.nc.Close()
			}
			return resp.StatusCode
		}
		for i, test := range []struct {
			from string
			want int
		}{
			{"192.0.2.1:1", 200}, {"192.0.2.1:2", 200}, {"192.0.2.1:3", 200}, {"192.0.2.1:4", 429},
			{"192.0.2.2:1", 200}, {"192.0.2.2:2", 200}, {"192.0.2.2:3", 503}, {"192.0.2.3:1", 503},
		} {
			if got := get(test.from); got != test.want {
				t.Errorf("request %d, from %s: %d, want %d", i, test.from, got, test.want)
			}
		}
		synctest.Wait()
		if got := s.Stats(); got.HTTP != 5 || s.plainActive != 5 || s.active != 0 {
			t.Errorf("%d sockets of HTTP in Stats, %d places of HTTP and %d of WebSockets taken; want 5, 5, 0", got.HTTP, s.plainActive, s.active)
		}
		for _, p := range kept {
			p.nc.Close()
		}
		synctest.Wait()
		if !s.isAtRest() {
			t.Error("something is counted when every socket has gone")
		}
	})
}

// Pages and /metrics are served when WebSockets have filled MaxConns and
// MaxConnsPerIP, an upgrade is refused all the same, and let in when there is room.
func TestPagesWhileFull(t *testing.T) {
	for _, limit := range []string{"MaxConns", "MaxConnsPerIP"} {
		t.Run(limit, func(t *testing.T) {
			s := &Server{Handler: Events{}, HTTP: plainHandler, ErrorLog: new(logBook).logger()}
			want := 503
			if limit == "MaxConns" {
				s.MaxConns = 1
			} else {
				s.MaxConnsPerIP, want = 1, 429
			}
			dial := serveTCP(t, s)
			open := dial()
			open.handshake()
			page := dial()
			page.send([]byte("GET /page HTTP/1.1\r\nHost: x\r\n\r\n"))
			page.wantAnswer(200, `GET /page "" <nil> TLS false`)
			page.nc.Close()
			eventually(t, "the page's socket has gone", func() bool { return s.Stats().HTTP == 0 })
			refused := dial()
			if status, _, text := refused.status(peerRequest); status != want || !strings.Contains(text, limit) {
				t.Errorf("an upgrade: %d %q, want %d with %s", status, text, want, limit)
			}
			eventually(t, "nobody is in a handshake", func() bool { return s.Stats().Handshaking == 0 })
			waiting := dial() // while it is full
			eventually(t, "it is in its handshake", func() bool { return s.Stats().Handshaking == 1 })
			open.closeWith(CloseNormal, "")
			eventually(t, "there is room", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.active == 0 })
			waiting.handshake()
			waiting.closeWith(CloseNormal, "")
			eventually(t, "nothing is left", s.isAtRest)
		})
	}
}

// AllowedHosts keeps DNS rebinding out of the pages too, on the first request of
// a socket and on the second, and where the Server is mounted.
func TestAllowedHostsOfPages(t *testing.T) {
	s := &Server{Handler: Events{}, HTTP: plainHandler, ErrorLog: new(logBook).logger(),
		Upgrader: Upgrader{AllowedHosts: []string{"good.example"}}}
	dial := serveTCP(t, s)
	for _, test := range []struct {
		host string
		want int
	}{{"good.example", 200}, {"good.example:8080", 200}, {"evil.example", 403}} {
		request := "GET / HTTP/1.1\r\nHost: " + test.host + "\r\n\r\n"
		p := dial()
		p.send([]byte(request))
		if resp, text := p.answer(); resp.StatusCode != test.want {
			t.Errorf("Host %s: %s %q, want %d", test.host, resp.Status, text, test.want)
		}
		p = dial()
		p.send([]byte("GET / HTTP/1.1\r\nHost: good.example\r\n\r\n"))
		p.answer()
		p.send([]byte(request))
		if resp, text := p.answer(); resp.StatusCode != test.want {
			t.Errorf("Host %s in the second request: %s %q, want %d", test.host, resp.Status, text, test.want)
		}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest("GET", "http://"+test.host+"/", nil))
		if w.Code != test.want {
			t.Errorf("Host %s, mounted: %d, want %d", test.host, w.Code, test.want)
		}
	}
}

// A mounted Server gives plain requests to HTTP, also where HTTP is a mux that
// has the Server on it.
func TestMountedServerHasPages(t *testing.T) {
	s := &Server{Handler: echoEvents()}
	mux := http.NewServeMux()
	mux.Handle("/chat", s)
	mux.Handle("/page", plainHandler)
	s.HTTP = mux
	ts := httptest.NewServer(s)
	defer ts.Close()
	for _, dial := range []func() *peer{serveTCP(t, s), func() *peer { return newPeer(t, dialAddr(t, ts.Listener.Addr().String())) }} {
		p := dial()
		p.send([]byte("GET /page HTTP/1.1\r\nHost: x\r\n\r\n"))
		p.wantAnswer(200, `GET /page "" <nil> TLS false`)
		p.handshake()
		p.wantEcho("hello")
		p.closeWith(CloseNormal, "")
		p = dial()
		p.send([]byte("GET /chat HTTP/1.1\r\nHost: x\r\n\r\n"))
		if resp, _ := p.answer(); resp.StatusCode != http.StatusUpgradeRequired {
			t.Errorf("a plain request for the WebSocket: %s, want 426", resp.Status)
		}
	}
}

// HTTPServer brings the settings of net/http.
func TestHTTPServerTemplate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		var states atomic.Int32
		template := &http.Server{
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprint(w, r.Context().Value(key{}))
			}),
			ReadTimeout: 3 * time.Second, IdleTimeout: 7 * time.Second,
			BaseContext: func(net.Listener) context.Context { return context.WithValue(context.Background(), key{}, "base") },
			ConnState:   func(net.Conn, http.ConnState) { states.Add(1) },
		}
		s := &Server{Handler: Events{}, HTTPServer: template}
		ln := newPipeListener()
		serve(t, s, ln)
		start := time.Now()
		p := ln.dial(t)
		p.send([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
		p.wantAnswer(200, "base")
		if err := p.receive(); err != io.EOF || time.Since(start) != 7*time.Second {
			t.Errorf("the idle socket: %v after %v, want it closed after 7 s", err, time.Since(start))
		}
		if states.Load() == 0 {
			t.Error("ConnState wasn't called")
		}
	})
}

// A hook of RegisterOnShutdown ends what would hold Shutdown.
func TestRegisterOnShutdown(t *testing.T) {
	going := make(chan struct{})
	entered := make(chan struct{})
	s := &Server{HTTP: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-going // a long poll
	})}
	s.RegisterOnShutdown(func() { close(going) })
	s.RegisterOnShutdown(func() { panic("boom") })
	s.ErrorLog = new(logBook).logger()
	p := serveTCP(t, s)()
	p.send([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	<-entered
	if err := s.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown = %v", err)
	}
	p.wantAnswer(200, "")
}

// A CRLF that an old client sends behind a body stands before the next request,
// plain or not.
func TestEmptyLineBeforePlainRequest(t *testing.T) {
	p := serveTCP(t, &Server{HTTP: plainHandler})()
	p.send([]byte("\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n"))
	p.wantAnswer(200, `GET /a "" <nil> TLS false`)
}

// TLS without a certificate is told at once, and not by every handshake.
func TestServeTLSWithoutCertificate(t *testing.T) {
	for _, config := range []*tls.Config{nil, {}} {
		ln := listen(t)
		err := (&Server{TLSConfig: config}).ServeTLS(ln, "", "")
		if err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("ServeTLS with %v = %v, want an error about the certificate", config, err)
		}
		if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept = %v; want the listener to be closed", err)
		}
	}
}

// A ResponseWriter that can't give its connection up is named.
func TestNoHijacker(t *testing.T) {
	s := &Server{Handler: Events{}, ErrorLog: new(logBook).logger()}
	ts := httptest.NewServer(http.TimeoutHandler(s, time.Minute, ""))
	defer ts.Close()
	p := newPeer(t, dialAddr(t, ts.Listener.Addr().String()))
	p.send([]byte(peerRequest))
	if resp, text := p.answer(); resp.StatusCode != 500 || !strings.Contains(text, "*http.timeoutWriter") {
		t.Errorf("answer %s %q, want 500 that names *http.timeoutWriter", resp.Status, text)
	}
}

// A panic of HTTP's handler costs its request, is counted, and logged once with
// its stack; http.ErrAbortHandler is no fault.
func TestPlainHandlerMayDoAnything(t *testing.T) {
	for name, test := range map[string]struct {
		misdeed func()
		panics  uint64
	}{
		"panic":           {misdeeds["panic"], 1},
		"Goexit":          {misdeeds["Goexit"], 1},
		"ErrAbortHandler": {func() { panic(http.ErrAbortHandler) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var book logBook
			s := &Server{Handler: echoEvents(), ErrorLog: book.logger(), HTTP: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { test.misdeed() })}
			dial := serveTCP(t, s)
			p := dial()
			p.send([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
			p.wantEnd()
			eventually(t, "nothing is left", s.isAtRest)
			if got := s.Stats().Panics; got != test.panics || len(book.all()) != int(test.panics) {
				t.Errorf("%d panics counted, logged %q; want %d", got, book.all(), test.panics)
			}
			p = dial()
			p.handshake()
			p.closeWith(CloseNormal, "")
		})
	}
}
