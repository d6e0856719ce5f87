// Package jwebsocket serves the clients of jWebSocket 1.0, a Java project of
// 2010 to 2014. Its protocol is one JSON object a message, a token, that says
// by ns which part of the server it is for, by type what is wanted, and by utid
// which answer belongs to it. There are no sessions and no fallback: the
// connection is everything.
package jwebsocket

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"

	"github.com/rawws/websocket"
)

const (
	Path        = "/jWebSocket/jWebSocket"
	Subprotocol = "org.jwebsocket.json"
	System      = "org.jwebsocket.plugins.system" // the namespace that every server has

	maxFrameSize = 64 << 10
	maxUsername  = 64
)

// A Token is a message: "type" and most often "ns" and "utid", and what belongs
// to that type. Numbers are a json.Number when they come in.
type Token map[string]any

func (t Token) string(name string) string {
	s, _ := t[name].(string)
	return s
}

// A Server is the system namespace, and the application's beside it.
type Server struct {
	// Login says whether the password is that user's.
	Login func(username, password string) bool
	// Plugins are the application's namespaces. What a plugin returns are the
	// fields of the answer; an error is an answer with code -1. It runs in the
	// order of the client's tokens and must not wait.
	Plugins map[string]func(c *Client, t Token) (Token, error)

	mu      sync.Mutex
	clients map[string]*Client // that were welcomed, by id; guarded by mu
	all     websocket.Group    // the same
}

// A Client is a connection. Its fields belong to its own callbacks.
type Client struct {
	ID       string
	Username string // "" until login
	conn     *websocket.Conn
	welcomed bool
}

// OnUpgrade agrees on the subprotocol, without which the client fails, and on
// the largest message. It is for the Upgrader.
func (s *Server) OnUpgrade(r *http.Request, a *websocket.Accept) error {
	if !slices.Contains(websocket.Subprotocols(r), Subprotocol) {
		return &websocket.HandshakeError{Status: http.StatusBadRequest, Reason: "the subprotocol " + Subprotocol + " is spoken here"}
	}
	a.Subprotocol, a.MaxMessageSize = Subprotocol, maxFrameSize
	return nil
}

// Events serves the connections.
func (s *Server) Events() websocket.Events {
	return websocket.Events{OnOpen: s.open, OnMessage: s.message, OnClose: s.closed}
}

// open says how large a message may be, as a bare text. The client opens only
// then, and sends its header.
func (s *Server) open(conn *websocket.Conn, r *http.Request) {
	c := &Client{ID: rand.Text(), conn: conn}
	conn.Data = c
	conn.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, "maxframesize%d", maxFrameSize))
}

func (s *Server) message(conn *websocket.Conn, t websocket.MessageType, data []byte) {
	c := conn.Data.(*Client)
	token := parse(data)
	if t != websocket.TextMessage || token.string("type") == "" {
		conn.Close(websocket.CloseUnsupportedData, "not a token")
		return
	}
	switch ns := token.string("ns"); {
	case ns == System || ns == "":
		s.system(c, token)
	case s.Plugins[ns] != nil:
		fields, err := s.Plugins[ns](c, token)
		c.answer(token, fields, err)
	default:
		c.answer(token, nil, fmt.Errorf("no namespace %.64q", ns))
	}
}

// parse returns nil for what isn't one JSON object.
func parse(data []byte) (t Token) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber() // a utid goes back as it came
	if decoder.Decode(&t) != nil {
		return nil
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil
	}
	return t
}

// system does what the client's own methods ask for.
func (s *Server) system(c *Client, t Token) {
	switch t.string("type") {
	case "header": // what the client is; the answer is who it is
		s.welcome(c)
	case "login":
		s.login(c, t)
	case "logout":
		s.logout(c, t)
	case "echo":
		c.answer(t, Token{"data": t["data"]}, nil)
	case "ping":
		if t["echo"] == true || t["echo"] == "true" {
			c.answer(t, nil, nil)
		}
	case "send":
		s.send(c, t)
	case "broadcast":
		s.broadcast(c, t)
	case "close":
		c.conn.Close(websocket.CloseNormal, "")
	default:
		c.answer(t, nil, fmt.Errorf("no type %.64q", t.string("type")))
	}
}

// welcome makes the client known, once.
func (s *Server) welcome(c *Client) {
	if c.welcomed {
		return
	}
	c.welcomed = true
	c.write(Token{"ns": System, "type": "welcome", "vendor": "github.com/rawws/websocket", "version": "1.0",
		"sourceId": c.ID, "usid": rand.Text(), "timeout": 0, "protocolVersion": "1.0", "encodingFormats": []string{}})
	s.mu.Lock()
	if s.clients == nil {
		s.clients = make(map[string]*Client)
	}
	s.clients[c.ID] = c
	s.mu.Unlock()
	s.all.Join(c.conn)
	s.event(c, "connect", nil)
}

func (s *Server) login(c *Client, t Token) {
	username := t.string("username")
	switch {
	case !c.welcomed:
		c.answer(t, nil, fmt.Errorf("a header comes first"))
	case username == "" || len(username) > maxUsername || s.Login == nil || !s.Login(username, t.string("password")):
		c.answer(t, nil, fmt.Errorf("invalid credentials"))
	default:
		c.Username = username
		c.answer(t, Token{"username": username, "sourceId": c.ID}, nil)
		s.event(c, "login", Token{"username": username})
	}
}

func (s *Server) logout(c *Client, t Token) {
	if c.Username == "" {
		c.answer(t, nil, fmt.Errorf("not logged in"))
		return
	}
	username := c.Username
	c.Username = ""
	c.answer(t, Token{"sourceId": c.ID}, nil)
	s.event(c, "logout", Token{"username": username})
}

// send hands the token to another client, with the sender that it really has.
func (s *Server) send(c *Client, t Token) {
	s.mu.Lock()
	target := s.clients[t.string("targetId")]
	s.mu.Unlock()
	switch {
	case c.Username == "":
		c.answer(t, nil, fmt.Errorf("not logged in"))
	case target == nil:
		c.answer(t, nil, fmt.Errorf("no client %.64q", t.string("targetId")))
	default:
		target.conn.Send(c.signed(t))
		c.answer(t, nil, nil)
	}
}

func (s *Server) broadcast(c *Client, t Token) {
	if c.Username == "" {
		c.answer(t, nil, fmt.Errorf("not logged in"))
		return
	}
	s.others(c, c.signed(t), t["senderIncluded"] == true)
	if t["responseRequested"] != false {
		c.answer(t, nil, nil)
	}
}

// signed is what others get of a client's token: its utid is its own affair.
func (c *Client) signed(t Token) *websocket.PreparedMessage {
	t["sourceId"], t["sender"] = c.ID, c.Username
	utid := t["utid"]
	delete(t, "utid")
	defer func() { t["utid"] = utid }()
	return prepare(t)
}

// event tells the others what happened to c.
func (s *Server) event(c *Client, name string, fields Token) {
	t := Token{"ns": System, "type": "event", "name": name, "sourceId": c.ID, "clientCount": s.all.Len()}
	for k, v := range fields {
		t[k] = v
	}
	s.others(c, prepare(t), false)
}

func (s *Server) others(c *Client, m *websocket.PreparedMessage, andItself bool) {
	s.all.BroadcastFunc(func(conn *websocket.Conn) bool { return andItself || conn != c.conn }, m)
}

// closed forgets the client. The library has taken it out of the group.
func (s *Server) closed(conn *websocket.Conn, err error) {
	c := conn.Data.(*Client)
	if !c.welcomed {
		return
	}
	s.mu.Lock()
	delete(s.clients, c.ID)
	s.mu.Unlock()
	s.event(c, "disconnect", nil)
}

// answer is the response to a token: code 0, or -1 and why.
func (c *Client) answer(t, fields Token, err error) {
	answer := Token{"code": 0, "msg": "ok"}
	for k, v := range fields {
		answer[k] = v
	}
	if err != nil {
		answer["code"], answer["msg"] = -1, err.Error()
	}
	answer["ns"], answer["type"], answer["reqType"], answer["utid"] = t["ns"], "response", t["type"], t["utid"]
	c.write(answer)
}

// write sends what c itself has asked for. Its client waits for it, and so may
// we: the next token isn't read before.
func (c *Client) write(t Token) { c.conn.WritePrepared(prepare(t)) }

func prepare(t Token) *websocket.PreparedMessage {
	p, err := json.Marshal(t)
	if err != nil { // a plugin's fields
		p, _ = json.Marshal(Token{"ns": t["ns"], "type": "response", "utid": t["utid"], "code": -1, "msg": err.Error()})
	}
	return websocket.NewPreparedMessage(websocket.TextMessage, p)
}
