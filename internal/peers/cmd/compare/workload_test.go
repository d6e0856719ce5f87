package main

import (
	"fmt"
	"slices"
	"testing"

	"github.com/rawws/websocket/internal/peers/internal/echo"
)

// TestVariants: every server that compresses is measured without context
// takeover, and those that know it with it too, in the same rounds.
func TestVariants(t *testing.T) {
	tests := []struct {
		workload, server string
		bits             int
		want             []string
	}{
		{"takeover1KiB", "ours", 15, []string{"ours-takeover", "ours"}},
		{"takeover1KiB", "gws", 15, []string{"gws-takeover", "gws"}},
		{"takeover1KiB", "gorilla", 15, []string{"gorilla"}},
		{"takeover1KiB", "rawtcp", 15, []string{"rawtcp"}},
		{"takeover1KiB", "gobwas", 15, nil},
		{"takeover1KiB", "ours", 12, []string{"ours-takeover", "ours"}},
		{"takeover1KiB", "coder", 15, []string{"coder-takeover", "coder"}},
		{"takeover1KiB", "coder", 12, []string{"coder"}}, // its windows have 32 KiB
		{"deflate1KiB", "ours", 15, []string{"ours"}},
		{"deflate1KiB", "gobwas", 15, nil},
		{"1KiB", "gobwas", 15, []string{"gobwas"}},
		{"1KiB", "ours", 15, []string{"ours"}},
	}
	for _, tt := range tests {
		w, err := chosen(tt.workload)
		if err != nil {
			t.Fatal(err)
		}
		s, err := echo.Find(tt.server)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, v := range w[0].variants(s, tt.bits) {
			got = append(got, (&series{server: s, work: v}).name())
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: variants of %s with %d bits = %q; want %q", tt.workload, tt.server, tt.bits, got, tt.want)
		}
	}
}

// TestDocumentsOutgrowTheWindow: a document that is in the window whole would
// cost nothing.
func TestDocumentsOutgrowTheWindow(t *testing.T) {
	for _, w := range workloads {
		if !w.Takeover {
			continue
		}
		sum, seen := 0, map[string]bool{}
		for _, p := range w.Payloads() {
			sum += len(p)
			seen[fmt.Sprintf("%s", p)] = true
		}
		if sum < 40<<10 || len(seen) != len(w.Payloads()) {
			t.Errorf("%s: %d bytes, %d documents of %d differ; want 40 KiB at least and all", w.Name, sum, len(seen), len(w.Payloads()))
		}
	}
}
