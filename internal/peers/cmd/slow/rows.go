package main

import (
	"context"
	"fmt"
	"time"

	"github.com/rawws/websocket/internal/peers/internal/ws"
)

// A row is something that clients do.
type row struct {
	who, must string
	quick     bool // has a form of less than 30 s
	handler   bool // is about a HandlerFunc only
	own       bool // is about this library only
	limits    limits
	run       func(b *bench) error // sets the server up, starts it, and is the client
}

// short are keep-alive times that pass in a quick run.
var short = limits{ping: time.Second, pong: 2 * time.Second}

var rows = []row{
	{who: "reads a feed of 4 KiB messages at 60 KB/s", must: "stays, gets every message", quick: true, run: feed(60_000)},
	{who: "reads it at 125 KB/s", must: "stays, gets every message", quick: true, run: feed(125_000)},
	{who: "reads 60 KB/s of a feed of 1 MB/s that is queued, DropNewest", must: "stays, may miss messages", quick: true,
		limits: limits{policy: dropNewest}, run: queuedFeed},
	{who: "reads 1 MB/s of one message of 16 MB", must: "gets all of it", quick: true, run: large(1_000_000, false)},
	{who: "reads 125 KB/s of one message of 16 MB", must: "gets all of it", quick: true, run: large(125_000, false)},
	{who: "reads 125 KB/s of 16 MB from a NextWriter", must: "gets all of it", quick: true, run: large(125_000, true)},
	{who: "reads 500 B/s", must: "stays", run: trickle},
	{who: "reads 200 KB/s of 2 MB before Close(1000), sends a heartbeat each second", must: "gets all, and the close frame", quick: true, run: closing},
	{who: "reads 200 KB/s of 2 MB that lie before a ping (1 s, pong 2 s)", must: "stays", quick: true, limits: short, run: beforePing},
	{who: "answers every ping while OnMessage takes long", must: "stays, gets the answer", quick: true, run: longCallback(false)},
	{who: "answers every ping while OnOpen takes long", must: "stays, gets the message", quick: true, run: longCallback(true)},
	{who: "answers every ping of a handler that only writes, for long", must: "gets every message, then 1000", quick: true, handler: true, run: onlyWrites},
	{who: "is in a room of which one member sends 1 MiB, all defaults", must: "gets it, stays", quick: true, run: roomMessage},
	{who: "the same, SendQueue 64 KiB, nothing queued", must: "gets it, stays", quick: true, limits: limits{queue: 64 << 10}, run: roomMessage},
	{who: "is in a room of 30 with one who reads nothing", must: "gets every message in time; the one is closed with 1008", quick: true, run: stuckMember},
	{who: "is connected to a dashboard, sleeps for 4 s, DropOldest", must: "gets the newest value at once", quick: true,
		limits: limits{policy: dropOldest}, run: dashboard},
	{who: "awaits the answer of OnMessage during Shutdown", must: "gets it, then the close frame", quick: true, run: shutdown},
	{who: "sends 10,000 bytes at 1 KB/s, IdleTimeout 2 s", must: "isn't idle, gets the answer", quick: true, limits: limits{idle: 2 * time.Second}, run: slowMessage},
	{who: "sends half a message, then a byte every second", must: "stays", quick: true, run: drip},
	{who: "100 send 100 KiB of a message that says 1 MiB", must: "cost three times that at most", quick: true, own: true, run: halfMessages},
	{who: "sends half a message, then a byte every second, MinRate 1,000", must: "cut with 1008 within 75 s", limits: limits{minRate: 1000}, run: minRateIn},
	{who: "reads 500 B/s, MinRate 1,000", must: "cut with 1008 within 75 s", limits: limits{minRate: 1000}, run: minRateOut},
	{who: "takes nothing of a write", must: "cut within 12.5 s", quick: true, run: takesNothing(false, 0)},
	{who: "takes nothing of a write, was quiet for 12 s", must: "cut within 12.5 s", quick: true, run: takesNothing(false, 12*time.Second)},
	{who: "takes nothing of what is queued", must: "cut within 12.5 s", quick: true, run: takesNothing(true, 0)},
	{who: "takes nothing of what is queued, was quiet for 12 s", must: "cut within 12.5 s", quick: true, run: takesNothing(true, 12*time.Second)},
	{who: "sends nothing, answers no ping", must: "cut within PingInterval + 10% + PongTimeout", quick: true, run: silent},
}

func nothing(conn) {}

// feed writes message after message, each when the one before was taken.
func feed(rate int) func(b *bench) error {
	return func(b *bench) error {
		b.open = func(c conn) {
			go func() {
				for seq := uint64(0); c.Write(numbered(4<<10, seq)) == nil; seq++ {
				}
			}()
		}
		c, err := b.connect(rate, 16<<10)
		if err != nil {
			return err
		}
		return c.readFor(during(b, 25*time.Second, 120*time.Second))
	}
}

// queuedFeed hands over a message every 4 ms, taken or not.
func queuedFeed(b *bench) error {
	stop := make(chan struct{})
	defer close(stop)
	b.open = func(c conn) { go produce(c, 4*time.Millisecond, stop) }
	c, err := b.connect(60_000, 16<<10)
	if err != nil {
		return err
	}
	c.gaps = true
	return c.readFor(during(b, 25*time.Second, 90*time.Second))
}

// produce queues messages until it is stopped, and returns how many. What the
// clock skips is made up for.
func produce(c conn, every time.Duration, stop <-chan struct{}) uint64 {
	t := time.NewTicker(every)
	defer t.Stop()
	began, seq := time.Now(), uint64(0)
	for {
		select {
		case <-stop:
			return seq
		case <-t.C:
		}
		for due := uint64(time.Since(began) / every); seq < due; seq++ {
			c.Send(numbered(4<<10, seq))
		}
	}
}

// large is one message. A quick run makes do with what takes 24 s.
func large(rate int, stream bool) func(b *bench) error {
	return func(b *bench) error {
		size := min(16_000_000, during(b, 24*rate, 16_000_000))
		b.open = func(c conn) {
			go func() {
				if stream {
					c.Stream(numbered(size, 0))
				} else {
					c.Write(numbered(size, 0))
				}
			}()
		}
		c, err := b.connect(rate, 16<<10)
		if err != nil {
			return err
		}
		return c.readUntil(0, size, time.Duration(size/rate)*time.Second*3/2)
	}
}

// trickle reads from a window so small that the peer's system sees it move.
func trickle(b *bench) error {
	b.open = func(c conn) { c.Shrink(); go c.Write(numbered(512<<10, 0)) }
	c, err := b.connect(500, 2<<10)
	if err != nil {
		return err
	}
	return c.readFor(90 * time.Second)
}

func closing(b *bench) error {
	b.open = func(c conn) {
		go func() {
			c.Write(numbered(2_000_000, 0))
			c.Close(1000)
		}()
	}
	c, err := b.connect(200_000, 16<<10)
	if err != nil {
		return err
	}
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		t := time.NewTicker(time.Second)
		defer t.Stop()
		for {
			select {
			case <-stop:
				return
			case <-t.C:
				c.say([]byte("heartbeat")) // what fails here fails the reader
			}
		}
	}()
	if err := c.readUntil(0, 2_000_000, 25*time.Second); err != nil {
		return err
	}
	return c.readClose(1000, 10*time.Second)
}

func beforePing(b *bench) error {
	b.open = func(c conn) { go c.Write(numbered(2_000_000, 0)) }
	c, err := b.connect(200_000, 16<<10)
	if err != nil {
		return err
	}
	if err := c.readUntil(0, 2_000_000, 25*time.Second); err != nil {
		return err
	}
	return c.readFor(5 * time.Second)
}

// longCallback is a limiter, a slow query, an authentication: what takes long
// is the server, and the client does all that it should.
func longCallback(opening bool) func(b *bench) error {
	return func(b *bench) error {
		long := during(b, 8*time.Second, 75*time.Second)
		if b.quick {
			b.limits = short
		}
		work := func(c conn) {
			time.Sleep(long)
			c.Write(numbered(100, 0))
		}
		b.open, b.message = nothing, func(c conn, _ []byte) { work(c) }
		if opening {
			b.open, b.message = work, nil
		}
		c, err := b.connect(0, 0)
		if err != nil {
			return err
		}
		if !opening {
			if err := c.say([]byte("question")); err != nil {
				return err
			}
		}
		if err := c.readUntil(0, 100, long+5*time.Second); err != nil {
			return err
		}
		return c.readFor(4 * time.Second)
	}
}

func onlyWrites(b *bench) error {
	n := during(b, 8, 75)
	if b.quick {
		b.limits = short
	}
	b.writeOnly = func(c conn) {
		for seq := range n {
			time.Sleep(time.Second)
			if c.Write(numbered(100, uint64(seq))) != nil {
				return
			}
		}
		if b.subject.name != "library" { // which closes with 1000 when the handler returns
			c.Close(1000)
		}
	}
	c, err := b.connect(0, 0)
	if err != nil {
		return err
	}
	if err := c.readUntil(uint64(n-1), 100, time.Duration(n+5)*time.Second); err != nil {
		return err
	}
	return c.readClose(1000, 10*time.Second)
}

// shutdown stops the server while a callback works on its answer.
func shutdown(b *bench) error {
	began := make(chan struct{})
	b.open = nothing
	b.message = func(c conn, _ []byte) {
		close(began)
		time.Sleep(900 * time.Millisecond)
		c.Write(numbered(100, 0))
	}
	c, err := b.connect(0, 0)
	if err != nil {
		return err
	}
	if b.server.shutdown == nil {
		return errNotOffered
	}
	if err := c.say([]byte("question")); err != nil {
		return err
	}
	<-began
	time.Sleep(100 * time.Millisecond)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- b.server.shutdown(ctx) }()
	if err := c.readUntil(0, 100, 10*time.Second); err != nil {
		return err
	}
	if err := c.readClose(0, 10*time.Second); err != nil {
		return err
	}
	return <-done
}

// slowMessage comes in pieces for longer than IdleTimeout.
func slowMessage(b *bench) error {
	b.open = nothing
	b.message = func(c conn, p []byte) { c.Write(numbered(len(p), 0)) }
	c, err := b.connect(0, 0)
	if err != nil {
		return err
	}
	frame := ws.AppendFrame(nil, ws.Fin|ws.Binary, clientKey, make([]byte, 10_000))
	for len(frame) > 0 {
		n := min(len(frame), 500)
		if err := c.send(frame[:n]); err != nil {
			return err
		}
		frame = frame[n:]
		time.Sleep(500 * time.Millisecond)
	}
	return c.readUntil(0, 10_000, 5*time.Second)
}

// drip stops in the middle of a message and goes on byte by byte. No pong can
// stand there.
func drip(b *bench) error {
	if b.quick {
		b.limits = short
	}
	b.open = nothing
	b.message = func(c conn, p []byte) { c.Write(numbered(len(p), 0)) }
	c, err := b.connect(0, 0)
	if err != nil {
		return err
	}
	const size = 512 << 10
	rest, err := c.drip(size, during(b, 10, 60))
	if err != nil {
		return err
	}
	if err := c.send(rest); err != nil {
		return err
	}
	return c.readUntil(0, size, 5*time.Second)
}

// drip sends half a message and then so many bytes of it, one a second. It
// returns what is left.
func (c *client) drip(size, bytes int) ([]byte, error) {
	frame := ws.AppendFrame(nil, ws.Fin|ws.Binary, clientKey, make([]byte, size))
	if err := c.send(frame[:size/2]); err != nil {
		return nil, err
	}
	frame = frame[size/2:]
	for range bytes {
		time.Sleep(time.Second)
		if err := c.send(frame[:1]); err != nil {
			return nil, err
		}
		frame = frame[1:]
	}
	return frame, nil
}

func minRateIn(b *bench) error {
	b.open = nothing
	c, err := b.connect(0, 0)
	if err != nil {
		return err
	}
	go c.drip(512<<10, 90) // ends with the connection
	return b.cutWith(1008, 75*time.Second)
}

func minRateOut(b *bench) error {
	b.open = func(c conn) { c.Shrink(); go c.Write(numbered(512<<10, 0)) }
	c, err := b.connect(500, 2<<10)
	if err != nil {
		return err
	}
	go c.readFor(90 * time.Second) // ends with the connection
	return b.cutWith(1008, 75*time.Second)
}

// cutWith waits for the server to end a connection with that code.
func (b *bench) cutWith(code int, limit time.Duration) error {
	e, err := b.nextEnd(limit)
	if err != nil {
		return err
	}
	if got, known := sentCode(e.err); known && got != code {
		return fmt.Errorf("ended with %d, want %d: %w", got, code, e.err)
	}
	return nil
}

// takesNothing stops reading. What is in the way is small, so that the server's
// write waits for the client and not for the system.
func takesNothing(send bool, quiet time.Duration) func(b *bench) error {
	return func(b *bench) error {
		wrote := make(chan time.Time, 1)
		b.message = func(conn, []byte) {}
		b.open = func(c conn) {
			go func() {
				time.Sleep(quiet)
				c.Shrink()
				wrote <- time.Now()
				if send {
					c.Send(numbered(900<<10, 0))
				} else {
					c.Write(numbered(8<<20, 0))
				}
			}()
		}
		if _, err := b.connect(1, 4<<10); err != nil {
			return err
		}
		began := <-wrote
		return b.cutBetween(began, 9500*time.Millisecond, 12500*time.Millisecond)
	}
}

// cutBetween wants the server to end a connection, not too early and not late.
func (b *bench) cutBetween(began time.Time, from, to time.Duration) error {
	e, err := b.nextEnd(time.Until(began) + to + 17*time.Second)
	if err != nil {
		return err
	}
	if took := e.at.Sub(began); took < from || took > to {
		return fmt.Errorf("cut after %s", seconds(took))
	}
	return nil
}

// silent connects and does nothing more; its system goes on taking bytes.
func silent(b *bench) error {
	ping, pong := 25*time.Second, 20*time.Second
	if b.subject.name != "library" && !b.quick {
		ping, pong = othersPing, othersPong
	}
	if b.quick {
		b.limits = short
		ping, pong = short.ping, short.pong
	}
	b.open = nothing
	c, err := b.connect(1, 0)
	if err != nil {
		return err
	}
	const slack = 500 * time.Millisecond
	return b.cutBetween(c.began, pong, ping+ping/10+pong+slack)
}

// connect starts the server and opens a connection to it.
func (b *bench) connect(rate, buffer int) (*client, error) {
	if err := b.start(); err != nil {
		return nil, err
	}
	c, err := b.dial(rate, buffer)
	if err != nil {
		return nil, fmt.Errorf("no connection: %w", err)
	}
	return c, nil
}
