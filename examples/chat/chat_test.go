package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestConversation(t *testing.T) {
	dial := start(t)
	ada := dial("lobby", "Ada")
	ada.want("welcome", "Ada", "", "Ada")
	ada.say(" hello ")
	ada.want("line", "Ada", "hello")

	bob := dial("lobby", "Боб")
	if got := bob.want("welcome", "Боб", "", "Ada", "Боб").History; len(got) != 1 || got[0].Text != "hello" {
		t.Errorf("history for a newcomer: %v, want the line %q", got, "hello")
	}
	ada.want("join", "Боб", "", "Ada", "Боб")
	other := dial("other-room", "Ada")
	other.want("welcome", "Ada", "", "Ada")
	second := dial("lobby", "Ada")
	second.want("welcome", "Ada 2", "", "Ada", "Ada 2", "Боб")
	ada.want("join", "Ada 2", "", "Ada", "Ada 2", "Боб")
	bob.want("join", "Ada 2", "", "Ada", "Ada 2", "Боб")

	bob.say("привет 👋")
	for _, c := range []*client{ada, bob, second} {
		c.want("line", "Боб", "привет 👋")
	}
	second.nc.Close()
	for _, c := range []*client{ada, bob} {
		c.want("leave", "Ada 2", "", "Ada", "Боб")
	}
	ada.write(0x82, "binary") // refused with 1003
	ada.write(0x88, "\x03\xeb")
	bob.want("leave", "Ada", "", "Боб")
}

func TestHistoryIsBounded(t *testing.T) {
	dial := start(t)
	ada := dial("lobby", "Ada")
	ada.want("welcome", "Ada", "", "Ada")
	for i := range maxHistory + 3 {
		ada.say(fmt.Sprint(i))
		ada.want("line", "Ada", fmt.Sprint(i))
	}
	got := dial("lobby", "Bob").want("welcome", "Bob", "", "Ada", "Bob").History
	if len(got) != maxHistory || got[0].Text != "3" || got[maxHistory-1].Text != "52" {
		t.Errorf("after 53 lines the history is %d lines, %v; want 50, from 3 to 52", len(got), got)
	}
}

func TestRoomsAreBounded(t *testing.T) {
	h := &hub{rooms: map[string]*room{}}
	kept := h.enter("kept")
	for i := range maxRooms - 1 {
		h.enter(fmt.Sprint(i))
	}
	if r := h.enter("more"); r != nil || len(h.rooms) != maxRooms {
		t.Errorf("a room above %d that all have users: %v, %d rooms; want nil", maxRooms, r, len(h.rooms))
	}
	h.rooms["0"].users--
	if r := h.enter("more"); r == nil || len(h.rooms) != maxRooms || h.rooms["0"] != nil {
		t.Errorf("a room when one stands empty: %v, %d rooms; want it in the empty one's place", r, len(h.rooms))
	}
	if h.enter("kept") != kept {
		t.Errorf("a room with users was forgotten")
	}
}

func TestRoutes(t *testing.T) {
	for path, want := range map[string]int{
		"/":                                http.StatusFound,
		"/room/lobby":                      http.StatusOK,
		"/room/Lobby":                      http.StatusNotFound,
		"/room/" + strings.Repeat("a", 33): http.StatusNotFound,
		"/page/chat.js":                    http.StatusOK,
		"/page/chat.css":                   http.StatusOK,
		"/page/other":                      http.StatusNotFound,
		"/room/lobby/socket?name=Ada":      http.StatusOK, // the handler's
	} {
		w := httptest.NewRecorder()
		socket := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {})
		routes(socket).ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != want {
			t.Errorf("GET %s = %d, want %d", path, w.Code, want)
		}
	}
}

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{
		"Ada": true, "Боб 🦊": true, "👩\u200d🚀": true, strings.Repeat("é", maxName): true,
		"": false, strings.Repeat("é", maxName+1): false, "a\nb": false, "a\x00": false, "\xff": false, "\u202eevil": false,
	} {
		if got := validName(name); got != want {
			t.Errorf("validName(%q) = %v, want %v", name, got, want)
		}
	}
}

// start serves the chat until the test ends, and returns a dialer.
func start(t *testing.T) (dial func(room, name string) *client) {
	t.Helper()
	chat := newServer()
	web := httptest.NewServer(routes(chat))
	t.Cleanup(func() {
		web.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := chat.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
	return func(room, name string) *client {
		t.Helper()
		nc, err := net.Dial("tcp", web.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		nc.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(nc, "GET /room/%s/socket?name=%s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", room, url.QueryEscape(name), nc.RemoteAddr())
		c := &client{t: t, nc: nc, r: bufio.NewReader(nc)}
		resp, err := http.ReadResponse(c.r, nil)
		if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("upgrade: %v, %v; want 101", resp, err)
		}
		return c
	}
}

// A client speaks as much of the protocol as the tests need.
type client struct {
	t  *testing.T
	nc net.Conn
	r  *bufio.Reader
}

func (c *client) say(text string) { c.write(0x81, text) }

// write sends a frame of at most 125 bytes, masked with the key 0 (section 5.2).
func (c *client) write(first byte, payload string) {
	c.t.Helper()
	frame := append([]byte{first, 0x80 | byte(len(payload)), 0, 0, 0, 0}, payload...)
	if _, err := c.nc.Write(frame); err != nil {
		c.t.Fatal(err)
	}
}

// want reads the next event and compares it, but for its time and history.
func (c *client) want(kind, name, text string, here ...string) event {
	c.t.Helper()
	var head [2]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		c.t.Fatal(err)
	}
	length := int(head[1])
	if length == 126 {
		var long [2]byte
		if _, err := io.ReadFull(c.r, long[:]); err != nil {
			c.t.Fatal(err)
		}
		length = int(binary.BigEndian.Uint16(long[:]))
	}
	payload := make([]byte, length)
	if _, err := io.ReadFull(c.r, payload); err != nil {
		c.t.Fatal(err)
	}
	var got event
	if err := json.Unmarshal(payload, &got); head[0] != 0x81 || err != nil {
		c.t.Fatalf("frame % x %q: %v; want text with an event", head, payload, err)
	}
	if got.Type != kind || got.Name != name || got.Text != text || !slices.Equal(got.Here, here) || got.Time == 0 {
		c.t.Fatalf("event %+v, want %s of %q, text %q, here %q", got, kind, name, text, here)
	}
	return got
}
