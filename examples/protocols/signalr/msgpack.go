package signalr

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
)

// MessagePack: a value is a byte that says what it is, and for a short one how
// long; otherwise its number or length is behind that. A record is an array.

const maxDepth = 64 // of arrays and maps in each other
var errPack = errors.New("MessagePack that can't be read")

// encodePack makes the array that a record of its type is.
func encodePack(r *record) ([]byte, error) {
	var id any // nil when no answer is wanted
	if r.InvocationID != "" {
		id = r.InvocationID
	}
	fields := []any{r.Type, map[string]any{}, id}
	switch {
	case r.Type == typeInvocation:
		fields = append(fields, r.Target, r.Arguments, []any{})
	case r.Type == typeStreamItem:
		fields = append(fields, r.Item)
	case r.Type == typePing:
		fields = fields[:1]
	case r.Type == typeClose:
		fields = []any{r.Type, r.Error, r.AllowReconnect}
	case r.Error != "": // of a completion: which kind, and what it brings
		fields = append(fields, 1, r.Error)
	case r.Result == nil:
		fields = append(fields, 2)
	default:
		fields = append(fields, 3, r.Result)
	}
	body, err := pack(nil, fields)
	return append(binary.AppendUvarint(nil, uint64(len(body))), body...), err
}

// pack appends a value. What isn't of a type of its own goes by encoding/json.
func pack(dst []byte, v any) (_ []byte, err error) {
	switch v := v.(type) {
	case nil:
		return append(dst, 0xc0), nil
	case bool:
		return append(dst, map[bool]byte{false: 0xc2, true: 0xc3}[v]), nil
	case int:
		return binary.BigEndian.AppendUint64(append(dst, 0xd3), uint64(v)), nil
	case int64:
		return binary.BigEndian.AppendUint64(append(dst, 0xd3), uint64(v)), nil
	case float64:
		return binary.BigEndian.AppendUint64(append(dst, 0xcb), math.Float64bits(v)), nil
	case string:
		return append(packLength(dst, 0xdb, len(v)), v...), nil
	case []byte:
		return append(packLength(dst, 0xc6, len(v)), v...), nil
	case []any:
		dst = packLength(dst, 0xdd, len(v))
		for i := 0; i < len(v) && err == nil; i++ {
			dst, err = pack(dst, v[i])
		}
		return dst, err
	case map[string]any:
		dst = packLength(dst, 0xdf, len(v))
		for k, item := range v {
			if dst, err = pack(append(packLength(dst, 0xdb, len(k)), k...), item); err != nil {
				break
			}
		}
		return dst, err
	}
	p, err := json.Marshal(v)
	var plain any
	if err != nil || json.Unmarshal(p, &plain) != nil {
		return dst, cmp.Or(err, errPack)
	}
	return pack(dst, plain)
}

func packLength(dst []byte, kind byte, n int) []byte {
	return binary.BigEndian.AppendUint32(append(dst, kind), uint32(n))
}

func decodePack(data []byte) (records []record, err error) {
	for len(data) > 0 {
		n, size := binary.Uvarint(data)
		if size <= 0 || n > uint64(len(data)-size) {
			return nil, errPack
		}
		end := size + int(n)
		v, rest, err := unpack(data[size:end], maxDepth)
		fields, _ := v.([]any)
		r, ok := recordOf(append(fields, make([]any, 6)...)) // what is missing is nil
		if err != nil || len(rest) > 0 || !ok {
			return nil, errPack
		}
		records, data = append(records, r), data[end:]
	}
	return records, nil
}

func recordOf(fields []any) (r record, ok bool) {
	kind, ok := fields[0].(int64)
	r.Type = int(kind)
	r.InvocationID, _ = fields[2].(string)
	r.Item = fields[3] // if it is one
	switch r.Type {
	case typeInvocation, typeStreamInvocation:
		r.Target, ok = fields[3].(string)
		r.Arguments, _ = fields[4].([]any)
		r.StreamIDs, _ = fields[5].([]any)
	case typeCompletion:
		if fields[3] == int64(1) {
			r.Error, _ = fields[4].(string)
		}
	}
	return r, ok
}

// sizes are those of the number or length behind a kind. There are no extensions.
var sizes = map[byte]int{
	0xc0: 0, 0xc2: 0, 0xc3: 0, 0xc4: 1, 0xc5: 2, 0xc6: 4, 0xca: 4, 0xcb: 8, 0xcc: 1, 0xcd: 2, 0xce: 4, 0xcf: 8, 0xd0: 1,
	0xd1: 2, 0xd2: 4, 0xd3: 8, 0xd9: 1, 0xda: 2, 0xdb: 4, 0xdc: 2, 0xdd: 4, 0xde: 2, 0xdf: 4,
}

// unpack reads a value, and keeps nothing of b.
func unpack(b []byte, depth int) (v any, rest []byte, err error) {
	if len(b) == 0 || depth == 0 {
		return nil, nil, errPack
	}
	kind, size := b[0], 0
	n := uint64(kind)
	switch b = b[1:]; {
	case kind <= 0x7f || kind >= 0xe0:
		return int64(int8(kind)), b, nil
	case kind <= 0x8f:
		kind, n = 0xdf, n&15
	case kind <= 0x9f:
		kind, n = 0xdd, n&15
	case kind <= 0xbf:
		kind, n = 0xdb, n&31
	default:
		var known bool
		if size, known = sizes[kind]; !known || len(b) < size {
			return nil, nil, errPack
		}
		n = 0
		for _, c := range b[:size] {
			n = n<<8 | uint64(c)
		}
		b = b[size:]
	}
	switch kind {
	case 0xc0:
		return nil, b, nil
	case 0xc2, 0xc3:
		return kind == 0xc3, b, nil
	case 0xca:
		return float64(math.Float32frombits(uint32(n))), b, nil
	case 0xcb:
		return math.Float64frombits(n), b, nil
	case 0xcc, 0xcd, 0xce, 0xd3:
		return int64(n), b, nil
	case 0xcf: // as JSON has it, where only that is large enough
		return float64(n), b, nil
	case 0xd0, 0xd1, 0xd2:
		return int64(n<<(64-8*size)) >> (64 - 8*size), b, nil
	}
	switch {
	case n > uint64(len(b)): // an element has one byte at least
		return nil, nil, errPack
	case kind == 0xdc || kind == 0xdd:
		return unpackArray(b, int(n), depth-1)
	case kind == 0xde || kind == 0xdf:
		pairs, b, err := unpackArray(b, 2*int(n), depth-1)
		m := make(map[string]any)
		for i := 0; i+1 < len(pairs); i += 2 {
			m[fmt.Sprint(pairs[i])] = pairs[i+1]
		}
		return m, b, err
	case kind <= 0xc6:
		return append([]byte{}, b[:n]...), b[n:], nil
	}
	return string(b[:n]), b[n:], nil
}

func unpackArray(b []byte, n, depth int) (array []any, rest []byte, err error) {
	array = []any{}
	for i := 0; i < n && err == nil; i++ {
		var v any
		v, b, err = unpack(b, depth)
		array = append(array, v)
	}
	return array, b, err
}
