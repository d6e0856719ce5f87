package websocket

import (
	"runtime"
	"strings"
	"testing"
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
