package main

import (
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/rawws/websocket"
)

//go:embed page
var files embed.FS

func newServer(o *options) (*websocket.Server, error) {
	e := &echo{quiet: o.quiet}
	s := &websocket.Server{
		Addr:     o.addr,
		Handler:  e.events(),
		MaxConns: o.maxConns,

		ProxyProtocol: o.proxies,
		Upgrader: websocket.Upgrader{
			Origins:        o.origins,
			MaxMessageSize: o.maxMessage,
			PingInterval:   o.ping,
		},
	}
	if o.ping == 0 {
		s.Upgrader.PingInterval = -1 // to the library 0 is the default
	}
	s.HTTP = pages()
	if o.deflate {
		s.Upgrader.Compression = &websocket.Compression{ServerContext: o.takeover}
	}
	if o.trace {
		s.Upgrader.Trace = e.trace()
	}
	if o.blocking {
		s.Handler = websocket.HandlerFunc(e.serve)
	}
	var err error
	s.TLSConfig, err = tlsConfig(o)
	return s, err
}

func serve(s *websocket.Server, ln net.Listener) error {
	if s.TLSConfig != nil {
		return s.ServeTLS(ln, "", "")
	}
	return s.Serve(ln)
}

// pages is the plain HTTP side of the port.
func pages() http.Handler {
	page, err := fs.Sub(files, "page")
	if err != nil {
		panic(err) // the name is a constant and what it names is compiled in
	}
	serve := http.FileServerFS(page)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Everything is of this origin; a socket may go anywhere, so that the
		// page can be pointed at another server.
		w.Header().Set("Content-Security-Policy",
			"default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src ws: wss:; frame-ancestors 'none'")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		serve.ServeHTTP(w, r)
	})
}

// A logWriter makes each event of a trace an entry of the log.
type logWriter struct{}

func (logWriter) Write(event []byte) (int, error) {
	log.Printf("trace %s", event)
	return len(event), nil
}

// echo is the application, in both of its forms.
type echo struct {
	quiet  bool
	last   atomic.Uint64 // the number of the newest connection
	traced sync.Map      // the trace's numbers, by the address of the peer
}

// trace shows what goes over the wire. Its numbers count every socket, those of
// the page too, and are the application's then, so that the lines of one
// connection are found by one number.
func (e *echo) trace() *websocket.Trace {
	t := websocket.NewTextTrace(logWriter{})
	accepted, closed := t.Accepted, t.Closed
	t.Accepted = func(id uint64, nc net.Conn) {
		e.traced.Store(nc.RemoteAddr().String(), id)
		accepted(id, nc)
	}
	t.Closed = func(id uint64, err error) {
		e.traced.Range(func(peer, of any) bool { // those that have opened aren't there any more
			if of == id {
				e.traced.Delete(peer)
			}
			return of != id
		})
		closed(id, err)
	}
	return t
}

// number is that of the trace if there is one, and else counts connections. What
// a proxy says of its client is no address of a socket, and is counted.
func (e *echo) number(c *websocket.Conn) uint64 {
	if id, ok := e.traced.LoadAndDelete(c.RemoteAddr().String()); ok {
		return id.(uint64)
	}
	return e.last.Add(1)
}

// A session is what the application knows of one connection. It lives in
// Conn.Data and is only touched by the connection's own callbacks.
type session struct {
	id       uint64
	opened   time.Time
	messages int
	bytes    int
}

// events is the server as a browser would be written: three callbacks.
func (e *echo) events() websocket.Events {
	return websocket.Events{
		OnOpen: func(c *websocket.Conn, r *http.Request) { c.Data = e.open(c, r) },
		OnMessage: func(c *websocket.Conn, t websocket.MessageType, data []byte) {
			e.message(c.Data.(*session), t, data)
			c.WriteMessage(t, data) // one that fails ends the connection, and OnClose says why
		},
		OnClose: func(c *websocket.Conn, err error) { e.closed(c.Data.(*session), err) },
	}
}

// serve is the same server as a loop in a goroutine of the connection's own.
func (e *echo) serve(c *websocket.Conn, r *http.Request) {
	s := e.open(c, r)
	for {
		t, data, err := c.ReadMessage()
		if err != nil {
			e.closed(s, err)
			return
		}
		e.message(s, t, data)
		c.WriteMessage(t, data) // one that fails ends the connection, and the next read says why
	}
}

func (e *echo) open(c *websocket.Conn, r *http.Request) *session {
	s := &session{id: e.number(c), opened: time.Now()}
	from := ""
	if origin := r.Header.Get("Origin"); origin != "" {
		from = fmt.Sprintf(" from a page of %.64q", origin)
	}
	e.logf(s, "open     %s %.64q%s", c.RemoteAddr(), r.RequestURI, from)
	return s
}

func (e *echo) message(s *session, t websocket.MessageType, data []byte) {
	s.messages++
	s.bytes += len(data)
	if e.quiet {
		return // before anything is formatted
	}
	if t == websocket.TextMessage {
		e.logf(s, "text     %s %s", size(len(data)), excerpt(data))
	} else {
		e.logf(s, "binary   %s", size(len(data)))
	}
}

func (e *echo) closed(s *session, err error) {
	e.logf(s, "close    %s; %d messages, %s, open for %s", ending(err), s.messages, size(s.bytes),
		time.Since(s.opened).Round(time.Millisecond))
}

func (e *echo) logf(s *session, format string, args ...any) {
	if !e.quiet {
		log.Printf("#%-4d "+format, append([]any{s.id}, args...)...)
	}
}

// ending says in one phrase who ended a connection, and how.
func ending(err error) string {
	var end *websocket.EndError
	if !errors.As(err, &end) {
		return err.Error()
	}
	clean := "clean"
	if !end.Clean {
		clean = "not clean"
	}
	var peer *websocket.CloseError
	switch {
	case errors.As(err, &peer):
		return fmt.Sprintf("by the peer, %d %q (%s)", peer.Code, peer.Reason, clean)
	case errors.Is(err, net.ErrClosed):
		return fmt.Sprintf("by the server, %d (%s)", end.Sent, clean)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "the peer went away without a closing handshake"
	case end.Sent != 0:
		return fmt.Sprintf("by the server, %d: %v", end.Sent, err)
	}
	return err.Error()
}

// excerpt quotes the start of a text: what the peer sent must not write to the
// terminal, nor fill it.
func excerpt(data []byte) string {
	n := 64
	if len(data) <= n {
		return fmt.Sprintf("%q", data)
	}
	for !utf8.RuneStart(data[n]) {
		n--
	}
	return fmt.Sprintf("%q...", data[:n])
}

func size(n int) string {
	switch {
	case n == 1:
		return "1 byte"
	case n < 10_000:
		return fmt.Sprintf("%d bytes", n)
	case n < 10_000_000:
		return fmt.Sprintf("%d kB", n/1000)
	}
	return fmt.Sprintf("%d MB", n/1_000_000)
}
