package websocket

import (
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var huge = sync.OnceValue(func() string { return strings.Repeat("x", 16<<20) })

// hugeAnswers are those that no socket takes at once, by what OnUpgrade says.
var hugeAnswers = map[string]func(a *Accept) error{
	"101": func(a *Accept) error {
		a.Header.Set("X-Huge", huge())
		return nil
	},
	"101, its own handler": func(a *Accept) error {
		a.Header.Set("X-Huge", huge())
		a.Handler = HandlerFunc(func(c *Conn, _ *http.Request) { c.ReadMessage() })
		return nil
	},
	"403": func(a *Accept) error {
		a.Header.Set("Content-Type", "text/plain")
		return &HandshakeError{Status: http.StatusForbidden, Reason: huge()}
	},
}

// overHugeAnswers runs f with each of them, in every way in.
func overHugeAnswers(t *testing.T, timeout time.Duration, f func(t *testing.T, dial dialFunc, s *Server)) {
	for name, says := range hugeAnswers {
		t.Run(name, func(t *testing.T) {
			u := Upgrader{HandshakeTimeout: timeout, OnUpgrade: func(_ *http.Request, a *Accept) error { return says(a) }}
			overServers(t, func() *Server { return &Server{Handler: Events{}, Upgrader: u} }, f)
		})
	}
}

// An answer that the socket doesn't take at once goes out whole.
func TestHugeAnswerIsWhole(t *testing.T) {
	overHugeAnswers(t, time.Minute, func(t *testing.T, dial dialFunc, _ *Server) {
		c := dial(t)
		c.SendRaw([]byte(peerRequest))
		resp := c.ReadResponse()
		body, err := io.ReadAll(resp.Body)
		if n := len(resp.Header.Get("X-Huge")) + len(body); n < 16<<20 || err != nil {
			t.Errorf("%d bytes of the answer's header and content, %v; want all 16 MiB", n, err)
		}
	})
}

// A client that takes nothing of its answer is cut when HandshakeTimeout is over,
// and nothing waits for it.
func TestHugeAnswerIsBounded(t *testing.T) {
	overHugeAnswers(t, 2*time.Second, func(t *testing.T, dial dialFunc, s *Server) {
		t.Parallel()
		late := uint64(0) // a busy machine needs longer to look at what OnUpgrade said
		for attempt := uint64(1); late == attempt-1 && attempt <= 10; attempt++ {
			c := dial(t)
			c.NetConn().Write([]byte(peerRequest))
			eventually(t, "the handshake is over", func() bool {
				got := s.Stats()
				late = got.Refused[http.StatusServiceUnavailable]
				return got.Handshaking == 0 && got.Open == 0 && got.Failed+got.Refused[http.StatusForbidden]+late == attempt
			})
			if _, err := io.Copy(io.Discard, c.NetConn()); isTimeout(err) {
				t.Errorf("the client's socket is still open: %v", err)
			}
		}
	})
}

// Who is accepted in the moment in which Shutdown begins has no longer than the
// others for the request, though the clock starts later.
func TestShutdownAsTheClockStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		entered, release := make(chan struct{}), make(chan struct{})
		s := &Server{Handler: Events{}, ErrorLog: new(logBook).logger(), Upgrader: Upgrader{HandshakeTimeout: time.Minute,
			Trace: &Trace{Accepted: func(uint64, net.Conn) { close(entered); <-release }}}}
		ln := newPipeListener()
		serve(t, s, ln)
		p := ln.dial(t)
		<-entered
		done, start := shutDown(s, t.Context()), time.Now()
		synctest.Wait()
		close(release)
		if answer, err := io.ReadAll(p.nc); !strings.HasPrefix(string(answer), "HTTP/1.1 503 ") {
			t.Errorf("a silent client read %q, %v; want 503", answer, err)
		}
		if err := <-done; err != nil || time.Since(start) > 2*time.Second {
			t.Errorf("Shutdown = %v after %v, want nil within 2 s", err, time.Since(start))
		}
	})
}
