package websocket

import (
	"reflect"
	"strings"
	"testing"
)

func TestParseExtensions(t *testing.T) {
	for _, test := range []struct {
		values []string
		want   []extension
		ok     bool
	}{
		{nil, nil, true},
		{[]string{"a"}, []extension{{"a", nil}}, true},
		{[]string{"permessage-deflate; client_max_window_bits; server_max_window_bits=10"}, []extension{
			{"permessage-deflate", []extensionParam{{"client_max_window_bits", ""}, {"server_max_window_bits", "10"}}}}, true},
		{[]string{`a;b="c";d = "\e\f" ; g=h`}, []extension{{"a", []extensionParam{{"b", "c"}, {"d", "ef"}, {"g", "h"}}}}, true},
		{[]string{`a; b="\\c"`}, nil, false}, // a backslash is no part of a token
		{[]string{"a,b;c", "", "d\t,\t"}, []extension{{"a", nil}, {"b", []extensionParam{{"c", ""}}}, {"d", nil}}, true},
		{[]string{"a", "b;"}, nil, false},
		{[]string{""}, nil, false},
		{[]string{"a b"}, nil, false},
		{[]string{`a; b="c" d`}, nil, false},
		{[]string{`a; b="c`}, nil, false},
		{[]string{`a; b="c\`}, nil, false},
		{[]string{`a; "b"`}, nil, false},
		{[]string{`"a"`}, nil, false},
		{[]string{`a; b="\`, `"`}, nil, false},
		{[]string{"a" + strings.Repeat(";b", maxListElements)}, nil, false},
		{[]string{strings.Repeat("a,", maxListElements+1)}, nil, false},
	} {
		got, err := parseExtensions(test.values)
		if !reflect.DeepEqual(got, test.want) || (err == nil) != test.ok {
			t.Errorf("parseExtensions(%q) = %v, %v; want %v, ok = %v", test.values, got, err, test.want, test.ok)
		}
	}
}

// What comes out is made of tokens, is found again when it is written anew,
// and doesn't depend on how the list was spread over lines.
func FuzzExtensions(f *testing.F) {
	f.Add("permessage-deflate; client_max_window_bits")
	f.Add("permessage-deflate; server_no_context_takeover; server_max_window_bits=\"1\\0\", permessage-deflate")
	f.Add("a; b=c,, d\n\te ; f = \"g\" \n,")
	f.Add("a; b=\"\\\"\nc\"")
	for _, c := range loadHandshakes(f) {
		for line := range strings.SplitSeq(string(c.sent), "\r\n") {
			if value, ok := strings.CutPrefix(line, "Sec-WebSocket-Extensions:"); ok {
				f.Add(value)
			}
		}
	}
	f.Fuzz(func(t *testing.T, lines string) {
		values := strings.Split(lines, "\n")
		got, err := parseExtensions(values)
		if _, checkErr := scanExtensions(values, false); !reflect.DeepEqual(checkErr, err) {
			t.Fatalf("scanExtensions(%q, false): %v; parseExtensions: %v", values, checkErr, err)
		}
		if err != nil {
			if e, ok := err.(*HandshakeError); !ok || e.Status != 400 || len(e.Reason) > 600 || got != nil {
				t.Fatalf("parseExtensions(%q) = %v, %#v; want nothing and a short 400", values, got, err)
			}
			return
		}
		written := checkExtensions(t, values, got)
		for _, again := range [][]string{written, {strings.Join(written, ", ")}, {strings.Join(values, ",")}} {
			if same, err := parseExtensions(again); err != nil || !reflect.DeepEqual(same, got) {
				t.Errorf("parseExtensions(%q) = %+v, %v; parseExtensions(%q) = %+v", again, same, err, values, got)
			}
		}
	})
}

// checkExtensions holds that what was read of a list is made of tokens and
// bounded, and writes it anew.
func checkExtensions(t *testing.T, values []string, got []extension) (written []string) {
	t.Helper()
	count := 0
	for _, e := range got {
		line, tokens := e.name, isToken(e.name)
		for _, p := range e.params {
			line += ";" + p.name
			if p.value != "" {
				line += "=" + p.value
			}
			tokens = tokens && isToken(p.name) && (p.value == "" || isToken(p.value))
			count++
		}
		count++
		if !tokens {
			t.Errorf("parseExtensions(%q): %+v; want tokens", values, e)
		}
		written = append(written, line)
	}
	if count == 0 || count > maxListElements {
		t.Errorf("parseExtensions(%q): %d elements; want 1 to %d", values, count, maxListElements)
	}
	return written
}

func TestByteClasses(t *testing.T) {
	const alnum = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	const visible = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~" + alnum
	var obs strings.Builder
	for c := 0x80; c <= 0xff; c++ {
		obs.WriteByte(byte(c))
	}
	for _, test := range []struct {
		name  string
		class uint8
		want  string
	}{
		{"token", tokenByte, "!#$%&'*+-.^_`|~" + alnum},
		{"value", valueByte, "\t " + visible + obs.String()},
		{"target", targetByte, strings.ReplaceAll(visible, "#", "")},
		{"host", hostByte, "-._~!$&'()*+,;=" + alnum},
		{"plain path", plainPathByte, "-._~/$&+:=@" + alnum},
	} {
		for c := range 256 {
			want := strings.IndexByte(test.want, byte(c)) >= 0
			if got := byteClasses[c]&test.class != 0; got != want {
				t.Errorf("byte %#02x in class %s: %v; want %v", c, test.name, got, want)
			}
		}
	}
}

func TestEqualFold(t *testing.T) {
	for x := range 256 {
		for y := range 256 {
			a, b := string([]byte{'a', byte(x)}), string([]byte{'A', byte(y)})
			want := x == y || x < 0x80 && y < 0x80 && strings.EqualFold(a, b)
			if got := equalFold(a, b); got != want {
				t.Errorf("equalFold(%q, %q) = %v; want %v", a, b, got, want)
			}
		}
	}
	if equalFold("a", "aa") || !equalFold("", "") {
		t.Error("equalFold of different lengths is true, or of empty strings false")
	}
}

func TestHasListToken(t *testing.T) {
	for _, test := range []struct {
		values []string
		want   bool
	}{
		{nil, false},
		{[]string{""}, false},
		{[]string{"close"}, true},
		{[]string{" \tCLOSE\t "}, true},
		{[]string{"a,close,b"}, true},
		{[]string{"a", "b", ",,close"}, true},
		{[]string{"closed, clos, xclose, clo se, \"close\", close/1"}, false},
		{[]string{"clo\u017fe"}, false},
	} {
		if got := hasListToken(test.values, "close"); got != test.want {
			t.Errorf("hasListToken(%q, close) = %v; want %v", test.values, got, test.want)
		}
	}
}
