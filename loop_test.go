//go:build linux && !noloop

package websocket

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/rawws/websocket/internal/netloop"
)

// A request that outgrows a worker's buffer moves out of it. The buffer stays the
// worker's: in a pool it would become another connection's too.
func TestRequestLargerThanTheWorkersBuffer(t *testing.T) {
	w := &netloop.Worker{Buf: make([]byte, batchSize)}
	h := new(handshake)
	h.borrow(w)
	lent := h.in
	for range batchSize {
		h.room()[0] = 'x'
		h.in.w++
	}
	if h.room()[0] = 'y'; h.in == lent || len(h.in.pending()) != batchSize {
		t.Fatalf("%d bytes of a request lie in a buffer of %d", len(h.in.pending()), len(h.in.b))
	}
	for range 100 {
		if b := getBuffer(batchSize); &b.b[0] == &w.Buf[0] {
			t.Fatal("the worker's buffer is in the pool")
		}
	}
	h.keep()
	if got := h.in.pending(); len(got) != batchSize || len(bytes.Trim(got, "x")) > 0 {
		t.Errorf("%d bytes are kept, want %d of x", len(got), batchSize)
	}
}

// A socket that was adopted from net/http when Shutdown came in between leaves
// the loop again, or that would never end.
func TestAdoptedTooLate(t *testing.T) {
	s := &Server{Handler: echoEvents(), ErrorLog: new(logBook).logger()}
	s.Upgrader.OnUpgrade = func(*http.Request, *Accept) error {
		s.stopping.Store(true) // as if between here and the registration
		return nil
	}
	p := dialHTTPTest(t, httptest.NewUnstartedServer(s), false)
	p.send([]byte(peerRequest))
	p.wantAnswer(503, "the server is going down\n")
	p.wantEnd()
	eventuallyNoLoop(t)
}

// eventuallyNoLoop waits until no worker of a loop is left.
func eventuallyNoLoop(t *testing.T) {
	t.Helper()
	left := func() (n int) {
		for _, stack := range goroutineStacks() {
			if strings.Contains(stack, "netloop.(*set).work") {
				n++
			}
		}
		return n
	}
	for deadline := time.Now().Add(5 * time.Second); left() > 0; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d workers serve a loop that nothing needs", left())
		}
	}
}
