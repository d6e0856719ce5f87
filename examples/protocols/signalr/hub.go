// Package signalr serves the clients of ASP.NET Core SignalR, in JSON and in
// MessagePack. POSTs to <path>/negotiate go to the Hub, which is an
// http.Handler, and upgrades of <path> to its OnUpgrade and Events.
package signalr

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rawws/websocket"
)

// Bytes of a message; streams of a client; items that a method hasn't yet taken.
const maxMessage, maxStreams, uploadAhead = 128 << 10, 100, 16

// A Hub is a set of methods and the clients that may call them.
type Hub struct {
	Methods       map[string]Method
	Connected     func(c *Client)
	Disconnected  func(c *Client, err error)
	KeepAlive     time.Duration // between pings; 15 s by default
	ClientTimeout time.Duration // without anything from the client; 30 s by default

	All     Group    // every client
	clients sync.Map // by ID
}

// A Method is what clients call. Calls of a client without streams come one
// after the other, in its order; while one runs its client isn't listened to.
// Those with streams run on goroutines of their own.
type Method func(c *Call) (result any, err error)

// A Call is one of a method by a client.
type Call struct {
	*Client
	Context context.Context      // done when the client has cancelled the call, or left
	Args    []any                // as encoding/json, or MessagePack, has them
	Uploads []<-chan any         // streams from the client, closed at their end
	Yield   func(item any) error // sends an item down; nil if one result is wanted
}

// A Client is a connection.
type Client struct {
	ID       string
	Data     any // the application's
	hub      *Hub
	conn     *websocket.Conn
	codec    atomic.Pointer[codec] // nil before the handshake record
	received atomic.Int64          // when something came last, in Unix nanoseconds; never, while it is worked on

	mu      sync.Mutex
	streams map[string]*stream // by the ID that the client chose; guarded by mu
}

// A stream is one from the client to a call, or a call that it may cancel,
// which has no items. The reader ends it.
type stream struct {
	call   context.Context
	cancel context.CancelCauseFunc
	items  chan any
}

func (h *Hub) Events() websocket.Events {
	return websocket.Events{OnOpen: h.open, OnMessage: h.message, OnClose: h.closed}
}

func (h *Hub) open(conn *websocket.Conn, r *http.Request) {
	c := &Client{ID: connectionID(r.URL.Query().Get("id")), hub: h, conn: conn, streams: make(map[string]*stream)}
	if _, taken := h.clients.LoadOrStore(c.ID, c); taken { // two came at the same time
		conn.Close(websocket.ClosePolicyViolation, "the connection with this token is open")
		return
	}
	conn.Data = c
	time.AfterFunc(cmp.Or(h.KeepAlive, 15*time.Second), c.beat)
}

// beat pings the client, and ends one that says nothing.
func (c *Client) beat() {
	silence := time.Since(time.Unix(0, c.received.Load()))
	switch {
	case c.conn.Context().Err() != nil: // it has ended
	case c.codec.Load() == nil:
		c.conn.Close(websocket.ClosePolicyViolation, "no handshake record")
	case silence > cmp.Or(c.hub.ClientTimeout, 30*time.Second):
		c.end("nothing has come for too long", true)
	default:
		c.put(false, &record{Type: typePing})
		time.AfterFunc(cmp.Or(c.hub.KeepAlive, 15*time.Second), c.beat)
	}
}

func (h *Hub) message(conn *websocket.Conn, t websocket.MessageType, data []byte) {
	c, ok := conn.Data.(*Client)
	if !ok {
		return
	}
	c.received.Store(math.MaxInt64)
	defer func() { c.received.Store(time.Now().UnixNano()) }()
	if c.codec.Load() == nil {
		if data = c.handshake(data); len(data) == 0 {
			return
		}
	}
	codec := c.codec.Load()
	records, err := codec.decode(data)
	if err != nil || t != codec.messageType {
		c.end("a record that can't be read", false)
		return
	}
	for i := range records {
		c.handle(&records[i])
	}
}

// handshake takes the first record, always JSON, and returns what is behind it.
func (c *Client) handshake(data []byte) (rest []byte) {
	first, rest, whole := bytes.Cut(data, []byte{recordEnd})
	var wish struct{ Protocol string }
	if err := json.Unmarshal(first, &wish); err != nil || !whole || codecs[wish.Protocol] == nil {
		why, _ := json.Marshal(map[string]string{"error": fmt.Sprintf("the protocol %.32q isn't spoken here", wish.Protocol)})
		c.conn.WriteMessage(websocket.TextMessage, append(why, recordEnd))
		c.conn.Close(websocket.CloseNormal, "")
		return nil
	}
	c.codec.Store(codecs[wish.Protocol])
	if w, err := c.conn.NextWriter(websocket.TextMessage); err == nil {
		c.hub.All.Join(c) // what goes to all from here on comes behind our answer
		w.Write([]byte{'{', '}', recordEnd})
		w.Close()
	}
	if c.hub.Connected != nil {
		c.hub.Connected(c)
	}
	return rest
}

// handle acts on one record. Unknown ones are of versions to come, and those of
// unknown streams are late.
func (c *Client) handle(r *record) {
	c.mu.Lock()
	s := c.streams[r.InvocationID]
	c.mu.Unlock()
	switch {
	case r.Type == typeInvocation || r.Type == typeStreamInvocation:
		c.invoke(r)
	case r.Type == typeClose:
		c.conn.Close(websocket.CloseNormal, "")
	case s == nil:
	case r.Type == typeCancel:
		s.cancel(context.Canceled)
		c.endUploads(func(u *stream) bool { return u.call == s.call })
	case s.items == nil:
	case r.Type == typeStreamItem:
		select { // here the client waits for its method
		case s.items <- r.Item:
		case <-s.call.Done():
		}
	case r.Type == typeCompletion:
		if r.Error != "" {
			s.cancel(errors.New(r.Error))
		}
		c.endUploads(func(u *stream) bool { return u == s })
	}
}

// endUploads tells methods that no more will come from the client.
func (c *Client) endUploads(which func(*stream) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.streams, func(_ string, s *stream) bool {
		ends := s.items != nil && which(s)
		if ends {
			close(s.items)
		}
		return ends
	})
}

// invoke runs a call, or lets it run beside the others if it has streams.
func (c *Client) invoke(r *record) {
	call := &Call{Client: c, Context: c.conn.Context(), Args: r.Arguments}
	if r.Type == typeInvocation && len(r.StreamIDs) == 0 {
		result, err := c.run(r, call)
		c.complete(r, result, err)
		return
	}
	var cancel context.CancelCauseFunc
	call.Context, cancel = context.WithCancelCause(call.Context)
	if r.Type == typeStreamInvocation {
		call.Yield = func(item any) error {
			if call.Context.Err() != nil {
				return context.Cause(call.Context)
			}
			if item == nil {
				item = json.RawMessage("null") // which isn't left out
			}
			return c.put(true, &record{Type: typeStreamItem, InvocationID: r.InvocationID, Item: item})
		}
	}
	if !c.begin(r, call, cancel) {
		cancel(nil)
		c.complete(r, nil, errors.New("too many streams, or one that is there already"))
		return
	}
	go func() {
		result, err := c.run(r, call)
		cancel(nil) // lets the reader go that waits to hand over an item
		c.mu.Lock()
		maps.DeleteFunc(c.streams, func(_ string, s *stream) bool { return s.call == call.Context })
		c.mu.Unlock()
		c.complete(r, result, err) // behind which the client may use the ID again
	}()
}

func (c *Client) begin(r *record, call *Call, cancel context.CancelCauseFunc) bool {
	if len(r.StreamIDs) >= maxStreams {
		return false
	}
	begun := map[string]*stream{r.InvocationID: {call: call.Context, cancel: cancel}}
	for _, id := range r.StreamIDs {
		items := make(chan any, uploadAhead)
		begun[fmt.Sprint(id)] = &stream{call: call.Context, cancel: cancel, items: items}
		call.Uploads = append(call.Uploads, items)
	}
	twice := len(begun) <= len(r.StreamIDs)
	delete(begun, "") // nobody will ask for it
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range begun {
		if twice || c.streams[id] != nil || len(c.streams)+len(begun) > maxStreams {
			return false
		}
	}
	maps.Copy(c.streams, begun)
	return true
}

// run calls the method. A panic costs this call and nothing else.
func (c *Client) run(r *record, call *Call) (result any, err error) {
	defer func() {
		if v := recover(); v != nil {
			slog.Error("signalr: method panicked", "method", r.Target, "panic", v, "stack", string(debug.Stack()))
			result, err = nil, errors.New("the method failed")
		}
	}()
	method := c.hub.Methods[r.Target]
	if method == nil {
		return nil, fmt.Errorf("no method %.64q", r.Target)
	}
	if result, err = method(call); call.Yield != nil {
		result = nil // the end of a stream says no more
	}
	return result, err
}

func (c *Client) complete(r *record, result any, err error) {
	if r.InvocationID == "" {
		return
	}
	answer := &record{Type: typeCompletion, InvocationID: r.InvocationID, Result: result}
	if err != nil {
		answer.Result, answer.Error = nil, cmp.Or(err.Error(), "failed")
	}
	if err := c.put(true, answer); errors.Is(err, errEncode) {
		c.put(true, &record{Type: typeCompletion, InvocationID: r.InvocationID, Error: err.Error()})
	}
}

// put sends a record, and waits for the client if a stream is to be as slow as it.
func (c *Client) put(wait bool, r *record) error {
	m, err := c.codec.Load().prepare(r)
	if err == nil && wait {
		return c.conn.WritePrepared(m)
	} else if err == nil {
		return c.conn.Send(m)
	}
	return err
}

// Send calls a method of the client's, without an answer.
func (c *Client) Send(target string, args ...any) error {
	return c.put(false, &record{Type: typeInvocation, Target: target, Arguments: append([]any{}, args...)})
}

// end says why, and whether the client may come back.
func (c *Client) end(reason string, again bool) {
	c.put(false, &record{Type: typeClose, Error: reason, AllowReconnect: again})
	c.conn.Close(websocket.CloseNormal, "")
}

// Close tells every client that it may come back, before a Shutdown.
func (h *Hub) Close() { h.All.send(&record{Type: typeClose, AllowReconnect: true}) }

func (h *Hub) closed(conn *websocket.Conn, err error) {
	c, ok := conn.Data.(*Client)
	if !ok {
		return
	}
	h.clients.Delete(c.ID)
	c.endUploads(func(*stream) bool { return true })
	if h.Disconnected != nil && c.codec.Load() != nil {
		h.Disconnected(c, err)
	}
}

// A Group is a set of clients that get the same calls: the library's group,
// once for each encoding. Who leaves the hub leaves it by himself.
type Group struct{ of [2]websocket.Group }

func (g *Group) Join(c *Client) bool  { return g.of[c.codec.Load().index].Join(c.conn) }
func (g *Group) Leave(c *Client) bool { return g.of[c.codec.Load().index].Leave(c.conn) }

// Send calls a method of every member. It waits for none.
func (g *Group) Send(target string, args ...any) error {
	return g.send(&record{Type: typeInvocation, Target: target, Arguments: append([]any{}, args...)})
}

func (g *Group) send(r *record) error {
	for _, codec := range codecs {
		m, err := codec.prepare(r)
		if err != nil {
			return err
		}
		g.of[codec.index].Broadcast(m)
	}
	return nil
}
