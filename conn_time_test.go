package websocket

import (
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// TestTimesNext goes through what is known of a connection at a moment, and
// what follows from it.
func TestTimesNext(t *testing.T) {
	const s = int64(time.Second)
	u := Upgrader{IdleTimeout: time.Hour}
	l := u.limits()
	now := 1000 * s
	idle := times{now: now, pingAt: now + 25*s, waiting: now, message: now}
	tests := []struct {
		name   string
		change func(t *times)
		at     int64
		do     duty
	}{
		{"idle", func(*times) {}, 25 * s, dutyPing},
		{"a write waits", func(t *times) { t.writing, t.outstanding = now-9*s-s/2, true }, s / 2, dutyCutWriter},
		{"a write that gets on", func(t *times) { t.writing, t.outstanding, t.takenAt = now-60*s, true, now-s }, int64(l.sample), dutyLook},
		{"bytes in the system", func(t *times) { t.outstanding, t.unsent = true, true }, int64(l.sample), dutyLook},
		{"no answer to a ping", func(t *times) { t.asked = now - 19*s; t.waiting = now - 60*s }, s, dutyCutSilent},
		{"while nobody reads", func(t *times) { t.asked, t.waiting, t.pingAt = now-60*s, 0, now+30*s }, 20 * s, dutyLook},
		{"since somebody reads again", func(t *times) { t.asked, t.waiting = now-60*s, now-s }, 19 * s, dutyCutSilent},
		{"a ping that hasn't left", func(t *times) {
			t.asked, t.unsent, t.outstanding, t.waiting, t.takenAt = now-60*s, true, true, 0, now-20*s+s/4
		}, s / 4, dutyCutSilent},
		{"writes failed", func(t *times) { t.failed, t.waiting = now-3*s, now-60*s }, 2 * s, dutyCutBroken},
		{"a callback of long standing", func(t *times) { t.events, t.waiting, t.message = true, 0, now-2*3600*s }, 25 * s, dutyPing},
		{"no message for long", func(t *times) { t.message = now - 3600*s }, 0, dutyCloseIdle},
		{"closing", func(t *times) { t.closing, t.closeBegan = true, now-s }, 4 * s, dutyEndClose},
		{"closing, and the peer reads", func(t *times) { t.closing, t.closeBegan, t.takenAt = true, now-60*s, now-s }, 4 * s, dutyEndClose},
		{"closing, and the peer only sends", func(t *times) {
			t.closing, t.closeBegan, t.closeSent, t.received = true, now-24*s, now-24*s, now
		}, s, dutyEndClose},
		{"closing, and the peer takes nothing but sends", func(t *times) {
			t.closing, t.closeBegan, t.outstanding, t.received = true, now-5*s, true, now
		}, 0, dutyEndClose},
	}
	for _, test := range tests {
		state := idle
		test.change(&state)
		if at, do := state.next(&l); at != now+test.at || do != test.do {
			t.Errorf("%s: next() = in %v, duty %d; want in %v, duty %d", test.name, time.Duration(at-now), do, time.Duration(test.at), test.do)
		}
	}
}

// Whoever sets a time to the longest that there is wants it to be never.
func TestVeryLongTimes(t *testing.T) {
	for _, long := range []time.Duration{math.MaxInt64, math.MaxInt64 - 1, 30 * 24 * time.Hour} {
		for name, test := range map[string]struct {
			u     Upgrader
			mute  bool // the peer answers no ping
			pings int  // in a minute
		}{
			"PingInterval": {Upgrader{PingInterval: long}, false, 0},
			"PongTimeout":  {Upgrader{PongTimeout: long}, true, 1},
			"WriteTimeout": {Upgrader{WriteTimeout: long}, false, 2},
			"CloseTimeout": {Upgrader{CloseTimeout: long}, false, 2},
			"IdleTimeout":  {Upgrader{IdleTimeout: long}, false, 2},
			"MaxLifetime":  {Upgrader{MaxLifetime: long}, false, 2},
		} {
			t.Run(fmt.Sprint(name, "/", long), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { testVeryLongTime(t, &test.u, test.mute, test.pings) })
			})
		}
	}
}

func testVeryLongTime(t *testing.T, u *Upgrader, mute bool, pings int) {
	c, p := connectPipe(t, u)
	end := readEnd(c)
	minute := time.Now().Add(time.Minute)
	got := 0
	for p.nc.SetReadDeadline(minute); ; {
		h, payload, err := p.frame()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil || h.opcode != opPing {
			t.Fatalf("%v, %v after %v; want pings alone", h.opcode, err, time.Minute-time.Until(minute))
		}
		if got++; !mute {
			p.send(clientFrame(opPong, true, payload))
		}
	}
	if got != pings {
		t.Errorf("%d pings in a minute; want %d", got, pings)
	}
	wrote := make(chan error, 1)
	go func() { wrote <- c.WriteMessage(BinaryMessage, []byte("late")) }()
	if u.WriteTimeout != 0 {
		time.Sleep(time.Minute)
	}
	p.nc.SetReadDeadline(time.Time{})
	p.want(opBinary, "late")
	if err := <-wrote; err != nil {
		t.Errorf("a write: %v", err)
	}
	go c.Close(CloseNormal, "")
	p.wantClose(CloseNormal, "")
	if u.CloseTimeout != 0 {
		time.Sleep(time.Minute)
	}
	p.send(closeFrame(CloseNormal, ""))
	wantEndError(t, <-end, EndError{By: SideServer, Sent: CloseNormal, Received: CloseNormal, Clean: true}, net.ErrClosed)
	p.leave()
}

// The same of the time that a request may take, on the loop and elsewhere.
func TestVeryLongHandshakeTimeout(t *testing.T) {
	for name, handler := range map[string]Handler{"Events": Events{}, "HandlerFunc": echoHandler(nil)} {
		p := serveTCP(t, &Server{Handler: handler, Upgrader: Upgrader{HandshakeTimeout: math.MaxInt64}})()
		p.send([]byte(peerRequest[:20]))
		p.nc.SetReadDeadline(time.Now().Add(3 * loopTick))
		if n, err := p.nc.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("%s: read %d bytes, %v, behind half a request; want nothing", name, n, err)
		}
		p.nc.SetReadDeadline(time.Now().Add(patience))
		p.send([]byte(peerRequest[20:]))
		p.wantBytes(peerAnswer)
		p.closeWith(CloseNormal, "")
	}
}

func TestInstants(t *testing.T) {
	const ms = int64(1) << instantBits
	for _, now := range []int64{1, 5 * ms, 1 << 40, 1<<52 - 1, 1 << 52, 1<<52 + 7*ms, 1 << 60} {
		for _, age := range []int64{0, ms, 1000 * ms, 1 << 50} {
			if age >= now {
				continue
			}
			if got := timeOf(instantOf(now-age), now); got < now-age || got > now-age+2*ms {
				t.Errorf("timeOf(instantOf(%d), %d) = %d, want the same or a little more", now-age, now, got)
			}
		}
	}
	if got := timeOf(0, 1<<40); got != 0 {
		t.Errorf("timeOf(0) = %d, want never", got)
	}
}

// What was long ago stays that, however long a connection is quiet.
func TestQuietForMonths(t *testing.T) {
	const day = int64(24 * time.Hour)
	c := &Conn{reg: &registry{u: &Upgrader{PingInterval: -1}}}
	c.clock.received.Store(instantOf(day))
	c.clock.waiting.Store(instantOf(day))
	c.clock.takenAt = instantOf(day)
	for now := day; now < 200*day; now += day / 4 { // the sweeper comes far more often
		got := c.times(now)
		for what, at := range map[string]int64{"received": got.received, "waiting": got.waiting, "taken": got.takenAt} {
			if at == 0 || at > max(now-12*day, day+int64(time.Second)) {
				t.Fatalf("%v after a byte was %s: that was %v ago", time.Duration(now-day), what, time.Duration(now-at))
			}
		}
	}
}

// What the system has to give is soon taken by a slow reader too: the rest of the
// message waits with us, and that counts.
func TestMinRateOfAReader(t *testing.T) {
	const rate, second = 1000, int64(time.Second)
	for _, test := range []struct {
		name  string
		speed uint32 // in bytes a second
		waits bool
		slow  bool
	}{
		{"half of MinRate, a write waits", rate / 2, true, true},
		{"half of MinRate, only the system has something", rate / 2, false, true},
		{"a little more than MinRate, a write waits", rate + rate/10, true, false},
		{"a little more than MinRate, only the system has something", rate + rate/10, false, false},
	} {
		c := &Conn{reg: &registry{u: &Upgrader{MinRate: rate}}}
		c.rare().rate = new(rateMeter)
		const buffer = 4 << 10 // what the system takes at once
		slow := false
		for now := int64(0); now < 100*second && !slow; now += second {
			taken := test.speed * uint32(now/second)
			c.clock.unsent = buffer
			if !test.waits {
				c.clock.unsent = 1 << 20
			}
			c.clock.written = taken + c.clock.unsent
			if test.waits && now > 0 {
				c.write.since.Store(uint32(writeData))
			}
			slow = c.tooSlow(now) == errSlowReader
		}
		if slow != test.slow {
			t.Errorf("%s: too slow is %v, want %v", test.name, slow, test.slow)
		}
	}
}
