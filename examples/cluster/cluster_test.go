package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// patience is how long something may take that has to come.
const patience = 30 * time.Second

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard)
	os.Exit(m.Run())
}

func TestAcrossNodes(t *testing.T) {
	ns := startServer(t, freeAddr(t))
	a, b := startNode(t, "a", ns.ClientURL()), startNode(t, "b", ns.ClientURL())
	ada := a.enter("lobby", "Ada")
	bob := b.enter("lobby", "Боб")
	ada.meets("Ada", "Боб")
	bob.meets("Ada", "Боб")

	ada.say(" hello ")
	for _, c := range []*client{ada, bob} {
		if e := c.until("line", "Ada", "hello"); e.Node != "a" {
			t.Errorf("Ada's line comes from node %q, want a", e.Node)
		}
	}
	bob.say("привет 👋")
	ada.until("line", "Боб", "привет 👋")

	// Another room's subject, and a name that is taken on the other node.
	b.enter("other", "Ada").meets("Ada")
	second := b.enter("lobby", "Ada")
	second.meets("Ada", "Ada 2", "Боб")

	// A node that wasn't there asks those that were.
	c := startNode(t, "c", ns.ClientURL())
	carol := c.enter("lobby", "Carol")
	var said []string
	for _, e := range carol.welcome.History {
		said = append(said, e.Name+": "+e.Text)
	}
	if want := []string{"Ada: hello", "Боб: привет 👋"}; !slices.Equal(said, want) {
		t.Errorf("the history on a new node is %q, want %q", said, want)
	}
	carol.meets("Ada", "Ada 2", "Carol", "Боб")
	second.nc.Close()
	ada.until("leave", "Ada 2", "")
	carol.meets("Ada", "Carol", "Боб")
}

func TestNATSRestarts(t *testing.T) {
	addr := freeAddr(t)
	ns := startServer(t, addr)
	a, b := startNode(t, "a", "nats://"+addr), startNode(t, "b", "nats://"+addr)
	ada, bob := a.enter("lobby", "Ada"), b.enter("lobby", "Bob")
	ada.meets("Ada", "Bob")

	for round := range 2 {
		stopServer(ns)
		for _, c := range []*client{ada, bob} {
			if e, alone := c.until("link", "", ""), []string{c.welcome.Name}; e.Linked || !slices.Equal(e.Here, alone) {
				t.Fatalf("the server is gone, and the node says linked: %v, here: %q; want false, %q", e.Linked, e.Here, alone)
			}
		}
		ada.say("is anybody here?")
		ada.until("line", "Ada", "is anybody here?") // only on this node
		eve := a.enter("lobby", "Eve")
		if eve.welcome.Linked {
			t.Error("a newcomer isn't told that the node is cut off")
		}
		ada.until("join", "Eve", "")
		eve.nc.Close()

		ns = startServer(t, addr)
		for _, c := range []*client{ada, bob} {
			if !c.until("link", "", "").Linked {
				t.Fatal("the server is back, and the node says it is cut off")
			}
			c.meets("Ada", "Bob")
		}
		for from, to := range map[*client]*client{ada: bob, bob: ada} {
			line := fmt.Sprintf("restart %d, from %s", round, from.welcome.Name)
			from.say(line)
			to.until("line", from.welcome.Name, line)
		}
		ada.meets("Ada", "Bob")
	}
}

// A node begins without NATS, and finds it later.
func TestNATSStartsLater(t *testing.T) {
	addr := freeAddr(t)
	a, b := startNode(t, "a", "nats://"+addr), startNode(t, "b", "nats://"+addr)
	ada, bob := a.enter("lobby", "Ada"), b.enter("lobby", "Bob")
	if ada.welcome.Linked || bob.welcome.Linked {
		t.Error("without NATS the welcome says that the node is linked")
	}
	startServer(t, addr)
	ada.meets("Ada", "Bob")
	bob.meets("Ada", "Bob")
	ada.say("hello")
	bob.until("line", "Ada", "hello")
}

// The people of a node that went without a word are forgotten.
func TestSilentNode(t *testing.T) {
	ns := startServer(t, freeAddr(t))
	a, b := startNode(t, "a", ns.ClientURL()), startNode(t, "b", ns.ClientURL())
	ada := a.enter("lobby", "Ada")
	b.enter("lobby", "Bob")
	ada.meets("Ada", "Bob")
	b.node.nc.Close()
	if e := ada.meets("Ada"); e.Type != "here" {
		t.Errorf("Bob left by a %s, want none", e.Type)
	}
}

// A user who doesn't read is closed, and the others don't notice.
func TestSlowUser(t *testing.T) {
	ns := startServer(t, freeAddr(t))
	a := startNode(t, "a", ns.ClientURL())
	ada := a.enter("lobby", "Ada")
	slow := a.enter("lobby", "Slow")
	ada.meets("Ada", "Slow")
	slow.nc.(*net.TCPConn).SetReadBuffer(4096)
	line := strings.Repeat("x", maxLine)
	room := a.node.enter("lobby")
	for a.node.chat.Stats().Dropped == 0 { // or until Ada's patience ends
		room.tell(event{Type: "line", Name: "Ada", Text: line})
		ada.until("line", "Ada", line)
	}
	ada.until("leave", "Slow", "") // when the closing handshake has had its time
	// The code is 1006 when the socket was too full for the frame that says 1008.
	if stats := a.node.chat.Stats(); len(stats.ClosedByServer) != 1 || stats.Dropped == 0 {
		t.Errorf("closed by the server: %v, dropped %d; want the slow one", stats.ClosedByServer, stats.Dropped)
	}
}

// A room's history is bounded, and a line that came twice is in it once.
func TestHistory(t *testing.T) {
	r := &room{names: map[string]bool{}}
	line := func(i int) packet {
		return packet{From: "n", Seq: uint64(i), Event: event{Type: "line", Text: fmt.Sprint(i)}}
	}
	for i := 10; i < 13; i++ {
		r.keep(line(i))
	}
	var asked []packet
	for i := range 12 {
		asked = append(asked, line(i))
	}
	r.recall(asked)
	for i := range maxHistory + 3 {
		r.keep(line(i))
	}
	if n := len(r.history); n != maxHistory || r.history[0].Seq != 3 || r.history[n-1].Seq != maxHistory+2 {
		t.Errorf("the history has %d lines, from %d to %d; want %d, from 3 to %d", n, r.history[0].Seq, r.history[n-1].Seq, maxHistory, maxHistory+2)
	}
}

// It is also bounded in bytes as they are sent, of which JSON makes six for
// some: a newcomer's welcome has to fit into his queue.
func TestHistoryBytes(t *testing.T) {
	for text, want := range map[string]int{"<": historyBytes / (maxLine + 100), "\x01": historyBytes / (6*maxLine + 100)} {
		r := &room{names: map[string]bool{}}
		for i := range 20 {
			r.keep(packet{From: "n", Seq: uint64(i), Event: event{Type: "line", Node: "n", Name: "Ada", Text: strings.Repeat(text, maxLine)}})
		}
		var welcome event
		for _, p := range r.history {
			welcome.History = append(welcome.History, p.Event)
		}
		if n, bytes := len(r.history), len(encode(welcome)); n != want || bytes > historyBytes+200 || r.kept > historyBytes {
			t.Errorf("of 20 lines of %q, %d are kept, as %d bytes; want %d, of at most %d", text, n, bytes, want, historyBytes)
		}
		again := &room{names: map[string]bool{}}
		again.recall(append(r.history, r.history...))
		if len(again.history) != want || again.kept != r.kept {
			t.Errorf("another node recalls %d lines of %q, of %d bytes; want %d, of %d", len(again.history), text, again.kept, want, r.kept)
		}
	}
}

// Twenty lines of the largest kind, and one more can enter.
func TestWelcomeFitsTheQueue(t *testing.T) {
	ns := startServer(t, freeAddr(t))
	a, b := startNode(t, "a", ns.ClientURL()), startNode(t, "b", ns.ClientURL())
	line := strings.Repeat("\x01", maxLine)
	ada := a.enter("lobby", "Ada")
	for range linesAtOnce {
		ada.say(line)
		ada.until("line", "Ada", line)
	}
	for _, n := range []*testNode{a, b} {
		c := n.enter("lobby", "Bob")
		if h := c.welcome.History; len(h) == 0 || h[0].Text != line {
			t.Errorf("the welcome has %d lines, want some of those said", len(h))
		}
		c.say("hello")
		c.until("line", c.welcome.Name, "hello")
	}
}

// Who says more than a person can is closed.
func TestTooManyLines(t *testing.T) {
	ns := startServer(t, freeAddr(t))
	flood := startNode(t, "a", ns.ClientURL()).enter("lobby", "flood")
	for range 4 * linesAtOnce {
		flood.say("hi")
	}
	if code := flood.closed(); code != 1008 {
		t.Errorf("closed with %d, want 1008", code)
	}
}

// A room is full when it is on all nodes together, and one name isn't taken
// twice by another case of its letters, or by what isn't seen.
func TestNamesInRoom(t *testing.T) {
	ns := startServer(t, freeAddr(t))
	a := startNode(t, "a", ns.ClientURL())
	ada := a.enter("lobby", "Ada")
	if got := a.enter("lobby", "ADA").welcome.Name; got != "ADA 2" {
		t.Errorf("beside Ada, ADA is called %q, want %q", got, "ADA 2")
	}
	if status := ask(t, a.addr, "lobby", "Ada\u200d"); status != http.StatusBadRequest {
		t.Errorf("a name with a joiner at its end is answered with %d, want 400", status)
	}
	var crowd []string
	for i := range maxHere {
		crowd = append(crowd, fmt.Sprint("other ", i))
	}
	a.node.enter("lobby").hear(packet{From: "another node", Event: event{Type: "here", Here: crowd}})
	for len(ada.last.Here) < maxHere {
		ada.next()
	}
	if code := dialAny(t, a.addr, "lobby", "more").closed(); code != 1013 {
		t.Errorf("a room with %d people on another node: closed with %d, want 1013", maxHere, code)
	}
	for name, want := range map[string]bool{"Боб 🦊": true, "👩\u200d🚀": true, "": false, "Боб\u200c": false, "\u3164": false, "\u2800": false, "\u202eevil": false} {
		if got := validName(name); got != want {
			t.Errorf("validName(%q) = %v, want %v", name, got, want)
		}
	}
}

// Users are told that the node ends before whoever is slow to take a page, and
// a balancer at once.
func TestShutDown(t *testing.T) {
	ns := startServer(t, freeAddr(t))
	n, err := newNode(options{node: "a", nats: ns.ClientURL(), beat: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	pages := n.routes()
	entered, release := make(chan struct{}), make(chan struct{})
	web := newWeb(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(entered)
			<-release
		}
		pages.ServeHTTP(w, r)
	}))
	if web.ReadHeaderTimeout <= 0 || web.ReadTimeout <= 0 || web.WriteTimeout <= 0 || web.IdleTimeout <= 0 || web.MaxHeaderBytes <= 0 {
		t.Errorf("a timeout or limit of the pages is missing: %+v", web)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go web.Serve(ln)
	ada := dial(t, ln.Addr().String(), "lobby", "Ada")
	slow, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	io.WriteString(slow, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	<-entered
	down := make(chan error, 1)
	go func() { down <- shutDown(n, web) }()
	if code := ada.closed(); code != 1001 {
		t.Errorf("Ada is closed with %d, want 1001", code)
	}
	w := httptest.NewRecorder()
	if pages.ServeHTTP(w, httptest.NewRequest("GET", "/health", nil)); w.Code != http.StatusServiceUnavailable {
		t.Errorf("a node that goes says %d to a balancer, want 503", w.Code)
	}
	ada.nc.Close()
	close(release)
	if resp, err := http.ReadResponse(bufio.NewReader(slow), nil); err != nil || resp.StatusCode != http.StatusNotFound {
		t.Errorf("the page that was slow: %v, %v; want its answer, 404", resp, err)
	}
	if err := <-down; err != nil {
		t.Errorf("shutDown = %v", err)
	}
}

// Behind a proxy a client is who the proxy says, and its places are counted.
func TestConnsPerClient(t *testing.T) {
	n, err := newNode(options{node: "a", nats: "nats://" + freeAddr(t), beat: time.Second, proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	if err != nil {
		t.Fatal(err)
	}
	defer n.nc.Close()
	defer n.stop()
	if n.chat.MaxConns <= 0 || n.chat.MaxConnsPerIP <= 0 {
		t.Errorf("limits of connections: %d in all, %d of a client; want some", n.chat.MaxConns, n.chat.MaxConnsPerIP)
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = "127.0.0.1:1234"
	r.Header.Set("X-Forwarded-For", "192.0.2.7")
	if got := n.chat.ClientIP(r); got != netip.MustParseAddr("192.0.2.7") {
		t.Errorf("the client behind a proxy is %v, want 192.0.2.7", got)
	}
}

func TestRoomsAreBounded(t *testing.T) {
	n := &node{rooms: map[string]*room{}}
	for i := range maxRooms {
		n.find(fmt.Sprint(i))
	}
	if r := n.find("more"); r != nil || len(n.rooms) != maxRooms {
		t.Errorf("a room above %d that all have users: %v, %d rooms; want nil", maxRooms, r, len(n.rooms))
	}
	n.rooms["0"].users--
	if r := n.find("more"); r == nil || len(n.rooms) != maxRooms || n.rooms["0"] != nil {
		t.Errorf("a room when one stands empty: %v, %d rooms; want it in the empty one's place", r, len(n.rooms))
	}
}

func TestRoutes(t *testing.T) {
	ns := startServer(t, freeAddr(t))
	n := startNode(t, "a", ns.ClientURL())
	for path, want := range map[string]int{
		"/":                                http.StatusFound,
		"/room/lobby":                      http.StatusOK,
		"/room/lobby.*":                    http.StatusNotFound, // it would be another subject
		"/room/" + strings.Repeat("a", 33): http.StatusNotFound,
		"/page/cluster.js":                 http.StatusOK,
		"/page/cluster.css":                http.StatusOK,
		"/page/other":                      http.StatusNotFound,
		"/health":                          http.StatusOK,
	} {
		w := httptest.NewRecorder()
		n.node.routes().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != want {
			t.Errorf("GET %s = %d, want %d", path, w.Code, want)
		}
	}
}

// The command as it is started without flags, but for the ports.
func TestRun(t *testing.T) {
	o := options{node: "a", addr: freeAddr(t), embed: freeAddr(t), beat: time.Second}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, o) }()
	var health struct {
		Node   string
		Linked bool
	}
	for deadline := time.Now().Add(patience); !health.Linked; {
		resp, err := http.Get("http://" + o.addr + "/health")
		if err == nil {
			err = json.NewDecoder(resp.Body).Decode(&health)
			resp.Body.Close()
		}
		if time.Now().After(deadline) {
			t.Fatalf("the node doesn't get ready: %+v, %v", health, err)
		}
	}
	busy := o
	busy.addr = freeAddr(t)
	if err := run(ctx, busy); err == nil || !strings.Contains(err.Error(), "-nats") {
		t.Errorf("a second server on the same port: %v; want an error that says what to do", err)
	}
	ada := dial(t, o.addr, "lobby", "Ada")
	stop()
	if code := ada.closed(); code != 1001 {
		t.Errorf("at the end Ada is closed with %d, want 1001", code)
	}
	if err := <-ended; err != nil {
		t.Errorf("run = %v", err)
	}
}

// What the tests stand on

func startServer(t *testing.T, addr string) *server.Server {
	t.Helper()
	ns, err := startNATS(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stopServer(ns) })
	return ns
}

func stopServer(ns *server.Server) {
	ns.Shutdown()
	ns.WaitForShutdown()
}

func freeAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// A testNode is a node that serves.
type testNode struct {
	t    *testing.T
	node *node
	addr string
}

func startNode(t *testing.T, name, natsURL string) *testNode {
	t.Helper()
	n, err := newNode(options{node: name, nats: natsURL, beat: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(n.routes())
	t.Cleanup(func() {
		web.Close()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := n.shutdown(ctx); err != nil {
			t.Errorf("shutdown of node %s: %v", name, err)
		}
	})
	return &testNode{t, n, web.Listener.Addr().String()}
}

// A client speaks as much of the protocol as the tests need.
type client struct {
	t       *testing.T
	nc      net.Conn
	r       *bufio.Reader
	welcome event
	last    event // the last that said who is here
}

func (n *testNode) enter(room, name string) *client {
	n.t.Helper()
	return dial(n.t, n.addr, room, name)
}

func dial(t *testing.T, addr, room, name string) *client {
	t.Helper()
	c := dialAny(t, addr, room, name)
	if c.welcome = c.next(); c.welcome.Type != "welcome" {
		t.Fatalf("the first event is %+v, want a welcome", c.welcome)
	}
	return c
}

// dialAny leaves it open what comes after the upgrade.
func dialAny(t *testing.T, addr, room, name string) *client {
	t.Helper()
	c, resp := upgrade(t, addr, room, name)
	if resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade: %s; want 101", resp.Status)
	}
	return c
}

func ask(t *testing.T, addr, room, name string) (status int) {
	t.Helper()
	_, resp := upgrade(t, addr, room, name)
	return resp.StatusCode
}

func upgrade(t *testing.T, addr, room, name string) (*client, *http.Response) {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(nc, "GET /room/%s/socket?name=%s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", room, url.QueryEscape(name), addr)
	c := &client{t: t, nc: nc, r: bufio.NewReader(nc)}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c, resp
}

// say sends a text frame, masked with the key 0 (section 5.2).
func (c *client) say(text string) {
	c.t.Helper()
	frame := []byte{0x81}
	if n := len(text); n < 126 {
		frame = append(frame, 0x80|byte(n))
	} else {
		frame = binary.BigEndian.AppendUint16(append(frame, 0x80|126), uint16(n))
	}
	frame = append(append(frame, 0, 0, 0, 0), text...)
	if _, err := c.nc.Write(frame); err != nil {
		c.t.Fatal(err)
	}
}

// frame reads a frame of any length.
func (c *client) frame() (first byte, payload []byte) {
	c.t.Helper()
	head := make([]byte, 2)
	_, err := io.ReadFull(c.r, head)
	length := uint64(head[1])
	if more := map[uint64]int{126: 2, 127: 8}[length]; err == nil && more > 0 {
		long := make([]byte, 8)
		_, err = io.ReadFull(c.r, long[8-more:])
		length = binary.BigEndian.Uint64(long)
	}
	payload = make([]byte, length)
	if err == nil {
		_, err = io.ReadFull(c.r, payload)
	}
	if err != nil {
		c.t.Fatalf("%s waits for an event: %v; the last was %+v", c.welcome.Name, err, c.last)
	}
	return head[0], payload
}

func (c *client) next() (e event) {
	c.t.Helper()
	first, payload := c.frame()
	if err := json.Unmarshal(payload, &e); first != 0x81 || err != nil {
		c.t.Fatalf("frame %#x %q: %v; want text with an event", first, payload, err)
	}
	if e.Here != nil {
		c.last = e
	}
	return e
}

// until reads events up to one of this kind, name and text.
func (c *client) until(kind, name, text string) event {
	c.t.Helper()
	for {
		if e := c.next(); e.Type == kind && e.Name == name && e.Text == text {
			return e
		}
	}
}

// meets reads events until these people are here, and returns the last.
func (c *client) meets(names ...string) event {
	c.t.Helper()
	for !slices.Equal(c.last.Here, names) {
		c.next()
	}
	return c.last
}

// closed reads up to the close frame and returns its code.
func (c *client) closed() uint16 {
	c.t.Helper()
	for {
		if first, payload := c.frame(); first == 0x88 {
			return binary.BigEndian.Uint16(payload)
		}
	}
}
