package websocket

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// A badHandler is a slog.Handler that does something else with each line.
type badHandler struct {
	slog.Handler
	misdeed func()
	lines   *atomic.Int64
}

func (h badHandler) Handle(context.Context, slog.Record) error {
	h.lines.Add(1)
	h.misdeed()
	return nil
}

// overBadLogs runs f with an ErrorLog that panics, ends its goroutine, or never returns.
func overBadLogs(t *testing.T, f func(t *testing.T, bad *slog.Logger, lines *atomic.Int64)) {
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	bad := maps.Clone(misdeeds)
	bad["block"] = func() { <-release }
	for kind, misdeed := range bad {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			lines := new(atomic.Int64)
			f(t, slog.New(badHandler{slog.NewTextHandler(io.Discard, nil), misdeed, lines}), lines)
		})
	}
}

// An ErrorLog that misbehaves costs nobody anything: what it was to be told of is a
// refusal, a handler that panics, or a net.Conn that does so under the sweeper.
func TestErrorLogMayDoAnything(t *testing.T) {
	t.Parallel()
	overBadLogs(t, func(t *testing.T, bad *slog.Logger, lines *atomic.Int64) {
		var opened, closes atomic.Int64
		s := &Server{MaxConns: 1, MaxHandshakes: 1, ErrorLog: bad,
			Upgrader: Upgrader{Origins: []string{"none.example"}, IdleTimeout: time.Second, CloseTimeout: 200 * time.Millisecond},
			Handler: Events{
				OnOpen:    func(*Conn, *http.Request) { opened.Add(1) },
				OnMessage: func(*Conn, MessageType, []byte) { panic("boom") },
				OnClose:   func(*Conn, error) { closes.Add(1) },
			}}
		ln := &panickingListener{Listener: listen(t)}
		serve(t, s, ln)
		onLoop := listen(t)
		serve(t, s, onLoop)
		for range 2 {
			logAll(t, s, ln, ln.Addr().String())
			logAll(t, s, ln, onLoop.Addr().String())
		}
		if opened.Load() != 8 || closes.Load() != 8 {
			t.Errorf("%d opened, %d closed; want 8 and 8", opened.Load(), closes.Load())
		}
		if lines.Load() == 0 {
			t.Error("nothing was logged")
		}
	})
}

// logAll has one after the other happen that is logged.
func logAll(t *testing.T, s *Server, ln *panickingListener, addr string) {
	p := newPeer(t, dialAddr(t, addr))
	p.send([]byte("GET / HTTP/1.1\r\nHost: server.example\r\n\r\n"))
	if resp, _ := p.answer(); resp.StatusCode != 426 {
		t.Errorf("answer %s, want 426", resp.Status)
	}
	p.nc.Close()
	eventually(t, "nothing is left of a refusal", s.isAtRest)

	p = newPeer(t, dialAddr(t, addr))
	p.handshake()
	p.sendText("boom")
	p.wantClose(CloseInternalError, "")
	p.nc.Close()
	eventually(t, "nothing is left of a panic", s.isAtRest)

	p = newPeer(t, dialAddr(t, addr))
	p.handshake()
	setDeadline := "SetReadDeadline" // as the sweeper takes it off
	ln.in.Store(&setDeadline)
	p.wantClose(CloseNormal, "idle")
	p.nc.Close()
	eventually(t, "nothing is left of an idle one", s.isAtRest)
	ln.in.Store(nil)
}

// Nor does one of an Accept that fails.
func TestErrorLogOfAccept(t *testing.T) {
	t.Parallel()
	overBadLogs(t, func(t *testing.T, bad *slog.Logger, lines *atomic.Int64) {
		s := &Server{Handler: Events{}, ErrorLog: bad}
		ln := &faultyListener{pipeListener: newPipeListener()}
		ln.fail(syscall.EMFILE)
		serve(t, s, ln)
		eventually(t, "it is logged", func() bool { return lines.Load() > 0 })
		ln.fails.Store(nil)
		ln.open(t).closeWith(CloseNormal, "")
	})
}

// While the slog.Handler of a kind of lines blocks, there are no more of these, and the
// first one behind them tells how many were left out.
func TestErrorLogThatBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var book logBook
		release, lines := make(chan struct{}), new(atomic.Int64)
		reg := &registry{log: lineLog{to: slog.New(badHandler{slog.NewTextHandler(io.Discard, nil), func() { <-release }, lines})}}
		start := time.Now()
		for range 10 {
			reg.logFault(logAccept, "accept")
			time.Sleep(time.Second)
		}
		if took := time.Since(start); lines.Load() != 1 || took != 10*time.Second+moment {
			t.Errorf("%d lines, and their callers waited %v; want one, and %v", lines.Load(), took-10*time.Second, moment)
		}
		close(release)
		synctest.Wait()
		reg.log.to = book.logger()
		reg.logFault(logAccept, "accept")
		if got := book.all(); len(got) != 1 || !strings.Contains(got[0], `more="9 like it since the last line"`) {
			t.Errorf("then the log says %q, want one line that stands for 9 more", got)
		}
	})
}
