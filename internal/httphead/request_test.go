package httphead

import (
	"bufio"
	"bytes"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

// compareWithNetHTTP holds that what we accept net/http accepts, and takes for
// the same: then there is nothing that the two disagree about.
func compareWithNetHTTP(t *testing.T, name string, sent []byte, got *http.Request, n int) {
	t.Helper()
	head := bytes.TrimPrefix(sent[:n], []byte("\r\n")) // which net/http doesn't skip
	want, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
	if err != nil {
		t.Fatalf("%s: http.ReadRequest(%q): %v; ours accepts it", name, head, err)
	}
	if got.Body != http.NoBody {
		t.Errorf("%s: body of %q: %v; want http.NoBody", name, head, got.Body)
	}
	if want.ContentLength == 0 && want.Body != http.NoBody {
		t.Errorf("%s: http.ReadRequest(%q) has a body", name, head)
	}
	if want.ContentLength < 0 && want.Trailer != nil { // of a body that is never read
		got.Header["Trailer"], want.Trailer = nil, nil
		want.Header["Trailer"] = nil
	}
	want.Body = http.NoBody
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: Parse(%q)\n got %#v\nwant %#v", name, head, got, want)
	}
	if !reflect.DeepEqual(got.URL, want.URL) {
		t.Errorf("%s: URL of %q\n got %#v\nwant %#v", name, head, got.URL, want.URL)
	}
}

// Requests that no upgrade is made of are read like others: what becomes of
// them is for others to say.
func TestOtherRequests(t *testing.T) {
	for _, sent := range []string{
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\nTrailer: X\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
		"HEAD ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.0\r\n\r\n",
		"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
	} {
		r, n, err := new(Parser).Parse([]byte(sent))
		if n != len(sent) || err != nil {
			t.Errorf("Parse(%q) = %d, %v; want %d", sent, n, err, len(sent))
			continue
		}
		compareWithNetHTTP(t, "request", []byte(sent), r, n)
	}
}

func TestCheckTarget(t *testing.T) {
	for target, ok := range map[string]bool{
		"/": true, "/a%2f?b": true, "*": true, "http://a/": true, "/?": true, "/?a=100%": true, "/?%u00fc%00": true, "/?\u00eb?": true,
		"": false, "/ ": false, "/? ": false, "/?#": false, "/%zz?": false, "/a#b": false, "/\u00eb": false, "/%": false, "/%0": false, "/%0g": false, "/%00": false,
	} {
		err := CheckTarget(target)
		if e, isError := err.(*Error); (err == nil) != ok || !ok && (!isError || e.Status != 400) {
			t.Errorf("CheckTarget(%q) = %v; want ok = %v", target, err, ok)
		}
	}
}

// What net/http has parsed is refused for its size as what we parse ourselves.
func TestCheckSize(t *testing.T) {
	const head, maxHeader = "Host: a\r\nX: ", 500
	for _, test := range []struct {
		name   string
		sent   string
		status int // 0 if it is accepted
	}{
		{"line of the limit", "GET /" + strings.Repeat("a", DefaultMaxLine-len("GET / HTTP/1.1")) + " HTTP/1.1\r\n" + head + "\r\n\r\n", 0},
		{"line over it", "GET /" + strings.Repeat("a", DefaultMaxLine-len("GET / HTTP/1.1")+1) + " HTTP/1.1\r\n" + head + "\r\n\r\n", 414},
		{"section of the limit", "GET / HTTP/1.1\r\n" + head + strings.Repeat("a", maxHeader-len(head)-4) + "\r\n\r\n", 0},
		{"section over it", "GET / HTTP/1.1\r\n" + head + strings.Repeat("a", maxHeader-len(head)-3) + "\r\n\r\n", 431},
		{"lines of the limit", "GET / HTTP/1.1\r\n" + strings.Repeat("X:\r\n", DefaultMaxHeaders-1) + "Host: a\r\n\r\n", 0},
		{"lines over it", "GET / HTTP/1.1\r\n" + strings.Repeat("X:\r\n", DefaultMaxHeaders) + "Host: a\r\n\r\n", 431},
	} {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(test.sent)))
		if err != nil {
			t.Fatalf("%s: http.ReadRequest: %v", test.name, err)
		}
		limit := maxHeader
		if strings.HasPrefix(test.name, "line") {
			limit = 0
		}
		_, _, err = (&Parser{MaxHeader: limit}).Parse([]byte(test.sent))
		for by, err := range map[string]error{"CheckSize": CheckSize(r, limit), "Parse": err} {
			status := 0
			if e, ok := err.(*Error); ok {
				status = e.Status
			}
			if status != test.status {
				t.Errorf("%s: %s = %v; want %d", test.name, by, err, test.status)
			}
		}
	}
}

// A stream cut at any byte, or into single bytes, gives the same result.
func TestSplits(t *testing.T) {
	for _, c := range loadRequests(t) {
		wantR, wantN, wantErr := c.parse(len(c.sent))
		single := make([]int, len(c.sent))
		for i := range c.sent {
			single[i] = i + 1
		}
		ways := [][]int{single}
		step := 1 + len(c.sent)/512
		for i := 0; i < len(c.sent); i += step {
			ways = append(ways, []int{i, len(c.sent)})
		}
		for _, ends := range ways {
			r, n, err := c.parse(ends...)
			if n != wantN || !reflect.DeepEqual(err, wantErr) || !reflect.DeepEqual(r, wantR) {
				t.Fatalf("%s: Parse(%q) cut at %d = %v, %d, %v; whole %v, %d, %v", c.name, c.sent, ends[0], r, n, err, wantR, wantN, wantErr)
			}
		}
	}
}

// A client that drips its request costs linear time: nothing that was examined
// is looked at again before the request is complete, and nothing is allocated.
func TestDrippingRequest(t *testing.T) {
	head := "GET / HTTP/1.1\r\nHost: example.com\r\n" + strings.Repeat("X-A: "+strings.Repeat("b", 100)+"\r\n", 80) + upgradeFields + "\r\n\r\n"
	var p Parser
	b := []byte(head)
	allocs := testing.AllocsPerRun(1, func() {
		p = Parser{}
		for i := range len(b) - 1 {
			if _, n, err := p.Parse(b[:i+1]); n != 0 || err != nil {
				t.Fatalf("Parse of the first %d bytes = %d, %v; want more to be asked for", i+1, n, err)
			}
			if p.pos != i+1 {
				t.Fatalf("Parse of the first %d bytes examined %d", i+1, p.pos)
			}
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations while %d bytes dripped; want 0", allocs, len(b))
	}
	p = Parser{}
	for i := range len(b) - 1 {
		past := bytes.Clone(b[:i+1])
		clear(past[:p.line]) // what was taken for good
		if _, n, err := p.Parse(past); n != 0 || err != nil {
			t.Fatalf("Parse with %d bytes, the first %d wiped out = %d, %v; want them not to be read again", i+1, p.line, n, err)
		}
	}
	if _, n, err := p.Parse(b); n != len(b) || err != nil {
		t.Errorf("Parse(%q) = %d, %v; want %d", b, n, err, len(b))
	}
}

// Whatever comes: the result doesn't depend on how the bytes were cut, nothing
// over the limits is looked at, and net/http takes what we accept for the same.
func FuzzRequest(f *testing.F) {
	for _, c := range loadRequests(f) {
		f.Add(c.sent, uint64(len(c.sent)), uint16(c.limits[0]), uint16(c.limits[1]), uint8(c.limits[2]))
	}
	var used Memory
	f.Fuzz(func(t *testing.T, sent []byte, cuts uint64, MaxLine, MaxHeader uint16, MaxHeaders uint8) {
		c := requestCase{name: "fuzz", sent: sent, limits: [3]int{int(MaxLine), int(MaxHeader), int(MaxHeaders)}}
		p := c.parser()
		r, n, err := p.Parse(sent)
		checkProgress(t, p, r, n, err)
		p = c.parser()
		p.Memory = &used
		if gotR, gotN, gotErr := p.Parse(sent); gotN != n || !reflect.DeepEqual(gotR, r) || !reflect.DeepEqual(gotErr, err) {
			t.Fatalf("Parse(%q) = %v, %d, %v in the memory of the request before; want %v, %d, %v", sent, gotR, gotN, gotErr, r, n, err)
		}
		if gotR, gotN, gotErr := c.parse(cutEnds(len(sent), cuts)...); gotN != n || !reflect.DeepEqual(gotR, r) || !reflect.DeepEqual(gotErr, err) {
			t.Fatalf("Parse(%q) cut by %#x = %v, %d, %v; whole %v, %d, %v", sent, cuts, gotR, gotN, gotErr, r, n, err)
		}
		if r != nil {
			compareWithNetHTTP(t, c.name, sent, r, n)
		}
	})
}

// checkProgress holds what a call of parse leaves behind.
func checkProgress(t *testing.T, p *Parser, r *http.Request, n int, err error) {
	t.Helper()
	line, header := limit(p.MaxLine, DefaultMaxLine), limit(p.MaxHeader, DefaultMaxHeader)
	if most := len("\r\n") + line + len("\r\n") + header; p.pos > most || n > most {
		t.Errorf("parse examined %d bytes and took %d; want at most %d", p.pos, n, most)
	}
	if p.count > limit(p.MaxHeaders, DefaultMaxHeaders) {
		t.Errorf("parse took %d header lines; want at most %d", p.count, limit(p.MaxHeaders, DefaultMaxHeaders))
	}
	if (r != nil) != (n > 0) || r != nil && err != nil {
		t.Errorf("parse = %v, %d, %v; want a request, an error or neither", r, n, err)
	}
	if e, ok := err.(*Error); err != nil && (!ok || e.Status < 400 || e.Status > 599 || len(e.Reason) > 600) {
		t.Errorf("parse: %#v; want a *Error of an error's status, and short", err)
	}
}

// cutEnds cuts n bytes into pieces whose lengths the bits choose.
func cutEnds(n int, bits uint64) []int {
	var ends []int
	for end := 0; end < n; {
		bits = bits*6364136223846793005 + 1442695040888963407
		end = min(n, end+1+int(bits>>60)*int(bits>>40&0xff))
		ends = append(ends, end)
	}
	return append(ends, n)
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
// with its URL and values, and four of the map.
func TestParseAllocs(t *testing.T) {
	got := testing.AllocsPerRun(100, func() {
		var p Parser
		if _, _, err := p.Parse(browserRequest); err != nil {
			t.Fatal(err)
		}
	})
	if got > 6 {
		t.Errorf("%v allocations for %q; want at most 6", got, browserRequest)
	}
}

func BenchmarkParseRequest(b *testing.B) {
	b.ReportAllocs()
	b.SetBytes(int64(len(browserRequest)))
	for b.Loop() {
		var p Parser
		if _, _, err := p.Parse(browserRequest); err != nil {
			b.Fatal(err)
		}
	}
}

// The same by net/http, to compare with.
func BenchmarkParseRequestNetHTTP(b *testing.B) {
	b.ReportAllocs()
	b.SetBytes(int64(len(browserRequest)))
	in := bytes.NewReader(browserRequest)
	br := bufio.NewReader(in)
	for b.Loop() {
		in.Reset(browserRequest)
		br.Reset(in)
		if _, err := http.ReadRequest(br); err != nil {
			b.Fatal(err)
		}
	}
}

// A client that sends its request byte by byte.
func BenchmarkParseDrippingRequest(b *testing.B) {
	b.ReportAllocs()
	b.SetBytes(int64(len(browserRequest)))
	for b.Loop() {
		var p Parser
		for i := range browserRequest {
			if _, _, err := p.Parse(browserRequest[:i+1]); err != nil {
				b.Fatal(err)
			}
		}
	}
}
