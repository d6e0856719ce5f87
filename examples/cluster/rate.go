package main

import "time"

// A bucket allows so many things a second, and more of them at once after a
// quiet time. The zero value is full.
type bucket struct {
	left float64
	at   time.Time
}

func (b *bucket) take(now time.Time, perSecond, atOnce float64) bool {
	b.left = min(atOnce, b.left+now.Sub(b.at).Seconds()*perSecond)
	b.at = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}
