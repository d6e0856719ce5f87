package signalr

import (
	"bytes"
	"encoding/json"
	"errors"

	"github.com/rawws/websocket"
)

const (
	typeInvocation, typeStreamItem, typeCompletion             = 1, 2, 3
	typeStreamInvocation, typeCancel, typePing, typeClose      = 4, 5, 6, 7
	recordEnd                                             byte = 0x1e // behind each in JSON, and the handshake's
)

// A record is what one side says to the other. A message has one or more.
type record struct {
	Type           int    `json:"type"`
	InvocationID   string `json:"invocationId,omitzero"` // of a call, or of a stream from the client
	Target         string `json:"target,omitzero"`
	Arguments      []any  `json:"arguments,omitzero"`
	StreamIDs      []any  `json:"streamIds,omitzero"`
	Item           any    `json:"item,omitzero"`
	Result         any    `json:"result,omitzero"`
	Error          string `json:"error,omitzero"`
	AllowReconnect bool   `json:"allowReconnect,omitzero"`
}

var errEncode = errors.New("signalr: a value that can't be encoded")

// A codec is one of the two encodings.
type codec struct {
	index       int
	messageType websocket.MessageType
	encode      func(*record) ([]byte, error)
	decode      func([]byte) ([]record, error)
}

var codecs = map[string]*codec{
	"json":        {0, websocket.TextMessage, encodeJSON, decodeJSON},
	"messagepack": {1, websocket.BinaryMessage, encodePack, decodePack},
}

func (c *codec) prepare(r *record) (*websocket.PreparedMessage, error) {
	p, err := c.encode(r)
	if err != nil {
		return nil, errEncode
	}
	return websocket.NewPreparedMessage(c.messageType, p), nil
}

func encodeJSON(r *record) ([]byte, error) {
	p, err := json.Marshal(r)
	return append(p, recordEnd), err
}

func decodeJSON(data []byte) (records []record, err error) {
	body, whole := bytes.CutSuffix(data, []byte{recordEnd})
	if !whole {
		return nil, errors.New("a record without its end")
	}
	for part := range bytes.SplitSeq(body, []byte{recordEnd}) {
		var r record
		if err := json.Unmarshal(part, &r); err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	return records, nil
}
