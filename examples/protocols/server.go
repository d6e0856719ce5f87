package main

import (
	"embed"
	"io/fs"
	"net/http"

	"github.com/rawws/websocket"
	"github.com/rawws/websocket/examples/protocols/jwebsocket"
	"github.com/rawws/websocket/examples/protocols/signalr"
	"github.com/rawws/websocket/examples/protocols/socketio"
)

//go:embed page
var files embed.FS

const (
	hubPath  = "/hub"
	wirePath = "/wire" // where the page looks at its own frames
)

// protocols are the three servers, and the one that they are behind.
type protocols struct {
	io   *socketio.Server
	hub  *signalr.Hub
	jws  *jwebsocket.Server
	feed *feed
	ws   *websocket.Server
	web  *http.Server // nil unless it is behind net/http
}

func newProtocols(deflate bool) *protocols {
	p := &protocols{io: newSocketIO(), hub: newHub(), jws: newTokens(), feed: newFeed()}
	p.ws = &websocket.Server{
		HTTP: p.pages(),
		Upgrader: websocket.Upgrader{
			OnUpgrade: p.onUpgrade,
			Trace:     p.feed.trace(),
		},
		MaxConns: 10_000,
	}
	if deflate {
		p.ws.Upgrader.Compression = &websocket.Compression{}
	}
	return p
}

// onUpgrade finds the protocol whose path it is, lets it have its say, and
// leaves the connection to it.
func (p *protocols) onUpgrade(r *http.Request, a *websocket.Accept) error {
	switch r.URL.Path {
	case socketio.Path:
		a.Handler = p.io.Events()
		return p.io.OnUpgrade(r, a)
	case hubPath:
		a.Handler = p.hub.Events()
		return p.hub.OnUpgrade(r, a)
	case jwebsocket.Path:
		a.Handler = p.jws.Events()
		return p.jws.OnUpgrade(r, a)
	case wirePath:
		a.Handler = p.feed.events()
		return nil
	}
	return &websocket.HandshakeError{Status: http.StatusNotFound, Reason: "nothing is served here"}
}

// pages are the requests that aren't for a WebSocket.
func (p *protocols) pages() http.Handler {
	dir, err := fs.Sub(files, "page")
	if err != nil {
		panic(err) // the name is a constant and what it names is compiled in
	}
	mux := http.NewServeMux()
	mux.Handle(socketio.Path, p.io)
	mux.Handle("POST "+hubPath+"/negotiate", p.hub)
	page := http.FileServerFS(dir)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; "+
			"img-src data:; connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		page.ServeHTTP(w, r)
	})
	return mux
}
