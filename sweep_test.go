package websocket

import (
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// connectPipe is connect for a test in a bubble, where every wait is free.
func connectPipe(t *testing.T, u *Upgrader) (*Conn, *peer) {
	t.Helper()
	c, p := connect(t, u, pipePair)
	p.nc.SetDeadline(time.Time{})
	return c, p
}

// readEnd reads until the end, and sends it with its time.
func readEnd(c *Conn) <-chan error {
	end := make(chan error, 1)
	go func() {
		for {
			if _, _, err := c.ReadMessage(); err != nil {
				end <- err
				return
			}
		}
	}()
	return end
}

// pongs answers pings after a delay, and returns when each of them came.
func (p *peer) pongs(delay time.Duration) <-chan time.Time {
	times := make(chan time.Time, 1000)
	go func() {
		defer close(times)
		for {
			h, payload, err := p.frame()
			if err != nil {
				return
			}
			if h.opcode == opPing {
				times <- time.Now()
				time.Sleep(delay)
				p.nc.Write(clientFrame(opPong, true, payload))
			}
		}
	}()
	return times
}

// A peer whose system takes the pings, and which answers none, is cut, though
// pings come faster than PongTimeout passes.
func TestPingsAreNoProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connectPipe(t, &Upgrader{PingInterval: 2 * time.Second, PongTimeout: 15 * time.Second})
		began, end := time.Now(), readEnd(c)
		go func() {
			for p.receive() == nil {
			}
		}()
		wantEndError(t, <-end, EndError{By: SidePeer}, os.ErrDeadlineExceeded)
		if took := time.Since(began); took > 18*time.Second+slack {
			t.Errorf("a peer that takes pings and answers none was cut after %v", took)
		}
	})
}

// slack is what the wheel may be late by.
const slack = 3 * 250 * time.Millisecond

// A peer that does nothing but answer the pings stays for good; they come
// every 25 s, never quite.
func TestKeepAlivePings(t *testing.T) {
	for _, delay := range []time.Duration{0, 80 * time.Millisecond, 19 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			c, p := connectPipe(t, new(Upgrader))
			end := readEnd(c)
			times := p.pongs(delay)
			last := time.Now()
			time.Sleep(time.Hour)
			if c.connState() != stateOpen {
				t.Fatalf("pongs after %v: %v; want the connection open after an hour", delay, <-end)
			}
			if got := c.RTT(); got != delay {
				t.Errorf("RTT() = %v, want %v", got, delay)
			}
			c.CloseNow()
			gaps := make(map[time.Duration]int)
			for at := range times {
				if gap := at.Sub(last); gap < 22500*time.Millisecond || gap > 27500*time.Millisecond+slack {
					t.Errorf("%v between two pings, want 25s and a tenth each way", gap)
				} else {
					gaps[gap.Round(time.Second/2)]++
				}
				last = at
			}
			if len(gaps) < 4 {
				t.Errorf("the pings of an hour came at intervals of %v, want them spread", gaps)
			}
		})
	}
}

func TestPongTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connectPipe(t, new(Upgrader))
		end := readEnd(c)
		_, _, err := p.frame()
		asked := time.Now()
		if err != nil {
			t.Fatal(err)
		}
		err = <-end
		if got := time.Since(asked); got < 20*time.Second || got > 20*time.Second+slack {
			t.Errorf("cut %v after the ping, want 20s", got)
		}
		wantEndError(t, err, EndError{By: SidePeer}, os.ErrDeadlineExceeded)
		if _, err := p.nc.Read(make([]byte, 1)); err == nil {
			t.Error("the peer could read after the cut")
		}
	})
}

// Whatever arrives shows that somebody is there: a peer that is busy with one
// long message can't send a pong, and one that sends a byte at each ping, and
// never a pong, isn't dead.
func TestAnyByteIsLife(t *testing.T) {
	t.Run("now and then", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, p := connectPipe(t, new(Upgrader))
			end := readEnd(c)
			go func() {
				for _, _, err := p.frame(); err == nil; _, _, err = p.frame() {
				}
			}()
			for _, b := range textFrame(strings.Repeat("x", 100)) {
				p.send([]byte{b})
				time.Sleep(15 * time.Second)
				if c.connState() != stateOpen {
					t.Fatal(<-end)
				}
			}
		})
	})
	t.Run("at each ping", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, p := connectPipe(t, new(Upgrader))
			end := readEnd(c)
			for _, b := range textFrame(strings.Repeat("x", 100)) {
				if _, _, err := p.frame(); err != nil {
					t.Fatal(<-end)
				}
				p.send([]byte{b})
			}
		})
	})
}

func TestKeepAliveSwitchedOff(t *testing.T) {
	for _, u := range []*Upgrader{{PingInterval: -1}, {PongTimeout: -1}} {
		synctest.Test(t, func(t *testing.T) {
			c, p := connectPipe(t, u)
			end := readEnd(c)
			pings := make(chan int)
			go func() {
				n := 0
				for _, _, err := p.frame(); err == nil; _, _, err = p.frame() {
					n++
				}
				pings <- n
			}()
			time.Sleep(time.Hour)
			if c.connState() != stateOpen {
				t.Errorf("PingInterval %v, PongTimeout %v: a silent peer was cut: %v", u.PingInterval, u.PongTimeout, <-end)
			}
			c.CloseNow()
			if n := <-pings; (n == 0) != (u.PingInterval < 0) {
				t.Errorf("PingInterval %v: %d pings in an hour", u.PingInterval, n)
			}
		})
	}
}

// A peer that takes nothing is cut by WriteTimeout, whichever the write; the
// goroutines that wait for it come back.
func TestWriteTimeout(t *testing.T) {
	writes := map[string]func(*Conn) error{
		"small": func(c *Conn) error { return c.WriteMessage(TextMessage, []byte("small")) },
		"large": func(c *Conn) error { return c.WriteMessage(BinaryMessage, make([]byte, 1<<20)) },
		"ping":  func(c *Conn) error { return c.Ping(nil) },
		"stream": func(c *Conn) error {
			m, err := c.NextWriter(TextMessage)
			if err != nil {
				return err
			}
			return m.Close()
		},
	}
	for name, write := range writes {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _ := connectPipe(t, &Upgrader{PingInterval: -1})
				end := readEnd(c)
				time.Sleep(time.Minute)
				start := time.Now()
				if err := write(c); err == nil {
					t.Error("the write that nobody took = nil, want an error")
				}
				// It is looked for four times in WriteTimeout.
				if got := time.Since(start); got < 10*time.Second || got > 12500*time.Millisecond+slack {
					t.Errorf("cut after %v, want 10s to 12.5s", got)
				}
				wantEndError(t, <-end, EndError{By: SidePeer}, os.ErrDeadlineExceeded)
			})
		})
	}
}

// A keep-alive ping that a stuck peer doesn't take is a write like any other.
func TestKeepAliveToAStuckPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := connectPipe(t, new(Upgrader))
		start := time.Now()
		err := <-readEnd(c)
		if got := time.Since(start); got < 32*time.Second || got > 41*time.Second {
			t.Errorf("cut after %v, want WriteTimeout after the first ping", got)
		}
		wantEndError(t, err, EndError{By: SidePeer}, os.ErrDeadlineExceeded)
	})
}

func TestWriteTimeoutSwitchedOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connectPipe(t, &Upgrader{WriteTimeout: -1})
		end := readEnd(c)
		wrote := make(chan error, 1)
		go func() { wrote <- c.WriteMessage(TextMessage, []byte("patience")) }()
		time.Sleep(time.Hour)
		if c.connState() != stateOpen {
			t.Fatal(<-end)
		}
		p.want(opText, "patience")
		if err := <-wrote; err != nil {
			t.Error(err)
		}
	})
}

// When a machine slept for an hour its clock says that no peer was heard for
// an hour. The sweeper alone is put to sleep here, by the hook of a connection that it
// has to cut, and visits itself since it is a socket; a peer that was asked before
// answers after.
func TestClockJumpCutsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &Upgrader{Trace: &Trace{State: func(id uint64, state string) {
			if id == 1 && state == "closed" {
				time.Sleep(time.Hour)
			}
		}}}
		sleepy, _ := connect(t, u, tcpPair)
		c, p := connectPipe(t, u)
		end := readEnd(c)
		_, payload, err := p.frame()
		if err != nil {
			t.Fatal(err)
		}
		sleepy.write.since.Store(1<<2 | uint32(writeControl)) // as if a write had been stuck all the time
		sleepy.lookSoon()
		time.Sleep(time.Hour + 5*time.Second)
		p.send(clientFrame(opPong, true, payload))
		p.pongs(0)
		time.Sleep(5 * time.Minute)
		if sleepy.connState() != stateClosed {
			t.Fatal("the sweeper didn't meet the connection that puts it to sleep")
		}
		if c.connState() != stateOpen {
			t.Errorf("after an hour's sleep the peer was cut: %v", <-end)
		}
	})
}

// A peer whose close frame nobody reads, since OnMessage doesn't return, is
// cut a little after CloseTimeout.
func TestCloseTimeoutWithoutAReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipeListener()
		release := make(chan struct{})
		conns, closed := make(chan *Conn, 1), make(chan error, 1)
		serve(t, &Server{Handler: Events{
			OnMessage: func(c *Conn, _ MessageType, _ []byte) {
				conns <- c
				<-release
			},
			OnClose: func(_ *Conn, err error) { closed <- err },
		}}, ln)
		p := ln.open(t)
		p.sendText("x")
		c := <-conns
		start := time.Now()
		go c.Close(CloseNormal, "")
		p.wantClose(CloseNormal, "")
		if _, _, err := p.frame(); err == nil {
			t.Error("a frame behind the close frame")
		}
		if got := time.Since(start); got < 5*time.Second || got > 7*time.Second+slack {
			t.Errorf("the peer was cut after %v, want 5s to 7s", got)
		}
		close(release)
		wantEndError(t, <-closed, EndError{By: SideServer, Sent: CloseNormal}, net.ErrClosed)
	})
}

// Connections that the sweeper has in its hands at the moment are there too:
// Shutdown would forget them, and wait for ever.
func TestConnsWhileTheSweeperIsAtWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closing, release := make(chan struct{}), make(chan struct{})
		hold := &Trace{State: func(id uint64, state string) {
			if id == 1 && state == "closed" { // the sweeper waits for the hook
				closing <- struct{}{}
				<-release
			}
		}}
		u := &Upgrader{PingInterval: -1, WriteTimeout: -1, Trace: hold} // one visit in 127 ticks
		first, _ := connect(t, u, tcpPair)                              // sockets: a pipe has a goroutine for its visit
		second, _ := connect(t, u, tcpPair)
		time.Sleep(time.Second + 100*time.Millisecond) // between two ticks
		for _, c := range []*Conn{first, second} {     // so that the sweeper has both in its hands
			c.beginClose(&EndError{By: SideServer, Err: net.ErrClosed}) // and nobody reads the answer
		}
		<-closing
		if got := second.reg.conns(); !slices.Contains(got, second) {
			t.Errorf("while the sweeper cuts a connection conns() = %v, want the other one", got)
		}
		close(release)
	})
}

// The sweeper and its table entry go with the last connection, and come back
// with the next.
func TestSweeperOfAnUpgrader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := new(Upgrader)
		for range 2 {
			c, p := connectPipe(t, u)
			end := readEnd(c)
			p.pongs(0)
			time.Sleep(time.Minute)
			if c.RTT() != 0 || c.connState() != stateOpen {
				t.Fatalf("a minute with pongs at once: RTT %v, %v", c.RTT(), <-end)
			}
			c.CloseNow()
			synctest.Wait()
			standalones.Lock()
			if standalones.of[u] != nil {
				t.Error("the registry of an Upgrader without connections is still there")
			}
			standalones.Unlock()
		}
	})
}

func TestTick(t *testing.T) {
	tests := []struct {
		u    Upgrader
		want time.Duration
	}{
		{Upgrader{}, 250 * time.Millisecond},
		{Upgrader{PongTimeout: time.Second}, 50 * time.Millisecond},
		{Upgrader{WriteTimeout: time.Millisecond}, time.Millisecond},
		{Upgrader{PingInterval: -1, PongTimeout: -1, WriteTimeout: -1}, 250 * time.Millisecond},
	}
	for _, test := range tests {
		if got := test.u.tickOf(); got != test.want {
			t.Errorf("tickOf() of %+v = %v, want %v", test.u, got, test.want)
		}
	}
}

func TestJitter(t *testing.T) {
	if got := jitter(0); got != 0 {
		t.Errorf("jitter(0) = %v, want 0", got)
	}
	least, most := time.Hour, time.Duration(0)
	for range 1000 {
		d := jitter(10 * time.Second)
		least, most = min(least, d), max(most, d)
	}
	if least < 9*time.Second || most > 11*time.Second || most-least < time.Second {
		t.Errorf("jitter(10s) from %v to %v, want 9s to 11s", least, most)
	}
}
