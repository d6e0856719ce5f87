package signalr

import (
	"encoding/hex"
	"math"
	"reflect"
	"strings"
	"testing"
)

func TestUnpack(t *testing.T) {
	for in, want := range map[string]any{
		"00": int64(0), "7f": int64(127), "ff": int64(-1), "e0": int64(-32),
		"cc ff": int64(255), "cd 0100": int64(256), "ce ffffffff": int64(math.MaxUint32), "cf 0000000100000000": float64(1 << 32),
		"d0 80": int64(-128), "d1 8000": int64(-32768), "d2 80000000": int64(math.MinInt32), "d3 8000000000000000": int64(math.MinInt64),
		"ca 3fc00000": 1.5, "cb 3ff8000000000000": 1.5,
		"c0": nil, "c2": false, "c3": true,
		"a0": "", "a3 616263": "abc", "d9 03 616263": "abc", "da 0003 616263": "abc", "db 00000003 616263": "abc",
		"c4 02 00ff": []byte{0, 255}, "c5 0001 07": []byte{7}, "c6 00000000": []byte{},
		"90": []any{}, "92 01 02": []any{int64(1), int64(2)}, "dc 0001 c0": []any{nil}, "dd 00000001 91 c3": []any{[]any{true}},
		"80": map[string]any{}, "81 a1 61 01": map[string]any{"a": int64(1)}, "de 0001 07 a1 62": map[string]any{"7": "b"},
		"df 00000001 a1 61 c0": map[string]any{"a": nil},
	} {
		b := unhex(t, in)
		got, rest, err := unpack(append(b, 0x55), maxDepth)
		if err != nil || len(rest) != 1 || !reflect.DeepEqual(got, want) {
			t.Errorf("unpack(%s) = %#v, % x, %v; want %#v", in, got, rest, err, want)
		}
		for n := range b { // every way to be cut
			if got, _, err := unpack(b[:n], maxDepth); err == nil {
				t.Errorf("unpack(% x) = %#v; want an error", b[:n], got)
			}
		}
	}
	for _, in := range []string{
		"c1",          // never used
		"d4 01 00",    // an extension
		"dd ffffffff", // a length that was only declared
		"df ffffffff 01", "c6 ffffffff 00", "db ffffffff 00",
		strings.Repeat("91", maxDepth+1) + "c0", // too deep
	} {
		if got, _, err := unpack(unhex(t, in), maxDepth); err == nil {
			t.Errorf("unpack(%.40s) = %#v; want an error", in, got)
		}
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPackedComesBack(t *testing.T) {
	for _, v := range []any{
		nil, true, false, int64(0), int64(-1), int64(math.MinInt64), 1.5, "", "Ελληνικά", []byte{0, 255},
		[]any{}, []any{int64(1), []any{"a"}}, map[string]any{"a": map[string]any{"b": []byte("c")}},
	} {
		p, err := pack(nil, v)
		got, rest, err2 := unpack(p, maxDepth)
		if err != nil || err2 != nil || len(rest) > 0 || !reflect.DeepEqual(got, v) {
			t.Errorf("pack(%#v) = % x, %v, which is %#v, % x, %v", v, p, err, got, rest, err2)
		}
	}
	type point struct{ X, Y int }
	p, _ := pack(nil, []any{7, &point{1, 2}})
	if got, _, _ := unpack(p, maxDepth); !reflect.DeepEqual(got, []any{int64(7), map[string]any{"X": 1.0, "Y": 2.0}}) {
		t.Errorf("a struct went by JSON as %#v", got)
	}
	if _, err := pack(nil, []any{map[string]any{"a": func() {}}}); err == nil {
		t.Error("pack of a function: no error")
	}
}

// Records as the protocol's own documents write them.
func TestDecodePack(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want []record
	}{
		{"02 91 06", []record{{Type: typePing}}},
		{"02 91 06 02 91 06", []record{{Type: typePing}, {Type: typePing}}},
		{"0e 96 01 80 a3 78797a a6 6d6574686f64 91 2a", nil}, // cut inside
		{"11 96 01 80 a3 78797a a6 6d6574686f64 91 2a 90", []record{{Type: 1, InvocationID: "xyz", Target: "method", Arguments: []any{int64(42)}, StreamIDs: []any{}}}},
		{"0e 96 01 80 c0 a6 6d6574686f64 91 2a 90", []record{{Type: 1, Target: "method", Arguments: []any{int64(42)}, StreamIDs: []any{}}}},
		{"12 96 04 80 a3 78797a a6 6d6574686f64 90 91 a1 31", []record{{Type: 4, InvocationID: "xyz", Target: "method", Arguments: []any{}, StreamIDs: []any{"1"}}}},
		{"08 94 02 80 a3 78797a 2a", []record{{Type: 2, InvocationID: "xyz", Item: int64(42)}}},
		{"0d 95 03 80 a3 78797a 01 a4 6f6f7073", []record{{Type: 3, InvocationID: "xyz", Error: "oops"}}},
		{"07 93 05 80 a3 78797a", []record{{Type: 5, InvocationID: "xyz"}}},
		{"04 92 07 c2 ff", nil}, // something behind the array
		{"01 06", nil},
		{"00", nil},
		{"02 91 a0", nil},
		{"ff ff ff ff ff ff ff ff ff ff 01 91", nil},
		{"ff ff ff ff 0f 91", nil},
		{"05 94 01 80 c0 07", nil}, // a target that is no text
	} {
		got, err := decodePack(unhex(t, tt.in))
		for i := range got {
			if got[i].Type != typeStreamItem {
				got[i].Item = nil // where that would be is something else
			}
		}
		if (err != nil) != (tt.want == nil) || err == nil && !reflect.DeepEqual(got, tt.want) {
			t.Errorf("decodePack(%s) = %+v, %v; want %+v", tt.in, got, err, tt.want)
		}
	}
}

func TestEncodePack(t *testing.T) {
	for _, r := range []record{
		{Type: typeInvocation, Target: "m", Arguments: []any{"a", int64(1), nil}},
		{Type: typeStreamItem, InvocationID: "1", Item: "x"},
		{Type: typePing},
	} {
		p, err := encodePack(&r)
		got, err2 := decodePack(p)
		if r.Type == typeInvocation {
			r.Item = "m" // where an item would be
		}
		if err != nil || err2 != nil || len(got) != 1 || got[0].Type != r.Type || got[0].Target != r.Target || !reflect.DeepEqual(got[0].Arguments, r.Arguments) || got[0].Item != r.Item {
			t.Errorf("%+v became % x and %+v; %v, %v", r, p, got, err, err2)
		}
	}
	for want, r := range map[string]record{
		"95 03 80 a1 31 01 db 00000001 78": {Type: typeCompletion, InvocationID: "1", Error: "x"},
		"94 03 80 a1 31 02":                {Type: typeCompletion, InvocationID: "1"},
		"95 03 80 a1 31 03 c3":             {Type: typeCompletion, InvocationID: "1", Result: true},
	} {
		p, err := encodePack(&r)
		v, _, _ := unpack(p[1:], maxDepth)
		w, _, _ := unpack(unhex(t, want), maxDepth)
		if err != nil || !reflect.DeepEqual(v, w) {
			t.Errorf("encodePack(%+v) = % x, %v; want %s", r, p, err, want)
		}
	}
}

func FuzzUnpack(f *testing.F) {
	for _, s := range []string{"c0", "93 01 a1 61 c4 00", "81 a1 61 dd 00000001 cb 3ff8000000000000"} {
		b, _ := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, rest, err := unpack(b, maxDepth)
		if err != nil {
			return
		}
		if len(rest) >= len(b) {
			t.Fatalf("unpack(% x) took nothing", b)
		}
		p, err := pack(nil, v)
		if err != nil {
			t.Fatalf("%#v can't be packed again: %v", v, err)
		}
		again, _, err := unpack(p, maxDepth)
		q, _ := pack(nil, again)
		if err != nil || len(p) != len(q) {
			t.Fatalf("% x is %#v, and then %#v, %v", b, v, again, err)
		}
	})
}
