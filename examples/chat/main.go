// Chat is a small chat on net/http: a page, and beside it on the same mux the
// WebSocket that the page talks to. A room is a path.
//
//	go run ./examples/chat # and open http://127.0.0.1:9002/ in two windows
package main

import (
	"context"
	"embed"
	"flag"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rawws/websocket"
)

//go:embed page
var files embed.FS

func main() {
	addr := flag.String("addr", "127.0.0.1:9002", "listen on `host:port`")
	flag.Parse()
	if err := run(*addr); err != nil {
		log.Fatal(err)
	}
}

func run(addr string) error {
	chat := newServer()
	web := newWeb(addr, chat)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	served := make(chan error, 1)
	go func() { served <- web.ListenAndServe() }()
	log.Printf("open http://%s/ in two windows; Ctrl-C ends", addr)
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
		stop() // a second Ctrl-C kills
	}
	return shutDown(chat, web)
}

func newServer() *websocket.Server {
	h := &hub{rooms: map[string]*room{}}
	return &websocket.Server{
		Handler: websocket.Events{OnOpen: h.open, OnMessage: h.message, OnClose: h.closed},
		Upgrader: websocket.Upgrader{
			MaxMessageSize: maxLine,
			SendQueue:      sendQueue,
			OnUpgrade:      checkRequest,
		},
		MaxConns: 2000,
		// Behind a proxy everybody has its address: then set ClientIP as well.
		MaxConnsPerIP: 50,
	}
}

// newWeb bounds the pages' side in every direction. A WebSocket that has left
// it is under none of these: the chat's own limits hold.
func newWeb(addr string, chat *websocket.Server) *http.Server {
	web := &http.Server{
		Addr:              addr,
		Handler:           routes(chat),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       20 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
	limitSockets(web, maxSockets)
	return web
}

// limitSockets bounds the sockets that net/http holds, silent ones among them:
// it closes the newest. One that becomes a WebSocket isn't counted any more.
func limitSockets(web *http.Server, most int64) {
	var n atomic.Int64
	web.ConnState = func(nc net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			if n.Add(1) > most {
				nc.Close()
			}
		case http.StateHijacked, http.StateClosed:
			n.Add(-1)
		}
	}
}

// shutDown says goodbye in the chat first, which refuses newcomers with 503
// meanwhile. net/http's Shutdown knows nothing of the sockets that left it, and
// waits for whoever is slow to take a page: they would wait with it.
func shutDown(chat *websocket.Server, web *http.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := chat.Shutdown(ctx)
	ctx, cancel = context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if web.Shutdown(ctx) != nil {
		web.Close() // who hasn't taken a page by now is cut
	}
	return err
}

func routes(chat http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", http.RedirectHandler("/room/lobby", http.StatusFound))
	mux.Handle("GET /page/", http.FileServerFS(files))
	mux.HandleFunc("GET /room/{room}", func(w http.ResponseWriter, r *http.Request) {
		if !validRoom(r.PathValue("room")) {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Security-Policy", "default-src 'self'; img-src data:; frame-ancestors 'none'")
		http.ServeFileFS(w, r, files, "page/chat.html")
	})
	mux.Handle("GET /room/{room}/socket", chat)
	return mux
}
