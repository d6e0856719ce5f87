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
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rawws/websocket"
)

func TestConversation(t *testing.T) {
	dial := start(t)
	ada := dial("lobby", "Ada")
	ada.want("welcome", "Ada", "", "Ada")
	ada.say(" hello ")
	ada.want("line", "Ada", "hello")

	bob := dial("lobby", "Боб")
	if got := bob.want("welcome", "Боб", "", "Ada", "Боб").History; len(got) != 1 || decode(t, got[0]).Text != "hello" {
		t.Errorf("history for a newcomer: %v, want the line %q", got, "hello")
	}
	ada.want("join", "Боб", "", "Ada", "Боб")
	other := dial("other-room", "Ada")
	other.want("welcome", "Ada", "", "Ada")
	second := dial("lobby", "ADA")
	second.want("welcome", "ADA 2", "", "ADA 2", "Ada", "Боб")
	ada.want("join", "ADA 2", "", "ADA 2", "Ada", "Боб")
	bob.want("join", "ADA 2", "", "ADA 2", "Ada", "Боб")

	bob.say("привет 👋")
	for _, c := range []*client{ada, bob, second} {
		c.want("line", "Боб", "привет 👋")
	}
	second.nc.Close()
	for _, c := range []*client{ada, bob} {
		c.want("leave", "ADA 2", "", "Ada", "Боб")
	}
	ada.write(0x82, "binary") // refused with 1003
	ada.write(0x88, "\x03\xeb")
	bob.want("leave", "Ada", "", "Боб")
}

// The history has so many lines and so many bytes as they are sent, of which
// JSON makes six for some: a newcomer's welcome has to fit into his queue.
func TestHistoryIsBounded(t *testing.T) {
	for _, test := range []struct {
		name  string
		line  func(i int) string
		lines int
		last  int
	}{
		{"short", strconv.Itoa, maxHistory, maxHistory + 2},
		{"<", func(int) string { return strings.Repeat("<", maxLine) }, historyBytes / (maxLine + 100), 0},
		{"control", func(int) string { return strings.Repeat("\x01", maxLine) }, historyBytes / (6*maxLine + 100), 0},
	} {
		r := &room{names: map[string]string{}}
		for i := range maxHistory + 3 {
			r.say("Ada", test.line(i))
		}
		bytes := 0
		for _, line := range r.history {
			bytes += len(line)
		}
		n := len(r.history)
		if n != test.lines || bytes > historyBytes || bytes != r.kept {
			t.Errorf("%s: %d lines of %d bytes are kept, counted as %d; want %d, of at most %d", test.name, n, bytes, r.kept, test.lines, historyBytes)
		} else if got, want := decode(t, r.history[n-1]).Text, test.line(test.last); test.last > 0 && got != want {
			t.Errorf("%s: the last line is %q, want %q", test.name, got, want)
		}
	}
}

// Whatever others have said and are called, one more can enter until the room
// is full, and then is told so.
func TestFullRoom(t *testing.T) {
	chat := newServer()
	chat.MaxConnsPerIP = 0 // all of them come from here
	addr := serve(t, chat)
	dial := func(room, name string) *client { return dialAt(t, addr, room, name) }
	talker := dial("lobby", "talker")
	talker.want("welcome", "talker", "", "talker")
	for range linesAtOnce { // for what the queue held before: 1 MiB
		talker.say(strings.Repeat("\x01", maxLine))
		talker.want("line", "talker", strings.Repeat("\x01", maxLine))
	}
	here := []string{"talker"}
	for i := 1; i < maxHere; i++ {
		name := strings.Repeat("🦊", maxName-2) + fmt.Sprintf("%02d", i)
		here = append(here, name)
		dial("lobby", name).want("welcome", name, "", here...)
	}
	if code, reason := dial("lobby", "more").closed(); code != 1013 || reason != "the room is full" {
		t.Errorf("one more than %d: closed with %d %q, want 1013", maxHere, code, reason)
	}
}

// Who says more than a person can is closed, and nobody reads it.
func TestTooManyLines(t *testing.T) {
	dial := start(t)
	flood := dial("lobby", "flood")
	flood.want("welcome", "flood", "", "flood")
	reader := dial("lobby", "reader")
	reader.want("welcome", "reader", "", "flood", "reader")
	line := []byte{0x81, 0x82, 0, 0, 0, 0, 'h', 'i'}
	if _, err := flood.nc.Write(slices.Repeat(line, 10*linesAtOnce)); err != nil {
		t.Fatal(err)
	}
	flood.want("join", "reader", "", "flood", "reader")
	if code, reason := flood.closed(); code != 1008 || reason != "too many lines at once" {
		t.Errorf("closed with %d %q, want 1008", code, reason)
	}
	flood.write(0x88, "\x03\xf0")
	lines := 0
	e := reader.next()
	for ; e.Type == "line"; e = reader.next() {
		lines++
	}
	if e.Type != "leave" || lines < linesAtOnce || lines > 2*linesAtOnce {
		t.Errorf("%d lines were read before %+v, want about %d", lines, e, linesAtOnce)
	}
}

// One client can't take all the places, and a name that looks like another's
// gets none.
func TestRefused(t *testing.T) {
	addr := serve(t, newServer())
	if _, status := ask(t, addr, "lobby", "Ada\u200d"); status != http.StatusBadRequest {
		t.Errorf("a name with a joiner at its end is answered with %d, want 400", status)
	}
	var status, n int
	for n = range 1000 {
		if _, status = ask(t, addr, fmt.Sprint("room-", n%20), "Ada"); status != http.StatusSwitchingProtocols {
			break
		}
	}
	if status != http.StatusTooManyRequests || n != 50 {
		t.Errorf("connection %d of one address is answered with %d, want 429 for that after 50", n+1, status)
	}
}

func TestBucket(t *testing.T) {
	var b bucket
	at := time.Now()
	for i, test := range []struct {
		after time.Duration
		want  int // that it allows at once
	}{{0, 3}, {0, 0}, {400 * time.Millisecond, 0}, {100 * time.Millisecond, 1}, {time.Second, 2}, {time.Hour, 3}} {
		at = at.Add(test.after)
		got := 0
		for b.take(at, 2, 3) {
			got++
		}
		if got != test.want {
			t.Errorf("%d: after %v the bucket allows %d, want %d", i, test.after, got, test.want)
		}
	}
}

// Silent sockets can't take more than their places, and give them back.
func TestSocketsAreBounded(t *testing.T) {
	web := newWeb("", newServer())
	limitSockets(web, 2)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go web.Serve(ln)
	defer web.Close()
	get := func() error {
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
		resp, err := client.Get("http://" + ln.Addr().String() + "/room/lobby")
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	if err := get(); err != nil {
		t.Fatalf("the first page: %v", err)
	}
	var silent []net.Conn
	for deadline := time.Now().Add(10 * time.Second); get() == nil; {
		nc, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		if silent = append(silent, nc); len(silent) > 4 || time.Now().After(deadline) {
			t.Fatalf("beside %d silent sockets a page is still served, want none beside 2", len(silent))
		}
	}
	for _, nc := range silent {
		nc.Close()
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		err := get()
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("when the silent sockets are gone a page fails with %v", err)
		}
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
		"Ada": true, "Боб 🦊": true, "👩\u200d🚀": true, "❤\ufe0f\u200d🔥": true, "می\u200cخواهم": true, strings.Repeat("é", maxName): true,
		"": false, strings.Repeat("é", maxName+1): false, "a\nb": false, "a\x00": false, "\xff": false, "\u202eevil": false,
		"Ada\u200d": false, "A\u200dda": false, "\u200dAda": false, "Ada\ufe0f": false, "Боб\u200c": false, "Ada\u00ad": false,
		"\u3164": false, "\u115f": false, "Ada\uffa0": false, "Ada\u034f": false, "\u2800": false, "Ada\U000e0041": false, "Ada\U000e0100": false,
		"Ada\u00a0": false, "\ufe0f": false,
	} {
		if got := validName(name); got != want {
			t.Errorf("validName(%q) = %v, want %v", name, got, want)
		}
	}
}

func TestNameKey(t *testing.T) {
	for _, test := range []struct {
		a, b string
		same bool
	}{
		{"Ada", "aDA", true}, {"Ада", "аДА", true}, {"ΣΑΣ", "σας", true}, {"Ада", "А\u200dда", true}, {"❤", "❤\ufe0f", true}, {"k", "\u212a", true},
		{"Ada", "Ada 2", false}, {"Ada", "Adá", false}, {"Ada", "Adam", false},
	} {
		if a, b := nameKey(test.a), nameKey(test.b); (a == b) != test.same {
			t.Errorf("nameKey(%q) = %q, nameKey(%q) = %q; want the same: %v", test.a, a, test.b, b, test.same)
		}
	}
}

// Spaces that a page shows as one are one.
func TestWantedName(t *testing.T) {
	r := httptest.NewRequest("GET", "/?name=+Ada%09+%C2%A02+", nil)
	if got := wantedName(r); got != "Ada 2" {
		t.Errorf("wantedName(%q) = %q, want %q", r.URL.RawQuery, got, "Ada 2")
	}
}

// Who chats is told that it ends before whoever is slow to take a page.
func TestShutDown(t *testing.T) {
	chat := newServer()
	web := newWeb("", chat)
	pages := web.Handler
	entered, release := make(chan struct{}), make(chan struct{})
	web.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(entered)
			<-release
		}
		pages.ServeHTTP(w, r)
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go web.Serve(ln)
	ada := dialAt(t, ln.Addr().String(), "lobby", "Ada")
	ada.want("welcome", "Ada", "", "Ada")
	slow, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	io.WriteString(slow, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	<-entered
	down := make(chan error, 1)
	go func() { down <- shutDown(chat, web) }()
	if code, _ := ada.closed(); code != 1001 {
		t.Errorf("Ada is closed with %d, want 1001", code)
	}
	ada.write(0x88, "\x03\xe9")
	close(release)
	if resp, err := http.ReadResponse(bufio.NewReader(slow), nil); err != nil || resp.StatusCode != http.StatusNotFound {
		t.Errorf("the page that was slow: %v, %v; want its answer, 404", resp, err)
	}
	if err := <-down; err != nil {
		t.Errorf("shutDown = %v", err)
	}
}

func TestPagesAreBounded(t *testing.T) {
	web := newWeb("", newServer())
	if web.ReadHeaderTimeout <= 0 || web.ReadTimeout <= 0 || web.WriteTimeout <= 0 || web.IdleTimeout <= 0 || web.MaxHeaderBytes <= 0 {
		t.Errorf("a timeout or limit of the pages is missing: %+v", web)
	}
}

// start serves a chat until the test ends, and returns a dialer.
func start(t *testing.T) (dial func(room, name string) *client) {
	t.Helper()
	addr := serve(t, newServer())
	return func(room, name string) *client {
		t.Helper()
		return dialAt(t, addr, room, name)
	}
}

func serve(t *testing.T, chat *websocket.Server) (addr string) {
	t.Helper()
	web := httptest.NewServer(routes(chat))
	t.Cleanup(func() {
		web.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := chat.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
	return web.Listener.Addr().String()
}

func dialAt(t *testing.T, addr, room, name string) *client {
	t.Helper()
	c, status := ask(t, addr, room, name)
	if status != http.StatusSwitchingProtocols {
		t.Fatalf("%q is answered with %d, want 101", name, status)
	}
	return c
}

// ask asks for the upgrade and returns the answer's status.
func ask(t *testing.T, addr, room, name string) (c *client, status int) {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(nc, "GET /room/%s/socket?name=%s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", room, url.QueryEscape(name), addr)
	c = &client{t: t, nc: nc, r: bufio.NewReader(nc)}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c, resp.StatusCode
}

func decode(t *testing.T, data []byte) (e event) {
	t.Helper()
	if err := json.Unmarshal(data, &e); err != nil {
		t.Fatalf("event %q: %v", data, err)
	}
	return e
}

// A client speaks as much of the protocol as the tests need.
type client struct {
	t    *testing.T
	nc   net.Conn
	r    *bufio.Reader
	here []string // as a page keeps it
}

func (c *client) say(text string) { c.write(0x81, text) }

// write sends a frame, masked with the key 0 (section 5.2).
func (c *client) write(first byte, payload string) {
	c.t.Helper()
	frame := []byte{first}
	if n := len(payload); n < 126 {
		frame = append(frame, 0x80|byte(n))
	} else {
		frame = binary.BigEndian.AppendUint16(append(frame, 0x80|126), uint16(n))
	}
	frame = append(append(frame, 0, 0, 0, 0), payload...)
	if _, err := c.nc.Write(frame); err != nil {
		c.t.Fatal(err)
	}
}

// frame reads a frame of any length.
func (c *client) frame() (first byte, payload []byte) {
	c.t.Helper()
	c.nc.SetDeadline(time.Now().Add(10 * time.Second)) // of a frame, and not of all of them
	head := make([]byte, 2)
	_, err := io.ReadFull(c.r, head)
	length := uint64(head[1])
	if more := map[uint64]int{126: 2, 127: 8}[length]; err == nil && more > 0 {
		long := make([]byte, 8)
		_, err = io.ReadFull(c.r, long[8-more:])
		length = binary.BigEndian.Uint64(long)
	}
	if err == nil {
		payload = make([]byte, length)
		_, err = io.ReadFull(c.r, payload)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return head[0], payload
}

func (c *client) next() event {
	c.t.Helper()
	first, payload := c.frame()
	if first != 0x81 {
		c.t.Fatalf("frame %#x %q, want text with an event", first, payload)
	}
	e := decode(c.t, payload)
	switch e.Type {
	case "welcome":
		c.here = e.Here
	case "join":
		c.here = append(c.here, e.Name)
	case "leave":
		c.here = slices.DeleteFunc(c.here, func(name string) bool { return name == e.Name })
	}
	slices.Sort(c.here)
	return e
}

// want reads the next event and compares it, but for its time and history, and
// after any but a line also who is in the room.
func (c *client) want(kind, name, text string, here ...string) event {
	c.t.Helper()
	got := c.next()
	if got.Type != kind || got.Name != name || got.Text != text || kind != "line" && !slices.Equal(c.here, here) || got.Time == 0 {
		c.t.Fatalf("event %+v, then here are %q; want %s of %q, text %q, here %q", got, c.here, kind, name, text, here)
	}
	return got
}

// closed reads a close frame and returns what it says, over the lines before it.
func (c *client) closed() (code int, reason string) {
	c.t.Helper()
	for {
		first, payload := c.frame()
		if first == 0x88 && len(payload) >= 2 {
			return int(binary.BigEndian.Uint16(payload)), string(payload[2:])
		}
		if first == 0x88 || decode(c.t, payload).Type != "line" {
			c.t.Fatalf("frame %#x %q, want a close frame", first, payload)
		}
	}
}
