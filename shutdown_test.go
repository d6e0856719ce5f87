package websocket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// shutdownHandlers serve a connection in each of the ways there are.
func shutdownHandlers() map[string]Handler {
	echo := echoHandler(nil)
	return map[string]Handler{
		"events":   Events{OnMessage: func(c *Conn, typ MessageType, data []byte) { c.WriteMessage(typ, data) }},
		"function": echo,
		"function that doesn't read": HandlerFunc(func(c *Conn, r *http.Request) {
			<-c.Context().Done()
		}),
	}
}

// shutDown runs Shutdown and returns what it returned, and when.
func shutDown(s *Server, ctx context.Context) <-chan error {
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(ctx) }()
	return done
}

// What the application says to the clients reaches them as a close frame that
// they may read: a browser ends a connection whose reason isn't UTF-8 with 1002.
func TestShutdownReason(t *testing.T) {
	for _, test := range []struct{ reason, want string }{
		{"", ""},
		{"a\xffb", "a\uFFFDb"},
		{strings.Repeat("\u00e9", 100), strings.Repeat("\u00e9", 61)},
	} {
		for name, handler := range shutdownHandlers() {
			s := &Server{Handler: handler, ShutdownReason: test.reason}
			p := serveTCP(t, s)()
			p.handshake()
			done := shutDown(s, t.Context())
			p.wantClose(CloseGoingAway, test.want)
			p.send(closeFrame(CloseGoingAway, ""))
			if err := <-done; err != nil {
				t.Errorf("%s, reason %q: Shutdown = %v", name, test.reason, err)
			}
		}
	}
}

// The clients are sent away one after the other, evenly, and the one whose
// turn hasn't come is served as if nothing were.
func TestShutdownSpread(t *testing.T) {
	const conns, spread = 40, 20 * time.Second
	for _, test := range []struct {
		name    string
		timeout time.Duration // of ctx, 0 for none
		want    time.Duration // between the first and the last
	}{
		{"no deadline", 0, spread * (conns - 1) / conns},
		{"far deadline", time.Hour, spread * (conns - 1) / conns},
		{"deadline inside", 15 * time.Second, 10 * time.Second * (conns - 1) / conns}, // 5 s for the last one's closing handshake
		{"deadline too near to spread", 4 * time.Second, 0},
	} {
		for name, handler := range shutdownHandlers() {
			t.Run(test.name+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := &Server{Handler: handler, ShutdownSpread: spread}
					ln := newPipeListener()
					serve(t, s, ln)
					var peers []*peer
					for range conns {
						peers = append(peers, ln.open(t))
					}
					synctest.Wait()
					ctx := context.Background()
					if test.timeout > 0 {
						var cancel context.CancelFunc
						ctx, cancel = context.WithTimeout(ctx, test.timeout)
						defer cancel()
					}
					start := time.Now()
					times := make(chan time.Duration, conns)
					done := shutDown(s, ctx)
					for _, p := range peers {
						go func() { times <- p.wantClosed(CloseGoingAway, "").Sub(start) }()
					}
					last, gap := time.Duration(0), time.Duration(0)
					for range peers {
						at := <-times
						last, gap = at, max(gap, at-last)
					}
					if last < test.want-time.Millisecond || last > test.want+time.Second || gap > spread/conns+10*time.Millisecond {
						t.Errorf("the last of %d was sent away after %v, the longest pause was %v; want %v in even steps", conns, last, gap, test.want)
					}
					if err := <-done; err != nil {
						t.Errorf("Shutdown = %v, want nil", err)
					}
					if got := s.Stats().ClosedByServer[CloseGoingAway]; got != conns {
						t.Errorf("ends by the server with 1001: %d, want %d", got, conns)
					}
				})
			})
		}
	}
}

func TestShutdownServesWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Handler: shutdownHandlers()["events"], ShutdownSpread: time.Minute, Upgrader: Upgrader{PingInterval: -1}}
		ln := newPipeListener()
		serve(t, s, ln)
		echoes := make(chan int, 2)
		peers := []*peer{ln.open(t), ln.open(t)}
		synctest.Wait() // until the handshakes are over on the server's side too
		done := shutDown(s, t.Context())
		synctest.Wait()
		for _, p := range peers {
			go func() {
				for n := 0; ; n++ {
					go p.nc.Write(textFrame("hello"))
					if h, _, err := p.frame(); err != nil || h.opcode == opClose {
						p.nc.Write(closeFrame(CloseGoingAway, ""))
						p.leave()
						echoes <- n
						return
					}
					time.Sleep(time.Second)
				}
			}()
		}
		if first, second := <-echoes, <-echoes; first != 0 || second < 29 || second > 31 {
			t.Errorf("%d and %d echoes while two connections were closed over a minute, want none and one a second for 30 s", first, second)
		}
		if err := <-done; err != nil {
			t.Errorf("Shutdown = %v, want nil", err)
		}
	})
}

// told counts the open connections that our close frame has left.
func told(s *Server) (n int) {
	for _, c := range s.reg.conns() {
		c.mu.Lock()
		if c.end != nil && c.end.Sent != 0 {
			n++
		}
		c.mu.Unlock()
	}
	return n
}

// Peers that take nothing, or answer nothing, hold up neither the others nor,
// for longer than CloseTimeout, the end.
func TestShutdownWithStuckPeers(t *testing.T) {
	t.Parallel()
	const each = 10
	big := NewPreparedMessage(BinaryMessage, make([]byte, 256<<10))
	for name, handler := range map[string]Handler{
		"function": HandlerFunc(func(c *Conn, r *http.Request) {
			for r.URL.Path == "/deaf" && c.WritePrepared(big) == nil {
			}
			for _, err := range c.Messages() {
				if err != nil {
					return
				}
			}
		}),
		"events": Events{OnOpen: func(c *Conn, r *http.Request) {
			for range 64 {
				if r.URL.Path == "/deaf" {
					c.Send(big)
				}
			}
		}},
	} {
		for _, cut := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/ctx ends %t", name, cut), func(t *testing.T) {
				t.Parallel()
				closeTimeout := time.Second
				if cut {
					closeTimeout = patience
				}
				s := &Server{Handler: handler, Upgrader: Upgrader{SendQueue: 64 << 20, CloseTimeout: closeTimeout}}
				dial := serveTCP(t, s)
				var good []*peer
				for range each {
					deaf, mute, p := dial(), dial(), dial()
					deaf.takeLittle()
					deaf.send([]byte(strings.Replace(peerRequest, "/chat", "/deaf", 1)))
					mute.handshake()
					p.handshake()
					good = append(good, p)
				}
				eventually(t, "all are open", func() bool { return s.Stats().Open == 3*each })
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				start := time.Now()
				done := shutDown(s, ctx)
				for _, p := range good { // whom the others hold up for CloseTimeout, if at all
					p.wantClosed(CloseGoingAway, "")
				}
				if cut {
					eventually(t, "the good ones have gone", func() bool { return s.Stats().Open <= 2*each })
					eventually(t, "the mute ones were told", func() bool { return told(s) >= each })
					if took := time.Since(start); took > closeTimeout*3/4 {
						t.Errorf("the good peers were closed after %v, want at once", took)
					}
					cancel()
				}
				if err := <-done; cut != (err == context.Canceled) || !cut && err != nil {
					t.Errorf("Shutdown = %v after %v with a CloseTimeout of %v, the context cancelled %t", err, time.Since(start), closeTimeout, cut)
				}
				if took := time.Since(start); took > patience/2 {
					t.Errorf("Shutdown took %v", took)
				}
				eventually(t, "nothing is open", func() bool { return s.Stats().Open == 0 })
				// The kernel may just have had room for the close frame to a deaf one.
				if got := s.Stats().ClosedByServer; got[CloseGoingAway] < 2*each || got[CloseGoingAway]+got[CloseAbnormal] != 3*each {
					t.Errorf("ends by the server: %v; want %d with 1001, and %d more or with 1006 that took nothing", got, 2*each, each)
				}
			})
		}
	}
}

// What a write or Send took before Shutdown reaches a peer that only begins to
// read then: what is in the kernel, what is queued, and what OnMessage has
// written while more messages wait, which is held back.
func TestShutdownLosesNothing(t *testing.T) {
	const messages = 300
	text := func(i int) string { return fmt.Sprintf("%d %s", i, strings.Repeat("x", i*37%500)) }
	var release chan struct{}
	ways := map[string]Handler{
		"written": HandlerFunc(func(c *Conn, r *http.Request) {
			for i := range messages {
				if err := c.WriteMessage(TextMessage, []byte(text(i))); err != nil {
					t.Errorf("WriteMessage %d: %v", i, err)
				}
			}
			close(release)
			<-c.Context().Done()
		}),
		"queued": Events{OnOpen: func(c *Conn, r *http.Request) {
			for i := range messages {
				if err := c.Send(NewPreparedMessage(TextMessage, []byte(text(i)))); err != nil {
					t.Errorf("Send %d: %v", i, err)
				}
			}
			close(release)
		}},
		"held back": Events{OnMessage: func(c *Conn, typ MessageType, data []byte) {
			for i := range messages {
				if err := c.WriteMessage(TextMessage, []byte(text(i))); err != nil {
					t.Errorf("WriteMessage %d: %v", i, err)
				}
			}
			close(release)
			for c.pendingEnd() == nil { // the answers of the last 16 KiB wait for more
				runtime.Gosched()
			}
		}},
	}
	for name, handler := range ways {
		for _, network := range []string{"tcp", "tls"} {
			t.Run(name+"/"+network, func(t *testing.T) {
				release = make(chan struct{})
				s := &Server{Handler: handler, Upgrader: Upgrader{SendQueue: 4 << 20}}
				var p *peer
				if network == "tls" {
					p = dialTLS(t, serveTLS(t, s), clientTLS())
				} else {
					p = serveTCP(t, s)()
				}
				p.handshake()
				p.send(textFrame("go"), textFrame("on"), textFrame("and on"))
				<-release
				done := shutDown(s, t.Context())
				for i := range messages {
					p.want(opText, text(i))
				}
				p.wantClosed(CloseGoingAway, "")
				if err := <-done; err != nil {
					t.Errorf("Shutdown = %v, want nil", err)
				}
			})
		}
	}
}

// Shutdown is over when the last handler and the last OnClose are.
func TestShutdownWaitsForHandlers(t *testing.T) {
	const work = time.Minute
	for name, handler := range map[string]Handler{
		"OnClose":   Events{OnClose: func(c *Conn, err error) { time.Sleep(work) }},
		"OnMessage": Events{OnMessage: func(c *Conn, typ MessageType, data []byte) { time.Sleep(work) }},
		"function": HandlerFunc(func(c *Conn, r *http.Request) {
			<-c.Context().Done()
			if cause := context.Cause(c.Context()); !errors.Is(cause, ErrServerClosed) || !errors.Is(cause, net.ErrClosed) {
				t.Errorf("cause of Context = %v, want one that matches ErrServerClosed and net.ErrClosed", cause)
			}
			time.Sleep(work)
		}),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &Server{Handler: handler, Upgrader: Upgrader{PingInterval: -1}}
				ln := newPipeListener()
				serve(t, s, ln)
				p := ln.open(t)
				go p.nc.Write(textFrame("work"))
				synctest.Wait()
				start := time.Now()
				done := shutDown(s, t.Context())
				p.wantClose(CloseGoingAway, "")
				go p.nc.Write(closeFrame(CloseGoingAway, ""))
				p.leave()
				if err := <-done; err != nil || time.Since(start) < work {
					t.Errorf("Shutdown = %v after %v, want nil after %v", err, time.Since(start), work)
				}
			})
		})
	}
}

// Who was sent away learns it, also when its handler came back before Shutdown
// would have closed it.
func TestShutdownIsTheCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, release := make(chan context.Context, 1), make(chan struct{})
		s := &Server{Handler: HandlerFunc(func(c *Conn, r *http.Request) {
			c.ReadMessage()
			ctx <- r.Context()
			<-release
		})}
		ln := newPipeListener()
		serve(t, s, ln)
		p := ln.open(t)
		go p.nc.Write(textFrame("work"))
		ended := <-ctx
		done := shutDown(s, t.Context())
		synctest.Wait()
		close(release)
		p.wantClose(CloseGoingAway, "")
		go p.nc.Write(closeFrame(CloseGoingAway, ""))
		p.leave()
		if err := <-done; err != nil {
			t.Errorf("Shutdown = %v", err)
		}
		if cause := context.Cause(ended); !errors.Is(cause, ErrServerClosed) || !errors.Is(cause, net.ErrClosed) {
			t.Errorf("cause of the request's context = %v, want one that matches ErrServerClosed and net.ErrClosed", cause)
		}
	})
}

// After Shutdown began nothing is accepted, whichever the way in, and Serve
// returns at once.
func TestShutdownAcceptsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Handler: Events{}, HTTP: http.NotFoundHandler()}
		ln, behind := newPipeListener(), newPipeListener()
		served := make(chan error, 1)
		go func() { served <- s.Serve(ln) }()
		hs := &http.Server{Handler: s}
		go hs.Serve(behind)
		defer hs.Close()
		p := ln.open(t)
		half := ln.dial(t)
		half.send([]byte(peerRequest[:50]))
		tail := ln.dial(t)
		tail.send([]byte(peerRequest[:len(peerRequest)-1]))
		synctest.Wait()
		start := time.Now()
		done := shutDown(s, t.Context())
		if err := <-served; err != ErrServerClosed || time.Since(start) != 0 {
			t.Errorf("Serve = %v after %v, want ErrServerClosed at once", err, time.Since(start))
		}
		if err := s.Serve(newPipeListener()); err != ErrServerClosed {
			t.Errorf("Serve after Shutdown = %v, want ErrServerClosed", err)
		}
		if status, header, _ := behind.dial(t).status(peerRequest); status != 503 || header.Get("Retry-After") == "" {
			t.Errorf("behind net/http: %d, Retry-After %q; want 503 with one", status, header.Get("Retry-After"))
		}
		// One handshake comes to its end, another doesn't.
		for _, rest := range []struct {
			p    *peer
			rest string
		}{{tail, "\n"}, {half, ""}} {
			if status, header, _ := rest.p.status(rest.rest); status != 503 || header.Get("Retry-After") == "" {
				t.Errorf("handshake with %q to come: %d, Retry-After %q; want 503 with one", rest.rest, status, header.Get("Retry-After"))
			}
		}
		p.wantClosed(CloseGoingAway, "")
		if err := <-done; err != nil || time.Since(start) > 2*time.Second {
			t.Errorf("Shutdown = %v after %v, want nil within 2 s", err, time.Since(start))
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Errorf("another Shutdown = %v, want nil", err)
		}
	})
}

// Close cuts short what Shutdown waits for.
func TestCloseDuringShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := make(chan error, 2)
		s := &Server{Handler: Events{OnClose: func(c *Conn, err error) { ends <- err }}, ShutdownSpread: time.Hour}
		ln := newPipeListener()
		serve(t, s, ln)
		peers := []*peer{ln.open(t), ln.open(t)}
		synctest.Wait() // until the handshakes are over on the server's side too
		start := time.Now()
		done := shutDown(s, t.Context())
		time.Sleep(time.Second)
		s.Close()
		if err := <-done; err != nil || time.Since(start) != time.Second {
			t.Errorf("Shutdown = %v after %v, want nil when Close is called", err, time.Since(start))
		}
		for range peers {
			wantEndError(t, <-ends, EndError{By: SideServer}, ErrServerClosed)
		}
	})
}

// Behind net/http the documented way is RegisterOnShutdown.
func TestShutdownBehindNetHTTP(t *testing.T) {
	for name, handler := range shutdownHandlers() {
		t.Run(name, func(t *testing.T) {
			s := &Server{Handler: handler}
			mux := http.NewServeMux()
			mux.Handle("/chat", s)
			hs := &http.Server{Handler: mux}
			stopped := make(chan error, 1)
			hs.RegisterOnShutdown(func() { stopped <- s.Shutdown(context.Background()) })
			ln := listen(t)
			go hs.Serve(ln)
			var peers []*peer
			for range 5 {
				p := newPeer(t, dialAddr(t, ln.Addr().String()))
				p.handshake()
				peers = append(peers, p)
			}
			eventually(t, "all are open", func() bool { return s.Stats().Open == len(peers) })
			if err := hs.Shutdown(context.Background()); err != nil {
				t.Errorf("http.Server.Shutdown = %v", err)
			}
			for _, p := range peers {
				p.wantClosed(CloseGoingAway, "")
			}
			if err := <-stopped; err != nil {
				t.Errorf("Shutdown = %v, want nil", err)
			}
		})
	}
}

// Requests for HTTP that are under way end; a connection that net/http keeps
// for more is closed.
func TestShutdownEndsPlainHTTP(t *testing.T) {
	var began, may sync.WaitGroup
	began.Add(1)
	may.Add(1)
	s := &Server{Handler: Events{}, HTTP: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			began.Done()
			may.Wait()
		}
		fmt.Fprint(w, "done")
	})}
	dial := serveTCP(t, s)
	kept, slow := dial(), dial()
	kept.send([]byte("GET / HTTP/1.1\r\nHost: server.example\r\n\r\n"))
	if err := kept.receive(); err != nil {
		t.Fatal(err)
	}
	slow.send([]byte("GET /slow HTTP/1.1\r\nHost: server.example\r\n\r\n"))
	began.Wait()
	done := shutDown(s, t.Context())
	kept.in = nil
	kept.wantEnd()
	may.Done()
	for err := slow.receive(); err == nil; err = slow.receive() {
	}
	if got := string(slow.in); !strings.HasSuffix(got, "\r\n\r\ndone") {
		t.Errorf("the request under way was answered with %q, want it whole", got)
	}
	if err := <-done; err != nil {
		t.Errorf("Shutdown = %v, want nil", err)
	}
}

// In the middle of traffic every client reads the echo of what was answered,
// all of it and in order, then 1001, then the stream's end and no reset,
// however much it still had on the way.
func TestShutdownAmidTraffic(t *testing.T) {
	const clients = 20
	var answered sync.Map // number of answers whose write returned nil, by path
	answer := func(c *Conn, typ MessageType, data []byte) error {
		err := c.WriteMessage(typ, data)
		if err == nil {
			c.Data.(*atomic.Int64).Add(1)
		}
		return err
	}
	open := func(c *Conn, r *http.Request) {
		n := new(atomic.Int64)
		c.Data = n
		answered.Store(r.URL.Path, n)
	}
	for name, handler := range map[string]Handler{
		"events": Events{OnOpen: open, OnMessage: func(c *Conn, typ MessageType, data []byte) { answer(c, typ, data) }},
		"function": HandlerFunc(func(c *Conn, r *http.Request) {
			open(c, r)
			for m, err := range c.Messages() {
				if err != nil || answer(c, m.Type, m.Data) != nil {
					break
				}
			}
		}),
	} {
		for _, network := range []string{"tcp", "tls"} {
			t.Run(name+"/"+network, func(t *testing.T) {
				s := &Server{Handler: handler, ShutdownSpread: 50 * time.Millisecond}
				dial := func() *peer { return nil }
				if network == "tls" {
					addr := serveTLS(t, s)
					dial = func() *peer { return dialTLS(t, addr, clientTLS()) }
				} else {
					dial = serveTCP(t, s)
				}
				var wg sync.WaitGroup
				all, over := make(chan struct{}), make(chan struct{}) // are connected; is Shutdown, and every handler with it
				for i := range clients {
					p := dial()
					path := fmt.Sprintf("/%s/%s/%d", name, network, i)
					p.send([]byte(strings.Replace(peerRequest, "/chat", path, 1)))
					p.wantBytes(peerAnswer)
					wg.Go(func() {
						<-all
						n := p.talk(t)
						<-over
						if got, ok := answered.Load(path); !ok || got.(*atomic.Int64).Load() != n {
							t.Errorf("client %s read %d answers, want the %v that were written", path, n, got)
						}
					})
				}
				close(all)
				eventually(t, "there is traffic", func() bool { return s.Stats().MessagesIn > 5*clients })
				if err := <-shutDown(s, t.Context()); err != nil {
					t.Errorf("Shutdown = %v, want nil", err)
				}
				close(over)
				wg.Wait()
				if got := s.Stats().ClosedByServer[CloseGoingAway]; got != clients {
					t.Errorf("ends with 1001: %d, want %d", got, clients)
				}
			})
		}
	}
}

// talk sends numbered messages until the server closes with 1001, and returns
// how many came back.
func (p *peer) talk(t *testing.T) (n int64) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	window := make(chan struct{}, 8) // messages on the way
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				p.nc.Write(closeFrame(CloseGoingAway, ""))
				return
			case window <- struct{}{}:
				p.nc.Write(textFrame(fmt.Sprintf("%d %s", i, strings.Repeat("x", i%9*300))))
			}
		}
	}()
	defer p.nc.Close()
	defer func() { <-stopped }()
	for ; ; n++ {
		h, payload, err := p.frame()
		if err != nil {
			t.Errorf("after %d answers: %v, want 1001", n, err)
			close(stop)
			return n
		}
		if h.opcode == opClose {
			close(stop)
			if code, _, _ := parseClosePayload([]byte(payload)); code != CloseGoingAway {
				t.Errorf("after %d answers: close with %d, want 1001", n, code)
			}
			break
		}
		<-window
		if want := fmt.Sprintf("%d %s", n, strings.Repeat("x", int(n)%9*300)); payload != want {
			t.Errorf("answer %d is %s, want %s", n, quote(payload), quote(want))
		}
	}
	if rest, err := io.Copy(io.Discard, p.nc); rest != 0 || err != nil {
		t.Errorf("behind 1001: %d bytes, %v; want the stream's end", rest, err)
	}
	return n
}

// A handler that has read what it needs and only writes from then on is told of
// Shutdown as one that never read: at once.
func TestShutdownBehindCloseRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Handler: HandlerFunc(func(c *Conn, _ *http.Request) {
			c.ReadMessage()
			<-c.CloseRead().Done()
		})}
		ln := newPipeListener()
		serve(t, s, ln)
		p := ln.open(t)
		p.sendText("what I want")
		synctest.Wait()
		start := time.Now()
		done := shutDown(s, context.Background())
		p.wantClose(CloseGoingAway, "")
		if took := time.Since(start); took > 0 {
			t.Errorf("told after %v, want at once", took)
		}
		p.send(closeFrame(CloseGoingAway, ""))
		p.nc.Close()
		if err := <-done; err != nil {
			t.Errorf("Shutdown = %v", err)
		}
	})
}
