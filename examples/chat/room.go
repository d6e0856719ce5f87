package main

import (
	"encoding/json"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/rawws/websocket"
)

const (
	maxLine    = 4096 // bytes of a line; a longer one is refused with 1009
	maxName    = 24   // characters
	maxHistory = 50   // lines that a newcomer is shown
	maxRooms   = 1000 // kept in memory, so that nobody fills it with empty ones
)

// An event is what the page receives: one JSON object a message.
type event struct {
	Type    string   `json:"type"` // welcome, join, leave or line
	Time    int64    `json:"time"` // milliseconds of Unix time
	Name    string   `json:"name"`
	Text    string   `json:"text,omitempty"`
	Here    []string `json:"here,omitempty"`    // all but line: who is in the room now
	History []event  `json:"history,omitempty"` // welcome: the last lines
}

func (e event) prepare() *websocket.PreparedMessage {
	data, _ := json.Marshal(e) // strings and numbers always encode
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

	mu      sync.Mutex
	group   websocket.Group
	names   map[string]bool
	history []event
}

// A member is what a connection is in the chat; it lives in Conn.Data.
type member struct {
	room *room
	name string
}

func (h *hub) open(c *websocket.Conn, r *http.Request) {
	room := h.enter(r.PathValue("room"))
	if room == nil {
		c.Close(websocket.CloseTryAgainLater, "too many rooms")
		return
	}
	c.Data = room.join(c, wantedName(r))
}

func (h *hub) message(c *websocket.Conn, t websocket.MessageType, data []byte) {
	m, ok := c.Data.(*member)
	switch text := strings.TrimSpace(string(data)); {
	case !ok || text == "": // already refused, or nothing said
	case t != websocket.TextMessage:
		c.Close(websocket.CloseUnsupportedData, "lines are text")
	default:
		m.room.say(m.name, text)
	}
}

func (h *hub) closed(c *websocket.Conn, err error) {
	m, ok := c.Data.(*member)
	if !ok {
		return
	}
	m.room.leave(c, m.name)
	h.mu.Lock()
	m.room.users--
	h.mu.Unlock()
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
		r = &room{names: map[string]bool{}}
		h.rooms[name] = r
	}
	r.users++
	return r
}

// join welcomes c under the wanted name, or that with a number when it is
// taken, and tells the others.
func (r *room) join(c *websocket.Conn, wanted string) *member {
	r.mu.Lock()
	defer r.mu.Unlock()
	name := wanted
	for n := 2; r.names[name]; n++ {
		name = wanted + " " + strconv.Itoa(n)
	}
	r.names[name] = true
	r.group.Broadcast(r.notice("join", name).prepare())
	welcome := r.notice("welcome", name)
	welcome.History = r.history
	c.Send(welcome.prepare()) // one that fails ends the connection, and OnClose follows
	r.group.Join(c)
	return &member{room: r, name: name}
}

func (r *room) leave(c *websocket.Conn, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.group.Leave(c)
	delete(r.names, name)
	r.group.Broadcast(r.notice("leave", name).prepare())
}

func (r *room) say(name, text string) {
	line := event{Type: "line", Time: time.Now().UnixMilli(), Name: name, Text: text}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history = append(r.history[max(0, len(r.history)+1-maxHistory):], line)
	r.group.Broadcast(line.prepare())
}

// notice is an event that says who is here. r.mu is held.
func (r *room) notice(kind, name string) event {
	return event{Type: kind, Time: time.Now().UnixMilli(), Name: name, Here: slices.Sorted(maps.Keys(r.names))}
}

// checkRequest refuses a bad room or name while HTTP can still say so.
func checkRequest(r *http.Request, _ http.Header) error {
	if !validRoom(r.PathValue("room")) {
		return &websocket.HandshakeError{Status: http.StatusNotFound, Reason: "no such room"}
	}
	if !validName(wantedName(r)) {
		return &websocket.HandshakeError{Status: http.StatusBadRequest, Reason: "a name has 1 to 24 printable characters"}
	}
	return nil
}

func wantedName(r *http.Request) string { return strings.TrimSpace(r.URL.Query().Get("name")) }

// validName allows what is seen, and the joiners that scripts and emoji need.
func validName(s string) bool {
	return s != "" && utf8.ValidString(s) && utf8.RuneCountInString(s) <= maxName &&
		!strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) && r != '\u200c' && r != '\u200d' })
}

var validRoom = regexp.MustCompile(`^[a-z0-9-]{1,32}$`).MatchString
