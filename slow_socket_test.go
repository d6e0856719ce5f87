package websocket

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// slowWays are the ways to serve a client over a real socket; each returns the
// client's end, with a small receive buffer but for TLS, multipath TCP and sockets
// that are wrapped.
func slowWays(t *testing.T, u Upgrader, write func(c *Conn)) map[string]func() *peer {
	events := Events{OnOpen: func(c *Conn, _ *http.Request) { write(c) }}
	function := HandlerFunc(func(c *Conn, _ *http.Request) {
		write(c)
		c.CloseRead()
		<-c.Context().Done()
	})
	small := func(p *peer) *peer {
		p.takeLittle()
		return p
	}
	return map[string]func() *peer{
		"loop":     func() *peer { return small(serveTCP(t, &Server{Handler: events, Upgrader: u})()) },
		"function": func() *peer { return small(serveTCP(t, &Server{Handler: function, Upgrader: u})()) },
		"TLS": func() *peer {
			return dialTLS(t, serveTLS(t, &Server{Handler: events, Upgrader: u}), clientTLS())
		},
		"multipath": func() *peer {
			ln := listen(t)
			serve(t, &Server{Handler: events, Upgrader: u}, ln)
			return newPeer(t, dialMultipath(t, ln.Addr().String()))
		},
		"multipath, TLS": func() *peer {
			addr := serveTLS(t, &Server{Handler: events, Upgrader: u})
			return newPeer(t, tls.Client(dialMultipath(t, addr), clientTLS()))
		},
		"wrapped": func() *peer {
			ln := &wrappingListener{Listener: listen(t), wrap: wrappers["counting"]}
			serve(t, &Server{Handler: events, Upgrader: u}, ln)
			return newPeer(t, dialAddr(t, ln.Addr().String()))
		},
		"wrapped, TLS": func() *peer {
			ln := &wrappingListener{Listener: listen(t), wrap: wrappers["counting"]}
			serve(t, &Server{Handler: events, Upgrader: u}, tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{testCertificate()}}))
			return dialTLS(t, ln.Addr().String(), clientTLS())
		},
	}
}

// dialMultipath connects as phones do that go on when their network changes (RFC
// 8684): a listener of Go's takes such a client where the system can. With a small
// receive buffer Linux stalls, whoever serves.
func dialMultipath(t testing.TB, addr string) net.Conn {
	t.Helper()
	var d net.Dialer
	d.SetMultipathTCP(true)
	nc, err := d.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return nc
}

// drain reads n bytes in the given time, evenly.
func drain(nc net.Conn, n int, d time.Duration) ([]byte, error) {
	const steps = 50
	var got bytes.Buffer
	for got.Len() < n {
		if _, err := io.CopyN(&got, nc, int64(min(n/steps, n-got.Len()))); err != nil {
			return got.Bytes(), err
		}
		time.Sleep(d / steps)
	}
	return got.Bytes(), nil
}

// What lies in the kernel when the connection is closed, or when a ping is
// written, takes longer to go than the timeouts, and goes.
func TestKernelBufferGoesSlowly(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("the system doesn't tell what was taken")
	}
	const size = 1 << 20
	for name, test := range map[string]struct {
		u     Upgrader
		write func(c *Conn)
	}{
		"closed behind": {Upgrader{CloseTimeout: time.Second, PingInterval: -1}, func(c *Conn) {
			go func() {
				c.WriteMessage(BinaryMessage, make([]byte, size))
				c.Close(CloseNormal, "")
			}()
		}},
		"pinged behind": {Upgrader{PingInterval: 200 * time.Millisecond, PongTimeout: time.Second}, func(c *Conn) {
			go func() {
				c.WriteMessage(BinaryMessage, make([]byte, size))
			}()
		}},
		"written": {Upgrader{WriteTimeout: time.Second, PingInterval: -1}, func(c *Conn) {
			go c.WriteMessage(BinaryMessage, make([]byte, size))
		}},
		"queued": {Upgrader{WriteTimeout: time.Second, PingInterval: -1}, func(c *Conn) {
			c.Send(NewPreparedMessage(BinaryMessage, make([]byte, size)))
		}},
	} {
		for way, dial := range slowWays(t, test.u, test.write) {
			t.Run(name+"/"+way, func(t *testing.T) {
				t.Parallel()
				// A busy machine keeps the client from reading, and it is cut by right: who
				// reads slowly gets all at one of a few attempts.
				for attempt := 1; ; attempt++ {
					err := takeSlowly(dial(), size, name == "closed behind")
					if err == nil {
						break
					}
					if attempt == 3 {
						t.Fatal(err)
					}
					t.Logf("attempt %d: %v", attempt, err)
				}
			})
		}
	}
}

// takeSlowly shakes hands and takes size bytes of messages in two seconds, and the
// close frame behind them if there is one.
func takeSlowly(p *peer, size int, closed bool) error {
	p.send([]byte(peerRequest))
	for len(p.in) < len(peerAnswer) {
		if err := p.receive(); err != nil {
			return fmt.Errorf("after %d bytes of the 101: %w", len(p.in), err)
		}
	}
	p.wantBytes(peerAnswer)
	got, err := drain(p.nc, size-len(p.in), 2*time.Second)
	if err != nil {
		return fmt.Errorf("after %d of %d bytes: %w", len(got)+len(p.in), size, err)
	}
	p.in = append(p.in, got...)
	for data := 0; data < size; {
		h, payload, err := p.frame()
		if err != nil {
			return fmt.Errorf("after %d bytes of the message: %w", data, err)
		}
		if !h.opcode.control() {
			data += len(payload)
		}
	}
	if !closed {
		return nil
	}
	h, payload, err := p.frame()
	if h.opcode != opClose || payload != string(appendClosePayload(nil, CloseNormal, "")) {
		return fmt.Errorf("behind the message: %v %q, %w; want close with 1000", h.opcode, payload, err)
	}
	return nil
}

// A peer that takes nothing is cut in WriteTimeout and a quarter, whatever it
// sends.
func TestTakesNothingIsCut(t *testing.T) {
	t.Parallel()
	const timeout = time.Second
	var cut sync.Map // addresses of clients
	for way, dial := range slowWays(t, Upgrader{WriteTimeout: timeout, PingInterval: -1}, func(c *Conn) {
		go func() {
			c.WriteMessage(BinaryMessage, make([]byte, 32<<20))
			cut.Store(c.RemoteAddr().String(), true)
		}()
	}) {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			p := dial()
			start := time.Now() // no later than the write begins
			p.send([]byte(peerRequest))
			for {
				if _, err := p.nc.Write(clientFrame(opPing, true, "alive")); err != nil {
					break
				}
				if _, ok := cut.Load(p.nc.LocalAddr().String()); ok {
					break // the system may not tell a client of Multipath TCP
				}
				if time.Since(start) > patience {
					t.Fatal("it is still there")
				}
				time.Sleep(20 * time.Millisecond) // a client that lives
			}
			if got := time.Since(start); got < timeout || got > timeout+8*time.Second { // the kernel takes some for a while, and a busy machine; without it they are ten
				t.Errorf("cut after %v, want %v and a quarter", got, timeout)
			}
		})
	}
}

// A message larger than the queue is taken while the queue is empty, by every
// member of a room, and makes none of them slow.
func TestRoomTakesOneLargeMessage(t *testing.T) {
	r := newRoom(t, Upgrader{})
	peers := r.join(t, 3)
	big := strings.Repeat("b", 1<<20) // with its header it is more than SendQueue
	if n := r.Broadcast(text("%s", big)); n != 3 {
		t.Errorf("Broadcast of 1 MiB reached %d, want 3", n)
	}
	for i := range 10 {
		if n := r.Broadcast(text("small %d", i)); n != 3 {
			t.Errorf("Broadcast behind it reached %d, want 3", n)
		}
	}
	for _, p := range peers {
		p.want(opText, big)
		for i := range 10 {
			p.want(opText, fmt.Sprintf("small %d", i))
		}
	}
}

// A message that the application writes slowly by NextWriter doesn't fill the
// queue against a peer that takes all of it.
func TestNextWriterCreditsTheQueue(t *testing.T) {
	r := newRoom(t, Upgrader{SendQueue: 100_000})
	p := r.join(t, 1)[0]
	var c *Conn
	for c = range r.Members() {
	}
	go io.Copy(io.Discard, p.nc)
	m, err := c.NextWriter(BinaryMessage)
	if err != nil {
		t.Fatal(err)
	}
	for range 30 {
		if _, err := m.Write(make([]byte, 32<<10)); err != nil {
			t.Fatal(err)
		}
		if err := c.Send(NewPreparedMessage(BinaryMessage, make([]byte, 10_000))); err != nil {
			t.Fatalf("Send while the peer takes a message: %v", err)
		}
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the queue to go", func() bool { return c.Queued() == 0 })
}

// The newest value always comes, and those that belong together stay.
func TestDropOldest(t *testing.T) {
	r := newRoom(t, Upgrader{SendQueue: 100, SlowPolicy: DropOldest})
	p := r.join(t, 1)[0]
	var c *Conn
	for c = range r.Members() {
	}
	c.write.mu.Lock() // nothing leaves
	for i := range 50 {
		if err := c.Send(text("packet %d", i), text("attachment %d", i)); err != nil {
			t.Errorf("Send %d: %v", i, err)
		}
	}
	c.unlockWrite()
	last := -1
	for last < 49 {
		_, packet, err := p.message()
		if err != nil {
			t.Fatal(err)
		}
		var n int
		if _, err := fmt.Sscanf(packet, "packet %d", &n); err != nil || n <= last {
			t.Fatalf("got %q behind packet %d", packet, last)
		}
		p.want(opText, fmt.Sprintf("attachment %d", n))
		last = n
	}
	if got := r.s.Stats().Dropped; got == 0 || got%2 != 0 {
		t.Errorf("Dropped = %d, want whole pairs", got)
	}
}

func TestBroadcastFunc(t *testing.T) {
	r := newRoom(t, Upgrader{})
	peers := r.join(t, 4)
	var sender *Conn
	for sender = range r.Members() {
	}
	n := r.BroadcastFunc(func(c *Conn) bool {
		r.Leave(sender) // and whatever else it likes
		r.Join(sender)
		return c != sender
	}, text("one"), text("two"))
	if n != 3 {
		t.Errorf("BroadcastFunc reached %d, want 3", n)
	}
	r.Broadcast(text("end"))
	got := 0
	for _, p := range peers {
		_, first, err := p.message()
		if err != nil {
			t.Fatal(err)
		}
		if first == "one" {
			got++
			p.want(opText, "two")
			p.want(opText, "end")
		}
	}
	if got != 3 {
		t.Errorf("%d members got both, want 3", got)
	}
}

// Join and Leave at once leave nobody who isn't told of the end.
func TestJoinAndLeaveAtOnce(t *testing.T) {
	var g Group
	for range 200 {
		c, p := connect(t, new(Upgrader), pipePair)
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() { g.Join(c) })
			wg.Go(func() { g.Leave(c) })
		}
		wg.Wait()
		c.CloseNow()
		p.nc.Close()
		if n := g.Len(); n != 0 {
			t.Fatalf("%d members are left after their end", n)
		}
	}
}

// Whoever is told of the end finds it everywhere.
func TestEndIsOneMoment(t *testing.T) {
	var g Group
	faults := make(chan string, 1000)
	check := func(c *Conn, where string) {
		if c.Context().Err() == nil {
			faults <- where + ": the context isn't done"
		}
		for m := range g.Members() {
			if m == c {
				faults <- where + ": still a member"
			}
		}
	}
	closed := make(chan *Conn, 100)
	s := &Server{Handler: Events{
		OnOpen: func(c *Conn, _ *http.Request) {
			g.Join(c)
			go func() {
				<-c.Context().Done()
				check(c, "Context")
			}()
			go c.CloseNow()
		},
		OnClose: func(c *Conn, _ error) {
			check(c, "OnClose")
			closed <- c
		},
	}}
	dial := serveTCP(t, s)
	for range 100 {
		dial().send([]byte(peerRequest))
	}
	for range 100 {
		<-closed
	}
	select {
	case fault := <-faults:
		t.Error(fault)
	default:
	}
}

// A writer that nobody can close any more lets nobody wait for ever.
func TestForgottenWriter(t *testing.T) {
	c, p := connect(t, new(Upgrader), tcpPair)
	end := readEnd(c)
	func() {
		m, err := c.NextWriter(TextMessage)
		if err != nil {
			t.Fatal(err)
		}
		m.Write(make([]byte, 2*batchSize))
	}()
	waiting := make(chan error, 1)
	go func() { waiting <- c.WriteMessage(TextMessage, nil) }()
	for deadline := time.Now().Add(patience); ; runtime.Gosched() {
		runtime.GC()
		select {
		case err := <-waiting:
			if err == nil {
				t.Error("WriteMessage behind half a message = nil, want an error")
			}
			p.wantClosed(CloseInternalError, "")
			wantEndError(t, <-end, EndError{By: SideServer, Sent: CloseInternalError, Received: CloseInternalError, Clean: true}, errAbandoned)
			return
		default:
			if time.Now().After(deadline) {
				t.Fatal("WriteMessage waits for ever")
			}
		}
	}
}

// What Send took leaves while a callback takes long.
func TestQueueGoesOnWhileACallbackRuns(t *testing.T) {
	const size, messages = 1 << 20, 8
	for name, events := range map[string]func(slow func(*Conn)) Events{
		"OnOpen": func(slow func(*Conn)) Events { return Events{OnOpen: func(c *Conn, _ *http.Request) { slow(c) }} },
		"OnMessage": func(slow func(*Conn)) Events {
			return Events{OnMessage: func(c *Conn, _ MessageType, _ []byte) { slow(c) }}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			done := make(chan struct{})
			s := &Server{Handler: events(func(c *Conn) {
				for range messages {
					c.Send(NewPreparedMessage(BinaryMessage, make([]byte, size)))
				}
				<-done
			}), Upgrader: Upgrader{WriteTimeout: time.Second, PingInterval: -1, SendQueue: messages * 2 * size}}
			p := serveTCP(t, s)()
			p.takeLittle()
			p.handshake()
			p.sendText("go")
			for i := range messages {
				if _, got, err := p.frame(); err != nil || len(got) != size {
					t.Errorf("message %d has %d bytes, %v", i, len(got), err)
					break
				}
			}
			close(done)
		})
	}
}
