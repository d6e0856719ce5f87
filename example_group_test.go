package websocket_test

import (
	"fmt"
	"net/http"
	"time"

	"github.com/rawws/websocket"
	"github.com/rawws/websocket/websockettest"
)

// What one says, the others hear.
func ExampleGroup_BroadcastFunc() {
	var room websocket.Group
	s := &websocket.Server{Handler: websocket.Events{
		OnOpen: func(c *websocket.Conn, r *http.Request) {
			room.Join(c)
			c.WriteMessage(websocket.TextMessage, []byte("welcome"))
		},
		OnMessage: func(c *websocket.Conn, t websocket.MessageType, data []byte) {
			others := func(member *websocket.Conn) bool { return member != c }
			room.BroadcastFunc(others, websocket.NewPreparedMessage(t, data))
			c.WriteMessage(websocket.TextMessage, []byte("sent"))
		},
	}}
	defer s.Close()
	ln := websockettest.Serve(nil, s)

	a, b := websockettest.Dial(nil, ln, "/"), websockettest.Dial(nil, ln, "/")
	a.WantText("welcome")
	b.WantText("welcome")
	a.SendText("Hello")
	a.WantText("sent")
	b.WantText("Hello")
	a.Close(1000)
	b.Close(1000)
	// Output:
}

// Who is in the room.
func ExampleGroup_Members() {
	var room websocket.Group
	s := &websocket.Server{
		Upgrader: websocket.Upgrader{OnUpgrade: func(r *http.Request, a *websocket.Accept) error {
			a.Data = r.URL.Query().Get("name")
			return nil
		}},
		Handler: websocket.Events{OnOpen: func(c *websocket.Conn, r *http.Request) {
			room.Join(c)
			var names []any
			for member := range room.Members() {
				names = append(names, member.Data)
			}
			c.WriteMessage(websocket.TextMessage, fmt.Append(nil, room.Len(), " here: ", names))
		}},
	}
	defer s.Close()

	c := websockettest.Dial(nil, websockettest.Serve(nil, s), "/?name=jane")
	c.WantText("1 here: [jane]")
	c.Close(1000)
	// Output:
}

// A feed that only writes: the connection answers pings, and the client's close
// frame ends it.
func ExampleConn_CloseRead() {
	ended := make(chan bool)
	s := &websocket.Server{Handler: websocket.HandlerFunc(func(c *websocket.Conn, r *http.Request) {
		ctx := c.CloseRead()
		for tick := time.NewTicker(time.Millisecond); ; {
			select {
			case <-tick.C:
				c.WriteMessage(websocket.TextMessage, []byte("news"))
			case <-ctx.Done():
				ended <- true
				return
			}
		}
	})}
	defer s.Close()

	c := websockettest.Dial(nil, websockettest.Serve(nil, s), "/")
	c.WantText("news")
	c.Close(1000)
	fmt.Println(<-ended)
	// Output: true
}

// A producer that makes the next piece when there is room for it.
func ExampleConn_Queued() {
	s := &websocket.Server{Handler: websocket.Events{
		OnMessage: func(c *websocket.Conn, t websocket.MessageType, data []byte) {
			if c.Queued() < 64<<10 {
				c.Send(websocket.NewPreparedMessage(t, data))
			}
		},
	}}
	defer s.Close()

	c := websockettest.Dial(nil, websockettest.Serve(nil, s), "/")
	c.SendText("more")
	c.WantText("more")
	c.Close(1000)
	// Output:
}
