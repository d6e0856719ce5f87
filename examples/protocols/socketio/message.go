package socketio

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/rawws/websocket"
)

const (
	// The types of Socket.IO 5's messages, each in an Engine.IO packet 4.
	typeConnect, typeDisconnect, typeEvent, typeAck = 0, 1, 2, 3

	withAttachments = 3              // is added to the last two
	maxAttachments  = 16             // of one message
	maxAttached     = 4 * maxPayload // bytes of all of them
	maxHead         = 128            // bytes in front of the JSON
)

// A message is <type>[<attachments>-][<namespace>,][<id>][<JSON>]. Its
// attachments are the binary packets behind it.
type message struct {
	kind        int
	binary      bool
	attachments int
	namespace   string
	id          *uint64 // of the answer that is asked for, or that this is
	json        []byte
	attached    [][]byte
	size        int // of what is attached
}

var head = regexp.MustCompile(`^([0-6])(?:([0-9]{1,3})-)?(?:(/[^,]*)(?:,|$))?([0-9]{1,15})?`)

// parse reads a message's text, and keeps nothing of p.
func parse(p []byte) (m *message, ok bool) {
	g := head.FindSubmatch(p[:min(len(p), maxHead)])
	if g == nil {
		return nil, false
	}
	m = &message{kind: int(g[1][0] - '0'), namespace: cmp.Or(string(g[3]), "/"), json: bytes.Clone(p[len(g[0]):])}
	if m.binary = m.kind >= typeEvent+withAttachments; m.binary {
		m.kind -= withAttachments
	}
	m.attachments, _ = strconv.Atoi(string(g[2]))
	if id, err := strconv.ParseUint(string(g[4]), 10, 64); err == nil {
		m.id = &id
	}
	return m, m.binary == (g[2] != nil) && m.attachments <= maxAttachments && (len(m.json) == 0 || json.Valid(m.json))
}

// arguments are the values of the JSON array, each attachment in its place.
func (m *message) arguments() (args []any, ok bool) {
	if json.Unmarshal(m.json, &args) != nil || args == nil {
		return nil, false
	}
	if !m.binary {
		return args, true
	}
	return walk(args, func(v any) (any, bool) {
		object, _ := v.(map[string]any)
		if object["_placeholder"] != true {
			return nil, false
		}
		if n, ok := object["num"].(float64); ok && n >= 0 && n < float64(len(m.attached)) {
			return m.attached[int(n)], true
		}
		return nil, true // there is no such attachment
	}).([]any), true
}

// encode makes packets of an event or an answer: the text, and what stands in
// it as []byte, for which it has placeholders.
func encode(kind int, namespace string, id *uint64, args []any) ([]packet, error) {
	packets := make([]packet, 1)
	p, err := json.Marshal(walk(args, func(v any) (any, bool) {
		data, ok := v.([]byte)
		if !ok {
			return nil, false
		}
		packets = append(packets, packet{true, data, websocket.NewPreparedMessage(websocket.BinaryMessage, data)})
		return map[string]any{"_placeholder": true, "num": len(packets) - 2}, true
	}))
	if err != nil {
		return nil, fmt.Errorf("socketio: %w", err)
	}
	h := prefix(namespace)
	if attached := len(packets) - 1; attached > 0 {
		kind += withAttachments
		h = fmt.Sprintf("%d-%s", attached, h)
	}
	if id != nil {
		h += strconv.FormatUint(*id, 10)
	}
	packets[0] = text("4%d%s%s", kind, h, p)
	return packets, nil
}

// walk returns a copy of v with what replace found in its slices and maps.
func walk(v any, replace func(any) (any, bool)) any {
	if r, ok := replace(v); ok {
		return r
	}
	switch v := v.(type) {
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = walk(v[i], replace)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k := range v {
			out[k] = walk(v[k], replace)
		}
		return out
	}
	return v
}

// prefix names a namespace, unless it is the one where clients begin.
func prefix(namespace string) string { return strings.TrimPrefix(namespace+",", "/,") }
