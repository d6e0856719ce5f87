package httphead

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestElements(t *testing.T) {
	for _, test := range []struct {
		lines []string
		want  []Element
		count int
		wrong string
	}{
		{lines: nil},
		{lines: []string{"a"}, want: []Element{{"a", nil}}, count: 1},
		{lines: []string{"permessage-deflate; client_max_window_bits; server_max_window_bits=10"}, want: []Element{
			{"permessage-deflate", []Param{{"client_max_window_bits", ""}, {"server_max_window_bits", "10"}}}}, count: 3},
		{lines: []string{`a;b="c";d = "\e\f" ; g=h`}, want: []Element{{"a", []Param{{"b", "c"}, {"d", "ef"}, {"g", "h"}}}}, count: 4},
		{lines: []string{`a; b="\\c"`}, wrong: `a; b="\\c"`}, // a backslash is no part of a token
		{lines: []string{"a,b;c", "", "d\t,\t"}, want: []Element{{"a", nil}, {"b", []Param{{"c", ""}}}, {"d", nil}}, count: 4},
		{lines: []string{"a", "b;"}, wrong: "b;"},
		{lines: []string{"", " ,\t,"}},
		{lines: []string{"a b"}, wrong: "a b"},
		{lines: []string{`a; b="c" d`}, wrong: `a; b="c" d`},
		{lines: []string{`a; b="c`}, wrong: `a; b="c`},
		{lines: []string{`a; b="c\`}, wrong: `a; b="c\`},
		{lines: []string{`a; "b"`}, wrong: `a; "b"`},
		{lines: []string{`"a"`}, wrong: `"a"`},
		{lines: []string{`a; b="\`, `"`}, wrong: `a; b="\`},
		{lines: []string{"a" + strings.Repeat(";b", MaxElements)}, wrong: "a" + strings.Repeat(";b", MaxElements)},
		{lines: []string{strings.Repeat("a,", MaxElements+1)}, wrong: strings.Repeat("a,", MaxElements+1)},
	} {
		got, wrong, ok := ParseElements(test.lines)
		if !reflect.DeepEqual(got, test.want) || wrong != test.wrong || ok != (test.wrong == "") {
			t.Errorf("ParseElements(%q) = %v, %q, %v; want %v, %q", test.lines, got, wrong, ok, test.want, test.wrong)
		}
		count, wrong, ok := CheckElements(test.lines)
		if count != test.count || wrong != test.wrong || ok != (test.wrong == "") {
			t.Errorf("CheckElements(%q) = %d, %q, %v; want %d, %q", test.lines, count, wrong, ok, test.count, test.wrong)
		}
	}
}

func TestAppendTokens(t *testing.T) {
	many := make([]string, MaxElements)
	for i := range many {
		many[i] = strconv.Itoa(i)
	}
	for _, test := range []struct {
		lines []string
		want  []string
		wrong string
	}{
		{lines: nil},
		{lines: []string{"", "\t, ,"}},
		{lines: []string{"chat"}, want: []string{"chat"}},
		{lines: []string{",b\t,, a", "c"}, want: []string{"b", "a", "c"}},
		{lines: []string{"a, A"}, want: []string{"a", "A"}}, // tokens that differ
		{lines: []string{"a, b, a"}, wrong: "a, b, a"},
		{lines: []string{"a", "a"}, wrong: "a"},
		{lines: []string{"a b"}, wrong: "a b"},
		{lines: []string{"a/b"}, wrong: "a/b"},
		{lines: []string{`"a"`}, wrong: `"a"`},
		{lines: many, want: many},
		{lines: append(many[:MaxElements:MaxElements], "x"), wrong: "x"},
	} {
		got, wrong, ok := AppendTokens(nil, test.lines)
		if !slices.Equal(got, test.want) || wrong != test.wrong || ok != (test.wrong == "") {
			t.Errorf("AppendTokens(%q) = %q, %q, %v; want %q, %q", test.lines, got, wrong, ok, test.want, test.wrong)
		}
	}
}

// What comes out is made of tokens, is found again when it is written anew,
// and doesn't depend on how the list was spread over lines.
func FuzzElements(f *testing.F) {
	f.Add("permessage-deflate; client_max_window_bits")
	f.Add("permessage-deflate; server_no_context_takeover; server_max_window_bits=\"1\\0\", permessage-deflate")
	f.Add("a; b=c,, d\n\te ; f = \"g\" \n,")
	f.Add("a; b=\"\\\"\nc\"")
	f.Fuzz(func(t *testing.T, text string) {
		lines := strings.Split(text, "\n")
		got, wrong, ok := ParseElements(lines)
		count, wrongToo, okToo := CheckElements(lines)
		if wrong != wrongToo || ok != okToo {
			t.Fatalf("CheckElements(%q) = %d, %q, %v; ParseElements: %q, %v", lines, count, wrongToo, okToo, wrong, ok)
		}
		if !ok {
			if !slices.Contains(lines, wrong) || got != nil {
				t.Fatalf("ParseElements(%q) = %v, %q; want nothing and one of the lines", lines, got, wrong)
			}
			return
		}
		written := checkElements(t, lines, got, count)
		for _, again := range [][]string{written, {strings.Join(written, ", ")}, {strings.Join(lines, ",")}} {
			if same, _, ok := ParseElements(again); !ok || !reflect.DeepEqual(same, got) {
				t.Errorf("ParseElements(%q) = %+v, %v; ParseElements(%q) = %+v", again, same, ok, lines, got)
			}
		}
	})
}

// checkElements holds that what was read of a list is made of tokens and
// bounded, and writes it anew.
func checkElements(t *testing.T, lines []string, got []Element, count int) (written []string) {
	t.Helper()
	n := 0
	for _, e := range got {
		line, tokens := e.Name, IsToken(e.Name)
		for _, p := range e.Params {
			line += ";" + p.Name
			if p.Value != "" {
				line += "=" + p.Value
			}
			tokens = tokens && IsToken(p.Name) && (p.Value == "" || IsToken(p.Value))
			n++
		}
		n++
		if !tokens {
			t.Errorf("ParseElements(%q): %+v; want tokens", lines, e)
		}
		written = append(written, line)
	}
	if n != count || n > MaxElements {
		t.Errorf("ParseElements(%q): %d elements; want %d, at most %d", lines, n, count, MaxElements)
	}
	return written
}

func TestTokensAndValues(t *testing.T) {
	for _, test := range []struct {
		in           string
		token, value bool
	}{
		{"", false, true},
		{"a-1!", true, true},
		{"a b\t\x80", false, true},
		{"a\r", false, false},
		{"a\x00", false, false},
	} {
		if token, value := IsToken(test.in), IsValue(test.in); token != test.token || value != test.value {
			t.Errorf("%q: a token %v, a value %v; want %v, %v", test.in, token, value, test.token, test.value)
		}
	}
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
		{"query", queryByte, strings.ReplaceAll(visible, "#", "") + obs.String()},
		{"host", hostByte, "-._~!$&'()*+,;=" + alnum},
		{"hidden name", obfuscatedByte, "._-" + alnum},
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
			if got := EqualFold(a, b); got != want {
				t.Errorf("EqualFold(%q, %q) = %v; want %v", a, b, got, want)
			}
		}
	}
	if EqualFold("a", "aa") || !EqualFold("", "") {
		t.Error("EqualFold of different lengths is true, or of empty strings false")
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
		if got := HasToken(test.values, "close"); got != test.want {
			t.Errorf("HasToken(%q, close) = %v; want %v", test.values, got, test.want)
		}
	}
}
