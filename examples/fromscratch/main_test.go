package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rawws/websocket"
)

// serveVariable makes this binary the command itself, for the test in which
// the process ends.
const serveVariable = "FROMSCRATCH_SERVE"

func TestMain(m *testing.M) {
	if os.Getenv(serveVariable) != "" {
		os.Args = []string{"fromscratch", "-addr", "127.0.0.1:0"}
		main()
	}
	log.SetOutput(io.Discard)
	os.Exit(m.Run())
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

func startScratch(t *testing.T) (addr string) {
	ln := listen(t)
	go serve(ln)
	return ln.Addr().String()
}

// startLibrary serves the same by the library, as strictly as it does by default.
func startLibrary(t *testing.T, u websocket.Upgrader) (addr string) {
	ln := listen(t)
	s := &websocket.Server{Upgrader: u, Handler: websocket.Events{
		OnMessage: func(c *websocket.Conn, t websocket.MessageType, data []byte) { c.WriteMessage(t, data) },
	}}
	go s.Serve(ln)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		s.Shutdown(ctx)
	})
	return ln.Addr().String()
}

// A client writes and reads bytes.
type client struct {
	*testing.T
	net.Conn
	r *bufio.Reader
}

func dial(t *testing.T, addr string) *client {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(20 * time.Second))
	return &client{t, nc, bufio.NewReader(nc)}
}

// lawful is a request in the words of RFC 6455, section 1.2.
var lawful = strings.Join([]string{
	"GET /chat HTTP/1.1",
	"Host: server.example.com",
	"Upgrade: websocket",
	"Connection: Upgrade",
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
	"Sec-WebSocket-Version: 13",
	"", "",
}, "\r\n")

// ask writes a request and reads the head of the answer.
func (c *client) ask(request string) *http.Response {
	c.Helper()
	io.WriteString(c, request)
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.Fatalf("the answer to %q: %v", request, err)
	}
	return resp
}

func (c *client) open() {
	c.Helper()
	if resp := c.ask(lawful); resp.StatusCode != http.StatusSwitchingProtocols {
		c.Fatalf("a lawful request is answered with %s, want 101", resp.Status)
	}
}

// frame is a client's frame: masked, with the key 1, 2, 3, 4.
func frame(b0 byte, payload string) string {
	b := []byte{b0}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	b = append(b, 1, 2, 3, 4)
	for i := range len(payload) {
		b = append(b, payload[i]^byte(1+i%4))
	}
	return string(b)
}

// unmasked is a server's frame.
func unmasked(b0 byte, payload string) string {
	b := []byte{b0}
	switch n := len(payload); {
	case n < 126:
		b = append(b, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	return string(b) + payload
}

// TestLawful is all that it gets right, on purpose too: the library says the same.
func TestLawful(t *testing.T) {
	for name, addr := range map[string]string{"fromscratch": startScratch(t), "the library": startLibrary(t, websocket.Upgrader{})} {
		c := dial(t, addr)
		resp := c.ask(lawful)
		if got := resp.Header.Get("Sec-WebSocket-Accept"); resp.StatusCode != http.StatusSwitchingProtocols || got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
			t.Fatalf("%s: %s, Sec-WebSocket-Accept: %q; want 101 and that of RFC 6455, section 1.3", name, resp.Status, got)
		}
		for _, test := range []struct {
			b0      byte
			payload string
		}{
			{0x81, "Hello"}, {0x81, ""}, {0x81, "καλημέρα 🙂"}, {0x82, "\x00\xff"},
			{0x82, strings.Repeat("a", 125)}, {0x82, strings.Repeat("b", 126)}, {0x82, strings.Repeat("c", 65535)}, {0x82, strings.Repeat("d", 65536)},
		} {
			io.WriteString(c, frame(test.b0, test.payload))
			want := unmasked(test.b0, test.payload)
			got := make([]byte, len(want))
			if n, err := io.ReadFull(c.r, got); err != nil || string(got) != want {
				t.Fatalf("%s: the echo of %d bytes is %d bytes, %v: % .20x; want % .20x", name, len(test.payload), n, err, got, want)
			}
		}
	}
	// In pieces of one byte, and three messages at once.
	c := dial(t, startScratch(t))
	c.open()
	all := strings.Repeat(frame(0x81, "Hello"), 3)
	for i := range 5 {
		io.WriteString(c, all[i:i+1])
	}
	io.WriteString(c, all[5:])
	got := make([]byte, 21)
	if _, err := io.ReadFull(c.r, got); err != nil || string(got) != strings.Repeat("\x81\x05Hello", 3) {
		t.Errorf("three messages are echoed as % x, %v", got, err)
	}
}

func TestPage(t *testing.T) {
	resp, err := http.Get("http://" + startScratch(t))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || !bytes.Contains(body, []byte("new WebSocket(")) {
		t.Errorf("the page is %q, %v", body, err)
	}
}

// What it gets wrong on purpose: the vectors that it must fail, and what the
// library answers.
func TestWrongFrames(t *testing.T) {
	const text, more = 0x81, 0x01
	closed := func(code int) string { return fmt.Sprintf("a close frame with %d", code) }
	big := strings.Repeat("x", 1<<20+1)
	for _, test := range []struct {
		name, send       string
		library, scratch string
	}{
		{"fragments", frame(more, "Hel") + frame(0x80, "lo"), "\x81\x05Hello", "\x81\x03Hel\x80\x02lo"},
		{"a ping between fragments", frame(more, "Hel") + frame(0x89, "?") + frame(0x80, "lo"), "\x8a\x01?\x81\x05Hello", "\x81\x03Hel\x80\x02lo"},
		{"a continuation of nothing", frame(0x80, "lo"), closed(1002), "\x80\x02lo"},
		{"text inside of text", frame(more, "a") + frame(text, "b"), closed(1002), "\x81\x01a\x81\x01b"},
		{"text that isn't UTF-8", frame(text, "\xff"), closed(1007), "\x81\x01\xff"},
		{"half a character", frame(text, "\xc3"), closed(1007), "\x81\x01\xc3"},
		{"no mask", "\x81\x05Hello", closed(1002), "\x81\x05Hello"},
		{"a reserved bit", frame(0xc1, "x"), closed(1002), "\x81\x01x"},
		{"an unknown opcode", frame(0x83, "x"), closed(1002), "\x83\x01x"},
		{"a length not in its shortest form", "\x81\xfe\x00\x05\x00\x00\x00\x00Hello", closed(1002), "\x81\x05Hello"},
		{"a message over a limit", frame(text, big), closed(1009), unmasked(text, big)},
		{"a ping", frame(0x89, "?") + frame(text, "x"), "\x8a\x01?\x81\x01x", "\x81\x01x"},
		{"a ping of 126 bytes", frame(0x89, strings.Repeat("?", 126)) + frame(text, "x"), closed(1002), "\x81\x01x"},
		{"a fragmented ping", frame(0x09, "?") + frame(text, "x"), closed(1002), "\x81\x01x"},
		{"goodbye", frame(0x88, "\x03\xe8"), "\x88\x02\x03\xe8", ""},
		{"goodbye with a code that isn't sent", frame(0x88, "\x03\xed"), closed(1002), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, s := range []struct{ name, addr, want string }{
				{"the library", startLibrary(t, websocket.Upgrader{}), test.library},
				{"fromscratch", startScratch(t), test.scratch},
			} {
				c := dial(t, s.addr)
				c.open()
				go io.WriteString(c, test.send) // the library may not take all of it
				if code := 0; strings.HasPrefix(s.want, "a close frame") {
					fmt.Sscanf(s.want, "a close frame with %d", &code)
					s.want = "\x88" // behind which come its length and its code
					head := make([]byte, 4)
					if _, err := io.ReadFull(c.r, head); err != nil || head[0] != 0x88 || int(binary.BigEndian.Uint16(head[2:])) != code {
						t.Errorf("%s answers % x, %v; want a close frame with %d", s.name, head, err, code)
					}
					continue
				}
				got := make([]byte, len(s.want))
				if _, err := io.ReadFull(c.r, got); err != nil || string(got) != s.want {
					t.Errorf("%s answers % .40x, %v; want % .40x", s.name, got, err, s.want)
				}
				if s.want != "" {
					continue
				}
				if b, err := c.r.ReadByte(); err == nil {
					t.Errorf("%s answers with %x; want an end of the stream and no close frame", s.name, b)
				}
			}
		})
	}
}

// Any request with a key will do, of a page of any site too.
func TestWrongRequests(t *testing.T) {
	scratch, library := startScratch(t), startLibrary(t, websocket.Upgrader{})
	for _, test := range []struct {
		name, old, new string
		want           int // of the library
	}{
		{"a page of another site", "Upgrade: websocket", "Origin: https://evil.example\r\nUpgrade: websocket", http.StatusForbidden},
		{"another method", "GET", "DELETE", http.StatusMethodNotAllowed},
		{"another version", "Version: 13", "Version: 8", http.StatusUpgradeRequired},
		{"a key that is none", "dGhlIHNhbXBsZSBub25jZQ==", "hello", http.StatusBadRequest},
		{"two keys", "Sec-WebSocket-Key:", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Key:", http.StatusBadRequest},
		{"no Host", "Host: server.example.com\r\n", "", http.StatusBadRequest},
		{"a body", "Upgrade: websocket", "Content-Length: 5\r\nUpgrade: websocket", http.StatusBadRequest},
		{"too long a line", "/chat", "/" + strings.Repeat("a", 9<<10), http.StatusRequestURITooLong},
		{"too many headers", "Upgrade: websocket", strings.Repeat("X: y\r\n", 200) + "Upgrade: websocket", http.StatusRequestHeaderFieldsTooLarge},
	} {
		request := strings.Replace(lawful, test.old, test.new, 1)
		if got := dial(t, library).ask(request).StatusCode; got != test.want {
			t.Errorf("%s: the library answers %d, want %d", test.name, got, test.want)
		}
		if got := dial(t, scratch).ask(request).StatusCode; got != http.StatusSwitchingProtocols {
			t.Errorf("%s: fromscratch answers %d, want 101, which is wrong", test.name, got)
		}
	}
}

// Who begins and goes silent is let go by the library, and waited for here
// without end: long after, it is still served.
func TestSlowPeer(t *testing.T) {
	slow, other := dial(t, startScratch(t)), dial(t, startLibrary(t, websocket.Upgrader{HandshakeTimeout: 500 * time.Millisecond}))
	half := len(lawful) / 2
	io.WriteString(slow, lawful[:half])
	io.WriteString(other, lawful[:half])
	if _, err := io.ReadAll(other.r); err != nil {
		t.Errorf("the library ends the connection with %v, want EOF", err)
	}
	if resp := slow.ask(lawful[half:]); resp.StatusCode != http.StatusSwitchingProtocols {
		t.Errorf("fromscratch answers %s, want 101", resp.Status)
	}
}

// A frame's header ends the process: its length is believed.
func TestLengthIsBelieved(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveVariable+"=1")
	stderr, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	lines.Scan()
	where := regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(lines.Text())
	c := dial(t, where)
	c.open()
	const huge = "\x82\xff\x40\x00\x00\x00\x00\x00\x00\x00" + "\x01\x02\x03\x04" // 2^62, and a key
	io.WriteString(c, huge)
	said := lines.Text()
	for lines.Scan() {
		said += "\n" + lines.Text()
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(said, "panic: runtime error: makeslice: len out of range") {
		t.Errorf("the process ends with %v, and said %s; want a panic for a length of 2^62", err, said)
	}

	c = dial(t, startLibrary(t, websocket.Upgrader{}))
	c.open()
	io.WriteString(c, huge)
	head := make([]byte, 4)
	if _, err := io.ReadFull(c.r, head); err != nil || head[0] != 0x88 || binary.BigEndian.Uint16(head[2:]) != 1009 {
		t.Errorf("the library answers % x, %v; want a close frame with 1009", head, err)
	}
}

// The program stays as short as it says, and what the README names is there.
func TestReadme(t *testing.T) {
	source, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(source, []byte("\n")); n > 200 {
		t.Errorf("main.go has %d lines, want at most 200", n)
	}
	if bytes.Contains(source, []byte("rawws/websocket\"")) || bytes.Contains(source, []byte("net/http")) {
		t.Error("main.go imports the library, or net/http")
	}
	for i := 1; i <= 12; i++ {
		if !bytes.Contains(source, fmt.Appendf(nil, "// %d. ", i)) {
			t.Errorf("main.go has no step %d", i)
		}
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	links := regexp.MustCompile(`\]\(([^)#]+)`).FindAllSubmatch(readme, -1)
	if len(links) < 10 {
		t.Errorf("the README has %d links, want a file for each fault", len(links))
	}
	for _, link := range links {
		if name := string(link[1]); !strings.Contains(name, "://") {
			if _, err := os.Stat(name); err != nil {
				t.Errorf("the README links to %s: %v", name, err)
			}
		}
	}
}
