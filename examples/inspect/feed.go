package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rawws/websocket"
)

// An event is a step of the server's, or of the raw client's, as a page gets it.
type event struct {
	Kind   string  `json:"kind"`
	At     float64 `json:"at"` // milliseconds since 1970
	Conn   uint64  `json:"conn,omitempty"`
	Client string  `json:"client,omitempty"`
	ID     int     `json:"id,omitempty"`

	Local  string `json:"local,omitempty"`
	Remote string `json:"remote,omitempty"`
	FD     int    `json:"fd,omitempty"`
	PID    int    `json:"pid,omitempty"`

	Text   string `json:"text,omitempty"`
	Key    string `json:"key,omitempty"`
	Accept string `json:"accept,omitempty"`
	State  string `json:"state,omitempty"`
	Bytes  []byte `json:"bytes,omitempty"`
	Frame  *frame `json:"frame,omitempty"`
	End    *end   `json:"end,omitempty"`
}

// A frame has its header as bytes: taking it apart is the page's business.
type frame struct {
	Header  []byte   `json:"header"`
	Length  uint64   `json:"length"`
	Seen    uint64   `json:"seen"`
	Wire    []byte   `json:"wire"`
	Payload []byte   `json:"payload"`
	Problem *problem `json:"problem"`
}

type end struct {
	Sent     websocket.CloseCode `json:"sent"`
	Received websocket.CloseCode `json:"received"`
	Clean    bool                `json:"clean"`
	Problem  *problem            `json:"problem"`
}

// A problem is a rule that was broken and where it stands, or another error.
type problem struct {
	Code    websocket.CloseCode `json:"code"`
	Reason  string              `json:"reason"`
	Section string              `json:"section"`
}

func newFrame(f *websocket.TraceFrame) *frame {
	return &frame{bytes.Clone(f.Header), f.Length, f.Seen, bytes.Clone(f.Wire), bytes.Clone(f.Payload), newProblem(f.Err)}
}

func newEnd(err error) *end {
	var e *websocket.EndError
	if !errors.As(err, &e) {
		return &end{Problem: newProblem(err)}
	}
	return &end{e.Sent, e.Received, e.Clean, newProblem(e.Err)}
}

func newProblem(err error) *problem {
	var rule *websocket.ProtocolError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &rule):
		return &problem{rule.Code, rule.Reason, rule.Section}
	}
	return &problem{Reason: err.Error()}
}

func now() float64 { return float64(time.Now().UnixMicro()) / 1000 }

// descriptor returns the number by which the process knows a socket.
func descriptor(socket any) (n int) {
	if sc, ok := socket.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			raw.Control(func(fd uintptr) { n = int(fd) })
		}
	}
	return n
}

// A feed brings the steps of the connections that are looked at to the pages.
type feed struct {
	listen event // the first for each page

	mu      sync.Mutex // guards the rest; never held over send, which has hooks too
	viewers map[*websocket.Conn]string
	clients map[uint64]*client
}

// A client is a connection that is looked at, if it isn't hidden: the pages'
// own, and those that only ask for a file.
type client struct {
	session, name string
	hidden        bool
	held          []event // until it is known whose they are
}

func newFeed() *feed {
	return &feed{viewers: make(map[*websocket.Conn]string), clients: make(map[uint64]*client)}
}

func (f *feed) join(c *websocket.Conn, session string) {
	send(c, f.listen)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.viewers[c] = session
}

func (f *feed) leave(c *websocket.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.viewers, c)
}

// send never waits: a page that doesn't keep up is closed with 1008.
func send(c *websocket.Conn, e event) {
	data, err := json.Marshal(e)
	if err != nil {
		panic(err) // an event holds nothing that JSON can't
	}
	c.Send(websocket.NewPreparedMessage(websocket.TextMessage, data))
}

// publish sends e to the pages of the session, or to all when it is "".
func (f *feed) publish(session string, e event) {
	f.mu.Lock()
	var to []*websocket.Conn
	for c, s := range f.viewers {
		if session == "" || session == s {
			to = append(to, c)
		}
	}
	f.mu.Unlock()
	for _, c := range to {
		send(c, e)
	}
}

// note takes a step of a connection, and publishes it when it is known whose
// it is: with the answer at the latest.
func (f *feed) note(id uint64, e event) {
	e.Conn, e.At = id, now()
	f.mu.Lock()
	if e.Kind == "accept" {
		f.clients[id] = new(client)
	}
	c := f.clients[id]
	if c == nil { // a frame that was being written when the socket was closed
		f.mu.Unlock()
		return
	}
	switch {
	case e.Kind == "request":
		c.identify(e.Text)
	case e.State == "http":
		c.hidden = true
	case e.Kind == "closed":
		delete(f.clients, id)
	}
	var ready []event
	if !c.hidden {
		c.held = append(c.held, e)
		if e.Kind != "accept" && e.Kind != "request" {
			ready, c.held = c.held, nil
		}
	}
	f.mu.Unlock()
	for _, e := range ready {
		e.Client = c.name
		f.publish(c.session, e)
	}
}

func (c *client) identify(head string) {
	words := strings.Fields(head)
	if len(words) < 2 {
		return
	}
	if u, err := url.Parse(words[1]); err == nil {
		c.session, c.name = whose(u)
		c.hidden = u.Path == tracePath
	}
}

func (f *feed) trace() *websocket.Trace {
	return &websocket.Trace{
		Accepted: func(id uint64, nc net.Conn) {
			f.note(id, event{Kind: "accept", Local: nc.LocalAddr().String(), Remote: nc.RemoteAddr().String(), FD: descriptor(nc)})
		},
		Request: func(id uint64, head []byte) {
			f.note(id, event{Kind: "request", Text: string(head)})
		},
		Answer: func(id uint64, key, accept string, head []byte) {
			f.note(id, event{Kind: "answer", Key: key, Accept: accept, Text: string(head)})
		},
		FrameRead: func(id uint64, fr *websocket.TraceFrame) {
			f.note(id, event{Kind: "read", Frame: newFrame(fr)})
		},
		FrameWritten: func(id uint64, fr *websocket.TraceFrame) {
			f.note(id, event{Kind: "write", Frame: newFrame(fr)})
		},
		State:  func(id uint64, state string) { f.note(id, event{Kind: "state", State: state}) },
		Closed: func(id uint64, err error) { f.note(id, event{Kind: "closed", End: newEnd(err)}) },
	}
}
