package socketio

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rawws/websocket"
	"github.com/rawws/websocket/websockettest"
)

func read(c *websockettest.Client) string {
	_, p := c.Read()
	return string(p)
}

const patience = 20 * time.Second

// An app is what the tests talk to: two namespaces, and what happened in them.
type app struct {
	*testing.T
	io    *Server
	ln    net.Listener
	http  *http.Client
	chat  *Namespace
	ended chan string // reasons, as they come
}

// start serves on a listener of our own, with short pings if they are wanted.
func start(t *testing.T, io *Server) *app {
	t.Helper()
	return startWith(t, io, nil)
}

func startWith(t *testing.T, io *Server, connect func(s *Socket)) *app {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, io, connect, ln, func(context.Context, string, string) (net.Conn, error) { return net.Dial("tcp", ln.Addr().String()) })
}

// inMemory runs a test whose time is its own.
func inMemory(t *testing.T, io *Server, f func(t *testing.T, a *app)) {
	synctest.Test(t, func(t *testing.T) {
		ln := websockettest.NewListener()
		f(t, serve(t, io, nil, ln, func(context.Context, string, string) (net.Conn, error) { return ln.Dial() }))
	})
}

func serve(t *testing.T, io *Server, connect func(s *Socket), ln net.Listener, dial func(context.Context, string, string) (net.Conn, error)) *app {
	t.Helper()
	a := &app{T: t, io: io, ended: make(chan string, 100), http: &http.Client{Transport: &http.Transport{DialContext: dial}}}
	a.chat = &Namespace{Name: "/", Connect: connect, Event: a.event, Disconnect: func(s *Socket, reason string) { a.ended <- reason }}
	io.Namespaces = []*Namespace{a.chat, {
		Name: "/admin",
		Auth: func(s *Socket, auth json.RawMessage) error {
			if string(auth) != `{"token":"right"}` {
				return errors.New(`not "right"`)
			}
			return nil
		},
		Connect: func(s *Socket) { s.Emit("welcome", s.ID) },
		Event:   a.event,
	}}
	a.ln = ln
	ws := &websocket.Server{
		Handler: io.Events(), HTTP: io, Upgrader: websocket.Upgrader{OnUpgrade: io.OnUpgrade},
		ErrorLog: slog.New(slog.DiscardHandler),
	}
	go ws.Serve(ln)
	t.Cleanup(func() {
		a.http.CloseIdleConnections()
		io.Close()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := ws.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		io.mu.Lock()
		defer io.mu.Unlock()
		for _, s := range io.sessions {
			if s.conn != nil {
				t.Errorf("a session was left behind: %+v", s)
			}
		}
	})
	return a
}

func (a *app) event(s *Socket, e Event) {
	switch e.Name {
	case "echo":
		if e.Ack != nil {
			e.Ack(e.Args...)
		} else {
			s.Emit("echo", e.Args...)
		}
	case "join":
		s.Join(e.Args[0].(string))
	case "leave":
		s.Leave(e.Args[0].(string))
	case "say":
		s.Namespace.Emit(e.Args[0].(string), s, "said", e.Args[1:]...)
	case "kick":
		s.Disconnect(e.Args[0] == true)
	case "ask":
		s.Request(patience, func(args []any, err error) { s.Emit("answered", append(args, fmt.Sprint(err))...) }, "question", []byte("?"))
	case "panic":
		panic("as told")
	}
}

// wantEnd waits for the next Disconnect.
func (a *app) wantEnd(reason string) {
	a.Helper()
	select {
	case got := <-a.ended:
		if got != reason {
			a.Errorf("the socket ended by %q; want %q", got, reason)
		}
	case <-time.After(patience):
		a.Fatalf("the socket didn't end; want %q", reason)
	}
}

// A poller is a client that knows no WebSocket.
type poller struct {
	*app
	sid string
}

func (a *app) request(method, query, body string) (status int, answer string) {
	a.Helper()
	req, err := http.NewRequest(method, "http://test"+Path+query, strings.NewReader(body))
	if err != nil {
		a.Fatal(err)
	}
	resp, err := a.http.Do(req)
	if err != nil {
		a.Fatal(err)
	}
	defer resp.Body.Close()
	p, err := io.ReadAll(resp.Body)
	if err != nil {
		a.Fatal(err)
	}
	return resp.StatusCode, string(p)
}

const polling = "?EIO=4&transport=polling"

// poll opens a session, and joins the namespace where clients begin.
func (a *app) poll() *poller {
	a.Helper()
	p := &poller{a, a.hello(a.request("GET", polling, ""))}
	p.post("40")
	if got := p.get(); !strings.HasPrefix(got, `40{"sid":"`) {
		a.Fatalf("after 40: %q", got)
	}
	return p
}

// hello reads the first packet.
func (a *app) hello(status int, packet string) (sid string) {
	a.Helper()
	var hello struct {
		SID                       string
		Upgrades                  []string
		PingInterval, PingTimeout int
		MaxPayload                int
	}
	if status != 200 || packet[0] != '0' || json.Unmarshal([]byte(packet[1:]), &hello) != nil || hello.SID == "" ||
		hello.PingInterval == 0 || hello.PingTimeout == 0 || hello.MaxPayload != maxPayload {
		a.Fatalf("the first packet: %d %q", status, packet)
	}
	return hello.SID
}

func (p *poller) get() string {
	p.Helper()
	status, body := p.request("GET", polling+"&sid="+p.sid, "")
	if status != 200 {
		p.Fatalf("GET: %d %q", status, body)
	}
	return body
}

func (p *poller) post(packets ...string) {
	p.Helper()
	if status, body := p.request("POST", polling+"&sid="+p.sid, strings.Join(packets, "\x1e")); status != 200 || body != "ok" {
		p.Fatalf("POST of %.100q: %d %q; want ok", packets, status, body)
	}
}

func (p *poller) want(packets ...string) {
	p.Helper()
	if got, want := p.get(), strings.Join(packets, "\x1e"); got != want {
		p.Fatalf("GET: %.300q; want %.300q", got, want)
	}
}

// dial opens a session as a WebSocket.
func (a *app) dial() *websockettest.Client {
	a.Helper()
	c := websockettest.Dial(a, a.ln, Path+"?EIO=4&transport=websocket")
	a.hello(200, read(c))
	c.SendText("40")
	if got := read(c); !strings.HasPrefix(got, `40{"sid":"`) {
		a.Fatalf("after 40: %q", got)
	}
	return c
}

func TestRefused(t *testing.T) {
	a := start(t, &Server{})
	sid := a.poll().sid
	for _, tt := range []struct{ method, query, want string }{
		{"GET", "", `{"code":0,"message":"Transport unknown"}`},
		{"GET", "?EIO=4&transport=carrier-pigeon", `{"code":0,"message":"Transport unknown"}`},
		{"GET", "?EIO=4&transport=polling&sid=unknown", `{"code":1,"message":"Session ID unknown"}`},
		{"GET", "?EIO=4&transport=polling&sid=", `{"code":1,"message":"Session ID unknown"}`},
		{"POST", "?EIO=4&transport=polling", `{"code":2,"message":"Bad handshake method"}`},
		{"GET", "?EIO=4&transport=websocket", `{"code":3,"message":"Bad request"}`},
		{"PUT", "?EIO=4&transport=polling&sid=" + sid, `{"code":3,"message":"Bad request"}`},
		{"GET", "?EIO=3&transport=polling", `{"code":5,"message":"Unsupported protocol version"}`},
	} {
		if status, got := a.request(tt.method, tt.query, ""); status != 400 || got != tt.want {
			t.Errorf("%s %s: %d %s; want 400 %s", tt.method, tt.query, status, got, tt.want)
		}
	}
	for query, want := range map[string]string{
		"?EIO=3&transport=websocket":             `{"code":5,"message":"Unsupported protocol version"}`,
		"?EIO=4&transport=polling":               `{"code":3,"message":"Bad request"}`,
		"?EIO=4&transport=websocket&sid=unknown": `{"code":1,"message":"Session ID unknown"}`,
	} {
		resp := websockettest.WantRefusal(t, a.ln, 400, Path+query)
		if body, _ := io.ReadAll(resp.Body); string(body) != want || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("upgrade of %s: %s as %s; want %s as application/json", query, body, resp.Header.Get("Content-Type"), want)
		}
	}
}

func TestWebSocket(t *testing.T) {
	a := start(t, &Server{})
	c := a.dial()
	c.SendText(`42["echo",1,"é"]`)
	c.WantText(`42["echo",1,"é"]`)
	c.SendText(`427["echo",{"a":[]}]`)
	c.WantText(`437[{"a":[]}]`)
	c.SendText(`452-8["echo",{"_placeholder":true,"num":0},{"x":{"_placeholder":true,"num":1}}]`)
	c.SendBinary([]byte("\x00\xff"))
	c.SendBinary([]byte(""))
	c.WantText(`462-8[{"_placeholder":true,"num":0},{"x":{"_placeholder":true,"num":1}}]`)
	c.WantBinary([]byte("\x00\xff"))
	c.WantBinary([]byte(""))
	c.SendText(`42["ask"]`)
	c.WantText(`451-1["question",{"_placeholder":true,"num":0}]`)
	c.WantBinary([]byte("?"))
	c.SendText(`431["yes"]`)
	c.WantText(`42["answered","yes","\u003cnil\u003e"]`)
	c.SendText(`431["again"]`) // nobody asked
	c.SendText(`42["panic"]`)
	c.WantClose(1011)
	a.wantEnd("transport close")
}

func TestNamespaces(t *testing.T) {
	a := start(t, &Server{})
	c := a.dial()
	c.SendText(`40/nowhere,`)
	c.WantText(`44/nowhere,{"message":"Invalid namespace"}`)
	c.SendText(`40/admin,{"token":"wrong"}`)
	c.WantText(`44/admin,{"message":"not \"right\""}`)
	c.SendText(`42/admin,["echo"]`) // not let in, so nobody hears it
	c.SendText(`40/admin,{"token":"right"}`)
	var id string
	if got := read(c); !strings.HasPrefix(got, `40/admin,{"sid":"`) {
		t.Fatalf("after 40/admin: %q", got)
	} else {
		id = got[len(`40/admin,{"sid":"`) : len(got)-2]
	}
	c.WantText(`42/admin,["welcome","` + id + `"]`)
	c.SendText(`42/admin,["kick",false]`)
	c.WantText(`41/admin,`)
	c.SendText(`41`)
	a.wantEnd("client namespace disconnect")
	c.SendText(`40`)
	c.Read()
	c.SendText(`42["kick",true]`)
	c.WantText(`41`)
	c.WantClose(1000)
	a.wantEnd("server namespace disconnect")
	c = a.dial()
	c.SendText("1")
	c.WantClose(1000)
	a.wantEnd("transport close")
}

func TestPolling(t *testing.T) {
	a := start(t, &Server{})
	p := a.poll()
	p.post(`42["echo","один"]`, `421["echo",2]`, `451-["echo",{"_placeholder":true,"num":0}]`, "bAP8=")
	p.want(`42["echo","один"]`, `431[2]`, `451-["echo",{"_placeholder":true,"num":0}]`, "bAP8=")
	got := make(chan string)
	go func() { got <- p.get() }() // hangs
	p.post(`42["echo","late"]`)
	if got, want := <-got, `42["echo","late"]`; got != want {
		t.Errorf("the GET that hung: %q; want %q", got, want)
	}
	p.post(`42["kick",true]`)
	p.want("41") // though no GET hung when it happened
	p.want("1")
	a.wantEnd("server namespace disconnect")
	if status, body := p.request("GET", polling+"&sid="+p.sid, ""); status != 400 || !strings.Contains(body, `"code":1`) {
		t.Errorf("GET after the end: %d %s; want 400, code 1", status, body)
	}
	p = a.poll()
	p.post("1")
	a.wantEnd("transport close")
}

// The three steps of an upgrade, with a GET that hangs and things that come in
// between.
func TestUpgrade(t *testing.T) {
	a := start(t, &Server{})
	p := a.poll()
	last := make(chan string)
	go func() { last <- p.get() }()
	c := websockettest.Dial(t, a.ln, Path+"?EIO=4&transport=websocket&sid="+p.sid)
	c.SendPing("") // which is read when OnOpen is done
	c.WantPong("")
	second := websockettest.Dial(t, a.ln, Path+"?EIO=4&transport=websocket&sid="+p.sid)
	second.WantClose(1008) // one at a time
	c.SendText("2probe")
	c.WantText("3probe")
	if got := <-last; got != "6" {
		t.Errorf("the GET that hung ended with %q; want 6", got)
	}
	p.want("6") // one that was under way meanwhile
	p.post(`42["echo",1]`, `42["echo",2]`)
	c.SendText("5")
	c.SendText(`42["echo",3]`)
	for i := 1; i <= 3; i++ {
		c.WantText(fmt.Sprintf(`42["echo",%d]`, i))
	}
	if status, body := p.request("GET", polling+"&sid="+p.sid, ""); status != 400 || !strings.Contains(body, `"code":3`) {
		t.Errorf("GET after the upgrade: %d %s; want 400, code 3", status, body)
	}
	websockettest.WantRefusal(t, a.ln, 400, Path+"?EIO=4&transport=websocket&sid="+p.sid)
	c.Close(1000)
	a.wantEnd("transport close")
}

// A session that ends in the middle of an upgrade says so where its client
// listens, which has stopped polling.
func TestEndWhileUpgrading(t *testing.T) {
	a := start(t, &Server{})
	p := a.poll()
	c := websockettest.Dial(t, a.ln, Path+"?EIO=4&transport=websocket&sid="+p.sid)
	c.SendText("2probe")
	c.WantText("3probe")
	p.post(`42["kick",true]`)
	a.wantEnd("server namespace disconnect")
	c.SendText("5")
	c.WantText("41")
	c.WantClose(1000)
}

// A probe that says something else, goes away or never finishes leaves the
// session as it was.
func TestUpgradeThatFails(t *testing.T) {
	inMemory(t, &Server{}, func(t *testing.T, a *app) {
		for name, say := range map[string][]string{
			"5 without a probe": {"5"},
			"another thing":     {"2probe", `42["echo","stolen"]`},
			"nothing more":      {"2probe"},
			"nothing at all":    {},
		} {
			p := a.poll()
			c := websockettest.Dial(t, a.ln, Path+"?EIO=4&transport=websocket&sid="+p.sid)
			for _, s := range say {
				c.SendText(s)
			}
			for _, err := c.ReadFrame(); err == nil; { // until it is cut
				_, err = c.ReadFrame()
			}
			p.post(`42["echo","still here"]`)
			if got := p.get(); got != `42["echo","still here"]` && got != "6" {
				t.Errorf("%s: GET: %q", name, got)
			}
			// The next attempt is as good as the first.
			c = websockettest.Dial(t, a.ln, Path+"?EIO=4&transport=websocket&sid="+p.sid)
			c.SendText("2probe")
			c.WantText("3probe")
			c.Cut()
		}
	})
}

func TestHostile(t *testing.T) {
	for name, f := range map[string]func(a *app){
		"two GETs": func(a *app) {
			p := a.poll()
			done := make(chan int)
			for range 2 {
				go func() { status, _ := a.request("GET", polling+"&sid="+p.sid, ""); done <- status }()
			}
			if first, second := <-done, <-done; first+second != 200+400 {
				a.Errorf("two GETs at a time: %d and %d; want 200 and 400", first, second)
			}
			a.wantEnd("transport error")
		},
		"a POST that is too large": func(a *app) {
			p := a.poll()
			if status, _ := a.request("POST", polling+"&sid="+p.sid, "4"+strings.Repeat("x", maxPayload)); status != 413 {
				a.Errorf("a body over maxPayload: %d; want 413", status)
			}
			a.wantEnd("transport error")
		},
		"a POST that isn't finished": func(a *app) {
			p := a.poll()
			nc, err := net.Dial("tcp", a.ln.Addr().String())
			if err != nil {
				a.Fatal(err)
			}
			fmt.Fprintf(nc, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n42", Path+polling+"&sid="+p.sid)
			nc.Close()
			a.wantEnd("transport error")
		},
		"an answer nobody asked for": func(a *app) {
			c := a.dial()
			c.SendText(`4399["x"]`)
			c.SendText(`42["echo"]`)
			c.WantText(`42["echo"]`)
		},
		"text inside an event with attachments": wrong(`451-["echo"]`, `42["echo"]`),
		"binary out of nowhere":                 wrong("\x00binary"),
		"too many attachments":                  wrong(`417-["echo"]`),
		"an unknown packet":                     wrong("9"),
		"an empty packet":                       wrong(""),
		"a name that is no text":                wrong(`42[7]`),
		"an event without a name":               wrong(`42[]`),
		"no JSON":                               wrong(`42["echo"`),
		"the namespace twice":                   wrong("40"),
	} {
		t.Run(name, func(t *testing.T) { f(start(t, &Server{})) })
	}
}

// wrong sends packets of which the last one ends the session.
func wrong(packets ...string) func(a *app) {
	return func(a *app) {
		a.Helper()
		c := a.dial()
		for _, p := range packets {
			if data, binary := strings.CutPrefix(p, "\x00"); binary {
				c.SendBinary([]byte(data))
			} else {
				c.SendText(p)
			}
		}
		c.WantClose(1000)
		a.wantEnd("parse error")
	}
}

// More attachments than fit into one event are the end before they are kept.
func TestAttachedBytesAreBounded(t *testing.T) {
	a := start(t, &Server{})
	c := a.dial()
	c.SendText(`4516-["echo"]`)
	for range maxAttached/maxPayload + 1 {
		c.SendBinary(make([]byte, maxPayload))
	}
	a.wantEnd("parse error")
}

// Sessions that never come back are forgotten, and so many there may be.
func TestSessionsAreBounded(t *testing.T) {
	inMemory(t, &Server{MaxSessions: 10}, func(t *testing.T, a *app) {
		for range 10 {
			a.hello(a.request("GET", polling, ""))
		}
		if status, _ := a.request("GET", polling, ""); status != 503 {
			t.Errorf("the session above MaxSessions: %d; want 503", status)
		}
		websockettest.Dial(t, a.ln, Path+"?EIO=4&transport=websocket").WantClose(1013)
		time.Sleep(time.Minute)
		for range 10 {
			a.hello(a.request("GET", polling, ""))
		}
	})
}

// An hour of pings, and then one without an answer.
func TestPings(t *testing.T) {
	inMemory(t, &Server{}, func(t *testing.T, a *app) {
		c, p := a.dial(), a.poll()
		for begin := time.Now(); time.Since(begin) < time.Hour; {
			c.WantText("2")
			c.SendText("3")
			p.want("2")
			p.post("3")
		}
		c.WantText("2")
		c.WantClose(1000)
		a.wantEnd("ping timeout")
		a.wantEnd("ping timeout")
	})
}

// A body that never comes to its end lasts no longer than its session.
func TestDrippingPost(t *testing.T) {
	inMemory(t, &Server{}, func(t *testing.T, a *app) {
		p := a.poll()
		nc, err := a.ln.(*websockettest.Listener).Dial()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(nc, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n", Path+polling+"&sid="+p.sid)
		dripped := make(chan struct{})
		go func() {
			defer close(dripped)
			for range time.Tick(time.Second) {
				if _, err := io.WriteString(nc, "4"); err != nil {
					return
				}
			}
		}()
		resp, err := http.ReadResponse(bufio.NewReader(nc), nil)
		if err != nil || resp.StatusCode != 413 {
			t.Errorf("the answer: %v, %v; want 413", resp, err)
		}
		a.wantEnd("ping timeout")
		nc.Close()
		<-dripped
	})
}

// What waits for a GET that never comes is bounded.
func TestQueueIsBounded(t *testing.T) {
	a := start(t, &Server{})
	c := a.dial()
	a.poll() // and never again
	event := `42["say","","` + strings.Repeat("x", 64<<10) + `"]`
	for range maxQueue/(64<<10) + 2 {
		c.SendText(event)
	}
	a.wantEnd("transport error")
	c.SendText(`42["echo"]`)
	c.WantText(`42["echo"]`)
}

func TestRequestsAreBounded(t *testing.T) {
	sockets := make(chan *Socket, 1)
	a := startWith(t, &Server{}, func(s *Socket) { sockets <- s })
	c := a.dial()
	s := <-sockets
	errs := make(chan error, maxAcks)
	note := func(args []any, err error) { errs <- err }
	if err := s.Request(time.Millisecond, note, "q"); err != nil {
		t.Fatal(err)
	}
	if err := <-errs; err != ErrNoAnswer {
		t.Errorf("no answer in time: %v; want ErrNoAnswer", err)
	}
	c.WantText(`421["q"]`)
	c.SendText(`431["too late"]`)
	for range maxAcks {
		if err := s.Request(time.Hour, note, "q"); err != nil {
			t.Fatal(err)
		}
		c.Read()
	}
	if err := s.Request(time.Hour, note, "q"); err != ErrTooMany {
		t.Errorf("the request above %d: %v; want ErrTooMany", maxAcks, err)
	}
	c.Cut()
	for range maxAcks {
		if err := <-errs; err != ErrGone {
			t.Fatalf("after the end: %v; want ErrGone", err)
		}
	}
	if err := s.Request(time.Hour, note, "q"); err != ErrGone {
		t.Errorf("a request after the end: %v; want ErrGone", err)
	}
	if err := s.Join("x"); err != ErrGone {
		t.Errorf("Join after the end: %v; want ErrGone", err)
	}
}

// Events with attachments stay together while others talk, rooms are joined
// and left by all, and nothing of it is left at the end.
func TestStorm(t *testing.T) {
	const clients, rounds = 20, 50
	a := start(t, &Server{})
	var all sync.WaitGroup
	for i := range clients {
		c := a.dial()
		all.Go(func() {
			for range rounds {
				c.SendText(`42["join","room"]`)
				c.SendText(`452-["say","room",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]`)
				c.SendBinary([]byte("first"))
				c.SendBinary([]byte("second"))
				c.SendText(`42["leave","room"]`)
			}
			c.SendText(fmt.Sprintf(`42["echo",%d]`, i))
		})
		all.Go(func() {
			for {
				switch got := read(c); got {
				case fmt.Sprintf(`42["echo",%d]`, i):
					c.Cut()
					return
				case `452-["said",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]`:
					c.WantBinary([]byte("first"))
					c.WantBinary([]byte("second"))
				default:
					t.Errorf("client %d read %q", i, got)
				}
			}
		})
	}
	all.Wait()
	for range clients {
		a.wantEnd("transport close")
	}
	a.chat.mu.Lock()
	defer a.chat.mu.Unlock()
	if len(a.chat.rooms) != 0 {
		t.Errorf("rooms are left: %v", a.chat.rooms)
	}
}

func TestRoomsAreBounded(t *testing.T) {
	n := new(Namespace)
	s := &Socket{Namespace: n, rooms: make(map[string]bool)}
	for i := range maxRooms + 1 {
		if err := s.Join(fmt.Sprint(i)); err != nil {
			t.Fatalf("room %d: %v", i, err)
		}
	}
	if err := s.Join("one more"); err != ErrTooMany {
		t.Errorf("one room more: %v; want ErrTooMany", err)
	}
	if err := s.Join("0"); err != nil {
		t.Errorf("a room that it is in: %v", err)
	}
	s.Leave("0")
	if err := s.Join("one more"); err != nil || len(n.rooms) != maxRooms+1 {
		t.Errorf("a room in the place of another: %v, %d rooms", err, len(n.rooms))
	}
}
