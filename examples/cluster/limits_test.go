package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"
)

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

// Silent sockets can't take more than their places, and give them back.
func TestSocketsAreBounded(t *testing.T) {
	web := newWeb(http.NotFoundHandler())
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
