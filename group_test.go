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
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rawws/websocket/internal/deflate"
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
