// Protocols serves the clients of socket.io, SignalR and jWebSocket on one port:
// three protocols that have nothing in common but the frames below. Its page
// shows both.
//
//	go run ./examples/protocols # and open http://127.0.0.1:9004/
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/rawws/websocket/examples/protocols/hixie"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:9004", "listen on `host:port`")
	behind := flag.Bool("nethttp", false, "serve behind net/http instead of on a listener of our own")
	deflate := flag.Bool("deflate", false, "agree to permessage-deflate")
	old := flag.String("hixie", "", "also serve the draft that iOS 4 and 5 spoke, on another `host:port`")
	flag.Parse()
	if err := run(*addr, *old, *behind, *deflate); err != nil {
		log.Fatal(err)
	}
}

func run(addr, old string, behind, deflate bool) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	served := make(chan error, 2)
	if old != "" {
		ln, err := net.Listen("tcp", old)
		if err != nil {
			return err
		}
		defer ln.Close()
		go func() { served <- hixie.Serve(ln, echoHixie) }()
		log.Printf("the draft of old iOS on ws://%v/", ln.Addr())
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	p := newProtocols(deflate)
	if behind {
		p.web = newWeb(p.ws)
	}
	go func() { served <- p.serve(ln) }()
	log.Printf("open http://%v/; Ctrl-C ends", ln.Addr())
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
		stop() // a second Ctrl-C kills
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return p.shutDown(ctx)
}

// serve is one of two ways: on the listener itself, or behind net/http, from
// which the WebSockets are taken over.
func (p *protocols) serve(ln net.Listener) error {
	if p.web != nil {
		return p.web.Serve(ln)
	}
	return p.ws.Serve(ln)
}

func newWeb(h http.Handler) *http.Server {
	return &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
}

// shutDown lets SignalR's clients know that they may come back. GETs that hang
// end by themselves, or net/http would wait for them.
func (p *protocols) shutDown(ctx context.Context) error {
	p.hub.Close()
	p.io.Close()
	var err error
	if p.web != nil {
		err = p.web.Shutdown(ctx)
	}
	return errors.Join(err, p.ws.Shutdown(ctx))
}
