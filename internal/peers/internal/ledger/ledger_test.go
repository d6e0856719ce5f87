package ledger

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestMessages(t *testing.T) {
	m, again := NewMaker(7), NewMaker(7)
	largest, texts := 0, 0
	for seq := range uint32(5000) {
		p, text := m.Append(nil, Client, 3, seq)
		q, _ := again.Append(nil, Client, 3, seq)
		if !slices.Equal(p, q) {
			t.Fatalf("message %d isn't the same when it is made again", seq)
		}
		if text && !utf8.Valid(p) {
			t.Fatalf("message %d is text, but not UTF-8: %q", seq, p)
		}
		h, err := Parse(p)
		if err != nil || h.Stream != Client || h.ID != 3 || h.Seq != seq {
			t.Fatalf("Parse of message %d = %v, %v; want its names", seq, h, err)
		}
		largest = max(largest, len(p))
		if text {
			texts++
		}
	}
	if largest < 64<<10 || largest > MaxSize || texts < 2000 || texts > 3000 {
		t.Errorf("of 5000 messages the largest has %d bytes and %d are text; want one over 64 KiB and about half", largest, texts)
	}
}

// What the ledger is for: each fault has its words.
func TestFaults(t *testing.T) {
	m := NewMaker(1)
	at := func(s Stream, id, seq uint32) []byte {
		p, _ := m.Append(nil, s, id, seq)
		return p
	}
	altered := at(Client, 1, 5)
	altered[len(altered)-1] ^= 1
	head := at(Client, 1, 5)
	head[12] = 'x'
	for _, test := range []struct {
		got  []byte
		want string
	}{
		{at(Client, 1, 4), "once more"},
		{at(Client, 1, 6), "hasn't come"},
		{at(Pushed, 1, 5), "another stream"},
		{at(Client, 2, 5), "another stream or connection"},
		{altered, "checksum"},
		{head, "altered"},
		{at(Client, 1, 5)[:10], "shorter"},
	} {
		_, text := m.Append(nil, Client, 1, 5)
		_, err := m.Want(nil, Client, 1, 5, test.got, text)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("Want of message 5 with %.25q = %v, want an error with %q", test.got, err, test.want)
		}
	}
	_, text := m.Append(nil, Client, 1, 5)
	if _, err := m.Want(nil, Client, 1, 5, at(Client, 1, 5), text); err != nil {
		t.Errorf("Want of message 5 with itself = %v, want nil", err)
	}
	if _, err := m.Want(nil, Client, 1, 5, at(Client, 1, 5), !text); err == nil {
		t.Error("Want of message 5 as the other type = nil, want an error")
	}
}

func TestChain(t *testing.T) {
	sum := func(pairs ...uint32) Chain {
		var c Chain
		for i := 0; i < len(pairs); i += 2 {
			c.Add(pairs[i], pairs[i+1])
		}
		return c
	}
	want := sum(0, 10, 1, 11, 2, 12)
	for _, other := range []Chain{sum(0, 10, 1, 11), sum(0, 10, 2, 12, 1, 11), sum(0, 10, 1, 11, 1, 11), sum(0, 10, 1, 11, 2, 13)} {
		if other == want {
			t.Errorf("chain %v of other messages equals %v", other, want)
		}
	}
	if got := sum(0, 10, 1, 11, 2, 12); got != want {
		t.Errorf("chain of the same messages = %v, want %v", got, want)
	}
}
