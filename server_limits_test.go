package websocket

import (
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
