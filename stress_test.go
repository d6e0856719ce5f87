package websocket

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A peer that reads nothing is cut by WriteTimeout over a real network, where
// the system takes a good deal before a write is stuck.
func TestStuckReaderIsCut(t *testing.T) {
	for name, handler := range map[string]func(end chan error) Handler{
		"HandlerFunc": func(end chan error) Handler {
			return HandlerFunc(func(c *Conn, _ *http.Request) {
				for c.WriteMessage(BinaryMessage, make([]byte, 1<<20)) == nil {
				}
				_, _, err := c.ReadMessage()
				end <- err
			})
		},
		"Events": func(end chan error) Handler {
			return Events{
				OnOpen: func(c *Conn, _ *http.Request) {
					go func() {
						for c.WriteMessage(BinaryMessage, make([]byte, 1<<20)) == nil {
						}
					}()
				},
				OnClose: func(_ *Conn, err error) { end <- err },
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			end := make(chan error, 1)
			s := &Server{Handler: handler(end), Upgrader: Upgrader{WriteTimeout: 50 * time.Millisecond}}
			p := serveTCP(t, s)()
			p.send([]byte(peerRequest)) // and reads nothing
			wantEndError(t, <-end, EndError{By: SidePeer}, os.ErrDeadlineExceeded)
			if got := s.Stats().WriteStalls; got != 1 {
				t.Errorf("Stats().WriteStalls = %d, want 1", got)
			}
		})
	}
}

// chaos does to a connection, from as many goroutines as there are things to
// do, what an application may; then it ends it in one of the ways.
func chaos(c *Conn, rnd *rand.Rand) {
	end, size, after := rnd.IntN(4), rnd.IntN(20000), time.Duration(rnd.IntN(2000))*time.Microsecond
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, act := range []func() error{
		func() error { return c.WriteMessage(BinaryMessage, make([]byte, size)) },
		func() error { return c.Ping([]byte("chaos")) },
		func() error { return c.Flush() },
		func() error { return c.SetWriteDeadline(time.Now().Add(time.Minute)) },
		func() error {
			m, err := c.NextWriter(TextMessage)
			if err != nil {
				return err
			}
			m.Write(make([]byte, 2*size))
			return m.Close()
		},
	} {
		wg.Go(func() {
			for n := 0; n < 30 && act() == nil; n++ {
			}
		})
	}
	time.AfterFunc(after, func() {
		switch end {
		case 0:
			c.Close(CloseNormal, "enough")
		case 1:
			c.CloseNow()
		case 2:
			c.Close(4000, "of that")
			c.CloseNow()
		}
	})
	if end == 3 {
		wg.Go(func() { c.Close(CloseGoingAway, "") })
		wg.Go(func() { c.CloseNow() })
	}
}

// roughPeer is a client that writes and reads at random, answers or doesn't,
// and goes in any way, until the connection is cut.
func roughPeer(nc net.Conn, rnd *rand.Rand) {
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(nc, peerRequest); err != nil {
		return
	}
	go io.Copy(io.Discard, nc)
	for n := rnd.IntN(100); n > 0; n-- {
		frame := [][]byte{
			textFrame("text"), clientFrame(opPing, true, "?"), clientFrame(opPong, true, "!"),
			clientFrame(opBinary, true, string(make([]byte, rnd.IntN(30000)))),
		}[rnd.IntN(4)]
		if _, err := nc.Write(frame); err != nil {
			return
		}
	}
	switch rnd.IntN(4) {
	case 0:
		nc.Write(closeFrame(CloseNormal, ""))
	case 1:
		nc.Write([]byte{0xff, 0xff})
	case 2:
		nc.(*net.TCPConn).SetLinger(0)
		return
	case 3:
		return
	}
	nc.Read(make([]byte, 1)) // until it is cut; the other reader may get there first
}

// Close x write x read x ping x CloseNow x Shutdown, all at once: no panic, no
// race, no goroutine left, and OnClose exactly once for each OnOpen.
func TestEverythingAtOnce(t *testing.T) {
	const rounds, conns = 4, 30
	for round := range rounds {
		var opened, closed atomic.Int64
		ended := sync.Map{}
		events := Events{
			OnOpen: func(c *Conn, _ *http.Request) {
				opened.Add(1)
				go chaos(c, rand.New(rand.NewPCG(1, uint64(opened.Load()))))
			},
			OnMessage: func(c *Conn, typ MessageType, data []byte) { c.WriteMessage(typ, data) },
			OnClose: func(c *Conn, err error) {
				closed.Add(1)
				if _, again := ended.LoadOrStore(c, true); again {
					t.Error("OnClose came twice")
				}
				if e := (*EndError)(nil); !errors.As(err, &e) || e.Err == nil {
					t.Errorf("OnClose with %v, want an *EndError with a cause", err)
				}
			},
		}
		s := &Server{Handler: events, Upgrader: Upgrader{
			CloseTimeout: 100 * time.Millisecond, WriteTimeout: time.Second, PingInterval: 2 * time.Millisecond,
		}}
		if round%2 == 1 {
			s.Handler = HandlerFunc(func(c *Conn, r *http.Request) {
				events.OnOpen(c, r)
				echoFunc(c, r)
				c.CloseNow()
				events.OnClose(c, c.endError())
			})
		}
		stressServer(t, s, conns, uint64(round))
		if opened.Load() != closed.Load() || opened.Load() == 0 {
			t.Errorf("round %d: OnOpen %d times, OnClose %d", round, opened.Load(), closed.Load())
		}
	}
}

// stressServer sends rough peers to s and shuts it down among them.
func stressServer(t *testing.T, s *Server, conns int, seed uint64) {
	ln := listen(t)
	serve(t, s, ln)
	var wg sync.WaitGroup
	for i := range conns {
		nc, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() { roughPeer(nc, rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
	waitFor(t, "most of the upgrades", func() bool { return s.Stats().Accepted >= uint64(conns/2) })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown = %v, want all connections ended before", err)
	}
	wg.Wait()
	if n := s.Stats().Open; n != 0 {
		t.Errorf("%d connections are left", n)
	}
}
