package deflate

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rawws/websocket/internal/httphead"
)

// policies are the keys of testdata/offers.txt.
var policies = map[string]Policy{
	"answer": {ClientContext: true, Bits: 15},
	"both":   {ServerContext: true, ClientContext: true, Bits: 15},
	"small":  {ServerContext: true, ClientContext: true, Bits: 12},
	"told":   {Tell: true, Bits: 15},
	"over":   {Bits: 15},
}

// An offerVector is a paragraph of testdata/offers.txt.
type offerVector struct {
	line    int
	offers  []string
	answers map[string]string // by policy
	kept    string
}

// loadOffers fails on what it doesn't know, and on a file without vectors.
func loadOffers(t testing.TB) (vectors []offerVector) {
	t.Helper()
	text, err := os.ReadFile("testdata/offers.txt")
	if err != nil {
		t.Fatal(err)
	}
	v := offerVector{answers: map[string]string{}}
	for i, line := range strings.Split(string(text)+"\n", "\n") {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch {
		case strings.HasPrefix(line, "#"):
		case line == "":
			if v.offers == nil && len(v.answers) == 0 {
				continue
			}
			if n := len(v.answers); v.offers == nil || v.answers["answer"] == "" || n != 1 && n != len(policies) || (n == 1) != (v.kept == "") {
				t.Fatalf("testdata/offers.txt: the vector that ends before line %d isn't whole: %+v", i+1, v)
			}
			vectors = append(vectors, v)
			v = offerVector{answers: map[string]string{}}
		case key == "offer":
			v.offers, v.line = append(v.offers, value), i+1
		case key == "kept":
			v.kept = value
		default:
			if _, ok := policies[key]; !ok {
				t.Fatalf("testdata/offers.txt:%d: unknown key %q", i+1, key)
			}
			v.answers[key] = value
		}
	}
	if len(vectors) == 0 {
		t.Fatal("testdata/offers.txt: no vectors")
	}
	return vectors
}

func parse(t testing.TB, lines ...string) []httphead.Element {
	t.Helper()
	list, wrong, ok := httphead.ParseElements(lines)
	if !ok {
		t.Fatalf("ParseElements(%q): %q is no list", lines, wrong)
	}
	return list
}

func TestNegotiate(t *testing.T) {
	for _, v := range loadOffers(t) {
		offers := parse(t, v.offers...)
		for name, policy := range policies {
			want, ok := v.answers[name]
			if !ok {
				want = v.answers["answer"]
			}
			p, got, ok := Negotiate(offers, policy)
			if want == "none" {
				if ok || got != "" || p != (Params{}) {
					t.Errorf("line %d, %s: Negotiate(%q, %+v) = %+v, %q, %v; want none", v.line, name, v.offers, policy, p, got, ok)
				}
				continue
			}
			if !ok || got != want {
				t.Errorf("line %d, %s: Negotiate(%q, %+v) = %q, %v; want %q", v.line, name, v.offers, policy, got, ok, want)
				continue
			}
			checkAnswer(t, v.offers, offers, policy, got, p)
			kept := fmt.Sprintf("server %v %d, client %v %d", p.ServerContext, p.ServerBits, p.ClientContext, p.ClientBits)
			if name == "small" && kept != v.kept {
				t.Errorf("line %d: Negotiate(%q, %+v) keeps %q, want %q", v.line, v.offers, policy, kept, v.kept)
			}
		}
	}
}

// checkAnswer holds an answer against the offers, as a strict client does, and
// against what the server took it for.
func checkAnswer(t *testing.T, what []string, offers []httphead.Element, policy Policy, answer string, p Params) {
	t.Helper()
	list := parse(t, answer)
	if len(list) != 1 || list[0].Name != Extension {
		t.Fatalf("offers %q: the answer %q isn't one permessage-deflate", what, answer)
	}
	said := map[string]string{}
	for _, param := range list[0].Params {
		if _, ok := said[param.Name]; ok {
			t.Fatalf("offers %q: the answer %q repeats %s", what, answer, param.Name)
		}
		said[param.Name] = param.Value
	}
	for name, value := range said {
		if want, ok := p.said(name); !ok || value != want {
			t.Errorf("offers %q: the answer %q holds %s=%q, but the server works with %+v", what, answer, name, value, p)
		}
		if !offered(offers, name) && !(name == "client_no_context_takeover" && policy.Tell) {
			t.Errorf("offers %q: the answer %q holds %s, which nobody asked for", what, answer, name)
		}
	}
	if _, ok := said["client_no_context_takeover"]; !ok && !p.ClientContext {
		t.Errorf("offers %q: the answer %q lets the client keep its context, which the server doesn't", what, answer)
	}
	if _, ok := said["client_max_window_bits"]; !ok && p.ClientContext && p.ClientBits != MaxBits {
		t.Errorf("offers %q: the answer %q lets the client reach back 2^15 bytes, the server keeps 2^%d", what, answer, p.ClientBits)
	}
	if p.ServerBits < MinBits || p.ServerBits > policy.Bits || p.ClientBits < MinBits || p.ClientBits > MaxBits {
		t.Errorf("offers %q: windows of 2^%d and 2^%d", what, p.ServerBits, p.ClientBits)
	}
	if p.ServerContext && !policy.ServerContext || p.ClientContext && !policy.ClientContext {
		t.Errorf("offers %q, policy %+v: %+v", what, policy, p)
	}
}

// said is what an answer that holds the parameter says of it, if it may.
func (p Params) said(name string) (value string, ok bool) {
	switch name {
	case "server_no_context_takeover":
		return "", !p.ServerContext
	case "client_no_context_takeover":
		return "", !p.ClientContext
	case "server_max_window_bits":
		return strconv.Itoa(p.ServerBits), true
	case "client_max_window_bits":
		return strconv.Itoa(p.ClientBits), true
	}
	return "", false
}

func offered(offers []httphead.Element, name string) bool {
	return slices.ContainsFunc(offers, func(e httphead.Element) bool {
		return slices.ContainsFunc(e.Params, func(param httphead.Param) bool { return param.Name == name })
	})
}

// A server with windows of 2^8 bytes asks for no less than 2^9 of a client that
// leaves the number to it.
func TestSmallestClientWindow(t *testing.T) {
	for offer, want := range map[string]string{
		"permessage-deflate; client_max_window_bits":    "permessage-deflate; client_max_window_bits=9",
		"permessage-deflate; client_max_window_bits=15": "permessage-deflate; client_max_window_bits=9",
		"permessage-deflate; client_max_window_bits=8":  "permessage-deflate; client_max_window_bits=8",
	} {
		if _, got, _ := Negotiate(parse(t, offer), Policy{ClientContext: true, Bits: 8}); got != want {
			t.Errorf("Negotiate(%q) with windows of 2^8 bytes = %q; want %q", offer, got, want)
		}
	}
}

func TestMemory(t *testing.T) {
	for _, tt := range []struct {
		p    Params
		want int64
	}{
		{Params{ServerBits: 15, ClientBits: 15}, 0},
		{Params{ClientContext: true, ServerBits: 15, ClientBits: 15}, 32 << 10},
		{Params{ServerContext: true, ServerBits: 15, ClientBits: 15}, 64 << 10},
		{Params{ServerContext: true, ClientContext: true, ServerBits: 12, ClientBits: 12}, 16 << 10},
		{Params{ServerContext: true, ServerBits: 8, ClientBits: 8}, 768},
	} {
		if got := tt.p.Memory(); got != tt.want {
			t.Errorf("%+v may take %d bytes, want %d", tt.p, got, tt.want)
		}
	}
}

func FuzzOffers(f *testing.F) {
	for _, v := range loadOffers(f) {
		f.Add(strings.Join(v.offers, ","), byte(v.line))
	}
	f.Fuzz(func(t *testing.T, line string, mode byte) {
		offers, _, ok := httphead.ParseElements([]string{line})
		if !ok {
			return
		}
		policy := Policy{ServerContext: mode&1 != 0, ClientContext: mode&2 != 0, Tell: mode&4 != 0, Bits: MinBits + int(mode>>3&7)}
		p, answer, ok := Negotiate(offers, policy)
		if !ok {
			plain := slices.ContainsFunc(offers, func(e httphead.Element) bool { return e.Name == Extension && len(e.Params) == 0 })
			if plain && (policy.ClientContext || policy.Tell) {
				t.Errorf("%q: no answer, though there is an offer without parameters", line)
			}
			return
		}
		checkAnswer(t, []string{line}, offers, policy, answer, p)
	})
}
