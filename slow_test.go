package websocket

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// pace reads at so many bytes a second, in steps of a tenth, and hands what it
// read to the peer's parser. It ends with the stream.
func (p *peer) pace(rate int) {
	b := make([]byte, max(rate/10, 1))
	for {
		n, err := io.ReadFull(p.nc, b)
		p.in = append(p.in, b[:n]...)
		if err != nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// settle cuts c, and lets those end who sleep before their next byte.
func settle(c *Conn) {
	c.CloseNow()
	time.Sleep(time.Minute)
}

// frames takes whole frames out of what was read, and counts the bytes of
// messages.
func (p *peer) frames(t *testing.T) (data int, last header) {
	t.Helper()
	for {
		h, n, err := parseHeader(p.in)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 || uint64(len(p.in)-n) < h.length {
			return data, last
		}
		if last = h; !h.opcode.control() {
			data += int(h.length)
		}
		p.in = p.in[n+int(h.length):]
	}
}

// A peer that keeps reading gets everything, however slowly, in each way to
// write; and so does one that is closed behind it.
func TestSteadyReaderStays(t *testing.T) {
	const size = 4 << 20
	ways := map[string]struct {
		rate  int
		write func(c *Conn) error
	}{
		"a feed": {60_000, func(c *Conn) error {
			for range size / 4096 {
				if err := c.WriteMessage(BinaryMessage, make([]byte, 4096)); err != nil {
					return err
				}
			}
			return nil
		}},
		"one message": {125_000, func(c *Conn) error { return c.WriteMessage(BinaryMessage, make([]byte, size)) }},
		"NextWriter": {125_000, func(c *Conn) error {
			m, err := c.NextWriter(BinaryMessage)
			if err != nil {
				return err
			}
			if _, err := m.Write(make([]byte, size)); err != nil {
				return err
			}
			return m.Close()
		}},
		"next to nothing": {2_000, func(c *Conn) error {
			for range 20 {
				if err := c.WriteMessage(BinaryMessage, make([]byte, size/20/20)); err != nil {
					return err
				}
			}
			return nil
		}},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, p := connectPipe(t, new(Upgrader))
				end := readEnd(c)
				done := make(chan error, 1)
				go func() {
					err := way.write(c)
					if err == nil {
						c.Close(CloseNormal, "")
					}
					done <- err
				}()
				read := make(chan struct{})
				go func() {
					defer close(read)
					p.pace(way.rate)
				}()
				if err := <-done; err != nil {
					t.Errorf("the write: %v", err)
				}
				<-end
				<-read
				want := size
				if name == "next to nothing" {
					want = size / 20
				}
				if data, last := p.frames(t); data != want/20*20 && data != want || last.opcode != opClose {
					t.Errorf("the peer got %d bytes and a %v frame last, want %d and close", data, last.opcode, want)
				}
			})
		})
	}
}

// The peer answers each ping at once, and nobody looks for two minutes: a
// callback is at work, or a handler only writes.
func TestCallbackThatTakesLong(t *testing.T) {
	const work = 2 * time.Minute
	for name, handler := range map[string]Handler{
		"OnMessage": Events{OnMessage: func(c *Conn, typ MessageType, p []byte) {
			time.Sleep(work)
			c.WriteMessage(typ, p)
		}},
		"OnOpen": Events{OnOpen: func(c *Conn, _ *http.Request) {
			time.Sleep(work)
			c.WriteMessage(TextMessage, []byte("work"))
		}},
		"only writes": HandlerFunc(func(c *Conn, _ *http.Request) {
			for range 120 {
				c.WriteMessage(TextMessage, []byte("tick"))
				time.Sleep(time.Second)
			}
			c.WriteMessage(TextMessage, []byte("work"))
		}),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ln := newPipeListener()
				serve(t, &Server{Handler: handler}, ln)
				p := ln.open(t)
				send := make(chan []byte, 100)
				defer close(send)
				go func() {
					for b := range send {
						p.nc.Write(b)
					}
				}()
				send <- textFrame("work")
				for {
					h, payload, err := p.frame()
					if err != nil {
						t.Fatalf("peer: %v; want the answer", err)
					}
					if h.opcode == opPing {
						send <- clientFrame(opPong, true, payload)
					}
					if payload == "work" {
						return
					}
				}
			})
		})
	}
}

// A message that takes longer to come than IdleTimeout isn't idle.
func TestSlowMessageIsNotIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connectPipe(t, &Upgrader{IdleTimeout: 10 * time.Second, PingInterval: -1})
		defer settle(c)
		go func() {
			for _, b := range textFrame(strings.Repeat("x", 100)) {
				p.nc.Write([]byte{b})
				time.Sleep(time.Second)
			}
		}()
		if _, got, err := c.ReadMessage(); len(got) != 100 || err != nil {
			t.Errorf("ReadMessage = %d bytes, %v; want the 100", len(got), err)
		}
	})
}

// MinRate cuts who pins a message's memory by a byte now and then, either way,
// and nobody else.
func TestMinRate(t *testing.T) {
	for _, test := range []struct {
		name string
		rate int
		out  bool
		cut  bool
	}{
		{"sends slowly", 20, false, true}, {"sends fast enough", 200, false, false},
		{"reads slowly", 20, true, true}, {"reads fast enough", 2000, true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const size = 100_000
				c, p := connectPipe(t, &Upgrader{MinRate: 100, PingInterval: -1, WriteTimeout: -1})
				defer settle(c)
				end := readEnd(c)
				start := time.Now()
				if test.out {
					go c.WriteMessage(BinaryMessage, make([]byte, size))
					go p.pace(test.rate)
				} else {
					go p.pace(1000)
					go func() {
						frame := clientFrame(opBinary, true, strings.Repeat("x", size))
						for len(frame) > 0 {
							n, err := p.nc.Write(frame[:min(test.rate, len(frame))])
							if err != nil {
								return
							}
							frame = frame[n:]
							time.Sleep(time.Second)
						}
					}()
				}
				if !test.cut {
					time.Sleep(5 * time.Minute)
					if c.connState() != stateOpen {
						t.Errorf("cut: %v", <-end)
					}
					return
				}
				err := <-end
				var broken *ProtocolError
				if !errors.As(err, &broken) || broken.Code != ClosePolicyViolation {
					t.Errorf("the end: %v, want a *ProtocolError of 1008", err)
				}
				if got := time.Since(start); got < 30*time.Second || got > 70*time.Second {
					t.Errorf("cut after %v, want half a minute and a bit", got)
				}
			})
		})
	}
}

// A deadline that has passed ends nothing by itself, one that is later than
// WriteTimeout holds instead of it, and a write that it ends says so.
func TestWriteDeadlineReplacesWriteTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connectPipe(t, new(Upgrader))
		end := readEnd(c)
		pings := p.pongs(0)
		c.SetWriteDeadline(time.Now().Add(time.Second))
		time.Sleep(2 * time.Minute)
		if c.connState() != stateOpen || len(pings) < 3 {
			t.Fatalf("two minutes after the deadline %d pings had come: %v", len(pings), <-end)
		}
		if err := c.WriteMessage(TextMessage, nil); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("WriteMessage after the deadline = %v, want %v", err, os.ErrDeadlineExceeded)
		}
		c.SetWriteDeadline(time.Time{})
		if err := c.WriteMessage(TextMessage, nil); err != nil {
			t.Errorf("WriteMessage without a deadline again = %v", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		c, _ := connectPipe(t, &Upgrader{PingInterval: -1})
		end := readEnd(c)
		start := time.Now()
		c.SetWriteDeadline(start.Add(time.Minute))
		err := c.WriteMessage(TextMessage, nil) // nobody takes it
		if got := time.Since(start); got != time.Minute || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("WriteMessage = %v after %v, want %v after a minute", err, got, os.ErrDeadlineExceeded)
		}
		wantEndError(t, <-end, EndError{By: SidePeer}, os.ErrDeadlineExceeded)
	})
}

// What WriteTimeout ends is told as a timeout to who waited for it.
func TestWriteTimeoutIsADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := connectPipe(t, &Upgrader{PingInterval: -1})
		if err := c.WriteMessage(TextMessage, nil); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("WriteMessage = %v, want %v", err, os.ErrDeadlineExceeded)
		}
	})
}

// A peer whose half of the stream is gone, and that says nothing, doesn't stay.
func TestBrokenWriteSideIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := pipePair(t)
		bc := &brokenConn{Conn: server}
		c, _ := connect(t, new(Upgrader), func(testing.TB) (net.Conn, net.Conn) { return bc, client })
		end := readEnd(c)
		bc.broken.Store(true)
		start := time.Now()
		c.WriteMessage(TextMessage, nil)
		err := <-end
		if got := time.Since(start); got > 10*time.Second {
			t.Errorf("cut after %v, want CloseTimeout and a bit", got)
		}
		wantEndError(t, err, EndError{By: SidePeer}, io.ErrUnexpectedEOF)
	})
}

// What is held back leaves though a callback of the batch is slow, whichever.
func TestHeldBackLeavesASlowBatch(t *testing.T) {
	for slow := 1; slow <= 3; slow++ {
		synctest.Test(t, func(t *testing.T) {
			n, release := 0, make(chan struct{})
			defer close(release)
			ln := newPipeListener()
			serve(t, &Server{Handler: Events{OnMessage: func(c *Conn, typ MessageType, p []byte) {
				if n++; n == slow {
					if slow == 1 {
						c.WriteMessage(typ, []byte("early"))
					}
					<-release
				} else if n < slow {
					c.WriteMessage(typ, []byte("early"))
				}
			}}, Upgrader: Upgrader{PingInterval: -1}}, ln)
			p := ln.open(t)
			start := time.Now()
			go p.nc.Write(append(append(textFrame("a"), textFrame("b")...), textFrame("c")...))
			p.want(opText, "early")
			if got := time.Since(start); got > time.Second {
				t.Errorf("callback %d of three is slow: the first answer came after %v, want within a second", slow, got)
			}
		})
	}
}

// Shutdown lets OnMessage answer first, and then tells its code and reason.
func TestShutdownWaitsForTheAnswer(t *testing.T) {
	for name, handler := range map[string]Handler{
		"Events": Events{OnMessage: func(c *Conn, typ MessageType, p []byte) {
			time.Sleep(800 * time.Millisecond)
			if err := c.WriteMessage(typ, []byte("answer")); err != nil {
				t.Errorf("the answer: %v", err)
			}
		}},
		"HandlerFunc": HandlerFunc(func(c *Conn, _ *http.Request) {
			for m, err := range c.Messages() {
				if err != nil {
					return
				}
				time.Sleep(800 * time.Millisecond)
				if err := c.WriteMessage(m.Type, []byte("answer")); err != nil {
					t.Errorf("the answer: %v", err)
				}
			}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &Server{Handler: handler, ShutdownCode: CloseServiceRestart, ShutdownReason: "back soon"}
				ln := newPipeListener()
				serve(t, s, ln)
				p := ln.open(t)
				go p.nc.Write(textFrame("question"))
				synctest.Wait()
				done := shutDown(s, t.Context())
				p.want(opText, "answer")
				p.wantClosed(CloseServiceRestart, "back soon")
				if err := <-done; err != nil {
					t.Errorf("Shutdown = %v", err)
				}
			})
		})
	}
}

// No other data frame comes between the fragments of a message, whatever ends
// the connection inside it.
func TestEndInsideAMessage(t *testing.T) {
	for name, end := range map[string]func(c *Conn, p *peer){
		"Close":    func(c *Conn, _ *peer) { go c.Close(CloseGoingAway, "") },
		"Shutdown": func(c *Conn, _ *peer) { c.shutdown(CloseGoingAway, "") },
		"crossing": func(c *Conn, p *peer) {
			go c.Close(CloseGoingAway, "")
			synctest.Wait()
			go p.nc.Write(closeFrame(CloseNormal, ""))
		},
	} {
		for _, finish := range []bool{true, false} {
			t.Run(fmt.Sprint(name, "/finished ", finish), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c, p := connectPipe(t, &Upgrader{PingInterval: -1})
					ended := readEnd(c)
					m, err := c.NextWriter(TextMessage)
					if err != nil {
						t.Fatal(err)
					}
					go m.Write(make([]byte, batchSize+1))
					if h, _, err := p.frame(); h.opcode != opText || h.fin || err != nil {
						t.Fatalf("got %v, %v; want a first fragment", h.opcode, err)
					}
					c.Send(text("queued"))
					waiting := make(chan error, 1)
					go func() { waiting <- c.WriteMessage(TextMessage, []byte("waits")) }()
					synctest.Wait()
					end(c, p)
					synctest.Wait()
					if finish {
						go m.Close()
					}
					inside, closed := true, false
					for !closed {
						h, _, err := p.frame()
						if err != nil {
							t.Fatalf("%v before the close frame", err)
						}
						if inside && !h.opcode.control() && h.opcode != opContinuation {
							t.Errorf("a %v frame inside a message", h.opcode)
						}
						if h.opcode == opContinuation && h.fin {
							inside = false
						}
						closed = h.opcode == opClose
					}
					p.nc.Close()
					<-ended
					<-waiting
					runtime.KeepAlive(m) // the collector, which isn't in the bubble, would give it up
				})
			})
		}
	}
}

// The answer to a handler that doesn't read is done for it.
func TestCloseRead(t *testing.T) {
	for name, test := range map[string]struct {
		send []byte
		want func(p *peer)
	}{
		"ping":    {clientFrame(opPing, true, "?"), func(p *peer) { p.want(opPong, "?") }},
		"close":   {closeFrame(CloseGoingAway, ""), func(p *peer) { p.wantClose(CloseGoingAway, "") }},
		"message": {textFrame("x"), func(p *peer) { p.wantClose(ClosePolicyViolation, "a message where none is read") }},
	} {
		t.Run(name, func(t *testing.T) {
			overTransports(t, func(t *testing.T, pair transport) {
				c, p := connect(t, new(Upgrader), pair)
				ctx := c.CloseRead()
				go p.nc.Write(test.send)
				test.want(p)
				p.nc.Close()
				<-ctx.Done()
			})
		})
	}
}

// A read deadline that passes while OnMessage runs loses none of the messages
// that had come before it.
func TestReadDeadlineUnderEventsLosesNothing(t *testing.T) {
	t.Run("tcp", func(t *testing.T) {
		losesNothing(t, tcpPair, func(write func()) { write() })
	})
	for name, late := range map[string]time.Duration{"pipe": 0, "pipe, on a busy machine": 50 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pair := func(t testing.TB) (server, client net.Conn) {
					server, client = pipePair(t)
					return sleepyConn{server, late}, client
				}
				losesNothing(t, pair, func(write func()) {
					go write()
					synctest.Wait()
				})
			})
		})
	}
}

// A sleepyConn returns late from setting a read deadline, as it does when another
// goroutine has its turn just then.
type sleepyConn struct {
	net.Conn
	late time.Duration
}

func (c sleepyConn) SetReadDeadline(t time.Time) error {
	defer time.Sleep(c.late) // of the bubble's
	return c.Conn.SetReadDeadline(t)
}

// losesNothing has a read deadline pass while OnMessage runs, before more messages
// come: come makes sure that they have.
func losesNothing(t *testing.T, pair transport, come func(write func())) {
	c, p := connect(t, new(Upgrader), pair)
	first, passed := make(chan struct{}), make(chan struct{})
	got := make(chan string, 3)
	serveEvents(t, c, Events{OnMessage: func(c *Conn, _ MessageType, data []byte) {
		if got <- string(data); string(data) == "first" {
			close(first)
			<-passed
		}
	}})
	p.sendText("first")
	<-first
	c.SetReadDeadline(time.Now().Add(-time.Second))
	come(func() { p.nc.Write(append(textFrame("second"), textFrame("third")...)) })
	close(passed)
	for _, want := range []string{"first", "second", "third"} {
		select {
		case g := <-got:
			if g != want {
				t.Errorf("OnMessage got %q, want %q", g, want)
			}
		case <-time.After(patience):
			t.Fatalf("%q is lost", want)
		}
	}
	p.wantClose(CloseGoingAway, "read deadline")
}

// The runtime's ETIMEDOUT is a peer that is gone, and no deadline.
func TestKernelTimeoutIsNoDeadline(t *testing.T) {
	if err := fmt.Errorf("read: %w", &net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ETIMEDOUT)}); isTimeout(err) {
		t.Errorf("isTimeout(%v) = true", err)
	}
	if !isTimeout(&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}) {
		t.Error("isTimeout of a deadline = false")
	}
}

// A peer that broke a rule is told so behind everything that was written before,
// however slowly it takes that, and whatever it sends meanwhile.
func TestSlowReaderIsToldTheEnd(t *testing.T) {
	const size = 100_000
	onMessage := func(c *Conn, _ MessageType, _ []byte) { c.WriteMessage(BinaryMessage, make([]byte, size)) }
	p := serveTCP(t, &Server{Handler: Events{OnMessage: onMessage}, ErrorLog: new(logBook).logger()})()
	p.takeLittle()
	p.handshake()
	p.sendText("go")
	p.send([]byte{0xF0, 0x80}) // reserved bits
	buf := make([]byte, 4<<10)
	for len(p.in) < size {
		n, err := p.nc.Read(buf)
		if p.in = append(p.in, buf[:n]...); err != nil {
			t.Fatalf("%v behind %d bytes of %d", err, len(p.in), size)
		}
		p.nc.Write(clientFrame(opPing, true, "")) // which a closed socket answers with a reset
		time.Sleep(10 * time.Millisecond)         // the peer is slow
	}
	if _, payload, err := p.message(); len(payload) != size || err != nil {
		t.Fatalf("the answer is %d bytes, %v", len(payload), err)
	}
	if h, payload, err := p.frame(); h.opcode != opClose || !strings.HasPrefix(payload, "\x03\xea") {
		t.Errorf("the end is %v %q, %v; want a close frame with 1002", h.opcode, payload, err)
	}
}
