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
	offered := func(name string) bool {
		return slices.ContainsFunc(offers, func(e httphead.Element) bool {
			return slices.ContainsFunc(e.Params, func(param httphead.Param) bool { return param.Name == name })
		})
	}
	for name, value := range said {
		switch name {
		case "server_no_context_takeover":
			if p.ServerContext || value != "" {
				t.Errorf("offers %q: the answer %q, but the server keeps its context: %v", what, answer, p.ServerContext)
			}
		case "client_no_context_takeover":
			if p.ClientContext || value != "" {
				t.Errorf("offers %q: the answer %q, but the client keeps its context: %v", what, answer, p.ClientContext)
			}
		case "server_max_window_bits":
			if value != strconv.Itoa(p.ServerBits) {
				t.Errorf("offers %q: the answer %q, but the server works with %d bits", what, answer, p.ServerBits)
			}
		case "client_max_window_bits":
			if value != strconv.Itoa(p.ClientBits) {
				t.Errorf("offers %q: the answer %q, but the server keeps %d bits", what, answer, p.ClientBits)
			}
		default:
			t.Errorf("offers %q: the answer %q holds %q, which isn't a parameter", what, answer, name)
		}
		if !offered(name) && !(name == "client_no_context_takeover" && policy.Tell) {
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
