package websocket

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
		host, port, ok := splitHost(test.in)
		if ok != test.ok || ok && (host != test.host || port != test.port) {
			t.Errorf("splitHost(%q) = %q, %q, %v; want %q, %q, %v", test.in, host, port, ok, test.host, test.port, test.ok)
		}
	}
}
