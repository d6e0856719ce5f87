package websocket_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/rawws/websocket"
	"github.com/rawws/websocket/websockettest"
)

// An answer that is due before the work is done.
func ExampleConn_Flush() {
	s := &websocket.Server{Handler: websocket.Events{
		OnMessage: func(c *websocket.Conn, t websocket.MessageType, data []byte) {
			c.WriteMessage(websocket.TextMessage, []byte("working"))
			c.Flush() // else it may wait for the answers to the messages behind this one
			time.Sleep(time.Millisecond)
			c.WriteMessage(t, data)
		},
	}}
	defer s.Close()

	c := websockettest.Dial(nil, websockettest.Serve(nil, s), "/")
	c.SendText("Hello")
	c.WantText("working")
	c.WantText("Hello")
	c.Close(1000)
	// Output:
}

// A client that breaks the rules of the application isn't worth a closing
// handshake.
func ExampleConn_CloseNow() {
	ended := make(chan error, 1)
	s := &websocket.Server{Handler: websocket.Events{
		OnMessage: func(c *websocket.Conn, t websocket.MessageType, data []byte) { c.CloseNow() },
		OnClose:   func(c *websocket.Conn, err error) { ended <- err },
	}}
	defer s.Close()

	c := websockettest.Dial(nil, websockettest.Serve(nil, s), "/")
	c.SendText("nonsense")
	err := <-ended
	fmt.Println(err, websocket.CloseStatus(err), errors.Is(err, net.ErrClosed))
	// Output: websocket: connection cut by the server 1006 true
}

// Options of the socket are set by an interface: who serves it decides its type.
func ExampleConn_NetConn() {
	s := &websocket.Server{Handler: websocket.Events{
		OnOpen: func(c *websocket.Conn, r *http.Request) {
			if socket, ok := c.NetConn().(interface{ SetReadBuffer(int) error }); ok {
				fmt.Println("a socket:", socket.SetReadBuffer(32<<10))
			}
			c.WriteMessage(websocket.TextMessage, []byte("welcome"))
		},
	}}
	defer s.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go s.Serve(ln)

	c := websockettest.Dial(nil, ln, "/")
	c.WantText("welcome")
	c.Close(1000)
	// Output: a socket: <nil>
}

// A ping that the application sends, and the round trip of the keep-alive's.
func ExampleConn_Ping() {
	s := &websocket.Server{Handler: websocket.Events{
		OnOpen: func(c *websocket.Conn, r *http.Request) {
			fmt.Println("round trip so far:", c.RTT())
			if err := c.Ping([]byte("are you there?")); err != nil {
				fmt.Println(err)
			}
		},
	}}
	defer s.Close()

	c := websockettest.Dial(nil, websockettest.Serve(nil, s), "/")
	f, err := c.ReadFrame()
	fmt.Printf("%v %q %v\n", f.Opcode, f.Payload, err)
	c.Close(1000)
	// Output:
	// round trip so far: 0s
	// ping "are you there?" <nil>
}

// A message that is of no use later. One that can't begin in time sends nothing,
// and the connection goes on.
func ExampleConn_SetWriteDeadline() {
	s := &websocket.Server{Handler: websocket.Events{
		OnMessage: func(c *websocket.Conn, t websocket.MessageType, data []byte) {
			c.SetWriteDeadline(time.Now().Add(-time.Second))
			err := c.WriteMessage(t, data)
			fmt.Println("too late:", errors.Is(err, os.ErrDeadlineExceeded))
			c.SetWriteDeadline(time.Time{})
			c.WriteMessage(t, data)
		},
	}}
	defer s.Close()

	c := websockettest.Dial(nil, websockettest.Serve(nil, s), "/")
	c.SendText("Hello")
	c.WantText("Hello")
	c.Close(1000)
	// Output: too late: true
}

// A greeting that is framed once, and written before the connection's own
// messages.
func ExampleConn_WritePrepared() {
	greeting := websocket.NewPreparedMessage(websocket.TextMessage, []byte("welcome"))
	s := &websocket.Server{Handler: websocket.Events{
		OnOpen: func(c *websocket.Conn, r *http.Request) {
			c.WritePrepared(greeting)
			c.WriteMessage(websocket.TextMessage, []byte(r.URL.Path))
		},
	}}
	defer s.Close()

	c := websockettest.Dial(nil, websockettest.Serve(nil, s), "/chat")
	c.WantText("welcome")
	c.WantText("/chat")
	c.Close(1000)
	// Output:
}

// Members join and leave by what they say; one whose connection ends leaves by
// itself.
func ExampleGroup_Leave() {
	var room websocket.Group
	s := &websocket.Server{Handler: websocket.Events{
		OnMessage: func(c *websocket.Conn, t websocket.MessageType, data []byte) {
			var did bool
			switch string(data) {
			case "join":
				did = room.Join(c)
			case "leave":
				did = room.Leave(c)
			}
			c.WriteMessage(websocket.TextMessage, fmt.Append(nil, did, " ", room.Len()))
		},
	}}
	defer s.Close()

	c := websockettest.Dial(nil, websockettest.Serve(nil, s), "/")
	for _, say := range []struct{ request, answer string }{{"join", "true 1"}, {"leave", "true 0"}, {"leave", "false 0"}} {
		c.SendText(say.request)
		c.WantText(say.answer)
	}
	c.Close(1000)
	// Output:
}

// TLS with a certificate that may be renewed while the server runs. A goroutine
// stores a new one, from tls.LoadX509KeyPair, when a timer or a signal says so.
func ExampleServer_ListenAndServeTLS() {
	cert, err := tls.LoadX509KeyPair("cert.pem", "key.pem")
	if err != nil {
		log.Fatal(err)
	}
	var current atomic.Pointer[tls.Certificate]
	current.Store(&cert)
	s := &websocket.Server{
		Addr:    ":8443",
		Handler: websocket.Events{},
		TLSConfig: &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return current.Load(), nil
		}},
	}
	log.Fatal(s.ListenAndServeTLS("", ""))
}
