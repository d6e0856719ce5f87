package websocket

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/rawws/websocket/internal/netloop"
)

// queueOf makes a queue from the names of its messages: "+" says that the next one
// belongs to it, "|" stands before the one at head.
func queueOf(drawn string) *sendQueue {
	q := new(sendQueue)
	for name := range strings.FieldsSeq(drawn) {
		if name == "|" {
			q.head = len(q.messages)
			continue
		}
		q.messages = append(q.messages, queued{text("%s", name), strings.HasSuffix(name, "+")})
	}
	return q
}

// waiting draws what is behind head, and the message before it if more of its call
// follow.
func (q *sendQueue) waiting() string {
	var names []string
	if q.head > 0 && q.messages[q.head-1].more {
		names = append(names, "+")
	}
	for _, next := range q.messages[q.head:] {
		names = append(names, string(next.m.payload))
	}
	return strings.Join(names, " ")
}

// What is left out costs what is behind it nothing: a backlog of a megabyte has very
// many small messages, and with DropOldest each new one may push out an old one.
func TestLeaveOut(t *testing.T) {
	for _, test := range []struct {
		queue     string
		first, at int
		want      string
	}{
		{"| a b c", 0, 1, "b c"},
		{"| a b c", 0, 3, ""},
		{"| a b c", 1, 1, "a b c"},
		{"a b | c d e", 2, 4, "e"},
		{"a+ | b c d", 2, 3, "+ b d"},
		{"a+ | b+ c d+ e f", 3, 5, "+ b+ c f"},
		{"a+ | b c", 2, 3, "+ b"},
	} {
		q := queueOf(test.queue)
		last := &q.messages[len(q.messages)-1]
		q.leaveOut(test.first, test.at)
		if got := q.waiting(); got != test.want {
			t.Errorf("leaveOut(%d, %d) of %q leaves %q; want %q", test.first, test.at, test.queue, got, test.want)
		}
		if last != &q.messages[len(q.messages)-1] {
			t.Errorf("leaveOut(%d, %d) of %q moves what is behind", test.first, test.at, test.queue)
		}
	}
}

// A queue that is never empty, since its peer is just as fast as the feed, doesn't
// grow with what it has sent.
func TestQueueThatIsNeverEmpty(t *testing.T) {
	for _, policy := range []SlowPolicy{CloseSlow, DropOldest} {
		const backlog, messages = 20, 20_000
		m := NewPreparedMessage(BinaryMessage, make([]byte, batchSize)) // each leaves alone
		c, p := connect(t, &Upgrader{SendQueue: backlog * len(m.frame), SlowPolicy: policy}, pipePair)
		c.write.mu.Lock()
		for i := range messages {
			if err := c.Send(m); err != nil {
				t.Fatalf("Send %d: %v", i, err)
			}
			if policy == CloseSlow && i >= backlog/2 { // else all but the newest are left out
				c.nextPiece()
			}
		}
		q := c.queue.Load()
		if got := cap(q.messages); got > 8*backlog {
			t.Errorf("policy %d: room for %d messages behind %d, of which %d wait; want at most %d",
				policy, got, messages, len(q.messages)-q.head, 8*backlog)
		}
		go c.CloseNow()
		p.nc.Close()
		c.unlockWrite()
	}
}

// Nor does the list of those that have something to send, where there is always one.
func TestDrainsThatAreNeverDone(t *testing.T) {
	d := drains{workers: runtime.GOMAXPROCS(0)} // all are at work
	c := new(Conn)
	d.add(c)
	for range 20_000 {
		d.add(c)
		if d.next() != c {
			t.Fatal("next = nil, with one waiting")
		}
	}
	if got := cap(d.waiting); got > 16 {
		t.Errorf("room for %d connections where 1 waits; want at most 16", got)
	}
}

// A backlog of messages that hold nothing, or next to it, is bounded like any other.
func TestQueueOfSmallMessages(t *testing.T) {
	const limit = 64 << 10
	for _, size := range []int{0, 10, 100, 10_000} {
		c, p := connect(t, &Upgrader{SendQueue: limit, SlowPolicy: DropNewest}, pipePair)
		c.write.mu.Lock()
		m := NewPreparedMessage(BinaryMessage, make([]byte, size))
		n := 0
		for c.Send(m) == nil {
			n++
		}
		if most := limit/(len(m.frame)+32) + 1; n > most {
			t.Errorf("%d messages of %d bytes wait; want at most %d", n, size, most)
		}
		q := c.queue.Load()
		if held := 16*cap(q.messages) + n*len(m.frame); held > 2*limit {
			t.Errorf("%d messages of %d bytes take %d; want at most %d", n, size, held, 2*limit)
		}
		if c.dropQueue(); 16*cap(q.messages) > 16<<10 {
			t.Errorf("a queue of %d messages that was dropped holds %d bytes; want at most 16 KiB", n, 16*cap(q.messages))
		}
		go c.CloseNow()
		p.nc.Close()
		c.unlockWrite()
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
			written := make(chan struct{})
			go func() {
				defer close(written)
				p.nc.Write(theirs.frame[6:])
			}()
			for i := range 3 {
				p.want(opText, fmt.Sprintf("m%d", i))
			}
			p.wantClose(CloseGoingAway, "")
			<-written
			p.nc.Close()
			wantEndError(t, <-read, theirs.want, net.ErrClosed)
		}
	}
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
