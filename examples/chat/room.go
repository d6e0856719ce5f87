package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rawws/websocket"
)

// What a stranger may make the server keep or do. A newcomer's welcome holds
// the history and the names, so their bytes as they are sent have to be few
// enough for his queue.
const (
	maxLine      = 4096      // bytes of a line; a longer one is refused with 1009
	maxHistory   = 50        // lines that a newcomer is shown,
	historyBytes = 64 << 10  // and no more than so many bytes of them as JSON, which takes six for some
	maxHere      = 100       // people in a room
	maxRooms     = 1000      // kept in memory, so that nobody fills it with empty ones
	sendQueue    = 256 << 10 // bytes that wait for a slow user, before it is closed with 1008

	maxSockets = 1000 // of net/http, pages and handshakes

	linesPerSecond = 5 // of one user, with 1008 over it,
	linesAtOnce    = 20
)

// An event is what the page receives: one JSON object a message.
type event struct {
	Type    string            `json:"type"` // welcome, join, leave or line
	Time    int64             `json:"time"` // milliseconds of Unix time
	Name    string            `json:"name"`
	Text    string            `json:"text,omitempty"`
	Here    []string          `json:"here,omitempty"`    // welcome: who is in the room
	History []json.RawMessage `json:"history,omitempty"` // welcome: the last lines
}

func newEvent(kind, name string) event {
	return event{Type: kind, Time: time.Now().UnixMilli(), Name: name}
}

// encode makes a message of e, which is its JSON without the escapes that HTML
// would need.
func (e event) encode() []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.Encode(e) // strings and numbers always encode
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

func prepare(data []byte) *websocket.PreparedMessage {
	return websocket.NewPreparedMessage(websocket.TextMessage, data)
}

// A hub holds the rooms by name.
type hub struct {
	mu    sync.Mutex
	rooms map[string]*room
}

// A room's lock makes the history and every member see the same order. Nothing
// blocks under it: Send and Broadcast only queue.
type room struct {
	users int // guarded by hub.mu; a room with users isn't forgotten

	mu      sync.Mutex // guards what follows
	group   websocket.Group
	names   map[string]string // by their keys, since those that look alike can't both be here
	history []json.RawMessage
	kept    int // bytes of history
}

// A member is what a connection is in the chat; it lives in Conn.Data and is
// only touched by the connection's own callbacks.
type member struct {
	room  *room
	name  string
	lines bucket
}

func (h *hub) open(c *websocket.Conn, r *http.Request) {
	room := h.enter(r.PathValue("room"))
	if room == nil {
		c.Close(websocket.CloseTryAgainLater, "there are too many rooms")
		return
	}
	m := room.join(c, wantedName(r))
	if m == nil {
		h.left(room)
		c.Close(websocket.CloseTryAgainLater, "the room is full")
		return
	}
	c.Data = m
}

func (h *hub) message(c *websocket.Conn, t websocket.MessageType, data []byte) {
	m, ok := c.Data.(*member)
	switch text := strings.TrimSpace(string(data)); {
	case !ok: // already refused
	case !m.lines.take(time.Now(), linesPerSecond, linesAtOnce):
		c.Close(websocket.ClosePolicyViolation, "too many lines at once")
	case t != websocket.TextMessage:
		c.Close(websocket.CloseUnsupportedData, "lines are text")
	case text != "":
		m.room.say(m.name, text)
	}
}

func (h *hub) closed(c *websocket.Conn, err error) {
	if m, ok := c.Data.(*member); ok {
		m.room.leave(c, m.name)
		h.left(m.room)
	}
}

// enter finds or makes a room and counts one more user of it. When there are
// too many rooms, those that stand empty are forgotten; nil when none does.
func (h *hub) enter(name string) *room {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.rooms[name]
	if r == nil {
		if len(h.rooms) >= maxRooms {
			maps.DeleteFunc(h.rooms, func(_ string, r *room) bool { return r.users == 0 })
		}
		if len(h.rooms) >= maxRooms {
			return nil
		}
		r = &room{names: map[string]string{}}
		h.rooms[name] = r
	}
	r.users++
	return r
}

func (h *hub) left(r *room) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r.users--
}

// join welcomes c under the wanted name, or that with a number when it is
// taken, and tells the others. It is nil when the room is full.
func (r *room) join(c *websocket.Conn, wanted string) *member {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.names) >= maxHere {
		return nil
	}
	name := wanted
	for n := 2; r.names[nameKey(name)] != ""; n++ {
		name = wanted + " " + strconv.Itoa(n)
	}
	r.names[nameKey(name)] = name
	r.group.Broadcast(prepare(newEvent("join", name).encode()))
	welcome := newEvent("welcome", name)
	welcome.Here = slices.Sorted(maps.Values(r.names))
	welcome.History = r.history
	c.Send(prepare(welcome.encode())) // one that fails ends the connection, and OnClose follows
	r.group.Join(c)
	return &member{room: r, name: name}
}

func (r *room) leave(c *websocket.Conn, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.group.Leave(c)
	delete(r.names, nameKey(name))
	r.group.Broadcast(prepare(newEvent("leave", name).encode()))
}

func (r *room) say(name, text string) {
	e := newEvent("line", name)
	e.Text = text
	line := e.encode()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keep(line)
	r.group.Broadcast(prepare(line))
}

// keep adds a line to the history, from which the oldest give way. mu is held.
func (r *room) keep(line json.RawMessage) {
	r.history = append(r.history, line)
	r.kept += len(line)
	for len(r.history) > maxHistory || r.kept > historyBytes {
		r.kept -= len(r.history[0])
		r.history = slices.Delete(r.history, 0, 1)
	}
}

// checkRequest refuses a bad room or name while HTTP can still say so.
func checkRequest(r *http.Request, _ *websocket.Accept) error {
	if !validRoom(r.PathValue("room")) {
		return &websocket.HandshakeError{Status: http.StatusNotFound, Reason: "no such room"}
	}
	if !validName(wantedName(r)) {
		return &websocket.HandshakeError{Status: http.StatusBadRequest, Reason: "a name has 1 to " + strconv.Itoa(maxName) + " characters that are seen"}
	}
	return nil
}

// wantedName has single spaces: a page shows several as one.
func wantedName(r *http.Request) string {
	return strings.Join(strings.Fields(r.URL.Query().Get("name")), " ")
}

var validRoom = regexp.MustCompile(`^[a-z0-9-]{1,32}$`).MatchString
