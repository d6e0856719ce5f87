package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"

	"github.com/rawws/websocket"
)

// What a stranger may make a node keep or do. A newcomer's welcome holds the
// history and the names, so their bytes as they are sent have to be few enough
// for his queue.
const (
	maxLine      = 4096      // bytes of a line; a longer one is refused with 1009
	maxHistory   = 50        // lines that a newcomer is shown,
	historyBytes = 64 << 10  // and no more than so many bytes of them as JSON, which takes six for some
	maxHere      = 200       // people in a room, on all nodes
	maxRooms     = 1000      // of this node's users
	sendQueue    = 256 << 10 // bytes that wait for a slow user, before it is closed with 1008

	maxSockets = 1000 // of net/http, pages and handshakes

	linesPerSecond = 5 // of one user, with 1008 over it,
	linesAtOnce    = 20
)

// A node is one process of the cluster.
type node struct {
	name string
	id   string // of this run: a node that starts again knows nothing of what it said
	beat time.Duration
	wait time.Duration
	chat *websocket.Server
	nc   *nats.Conn
	seq  atomic.Uint64 // of its packets
	stop context.CancelFunc
	gone atomic.Bool // or about to

	mu     sync.Mutex // guards what follows; a room's may be taken under it
	linked bool       // to NATS
	rooms  map[string]*room
}

func newNode(o options) (*node, error) {
	n := &node{name: o.node, id: nuid.Next(), beat: o.beat, wait: cmp.Or(o.wait, historyWait), rooms: map[string]*room{}}
	n.chat = &websocket.Server{
		Handler:        websocket.Events{OnOpen: n.open, OnMessage: n.message, OnClose: n.closed},
		Upgrader:       websocket.Upgrader{MaxMessageSize: maxLine, SendQueue: sendQueue, OnUpgrade: checkRequest},
		MaxConns:       10_000,
		MaxConnsPerIP:  50,
		ShutdownSpread: time.Second, // they all go to the other nodes
	}
	if len(o.proxies) > 0 {
		n.chat.ClientIP = websocket.ForwardedIP("X-Forwarded-For", o.proxies...)
	}
	var err error
	n.nc, err = nats.Connect(o.nats,
		nats.Name("chat node "+n.name),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(500*time.Millisecond),
		nats.ReconnectJitter(200*time.Millisecond, time.Second),
		// What is said while NATS is away isn't kept to be said later: it would
		// come minutes late to some, and those who said it are told so.
		nats.ReconnectBufSize(-1),
		nats.PingInterval(5*time.Second),
		nats.ConnectHandler(n.found),
		nats.ReconnectHandler(n.found),
		nats.DisconnectErrHandler(n.lost),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { log.Printf("NATS: %v", err) }),
		nats.NoCallbacksAfterClientClose(),
	)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.stop = cancel
	go n.heartbeat(ctx)
	return n, nil
}

// shutdown sends everybody to the other nodes, and tells those.
func (n *node) shutdown(ctx context.Context) error {
	n.gone.Store(true)
	err := n.chat.Shutdown(ctx)
	n.stop()
	if n.nc.IsConnected() {
		n.nc.FlushWithContext(ctx)
	}
	n.nc.Close()
	return err
}

// found is called when there is a NATS server, at first or again.
func (n *node) found(nc *nats.Conn) {
	log.Printf("node %s: linked to %s", n.name, nc.ConnectedUrlRedacted())
	for _, r := range n.setLinked(true) {
		r.meet()
	}
}

func (n *node) lost(_ *nats.Conn, err error) {
	log.Printf("node %s: cut off from NATS: %v", n.name, err)
	n.setLinked(false)
}

// setLinked tells this node's users, and returns their rooms.
func (n *node) setLinked(linked bool) []*room {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.linked = linked
	rooms := slices.Collect(maps.Values(n.rooms))
	for _, r := range rooms {
		r.setLinked(linked)
	}
	return rooms
}

// heartbeat tells the other nodes who is on this one, and forgets the people of
// a node that has fallen silent.
func (n *node) heartbeat(ctx context.Context) {
	ticker := time.NewTicker(n.beat)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			n.mu.Lock()
			rooms := slices.Collect(maps.Values(n.rooms))
			n.mu.Unlock()
			for _, r := range rooms {
				r.forget(now.Add(-3 * n.beat))
				r.tellHere("here", "")
			}
		}
	}
}

// enter finds or makes a room and counts one more user of it; nil when there
// are too many. It waits until the room's history has come from another node.
func (n *node) enter(name string) *room {
	r := n.find(name)
	if r != nil {
		r.opened.Do(r.open)
	}
	return r
}

func (n *node) find(name string) *room {
	n.mu.Lock()
	defer n.mu.Unlock()
	r := n.rooms[name]
	if r == nil {
		if len(n.rooms) >= maxRooms {
			maps.DeleteFunc(n.rooms, func(_ string, r *room) bool { return r.users == 0 && r.close() })
		}
		if len(n.rooms) >= maxRooms {
			return nil
		}
		r = &room{node: n, name: name, linked: n.linked, names: map[string]bool{}, others: map[string]people{}}
		n.rooms[name] = r
	}
	r.users++
	return r
}

// The users

// A member is what a connection is in the chat; it lives in Conn.Data and is
// only touched by the connection's own callbacks.
type member struct {
	room  *room
	name  string
	lines bucket
}

func (n *node) open(c *websocket.Conn, r *http.Request) {
	room := n.enter(r.PathValue("room"))
	if room == nil {
		c.Close(websocket.CloseTryAgainLater, "there are too many rooms")
		return
	}
	m := room.join(c, wantedName(r))
	if m == nil {
		n.left(room)
		c.Close(websocket.CloseTryAgainLater, "the room is full")
		return
	}
	c.Data = m
}

func (n *node) message(c *websocket.Conn, t websocket.MessageType, data []byte) {
	m, ok := c.Data.(*member)
	switch text := strings.TrimSpace(string(data)); {
	case !ok: // already refused
	case !m.lines.take(time.Now(), linesPerSecond, linesAtOnce):
		c.Close(websocket.ClosePolicyViolation, "too many lines at once")
	case t != websocket.TextMessage:
		c.Close(websocket.CloseUnsupportedData, "lines are text")
	case text != "":
		m.room.tell(event{Type: "line", Name: m.name, Text: text})
	}
}

func (n *node) closed(c *websocket.Conn, err error) {
	if m, ok := c.Data.(*member); ok {
		m.room.leave(c, m.name)
		n.left(m.room)
	}
}

func (n *node) left(r *room) {
	n.mu.Lock()
	defer n.mu.Unlock()
	r.users--
}

// HTTP

func (n *node) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", http.RedirectHandler("/room/lobby", http.StatusFound))
	mux.Handle("GET /page/", http.FileServerFS(files))
	mux.HandleFunc("GET /room/{room}", func(w http.ResponseWriter, r *http.Request) {
		if !validRoom(r.PathValue("room")) {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Security-Policy", "default-src 'self'; img-src data:; frame-ancestors 'none'")
		http.ServeFileFS(w, r, files, "page/cluster.html")
	})
	mux.Handle("GET /room/{room}/socket", n.chat)
	mux.HandleFunc("GET /health", n.health)
	return mux
}

// health is for a load balancer. A node without NATS still serves: if all lose
// it at once, the balancer must not take them all away. One that goes says so.
func (n *node) health(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	linked := n.linked
	n.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if n.gone.Load() {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	json.NewEncoder(w).Encode(map[string]any{"node": n.name, "linked": linked, "users": n.chat.Stats().Open})
}

// checkRequest refuses a bad room or name while HTTP can still say so.
func checkRequest(r *http.Request, _ *websocket.Accept) error {
	if !validRoom(r.PathValue("room")) {
		return &websocket.HandshakeError{Status: http.StatusNotFound, Reason: "no such room"}
	}
	if !validName(wantedName(r)) {
		return &websocket.HandshakeError{Status: http.StatusBadRequest, Reason: fmt.Sprintf("a name has 1 to %d characters that are seen", maxName)}
	}
	return nil
}

// wantedName has single spaces: a page shows several as one.
func wantedName(r *http.Request) string {
	return strings.Join(strings.Fields(r.URL.Query().Get("name")), " ")
}

// A room is also a part of a subject's name, where dots and stars mean more.
var validRoom = regexp.MustCompile(`^[a-z0-9-]{1,32}$`).MatchString
