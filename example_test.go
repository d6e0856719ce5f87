package websocket_test

import (
	"context"
	"encoding/json"
	"errors"
	"expvar"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/rawws/websocket"
	"github.com/rawws/websocket/websockettest"
)

// The server that the other examples vary.
func Example() {
	err := websocket.ListenAndServe("127.0.0.1:8080", websocket.Events{
		OnMessage: func(c *websocket.Conn, t websocket.MessageType, data []byte) {
			c.WriteMessage(t, data)
		},
	})
	log.Fatal(err)
}

// The browser's events, from the server's side.
func ExampleEvents() {
	ended := make(chan struct{})
	s := &websocket.Server{Handler: websocket.Events{
		OnOpen: func(c *websocket.Conn, r *http.Request) {
			c.Data = r.URL.Path // what the application wants to know later
			fmt.Println("open", r.URL.Path)
		},
		OnMessage: func(c *websocket.Conn, t websocket.MessageType, data []byte) {
			fmt.Printf("%v %q to %v\n", t, data, c.Data)
			c.WriteMessage(t, data)
		},
		OnClose: func(c *websocket.Conn, err error) {
			fmt.Println(err)
			close(ended)
		},
	}}
	defer s.Close()
	ln := websockettest.Serve(nil, s)

	c := websockettest.Dial(nil, ln, "/chat")
	c.SendText("Hello")
	c.WantText("Hello")
	c.Close(1000)
	<-ended
	// Output:
	// open /chat
	// text "Hello" to /chat
	// websocket: peer closed with 1000
}

// A read loop in a goroutine of the connection's own. When the function returns
// the connection is closed with 1000.
func ExampleHandlerFunc() {
	s := &websocket.Server{Handler: websocket.HandlerFunc(func(c *websocket.Conn, r *http.Request) {
		for {
			t, data, err := c.ReadMessage()
			if err != nil || string(data) == "bye" {
				return
			}
			c.WriteMessage(t, data)
		}
	})}
	defer s.Close()
	ln := websockettest.Serve(nil, s)

	c := websockettest.Dial(nil, ln, "/")
	c.SendText("Hello")
	c.WantText("Hello")
	c.SendText("bye")
	c.WantClose(1000)
	// Output:
}

func ExampleConn_Messages() {
	s := &websocket.Server{Handler: websocket.HandlerFunc(func(c *websocket.Conn, r *http.Request) {
		for m, err := range c.Messages() {
			if err != nil {
				return // the connection has ended
			}
			c.WriteMessage(m.Type, []byte(strings.ToUpper(string(m.Data))))
		}
	})}
	defer s.Close()
	ln := websockettest.Serve(nil, s)

	c := websockettest.Dial(nil, ln, "/")
	c.SendText("Hello")
	c.WantText("HELLO")
	c.Close(1000)
	// Output:
}

// One buffer for all messages: nothing is allocated for each.
func ExampleConn_AppendMessage() {
	s := &websocket.Server{Handler: websocket.HandlerFunc(func(c *websocket.Conn, r *http.Request) {
		var buf []byte
		for {
			t, data, err := c.AppendMessage(buf[:0])
			if err != nil {
				return
			}
			c.WriteMessage(t, data)
			buf = data // it may have grown
		}
	})}
	defer s.Close()
	ln := websockettest.Serve(nil, s)

	c := websockettest.Dial(nil, ln, "/")
	c.SendText("Hello")
	c.WantText("Hello")
	c.Close(1000)
	// Output:
}

// A message is decoded while it comes, and another encoded while it goes.
func ExampleConn_NextReader() {
	s := &websocket.Server{Handler: websocket.HandlerFunc(func(c *websocket.Conn, r *http.Request) {
		for {
			_, in, err := c.NextReader()
			if err != nil {
				return
			}
			var order struct{ Item string }
			if err := json.NewDecoder(in).Decode(&order); err != nil {
				c.Close(websocket.CloseUnsupportedData, "JSON is spoken here")
				return
			}
			out, err := c.NextWriter(websocket.TextMessage)
			if err != nil {
				return
			}
			fmt.Fprintf(out, "one %s", order.Item)
			out.Close() // sends the last frame
		}
	})}
	defer s.Close()
	ln := websockettest.Serve(nil, s)

	c := websockettest.Dial(nil, ln, "/")
	c.SendText(`{"item": "tea"}`)
	c.WantText("one tea")
	c.SendText("tea, please")
	fmt.Println(c.WantClose(1003))
	// Output: JSON is spoken here
}

// A client that says nothing for a while is told so, and may go on.
func ExampleConn_SetReadDeadline() {
	s := &websocket.Server{Handler: websocket.HandlerFunc(func(c *websocket.Conn, r *http.Request) {
		for {
			c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			t, data, err := c.ReadMessage()
			if errors.Is(err, os.ErrDeadlineExceeded) {
				c.SetReadDeadline(time.Time{})
				c.WriteMessage(websocket.TextMessage, []byte("are you there?"))
				t, data, err = c.ReadMessage()
			}
			if err != nil {
				return
			}
			c.WriteMessage(t, data)
		}
	})}
	defer s.Close()
	ln := websockettest.Serve(nil, s)

	c := websockettest.Dial(nil, ln, "/")
	c.WantText("are you there?")
	c.SendText("yes")
	c.WantText("yes")
	c.Close(1000)
	// Output:
}

// Work for a connection ends with it.
func ExampleConn_Context() {
	stopped := make(chan error)
	s := &websocket.Server{Handler: websocket.Events{
		OnOpen: func(c *websocket.Conn, r *http.Request) {
			go func() {
				ctx := c.Context()
				<-ctx.Done() // or a query that takes ctx
				stopped <- context.Cause(ctx)
			}()
		},
	}}
	defer s.Close()
	ln := websockettest.Serve(nil, s)

	websockettest.Dial(nil, ln, "/").Close(1001)
	fmt.Println(<-stopped)
	// Output: websocket: peer closed with 1001
}

// What an error of the end tells.
func ExampleEndError() {
	ended := make(chan error)
	s := &websocket.Server{Handler: websocket.Events{
		OnClose: func(c *websocket.Conn, err error) { ended <- err },
	}}
	defer s.Close()
	ln := websockettest.Serve(nil, s)

	explain := func(err error) {
		var end *websocket.EndError
		var peer *websocket.CloseError
		var broken *websocket.ProtocolError
		errors.As(err, &end)
		switch {
		case errors.As(err, &peer):
			fmt.Printf("the %v closed with %d, clean: %t\n", end.By, peer.Code, end.Clean)
		case errors.As(err, &broken):
			fmt.Printf("the %v broke %s and was told %d\n", end.By, broken.Section, end.Sent)
		case errors.Is(err, io.ErrUnexpectedEOF):
			fmt.Printf("the %v went away without a word\n", end.By)
		}
	}
	c := websockettest.Dial(nil, ln, "/")
	c.Close(1000)
	explain(<-ended)

	c = websockettest.Dial(nil, ln, "/")
	c.SendFrame(websockettest.Frame{Opcode: websockettest.Text, Payload: []byte("hi"), Unmasked: true})
	c.WantClose(1002)
	explain(<-ended)

	c = websockettest.Dial(nil, ln, "/")
	c.Cut()
	explain(<-ended)
	// Output:
	// the peer closed with 1000, clean: true
	// the peer broke RFC 6455, section 5.1 and was told 1002
	// the peer went away without a word
}

// Pages and sockets on one port.
func ExampleServer() {
	s := &websocket.Server{
		Addr: "127.0.0.1:8080",
		HTTP: http.FileServer(http.Dir("site")),
		Handler: websocket.Events{
			OnMessage: func(c *websocket.Conn, t websocket.MessageType, data []byte) {
				c.WriteMessage(t, data)
			},
		},
		Upgrader: websocket.Upgrader{MaxMessageSize: 64 << 10},
		MaxConns: 10_000,
	}
	log.Fatal(s.ListenAndServe())
}

// A Server beside other handlers on a mux of net/http.
func ExampleServer_ServeHTTP() {
	socket := &websocket.Server{Handler: websocket.Events{
		OnMessage: func(c *websocket.Conn, t websocket.MessageType, data []byte) {
			c.WriteMessage(t, data)
		},
	}}
	mux := http.NewServeMux()
	mux.Handle("GET /socket", socket)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "a page") })
	web := httptest.NewServer(mux)
	// net/http's Shutdown doesn't know of the sockets: it has to be told.
	web.Config.RegisterOnShutdown(func() { socket.Shutdown(context.Background()) })
	defer web.Close()
	defer socket.Close()

	c := websockettest.Dial(nil, web.Listener, "/socket")
	c.SendText("Hello")
	c.WantText("Hello")
	c.Close(1000)
	// Output:
}

// Ctrl-C closes every connection with 1001 and waits for the answers.
func ExampleServer_Shutdown() {
	s := &websocket.Server{
		Addr:           "127.0.0.1:8080",
		Handler:        websocket.Events{},
		ShutdownSpread: 5 * time.Second,
	}
	go func() {
		interrupt := make(chan os.Signal, 1)
		signal.Notify(interrupt, os.Interrupt)
		<-interrupt
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			log.Print(err)
		}
		os.Exit(0)
	}()
	if err := s.ListenAndServe(); err != websocket.ErrServerClosed {
		log.Fatal(err)
	}
	select {} // Serve returns as soon as Shutdown begins
}

func ExampleServer_Stats() {
	opened := make(chan bool)
	s := &websocket.Server{Handler: websocket.Events{
		OnOpen: func(c *websocket.Conn, r *http.Request) { opened <- true },
	}}
	defer s.Close()
	ln := websockettest.Serve(nil, s)
	c := websockettest.Dial(nil, ln, "/")
	<-opened
	fmt.Println(s.Stats().Open, "open,", s.Stats().Accepted, "accepted")
	c.Close(1000)
	// Output: 1 open, 1 accepted
}

// The counters as JSON, at /debug/vars of http.DefaultServeMux.
func ExampleServer_Expvar() {
	s := &websocket.Server{Handler: websocket.Events{}}
	expvar.Publish("websocket", s.Expvar())
	var counters struct{ Accepted int }
	fmt.Println(json.Unmarshal([]byte(expvar.Get("websocket").String()), &counters), counters.Accepted)
	// Output: <nil> 0
}

// The counters for Prometheus, on a port that only the monitoring can reach.
func ExampleServer_MetricsHandler() {
	s := &websocket.Server{Handler: websocket.Events{}}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.MetricsHandler())
	web := httptest.NewServer(mux) // http.ListenAndServe("10.0.0.1:9090", mux)
	defer web.Close()

	resp, err := web.Client().Get(web.URL + "/metrics")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	fmt.Print(string(text[:strings.Index(string(text), "# HELP websocket_handshak")]))
	// Output:
	// # HELP websocket_connections Open connections.
	// # TYPE websocket_connections gauge
	// websocket_connections 0
}

func ExampleServer_Conns() {
	opened := make(chan bool)
	s := &websocket.Server{Handler: websocket.Events{
		OnOpen: func(c *websocket.Conn, r *http.Request) { opened <- true },
	}}
	defer s.Close()
	ln := websockettest.Serve(nil, s)
	c := websockettest.Dial(nil, ln, "/")
	<-opened
	for conn := range s.Conns() {
		conn.Close(4000, "everybody out")
	}
	fmt.Println(c.WantClose(4000))
	// Output: everybody out
}

// The place to authenticate, before there is a connection.
func ExampleUpgrader_authentication() {
	s := &websocket.Server{
		Handler: websocket.Events{},
		Upgrader: websocket.Upgrader{
			OnUpgrade: func(r *http.Request, a *websocket.Accept) error {
				if cookie, err := r.Cookie("session"); err != nil || cookie.Value != "secret" {
					return &websocket.HandshakeError{Status: http.StatusUnauthorized, Reason: "no session"}
				}
				a.Header.Set("Server", "example")
				return nil
			},
		},
	}
	defer s.Close()
	ln := websockettest.Serve(nil, s)

	resp := websockettest.WantRefusal(nil, ln, http.StatusUnauthorized, "/")
	why, _ := io.ReadAll(resp.Body)
	fmt.Printf("%s: %s", resp.Status, why)
	c := websockettest.Dial(nil, ln, "/", "Cookie: session=secret")
	fmt.Println(c.Response.Status, "by", c.Response.Header.Get("Server"))
	c.Close(1000)
	// Output:
	// 401 Unauthorized: no session
	// 101 Switching Protocols by example
}

func ExampleUpgrader_subprotocols() {
	s := &websocket.Server{
		Handler: websocket.Events{
			OnOpen: func(c *websocket.Conn, r *http.Request) {
				c.WriteMessage(websocket.TextMessage, []byte("we speak "+c.Subprotocol()))
			},
		},
		Upgrader: websocket.Upgrader{Subprotocols: []string{"v2.example", "v1.example"}},
	}
	defer s.Close()
	ln := websockettest.Serve(nil, s)

	c := websockettest.Dial(nil, ln, "/", "Sec-WebSocket-Protocol: v1.example, v2.example")
	c.WantText("we speak v2.example")
	c.Close(1000)
	// Output:
}

// An upgrade on any net.Conn, here a pipe in memory.
func ExampleUpgrade() {
	theirs, ours := websockettest.Pipe()
	go func() {
		c, r, err := websocket.Upgrade(ours)
		if err != nil {
			log.Print(err)
			return
		}
		fmt.Println(r.Method, r.URL)
		t, data, _ := c.ReadMessage()
		c.WriteMessage(t, data)
		c.Close(websocket.CloseNormal, "")
	}()

	c := websockettest.NewClient(nil, theirs)
	c.Handshake("/pipe")
	c.SendText("Hello")
	c.WantText("Hello")
	c.WantClose(1000)
	// Output: GET /pipe
}

// An upgrade in the middle of an http.Handler that does other things too.
func ExampleUpgrader_UpgradeHTTP() {
	var u websocket.Upgrader
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := u.UpgradeHTTP(w, r)
		if err != nil {
			return // it was answered
		}
		defer c.Close(websocket.CloseNormal, "")
		t, data, err := c.ReadMessage()
		if err == nil {
			c.WriteMessage(t, data)
		}
	}))
	defer web.Close()

	c := websockettest.Dial(nil, web.Listener, "/")
	c.SendText("Hello")
	c.WantText("Hello")
	c.Close(1000)
	// Output:
}

// A room: what one says, all hear.
func ExampleGroup() {
	var room websocket.Group
	s := &websocket.Server{Handler: websocket.Events{
		OnOpen: func(c *websocket.Conn, r *http.Request) {
			room.Join(c) // a connection that ends leaves by itself
			c.WriteMessage(websocket.TextMessage, []byte("welcome"))
		},
		OnMessage: func(c *websocket.Conn, t websocket.MessageType, data []byte) {
			n := room.Broadcast(websocket.NewPreparedMessage(t, data))
			fmt.Println("for", n)
		},
	}}
	defer s.Close()
	ln := websockettest.Serve(nil, s)

	a, b := websockettest.Dial(nil, ln, "/"), websockettest.Dial(nil, ln, "/")
	a.WantText("welcome")
	b.WantText("welcome")
	a.SendText("Hello")
	a.WantText("Hello")
	b.WantText("Hello")
	a.Close(1000)
	b.Close(1000)
	// Output: for 2
}

// A message that is made once and sent to some.
func ExampleConn_Send() {
	opened := make(chan bool)
	s := &websocket.Server{Handler: websocket.Events{
		OnOpen: func(c *websocket.Conn, r *http.Request) { opened <- true },
	}}
	defer s.Close()
	ln := websockettest.Serve(nil, s)
	c := websockettest.Dial(nil, ln, "/")
	<-opened

	m := websocket.NewPreparedMessage(websocket.TextMessage, []byte("news"))
	for conn := range s.Conns() {
		if err := conn.Send(m); err != nil { // never waits
			fmt.Println(err)
		}
	}
	c.WantText("news")
	c.Close(1000)
	// Output:
}

// Permessage-deflate for the clients that offer it.
func ExampleCompression() {
	s := &websocket.Server{
		Handler:  websocket.Events{},
		Upgrader: websocket.Upgrader{Compression: &websocket.Compression{}},
	}
	defer s.Close()
	ln := websockettest.Serve(nil, s)
	c := websockettest.Dial(nil, ln, "/", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits")
	fmt.Println(c.Response.Header.Get("Sec-WebSocket-Extensions"))
	c.Close(1000)
	// Output: permessage-deflate
}

// The client behind a proxy that writes X-Forwarded-For.
func ExampleForwardedIP() {
	clientIP := websocket.ForwardedIP("X-Forwarded-For", netip.MustParsePrefix("10.0.0.0/8"))
	fmt.Println(clientIP(&http.Request{
		RemoteAddr: "10.0.0.7:41000",
		Header:     http.Header{"X-Forwarded-For": {"1.2.3.4, 203.0.113.9"}}, // the proxy wrote the last
	}))
	s := &websocket.Server{Handler: websocket.Events{}, MaxConnsPerIP: 20, ClientIP: clientIP}
	_ = s
	// Output: 203.0.113.9
}

// Documents in, documents out; a wrong one is answered, not punished.
func ExampleConn_ReadJSON() {
	s := &websocket.Server{Handler: websocket.HandlerFunc(func(c *websocket.Conn, r *http.Request) {
		for {
			var order struct{ Item string }
			err := c.ReadJSON(&order)
			if errors.Is(err, websocket.ErrJSON) {
				c.WriteJSON(map[string]string{"error": err.Error()})
				continue
			}
			if err != nil {
				return // the connection has ended
			}
			c.WriteJSON(map[string]string{"bring": order.Item})
		}
	})}
	defer s.Close()

	c := websockettest.Dial(nil, websockettest.Serve(nil, s), "/")
	for _, text := range []string{`{"item": "tea"}`, `{"item": 1}`} {
		c.SendText(text)
		_, answer := c.Read()
		fmt.Println(string(answer))
	}
	c.Close(1000)
	// Output:
	// {"bring":"tea"}
	// {"error":"websocket: JSON: json: cannot unmarshal number into Go struct field .Item of type string"}
}

func ExampleConn_WriteJSON() {
	s := &websocket.Server{Handler: websocket.Events{OnOpen: func(c *websocket.Conn, r *http.Request) {
		c.WriteJSON(struct {
			Path string `json:"path"`
		}{r.URL.Path})
	}}}
	defer s.Close()

	c := websockettest.Dial(nil, websockettest.Serve(nil, s), "/room")
	c.WantText(`{"path":"/room"}`)
	c.Close(1000)
	// Output:
}

// A tunnel to a TCP service, as for a database's or a terminal's protocol.
func ExampleStream() {
	service, err := net.Listen("tcp", "127.0.0.1:0") // here one that echoes
	if err != nil {
		log.Fatal(err)
	}
	defer service.Close()
	go func() {
		nc, err := service.Accept()
		if err == nil {
			io.Copy(nc, nc)
			nc.Close()
		}
	}()

	s := &websocket.Server{Handler: websocket.HandlerFunc(func(c *websocket.Conn, r *http.Request) {
		up, err := net.Dial("tcp", service.Addr().String())
		if err != nil {
			c.Close(websocket.CloseBadGateway, "")
			return
		}
		defer up.Close()
		down := websocket.Stream(c, websocket.BinaryMessage)
		go func() {
			io.Copy(down, up)
			down.Close()
		}()
		io.Copy(up, down)
	})}
	defer s.Close()

	c := websockettest.Dial(nil, websockettest.Serve(nil, s), "/")
	c.SendBinary([]byte("any bytes"))
	c.WantBinary([]byte("any bytes"))
	c.Close(1000)
	// Output:
}

// What an ended connection is worth a line for.
func ExampleCloseStatus() {
	ended := make(chan struct{})
	s := &websocket.Server{Handler: websocket.Events{OnClose: func(c *websocket.Conn, err error) {
		switch code := websocket.CloseStatus(err); code {
		case websocket.CloseNormal, websocket.CloseGoingAway, websocket.CloseNoStatus:
		default:
			fmt.Println("ended with", code)
		}
		ended <- struct{}{}
	}}}
	defer s.Close()
	ln := websockettest.Serve(nil, s)

	websockettest.Dial(nil, ln, "/").Close(1000)
	<-ended
	websockettest.Dial(nil, ln, "/").Cut()
	<-ended
	// Output: ended with 1006
}

// Little until the client has said who it is, and more from then on.
func ExampleConn_SetMaxMessageSize() {
	s := &websocket.Server{
		Upgrader: websocket.Upgrader{MaxMessageSize: 64},
		Handler: websocket.Events{OnMessage: func(c *websocket.Conn, t websocket.MessageType, data []byte) {
			if c.Data == nil {
				c.Data = string(data) // a real one checks a token
				c.SetMaxMessageSize(1 << 20)
			}
			c.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, "%v sent %d bytes", c.Data, len(data)))
		}},
	}
	defer s.Close()
	ln := websockettest.Serve(nil, s)

	c := websockettest.Dial(nil, ln, "/")
	c.SendText("jane")
	c.WantText("jane sent 4 bytes")
	c.SendBinary(make([]byte, 10_000))
	c.WantText("jane sent 10000 bytes")
	c.Close(1000)

	c = websockettest.Dial(nil, ln, "/")
	c.SendBinary(make([]byte, 10_000))
	fmt.Println(c.WantClose(1009))
	// Output: message over the limit of 64 bytes
}
