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
	addr string        // for the raw client to dial
	raws chan struct{} // a place for each raw client that runs

	mu    sync.Mutex
	pages map[string]*websocket.Conn // a page's newest connection, by its session
}

const (
	tracePath  = "/trace"
	maxConns   = 200
	maxCommand = 4 << 10 // bytes of what a page asks for
	maxWho     = 40      // bytes of a session, and of a client's name
)

// newServer serves at ln, whose host was asked for by this name, if by any.
func newServer(ln net.Listener, name string) *websocket.Server {
	in := &inspector{
		feed:  newFeed(),
		addr:  dialAddr(ln.Addr()),
		raws:  make(chan struct{}, maxRaw),
		pages: make(map[string]*websocket.Conn),
	}
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
		Upgrader: websocket.Upgrader{Trace: in.feed.trace(), AllowedHosts: hosts(ln.Addr(), name)},
		MaxConns: maxConns,
	}
}

// hosts are what a browser may call this server. Without them a page of another
// site could make its own name point here (DNS rebinding), where it would be of
// our origin, and read the headers of every other client, cookies and all.
func hosts(addr net.Addr, name string) []string {
	allowed := []string{"localhost", "127.0.0.1", "[::1]"}
	if name != "" && net.ParseIP(name) == nil {
		allowed = append(allowed, name)
	}
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return allowed
	}
	ips := []net.Addr{&net.IPNet{IP: tcp.IP}}
	if tcp.IP.IsUnspecified() {
		ips, _ = net.InterfaceAddrs() // without them localhost is left
	}
	for _, a := range ips {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil {
			allowed = append(allowed, ip.IP.String())
		} else if ok {
			allowed = append(allowed, "["+ip.IP.String()+"]")
		}
	}
	return allowed
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
// nothing. It is repeated with every step, so it is short.
func whose(u *url.URL) (session, client string) {
	q := u.Query()
	session, client = q.Get("session"), q.Get("client")
	return session[:min(len(session), maxWho)], client[:min(len(client), maxWho)]
}

// The connection that is looked at sends everything back.

func (in *inspector) opened(c *websocket.Conn, r *http.Request) {
	session, client := whose(r.URL)
	c.Data = session
	if session != "" && strings.HasPrefix(client, "page") {
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
	if len(data) > maxCommand {
		c.Close(websocket.CloseMessageTooBig, "a command is short")
		return
	}
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
		in.startRaw(session, cmd)
	case cmd.Do == "ping" && page != nil:
		page.Ping([]byte(cmd.Text))
	case cmd.Do == "close" && page != nil:
		page.Close(cmd.Code, cmd.Text)
	}
}
