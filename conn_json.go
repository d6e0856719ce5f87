package websocket

import (
	"encoding/json"
	"errors"
	"fmt"
)

// ErrJSON is matched, through errors.Is, by the error of ReadJSON and WriteJSON
// whose document, and not whose connection, is at fault. It unwraps to
// encoding/json's too.
var ErrJSON = errors.New("websocket: JSON")

// ReadJSON reads the next message, of either type, as one document of JSON into
// v, by the rules of json.Unmarshal. When the document is wrong, or isn't one
// that v takes, the error matches ErrJSON, and the connection goes on with the
// next message. Other errors are those of ReadMessage, and so are the Handlers
// that it is for: under Events json.Unmarshal takes what OnMessage gets.
func (c *Conn) ReadJSON(v any) error {
	_, p, err := c.ReadMessage()
	if err != nil {
		return err
	}
	if err := json.Unmarshal(p, v); err != nil {
		return fmt.Errorf("%w: %w", ErrJSON, err)
	}
	return nil
}

// WriteJSON sends v as a text message of JSON, by the rules of json.Marshal.
// Where v can't be one the error matches ErrJSON, and nothing was sent. Other
// errors are those of WriteMessage.
func (c *Conn) WriteJSON(v any) error {
	p, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrJSON, err)
	}
	return c.WriteMessage(TextMessage, p)
}
