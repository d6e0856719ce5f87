package main

import (
	"embed"
	"encoding/json"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"

	"github.com/rawws/websocket"
)

//go:embed page
var files embed.FS

// An inspector is the server of the page: its files, the WebSocket that is
// looked at (any path), and the one by which the page looks (/trace).
type inspector struct {
	feed *feed
	addr string // for the raw client to dial

	mu    sync.Mutex
	pages map[string]*websocket.Conn // a page's newest connection, by its session
}

const tracePath = "/trace"

func newServer(ln net.Listener) *websocket.Server {
	in := &inspector{feed: newFeed(), addr: dialAddr(ln.Addr()), pages: make(map[string]*websocket.Conn)}
	in.feed.listen = event{Kind: "listen", At: now(), Local: ln.Addr().String(), FD: descriptor(ln), PID: os.Getpid()}
	looking := websocket.Events{OnOpen: in.look, OnMessage: in.command, OnClose: in.lookAway}
	lookedAt := websocket.Events{OnOpen: in.opened, OnMessage: in.echo, OnClose: in.closed}
	return &websocket.Server{
		Handler: websocket.HandlerFunc(func(c *websocket.Conn, r *http.Request) {
			if r.URL.Path == tracePath {
				looking.ServeWebSocket(c, r)
			} else {
				lookedAt.ServeWebSocket(c, r)
			}
		}),
		HTTP:     page(),
		Upgrader: websocket.Upgrader{Trace: in.feed.trace()},
	}
}

// dialAddr is where a listener is found that may be on every address.
func dialAddr(addr net.Addr) string {
	tcp, ok := addr.(*net.TCPAddr)
	if ok && tcp.IP.IsUnspecified() {
		return (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: tcp.Port}).String()
	}
	return addr.String()
}

// page serves the page's files, which are compiled in.
func page() http.Handler {
	dir, err := fs.Sub(files, "page")
	if err != nil {
		panic(err) // the name is a constant and what it names is compiled in
	}
	serve := http.FileServerFS(dir)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; "+
			"img-src data:; connect-src ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		serve.ServeHTTP(w, r)
	})
}

// whose returns what the URL of a connection says of who opened it: the page,
// and which of its clients it is, "page-1" or "raw-2". Other programs say
// nothing.
func whose(u *url.URL) (session, client string) {
	q := u.Query()
	return q.Get("session"), q.Get("client")
}

// The connection that is looked at sends everything back.

func (in *inspector) opened(c *websocket.Conn, r *http.Request) {
	session, client := whose(r.URL)
	c.Data = session
	if strings.HasPrefix(client, "page") {
		in.mu.Lock()
		defer in.mu.Unlock()
		in.pages[session] = c
	}
}

func (in *inspector) echo(c *websocket.Conn, t websocket.MessageType, data []byte) {
	c.WriteMessage(t, data) // one that fails ends the connection, which the trace shows
}

func (in *inspector) closed(c *websocket.Conn, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if session := c.Data.(string); in.pages[session] == c {
		delete(in.pages, session)
	}
}

// On the connection that looks, events go out and commands come in.

func (in *inspector) look(c *websocket.Conn, r *http.Request) {
	session, _ := whose(r.URL)
	c.Data = session
	in.feed.join(c, session)
}

func (in *inspector) lookAway(c *websocket.Conn, err error) { in.feed.leave(c) }

// A command is what a page asks the server for.
type command struct {
	Do     string              `json:"do"`
	ID     int                 `json:"id"`     // of clock
	Code   websocket.CloseCode `json:"code"`   // of close
	Script string              `json:"script"` // of raw
	Client string              `json:"client"` // of raw
	Text   string              `json:"text"`
}

func (in *inspector) command(c *websocket.Conn, t websocket.MessageType, data []byte) {
	session := c.Data.(string)
	var cmd command
	if err := json.Unmarshal(data, &cmd); err != nil {
		c.Close(websocket.CloseUnsupportedData, err.Error())
		return
	}
	in.mu.Lock()
	page := in.pages[session]
	in.mu.Unlock()
	switch {
	case cmd.Do == "clock": // so that the page knows how far the clocks are apart
		send(c, event{Kind: "clock", At: now(), ID: cmd.ID})
	case cmd.Do == "raw":
		go in.runRaw(session, cmd)
	case cmd.Do == "ping" && page != nil:
		page.Ping([]byte(cmd.Text))
	case cmd.Do == "close" && page != nil:
		page.Close(cmd.Code, cmd.Text)
	}
}
