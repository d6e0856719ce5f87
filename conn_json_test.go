package websocket_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"testing"

	"github.com/rawws/websocket"
	"github.com/rawws/websocket/websockettest"
)

type order struct {
	Item string
	N    int
}

// Wrong documents cost their message and nothing else.
func TestReadJSON(t *testing.T) {
	var syntax *json.SyntaxError
	var wrongType *json.UnmarshalTypeError
	tests := []struct {
		op   websockettest.Opcode
		text string
		want order
		as   any // nil for no error
	}{
		{websockettest.Text, ` {"item": "tea", "n": 2} `, order{"tea", 2}, nil},
		{websockettest.Binary, `{"item": "tea"}`, order{"tea", 0}, nil},
		{websockettest.Text, `{"item": "tea"`, order{}, &syntax},
		{websockettest.Text, `{"item": "tea"} {}`, order{}, &syntax},
		{websockettest.Text, ``, order{}, &syntax},
		{websockettest.Text, `{"n": "many"}`, order{}, &wrongType},
		{websockettest.Text, `{"n": 1}`, order{N: 1}, nil},
	}
	s := &websocket.Server{Handler: websocket.HandlerFunc(func(c *websocket.Conn, _ *http.Request) {
		for _, test := range tests {
			var got order
			err := c.ReadJSON(&got)
			if test.as == nil {
				if err != nil || got != test.want {
					t.Errorf("ReadJSON of %q = %+v, %v; want %+v", test.text, got, err, test.want)
				}
			} else if !errors.Is(err, websocket.ErrJSON) || !errors.As(err, test.as) {
				t.Errorf("ReadJSON of %q: %v; want an ErrJSON and a %T", test.text, err, test.as)
			}
		}
		err := c.ReadJSON(new(order))
		if errors.Is(err, websocket.ErrJSON) || websocket.CloseStatus(err) != 4000 {
			t.Errorf("ReadJSON at the end: %v; want the *EndError of 4000", err)
		}
	})}
	c := websockettest.Dial(t, websockettest.Serve(t, s), "/")
	for _, test := range tests {
		c.SendFrame(websockettest.Frame{Opcode: test.op, Payload: []byte(test.text)})
	}
	c.Close(4000)
}

func TestWriteJSON(t *testing.T) {
	s := &websocket.Server{Handler: websocket.HandlerFunc(func(c *websocket.Conn, _ *http.Request) {
		if err := c.WriteJSON(make(chan int)); !errors.Is(err, websocket.ErrJSON) {
			t.Errorf("WriteJSON of a channel: %v; want an ErrJSON", err)
		}
		if err := c.WriteJSON(order{"tea", 2}); err != nil {
			t.Error(err)
		}
		c.Close(websocket.CloseNormal, "")
		if err := c.WriteJSON(1); err == nil || errors.Is(err, websocket.ErrJSON) {
			t.Errorf("WriteJSON after Close: %v; want WriteMessage's error", err)
		}
	})}
	c := websockettest.Dial(t, websockettest.Serve(t, s), "/")
	c.WantText(`{"Item":"tea","N":2}`)
	c.WantClose(1000)
}
