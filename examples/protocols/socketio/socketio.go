// Package socketio serves the clients of socket.io 3 and 4: Socket.IO 5
// (socketio.go, message.go) on Engine.IO 4 (engine.go), by WebSocket, by long
// polling, and from one to the other. Plain requests for Path go to the Server,
// which is an http.Handler, and upgrades to its OnUpgrade and Events.
package socketio

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	Path     = "/socket.io/" // where clients look for the server
	maxRooms = 100           // of one socket
	maxAcks  = 1000          // that one socket owes
)

var (
	ErrNoAnswer = errors.New("socketio: the client didn't answer")
	ErrGone     = errors.New("socketio: the client has left")
	ErrTooMany  = errors.New("socketio: too many rooms, or too many answers outstanding")
)

// A Server has the sessions of all clients.
type Server struct {
	Namespaces   []*Namespace
	PingInterval time.Duration // 25 s by default
	PingTimeout  time.Duration // 20 s by default
	MaxSessions  int           // those that poll included; 10,000 by default

	mu       sync.Mutex
	sessions map[string]*session
	closed   bool
}

func (srv *Server) pingInterval() time.Duration { return cmp.Or(srv.PingInterval, 25*time.Second) }
func (srv *Server) pingTimeout() time.Duration  { return cmp.Or(srv.PingTimeout, 20*time.Second) }
func (srv *Server) maxSessions() int            { return cmp.Or(srv.MaxSessions, 10_000) }

// Close ends all sessions. GETs that hang would hold up a Shutdown behind it.
func (srv *Server) Close() {
	srv.mu.Lock()
	srv.closed = true
	sessions := slices.Collect(maps.Values(srv.sessions))
	srv.mu.Unlock()
	for _, s := range sessions {
		s.close("server shutting down")
	}
}

// A Namespace is a part of the application. Its callbacks, any of which may be
// nil, are called one after the other for a client, and must not wait for it.
type Namespace struct {
	Name string // "/" is where clients begin
	// Auth may refuse a client for what auth, JSON or nothing, says.
	Auth       func(s *Socket, auth json.RawMessage) error
	Connect    func(s *Socket)
	Event      func(s *Socket, e Event)
	Disconnect func(s *Socket, reason string)

	mu    sync.Mutex
	rooms map[string]map[*Socket]bool // "" has all; guarded by mu
}

// An Event is what a client emitted, as encoding/json decodes it, with a []byte
// for each attachment.
type Event struct {
	Name string
	Args []any
	Ack  func(args ...any) error // answers; nil when no answer is asked for
}

// A Socket is a client in a namespace. Its methods may be called at any time.
type Socket struct {
	ID        string
	Namespace *Namespace
	Data      any // the application's
	session   *session
	rooms     map[string]bool // nil when it has left; guarded by Namespace.mu, as what follows
	acks      map[uint64]*ack
	lastAck   atomic.Uint64
}

type ack struct { // an answer that a client owes
	done  func(args []any, err error)
	timer *time.Timer
}

// packet handles the text of a message, and reports whether it was lawful.
func (s *session) packet(p []byte) bool {
	m, ok := parse(p)
	if !ok || s.pending != nil {
		return false
	}
	s.pending = m
	return s.dispatch()
}

// attachment takes one of those that were announced.
func (s *session) attachment(data []byte) bool {
	m := s.pending
	if m == nil || m.size+len(data) > maxAttached {
		return false
	}
	m.attached, m.size = append(m.attached, slices.Concat([]byte{}, data)), m.size+len(data)
	return s.dispatch()
}

// dispatch acts on the pending message once it is whole.
func (s *session) dispatch() bool {
	m := s.pending
	if len(m.attached) < m.attachments {
		return true
	}
	s.pending = nil
	socket := s.sockets[m.namespace]
	if socket == nil || m.kind == typeConnect {
		return m.kind != typeConnect || s.connect(m) // or it hasn't heard yet that it was sent away
	}
	if m.kind == typeDisconnect {
		delete(s.sockets, m.namespace)
		socket.left("client namespace disconnect")
		return true
	}
	args, ok := m.arguments()
	if ok && m.kind == typeAck && m.id != nil {
		socket.answered(*m.id, args, nil)
		return true
	}
	return ok && m.kind == typeEvent && socket.event(m, args)
}

// connect lets the client into a namespace, or says why not.
func (s *session) connect(m *message) bool {
	if s.sockets[m.namespace] != nil {
		return false
	}
	socket := &Socket{ID: rand.Text(), session: s, rooms: make(map[string]bool), acks: make(map[uint64]*ack)}
	err := errors.New("Invalid namespace")
	if i := slices.IndexFunc(s.srv.Namespaces, func(n *Namespace) bool { return n.Name == m.namespace }); i >= 0 {
		socket.Namespace, err = s.srv.Namespaces[i], nil
		if auth := socket.Namespace.Auth; auth != nil {
			err = auth(socket, m.json)
		}
	}
	if err != nil {
		reason, _ := json.Marshal(err.Error())
		s.send(text(`44%s{"message":%s}`, prefix(m.namespace), reason))
		return true
	}
	s.sockets[m.namespace] = socket
	s.joined.Store(true)
	socket.Join("") // first: clients keep what comes to all before their answer
	s.send(text(`40%s{"sid":%q}`, prefix(m.namespace), socket.ID))
	if f := socket.Namespace.Connect; f != nil {
		f(socket)
	}
	return true
}

func (s *Socket) event(m *message, args []any) bool {
	if len(args) == 0 {
		return false
	}
	name, ok := args[0].(string)
	e := Event{Name: name, Args: args[1:]}
	if m.id != nil {
		e.Ack = func(args ...any) error { return s.send(typeAck, m.id, args) }
	}
	if ok && s.Namespace.Event != nil {
		s.Namespace.Event(s, e)
	}
	return ok
}

func (s *Socket) send(kind int, id *uint64, args []any) error {
	packets, err := encode(kind, s.Namespace.Name, id, args)
	if err == nil {
		s.session.send(packets...)
	}
	return err
}

// Emit sends an event. A []byte among args, or in a []any or map[string]any of
// them, goes as an attachment; the rest is what encoding/json makes of it.
func (s *Socket) Emit(event string, args ...any) error {
	return s.send(typeEvent, nil, append([]any{event}, args...))
}

// Volatile is Emit of what is worth nothing later: it leaves at once or never.
func (s *Socket) Volatile(event string, args ...any) (err error) {
	if s.session.ready() {
		err = s.Emit(event, args...)
	}
	return err
}

// Request is Emit that asks for an answer. Unless it returns an error done is
// called once: with the answer, ErrNoAnswer after the timeout, or ErrGone.
func (s *Socket) Request(timeout time.Duration, done func(args []any, err error), event string, args ...any) error {
	n, id := s.Namespace, s.lastAck.Add(1)
	packets, err := encode(typeEvent, n.Name, &id, append([]any{event}, args...))
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if s.rooms == nil {
		return ErrGone
	} else if len(s.acks) >= maxAcks {
		return ErrTooMany
	}
	s.acks[id] = &ack{done, time.AfterFunc(timeout, func() { s.answered(id, nil, ErrNoAnswer) })}
	s.session.send(packets...)
	return nil
}

// answered ignores an answer that is too late or was never asked for.
func (s *Socket) answered(id uint64, args []any, err error) {
	s.Namespace.mu.Lock()
	a := s.acks[id]
	delete(s.acks, id)
	s.Namespace.mu.Unlock()
	if a != nil {
		a.timer.Stop()
		a.done(args, err)
	}
}

// Join lets the socket into a room of its namespace.
func (s *Socket) Join(room string) error {
	n := s.Namespace
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case s.rooms == nil:
		return ErrGone
	case len(s.rooms) > maxRooms && !s.rooms[room]:
		return ErrTooMany
	case n.rooms == nil:
		n.rooms = make(map[string]map[*Socket]bool)
	}
	if n.rooms[room] == nil {
		n.rooms[room] = make(map[*Socket]bool)
	}
	n.rooms[room][s], s.rooms[room] = true, true
	return nil
}

// Leave takes it out again. A room that is empty is forgotten.
func (s *Socket) Leave(room string) {
	s.Namespace.mu.Lock()
	defer s.Namespace.mu.Unlock()
	rooms := s.Namespace.rooms
	delete(s.rooms, room)
	delete(rooms[room], s)
	if len(rooms[room]) == 0 {
		delete(rooms, room)
	}
}

// Emit sends an event to a room, "" for all, but not to except.
func (n *Namespace) Emit(room string, except *Socket, event string, args ...any) error {
	packets, err := encode(typeEvent, n.Name, nil, append([]any{event}, args...))
	if err != nil {
		return err
	}
	n.mu.Lock()
	members := slices.Collect(maps.Keys(n.rooms[room]))
	n.mu.Unlock()
	for _, s := range members {
		if s != except {
			s.session.send(packets...)
		}
	}
	return nil
}

// Disconnect sends the client out of the namespace, or all its session away.
func (s *Socket) Disconnect(all bool) {
	s.session.send(text("41%s", prefix(s.Namespace.Name)))
	if all {
		s.session.close("server namespace disconnect")
	} else {
		go s.session.leave("server namespace disconnect", s) // in its turn: this may be a callback of its own
	}
}

// leave takes a socket out of the session, or all of them.
func (s *session) leave(reason string, only *Socket) {
	s.receiving.Lock()
	defer s.receiving.Unlock()
	for name, socket := range s.sockets {
		if only == nil || only == socket {
			delete(s.sockets, name)
			socket.left(reason)
		}
	}
}

// left is the end of a socket, once.
func (s *Socket) left(reason string) {
	s.Namespace.mu.Lock()
	rooms, acks := s.rooms, maps.Clone(s.acks)
	s.rooms = nil
	s.Namespace.mu.Unlock()
	for room := range rooms {
		s.Leave(room)
	}
	for id := range acks {
		s.answered(id, nil, ErrGone)
	}
	if s.Namespace.Disconnect != nil {
		s.Namespace.Disconnect(s, reason)
	}
}
