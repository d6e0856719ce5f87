package websocket

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rawws/websocket/internal/httphead"
)

// A handshakeCase is a request and its answer, from testdata/handshake, whose
// README describes the format, or from the parser's own.
type handshakeCase struct {
	name         string
	secure       bool
	origins      []string
	hosts        []string
	subprotocols []string
	limits       [3]int
	rest         int
	after        int
	sent         []byte
	answer       []string
}

// upgradeFields is what {upgrade} stands for.
const upgradeFields = "Upgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13"

// loadHandshakes returns the cases of all files. A directory, a file or a case
// with nothing in it is a fault of the test, and not a success.
func loadHandshakes(t testing.TB) []handshakeCase {
	t.Helper()
	var files []string
	for _, pattern := range []string{"testdata/handshake/*.txt", "internal/httphead/testdata/requests/*.txt"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("no files %s (%v)", pattern, err)
		}
		files = append(files, found...)
	}
	var all []handshakeCase
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		before := len(all)
		for i, line := range strings.Split(string(text), "\n") {
			if name, ok := strings.CutPrefix(line, "# "); ok {
				name = fmt.Sprintf("%s:%d: %s", filepath.Base(file), i+1, name)
				all = append(all, handshakeCase{name: name})
			} else if len(all) == before && line != "" && !strings.HasPrefix(line, "##") {
				t.Fatalf("%s:%d: %q before the first case", file, i+1, line)
			} else if len(all) > before {
				all[len(all)-1].addLine(t, line)
			}
		}
		if len(all) == before {
			t.Fatalf("%s holds no case", file)
		}
	}
	for _, c := range all {
		if len(c.sent) == 0 || len(c.answer) == 0 || c.after > len(c.sent) {
			t.Fatalf("%s: %d bytes sent, %d lines of answer, after %d", c.name, len(c.sent), len(c.answer), c.after)
		}
	}
	return all
}

// addLine adds a line of the file to the case.
func (c *handshakeCase) addLine(t testing.TB, line string) {
	t.Helper()
	mark, rest := line, ""
	if len(line) > 1 {
		mark, rest = line[:1], strings.TrimPrefix(line[1:], " ")
	}
	switch {
	case line == "" || strings.HasPrefix(line, "##"):
	case mark == "=":
		c.set(t, rest)
	case mark == ">":
		end := "\r\n"
		if slashes := len(rest) - len(strings.TrimRight(rest, `\`)); slashes%2 == 1 {
			rest, end = rest[:len(rest)-1], ""
		}
		c.sent = append(append(c.sent, expand(t, rest)...), end...)
	case mark == "<":
		c.answer = append(c.answer, rest)
	default:
		t.Fatalf("%s: line %q", c.name, line)
	}
}

// set takes a setting of the case.
func (c *handshakeCase) set(t testing.TB, setting string) {
	t.Helper()
	name, value, _ := strings.Cut(setting, " ")
	var err error
	switch name {
	case "secure":
		c.secure = true
	case "origins":
		c.origins = strings.Split(value, ", ")
	case "hosts":
		c.hosts = strings.Split(value, ", ")
	case "subprotocols":
		c.subprotocols = strings.Split(value, ", ")
	case "limits":
		_, err = fmt.Sscan(value, &c.limits[0], &c.limits[1], &c.limits[2])
	case "rest":
		c.rest, err = strconv.Atoi(value)
	case "after":
		c.after, err = strconv.Atoi(value)
	default:
		err = errors.New("unknown")
	}
	if err != nil {
		t.Fatalf("%s: setting %q: %v", c.name, setting, err)
	}
}

var repeated = regexp.MustCompile(`\{(\d+)\*([^{}]*)\}`)

// expand undoes the escapes of a line and what stands in braces.
func expand(t testing.TB, line string) string {
	t.Helper()
	s, err := strconv.Unquote(`"` + strings.ReplaceAll(line, `"`, `\"`) + `"`)
	if err != nil {
		t.Fatalf("line %q: %v", line, err)
	}
	s = strings.ReplaceAll(s, "{upgrade}", upgradeFields)
	for repeated.MatchString(s) {
		s = repeated.ReplaceAllStringFunc(s, func(m string) string {
			parts := repeated.FindStringSubmatch(m)
			n, err := strconv.Atoi(parts[1])
			if err != nil {
				t.Fatalf("line %q: %v", line, err)
			}
			return strings.Repeat(parts[2], n)
		})
	}
	return s
}

func (c *handshakeCase) parser() *httphead.Parser {
	return &httphead.Parser{MaxLine: c.limits[0], MaxHeader: c.limits[1], MaxHeaders: c.limits[2]}
}

// parse feeds the parser with what was sent up to each of the ends.
func (c *handshakeCase) parse(ends ...int) (r *http.Request, n int, err error) {
	p := c.parser()
	for _, end := range ends {
		if r, n, err = p.Parse(c.sent[:end:end]); n != 0 || err != nil {
			break
		}
	}
	return r, n, refusal(err)
}

// respond gives the answer to what was parsed, as an Upgrader does.
func (c *handshakeCase) respond(r *http.Request, err error) []byte {
	if r != nil && c.secure {
		r.TLS = new(tls.ConnectionState)
	}
	var key string
	if err == nil {
		key, err = checkUpgrade(r)
	}
	if err == nil {
		err = checkHost(r, c.hosts)
	}
	if err == nil {
		err = checkOrigin(r, c.secure, c.origins)
	}
	if err != nil {
		return appendRefusal(nil, err.(*HandshakeError), nil)
	}
	return appendSwitching(nil, key, selectSubprotocol(r, c.subprotocols), "", nil)
}

func TestHandshakes(t *testing.T) {
	for _, c := range loadHandshakes(t) {
		r, n, err := c.parse(len(c.sent))
		if n == 0 && err == nil {
			t.Errorf("%s: parse(%q) asks for more", c.name, c.sent)
			continue
		}
		got := c.respond(r, err)
		c.compare(t, got)
		checkAnswer(t, c.name, r, got)
		if r != nil {
			if n != len(c.sent)-c.rest {
				t.Errorf("%s: parse(%q) = %d; want %d", c.name, c.sent, n, len(c.sent)-c.rest)
			}
			checkUpgradeOfBoth(t, c.name, c.sent[:n], r)
		}
		if c.after > 0 {
			if _, n, err := c.parse(c.after - 1); n != 0 || err != nil {
				t.Errorf("%s: parse(%q) = %d, %v; want more to be asked for", c.name, c.sent[:c.after-1], n, err)
			}
			if _, _, err := c.parse(c.after); err == nil {
				t.Errorf("%s: parse(%q) = nil; want it to be refused by now", c.name, c.sent[:c.after])
			}
		}
	}
}

// checkUpgradeOfBoth holds that a request is judged the same when net/http has
// read it.
func checkUpgradeOfBoth(t *testing.T, name string, head []byte, r *http.Request) {
	t.Helper()
	head = bytes.TrimPrefix(head, []byte("\r\n")) // which net/http doesn't skip
	other, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
	if err != nil {
		t.Fatalf("%s: http.ReadRequest(%q): %v; ours accepts it", name, head, err)
	}
	key, err := checkUpgrade(r)
	otherKey, otherErr := checkUpgrade(other)
	if key != otherKey || !reflect.DeepEqual(err, otherErr) {
		t.Errorf("%s: checkUpgrade(%q) = %q, %v; with net/http's request %q, %v", name, head, key, err, otherKey, otherErr)
	}
}

// Whatever comes is answered with something that net/http can read, and with
// the same whether we have read it or net/http.
func FuzzHandshake(f *testing.F) {
	for _, c := range loadHandshakes(f) {
		f.Add(c.sent)
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		c := handshakeCase{name: "fuzz", sent: sent}
		r, n, err := c.parse(len(sent))
		if n == 0 && err == nil {
			return
		}
		checkAnswer(t, c.name, r, c.respond(r, err))
		if r != nil {
			checkUpgradeOfBoth(t, c.name, sent[:n], r)
		}
	})
}

// compare compares an answer with the one of the file.
func (c *handshakeCase) compare(t *testing.T, got []byte) {
	t.Helper()
	if strings.HasPrefix(c.answer[0], "HTTP/") {
		want := strings.Join(c.answer, "\r\n")
		if head, body, ok := strings.Cut(want, "\r\n\r\n"); ok && body != "" {
			want = head + "\r\n\r\n" + body + "\n" // the text ends with a line feed alone
		} else {
			want += "\r\n"
		}
		if string(got) != want {
			t.Errorf("%s: answer to %q\n got %q\nwant %q", c.name, c.sent, got, want)
		}
		return
	}
	head, body, _ := strings.Cut(string(got), "\r\n\r\n")
	lines := strings.Split(head, "\r\n")
	status, _, _ := strings.Cut(strings.TrimPrefix(lines[0], "HTTP/1.1 "), " ")
	if short := strings.TrimSpace(status + " " + body); short != c.answer[0] {
		t.Errorf("%s: answer to %q\n got %s\nwant %s", c.name, c.sent, short, c.answer[0])
	}
	for _, want := range c.answer[1:] {
		if !slices.Contains(lines, want) {
			t.Errorf("%s: answer to %q\n got %q\nwant in it %q", c.name, c.sent, head, want)
		}
	}
}

// checkAnswer holds what is true of every answer.
func checkAnswer(t *testing.T, name string, r *http.Request, answer []byte) {
	t.Helper()
	br := bufio.NewReader(bytes.NewReader(answer))
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatalf("%s: http.ReadResponse(%q): %v", name, answer, err)
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		if got, want := resp.Header.Get("Sec-WebSocket-Accept"), acceptKey(r.Header.Get("Sec-WebSocket-Key")); got != want || br.Buffered() != 0 {
			t.Errorf("%s: answer %q: accept key %q, %d bytes behind the head; want %q, none", name, answer, got, br.Buffered(), want)
		}
		return
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || int64(len(body)) != resp.ContentLength || br.Buffered() != 0 {
		t.Errorf("%s: body of %q: %d bytes, %v, %d behind it; want the %d declared", name, answer, len(body), err, br.Buffered(), resp.ContentLength)
	}
	if text := strings.TrimSuffix(string(body), "\n"); text == "" || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
		t.Errorf("%s: body %q; want one line of ASCII", name, body)
	}
	if !resp.Close || resp.StatusCode < 400 {
		t.Errorf("%s: answer %q; want an error that closes", name, answer)
	}
}

func TestAcceptKey(t *testing.T) {
	// RFC 6455, section 1.3.
	const key, want = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
	if got := string(appendAcceptKey([]byte("x"), key)); got != "x"+want {
		t.Errorf("appendAcceptKey(%q) = %q; want %q", key, got, want)
	}
}

// acceptKey is the same, written down once more.
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

func TestAppendSwitching(t *testing.T) {
	extra := http.Header{"Set-Cookie": {"a=1", "b=2"}, "x-name": {"Zo\u00eb"}, "Server": {"s"}}
	got := string(appendSwitching([]byte("x"), "dGhlIHNhbXBsZSBub25jZQ==", "chat", "permessage-deflate", extra))
	want := "xHTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n" +
		"Sec-WebSocket-Extensions: permessage-deflate\r\nServer: s\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nx-name: Zo\u00eb\r\n\r\n"
	if got != want {
		t.Errorf("appendSwitching\n got %q\nwant %q", got, want)
	}
}

func TestAppendRefusal(t *testing.T) {
	const tail = "Connection: close\r\nContent-Type: text/plain; charset=utf-8\r\n"
	for _, test := range []struct {
		status int
		reason string
		extra  http.Header
		want   string
	}{
		{401, "who?", http.Header{"Www-Authenticate": {"Basic"}},
			"401 Unauthorized\r\nConnection: close\r\nWww-Authenticate: Basic\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 5\r\n\r\nwho?\n"},
		{403, "", nil, "403 Forbidden\r\n" + tail + "Content-Length: 10\r\n\r\nForbidden\n"},
		{403, "a\r\nb\x00c\x7fd\te\u00eb", nil, "403 Forbidden\r\n" + tail + "Content-Length: 13\r\n\r\na  b c d e\u00eb\n"},
		{405, "x", http.Header{"allow": {"GET, HEAD"}},
			"405 Method Not Allowed\r\nConnection: close\r\nallow: GET, HEAD\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 2\r\n\r\nx\n"},
		{503, "full", nil,
			"503 Service Unavailable\r\nConnection: close\r\nRetry-After: 5\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 5\r\n\r\nfull\n"},
		{503, "full", http.Header{"Retry-After": {"60"}},
			"503 Service Unavailable\r\nConnection: close\r\nRetry-After: 60\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 5\r\n\r\nfull\n"},
		{307, "there", http.Header{"Location": {"/there"}},
			"307 Temporary Redirect\r\nConnection: close\r\nLocation: /there\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 6\r\n\r\nthere\n"},
		{300, "x", nil, "300 Multiple Choices\r\n" + tail + "Content-Length: 2\r\n\r\nx\n"},
		{599, "x", nil, "599 \r\n" + tail + "Content-Length: 2\r\n\r\nx\n"},
		{499, "x", nil, "499 \r\n" + tail + "Content-Length: 2\r\n\r\nx\n"},
		// Content of another type is sent as it is, and the type once.
		{400, "{\"error\":\n\"no room\"}", http.Header{"Content-Type": {"application/json"}, "X-A": {"b"}},
			"400 Bad Request\r\nConnection: close\r\nContent-Type: application/json\r\nX-A: b\r\nContent-Length: 20\r\n\r\n{\"error\":\n\"no room\"}"},
		{400, "\x00\xff", http.Header{"content-type": {"image/x"}},
			"400 Bad Request\r\nConnection: close\r\ncontent-type: image/x\r\nContent-Length: 2\r\n\r\n\x00\xff"},
		{404, "", http.Header{"Content-Type": {"text/html"}},
			"404 Not Found\r\nConnection: close\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n"},
		// What refuses nothing, has no body or isn't a status.
		{0, "x", nil, "500 Internal Server Error\r\n" + tail + "Content-Length: 2\r\n\r\nx\n"},
		{101, "x", nil, "500 Internal Server Error\r\n" + tail + "Content-Length: 2\r\n\r\nx\n"},
		{200, "x", nil, "500 Internal Server Error\r\n" + tail + "Content-Length: 2\r\n\r\nx\n"},
		{304, "x", nil, "500 Internal Server Error\r\n" + tail + "Content-Length: 2\r\n\r\nx\n"},
		{600, "", nil, "500 Internal Server Error\r\n" + tail + "Content-Length: 22\r\n\r\nInternal Server Error\n"},
	} {
		e := &HandshakeError{Status: test.status, Reason: test.reason}
		got := appendRefusal([]byte("x"), e, test.extra)
		if string(got) != "xHTTP/1.1 "+test.want {
			t.Errorf("appendRefusal(%+v, %v)\n got %q\nwant %q", e, test.extra, got, "xHTTP/1.1 "+test.want)
		}
		if _, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(got[1:])), nil); err != nil {
			t.Errorf("http.ReadResponse(%q): %v", got[1:], err)
		}
	}
}

func TestCheckExtraHeader(t *testing.T) {
	for _, test := range []struct {
		name, value string
		ok          bool
	}{
		{"Set-Cookie", "a=b; Path=/", true},
		{"x-name", "Zo\u00eb\t", true},
		{"X", "", true},
		{"Sec", "", true},
		{"Sec-Websocket", "", true},
		{"X", "a\r\nB: c", false},
		{"X", "a\rb", false},
		{"X", "a\nb", false},
		{"X", "a\x00", false},
		{"X", "a\x7f", false},
		{"", "a", false},
		{"X Y", "a", false},
		{"X\r\nY", "a", false},
		{"X:", "a", false},
		{"\u00eb", "a", false},
		{"Upgrade", "a", false},
		{"connection", "a", false},
		{"Content-Length", "0", false},
		{"content-type", "text/html", false},
		{"Transfer-Encoding", "chunked", false},
		{"Trailer", "X", false},
		{"Sec-WebSocket-", "a", false},
		{"Sec-WebSocket-Accept", "a", false},
		{"sec-websocket-protocol", "a", false},
		{"SEC-WEBSOCKET-EXTENSIONS", "a", false},
		{"Sec-Websocket-Version", "13", false},
	} {
		for _, refusal := range []bool{false, true} {
			err := checkExtraHeader(http.Header{"Date": {"now"}, test.name: {"ok", test.value}}, refusal)
			if (err == nil) != test.ok {
				t.Errorf("checkExtraHeader(%q: %q, %v) = %v; want ok = %v", test.name, test.value, refusal, err, test.ok)
			}
			if err != nil && !strings.HasPrefix(err.Error(), "websocket: ") {
				t.Errorf("checkExtraHeader(%q: %q, %v) = %v; want websocket: ...", test.name, test.value, refusal, err)
			}
		}
	}
	// A refusal has content, of one type.
	for _, test := range []struct {
		name, value string
		refusal, ok bool
	}{
		{"Content-Type", "application/json", true, true},
		{"content-type", "application/json", true, true},
		{"Content-Type", "application/json", false, false},
		{"Content-Type", "a\r\nB: c", true, false},
		{"Content-Length", "1", true, false},
	} {
		err := checkExtraHeader(http.Header{test.name: {test.value}}, test.refusal)
		if (err == nil) != test.ok {
			t.Errorf("checkExtraHeader(%q: %q, %v) = %v; want ok = %v", test.name, test.value, test.refusal, err, test.ok)
		}
	}
}

// What net/http lets through, when the handler is mounted there, is checked
// as strictly where it matters.
func TestCheckUpgradeOfNetHTTP(t *testing.T) {
	lawful := func() *http.Request {
		return &http.Request{
			Method: "GET", RequestURI: "/a", URL: &url.URL{Path: "/a"}, Host: "a", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			Header: http.Header{"Upgrade": {"websocket"}, "Connection": {"Upgrade"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}},
		}
	}
	for _, test := range []struct {
		name   string
		change func(r *http.Request)
		status int
	}{
		{"lawful", func(r *http.Request) {}, 0},
		{"made by hand, without RequestURI", func(r *http.Request) { r.RequestURI = "" }, 0},
		{"HTTP/2", func(r *http.Request) { r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/2.0", 2, 0 }, 505},
		{"HTTP/1.0", func(r *http.Request) { r.ProtoMinor = 0 }, 426},
		{"Host empty", func(r *http.Request) { r.Host = "" }, 400},
		{"Host with a path", func(r *http.Request) { r.Host = "a/b" }, 400},
		{"target with a fragment", func(r *http.Request) { r.RequestURI = "/a#b" }, 400},
		{"target with NUL", func(r *http.Request) { r.RequestURI = "/%00" }, 400},
		{"query with NUL", func(r *http.Request) { r.RequestURI = "/?%00" }, 0},
		{"target not ASCII", func(r *http.Request) { r.RequestURI = "/\u00eb" }, 400},
		{"body", func(r *http.Request) { r.ContentLength = 1 }, 400},
		{"body of unknown length", func(r *http.Request) { r.ContentLength = -1 }, 400},
		{"chunked", func(r *http.Request) { r.TransferEncoding = []string{"chunked"} }, 400},
		{"subprotocol that is no token", func(r *http.Request) { r.Header["Sec-Websocket-Protocol"] = []string{"a b"} }, 400},
		{"key with a line in it", func(r *http.Request) { r.Header["Sec-Websocket-Key"] = []string{"dGhlIHNhbXBsZSBub2\r\nZQ=="} }, 400},
	} {
		r := lawful()
		test.change(r)
		key, err := checkUpgrade(r)
		var refused *HandshakeError
		switch {
		case test.status == 0 && (err != nil || key != "dGhlIHNhbXBsZSBub25jZQ=="):
			t.Errorf("%s: checkUpgrade = %q, %v; want the key", test.name, key, err)
		case test.status != 0 && (!errors.As(err, &refused) || refused.Status != test.status || key != ""):
			t.Errorf("%s: checkUpgrade = %q, %v; want %d", test.name, key, err, test.status)
		}
	}
}

// browserRequest is what Chromium sends.
var browserRequest = []byte("GET /chat?room=1&user=alice HTTP/1.1\r\n" +
	"Host: 127.0.0.1:9001\r\n" +
	"Connection: Upgrade\r\n" +
	"Pragma: no-cache\r\n" +
	"Cache-Control: no-cache\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0 Safari/537.36\r\n" +
	"Upgrade: websocket\r\n" +
	"Origin: http://127.0.0.1:9001\r\n" +
	"Sec-WebSocket-Version: 13\r\n" +
	"Accept-Encoding: gzip, deflate, br, zstd\r\n" +
	"Accept-Language: en-US,en;q=0.9\r\n" +
	"Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" +
	"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n")

// A browser's request costs six allocations: the head as a string, the request
// with its URL and values, and four of the map. Checks and answer cost none.
func TestHandshakeAllocs(t *testing.T) {
	answer := make([]byte, 0, 1024)
	got := testing.AllocsPerRun(100, func() {
		var p httphead.Parser
		r, _, err := p.Parse(browserRequest)
		if err != nil {
			t.Fatal(err)
		}
		key, err := checkUpgrade(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := checkOrigin(r, false, nil); err != nil {
			t.Fatal(err)
		}
		answer = appendSwitching(answer[:0], key, "", "", nil)
	})
	if got > 6 {
		t.Errorf("%v allocations for %q; want at most 6", got, browserRequest)
	}
}

func BenchmarkCheckUpgrade(b *testing.B) {
	var p httphead.Parser
	r, _, err := p.Parse(browserRequest)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := checkUpgrade(r); err != nil {
			b.Fatal(err)
		}
		if err := checkOrigin(r, false, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAcceptKey(b *testing.B) {
	b.ReportAllocs()
	dst := make([]byte, 0, 64)
	for b.Loop() {
		dst = appendAcceptKey(dst[:0], "dGhlIHNhbXBsZSBub25jZQ==")
	}
}

func BenchmarkAppendSwitching(b *testing.B) {
	b.ReportAllocs()
	dst := make([]byte, 0, 512)
	for b.Loop() {
		dst = appendSwitching(dst[:0], "dGhlIHNhbXBsZSBub25jZQ==", "chat", "permessage-deflate; server_no_context_takeover", nil)
	}
}
