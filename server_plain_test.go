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
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

const plainHead = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"

var (
	bigPage  = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 1<<20)) })
	deafPage = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
)

// plainStalls are clients that stop, with the bound on the time of each.
var plainStalls = []struct {
	name     string
	h        http.Handler
	send     string
	read     bool // the client reads what comes
	from, to time.Duration
}{
	{"no body", plainHandler, plainHead, true, 10 * time.Second, 11 * time.Second},
	{"half a body", plainHandler, plainHead + "hello", true, 10 * time.Second, 11 * time.Second},
	{"no body, and the handler doesn't look", deafPage, plainHead, true, 10 * time.Second, 11 * time.Second},
	{"no chunk", plainHandler, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", true, 10 * time.Second, 11 * time.Second},
	{"half a second request", plainHandler, "GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HT", true, 10 * time.Second, 11 * time.Second},
	{"no second request", plainHandler, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", true, time.Minute, time.Minute + time.Second},
	{"an answer that isn't read", bigPage, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", false, 10 * time.Second, 11 * time.Second},
}

// A body that doesn't come, an answer that isn't read, a request that stops or
// doesn't follow: each socket of plain HTTP has its bound, and Shutdown ends.
func TestPlainHTTPIsBounded(t *testing.T) {
	for _, test := range plainStalls {
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

// page asks for a page, keeps the socket if the server does, and returns the
// status of the answer.
func (p *peer) page() int {
	p.Helper()
	go io.WriteString(p.nc, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(p.nc), nil)
	if err != nil {
		p.Fatal(err)
	}
	io.Copy(io.Discard, resp.Body)
	if resp.Close {
		p.nc.Close()
	}
	return resp.StatusCode
}

// The sockets of plain HTTP have a bound of their own, and one for each client.
func TestMaxHTTPConns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Handler: Events{}, HTTP: plainHandler, MaxConns: 2, MaxHTTPConns: 5, MaxConnsPerIP: 3, ErrorLog: new(logBook).logger()}
		ln := newPipeListener()
		serve(t, s, ln)
		var kept []*peer
		for i, test := range []struct {
			from string
			want int
		}{
			{"192.0.2.1:1", 200}, {"192.0.2.1:2", 200}, {"192.0.2.1:3", 200}, {"192.0.2.1:4", 429},
			{"192.0.2.2:1", 200}, {"192.0.2.2:2", 200}, {"192.0.2.2:3", 503}, {"192.0.2.3:1", 503},
		} {
			p := ln.dialFrom(t, test.from)
			if got := p.page(); got != test.want {
				t.Errorf("request %d, from %s: %d, want %d", i, test.from, got, test.want)
			}
			kept = append(kept, p)
			synctest.Wait() // until one that was refused has given its place back
		}
		if got := s.Stats(); got.HTTP != 5 || s.places[forPages] != 5 || s.places[forSocket] != 0 {
			t.Errorf("%d sockets of HTTP in Stats, %d places of HTTP and %d of WebSockets taken; want 5, 5, 0", got.HTTP, s.places[forPages], s.places[forSocket])
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
			eventually(t, "there is room", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.places[forSocket] == 0 })
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
