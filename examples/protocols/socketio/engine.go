package socketio

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rawws/websocket"
)

// Engine.IO 4 is the layer below: a session that begins by long polling or as a
// WebSocket, and may move from the first to the second. Its packets are a digit
// and text, or binary without a digit.

const (
	maxPayload     = 1_000_000 // bytes of a packet that comes in, and of what one POST brings
	maxQueue       = 512 << 10 // bytes that wait for the client's next GET
	upgradeTimeout = 10 * time.Second
	separator      = 0x1e // between the packets of one body
)

// A packet is framed once, however many sessions get it.
type packet struct {
	binary bool
	data   []byte
	frame  *websocket.PreparedMessage
}

func text(format string, args ...any) packet {
	data := fmt.Appendf(nil, format, args...)
	return packet{false, data, websocket.NewPreparedMessage(websocket.TextMessage, data)}
}

func frames(packets []packet) (all []*websocket.PreparedMessage) {
	for _, p := range packets {
		all = append(all, p.frame)
	}
	return all
}

// A session is one client, whichever way it comes.
type session struct {
	srv *Server
	id  string

	receiving sync.Mutex // held while a packet is handled: there is an order
	pending   *message   // waits for its attachments; guarded by receiving
	sockets   map[string]*Socket

	mu               sync.Mutex      // guards what follows
	conn             *websocket.Conn // nil while the client polls
	probe            *websocket.Conn // the one that asks to take over
	probed           bool            // and was told that it may
	queue            []packet        // for the next GET
	queued           int             // bytes in queue
	wake             chan struct{}   // closed to let the GET go that hangs
	polling, posting bool
	pinged, closed   bool
	joined           atomic.Bool // a namespace, ever
	timer            *time.Timer
}

// open makes a session, unless there are too many.
func (srv *Server) open(conn *websocket.Conn) (s *session, hello packet) {
	s = &session{srv: srv, id: rand.Text(), conn: conn, sockets: make(map[string]*Socket)}
	upgrades := `"websocket"`
	if conn != nil {
		upgrades = ""
	}
	s.mu.Lock() // the timer may be faster
	defer s.mu.Unlock()
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.closed || len(srv.sessions) >= srv.maxSessions() {
		return nil, hello
	}
	if srv.sessions == nil {
		srv.sessions = make(map[string]*session)
	}
	srv.sessions[s.id] = s
	s.timer = time.AfterFunc(srv.pingInterval(), s.beat)
	return s, text(`0{"sid":%q,"upgrades":[%s],"pingInterval":%d,"pingTimeout":%d,"maxPayload":%d}`,
		s.id, upgrades, srv.pingInterval().Milliseconds(), srv.pingTimeout().Milliseconds(), maxPayload)
}

func bad(code int, message string) *websocket.HandshakeError {
	return &websocket.HandshakeError{Status: http.StatusBadRequest, Reason: fmt.Sprintf(`{"code":%d,"message":%q}`, code, message)}
}

// check holds a request against the rules, and finds the session it names.
func (srv *Server) check(r *http.Request, upgrade bool) (*session, *websocket.HandshakeError) {
	q := r.URL.Query()
	srv.mu.Lock()
	s := srv.sessions[q.Get("sid")]
	srv.mu.Unlock()
	switch transport, known := q.Get("transport"), q.Has("sid"); {
	case transport != "polling" && transport != "websocket":
		return nil, bad(0, "Transport unknown")
	case q.Get("EIO") != "4":
		return nil, bad(5, "Unsupported protocol version")
	case known && s == nil:
		return nil, bad(1, "Session ID unknown")
	case !known && r.Method != http.MethodGet:
		return nil, bad(2, "Bad handshake method")
	case (transport == "websocket") != upgrade || known && !s.polls():
		return nil, bad(3, "Bad request")
	}
	return s, nil
}

// ServeHTTP is long polling. Upgrades are for the WebSocket server.
func (srv *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s, wrong := srv.check(r, false)
	var body []byte
	switch {
	case wrong != nil:
	case s == nil:
		var hello packet
		if s, hello = srv.open(nil); s == nil {
			wrong = &websocket.HandshakeError{Status: http.StatusServiceUnavailable, Reason: `"too many sessions"`}
		}
		body = hello.data
	case r.Method == http.MethodGet:
		body, wrong = s.get(r)
	case r.Method == http.MethodPost:
		body, wrong = s.post(w, r)
	default:
		wrong = bad(3, "Bad request")
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
	if wrong != nil {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(wrong.Status)
		body = []byte(wrong.Reason)
	}
	w.Write(body)
}

// begin sets a flag that is to be set once at a time. Two GETs would take each
// other's packets, and two POSTs have no order: the second ends the session.
func (s *session) begin(flag *bool) *websocket.HandshakeError {
	s.mu.Lock()
	defer s.mu.Unlock()
	if *flag {
		go s.close("transport error")
		return bad(3, "Bad request")
	}
	*flag = true
	return nil
}

// get hangs until there is something to say.
func (s *session) get(r *http.Request) (body []byte, wrong *websocket.HandshakeError) {
	if wrong := s.begin(&s.polling); wrong != nil {
		return nil, wrong
	}
	wake := make(chan struct{})
	s.mu.Lock()
	s.wake = wake
	if len(s.queue) > 0 || s.probed || s.closed || s.conn != nil {
		s.signal()
	}
	s.mu.Unlock()
	select {
	case <-wake:
	case <-r.Context().Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.polling, s.wake = false, nil
	if r.Context().Err() != nil { // the client has gone, and what waits goes on waiting
		return nil, nil
	}
	for _, p := range s.queue {
		if p.binary {
			body = base64.StdEncoding.AppendEncode(append(body, 'b'), p.data)
		} else {
			body = append(body, p.data...)
		}
		body = append(body, separator)
	}
	s.queue, s.queued = nil, 0
	switch {
	case len(body) > 0:
		return body[:len(body)-1], nil
	case s.closed: // by itself: clients act on it before they look at what came along
		s.srv.forget(s)
		return []byte("1"), nil
	}
	return []byte("6"), nil // it is to come as a WebSocket
}

// signal lets the GET go that hangs. mu is held.
func (s *session) signal() {
	if s.wake != nil {
		close(s.wake)
		s.wake = nil
	}
}

// post takes packets. It answers when they were handled, so that what comes
// next, whichever way, comes behind them.
func (s *session) post(w http.ResponseWriter, r *http.Request) (body []byte, wrong *websocket.HandshakeError) {
	if wrong := s.begin(&s.posting); wrong != nil {
		return nil, wrong
	}
	defer func() {
		s.mu.Lock()
		s.posting = false
		s.mu.Unlock()
	}()
	body, err := io.ReadAll(&postBody{http.MaxBytesReader(w, r.Body, maxPayload), s, http.NewResponseController(w)})
	if err != nil {
		s.close("transport error")
		return nil, &websocket.HandshakeError{Status: http.StatusRequestEntityTooLarge, Reason: `"too large, too slow or cut"`}
	}
	for part := range bytes.SplitSeq(body, []byte{separator}) {
		if data, binary := bytes.CutPrefix(part, []byte("b")); !binary {
			s.receive(false, part)
		} else if data, err := base64.StdEncoding.AppendDecode(nil, data); err == nil {
			s.receive(true, data)
		} else {
			s.close("parse error")
		}
	}
	return []byte("ok"), nil
}

// A postBody may take long, as long as it comes and its session lasts.
type postBody struct {
	io.Reader
	s       *session
	control *http.ResponseController
}

func (b *postBody) Read(p []byte) (int, error) {
	b.s.mu.Lock()
	closed := b.s.closed
	b.s.mu.Unlock()
	if closed {
		return 0, ErrGone
	}
	b.control.SetReadDeadline(time.Now().Add(b.s.srv.pingTimeout()))
	return b.Reader.Read(p)
}

// OnUpgrade refuses what Events would have to close. It is for the Upgrader.
func (srv *Server) OnUpgrade(r *http.Request, a *websocket.Accept) error {
	a.MaxMessageSize = maxPayload
	if _, wrong := srv.check(r, true); wrong != nil {
		a.Header.Set("Content-Type", "application/json")
		return wrong
	}
	return nil
}

// Events serves the WebSockets.
func (srv *Server) Events() websocket.Events {
	return websocket.Events{OnOpen: srv.connected, OnMessage: received, OnClose: lost}
}

func (srv *Server) connected(c *websocket.Conn, r *http.Request) {
	s, wrong := srv.check(r, true)
	if s != nil && s.begins(c) {
		c.Data = s
	} else if wrong != nil || s != nil {
		c.Close(websocket.ClosePolicyViolation, "no session to take over")
	} else if s, hello := srv.open(c); s != nil {
		c.Data = s
		s.send(hello)
	} else {
		c.Close(websocket.CloseTryAgainLater, "too many sessions")
	}
}

// begins lets c ask to take the session over: one at a time, and not for ever.
func (s *session) begins(c *websocket.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.conn != nil || s.probe != nil {
		return false
	}
	s.probe, s.probed = c, false
	time.AfterFunc(min(upgradeTimeout, s.srv.pingTimeout()), func() { s.upgraded(c, "") })
	return true
}

func (s *session) polls() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn == nil
}

// ready reports whether what is sent now leaves now.
func (s *session) ready() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn != nil && s.conn.Queued() == 0 || s.wake != nil
}

func received(c *websocket.Conn, t websocket.MessageType, data []byte) {
	s, ok := c.Data.(*session)
	if ok && s.upgraded(c, string(data[:min(len(data), 8)])) {
		s.receive(t == websocket.BinaryMessage, data)
	}
}

// upgraded reports whether c has the session. It takes it over in three steps:
// 2probe is answered by 3probe and ends the GET that hangs; the client takes
// that as the last one, ends its POST, and says 5; and c gets what has waited.
func (s *session) upgraded(c *websocket.Conn, said string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.conn == c:
		return true
	case s.probe == c && said == "2probe":
		s.probed = true
		c.Send(text("3probe").frame)
	case s.probe == c && said == "5" && s.probed:
		s.conn, s.probe, s.probed = c, nil, false
		c.Send(frames(s.queue)...)
		s.queue, s.queued = nil, 0
		if s.closed {
			s.srv.forget(s)
			go c.Close(websocket.CloseNormal, "")
		}
	default: // nothing that it should say, or nothing at all; the client goes on polling
		if s.probe == c {
			s.probe, s.probed = nil, false
		}
		go c.CloseNow()
	}
	s.signal()
	return false
}

func lost(c *websocket.Conn, err error) {
	if s, ok := c.Data.(*session); ok && s.upgraded(c, "") {
		s.close("transport close")
	}
}

// send never waits. Packets of one call stay together.
func (s *session) send(packets ...packet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		s.conn.Send(frames(packets)...) // the library closes the one whose queue is full
		return
	}
	for _, p := range packets {
		if s.queued > 0 && s.queued+len(p.data) > maxQueue || s.closed {
			go s.close("transport error") // unless it is
			return
		}
		s.queue, s.queued = append(s.queue, p), s.queued+len(p.data)
		s.signal()
	}
}

// receive handles a packet. The application's callbacks run in here.
func (s *session) receive(binary bool, data []byte) {
	s.receiving.Lock()
	defer s.receiving.Unlock()
	s.mu.Lock()
	closed, pong := s.closed, !binary && string(data) == "3"
	if !closed && pong && s.pinged {
		s.pinged = false
		s.timer.Reset(s.srv.pingInterval())
	}
	s.mu.Unlock()
	ok := true
	switch {
	case closed || pong:
	case binary:
		ok = s.attachment(data)
	case len(data) > 0 && data[0] == '4':
		ok = s.packet(data[1:])
	case string(data) == "1":
		s.close("transport close")
	default:
		ok = false
	}
	if !ok {
		s.close("parse error")
	}
}

// beat sends a ping, or finds the last one without an answer. Who has joined no
// namespace by the first only takes a place.
func (s *session) beat() {
	s.mu.Lock()
	missed := s.pinged || !s.joined.Load()
	s.pinged = true
	if !s.closed {
		s.timer.Reset(s.srv.pingTimeout())
	}
	s.mu.Unlock()
	if missed {
		s.close("ping timeout")
	} else {
		s.send(text("2"))
	}
}

// close ends the session. What a polling client is still to be told waits for
// its next GET, for a while.
func (s *session) close(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	s.timer.Stop()
	s.signal()
	if s.conn != nil {
		s.srv.forget(s)
		go s.conn.Close(websocket.CloseNormal, "")
	} else {
		time.AfterFunc(s.srv.pingTimeout(), func() { s.srv.forget(s) })
	}
	if s.probe != nil && !s.probed { // or the client has stopped polling, and only listens there
		go s.probe.CloseNow()
	}
	go s.leave(reason, nil) // in its turn: this may be a callback of the session's own
}

// forget takes s out of the sessions there are.
func (srv *Server) forget(s *session) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	delete(srv.sessions, s.id)
}
