package socketio

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct{ in, want string }{ // kind attachments namespace id json
		{`0`, `0 0 / - `},
		{`0{"token":"x"}`, `0 0 / - {"token":"x"}`},
		{`0/admin,{"token":"x"}`, `0 0 /admin - {"token":"x"}`},
		{`0/admin`, `0 0 /admin - `},
		{`1/admin,`, `1 0 /admin - `},
		{`2["hello",1]`, `2 0 / - ["hello",1]`},
		{`2["hello,/x-"]`, `2 0 / - ["hello,/x-"]`},
		{`2/admin,456["a",[]]`, `2 0 /admin 456 ["a",[]]`},
		{`20["a"]`, `2 0 / 0 ["a"]`},
		{`3/admin,456[]`, `3 0 /admin 456 []`},
		{`51-["f",{"_placeholder":true,"num":0}]`, `2 1 / - ["f",{"_placeholder":true,"num":0}]`},
		{`52-/admin,7["f"]`, `2 2 /admin 7 ["f"]`},
		{`61-/admin,456[{"_placeholder":true,"num":0}]`, `3 1 /admin 456 [{"_placeholder":true,"num":0}]`},
		{`50-["f"]`, `2 0 / - ["f"]`},
		{`2[1]`, `2 0 / - [1]`}, // the name is looked at later
		{``, ``},
		{`7`, ``},
		{`a`, ``},
		{`2["a"`, ``},
		{`2["a"]x`, ``},
		{`21-["a"]`, ``}, // attachments of what has none
		{`5["a"]`, ``},   // none announced
		{`517-["a"]`, ``},
		{`5-1-["a"]`, ``},
		{`5999999999999-["a"]`, ``},
		{`29999999999999999999["a"]`, ``},
		{`2` + strings.Repeat("/", 200) + `,["a"]`, ``},
	} {
		got := ""
		if m, ok := parse([]byte(tt.in)); ok {
			id := "-"
			if m.id != nil {
				id = fmt.Sprint(*m.id)
			}
			got = fmt.Sprintf("%d %d %s %s %s", m.kind, m.attachments, m.namespace, id, m.json)
		}
		if got != tt.want {
			t.Errorf("parse(%.80q) = %q; want %q", tt.in, got, tt.want)
		}
	}
}

func TestEncode(t *testing.T) {
	id := uint64(12)
	for _, tt := range []struct {
		kind      int
		namespace string
		id        *uint64
		args      []any
		want      []string
	}{
		{typeEvent, "/", nil, []any{"a", 1, "é"}, []string{`42["a",1,"é"]`}},
		{typeEvent, "/n", &id, []any{"a"}, []string{`42/n,12["a"]`}},
		{typeAck, "/", &id, nil, []string{`4312[]`}},
		{typeEvent, "/n", nil, []any{"a", []byte("x"), map[string]any{"b": []any{[]byte("y")}}},
			[]string{`452-/n,["a",{"_placeholder":true,"num":0},{"b":[{"_placeholder":true,"num":1}]}]`, "x", "y"}},
		{typeAck, "/", &id, []any{[]byte{}}, []string{`461-12[{"_placeholder":true,"num":0}]`, ""}},
	} {
		packets, err := encode(tt.kind, tt.namespace, tt.id, tt.args)
		var got []string
		for i, p := range packets {
			if p.binary != (i > 0) {
				t.Errorf("encode(%v): packet %d is binary: %v", tt.args, i, p.binary)
			}
			got = append(got, string(p.data))
		}
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("encode(%v) = %q, %v; want %q", tt.args, got, err, tt.want)
		}
	}
	if _, err := encode(typeEvent, "/", nil, []any{func() {}}); err == nil {
		t.Errorf("encode of a function: no error")
	}
}

func TestArguments(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want []any
	}{
		{`2["a",{"_placeholder":true,"num":0}]`, []any{"a", map[string]any{"_placeholder": true, "num": 0.0}}},
		{`52-["a",{"_placeholder":true,"num":1},{"b":{"_placeholder":true,"num":0}}]`, []any{"a", []byte("two"), map[string]any{"b": []byte("one")}}},
		{`52-["a",{"_placeholder":true,"num":2},{"_placeholder":true,"num":-1},{"_placeholder":true,"num":"x"},{"_placeholder":1}]`,
			[]any{"a", nil, nil, nil, map[string]any{"_placeholder": 1.0}}},
		{`2{}`, nil},
		{`2`, nil},
		{`2null`, nil},
	} {
		m, ok := parse([]byte(tt.in))
		if !ok {
			t.Fatalf("parse(%q) refused it", tt.in)
		}
		m.attached = [][]byte{[]byte("one"), []byte("two")}
		got, ok := m.arguments()
		if ok != (tt.want != nil) || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("arguments of %q = %v, %v; want %v", tt.in, got, ok, tt.want)
		}
	}
}

// Whatever a client sends, its text is refused or is a message that can be said
// again.
func FuzzParse(f *testing.F) {
	for _, s := range []string{`0/admin,{"token":"x"}`, `2/n,12["a",{"b":[]}]`, `52-["f",{"_placeholder":true,"num":1}]`, `61-7[null]`, `1`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		m, ok := parse(p)
		if !ok {
			return
		}
		if m.kind < 0 || m.kind > 6 || m.attachments < 0 || m.attachments > maxAttachments || m.namespace == "" {
			t.Fatalf("parse(%q) = %+v", p, m)
		}
		m.attached = make([][]byte, m.attachments)
		args, ok := m.arguments()
		if !ok || m.kind != typeEvent && m.kind != typeAck {
			return
		}
		packets, err := encode(m.kind, m.namespace, m.id, args)
		if err != nil {
			t.Fatalf("%q, which is %+v with %v, can't be said: %v", p, m, args, err)
		}
		again, ok := parse(packets[0].data[1:])
		if !ok && len(packets)-1 <= maxAttachments && len(m.namespace) < 100 || ok && again.namespace != m.namespace {
			t.Fatalf("%q became %q, which is %+v", p, packets[0].data, again)
		}
	})
}
