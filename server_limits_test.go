package websocket

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
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

// silentCrowd dials ln until it is closed, by many at a time, and returns when
// some have come. Each socket is silent until the server closes it; wait waits
// for that, and is called when nobody accepts any more.
func silentCrowd(t *testing.T, ln *rememberingListener) (wait func()) {
	var dialling, reading sync.WaitGroup
	some := make(chan struct{}, 1000)
	closed := make(chan struct{})
	dial := func() {
		for len(some) < 200 {
			nc, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				return
			}
			some <- struct{}{}
			reading.Go(func() {
				defer nc.Close()
				<-closed
				// A socket that the system has made and nobody accepted may stay.
				if _, accepted := ln.seen.Load(nc.LocalAddr().String()); !accepted {
					return
				}
				nc.SetDeadline(time.Now().Add(patience))
				if _, err := nc.Read(make([]byte, 1)); isTimeout(err) {
					t.Errorf("a silent socket was still open %v after Close", patience)
				}
			})
		}
	}
	for range 20 {
		dialling.Go(dial)
	}
	for range 50 {
		<-some
	}
	return func() {
		close(closed)
		dialling.Wait()
		reading.Wait()
	}
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
				wait := silentCrowd(t, ln)
				s.Close()
				if err := <-served; err != ErrServerClosed {
					t.Errorf("Serve = %v, want ErrServerClosed", err)
				}
				eventually(t, "nothing is left", s.isAtRest)
				ln.Close()
				wait()
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

// Close may give a handshake up in the moment in which it takes its slot, which
// comes back then, too.
func TestSlotOfAHandshakeGivenUp(t *testing.T) {
	s := &Server{Handler: Events{}, MaxHandshakes: 1, ErrorLog: new(logBook).logger()}
	s.init()
	server, _ := pipePair(t)
	h := newHandshake(&s.reg, s, server)
	if err := s.count(h); err != nil {
		t.Fatal(err)
	}
	h.giveUp(errShutdown)
	if err := s.takeSlot(h); err == nil {
		t.Error("takeSlot of a handshake that was given up = nil, want an error")
	}
	if !s.isAtRest() {
		t.Errorf("%d slots are taken afterwards, want none", len(s.slots))
	}
}

// A handshake that waits for its slot when the server is closed has failed once.
func TestCloseCountsWhoWaitsOnce(t *testing.T) {
	for range 50 {
		s := &Server{Handler: Events{}, MaxHandshakes: 1, ErrorLog: new(logBook).logger()}
		ln := newPipeListener()
		served := make(chan error, 1)
		go func() { served <- s.Serve(ln) }()
		ln.dial(t)
		ln.dial(t)
		eventually(t, "the second waits", func() bool { return s.waiting.Load() == 1 })
		s.Close()
		<-served
		eventually(t, "nothing is left", s.isAtRest)
		if got := s.Stats().Failed; got != 2 {
			t.Fatalf("%d handshakes have failed, want the two there were", got)
		}
	}
}
