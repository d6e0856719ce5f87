package websocket

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

// answerClose answers the close frame that is to come, and sends when it came.
func (p *peer) answerClose(code CloseCode) <-chan time.Time {
	at := make(chan time.Time, 1)
	go func() {
		for {
			h, payload, err := p.frame()
			if err != nil {
				p.Errorf("peer: %v; want a close frame of %d", err, code)
				break
			}
			if h.opcode != opClose {
				continue
			}
			if got, _, _ := parseClosePayload([]byte(payload)); got != code {
				p.Errorf("peer: close frame of %d, want %d", got, code)
			}
			at <- time.Now()
			p.nc.Write(closeFrame(code, ""))
			for p.receive() == nil {
			}
			break
		}
		p.nc.Close()
		close(at)
	}()
	return at
}

// Everybody gets 1001, the stuck one delays nobody, and Shutdown returns nil
// after the last close, which the stuck one's is by CloseTimeout.
func TestShutdown(t *testing.T) {
	for name, h := range echoHandlers {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ln := newPipeListener()
				s := &Server{Handler: h}
				serve(t, s, ln)
				ln.open(t) // reads nothing more
				var told []<-chan time.Time
				for range 20 {
					p := ln.open(t)
					p.wantEcho("before")
					told = append(told, p.answerClose(CloseGoingAway))
				}
				synctest.Wait()
				start := time.Now()
				if err := s.Shutdown(context.Background()); err != nil {
					t.Errorf("Shutdown = %v", err)
				}
				if got := time.Since(start); got < 5*time.Second || got > 7*time.Second {
					t.Errorf("Shutdown returned after %v, want the stuck peer's CloseTimeout", got)
				}
				for i, at := range told {
					if got := (<-at).Sub(start); got > time.Second {
						t.Errorf("peer %d was told after %v, want at once", i, got)
					}
				}
				if n := s.Stats().Open; n != 0 {
					t.Errorf("%d connections are left", n)
				}
			})
		})
	}
}

// When the context ends first, what is left is cut and its error returned.
func TestShutdownContext(t *testing.T) {
	for name, h := range echoHandlers {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ln := newPipeListener()
				s := &Server{Handler: h, ErrorLog: new(logBook).logger()}
				serve(t, s, ln)
				stuck, shaking := ln.open(t), ln.dial(t)
				told := ln.open(t).answerClose(CloseGoingAway)
				ctx, cancel := context.WithTimeout(context.Background(), 700*time.Millisecond)
				defer cancel()
				start := time.Now()
				if err := s.Shutdown(ctx); err != context.DeadlineExceeded {
					t.Errorf("Shutdown = %v, want %v", err, context.DeadlineExceeded)
				}
				if got := time.Since(start); got != 700*time.Millisecond {
					t.Errorf("Shutdown returned after %v, want 700ms", got)
				}
				if at, ok := <-told; !ok || at.Sub(start) > 700*time.Millisecond {
					t.Error("the peer that reads wasn't told")
				}
				for _, p := range []*peer{stuck, shaking} {
					for p.receive() == nil { // until the pipe is closed
					}
				}
				synctest.Wait()
				if n := s.Stats().Open; n != 0 {
					t.Errorf("%d connections are left", n)
				}
			})
		})
	}
}

// A handler that does something else sees the shutdown by its Context; one that
// returns only then, and one that opens a connection meanwhile, get 1001.
func TestShutdownIsSeenByContext(t *testing.T) {
	opened := make(chan *Conn)
	s := &Server{Handler: HandlerFunc(func(c *Conn, _ *http.Request) {
		opened <- c
		<-c.Context().Done()
	})}
	p := serveTCP(t, s)()
	p.handshake()
	c := <-opened
	told := p.answerClose(CloseGoingAway)
	if err := s.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown = %v", err)
	}
	if _, ok := <-told; !ok {
		t.Error("the peer wasn't told")
	}
	wantEndError(t, context.Cause(c.Context()), EndError{By: SideServer, Sent: CloseGoingAway, Received: CloseGoingAway, Clean: true}, net.ErrClosed)
}

// What was handed to a write before Shutdown arrives before the close frame.
func TestShutdownLosesNothing(t *testing.T) {
	const messages, size = 200, 20000
	for name, handler := range map[string]func(h HandlerFunc) Handler{
		"HandlerFunc": func(h HandlerFunc) Handler { return h },
		"Events":      func(h HandlerFunc) Handler { return Events{OnOpen: h} },
	} {
		t.Run(name, func(t *testing.T) {
			written := make(chan int)
			s := &Server{}
			s.Handler = handler(func(c *Conn, _ *http.Request) {
				n := 0
				go s.Shutdown(context.Background())
				for n < messages && c.WriteMessage(BinaryMessage, make([]byte, size)) == nil {
					n++
				}
				written <- n
			})
			p := serveTCP(t, s)()
			p.handshake()
			got := make(chan int)
			go func() {
				n := 0
				for {
					h, _, err := p.frame()
					if err != nil || h.opcode == opClose {
						break
					}
					n++
				}
				p.nc.Write(closeFrame(CloseGoingAway, ""))
				p.leave()
				got <- n
			}()
			if sent, received := <-written, <-got; sent != received {
				t.Errorf("%d messages were written, %d arrived", sent, received)
			}
			if err := s.Shutdown(t.Context()); err != nil {
				t.Errorf("Shutdown = %v", err)
			}
		})
	}
}

// Close cuts everything at once, handshakes too.
func TestServerClose(t *testing.T) {
	for name, h := range echoHandlers {
		t.Run(name, func(t *testing.T) {
			s := &Server{Handler: h}
			dial := serveTCP(t, s)
			open, shaking := dial(), dial()
			open.handshake()
			shaking.send([]byte(peerRequest[:40]))
			waitFor(t, "the handshake's begin", func() bool { return s.Stats().Handshaking == 1 })
			if err := s.Close(); err != nil {
				t.Errorf("Close = %v", err)
			}
			open.wantEnd()
			for shaking.receive() == nil {
			}
			if err := s.Shutdown(t.Context()); err != nil {
				t.Errorf("Shutdown after Close = %v", err)
			}
		})
	}
}

// A request that is being sent when the server goes down is answered, if it
// comes soon, with 503.
func TestShutdownDuringAHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipeListener()
		s := &Server{Handler: echoEvents()}
		serve(t, s, ln)
		soon, never := ln.dial(t), ln.dial(t)
		for _, p := range []*peer{soon, never} {
			p.send([]byte(peerRequest[:40]))
		}
		synctest.Wait()
		done := make(chan error)
		go func() { done <- s.Shutdown(context.Background()) }()
		time.Sleep(500 * time.Millisecond)
		soon.send([]byte(peerRequest[40:]))
		if resp, _ := soon.answer(); resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("answer %s, want 503", resp.Status)
		}
		soon.nc.Close()
		never.leave()
		if err := <-done; err != nil {
			t.Errorf("Shutdown = %v", err)
		}
	})
}

// Behind net/http the Server's connections are closed by RegisterOnShutdown,
// as the documentation says.
func TestShutdownBehindNetHTTP(t *testing.T) {
	for name, h := range echoHandlers {
		t.Run(name, func(t *testing.T) {
			s := &Server{Handler: h}
			ts := httptest.NewUnstartedServer(s)
			p := dialHTTPTest(t, ts, false)
			done := make(chan error)
			ts.Config.RegisterOnShutdown(func() { done <- s.Shutdown(context.Background()) })
			p.handshake()
			p.wantEcho("before")
			told := p.answerClose(CloseGoingAway)
			if err := ts.Config.Shutdown(t.Context()); err != nil {
				t.Errorf("http.Server.Shutdown = %v", err)
			}
			if err := <-done; err != nil {
				t.Errorf("Server.Shutdown = %v", err)
			}
			if _, ok := <-told; !ok {
				t.Error("the peer wasn't told 1001")
			}
			w := httptest.NewRecorder()
			s.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
			if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
				t.Errorf("ServeHTTP after Shutdown answers %d, Retry-After %q; want 503", w.Code, w.Header().Get("Retry-After"))
			}
		})
	}
}

// A Shutdown whose context has ended already cuts.
func TestShutdownWithoutTime(t *testing.T) {
	s := &Server{Handler: echoEvents()}
	p := serveTCP(t, s)()
	p.handshake()
	p.wantEcho("before")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown = %v, want %v", err, context.Canceled)
	}
	for p.receive() == nil {
	}
}
