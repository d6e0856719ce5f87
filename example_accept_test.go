package websocket_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"

	"github.com/rawws/websocket"
	"github.com/rawws/websocket/websockettest"
)

// users are known by a token that they got when they logged in.
var users = map[string]string{"secret": "jane"}

// greet tells a client whom it was taken for.
var greet = websocket.Events{OnOpen: func(c *websocket.Conn, r *http.Request) {
	c.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, "hello, %v", c.Data))
}}

// A browser sends the cookies of the server's own site by itself. What
// OnUpgrade finds out is the connection's Data.
func ExampleAccept_cookie() {
	s := &websocket.Server{Handler: greet, Upgrader: websocket.Upgrader{
		OnUpgrade: func(r *http.Request, a *websocket.Accept) error {
			cookie, err := r.Cookie("session")
			if err != nil || users[cookie.Value] == "" {
				return &websocket.HandshakeError{Status: http.StatusUnauthorized, Reason: "log in first"}
			}
			a.Data = users[cookie.Value]
			return nil
		},
	}}
	defer s.Close()
	ln := websockettest.Serve(nil, s)

	c := websockettest.Dial(nil, ln, "/", "Cookie: session=secret")
	c.WantText("hello, jane")
	c.Close(1000)
	websockettest.WantRefusal(nil, ln, http.StatusUnauthorized, "/")
	// Output:
}

// A page can't set a header of its WebSocket's request. Where there is no
// cookie, the token is often in the query: as new WebSocket(url + "?token=...").
// Queries are in the logs of proxies, so such a token is for one use and soon over.
func ExampleAccept_query() {
	s := &websocket.Server{Handler: greet, Upgrader: websocket.Upgrader{
		OnUpgrade: func(r *http.Request, a *websocket.Accept) error {
			name, ok := users[r.URL.Query().Get("token")]
			if !ok {
				return errors.New("no such token") // 403, and the text isn't sent
			}
			a.Data = name
			return nil
		},
	}}
	defer s.Close()
	ln := websockettest.Serve(nil, s)

	c := websockettest.Dial(nil, ln, "/?token=secret")
	c.WantText("hello, jane")
	c.Close(1000)
	websockettest.WantRefusal(nil, ln, http.StatusForbidden, "/?token=guessed")
	// Output:
}

// The one header that a page can choose is the list of subprotocols: new
// WebSocket(url, ["v1.example", "token.secret"]). Only one that is offered may
// be agreed on, and it shouldn't be the token.
func ExampleAccept_subprotocol() {
	s := &websocket.Server{Handler: greet, Upgrader: websocket.Upgrader{
		Subprotocols: []string{"v1.example"},
		OnUpgrade: func(r *http.Request, a *websocket.Accept) error {
			if a.Subprotocol == "" {
				return &websocket.HandshakeError{Status: http.StatusBadRequest, Reason: "v1.example is spoken here"}
			}
			for _, p := range websocket.Subprotocols(r) {
				if token, ok := strings.CutPrefix(p, "token."); ok && users[token] != "" {
					a.Data = users[token]
					return nil
				}
			}
			return &websocket.HandshakeError{Status: http.StatusUnauthorized, Reason: "no token"}
		},
	}}
	defer s.Close()
	ln := websockettest.Serve(nil, s)

	c := websockettest.Dial(nil, ln, "/", "Sec-WebSocket-Protocol: v1.example, token.secret")
	fmt.Println(c.Response.Header.Get("Sec-WebSocket-Protocol"))
	c.WantText("hello, jane")
	c.Close(1000)
	websockettest.WantRefusal(nil, ln, http.StatusBadRequest, "/", "Sec-WebSocket-Protocol: token.secret")
	websockettest.WantRefusal(nil, ln, http.StatusUnauthorized, "/", "Sec-WebSocket-Protocol: v1.example")
	// Output: v1.example
}

// A refusal in the form of the rest of an API.
func ExampleHandshakeError() {
	s := &websocket.Server{Handler: greet, Upgrader: websocket.Upgrader{
		OnUpgrade: func(r *http.Request, a *websocket.Accept) error {
			a.Header.Set("Content-Type", "application/json")
			a.Header.Set("WWW-Authenticate", "Bearer")
			return &websocket.HandshakeError{Status: http.StatusUnauthorized, Reason: `{"error": "no token"}`}
		},
	}}
	defer s.Close()

	resp := websockettest.WantRefusal(nil, websockettest.Serve(nil, s), http.StatusUnauthorized, "/")
	body, _ := io.ReadAll(resp.Body)
	fmt.Println(resp.Header.Get("Content-Type"), string(body))
	// Output: application/json {"error": "no token"}
}

func ExampleSubprotocols() {
	r := &http.Request{Header: http.Header{"Sec-Websocket-Protocol": {"v2.example, v1.example"}}}
	fmt.Println(websocket.Subprotocols(r))
	// Output: [v2.example v1.example]
}

// Two services on one port, each with its own limit. A path without one is
// refused with 404.
func ExampleAccept_paths() {
	echo := &websocket.Events{
		OnMessage: func(c *websocket.Conn, t websocket.MessageType, data []byte) { c.WriteMessage(t, data) },
	}
	upload := websocket.HandlerFunc(func(c *websocket.Conn, r *http.Request) {
		if _, data, err := c.ReadMessage(); err == nil {
			c.WriteJSON(len(data))
		}
	})
	s := &websocket.Server{Upgrader: websocket.Upgrader{
		OnUpgrade: func(r *http.Request, a *websocket.Accept) error {
			switch r.URL.Path {
			case "/echo":
				a.Handler, a.MaxMessageSize = echo, 1<<10
			case "/upload":
				a.Handler, a.MaxMessageSize = upload, 16<<20
			}
			return nil
		},
	}}
	defer s.Close()
	ln := websockettest.Serve(nil, s)

	c := websockettest.Dial(nil, ln, "/upload")
	c.SendBinary(make([]byte, 2<<20))
	c.WantJSON(2 << 20)
	c.WantClose(1000)

	c = websockettest.Dial(nil, ln, "/echo")
	c.SendText("Hello")
	c.WantText("Hello")
	c.SendBinary(make([]byte, 2<<10))
	fmt.Println(c.WantClose(1009))

	websockettest.WantRefusal(nil, ln, http.StatusNotFound, "/")
	// Output: message over the limit of 1024 bytes
}

// The routes of a http.ServeMux, with their methods and wildcards, and one
// Server behind them: what the mux found out is in the request.
func ExampleAccept_mux() {
	rooms := &websocket.Server{
		Upgrader: websocket.Upgrader{OnUpgrade: func(r *http.Request, a *websocket.Accept) error {
			a.Data = r.PathValue("room")
			return nil
		}},
		Handler: greet,
	}
	mux := http.NewServeMux()
	mux.Handle("GET /rooms/{room}", rooms)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "a page") })
	web := &http.Server{Handler: mux}
	defer web.Close()
	defer rooms.Close() // net/http's Close doesn't know of the connections
	ln := websockettest.Serve(nil, web)

	c := websockettest.Dial(nil, ln, "/rooms/blue")
	c.WantText("hello, blue")
	c.Close(1000)
	// Output:
}

// The request has the context of its connection, too.
func ExampleConn_Context_request() {
	stopped := make(chan error)
	s := &websocket.Server{
		Handler: websocket.Events{OnOpen: func(c *websocket.Conn, r *http.Request) {
			go func() {
				ctx := r.Context() // or a query that takes it
				<-ctx.Done()
				stopped <- context.Cause(ctx)
			}()
		}},
	}
	defer s.Close()

	websockettest.Dial(nil, websockettest.Serve(nil, s), "/").Close(1000)
	fmt.Println(<-stopped)
	// Output: websocket: peer closed with 1000
}

// A page isn't told why its WebSocket was refused, so the server says it.
func ExampleUpgrader_OnRefuse() {
	refused := make(chan string)
	s := &websocket.Server{Handler: greet, Upgrader: websocket.Upgrader{
		OnRefuse: func(r *http.Request, status int, err error) {
			refused <- fmt.Sprint(r.Method, " ", r.URL, " from ", r.Header.Get("Origin"), ": ", status)
		},
	}}
	defer s.Close()

	go websockettest.WantRefusal(nil, websockettest.Serve(nil, s), http.StatusForbidden, "/", "Origin: https://evil.example")
	fmt.Println(<-refused)
	// Output: GET / from https://evil.example: 403
}

// Behind HAProxy with "mode tcp" and "send-proxy-v2".
func ExampleServer_proxyProtocol() {
	s := &websocket.Server{
		ProxyProtocol: []netip.Prefix{netip.MustParsePrefix("10.0.0.7/32")},
		Handler: websocket.Events{OnOpen: func(c *websocket.Conn, r *http.Request) {
			c.WriteMessage(websocket.TextMessage, []byte(c.RemoteAddr().String()))
		}},
	}
	defer s.Close()
	ln := websockettest.Serve(nil, s)

	nc, err := ln.DialFrom("10.0.0.7:41000")
	if err != nil {
		panic(err)
	}
	c := websockettest.NewClient(nil, nc)
	c.SendRaw([]byte("PROXY TCP4 203.0.113.9 10.0.0.9 4711 80\r\n"))
	c.Handshake("/")
	c.WantText("203.0.113.9:4711")
	c.Close(1000)
	// Output:
}
