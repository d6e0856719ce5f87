package websocket

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
)

// A flood of events makes a line a second for each kind, and each line says
// how many it stands for, so that none is forgotten.
func TestLogIsALineASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var book logBook
		l := lineLog{to: book.logger()}
		const seconds, each = 5, 100
		for range seconds * each {
			for kind := range logKinds {
				l.write(kind, fmt.Sprintf("kind %d", kind))
			}
			time.Sleep(time.Second / each)
		}
		for kind := range logKinds {
			lines, stoodFor := 0, 0
			for _, line := range book.all() {
				if !strings.Contains(line, fmt.Sprintf(`msg="kind %d"`, kind)) {
					continue
				}
				lines++
				if _, more, ok := strings.Cut(line, `more="`); ok {
					var n int
					fmt.Sscan(more, &n)
					stoodFor += n
				}
			}
			if lines != seconds || stoodFor+lines < (seconds-1)*each {
				t.Errorf("kind %d: %d events in %d s made %d lines that stand for %d more; want %d lines", kind, seconds*each, seconds, lines, stoodFor, seconds)
			}
		}
	})
}

// The limit holds between any two lines, not between the seconds of the clock,
// where one could come just before and one just after midnight.
func TestLogAcrossTheSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var book logBook
		l := lineLog{to: book.logger()}
		time.Sleep(990 * time.Millisecond)
		for range 20 {
			l.write(logAccept, "no descriptors")
			time.Sleep(time.Millisecond)
		}
		if got := book.all(); len(got) != 1 {
			t.Errorf("20 events within 20 ms around a full second made %d lines, want 1: %q", len(got), got)
		}
	})
}

// What a connection costs while it is idle is its Conn; the allocator's next
// size up is 480 bytes.
func TestConnSize(t *testing.T) {
	if got := unsafe.Sizeof(Conn{}); unsafe.Sizeof(uintptr(0)) == 8 && got > 448 {
		t.Errorf("a Conn takes %d bytes, want at most 448", got)
	}
}
