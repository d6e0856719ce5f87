package websocket

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rawws/websocket/internal/deflate"
	"github.com/rawws/websocket/internal/netloop"
)

var stress = flag.Duration("stress", 2*time.Second, "how long the stress tests run")

// waitFor polls, for what another goroutine is about to do.
func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// A room is a server whose connections join a group at once.
type room struct {
	Group
	s    *Server
	dial func() *peer
	ends chan error
}

func newRoom(t testing.TB, u Upgrader) *room {
	r := &room{ends: make(chan error, 1000)}
	r.s = &Server{Upgrader: u, Handler: Events{
		OnOpen:    func(c *Conn, _ *http.Request) { r.Join(c) },
		OnMessage: func(c *Conn, t MessageType, p []byte) { c.WriteMessage(t, p) },
		OnClose:   func(_ *Conn, err error) { r.ends <- err },
	}}
	r.dial = serveTCP(t, r.s)
	return r
}

// join returns n peers that are members.
func (r *room) join(t testing.TB, n int) []*peer {
	t.Helper()
	before := r.Len()
	peers := make([]*peer, n)
	for i := range peers {
		peers[i] = r.dial()
		peers[i].handshake()
	}
	waitFor(t, "members", func() bool { return r.Len() == before+n })
	return peers
}

func text(format string, args ...any) *PreparedMessage {
	return NewPreparedMessage(TextMessage, fmt.Appendf(nil, format, args...))
}

func TestBroadcast(t *testing.T) {
	r := newRoom(t, Upgrader{})
	peers := r.join(t, 20)
	big := strings.Repeat("b", 100_000)
	for i := range 10 {
		if n := r.Broadcast(text("m%d", i)); n != 20 {
			t.Errorf("Broadcast reached %d, want 20", n)
		}
	}
	r.Broadcast(text("%s", big))
	r.Broadcast(NewPreparedMessage(BinaryMessage, nil))
	for _, p := range peers {
		for i := range 10 {
			p.want(opText, fmt.Sprintf("m%d", i))
		}
		p.want(opText, big)
		p.want(opBinary, "")
	}
}

// What a socket doesn't take of a message that comes alone keeps its place, and
// counts as queued.
func TestBroadcastAlone(t *testing.T) {
	const size = 8 << 20 // more than the socket takes
	first, second := NewPreparedMessage(BinaryMessage, make([]byte, size)), text("second")
	for name, want := range map[string]struct{ limit, reached int }{
		"room behind it": {4 << 10, 1}, "a queue of one": {1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t, Upgrader{SendQueue: want.limit})
			p := r.join(t, 1)[0]
			p.takeLittle()
			if n := r.Broadcast(first); n != 1 {
				t.Fatalf("Broadcast reached %d, want 1", n)
			}
			r.ended.Store(0)
			next := second
			if want.reached == 0 {
				next = NewPreparedMessage(BinaryMessage, make([]byte, 1<<10))
			}
			if n := r.Broadcast(next); n != want.reached {
				t.Fatalf("the second reached %d, want %d", n, want.reached)
			}
			p.want(opBinary, string(first.payload))
			if want.reached == 0 {
				p.wantClose(ClosePolicyViolation, "reading too slowly")
				return
			}
			p.want(opText, "second")
		})
	}
}

// Who writes what the loop was to go on with leaves it the queue behind that.
func TestQueueBehindPing(t *testing.T) {
	const size = 8 << 20 // more than the socket takes
	for name, write := range map[string]func(c *Conn) error{
		"Ping": func(c *Conn) error { return c.Ping(nil) }, "Flush": (*Conn).Flush,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t, Upgrader{SendQueue: 2 * size})
			p := r.join(t, 1)[0]
			p.takeLittle()
			c := slices.Collect(r.Members())[0]
			first := NewPreparedMessage(BinaryMessage, make([]byte, size))
			if err := c.Send(first, text("second")); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the socket is full", func() bool { return c.write.underWay() == writeQueued })
			wrote := make(chan error, 1)
			go func() { wrote <- write(c) }()
			eventually(t, "the writer is at work", func() bool {
				if !c.write.mu.TryLock() {
					return true
				}
				c.unlockNow()
				return false
			})
			p.want(opBinary, string(first.payload))
			h, payload, err := p.frame()
			if h.opcode == opPing {
				h, payload, err = p.frame()
			}
			if payload != "second" || err != nil {
				t.Errorf("behind the first message: %v %q, %v; want the second", h.opcode, payload, err)
			}
			if err := <-wrote; err != nil {
				t.Errorf("%s = %v", name, err)
			}
		})
	}
}

// What a socket that was cut didn't take goes to no other connection that gets its
// queue from the pool.
func TestRestOfQueueForgotten(t *testing.T) {
	r := newRoom(t, Upgrader{})
	p := r.join(t, 1)[0]
	p.takeLittle()
	c := slices.Collect(r.Members())[0]
	if err := c.Send(NewPreparedMessage(BinaryMessage, make([]byte, 8<<20))); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the socket is full", func() bool { return c.write.underWay() == writeQueued })
	q := c.queue.Load()
	c.CloseNow()
	c.sendClose(false) // of who had begun the end before it
	if c.write.out != nil || q.rest.b != nil {
		t.Errorf("a queue in the pool has the rest of a frame, %d bytes", len(q.rest.b))
	}
}

// Who serves many connections doesn't wait for one's peer to take a pong.
func TestPongLeftToAnotherGoroutine(t *testing.T) {
	c, _ := connect(t, &Upgrader{WriteTimeout: -1}, tcpPair)
	c.write.mu.Lock()
	for junk := make([]byte, 1<<20); ; {
		n, err := c.tryWrite(junk)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
	}
	c.answerPing([]byte("left"))
	done := make(chan bool)
	go func() {
		c.unlockNow()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(patience):
		t.Error("unlockNow waits for a peer that reads nothing")
	}
}

// What was queued goes out before what is written later, and before the close.
func TestSendOrder(t *testing.T) {
	overTransports(t, func(t *testing.T, pair transport) {
		c, p := connect(t, &Upgrader{}, pair)
		done := make(chan error, 1)
		go func() {
			for i := range 50 {
				c.Send(text("sent %d", i))
				c.WriteMessage(TextMessage, fmt.Appendf(nil, "written %d", i))
				c.WritePrepared(text("prepared %d", i))
			}
			c.Send(text("last"))
			done <- c.Close(CloseNormal, "bye")
		}()
		for i := range 50 {
			p.want(opText, fmt.Sprintf("sent %d", i))
			p.want(opText, fmt.Sprintf("written %d", i))
			p.want(opText, fmt.Sprintf("prepared %d", i))
		}
		p.want(opText, "last")
		p.wantClose(CloseNormal, "bye")
		if err := c.Send(text("late")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Send after Close = %v, want one that is %v", err, net.ErrClosed)
		}
		p.send(closeFrame(CloseNormal, ""))
		p.leave()
		if err := <-done; err != nil {
			t.Errorf("Close = %v", err)
		}
	})
}

// A Send that returned nil has put its message before the close frame, also when
// the end begins at the same moment.
func TestSendWhileClosing(t *testing.T) {
	ends := map[string]func(*Server, *Conn){
		"Close":    func(_ *Server, c *Conn) { c.Close(CloseGoingAway, "") },
		"Shutdown": func(_ *Server, c *Conn) { c.shutdown(CloseGoingAway, "") },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t, Upgrader{SendQueue: 1 << 30}) // the end may be late
			for round := range 200 {
				p := r.join(t, 1)[0]
				var c *Conn
				for c = range r.Members() {
				}
				r.Leave(c)
				sent := make(chan int)
				go func() {
					n := 0
					for c.Send(text("m")) == nil {
						n++
					}
					sent <- n
				}()
				go end(r.s, c)
				got := 0
				op, _, err := p.message()
				for ; err == nil && op == opText; op, _, err = p.message() {
					got++
				}
				if want := <-sent; err != nil || op != opClose || got != want {
					t.Fatalf("round %d: got %d messages, then %v, %v; want the %d that Send took and close", round, got, op, err, want)
				}
				p.send(closeFrame(CloseGoingAway, ""))
				p.wantEnd()
			}
		})
	}
}

// Who closes while the peer does the same, or breaks a rule, has promised it what Send
// took.
func TestSendBeforeCrossingCloses(t *testing.T) {
	for _, theirs := range []struct {
		frame []byte
		want  EndError
	}{
		{closeFrame(CloseNormal, ""), EndError{By: SideServer, Sent: CloseGoingAway, Received: CloseNormal, Clean: true}},
		{clientFrame(opBinary, true, "of more than a byte"), EndError{By: SideServer, Sent: CloseGoingAway}},
	} {
		for range 20 {
			c, p := connect(t, &Upgrader{MaxMessageSize: 1}, pipePair)
			read := make(chan error, 1)
			go func() {
				_, _, err := c.ReadMessage()
				read <- err
			}()
			c.Send(text("m0"))
			waitFor(t, "the first write, which a pipe's reader has to take", func() bool {
				c.qmu.Lock()
				defer c.qmu.Unlock()
				return c.queue.Load().flying > 0
			})
			c.Send(text("m1"))
			c.Send(text("m2"))
			go c.Close(CloseGoingAway, "")
			waitFor(t, "our close", func() bool { return c.connState() == stateClosing })
			p.send(theirs.frame[:6]) // its payload needn't come to be refused
			go p.nc.Write(theirs.frame[6:])
			for i := range 3 {
				p.want(opText, fmt.Sprintf("m%d", i))
			}
			p.wantClose(CloseGoingAway, "")
			p.nc.Close()
			wantEndError(t, <-read, theirs.want, net.ErrClosed)
		}
	}
}

func TestSendOfNoType(t *testing.T) {
	c, _ := connect(t, &Upgrader{}, tcpPair)
	var g Group
	g.Join(c)
	for name, m := range map[string]*PreparedMessage{"type 7": NewPreparedMessage(7, nil), "zero": {}, "nil": nil} {
		if err := c.Send(text("good"), m); err == nil {
			t.Errorf("%s: Send gave no error", name)
		}
		if err := c.WritePrepared(m); err == nil {
			t.Errorf("%s: WritePrepared gave no error", name)
		}
		if n := g.Broadcast(text("good"), m); n != 0 {
			t.Errorf("%s: Broadcast reached %d, want 0", name, n)
		}
	}
}

// A member that doesn't read is closed with 1008 and costs the others nothing.
func TestSlowMemberIsClosed(t *testing.T) {
	r := newRoom(t, Upgrader{SendQueue: 1 << 20})
	stuck := r.join(t, 1)[0]
	stuck.takeLittle()
	peers := r.join(t, 5)
	m := NewPreparedMessage(BinaryMessage, make([]byte, 64<<10))
	for n := 6; n > 5; {
		n = r.Broadcast(m)
		for _, p := range peers {
			p.want(opBinary, string(m.payload))
		}
	}
	if got := r.s.Stats().Dropped; got != 1 {
		t.Errorf("Dropped = %d, want 1", got)
	}
	// It reads now: whole frames, and at their end why it was closed.
	for {
		h, payload, err := stuck.frame()
		if err != nil {
			t.Fatalf("the slow member got %v before its close frame", err)
		}
		if h.opcode == opClose {
			if want := string(appendClosePayload(nil, ClosePolicyViolation, "reading too slowly")); payload != want {
				t.Errorf("close payload %q, want %q", payload, want)
			}
			break
		}
	}
	stuck.send(closeFrame(ClosePolicyViolation, ""))
	stuck.leave()
	wantEndError(t, <-r.ends, EndError{By: SideServer, Sent: 1008, Received: 1008, Clean: true}, errSlow)
	waitFor(t, "the slow member to be out", func() bool { return r.Len() == 5 })
}

func TestDropNewest(t *testing.T) {
	r := newRoom(t, Upgrader{SendQueue: 1 << 20, SlowPolicy: DropNewest})
	stuck := r.join(t, 1)[0]
	var c *Conn
	for c = range r.Members() {
	}
	c.write.mu.Lock() // what is queued stays there
	sent := 0
	var err error
	for ; err == nil; sent++ {
		err = c.Send(text("%d %s", sent, strings.Repeat("x", 100_000)))
	}
	if got := c.Queued(); got < 900_000 || got > 1<<20 {
		t.Errorf("Queued() = %d in a queue of 1 MiB that is full", got)
	}
	if err != ErrQueueFull {
		t.Fatalf("Send = %v, want %v", err, ErrQueueFull)
	}
	if err := c.Send(NewPreparedMessage(TextMessage, make([]byte, 2<<20))); err != ErrQueueFull {
		t.Errorf("Send of more than the queue = %v, want %v", err, ErrQueueFull)
	}
	two := []*PreparedMessage{text("%s", strings.Repeat("y", 1<<20)), text("")}
	if err := c.Send(two...); err != ErrQueueFull {
		t.Errorf("Send of two more = %v, want %v", err, ErrQueueFull)
	}
	c.unlockWrite()
	for i := range sent - 1 {
		_, got, err := stuck.message()
		if n, _, _ := strings.Cut(got, " "); err != nil || n != fmt.Sprint(i) {
			t.Fatalf("message %d: got %s, %v", i, quote(got), err)
		}
	}
	if got := r.s.Stats().Dropped; got != 4 {
		t.Errorf("Dropped = %d, want 4", got)
	}
	waitFor(t, "room in the queue", func() bool { return c.Send(text("again")) == nil })
	stuck.want(opText, "again")
}

// A pong and the answer to a close don't wait behind the queue.
func TestControlFramesPassTheQueue(t *testing.T) {
	r := newRoom(t, Upgrader{SendQueue: 64 << 20})
	p := r.join(t, 1)[0]
	p.takeLittle()
	m := NewPreparedMessage(BinaryMessage, make([]byte, 1<<20))
	for range 60 {
		r.Broadcast(m)
	}
	p.send(clientFrame(opPing, true, "hello"))
	before := 0
	for h, _, err := p.frame(); h.opcode != opPong; h, _, err = p.frame() {
		if before++; err != nil || before == 60 {
			t.Fatalf("%d messages, %v, and no pong", before, err)
		}
	}
	p.send(closeFrame(CloseGoingAway, ""))
	for h, _, err := p.frame(); h.opcode != opClose; h, _, err = p.frame() {
		if before++; err != nil || before == 60 {
			t.Fatalf("%d messages, %v, and no close frame", before, err)
		}
	}
	p.wantEnd()
}

func TestGroupMembership(t *testing.T) {
	var g, h Group
	c, p := connect(t, &Upgrader{}, tcpPair)
	other, _ := connect(t, &Upgrader{}, tcpPair)
	for range 2 { // joining twice is joining
		if !g.Join(c) || !g.Join(other) || !h.Join(c) {
			t.Fatal("Join of an open connection = false")
		}
	}
	if g.Len() != 2 || h.Len() != 1 {
		t.Errorf("Len = %d and %d, want 2 and 1", g.Len(), h.Len())
	}
	seen := map[*Conn]int{}
	for c := range g.Members() {
		seen[c]++
	}
	if len(seen) != 2 || seen[c] != 1 || seen[other] != 1 {
		t.Errorf("Members gave %v", seen)
	}
	for range g.Members() {
		break
	}
	if !g.Leave(other) || g.Leave(other) {
		t.Error("Leave of a member, then of none, isn't true and false")
	}
	p.nc.Close()
	if _, _, err := c.ReadMessage(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("ReadMessage = %v", err)
	}
	if g.Len() != 0 || h.Len() != 0 {
		t.Errorf("Len = %d and %d after the end, want 0", g.Len(), h.Len())
	}
	if g.Join(c) || g.Len() != 0 {
		t.Error("a connection that has ended could join")
	}
}

// A prepared message is compressed once for each setting that was agreed on.
func TestPreparedMessageDeflates(t *testing.T) {
	r := newRoom(t, Upgrader{Compression: &Compression{}})
	plain := r.join(t, 1)[0]
	var squeezed []*peer
	for _, offer := range []string{"permessage-deflate", "permessage-deflate", "permessage-deflate; server_max_window_bits=9"} {
		p := r.dial()
		p.send([]byte(strings.Replace(peerRequest, "\r\n\r\n", "\r\nSec-WebSocket-Extensions: "+offer+"\r\n\r\n", 1)))
		waitFor(t, "answer", func() bool {
			if i := strings.Index(string(p.in), "\r\n\r\n"); i >= 0 {
				p.in = p.in[i+4:]
				return true
			}
			return p.receive() != nil
		})
		squeezed = append(squeezed, p)
	}
	waitFor(t, "members", func() bool { return r.Len() == 4 })
	m := text("%s", strings.Repeat("again and ", 1000))
	small := text("small")
	if r.Broadcast(m) != 4 || r.Broadcast(small) != 4 {
		t.Error("Broadcast didn't reach all")
	}
	plain.want(opText, string(m.payload))
	plain.want(opText, "small")
	for i, p := range squeezed {
		waitFor(t, "frame", func() bool {
			h, n, _ := parseHeader(p.in)
			return n > 0 && len(p.in) >= n+int(h.length) || p.receive() != nil
		})
		h, n, err := parseHeader(p.in)
		if err != nil || !h.rsv1 || h.length > 1000 {
			t.Fatalf("peer %d: header %+v, %v; want RSV1 and less than 1000 bytes", i, h, err)
		}
		out, err := deflate.Decompress(nil, p.in[n:n+int(h.length)], nil, -1)
		if err != nil || string(out) != string(m.payload) {
			t.Errorf("peer %d: inflates to %s, %v", i, quote(out), err)
		}
		p.in = p.in[n+int(h.length):]
		p.want(opText, "small")
	}
	if n := len(m.deflated); n != 2 {
		t.Errorf("compressed %d times for two settings", n)
	}
}

// Whatever hits a group at once, every connection ends exactly once, nobody
// stays a member, and nothing is left behind (TestMain looks).
func TestGroupStress(t *testing.T) {
	var rooms [3]Group
	var opened, closed atomic.Int64
	s := &Server{
		Upgrader: Upgrader{SendQueue: 256 << 10, PingInterval: 20 * time.Millisecond, CloseTimeout: time.Second},
		Handler: Events{
			OnOpen: func(c *Conn, _ *http.Request) {
				opened.Add(1)
				rooms[rand.IntN(3)].Join(c)
			},
			OnMessage: func(c *Conn, t MessageType, p []byte) {
				switch rand.IntN(6) {
				case 0:
					rooms[rand.IntN(3)].Leave(c)
				case 1:
					rooms[rand.IntN(3)].Join(c)
				case 2:
					rooms[rand.IntN(3)].Broadcast(NewPreparedMessage(t, p))
				case 3:
					go c.Close(CloseNormal, "")
				case 4:
					c.CloseNow()
				default:
					c.WriteMessage(t, p)
				}
			},
			OnClose: func(*Conn, error) { closed.Add(1) },
		},
	}
	ln := listen(t)
	serve(t, s, ln)
	end := time.Now().Add(*stress)
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() {
			for time.Now().Before(end) {
				nc, err := net.Dial("tcp", ln.Addr().String())
				if err != nil {
					return // Shutdown has begun
				}
				nc.SetDeadline(end)
				nc.Write([]byte(peerRequest))
				go func() {
					for range rand.IntN(20) {
						nc.Write(textFrame(strings.Repeat("x", rand.IntN(5000))))
					}
					switch rand.IntN(3) {
					case 0:
						nc.Write(closeFrame(CloseNormal, ""))
					case 1:
						nc.Close()
					}
				}()
				if rand.IntN(5) > 0 { // else it never reads
					io.CopyN(io.Discard, nc, rand.Int64N(1<<20))
				}
				nc.Close()
			}
		})
	}
	for _, g := range []*Group{&rooms[0], &rooms[1], &rooms[2]} {
		wg.Go(func() {
			for time.Now().Before(end) {
				g.Broadcast(text("%s", strings.Repeat("b", rand.IntN(20_000))))
				for c := range g.Members() {
					if rand.IntN(50) == 0 {
						go c.Close(CloseGoingAway, "")
					}
				}
				runtime.Gosched()
			}
		})
	}
	wg.Wait()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown = %v", err)
	}
	if opened.Load() == 0 || opened.Load() != closed.Load() {
		t.Errorf("%d connections opened and %d closed", opened.Load(), closed.Load())
	}
	for i := range rooms {
		if n := rooms[i].Len(); n != 0 {
			t.Errorf("room %d has %d members that have ended", i, n)
		}
	}
}

// On the loop the queue of a slow receiver needs no goroutine: what its socket
// doesn't take leaves when there is room, in order, pongs between.
func TestQueuesNeedNoGoroutine(t *testing.T) {
	if !netloop.Supported {
		t.Log("goroutines drain the queues here")
		return
	}
	const members, messages, size = 50, 40, 100_000
	r := newRoom(t, Upgrader{SendQueue: messages * 2 * size})
	peers := r.join(t, members)
	for _, p := range peers {
		p.takeLittle()
	}
	before := runtime.NumGoroutine()
	for i := range messages {
		big := strings.Repeat("b", size)
		if n := r.Broadcast(text("%d %s", i, big), text("%d", i)); n != members {
			t.Fatalf("Broadcast %d reached %d, want %d", i, n, members)
		}
	}
	eventually(t, "the queues wait without a goroutine each", func() bool { return runtime.NumGoroutine() < before+members/2 })
	waiting := 0
	for c := range r.Members() {
		if c.Queued() > 0 {
			waiting++
		}
	}
	if waiting != members {
		t.Errorf("%d of %d queues hold something", waiting, members)
	}
	var all sync.WaitGroup
	for _, p := range peers {
		all.Go(func() {
			p.nc.Write(clientFrame(opPing, true, "ping"))
			next, pongs := 0, 0
			for next < 2*messages || pongs == 0 {
				h, payload, err := p.frame()
				if err != nil {
					t.Errorf("behind %d messages: %v", next, err)
					return
				}
				if h.opcode == opPong {
					pongs++
					continue
				}
				if n, _, _ := strings.Cut(payload, " "); n != fmt.Sprint(next/2) {
					t.Errorf("message %d is %s", next, quote(payload))
					return
				}
				next++
			}
		})
	}
	all.Wait()
}

// A peer that closes its side and reads on gets what Send took up to some message,
// and nothing behind one that it doesn't get.
func TestHalfCloseLeavesNothingOut(t *testing.T) {
	for kind, serve := range map[string]func(send func(*Conn)) Handler{
		"events": func(send func(*Conn)) Handler {
			return Events{OnOpen: func(c *Conn, _ *http.Request) { go send(c) }}
		},
		"function": func(send func(*Conn)) Handler {
			return HandlerFunc(func(c *Conn, _ *http.Request) {
				go send(c)
				c.ReadMessage()
			})
		},
	} {
		t.Run(kind, func(t *testing.T) {
			dial := serveTCP(t, &Server{Handler: serve(func(c *Conn) {
				for i := 0; c.Send(text("%d", i)) == nil; i++ {
				}
			}), Upgrader: Upgrader{SlowPolicy: CloseSlow, SendQueue: 1 << 30}})
			for range 50 {
				p := dial()
				p.handshake()
				p.want(opText, "0")
				p.nc.(*net.TCPConn).CloseWrite()
				for i := 1; ; i++ {
					_, got, err := p.frame()
					if err != nil {
						break
					}
					if got != fmt.Sprint(i) {
						t.Fatalf("message %d is %q", i, got)
					}
				}
				p.nc.Close()
			}
		})
	}
}
