package load

import (
	"math/bits"
	"time"
)

// A Hist counts durations in buckets about 1.6% wide. The zero value is ready,
// and it crosses a process boundary as JSON.
type Hist struct {
	Buckets map[int]uint64
	Count   uint64
	Max     time.Duration

	fast []uint64 // Buckets while counting
}

const (
	histSub  = 6 // 64 buckets for each power of two
	histSize = (64 - histSub) << histSub
)

func histIndex(d time.Duration) int {
	v := uint64(max(d, 0))
	shift := max(bits.Len64(v)-histSub-1, 0)
	return shift<<histSub + int(v>>shift)
}

func histValue(i int) time.Duration {
	shift := max(i>>histSub-1, 0)
	low := uint64(i-shift<<histSub) << shift
	return time.Duration(low + (1<<shift)/2)
}

// Add counts one duration.
func (h *Hist) Add(d time.Duration) {
	if h.fast == nil {
		h.fast = make([]uint64, histSize)
	}
	h.fast[histIndex(d)]++
	h.Count++
	h.Max = max(h.Max, d)
}

// Seal moves what was counted to Buckets.
func (h *Hist) Seal() {
	if h.Buckets == nil {
		h.Buckets = map[int]uint64{}
	}
	for i, n := range h.fast {
		if n > 0 {
			h.Buckets[i] += n
		}
	}
	h.fast = nil
}

// Merge adds what another histogram counted. Both must be sealed.
func (h *Hist) Merge(o *Hist) {
	h.Seal()
	for i, n := range o.Buckets {
		h.Buckets[i] += n
	}
	h.Count += o.Count
	h.Max = max(h.Max, o.Max)
}

// Quantile returns the duration that the fraction q of all doesn't exceed.
func (h *Hist) Quantile(q float64) time.Duration {
	h.Seal()
	rank, seen := uint64(q*float64(h.Count)), uint64(0)
	for i := range histSize {
		seen += h.Buckets[i]
		if seen > rank {
			return min(histValue(i), h.Max)
		}
	}
	return h.Max
}
