package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/rawws/websocket"
)

// A feed shows a page the frames of its own connections: those whose URL names
// the page's session, a random string that nobody else knows.
type feed struct {
	mu    sync.Mutex // never held over Send, which has hooks too
	pages map[string]*websocket.Conn
	conns map[uint64]string // the sessions of connections that are shown
}

// A frame as a page gets it: header and payload as bytes.
type frame struct {
	At      float64 `json:"at"` // milliseconds since 1970
	Conn    uint64  `json:"conn"`
	Path    string  `json:"path,omitempty"` // of the request, which comes first
	Sent    bool    `json:"sent"`           // by the server
	Header  []byte  `json:"header,omitempty"`
	Length  uint64  `json:"length"`
	Wire    []byte  `json:"wire,omitempty"` // masked, if it is
	Payload []byte  `json:"payload,omitempty"`
}

// maxShown bytes of a payload are shown.
const maxShown = 2 << 10

func newFeed() *feed {
	return &feed{pages: make(map[string]*websocket.Conn), conns: make(map[uint64]string)}
}

func (f *feed) trace() *websocket.Trace {
	return &websocket.Trace{
		MaxPayload:   maxShown,
		Request:      f.request,
		FrameRead:    func(id uint64, t *websocket.TraceFrame) { f.show(id, t, false) },
		FrameWritten: func(id uint64, t *websocket.TraceFrame) { f.show(id, t, true) },
		Closed: func(id uint64, err error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			delete(f.conns, id)
		},
	}
}

// request notes whose a connection is, if a page has asked for it.
func (f *feed) request(id uint64, head []byte) {
	if !bytes.Contains(head, []byte("session=")) {
		return
	}
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
	if err != nil || r.URL.Path == wirePath {
		return
	}
	session := r.URL.Query().Get("session")
	f.mu.Lock()
	page := f.pages[session]
	if page != nil {
		f.conns[id] = session
	}
	f.mu.Unlock()
	send(page, frame{Conn: id, Path: r.URL.RequestURI()})
}

func (f *feed) show(id uint64, t *websocket.TraceFrame, sent bool) {
	f.mu.Lock()
	page := f.pages[f.conns[id]]
	f.mu.Unlock()
	send(page, frame{Conn: id, Sent: sent, Header: t.Header, Length: t.Length, Wire: t.Wire, Payload: t.Payload})
}

// send never waits: a page that doesn't keep up is closed with 1008.
func send(page *websocket.Conn, f frame) {
	if page == nil {
		return
	}
	f.At = float64(time.Now().UnixMicro()) / 1000
	p, err := json.Marshal(f)
	if err != nil {
		panic(err) // a frame holds nothing that JSON can't
	}
	page.Send(websocket.NewPreparedMessage(websocket.TextMessage, p))
}

// events serves the pages that look.
func (f *feed) events() websocket.Events {
	return websocket.Events{
		OnOpen: func(c *websocket.Conn, r *http.Request) {
			session := r.URL.Query().Get("session")
			f.mu.Lock()
			defer f.mu.Unlock()
			if session != "" && f.pages[session] == nil {
				f.pages[session] = c
				c.Data = session
			} else {
				go c.Close(websocket.ClosePolicyViolation, "a session of one's own is wanted")
			}
		},
		OnClose: func(c *websocket.Conn, err error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			if session, ok := c.Data.(string); ok {
				delete(f.pages, session)
			}
		},
	}
}
