package httphead

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestForwardedHops(t *testing.T) {
	for _, test := range []struct {
		name  string
		lines []string
		want  string // from the last hop to the first, "-" for what is no address
	}{
		{"X-Forwarded-For", nil, ""},
		{"X-Forwarded-For", []string{""}, "-"},
		{"X-Forwarded-For", []string{"203.0.113.7, 198.51.100.1,\t10.2.2.2"}, "10.2.2.2 198.51.100.1 203.0.113.7"},
		{"X-Forwarded-For", []string{"203.0.113.7", "198.51.100.1, unknown"}, "- 198.51.100.1 203.0.113.7"},
		{"X-Forwarded-For", []string{"for=203.0.113.7"}, "-"},
		{"Forwarded", []string{"for=198.51.100.1"}, "198.51.100.1"},
		{"Forwarded", []string{`proto=http; FOR="198.51.100.1:99" ;by=10.0.0.1`}, "198.51.100.1"},
		{"Forwarded", []string{`for="[2001:db8:cafe::17]:4711", for=192.0.2.1`}, "192.0.2.1 2001:db8:cafe::17"},
		{"Forwarded", []string{`for=192.0.2.1;host="a,b;for=1.1.1.1"`}, "192.0.2.1"},
		{"Forwarded", []string{"for=_hidden, by=10.2.2.2"}, "- -"},
		{"Forwarded", []string{`for="[2001:db8::1]:_p", for="192.0.2.1:_a.b-c_9"`}, "192.0.2.1 2001:db8::1"},
		{"Forwarded", []string{`for="[2001:db8::1]:_", for="192.0.2.1:_a/b", for="_a:_b"`}, "- - -"},
		{"X-Forwarded-For", []string{"192.0.2.1:_p"}, "-"},
		{"Forwarded", []string{`for="`}, "-"},
		// A client that leaves a quoted string open can't hide what a proxy wrote.
		{"Forwarded", []string{`for="203.0.113.7, for=198.51.100.1`}, "198.51.100.1 -"},
	} {
		var got []string
		for ip := range ForwardedHops(test.name, test.lines) {
			if ip.IsValid() {
				got = append(got, fmt.Sprint(ip))
			} else {
				got = append(got, "-")
			}
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("ForwardedHops(%s, %q) = %q; want %s", test.name, test.lines, got, test.want)
		}
	}
	for ip := range ForwardedHops("X-Forwarded-For", []string{"a, 192.0.2.1"}) {
		if ip != netip.MustParseAddr("192.0.2.1") {
			t.Errorf("the last hop is %v; want 192.0.2.1, and no other behind it", ip)
		}
		break
	}
}

func TestHostIP(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"192.0.2.1", "192.0.2.1"},
		{"192.0.2.1:80", "192.0.2.1"},
		{"2001:db8::1", "2001:db8::1"},
		{"[2001:db8::1]", "2001:db8::1"},
		{"[2001:db8::1]:80", "2001:db8::1"},
		{"::ffff:192.0.2.1", "192.0.2.1"},
		{"[::ffff:192.0.2.1]:80", "192.0.2.1"},
		{"fe80::1%eth0", "fe80::1"},
		{"[fe80::1%eth0]:80", "fe80::1"},
		{"", ""},
		{"[", ""},
		{"[]", ""},
		{"@", ""},
		{"pipe", ""},
		{"example.com:80", ""},
		{"192.0.2.1:x", ""},
	} {
		want, _ := netip.ParseAddr(test.want)
		if got := HostIP(test.in); got != want {
			t.Errorf("HostIP(%q) = %v; want %v", test.in, got, want)
		}
	}
}

// Whatever a client writes at the left, what a proxy adds at the right is read.
func FuzzForwardedHops(f *testing.F) {
	f.Add("Forwarded", `for="203.0.113.7`, false)
	f.Add("Forwarded", `for=203.0.113.7;x="\"`, true)
	f.Add("X-Forwarded-For", "unknown, 10.0.0.1,,", false)
	f.Add("X-Forwarded-For", "[::", true)
	f.Fuzz(func(t *testing.T, name, word string, sameLine bool) {
		added := "198.51.100.1"
		if name == "Forwarded" {
			added = `for="198.51.100.1:80";proto=http`
		}
		lines := []string{word, added}
		if sameLine {
			lines = []string{word + ", " + added}
		}
		got := slices.Collect(ForwardedHops(name, lines))
		if got[0] != netip.MustParseAddr("198.51.100.1") || len(got) > 2+strings.Count(word, ",") {
			t.Errorf("ForwardedHops(%s, %q) = %v; want 198.51.100.1 first, and one a comma", name, lines, got)
		}
	})
}
