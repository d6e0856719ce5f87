package httphead

import "testing"

func TestSplitHost(t *testing.T) {
	for _, test := range []struct {
		in, host, port string
		ok             bool
	}{
		{"example.com", "example.com", "", true},
		{"example.com:", "example.com", "", true},
		{"example.com:1", "example.com", "1", true},
		{"example.com:65535", "example.com", "65535", true},
		{"my-host_1.~!$&'()*+,;=", "my-host_1.~!$&'()*+,;=", "", true},
		{"*.example.com:80", "*.example.com", "80", true},
		{"[::]", "[::]", "", true},
		{"[::]:1", "[::]", "1", true},
		{"[2001:DB8::1:ffff]:443", "[2001:DB8::1:ffff]", "443", true},
		{"[::ffff:192.0.2.1]", "[::ffff:192.0.2.1]", "", true},
		{in: ""},
		{in: ":"},
		{in: ":80"},
		{in: "a:0"},
		{in: "a:65536"},
		{in: "a:+1"},
		{in: "a:1 "},
		{in: "a:b"},
		{in: "a:1:1"},
		{in: "[]"},
		{in: "["},
		{in: "]"},
		{in: "[:"},
		{in: "[::"},
		{in: "::]"},
		{in: "[::1]1"},
		{in: "[::1]]"},
		{in: "[[::1]]"},
		{in: "[::1]a:1"},
		{in: "[::1%25lo]"},
		{in: "[::1%lo]"},
		{in: "[192.0.2.1]"},
		{in: "[v1.a]"},
		{in: "a@b"},
		{in: "a/b"},
		{in: "a?b"},
		{in: "a b"},
		{in: "%61"},
		{in: "\u00eb"},
	} {
		host, port, ok := SplitHost(test.in)
		if ok != test.ok || ok && (host != test.host || port != test.port) {
			t.Errorf("SplitHost(%q) = %q, %q, %v; want %q, %q, %v", test.in, host, port, ok, test.host, test.port, test.ok)
		}
	}
}

func TestAllowsOrigin(t *testing.T) {
	for _, test := range []struct {
		sent, host string
		secure     bool
		allowed    string // one pattern, "" for none
		want       bool
	}{
		// The host's own pages, the standard port named or not.
		{"http://a.example", "a.example", false, "", true},
		{"http://A.example", "a.EXAMPLE:80", false, "", true},
		{"https://a.example:443", "a.example", false, "", true},
		{"https://a.example", "a.example", true, "", true},
		{"http://a.example", "a.example", true, "", false}, // not over TLS
		{"http://a.example", "a.example:8080", false, "", false},
		{"http://b.example", "a.example", false, "", false},
		{"http://a.example", "", false, "", false},
		{"app://a.example", "a.example", false, "", false}, // no port to compare
		// What is no origin.
		{"null", "null", false, "", false},
		{"", "", false, "", false},
		{"a.example", "a.example", false, "", false},
		{"http://", "a.example", false, "", false},
		{"http://a.example/", "a.example", false, "", false},
		{"http://me@a.example", "a.example", false, "", false},
		// Patterns.
		{"http://b.example", "a.example", false, "*", true},
		{"null", "a.example", false, "*", true},
		{"file://", "a.example", false, "*", true},
		{"http://b.example/a/path", "a.example", true, "*", true},
		{"", "a.example", false, "*", true},
		{"null", "a.example", false, "null", true},
		{"", "a.example", false, "", false},
		{"app://b", "a.example", false, "APP://b", true},
		{"http://b.example", "a.example", false, "http://b.example", true},
		{"https://b.example", "a.example", false, "http://b.example", false},
		{"http://b.example", "a.example", false, "http://b.example:80", true},
		{"http://b.example", "a.example", false, "b.example", true},
		{"https://b.example", "a.example", true, "b.example", true},
		{"http://b.example", "a.example", true, "b.example", false},
		{"http://b.example:8080", "a.example", false, "b.example", false},
		{"http://b.example:8080", "a.example", false, "b.example:8080", true},
		{"https://x.b.example", "a.example", false, "https://*.b.example", true},
		{"https://x.y.b.example", "a.example", false, "*.b.example", true},
		{"https://b.example", "a.example", false, "*.b.example", false},
		{"https://xb.example", "a.example", false, "*.b.example", false},
		{"app://b.example", "a.example", false, "b.example", false},
		{"http://b.example", "a.example", false, "b.example/", false},
		{"http://b.example", "a.example", false, "://", false},
	} {
		var allowed []string
		if test.allowed != "" {
			allowed = []string{"other.example", test.allowed}
		}
		if got := AllowsOrigin(allowed, test.sent, test.host, test.secure); got != test.want {
			t.Errorf("AllowsOrigin(%q, %q, %q, %v) = %v; want %v", allowed, test.sent, test.host, test.secure, got, test.want)
		}
	}
}

func TestAllowsHost(t *testing.T) {
	for _, test := range []struct {
		allowed, sent string
		secure, want  bool
	}{
		{"a.example", "a.example", false, true},
		{"a.example", "A.EXAMPLE:9001", false, true},
		{"a.example", "a.example:443", true, true},
		{"a.example:9001", "a.example:9001", false, true},
		{"a.example:9001", "a.example", false, false},
		{"a.example:9001", "a.example:9002", false, false},
		{"a.example:80", "a.example", false, true}, // which is sent without
		{"a.example:80", "a.example:", false, true},
		{"a.example:80", "a.example:80", false, true},
		{"a.example:80", "a.example", true, false},
		{"a.example:443", "a.example", false, false},
		{"a.example:443", "a.example", true, true},
		{"[::1]:443", "[::1]", true, true},
		{"*.a.example", "x.a.example:9001", false, true},
		{"*.a.example:80", "x.a.example", false, true},
		{"*.a.example", "a.example", false, false},
		{"*", "b.example", false, true},
		{"*", "b example", false, true}, // refused elsewhere
		{"a.example", "b.example", false, false},
		{"a example", "a example", false, false},
		{"a.example", "a example", false, false},
	} {
		if got := AllowsHost([]string{"other.example", test.allowed}, test.sent, test.secure); got != test.want {
			t.Errorf("AllowsHost(%q, %q, %v) = %v; want %v", test.allowed, test.sent, test.secure, got, test.want)
		}
	}
	if AllowsHost(nil, "a.example", false) {
		t.Error("AllowsHost(nil, a.example, false) = true; want false")
	}
}
