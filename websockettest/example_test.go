package websockettest_test

import (
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/rawws/websocket"
	"github.com/rawws/websocket/websockettest"
)

var echo = websocket.Events{
	OnMessage: func(c *websocket.Conn, t websocket.MessageType, data []byte) { c.WriteMessage(t, data) },
}

// In a test the first argument is its t, and nothing has to be closed.
func Example() {
	s := &websocket.Server{Handler: echo}
	defer s.Close()
	ln := websockettest.Serve(nil, s)

	c := websockettest.Dial(nil, ln, "/echo")
	c.SendText("hello")
	c.WantText("hello")
	c.SendJSON(map[string]int{"n": 1})
	c.WantJSON(map[string]int{"n": 1})
	c.SendPing("are you there?")
	c.WantPong("are you there?")
	c.Close(1000)
	// Output:
}

// A frame without a mask is against the rules: the server says so.
func ExampleFrame() {
	s := &websocket.Server{Handler: echo}
	defer s.Close()
	ln := websockettest.Serve(nil, s)

	c := websockettest.Dial(nil, ln, "/")
	c.SendFrame(websockettest.Frame{Opcode: websockettest.Text, Payload: []byte("hello"), Unmasked: true})
	fmt.Println(c.WantClose(1002))

	c = websockettest.Dial(nil, ln, "/")
	whole := websockettest.Frame{Opcode: websockettest.Binary, Payload: make([]byte, 100)}.Append(nil)
	c.SendSlowly(whole[:10], 1, time.Millisecond) // and then nothing more
	c.Cut()
	// Output: text frame without a mask
}

func ExampleWantRefusal() {
	s := &websocket.Server{Handler: echo}
	defer s.Close()
	ln := websockettest.Serve(nil, s)

	resp := websockettest.WantRefusal(nil, ln, http.StatusForbidden, "/", "Origin: https://evil.example")
	why, _ := io.ReadAll(resp.Body)
	fmt.Println(resp.Header.Get("Content-Type"), len(why) > 0)
	// Output: text/plain; charset=utf-8 true
}

// Any bytes for a request.
func ExampleNewClient() {
	s := &websocket.Server{Handler: echo}
	defer s.Close()
	ln := websockettest.Serve(nil, s)

	nc, _ := ln.Dial()
	c := websockettest.NewClient(nil, nc)
	c.SendRaw([]byte("GET /  HTTP/1.1\r\n\r\n"))
	fmt.Println(c.ReadResponse().Status)
	// Output: 400 Bad Request
}

// A browser's behaviour: pings are answered while the test does other things.
func ExampleClient_ReadInBackground() {
	s := &websocket.Server{Handler: echo, Upgrader: websocket.Upgrader{PingInterval: 5 * time.Millisecond}}
	defer s.Close()
	ln := websockettest.Serve(nil, s)

	c := websockettest.Dial(nil, ln, "/")
	c.ReadInBackground()
	c.SendText("still here")
	c.WantText("still here")
	c.Close(1000)
	// Output:
}

// A client of a certain address, for what depends on it.
func ExampleListener_DialFrom() {
	s := &websocket.Server{Handler: websocket.Events{OnOpen: func(c *websocket.Conn, r *http.Request) {
		c.WriteMessage(websocket.TextMessage, []byte(r.RemoteAddr))
	}}}
	defer s.Close()
	ln := websockettest.Serve(nil, s)

	nc, err := ln.DialFrom("203.0.113.9:1234")
	if err != nil {
		panic(err)
	}
	c := websockettest.NewClient(nil, nc)
	c.Handshake("/")
	c.WantText("203.0.113.9:1234")
	c.Close(1000)
	// Output:
}

// Both ends of one connection, without a Server.
func ExamplePipe() {
	client, server := websockettest.Pipe()
	go func() {
		c, _, err := websocket.Upgrade(server)
		if err != nil {
			return
		}
		c.WriteMessage(websocket.TextMessage, []byte("hello"))
		c.Close(websocket.CloseNormal, "")
	}()

	c := websockettest.NewClient(nil, client)
	c.Handshake("/")
	c.WantText("hello")
	c.WantClose(1000)
	// Output:
}

// A bomb: a thousand times as large as what it was sent in.
func ExampleDeflate() {
	s := &websocket.Server{Handler: echo, Upgrader: websocket.Upgrader{Compression: &websocket.Compression{}}}
	defer s.Close()
	ln := websockettest.Serve(nil, s)

	c := websockettest.Dial(nil, ln, "/", "Sec-WebSocket-Extensions: permessage-deflate")
	bomb := websockettest.Deflate(make([]byte, 2<<20))
	c.SendFrame(websockettest.Frame{Opcode: websockettest.Binary, RSV1: true, Payload: bomb})
	fmt.Println(c.WantClose(1009))
	// Output: compressed message inflates to more than 1048576 bytes
}

// What must not stand in a close frame.
func ExampleClosePayload() {
	s := &websocket.Server{Handler: echo}
	defer s.Close()

	c := websockettest.Dial(nil, websockettest.Serve(nil, s), "/")
	c.SendFrame(websockettest.Frame{Opcode: websockettest.Close, Payload: websockettest.ClosePayload(1006, "")})
	fmt.Println(c.WantClose(1002))
	// Output: close code 1006
}
