package main

import (
	"bytes"
	"encoding/json"
	"log"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rawws/websocket"
)

// historyWait is how long a node's first user in a room waits for what was
// said there before. Without another node in the room NATS says so at once.
const historyWait = 300 * time.Millisecond

// An event is what the page receives, one JSON object a message, and with its
// sender what the nodes send each other.
type event struct {
	Type    string   `json:"type"`             // welcome, join, leave, here, line or link; between nodes also hello
	Node    string   `json:"node"`             // where it happened
	Time    int64    `json:"time"`             // milliseconds of Unix time
	Name    string   `json:"name,omitempty"`   // of whom
	Text    string   `json:"text,omitempty"`   // line
	Here    []string `json:"here,omitempty"`   // welcome, join, leave, here, link: who is in the room, or on the sender's node
	Linked  bool     `json:"linked,omitempty"` // welcome, link: the other nodes hear us
	History []event  `json:"history,omitempty"`
}

func (e event) prepare() *websocket.PreparedMessage {
	return websocket.NewPreparedMessage(websocket.TextMessage, encode(e))
}

// encode makes JSON of an event or of packets, without the escapes that HTML
// would need.
func encode(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.Encode(v) // strings and numbers always encode
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// A packet is an event on its way between nodes.
type packet struct {
	From  string `json:"from"` // a node's id
	Seq   uint64 `json:"seq"`  // which with From makes it unique
	Event event  `json:"event"`

	bytes int // of Event, as it is sent; in a history
}

// people are those on another node.
type people struct {
	names []string
	heard time.Time
}

// A room is there while this node has, or has had, users in it. Nothing blocks
// under mu: Send and Broadcast only queue. What goes to NATS goes outside it.
type room struct {
	node   *node
	name   string
	users  int // guarded by node.mu; a room with users isn't forgotten
	opened sync.Once
	subs   []*nats.Subscription // written by open

	telling sync.Mutex // keeps what is told of who is here in order; mu may be taken under it

	mu      sync.Mutex // guards what follows
	linked  bool
	group   websocket.Group
	names   map[string]bool   // of this node's users
	others  map[string]people // by node id
	history []packet
	kept    int // bytes of history, as they are sent
}

// open listens to the room, and asks the nodes that did before what was said.
func (r *room) open() {
	n := r.node
	r.subscribe("chat.room."+r.name, func(m *nats.Msg) {
		var p packet
		if err := json.Unmarshal(m.Data, &p); err != nil {
			log.Printf("NATS: %s: %v", m.Subject, err)
			return
		}
		r.hear(p)
	})
	if m, err := n.nc.Request("chat.history."+r.name, nil, n.wait); err == nil {
		var history []packet
		if err := json.Unmarshal(m.Data, &history); err != nil {
			log.Printf("NATS: %s: %v", m.Subject, err)
		}
		r.recall(history)
	}
	r.subscribe("chat.history."+r.name, func(m *nats.Msg) {
		r.mu.Lock()
		data := encode(r.history)
		r.mu.Unlock()
		m.Respond(data) // who gets no answer goes on without
	})
	r.meet()
}

func (r *room) subscribe(subject string, f nats.MsgHandler) {
	s, err := r.node.nc.Subscribe(subject, f)
	if err != nil { // nc is closed: this node ends
		log.Printf("NATS: %s: %v", subject, err)
		return
	}
	r.subs = append(r.subs, s)
}

// close stops listening to a room that has no users, and reports that it did.
func (r *room) close() bool {
	for _, s := range r.subs {
		s.Unsubscribe()
	}
	return true
}

// join welcomes c under the wanted name, or that with a number when it is
// taken, and tells everybody. It is nil when the room is full.
func (r *room) join(c *websocket.Conn, wanted string) *member {
	r.mu.Lock()
	taken := map[string]bool{}
	for _, name := range r.here() {
		taken[nameKey(name)] = true
	}
	if len(taken) >= maxHere {
		r.mu.Unlock()
		return nil
	}
	name := wanted
	for n := 2; taken[nameKey(name)]; n++ {
		name = wanted + " " + strconv.Itoa(n)
	}
	r.names[name] = true
	welcome := event{Type: "welcome", Node: r.node.name, Time: time.Now().UnixMilli(), Name: name, Here: r.here(), Linked: r.linked}
	for _, p := range r.history {
		welcome.History = append(welcome.History, p.Event)
	}
	c.Send(welcome.prepare()) // one that fails ends the connection, and OnClose follows
	r.group.Join(c)
	r.mu.Unlock()
	r.tellHere("join", name)
	return &member{room: r, name: name}
}

func (r *room) leave(c *websocket.Conn, name string) {
	r.mu.Lock()
	r.group.Leave(c)
	delete(r.names, name)
	r.mu.Unlock()
	r.tellHere("leave", name)
}

// meet makes the nodes in the room tell each other who is there.
func (r *room) meet() {
	r.tell(event{Type: "hello"})
	r.tellHere("here", "")
}

// tellHere tells who is on this node, as part of what happened.
func (r *room) tellHere(kind, name string) {
	r.telling.Lock()
	defer r.telling.Unlock()
	r.mu.Lock()
	here := slices.Sorted(maps.Keys(r.names))
	r.mu.Unlock()
	if kind != "here" || len(here) > 0 {
		r.tell(event{Type: kind, Name: name, Here: here})
	}
}

// tell brings e to every user of the room through NATS, this node's as well:
// who sees his own line knows that it went through. While NATS is away it is
// for this node's users alone.
func (r *room) tell(e event) {
	e.Node, e.Time = r.node.name, time.Now().UnixMilli()
	p := packet{From: r.node.id, Seq: r.node.seq.Add(1), Event: e}
	if err := r.node.nc.Publish("chat.room."+r.name, encode(p)); err != nil {
		r.hear(p)
	}
}

// hear takes a packet, of this node's or another's.
func (r *room) hear(p packet) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, own := p.Event, p.From == r.node.id
	switch e.Type {
	case "line":
		if r.keep(p) {
			r.group.Broadcast(e.prepare())
		}
	case "hello":
		if !own {
			go r.tellHere("here", "")
		}
	case "join", "leave", "here":
		before := r.here()
		switch {
		case own:
		case len(e.Here) == 0:
			delete(r.others, p.From)
		default:
			r.others[p.From] = people{e.Here, time.Now()}
		}
		e.Here = r.here()
		if e.Type != "here" || !slices.Equal(before, e.Here) {
			r.group.Broadcast(e.prepare())
		}
	}
}

// keep adds a line to the history, from which the oldest give way, unless it is
// there: NATS and another node's history may both have brought it. mu is held.
func (r *room) keep(line packet) bool {
	if slices.ContainsFunc(r.history, func(p packet) bool { return p.From == line.From && p.Seq == line.Seq }) {
		return false
	}
	line.bytes = len(encode(line.Event))
	r.history = append(r.history, line)
	r.kept += line.bytes
	for len(r.history) > maxHistory || r.kept > historyBytes {
		r.kept -= r.history[0].bytes
		r.history = slices.Delete(r.history, 0, 1)
	}
	return true
}

// recall puts another node's history before what was heard since.
func (r *room) recall(history []packet) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := slices.Concat(history, r.history)
	r.history, r.kept = nil, 0
	for _, p := range all {
		r.keep(p)
	}
}

// forget drops the people of nodes that weren't heard since then.
func (r *room) forget(since time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.here()
	maps.DeleteFunc(r.others, func(_ string, p people) bool { return p.heard.Before(since) })
	if here := r.here(); !slices.Equal(before, here) {
		r.group.Broadcast(event{Type: "here", Node: r.node.name, Time: time.Now().UnixMilli(), Here: here}.prepare())
	}
}

// here lists who is in the room, on every node. mu is held.
func (r *room) here() []string {
	all := maps.Clone(r.names)
	for _, p := range r.others {
		for _, name := range p.names {
			all[name] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// setLinked tells this node's users whether the other nodes hear them, and with
// that who does: while it is cut off, nobody on another node.
func (r *room) setLinked(linked bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.linked != linked {
		r.linked = linked
		if !linked {
			clear(r.others)
		}
		r.group.Broadcast(event{Type: "link", Node: r.node.name, Time: time.Now().UnixMilli(), Here: r.here(), Linked: linked}.prepare())
	}
}
