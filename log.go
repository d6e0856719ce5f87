package websocket

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/rawws/websocket/internal/netloop"
)

// A logKind is a sort of event that peers can cause as often as they like.
type logKind uint8

const (
	logAccept logKind = iota
	logHandshake
	logRefused
	logUntold
	logPanic
	logPlain
	logKinds
)

// A lineLog keeps the log at a line a second for each kind, whatever the peers
// do: a disk that is full of their misdeeds would be one more.
type lineLog struct {
	to     *slog.Logger // slog.Default() when it is nil
	limits [logKinds]lineLimit
}

type lineLimit struct {
	last    atomic.Int64 // monotonic time of the last line, 0 before the first
	skipped atomic.Int64 // events since
	writing atomic.Bool  // the slog.Handler has a line
}

// allow reports whether a line may be written now.
func (l *lineLimit) allow() bool {
	now, last := monotonic(), l.last.Load()
	if last != 0 && now-last < int64(time.Second) || !l.last.CompareAndSwap(last, now) || !l.writing.CompareAndSwap(false, true) {
		l.skipped.Add(1)
		return false
	}
	return true
}

// logFault writes a line about a fault.
func (g *registry) logFault(kind logKind, msg string, args ...any) {
	g.logAt(slog.LevelError, kind, msg, args...)
}

// logAt writes a line, unless one of its kind was written less than a second
// ago, or still is; the next one says how many were left out.
//
// The slog.Handler is the application's, and may do anything; but who logs serves
// others too, or holds locks. So it has a goroutine of its own, one for each kind at
// most. Where it returns, the line is written before logAt does.
func (g *registry) logAt(level slog.Level, kind logKind, msg string, args ...any) {
	limit := &g.log.limits[kind]
	if !limit.allow() {
		return
	}
	if n := limit.skipped.Swap(0); n > 0 {
		args = append(args, "more", fmt.Sprintf("%d like it since the last line", n))
	}
	logger := g.log.to
	if logger == nil {
		logger = slog.Default()
	}
	apart(func() {
		defer limit.writing.Store(false) // behind the line about a panic, which would be one more
		g.guard(nobody{}, func() { logger.Log(context.Background(), level, msg, args...) })
	})
}

// cut bounds a text that a peer may have had a hand in.
func cut(s string, n int) string {
	if len(s) > n {
		return s[:n] + "..."
	}
	return s
}

// processStart is what monotonic counts from.
var processStart = time.Now()

// remoteOf is for logs and counts. It is "" where RemoteAddr, which may be the
// application's, panics: who accepts asks, and who logs another panic.
func (g *registry) remoteOf(nc interface{ RemoteAddr() net.Addr }) (addr string) {
	defer func() {
		if recover() != nil {
			g.total.panics.Add(1)
		}
	}()
	if s, ok := nc.(*netloop.Socket); ok && s.RemoteAddrPort().IsValid() { // a net.Addr would be made for this alone
		return s.RemoteAddrPort().String()
	}
	return textOf(nc.RemoteAddr())
}

// textOf returns "" for no address, which an application's net.Conn may have.
func textOf(addr net.Addr) string {
	if addr == nil {
		return ""
	}
	return addr.String()
}

// monotonic is a time in nanoseconds that a change of the clock can't move.
func monotonic() int64 { return int64(time.Since(processStart)) }
