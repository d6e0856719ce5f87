package signalr

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rawws/websocket"
	"github.com/rawws/websocket/websockettest"
)

const patience = 20 * time.Second

type app struct {
	*testing.T
	hub   *Hub
	ln    net.Listener
	ended chan string       // what the method "upload" saw at its end
	done  chan struct{}     // a client has left
	ws    *websocket.Server // to be shut down by a test
}

func start(t *testing.T, hub *Hub) *app {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, hub, ln)
}

func serve(t *testing.T, hub *Hub, ln net.Listener, change ...func(*websocket.Upgrader)) *app {
	t.Helper()
	a := &app{T: t, hub: hub, ended: make(chan string, 100), done: make(chan struct{}, 100)}
	hub.Disconnected = func(c *Client, err error) { a.done <- struct{}{} }
	hub.Methods = a.methods()
	a.ln = ln
	a.ws = &websocket.Server{Handler: hub.Events(), HTTP: hub, Upgrader: websocket.Upgrader{OnUpgrade: hub.OnUpgrade}, ErrorLog: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&a.ws.Upgrader)
	}
	go a.ws.Serve(ln)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := a.ws.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		hub.clients.Range(func(id, c any) bool { t.Errorf("the client %v was left behind", id); return true })
	})
	return a
}

func (a *app) methods() map[string]Method {
	return map[string]Method{
		"echo":  func(c *Call) (any, error) { return c.Args[0], nil },
		"fail":  func(c *Call) (any, error) { return nil, errors.New("as told") },
		"panic": func(c *Call) (any, error) { panic("as told") },
		"chan":  func(c *Call) (any, error) { return make(chan int), nil },
		"all":   func(c *Call) (any, error) { return nil, a.hub.All.Send("said", c.Args...) },
		"count": func(c *Call) (any, error) {
			for i := 0; ; i++ {
				if n, _ := c.Args[0].(float64); float64(i) == n {
					return "never seen", nil
				}
				if err := c.Yield(i); err != nil {
					a.ended <- fmt.Sprint("count: ", err)
					return nil, err
				}
			}
		},
		"nothing": func(c *Call) (any, error) { return nil, c.Yield(nil) },
		"upload": func(c *Call) (any, error) {
			n := 0
			for range c.Uploads[0] {
				n++
			}
			a.ended <- fmt.Sprintf("upload: %d, %v", n, context.Cause(c.Context))
			return n, nil
		},
		"deaf": func(c *Call) (any, error) { <-c.Context.Done(); return nil, context.Cause(c.Context) },
	}
}

func (a *app) wantEnd(want string) {
	a.Helper()
	select {
	case got := <-a.ended:
		if got != want {
			a.Errorf("the method ended with %q; want %q", got, want)
		}
	case <-time.After(patience):
		a.Fatalf("the method didn't end; want %q", want)
	}
}

// dial skips the negotiation and does the handshake.
func (a *app) dial() *websockettest.Client {
	a.Helper()
	c := websockettest.Dial(a, a.ln, "/hub")
	c.SendText(`{"protocol":"json","version":1}` + "\x1e")
	c.WantText("{}\x1e")
	return c
}

// say sends records in one message.
func say(c *websockettest.Client, records ...string) {
	c.SendText(strings.Join(records, "\x1e") + "\x1e")
}

func read(c *websockettest.Client) string {
	_, p := c.Read()
	return string(p)
}

func want(c *websockettest.Client, record string) {
	c.WantText(record + "\x1e")
}

func TestNegotiation(t *testing.T) {
	a := start(t, &Hub{})
	resp, err := http.Post("http://"+a.ln.Addr().String()+"/hub/negotiate?negotiateVersion=1", "text/plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct {
		NegotiateVersion              int
		ConnectionID, ConnectionToken string
		AvailableTransports           []struct {
			Transport       string
			TransferFormats []string
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.NegotiateVersion != 1 ||
		answer.ConnectionID == "" || answer.ConnectionToken == "" || len(answer.AvailableTransports) != 1 ||
		fmt.Sprint(answer.AvailableTransports[0]) != "{WebSockets [Text Binary]}" {
		t.Fatalf("negotiation: %+v, %v", answer, err)
	}
	c := websockettest.Dial(t, a.ln, "/hub?id="+answer.ConnectionToken)
	c.SendText(`{"protocol":"json","version":1}` + "\x1e")
	c.WantText("{}\x1e")
	if _, known := a.hub.clients.Load(answer.ConnectionID); !known {
		t.Errorf("no client has the ID %s that was negotiated", answer.ConnectionID)
	}
	websockettest.WantRefusal(t, a.ln, http.StatusConflict, "/hub?id="+answer.ConnectionToken)
}

func TestHandshake(t *testing.T) {
	a := start(t, &Hub{})
	for _, tt := range []struct{ in, want string }{
		{`{"protocol":"morse","version":1}` + "\x1e", `{"error":"the protocol \"morse\" isn't spoken here"}` + "\x1e"},
		{`{"protocol":"json","version":1}`, `{"error":"the protocol \"json\" isn't spoken here"}` + "\x1e"}, // without its end
		{`hello` + "\x1e", `{"error":"the protocol \"\" isn't spoken here"}` + "\x1e"},
	} {
		c := websockettest.Dial(t, a.ln, "/hub")
		c.SendText(tt.in)
		c.WantText(tt.want)
		c.WantClose(1000)
	}
	c := websockettest.Dial(t, a.ln, "/hub") // who doesn't wait for the answer
	c.SendText(`{"protocol":"json","version":1}` + "\x1e" + `{"type":1,"invocationId":"0","target":"echo","arguments":[1]}` + "\x1e")
	want(c, `{}`)
	want(c, `{"type":3,"invocationId":"0","result":1}`)
}

func TestCalls(t *testing.T) {
	a := start(t, &Hub{})
	c := a.dial()
	say(c, `{"type":1,"invocationId":"0","target":"echo","arguments":["é"]}`)
	want(c, `{"type":3,"invocationId":"0","result":"é"}`)
	say(c, `{"type":6}`, `{"type":99}`, `{"type":1,"target":"echo","arguments":[1]}`,
		`{"type":1,"invocationId":"1","target":"fail","arguments":[]}`, `{"type":1,"invocationId":"2","target":"none","arguments":[]}`,
		`{"type":1,"invocationId":"3","target":"panic"}`, `{"type":1,"invocationId":"4","target":"chan"}`, `{"type":1,"invocationId":"5","target":"echo"}`)
	want(c, `{"type":3,"invocationId":"1","error":"as told"}`)
	want(c, `{"type":3,"invocationId":"2","error":"no method \"none\""}`)
	want(c, `{"type":3,"invocationId":"3","error":"the method failed"}`)
	want(c, `{"type":3,"invocationId":"4","error":"signalr: a value that can't be encoded"}`)
	want(c, `{"type":3,"invocationId":"5","error":"the method failed"}`)
	other := a.dial()
	say(c, `{"type":1,"target":"all","arguments":["to all",1]}`)
	want(c, `{"type":1,"target":"said","arguments":["to all",1]}`)
	want(other, `{"type":1,"target":"said","arguments":["to all",1]}`)
	say(c, `{"type":7}`)
	c.WantClose(1000)
	a.hub.Close()
	want(other, `{"type":7,"allowReconnect":true}`)
}

func TestStreams(t *testing.T) {
	a := start(t, &Hub{})
	c := a.dial()
	say(c, `{"type":4,"invocationId":"0","target":"count","arguments":[2]}`)
	want(c, `{"type":2,"invocationId":"0","item":0}`)
	want(c, `{"type":2,"invocationId":"0","item":1}`)
	want(c, `{"type":3,"invocationId":"0"}`)
	say(c, `{"type":4,"invocationId":"1","target":"nothing","arguments":[]}`)
	want(c, `{"type":2,"invocationId":"1","item":null}`)
	want(c, `{"type":3,"invocationId":"1"}`)
	// An upload, while other calls go on.
	say(c, `{"type":1,"invocationId":"2","target":"upload","arguments":[],"streamIds":["3"]}`)
	for range 100 {
		say(c, `{"type":2,"invocationId":"3","item":{"a":1}}`)
	}
	say(c, `{"type":1,"invocationId":"4","target":"echo","arguments":[4]}`, `{"type":3,"invocationId":"3"}`,
		`{"type":3,"invocationId":"3"}`, `{"type":2,"invocationId":"3","item":0}`) // and late ones
	want(c, `{"type":3,"invocationId":"4","result":4}`)
	want(c, `{"type":3,"invocationId":"2","result":100}`)
	a.wantEnd("upload: 100, <nil>")
	// One without an answer, that fails at the client.
	say(c, `{"type":1,"target":"upload","arguments":[],"streamIds":["5"]}`, `{"type":3,"invocationId":"5","error":"lost it"}`)
	a.wantEnd("upload: 0, lost it")
}

// A method that never ends by itself is ended with what it serves.
func TestStreamsEnd(t *testing.T) {
	a := start(t, &Hub{})
	c := a.dial()
	say(c, `{"type":4,"invocationId":"0","target":"count","arguments":[-1]}`)
	c.Read()
	say(c, `{"type":5,"invocationId":"0"}`)
	a.wantEnd("count: context canceled")
	for {
		if got := read(c); got == `{"type":3,"invocationId":"0","error":"context canceled"}`+"\x1e" {
			break
		} else if !strings.HasPrefix(got, `{"type":2,"invocationId":"0","item":`) {
			t.Fatalf("read %q", got)
		}
	}
	say(c, `{"type":1,"invocationId":"1","target":"upload","arguments":[],"streamIds":["2"]}`, `{"type":5,"invocationId":"1"}`)
	a.wantEnd("upload: 0, context canceled")
	want(c, `{"type":3,"invocationId":"1","result":0}`)
	say(c, `{"type":4,"invocationId":"0","target":"count","arguments":[-1]}`,
		`{"type":1,"target":"upload","arguments":[],"streamIds":["1"]}`)
	c.Read()
	c.Cut()
	ends := map[string]bool{}
	for range 2 {
		select {
		case end := <-a.ended:
			ends[end[:6]] = true
		case <-time.After(patience):
			t.Fatalf("methods go on without their client; ended: %v", ends)
		}
	}
	if !ends["count:"] || !ends["upload"] {
		t.Errorf("what has ended: %v; want both", ends)
	}
}

// A reader that waits to hand over an item hears of the end from the pings.
func TestDeafMethod(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := serve(t, &Hub{}, ln, func(u *websocket.Upgrader) { u.PingInterval, u.PongTimeout = 50*time.Millisecond, 2*time.Second })
	c := a.dial()
	say(c, `{"type":1,"invocationId":"3","target":"deaf","arguments":[],"streamIds":["4"]}`)
	for range uploadAhead + 1 {
		say(c, `{"type":2,"invocationId":"4","item":0}`)
	}
	c.Cut()
	select {
	case <-a.done:
	case <-time.After(patience):
		t.Error("the client has gone, and its connection hasn't")
	}
}

func TestStreamsAreBounded(t *testing.T) {
	const refused = "too many streams, or one that is there already"
	a := start(t, &Hub{})
	c := a.dial()
	for _, streams := range []string{`"1","1"`, `"0"`, strings.Repeat(`"x",`, maxStreams) + `"x"`} {
		say(c, `{"type":1,"invocationId":"0","target":"upload","arguments":[],"streamIds":[`+streams+`]}`)
		want(c, `{"type":3,"invocationId":"0","error":"`+refused+`"}`)
	}
	for i := range maxStreams {
		say(c, fmt.Sprintf(`{"type":1,"invocationId":"i%d","target":"deaf","arguments":[],"streamIds":["s%d"]}`, i, i))
		if i >= maxStreams/2 {
			want(c, fmt.Sprintf(`{"type":3,"invocationId":"i%d","error":"%s"}`, i, refused))
		}
	}
	say(c, `{"type":5,"invocationId":"i0"}`)
	want(c, `{"type":3,"invocationId":"i0","error":"context canceled"}`)
}

func TestWrongRecords(t *testing.T) {
	a := start(t, &Hub{})
	for _, tt := range []struct {
		opcode  websockettest.Opcode
		payload string
	}{
		{websockettest.Text, `{"type":6}`}, // without its end
		{websockettest.Text, "\x1e"},
		{websockettest.Text, "{\x1e"},
		{websockettest.Text, `{"type":"one"}` + "\x1e"},
		{websockettest.Text, `{"type":1,"target":"echo","arguments":{}}` + "\x1e"},
		{websockettest.Binary, `{"type":6}` + "\x1e"},
		{websockettest.Text, strings.Repeat("[", 100_000) + "\x1e"},
	} {
		c := a.dial()
		c.SendFrame(websockettest.Frame{Opcode: tt.opcode, Payload: []byte(tt.payload)})
		want(c, `{"type":7,"error":"a record that can't be read"}`)
		c.WantClose(1000)
	}
}

// An hour with a client that pings, and then one that doesn't.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := serve(t, &Hub{}, websockettest.NewListener())
		c := a.dial()
		for range 4 * 60 {
			want(c, `{"type":6}`)
			say(c, `{"type":6}`)
		}
		want(c, `{"type":6}`)
		want(c, `{"type":6}`)
		want(c, `{"type":7,"error":"nothing has come for too long","allowReconnect":true}`)
		c.WantClose(1000)
		websockettest.Dial(t, a.ln, "/hub").WantClose(1008) // not even the handshake
	})
}

func TestMessagePack(t *testing.T) {
	a := start(t, &Hub{})
	c := websockettest.Dial(t, a.ln, "/hub")
	c.SendText(`{"protocol":"messagepack","version":1}` + "\x1e")
	c.WantText("{}\x1e")
	c.SendBinary([]byte("\x10\x96\x01\x80\xa1\x30\xa4echo\x91\xc4\x02\x00\xff\x90"))
	p := read(c)
	if got, err := decodePack([]byte(p)); err != nil || got[0].Type != typeCompletion || !strings.HasSuffix(p, "\x00\xff") {
		t.Errorf("the answer to echo: % x, %+v, %v", p, got, err)
	}
	other := a.dial() // in JSON
	say(other, `{"type":1,"target":"all","arguments":["to both"]}`)
	want(other, `{"type":1,"target":"said","arguments":["to both"]}`)
	p = read(c)
	if got, err := decodePack([]byte(p)); err != nil || got[0].Target != "said" || got[0].Arguments[0] != "to both" {
		t.Errorf("what goes to all: % x, %+v, %v", p, got, err)
	}
	c.SendText("text")
	read(c) // why
	c.WantClose(1000)
}
