package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rawws/websocket"
)

// start serves until the test ends.
func start(t *testing.T) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(ln, "")
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		<-served
	})
	return ln.Addr().String()
}

// A peer is a WebSocket client, as far as the tests need one.
type peer struct {
	testing.TB
	nc net.Conn
	r  *bufio.Reader
}

func dial(t testing.TB, addr, path, session, client string) *peer {
	t.Helper()
	p, status := ask(t, addr, addr, path, session, client)
	if status != http.StatusSwitchingProtocols {
		t.Fatalf("the upgrade is answered with %d, want 101", status)
	}
	return p
}

// ask asks for the upgrade at addr, which it calls host.
func ask(t testing.TB, addr, host, path, session, client string) (p *peer, status int) {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(20 * time.Second))
	p = &peer{t, nc, bufio.NewReader(nc)}
	who := url.Values{}
	if session != "" {
		who = url.Values{"session": {session}, "client": {client}}
	}
	io.WriteString(nc, strings.Replace(rawRequest(host, who, true), "/echo", path, 1))
	resp, err := http.ReadResponse(p.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p, resp.StatusCode
}

// frame returns the next frame's first byte and payload.
func (p *peer) frame() (b0 byte, payload []byte) {
	p.Helper()
	var h [2]byte
	if _, err := io.ReadFull(p.r, h[:]); err != nil {
		p.Fatalf("reading a frame: %v", err)
	}
	n := int(h[1])
	if n == 126 {
		var more [2]byte
		io.ReadFull(p.r, more[:])
		n = int(binary.BigEndian.Uint16(more[:]))
	}
	payload = make([]byte, n)
	if _, err := io.ReadFull(p.r, payload); err != nil {
		p.Fatalf("reading a payload of %d bytes: %v", n, err)
	}
	return h[0], payload
}

func (p *peer) event() (e event) {
	p.Helper()
	_, data := p.frame()
	if err := json.Unmarshal(data, &e); err != nil {
		p.Fatalf("event %q: %v", data, err)
	}
	return e
}

// until returns the events up to the one of that kind.
func (p *peer) until(kind string) (all []event) {
	p.Helper()
	for {
		e := p.event()
		if all = append(all, e); e.Kind == kind {
			return all
		}
	}
}

func (p *peer) command(c command) {
	data, _ := json.Marshal(c)
	p.nc.Write(masked(fin|text, data))
}

func kinds(events []event) (kinds []string) {
	for _, e := range events {
		kinds = append(kinds, e.Kind)
	}
	return kinds
}

func TestPage(t *testing.T) {
	addr := start(t)
	seen := make(map[string]bool)
	get := func(path string) (*http.Response, string) {
		seen[path] = true
		resp, err := http.Get("http://" + addr + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("GET %s: %s, %v", path, resp.Status, err)
		}
		return resp, string(body)
	}
	resp, page := get("/")
	if got := resp.Header.Get("Content-Security-Policy"); !strings.Contains(got, "default-src 'none'") {
		t.Errorf("Content-Security-Policy is %q, want nothing allowed by default", got)
	}
	assets := regexp.MustCompile(`(?:href|src|from)[= ]"(?:\./)?(\w+\.\w+)"`)
	for _, asset := range assets.FindAllStringSubmatch(page, -1) {
		_, body := get("/" + asset[1])
		for _, asset := range assets.FindAllStringSubmatch(body, -1) {
			get("/" + asset[1])
		}
	}
	if want := []string{"/style.css", "/page.js", "/story.js", "/draw.js", "/words.js"}; slices.ContainsFunc(want, func(s string) bool { return !seen[s] }) {
		t.Errorf("the page asks for %v, want %v among them", seen, want)
	}
	for _, script := range regexp.MustCompile(`data-script="(\w+)"`).FindAllStringSubmatch(page, -1) {
		if _, ok := scripts[script[1]]; !ok {
			t.Errorf("the page has a button for the script %q, which isn't there", script[1])
		}
	}
}

// A step names what does it: a name that the library exports, so that a reader
// finds its documentation, or a file that is there.
func TestSteps(t *testing.T) {
	words, err := os.ReadFile("page/words.js")
	if err != nil {
		t.Fatal(err)
	}
	table := regexp.MustCompile(`(?s)export const via = \{.*?\n\};`).Find(words)
	names := regexp.MustCompile(`"([^"]+)"`).FindAllSubmatch(table, -1)
	if len(names) < 10 {
		t.Fatalf("%d names in %q", len(names), table)
	}
	exported := exports(t, "../..")
	for _, m := range names {
		name := string(m[1])
		if strings.HasSuffix(name, ".go") {
			if _, err := os.Stat("../../" + name); err != nil {
				t.Errorf("a step links to %s: %v", name, err)
			}
		} else if !exported[name] && name != "net.Listen" {
			t.Errorf("a step names %s, which the library doesn't export", name)
		}
	}
}

// exports returns what a package exports, as "Type", "Func", "Type.Method" and
// "Type.Field".
func exports(t *testing.T, dir string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files in %s: %v", dir, err)
	}
	all := make(map[string]bool)
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		if f.Name.Name != "websocket" || strings.HasSuffix(name, "_test.go") {
			continue
		}
		ast.FileExports(f)
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				prefix := ""
				if n.Recv != nil {
					recv := n.Recv.List[0].Type
					if star, ok := recv.(*ast.StarExpr); ok {
						recv = star.X
					}
					prefix = recv.(*ast.Ident).Name + "."
				}
				all[prefix+n.Name.Name] = true
				return false
			case *ast.TypeSpec:
				all[n.Name.Name] = true
				if s, ok := n.Type.(*ast.StructType); ok {
					for _, field := range s.Fields.List {
						for _, id := range field.Names {
							all[n.Name.Name+"."+id.Name] = true
						}
					}
				}
			}
			return true
		})
	}
	return all
}

// A page sees its own connections and those of programs, not those of others.
func TestSessions(t *testing.T) {
	addr := start(t)
	viewer, other := dial(t, addr, tracePath, "mine", ""), dial(t, addr, tracePath, "theirs", "")
	listen := viewer.event()
	if listen.Kind != "listen" || listen.Local != addr || listen.FD == 0 || listen.PID == 0 {
		t.Errorf("the first event is %+v, want the listener on %s", listen, addr)
	}
	other.event()

	page := dial(t, addr, "/echo", "mine", "page-1")
	page.nc.Write(masked(fin|text, []byte("Hello")))
	if b0, data := page.frame(); b0 != fin|text || string(data) != "Hello" {
		t.Errorf("echo: %x %q, want the text Hello", b0, data)
	}
	page.nc.Write(goodbye())
	got := viewer.until("closed")
	want := []string{"accept", "request", "answer", "state", "read", "write", "read", "state", "write", "state", "closed"}
	if !slices.Equal(kinds(got), want) {
		t.Errorf("events %v, want %v", kinds(got), want)
	}
	for i, e := range got {
		if e.Client != "page-1" || i > 0 && e.At < got[i-1].At {
			t.Errorf("event %d of %q at %f, want of page-1 and not before %f", i, e.Client, e.At, got[max(i-1, 0)].At)
		}
	}
	if f := got[4].Frame; string(f.Payload) != "Hello" || len(f.Header) != 6 || f.Wire[0]^f.Header[2] != 'H' {
		t.Errorf("frame %+v, want a masked Hello", f)
	}
	if e := got[len(got)-1].End; e == nil || !e.Clean || e.Sent != 1000 || e.Received != 1000 {
		t.Errorf("end %+v, want a clean one with 1000", e)
	}

	dial(t, addr, "/echo", "", "").nc.Write(goodbye())
	for name, p := range map[string]*peer{"mine": viewer, "theirs": other} {
		if got := p.until("closed"); got[0].Kind != "accept" || got[0].Client != "" {
			t.Errorf("session %s: the first event is %+v, want the program's", name, got[0])
		}
	}
}

func TestCommands(t *testing.T) {
	addr := start(t)
	viewer := dial(t, addr, tracePath, "s", "")
	viewer.event()
	before := now()
	viewer.command(command{Do: "clock", ID: 7})
	if e := viewer.event(); e.Kind != "clock" || e.ID != 7 || e.At < before {
		t.Errorf("clock: %+v", e)
	}
	page := dial(t, addr, "/echo", "s", "page-1")
	page.nc.Write(masked(fin|text, nil)) // once its echo is here, the server knows the page
	page.frame()
	viewer.command(command{Do: "ping", Text: "there?"})
	if b0, data := page.frame(); b0 != fin|ping || string(data) != "there?" {
		t.Errorf("ping: %x %q", b0, data)
	}
	viewer.command(command{Do: "close", Code: 1001, Text: "home"})
	if b0, data := page.frame(); b0 != fin|closing || string(data) != "\x03\xe9home" {
		t.Errorf("close: %x %q", b0, data)
	}
	page.nc.Write(goodbye())
	viewer.until("closed")
	viewer.nc.Write(masked(fin|text, []byte("not JSON")))
	if b0, data := viewer.frame(); b0 != fin|closing || string(data[:2]) != "\x03\xeb" {
		t.Errorf("not JSON: %x %q, want a close frame with 1003", b0, data)
	}
}

// What the raw client does, and what the server makes of it.
func TestScripts(t *testing.T) {
	addr := start(t)
	for name := range scripts {
		t.Run(name, func(t *testing.T) {
			viewer := dial(t, addr, tracePath, name, "")
			viewer.event()
			viewer.command(command{Do: "raw", Script: name, Client: "raw-1", Text: "some 🙂 words"})
			var found *problem
			var message string
			var closing *end
			ended := false
			for closing == nil || !ended {
				switch e := viewer.event(); {
				case e.Kind == "read" && e.Frame.Problem != nil:
					found = e.Frame.Problem
				case e.Kind == "write" && e.Frame.Header[0] == fin|text:
					message = string(e.Frame.Payload)
				case e.Kind == "closed":
					closing = e.End
				case e.Kind == "raw" && e.State == "end":
					ended = true
					if e.Text != io.EOF.Error() {
						t.Errorf("the raw client's stream ends with %s, want EOF", e.Text)
					}
				}
			}
			switch name {
			case "fragments":
				if message != "some 🙂 words" || !closing.Clean {
					t.Errorf("the echo of fragments is %q, then %+v", message, closing)
				}
			case "ping":
				if !closing.Clean {
					t.Errorf("end %+v, want a clean one", closing)
				}
			case "nokey":
				if closing.Sent != 0 || !strings.Contains(closing.Problem.Reason, "400") {
					t.Errorf("end %+v, want a refusal with 400", closing)
				}
			default:
				if found == nil || found.Code != closing.Sent || !strings.HasPrefix(found.Section, "RFC 6455, section ") {
					t.Errorf("found %+v, end %+v; want a rule of RFC 6455 and its code", found, closing)
				}
			}
		})
	}
}

// A page of another site that has made its name point here sees nothing.
func TestRebinding(t *testing.T) {
	addr := start(t)
	_, port, _ := net.SplitHostPort(addr)
	for host, want := range map[string]int{
		"localhost:" + port: http.StatusSwitchingProtocols, "127.0.0.1:" + port: http.StatusSwitchingProtocols, "[::1]:" + port: http.StatusSwitchingProtocols,
		"evil.example:" + port: http.StatusForbidden, "127.0.0.1.evil.example:" + port: http.StatusForbidden,
	} {
		for _, path := range []string{tracePath, "/echo"} {
			if _, status := ask(t, addr, host, path, "s", ""); status != want {
				t.Errorf("%s with Host: %s is answered with %d, want %d", path, host, status, want)
			}
		}
	}
}

func TestHosts(t *testing.T) {
	for _, test := range []struct{ listen, name, want string }{
		{"127.0.0.1:1", "127.0.0.1", ""}, {"127.0.0.2:1", "box.example", "box.example"}, {"192.0.2.7:1", "", "192.0.2.7"},
		{"[2001:db8::1]:1", "2001:db8::1", "[2001:db8::1]"}, {"0.0.0.0:1", "", "127.0.0.1"},
	} {
		addr, err := net.ResolveTCPAddr("tcp", test.listen)
		if err != nil {
			t.Fatal(err)
		}
		got := hosts(addr, test.name)
		if test.want != "" && !slices.Contains(got, test.want) || !slices.Contains(got, "localhost") || slices.Contains(got, "*") || slices.Contains(got, "") {
			t.Errorf("hosts(%s, %q) = %q, want %q and localhost among them", test.listen, test.name, got, test.want)
		}
	}
}

// However often a page asks, few raw clients run at once, and it is told.
func TestManyCommands(t *testing.T) {
	addr := start(t)
	viewer := dial(t, addr, tracePath, "s", "")
	viewer.event()
	const commands = 500
	go func() {
		for range commands {
			viewer.command(command{Do: "raw", Script: "ping", Client: "raw-1", Text: "hello"})
		}
	}()
	busy, begun, ended, most := 0, 0, 0, 0
	for busy+ended < commands {
		e := viewer.event()
		if e.Kind != "raw" {
			continue
		}
		switch e.State {
		case "busy":
			busy++
		case "dial":
			begun++
			most = max(most, begun-ended)
		case "end":
			ended++
		}
	}
	if most > maxRaw || busy == 0 || ended < maxRaw {
		t.Errorf("of %d commands %d were refused and %d run, up to %d at once; want at most %d, and some of both", commands, busy, ended, most, maxRaw)
	}
}

// A step behind the last of its connection is nobody's: for all pages, it would be
// sent to the one that is just ending as well, under the lock that its own hooks
// are called with.
func TestStepsBehindTheEnd(t *testing.T) {
	f := newFeed()
	hooks := f.trace()
	nc, other := net.Pipe()
	defer nc.Close()
	defer other.Close()
	hooks.Accepted(1, nc)
	hooks.Request(1, []byte("GET "+tracePath+"?session=s HTTP/1.1\r\n\r\n"))
	hooks.Closed(1, nil)
	hooks.FrameWritten(1, new(websocket.TraceFrame))
	hooks.State(1, "closed")
	if len(f.clients) > 0 {
		t.Errorf("%d clients are known when all have gone", len(f.clients))
	}
}

// What a page may send to be repeated is short.
func TestShortCommands(t *testing.T) {
	addr := start(t)
	viewer := dial(t, addr, tracePath, "s", "")
	viewer.event()
	long := strings.Repeat("x", 1000)
	viewer.command(command{Do: "raw", Script: "nokey", Client: long})
	for _, e := range viewer.until("closed") {
		if len(e.Client) > maxWho {
			t.Errorf("a step is of a client with a name of %d bytes, want at most %d", len(e.Client), maxWho)
		}
	}
	viewer.nc.Write(masked(fin|text, make([]byte, maxCommand+1)))
	for {
		if b0, data := viewer.frame(); b0 == fin|closing {
			if string(data[:2]) != "\x03\xf1" {
				t.Errorf("a long command is closed with %x, want 1009", data)
			}
			return
		}
	}
}

func TestDialAddr(t *testing.T) {
	for _, test := range []struct{ listen, want string }{
		{"0.0.0.0:9003", "127.0.0.1:9003"}, {"[::]:9003", "127.0.0.1:9003"}, {"127.0.0.2:1", "127.0.0.2:1"},
	} {
		addr, err := net.ResolveTCPAddr("tcp", test.listen)
		if err != nil {
			t.Fatal(err)
		}
		if got := dialAddr(addr); got != test.want {
			t.Errorf("dialAddr(%s) = %s, want %s", test.listen, got, test.want)
		}
	}
}
