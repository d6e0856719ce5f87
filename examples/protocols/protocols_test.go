package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/rawws/websocket/examples/protocols/jwebsocket"
	"github.com/rawws/websocket/examples/protocols/socketio"
	"github.com/rawws/websocket/websockettest"
)

// A sessionWatch tells of the first request that names a session.
type sessionWatch struct {
	http.Handler
	came chan string
}

func (w sessionWatch) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if sid := r.URL.Query().Get("sid"); sid != "" {
		select {
		case w.came <- sid:
		default:
		}
	}
	w.Handler.ServeHTTP(rw, r)
}

// bothWays runs f with the server on its own listener, and behind net/http.
func bothWays(t *testing.T, f func(t *testing.T, p *protocols, ln net.Listener)) {
	for name, behind := range map[string]bool{"own listener": false, "net/http": true} {
		t.Run(name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			p := newProtocols(false)
			p.ws.ErrorLog = slog.New(slog.DiscardHandler)
			p.ws.HTTP = sessionWatch{p.ws.HTTP, make(chan string, 1)}
			if behind {
				p.web = newWeb(p.ws)
			}
			served := make(chan error, 1)
			go func() { served <- p.serve(ln) }()
			t.Cleanup(func() {
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				defer cancel()
				if err := p.shutDown(ctx); err != nil {
					t.Errorf("shutDown: %v", err)
				}
				<-served
			})
			f(t, p, ln)
		})
	}
}

func TestRoutes(t *testing.T) {
	bothWays(t, func(t *testing.T, p *protocols, ln net.Listener) {
		for _, tt := range []struct {
			method, path string
			status       int
			has          string
		}{
			{"GET", "/", 200, "Three protocols"},
			{"GET", "/page.js", 200, "watch()"},
			{"GET", "/nothing", 404, ""},
			{"POST", "/hub/negotiate?negotiateVersion=1", 200, `"transport":"WebSockets"`},
			{"GET", "/hub/negotiate", 404, ""},
			{"GET", "/socket.io/?EIO=4&transport=polling", 200, `"upgrades":["websocket"]`},
			{"GET", "/socket.io/", 400, `{"code":0,"message":"Transport unknown"}`},
		} {
			req, err := http.NewRequest(tt.method, "http://"+ln.Addr().String()+tt.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != tt.status || !strings.Contains(string(body), tt.has) {
				t.Errorf("%s %s: %s %.200s; want %d with %q", tt.method, tt.path, resp.Status, body, tt.status, tt.has)
			}
		}
		websockettest.WantRefusal(t, ln, 404, "/nothing")
		websockettest.WantRefusal(t, ln, 400, jwebsocket.Path)
		websockettest.WantRefusal(t, ln, 400, socketio.Path+"?EIO=3&transport=websocket")
		websockettest.WantRefusal(t, ln, 403, hubPath, "Origin: http://elsewhere.example")
		websockettest.Dial(t, ln, jwebsocket.Path, "Sec-WebSocket-Protocol: "+jwebsocket.Subprotocol).WantText("maxframesize65536")
	})
}

// Each protocol's largest message is its own.
func TestLimits(t *testing.T) {
	bothWays(t, func(t *testing.T, p *protocols, ln net.Listener) {
		for path, limit := range map[string]int{
			socketio.Path + "?EIO=4&transport=websocket": 1_000_000, hubPath: 128 << 10, jwebsocket.Path: 64 << 10,
		} {
			c := websockettest.Dial(t, ln, path, "Sec-WebSocket-Protocol: "+jwebsocket.Subprotocol)
			c.SendFrame(websockettest.Frame{Opcode: websockettest.Text, Length: int64(limit) + 1})
			for { // what was said at the beginning may come before
				f, err := c.ReadFrame()
				if err != nil || f.Opcode == websockettest.Close {
					if err != nil || string(f.Payload[:2]) != "\x03\xf1" {
						t.Errorf("%s: a message over %d: %x, %v; want 1009", path, limit, f.Payload, err)
					}
					break
				}
			}
		}
	})
}

// A GET that hangs doesn't hold up the end, and SignalR's clients may come back.
func TestShutDown(t *testing.T) {
	bothWays(t, func(t *testing.T, p *protocols, ln net.Listener) {
		resp, err := http.Get("http://" + ln.Addr().String() + socketio.Path + "?EIO=4&transport=polling")
		if err != nil {
			t.Fatal(err)
		}
		var hello struct{ SID string }
		body := bufio.NewReader(resp.Body)
		body.ReadByte()
		if err := json.NewDecoder(body).Decode(&hello); err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		hangs := make(chan string)
		go func() {
			resp, err := http.Get("http://" + ln.Addr().String() + socketio.Path + "?EIO=4&transport=polling&sid=" + hello.SID)
			if err != nil {
				hangs <- err.Error()
				return
			}
			defer resp.Body.Close()
			last, err := io.ReadAll(resp.Body)
			hangs <- fmt.Sprint(string(last), err)
		}()
		c := websockettest.Dial(t, ln, hubPath)
		c.SendText(`{"protocol":"json","version":1}` + "\x1e")
		c.WantText("{}\x1e")
		c.SendText(`{"type":1,"invocationId":"0","target":"Echo","arguments":[1]}` + "\x1e")
		c.WantText(`{"type":3,"invocationId":"0","result":1}` + "\x1e")
		c.ReadInBackground()
		<-p.ws.HTTP.(sessionWatch).came
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := p.shutDown(ctx); err != nil {
			t.Errorf("shutDown: %v", err)
		}
		c.WantText(`{"type":7,"allowReconnect":true}` + "\x1e")
		c.WantClose(1001)
		if got := <-hangs; got != "1<nil>" && !strings.Contains(got, "Session ID unknown") { // the end may have overtaken it
			t.Errorf("the GET that hung: %s; want the packet 1", got)
		}
	})
}

// A page sees the frames of the connections that name its session, and no
// others.
func TestWire(t *testing.T) {
	bothWays(t, func(t *testing.T, p *protocols, ln net.Listener) {
		mine := websockettest.Dial(t, ln, wirePath+"?session=mine")
		other := websockettest.Dial(t, ln, wirePath+"?session=other")
		for _, c := range []*websockettest.Client{mine, other} {
			c.SendPing("OnOpen is before the first frame")
			c.WantPong("OnOpen is before the first frame")
		}
		websockettest.Dial(t, ln, wirePath+"?session=mine").WantClose(1008)
		websockettest.Dial(t, ln, wirePath).WantClose(1008)
		websockettest.Dial(t, ln, hubPath+"?session=nobody").SendText("hello")
		c := websockettest.Dial(t, ln, hubPath+"?session=mine")
		c.SendText(`{"protocol":"json","version":1}` + "\x1e")
		c.WantText("{}\x1e")
		var f frame
		if mine.ReadJSON(&f); f.Path != hubPath+"?session=mine" {
			t.Errorf("the first is %+v; want the request", f)
		}
		if mine.ReadJSON(&f); f.Sent || len(f.Header) != 6 || string(f.Payload) != `{"protocol":"json","version":1}`+"\x1e" || string(f.Wire) == string(f.Payload) {
			t.Errorf("the second is %+v; want the handshake record, masked", f)
		}
		if mine.ReadJSON(&f); !f.Sent || string(f.Payload) != "{}\x1e" {
			t.Errorf("the third is %+v; want the answer", f)
		}
		other.WantQuiet(50 * time.Millisecond)
		mine.WantQuiet(50 * time.Millisecond)
		mine.Cut()
		c.SendText(`{"type":1,"invocationId":"0","target":"Echo","arguments":[1]}` + "\x1e")
		c.WantText(`{"type":3,"invocationId":"0","result":1}` + "\x1e")
	})
}
