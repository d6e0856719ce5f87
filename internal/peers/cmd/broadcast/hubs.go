package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
	"github.com/lxzan/gws"

	raw "github.com/rawws/websocket"
)

// A hub is a server that sends a message to all of its connections.
type hub interface {
	serve(net.Listener) error
	len() int
	broadcast(p []byte) // p is kept
	// cut says how many connections were ended because they didn't read, and
	// how.
	cut() (int, string)
}

// hubs are the contenders.
var hubs = map[string]func() hub{
	"gorilla": func() hub { return &gorillaHub{clients: map[*gorillaClient]bool{}} },
	"gws":     func() hub { return &gwsHub{conns: map[*gws.Conn]bool{}} },
	"ours":    func() hub { return newOurHub() },
}

// ourHub is a Group.
type ourHub struct {
	raw.Group
	server *raw.Server
	slow   atomic.Int64 // connections whose queue was full
}

func newOurHub() *ourHub {
	h := &ourHub{}
	h.server = &raw.Server{Handler: raw.Events{
		OnOpen: func(c *raw.Conn, _ *http.Request) { h.Join(c) },
		OnClose: func(_ *raw.Conn, err error) {
			if rule, ok := errors.AsType[*raw.ProtocolError](err); ok && rule.Code == raw.ClosePolicyViolation {
				h.slow.Add(1)
			}
		},
	}}
	return h
}

func (h *ourHub) serve(ln net.Listener) error { return h.server.Serve(ln) }
func (h *ourHub) len() int                    { return h.Len() }
func (h *ourHub) broadcast(p []byte)          { h.Broadcast(raw.NewPreparedMessage(raw.BinaryMessage, p)) }

func (h *ourHub) cut() (int, string) {
	return int(h.slow.Load()), "with 1008"
}

// gorillaHub is the hub of gorilla's chat example, with prepared messages: a
// goroutine that reads and one that writes for each connection, and a channel
// of 256 messages between them and the hub. One whose channel is full is
// dropped.
type gorillaHub struct {
	mu      sync.Mutex
	clients map[*gorillaClient]bool
	dropped int
}

type gorillaClient struct {
	conn *websocket.Conn
	send chan *websocket.PreparedMessage
}

func (h *gorillaHub) serve(ln net.Listener) error {
	u := websocket.Upgrader{}
	return http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := u.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		c := &gorillaClient{conn, make(chan *websocket.PreparedMessage, 256)}
		h.mu.Lock()
		h.clients[c] = true
		h.mu.Unlock()
		go c.writePump()
		for {
			if _, _, err := conn.ReadMessage(); err != nil {
				break
			}
		}
		h.mu.Lock()
		h.leave(c)
		h.mu.Unlock()
		conn.Close()
	}))
}

// leave is called with mu held.
func (h *gorillaHub) leave(c *gorillaClient) {
	if h.clients[c] {
		delete(h.clients, c)
		close(c.send)
	}
}

func (c *gorillaClient) writePump() {
	defer c.conn.Close()
	for m := range c.send {
		c.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
		if err := c.conn.WritePreparedMessage(m); err != nil {
			return
		}
	}
	c.conn.WriteMessage(websocket.CloseMessage, nil)
}

func (h *gorillaHub) len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.clients)
}

func (h *gorillaHub) broadcast(p []byte) {
	m, err := websocket.NewPreparedMessage(websocket.BinaryMessage, p)
	if err != nil {
		panic(err) // only for a type that there isn't
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.clients {
		select {
		case c.send <- m:
		default:
			h.dropped++
			h.leave(c)
		}
	}
}

func (h *gorillaHub) cut() (int, string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.dropped, "channel full"
}

// gwsHub uses the library's Broadcaster, which has a queue without a limit for
// each connection.
type gwsHub struct {
	gws.BuiltinEventHandler
	mu    sync.Mutex
	conns map[*gws.Conn]bool
	ended atomic.Int64
}

func (h *gwsHub) OnOpen(c *gws.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.conns[c] = true
}

func (h *gwsHub) OnClose(c *gws.Conn, _ error) {
	h.ended.Add(1)
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.conns, c)
}

func (h *gwsHub) OnPing(c *gws.Conn, p []byte) { _ = c.WritePong(p) }

func (h *gwsHub) serve(ln net.Listener) error {
	s := gws.NewServer(h, &gws.ServerOption{})
	s.OnError = func(net.Conn, error) {} // its default prints
	return s.RunListener(ln)
}

func (h *gwsHub) len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.conns)
}

func (h *gwsHub) broadcast(p []byte) {
	b := gws.NewBroadcaster(gws.OpcodeBinary, p)
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.conns {
		_ = b.Broadcast(c)
	}
	b.Close()
}

func (h *gwsHub) cut() (int, string) { return int(h.ended.Load()), "of themselves" }

func findHub(name string) (hub, error) {
	if make := hubs[name]; make != nil {
		return make(), nil
	}
	return nil, fmt.Errorf("no server is called %q; there are gorilla, gws, ours", name)
}

// heapInUse is what the process holds now, without a collection that the
// others of the table don't get.
func heapInUse() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
