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
	a := startNodeBy(t, options{node: "a", nats: "nats://" + addr, beat: time.Second})
	b := startNodeBy(t, options{node: "b", nats: "nats://" + addr, beat: time.Second})
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
	a := startNodeBy(t, options{node: "a", nats: ns.ClientURL(), beat: 100 * time.Millisecond})
	b := startNode(t, "b", ns.ClientURL())
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

// startNode starts a node that neither forgets another, nor does without its history,
// because the machine is busy.
func startNode(t *testing.T, name, natsURL string) *testNode {
	t.Helper()
	return startNodeBy(t, options{node: name, nats: natsURL, beat: time.Second, wait: patience})
}

func startNodeBy(t *testing.T, o options) *testNode {
	t.Helper()
	n, err := newNode(o)
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(n.routes())
	t.Cleanup(func() {
		web.Close()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := n.shutdown(ctx); err != nil {
			t.Errorf("shutdown of node %s: %v", o.node, err)
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
