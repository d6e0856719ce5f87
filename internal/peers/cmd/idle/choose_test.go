package main

import (
	"slices"
	"strings"
	"testing"
)

func TestChoose(t *testing.T) {
	tests := []struct {
		servers, ways string
		bits          int
		want          string // names; empty for an error
	}{
		{"gnet,gorilla,ours", "none", 12, "gnet,gorilla,ours"},
		{"gnet,gorilla,ours", "none,no-takeover,takeover", 12, "gnet,gorilla,gorilla-no-takeover,ours,ours-no-takeover,ours-takeover"},
		{"coder,gws", "takeover", 12, "gws-takeover"}, // coder's windows have 32 KiB
		{"coder,gws", "takeover", 15, "coder-takeover,gws-takeover"},
		{"ours", "plain", 12, ""},
		{"theirs", "none", 12, ""},
	}
	for _, tt := range tests {
		o := &options{bits: tt.bits}
		err := o.choose(strings.Split(tt.servers, ","), strings.Split(tt.ways, ","))
		var got []string
		for _, c := range o.servers {
			got = append(got, c.name)
			if c.Deflate != (c.name != c.Server) || c.Takeover != (c.name == c.Server+"-takeover") || c.Takeover && c.WindowBits != tt.bits {
				t.Errorf("%s, %s: %s has %+v", tt.servers, tt.ways, c.name, c.Config)
			}
		}
		if tt.want == "" {
			if err == nil {
				t.Errorf("choose(%s, %s) = %q; want an error", tt.servers, tt.ways, got)
			}
			continue
		}
		if err != nil || !slices.Equal(got, strings.Split(tt.want, ",")) {
			t.Errorf("choose(%s, %s) = %q, %v; want %s", tt.servers, tt.ways, got, err, tt.want)
		}
	}
}

// TestMessagesFillTheWindow: the memory of a window that isn't full says
// nothing, nor that of one that holds the same document again and again.
func TestMessagesFillTheWindow(t *testing.T) {
	for _, bits := range []int{9, 12, 15} {
		m := messagesFor([]string{none, takeover}, bits)
		sent, seen := 0, map[string]bool{}
		for _, p := range m.payloads[:m.each] {
			sent += len(p)
			seen[string(p)] = true
		}
		if sent < 1<<bits || len(seen) != m.each {
			t.Errorf("window of 2^%d: %s, %d bytes, %d differ; want as much as the window, and all", bits, m, sent, len(seen))
		}
	}
	if m := messagesFor([]string{none}, 12); m.each != 1 || len(m.payloads) != 1 || len(m.payloads[0]) != 125 {
		t.Errorf("without compression: %s; want one of 125 bytes", m)
	}
}
