package jwebsocket

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/rawws/websocket"
	"github.com/rawws/websocket/websockettest"
)

func start(t *testing.T) (addr string, s *Server) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s = &Server{
		Login: func(username, password string) bool { return password == "secret" },
		Plugins: map[string]func(*Client, Token) (Token, error){
			"org.example.sum": func(c *Client, t Token) (Token, error) {
				a, err1 := t["a"].(json.Number).Int64()
				b, err2 := t["b"].(json.Number).Int64()
				return Token{"sum": a + b, "by": c.Username}, errors.Join(err1, err2)
			},
			"org.example.wrong": func(c *Client, t Token) (Token, error) { return Token{"f": func() {}}, nil },
		},
	}
	ws := &websocket.Server{Handler: s.Events(), Upgrader: websocket.Upgrader{OnUpgrade: s.OnUpgrade}}
	go ws.Serve(ln)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := ws.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
	return ln.Addr().String(), s
}

// A client is jWebSocket.js 1.0, restated: what it does by itself when it
// opens, and how it finds the answer to a request.
type client struct {
	*testing.T
	*websockettest.Client
	id   string // getId()
	utid int
}

func dial(t *testing.T, addr string) *client {
	t.Helper()
	c := &client{T: t, Client: websockettest.DialAddr(t, addr, Path, "Sec-WebSocket-Protocol: "+Subprotocol)}
	if got := c.Response.Header.Get("Sec-Websocket-Protocol"); got != Subprotocol {
		t.Errorf("subprotocol %q; want %q", got, Subprotocol)
	}
	if first := c.read(); !strings.HasPrefix(first, "maxframesize") || strings.TrimLeft(first[12:], "0123456789") != "" {
		t.Fatalf("the first message is %q; want maxframesize and a number", first)
	}
	c.token(Token{"ns": System, "type": "header", "clientType": "browser", "jwsType": "javascript", "jwsVersion": "1.0 RC1",
		"encodingFormats": []string{"base64", "zipBase64"}})
	welcome := c.next()
	c.id = welcome.string("sourceId")
	if welcome["type"] != "welcome" || welcome["ns"] != System || c.id == "" || welcome.string("usid") == "" {
		t.Fatalf("after the header: %v; want the welcome", welcome)
	}
	c.request(Token{"ns": System, "type": "ping", "echo": true}, Token{"code": 0.0}) // the others have heard of it
	return c
}

func (c *client) read() string {
	_, p := c.Read()
	return string(p)
}

// token is sendToken: every token gets the next utid.
func (c *client) token(t Token) {
	c.Helper()
	c.utid++
	t["utid"] = c.utid
	p, err := json.Marshal(t)
	if err != nil {
		c.Fatal(err)
	}
	c.SendText(string(p))
}

func (c *client) next() (t Token) {
	c.Helper()
	p := c.read()
	if err := json.Unmarshal([]byte(p), &t); err != nil {
		c.Fatalf("%q: %v", p, err)
	}
	return t
}

// want reads a token and wants these fields of it.
func (c *client) want(fields Token) Token {
	c.Helper()
	t := c.next()
	for k, v := range fields {
		if t[k] != v {
			c.Fatalf("token %v: %s is %v; want %v", t, k, t[k], v)
		}
	}
	return t
}

// request sends a token and wants the response to it.
func (c *client) request(t, fields Token) Token {
	c.Helper()
	c.token(t)
	response := Token{"type": "response", "reqType": t["type"], "utid": float64(c.utid)}
	for k, v := range fields {
		response[k] = v
	}
	return c.want(response)
}

func (c *client) login(name string) {
	c.Helper()
	c.request(Token{"ns": System, "type": "login", "username": name, "password": "secret"}, Token{"code": 0.0, "username": name, "sourceId": c.id})
}

func TestTokens(t *testing.T) {
	addr, _ := start(t)
	ada := dial(t, addr)
	bob := dial(t, addr)
	ada.want(Token{"type": "event", "name": "connect", "sourceId": bob.id, "clientCount": 2.0})

	ada.request(Token{"ns": System, "type": "echo", "data": "привет"}, Token{"code": 0.0, "data": "привет"})
	ada.request(Token{"ns": System, "type": "ping", "echo": true}, Token{"code": 0.0})
	ada.token(Token{"ns": System, "type": "ping", "echo": false}) // without an answer
	ada.request(Token{"ns": System, "type": "send", "targetId": bob.id, "data": "x"}, Token{"code": -1.0, "msg": "not logged in"})
	ada.request(Token{"ns": System, "type": "broadcast", "data": "x"}, Token{"code": -1.0, "msg": "not logged in"})
	ada.request(Token{"ns": System, "type": "logout"}, Token{"code": -1.0, "msg": "not logged in"})
	ada.request(Token{"ns": System, "type": "login", "username": "ada", "password": "wrong"}, Token{"code": -1.0, "msg": "invalid credentials"})

	ada.login("ada")
	bob.want(Token{"type": "event", "name": "login", "username": "ada", "sourceId": ada.id})
	bob.login("bob")
	ada.want(Token{"type": "event", "name": "login", "username": "bob", "sourceId": bob.id})

	// Who it is from isn't the sender's to say.
	ada.request(Token{"ns": System, "type": "send", "targetId": bob.id, "sourceId": "forged", "sender": "forged", "data": "to you"}, Token{"code": 0.0})
	got := bob.want(Token{"type": "send", "ns": System, "sourceId": ada.id, "sender": "ada", "data": "to you"})
	if _, has := got["utid"]; has {
		t.Errorf("the receiver sees the sender's utid: %v", got)
	}
	ada.request(Token{"ns": System, "type": "send", "targetId": "nobody", "data": "x"}, Token{"code": -1.0})
	bob.request(Token{"ns": System, "type": "broadcast", "data": "to all"}, Token{"code": 0.0})
	ada.want(Token{"type": "broadcast", "sender": "bob", "data": "to all"})
	bob.token(Token{"ns": System, "type": "broadcast", "data": "to me too", "senderIncluded": true, "responseRequested": false})
	bob.want(Token{"type": "broadcast", "data": "to me too"})
	ada.want(Token{"type": "broadcast", "data": "to me too"})

	bob.request(Token{"ns": "org.example.sum", "type": "add", "a": 2, "b": 40}, Token{"code": 0.0, "sum": 42.0, "by": "bob"})
	bob.request(Token{"ns": "org.example.wrong", "type": "f"}, Token{"code": -1.0, "reqType": nil})
	bob.request(Token{"ns": "org.example.none", "type": "add"}, Token{"code": -1.0})
	bob.request(Token{"ns": System, "type": "none"}, Token{"code": -1.0})

	bob.request(Token{"ns": System, "type": "logout"}, Token{"code": 0.0})
	ada.want(Token{"type": "event", "name": "logout", "username": "bob"})
	bob.token(Token{"ns": System, "type": "close", "timeout": 0})
	bob.WantClose(1000)
	ada.want(Token{"type": "event", "name": "disconnect", "sourceId": bob.id, "clientCount": 1.0})
}

func TestSentToOneThatLeft(t *testing.T) {
	addr, s := start(t)
	ada, bob := dial(t, addr), dial(t, addr)
	ada.want(Token{"name": "connect"})
	ada.login("ada")
	bob.Cut()
	ada.want(Token{"name": "disconnect", "sourceId": bob.id})
	ada.request(Token{"ns": System, "type": "send", "targetId": bob.id, "data": "x"}, Token{"code": -1.0})
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.clients) != 1 {
		t.Errorf("%d clients are known; want 1", len(s.clients))
	}
}

func TestNoTokens(t *testing.T) {
	for _, tt := range []struct {
		opcode  websockettest.Opcode
		payload string
		code    int
	}{
		{websockettest.Text, "hello", 1003},
		{websockettest.Text, "null", 1003},
		{websockettest.Text, "[]", 1003},
		{websockettest.Text, `{"ns":"` + System + `"}`, 1003},
		{websockettest.Text, `{"type":7}`, 1003},
		{websockettest.Text, `{"type":"ping"}{"type":"ping"}`, 1003},
		{websockettest.Text, `{"type":"ping"}}`, 1003},
		{websockettest.Binary, `{"type":"ping"}`, 1003},
		{websockettest.Text, `{"type":"echo","data":"` + strings.Repeat("x", maxFrameSize) + `"}`, 1009},
		{websockettest.Text, strings.Repeat(`{"type":`, 8000), 1003},
	} {
		addr, _ := start(t) // where nobody else comes and goes
		c := dial(t, addr)
		c.SendFrame(websockettest.Frame{Opcode: tt.opcode, Payload: []byte(tt.payload)})
		c.WantClose(tt.code)
	}
}

// A login before the header would be an event from somebody who isn't there.
func TestLoginBeforeHeader(t *testing.T) {
	addr, _ := start(t)
	c := &client{T: t, Client: websockettest.DialAddr(t, addr, Path, "Sec-WebSocket-Protocol: "+Subprotocol)}
	c.Read()
	c.request(Token{"type": "login", "username": "ada", "password": "secret"}, Token{"code": -1.0})
}
