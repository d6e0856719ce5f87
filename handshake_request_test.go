package websocket

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
	key, err := checkUpgrade(got)
	wantKey, wantErr := checkUpgrade(want)
	if key != wantKey || !reflect.DeepEqual(err, wantErr) {
		t.Errorf("%s: checkUpgrade(%q) = %q, %v; with net/http's request %q, %v", name, head, key, err, wantKey, wantErr)
	}
	if want.ContentLength < 0 && want.Trailer != nil { // of a body that is never read
		got.Header["Trailer"], want.Trailer = nil, nil
		want.Header["Trailer"] = nil
	}
	want.Body = http.NoBody
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: parse(%q)\n got %#v\nwant %#v", name, head, got, want)
	}
	if !reflect.DeepEqual(got.URL, want.URL) {
		t.Errorf("%s: URL of %q\n got %#v\nwant %#v", name, head, got.URL, want.URL)
	}
}

// A stream cut at any byte, or into single bytes, gives the same result.
func TestHandshakeSplits(t *testing.T) {
	for _, c := range loadHandshakes(t) {
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
				t.Fatalf("%s: parse(%q) cut at %d = %v, %d, %v; whole %v, %d, %v", c.name, c.sent, ends[0], r, n, err, wantR, wantN, wantErr)
			}
		}
	}
}

// A client that drips its request costs linear time: nothing that was examined
// is looked at again before the request is complete, and nothing is allocated.
func TestDrippingRequest(t *testing.T) {
	head := "GET / HTTP/1.1\r\nHost: example.com\r\n" + strings.Repeat("X-A: "+strings.Repeat("b", 100)+"\r\n", 80) + upgradeFields + "\r\n\r\n"
	var p requestParser
	b := []byte(head)
	allocs := testing.AllocsPerRun(1, func() {
		p = requestParser{}
		for i := range len(b) - 1 {
			if _, n, err := p.parse(b[:i+1]); n != 0 || err != nil {
				t.Fatalf("parse of the first %d bytes = %d, %v; want more to be asked for", i+1, n, err)
			}
			if p.pos != i+1 {
				t.Fatalf("parse of the first %d bytes examined %d", i+1, p.pos)
			}
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations while %d bytes dripped; want 0", allocs, len(b))
	}
	p = requestParser{}
	for i := range len(b) - 1 {
		past := bytes.Clone(b[:i+1])
		clear(past[:p.line]) // what was taken for good
		if _, n, err := p.parse(past); n != 0 || err != nil {
			t.Fatalf("parse with %d bytes, the first %d wiped out = %d, %v; want them not to be read again", i+1, p.line, n, err)
		}
	}
	if _, n, err := p.parse(b); n != len(b) || err != nil {
		t.Errorf("parse(%q) = %d, %v; want %d", b, n, err, len(b))
	}
}

// Whatever comes: the result doesn't depend on how the bytes were cut, nothing
// over the limits is looked at, net/http takes what we accept for the same,
// and the answer is one that it can read.
func FuzzRequest(f *testing.F) {
	for _, c := range loadHandshakes(f) {
		f.Add(c.sent, uint64(len(c.sent)), uint16(c.limits[0]), uint16(c.limits[1]), uint8(c.limits[2]))
	}
	f.Fuzz(func(t *testing.T, sent []byte, cuts uint64, maxLine, maxHeader uint16, maxHeaders uint8) {
		c := handshakeCase{name: "fuzz", sent: sent, limits: [3]int{int(maxLine), int(maxHeader), int(maxHeaders)}}
		p := c.parser()
		r, n, err := p.parse(sent)
		checkProgress(t, p, r, n, err)
		if gotR, gotN, gotErr := c.parse(cutEnds(len(sent), cuts)...); gotN != n || !reflect.DeepEqual(gotR, r) || !reflect.DeepEqual(gotErr, err) {
			t.Fatalf("parse(%q) cut by %#x = %v, %d, %v; whole %v, %d, %v", sent, cuts, gotR, gotN, gotErr, r, n, err)
		}
		if n == 0 && err == nil {
			return
		}
		if r != nil {
			compareWithNetHTTP(t, c.name, sent, r, n)
		}
		checkAnswer(t, c.name, r, c.respond(r, err))
	})
}

// checkProgress holds what a call of parse leaves behind.
func checkProgress(t *testing.T, p *requestParser, r *http.Request, n int, err error) {
	t.Helper()
	line, header := limit(p.maxLine, defaultMaxLine), limit(p.maxHeader, defaultMaxHeader)
	if most := len("\r\n") + line + len("\r\n") + header; p.pos > most || n > most {
		t.Errorf("parse examined %d bytes and took %d; want at most %d", p.pos, n, most)
	}
	if p.count > limit(p.maxHeaders, defaultMaxHeaders) {
		t.Errorf("parse took %d header lines; want at most %d", p.count, limit(p.maxHeaders, defaultMaxHeaders))
	}
	if (r != nil) != (n > 0) || r != nil && err != nil {
		t.Errorf("parse = %v, %d, %v; want a request, an error or neither", r, n, err)
	}
	if e, ok := err.(*HandshakeError); err != nil && (!ok || e.Status < 400 || e.Status > 599 || len(e.Reason) > 600) {
		t.Errorf("parse: %#v; want a *HandshakeError of an error's status, and short", err)
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
// with its URL and values, and four of the map. Checks and answer cost none.
func TestHandshakeAllocs(t *testing.T) {
	answer := make([]byte, 0, 1024)
	got := testing.AllocsPerRun(100, func() {
		var p requestParser
		r, _, err := p.parse(browserRequest)
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

func BenchmarkParseRequest(b *testing.B) {
	b.ReportAllocs()
	b.SetBytes(int64(len(browserRequest)))
	for b.Loop() {
		var p requestParser
		if _, _, err := p.parse(browserRequest); err != nil {
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
		var p requestParser
		for i := range browserRequest {
			if _, _, err := p.parse(browserRequest[:i+1]); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkCheckUpgrade(b *testing.B) {
	var p requestParser
	r, _, err := p.parse(browserRequest)
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
