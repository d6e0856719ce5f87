package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rawws/websocket"
)

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard)
	os.Exit(m.Run())
}

func TestParseFlags(t *testing.T) {
	for _, test := range []struct {
		args string
		want string // in the error; none when empty
	}{
		{"", ""},
		{"-addr :0 -max-message 100 -blocking -quiet -trace -origin a.example -origin *.b.example", ""},
		{"-tls-self-signed", ""},
		{"-deflate -deflate-takeover", ""},
		{"-proxy 10.0.0.7/32 -proxy 2001:db8::/32", ""},
		{"-proxy 10.0.0.7", "no '/'"},
		{"-deflate-takeover", "needs -deflate"},
		{"9001", "unexpected argument"},
		{"-max-message 0", "at least 1"},
		{"-tls-cert a.pem", "go together"},
		{"-tls-key a.pem", "go together"},
		{"-tls-cert a.pem -tls-key b.pem -tls-self-signed", "exclude each other"},
	} {
		o, err := parseFlags(strings.Fields(test.args), nil)
		switch {
		case test.want == "" && err != nil, test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("parseFlags(%q) = %v, %v; want an error with %q", test.args, o, err, test.want)
		}
	}
	o, err := parseFlags(strings.Fields("-origin a.example -origin b.example"), nil)
	if want := "[a.example b.example]"; err != nil || fmt.Sprint(o.origins) != want {
		t.Errorf("two -origin flags give %v, %v; want %s", o, err, want)
	}
	var help strings.Builder
	if _, err := parseFlags([]string{"-h"}, &help); !errors.Is(err, flag.ErrHelp) || !strings.Contains(help.String(), "-max-message BYTES") {
		t.Errorf("parseFlags(-h) = %v, with help %q; want flag.ErrHelp and the flags", err, &help)
	}
}

// The page and the socket, on one port, in every mode.
func TestServe(t *testing.T) {
	for _, args := range []string{"", "-blocking", "-tls-self-signed", "-tls-self-signed -blocking", "-quiet"} {
		t.Run(args, func(t *testing.T) {
			dial := start(t, args)

			page := request(t, dial(), "Connection: close\r\n")
			body, err := io.ReadAll(page.Body)
			if err != nil || page.StatusCode != http.StatusOK || !bytes.Contains(body, []byte("<title>WebSocket echo</title>")) {
				t.Errorf("GET / = %s, %q, %v; want the page", page.Status, body, err)
			}

			nc := dial()
			r := bufio.NewReader(nc)
			if got := upgrade(t, nc, r); got.StatusCode != http.StatusSwitchingProtocols {
				t.Fatalf("upgrade: %s, want 101", got.Status)
			}
			// Masked with the key 0, so that they can be read here (section 5.2).
			for _, test := range []struct{ name, send, want string }{
				{"text", "\x81\x82\x00\x00\x00\x00hi", "\x81\x02hi"},
				{"binary", "\x82\x82\x00\x00\x00\x00\xff\x00", "\x82\x02\xff\x00"},
				{"close", "\x88\x86\x00\x00\x00\x00\x03\xe8done", "\x88\x02\x03\xe8"},
			} {
				got := make([]byte, len(test.want))
				if _, err := io.WriteString(nc, test.send); err != nil {
					t.Fatal(err)
				}
				if n, err := io.ReadFull(r, got); err != nil || string(got) != test.want {
					t.Fatalf("%s: sent % x, got % x, %v; want % x", test.name, test.send, got[:n], err, test.want)
				}
			}
		})
	}
}

// With -deflate-takeover the second of two equal answers refers to the first.
func TestDeflate(t *testing.T) {
	for args, want := range map[string]struct {
		extensions             string
		compressed, seenBefore bool
	}{
		"":                           {"", false, false},
		"-deflate":                   {"permessage-deflate", true, false},
		"-deflate -deflate-takeover": {"permessage-deflate; client_max_window_bits=12", true, true},
	} {
		nc := start(t, args)()
		r := bufio.NewReader(nc)
		resp := upgrade(t, nc, r, "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n")
		if got := resp.Header.Get("Sec-WebSocket-Extensions"); resp.StatusCode != http.StatusSwitchingProtocols || got != want.extensions {
			t.Errorf("echo %s: %s with extensions %q; want 101 with %q", args, resp.Status, got, want.extensions)
		}
		var lengths [2]int
		for i := range lengths {
			text := strings.Repeat("The quick brown fox jumps over the lazy dog. ", 20)
			io.WriteString(nc, "\x81\xfe\x03\x84\x00\x00\x00\x00"+text) // 900 bytes, masked with zeros
			compressed, payload := answer(t, r)
			if lengths[i] = len(payload); compressed != want.compressed || !compressed && payload != text {
				t.Errorf("echo %s: the answer is compressed: %v, want %v", args, compressed, want.compressed)
			}
		}
		if seen := lengths[1] < lengths[0]; seen != want.seenBefore {
			t.Errorf("echo %s: two equal answers take %d bytes; want the second shorter: %v", args, lengths, want.seenBefore)
		}
		nc.Close()
	}
}

// answer reads a frame of at most 64 KiB.
func answer(t *testing.T, r *bufio.Reader) (compressed bool, payload string) {
	t.Helper()
	head := make([]byte, 2)
	if _, err := io.ReadFull(r, head); err != nil {
		t.Fatal(err)
	}
	n := int(head[1])
	if n == 126 {
		var length [2]byte
		if _, err := io.ReadFull(r, length[:]); err != nil {
			t.Fatal(err)
		}
		n = int(length[0])<<8 | int(length[1])
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		t.Fatal(err)
	}
	return head[0]&0x40 != 0, string(b)
}

func TestTrace(t *testing.T) {
	var b syncBuffer
	log.SetOutput(&b)
	defer log.SetOutput(io.Discard)
	dial := start(t, "-trace")
	io.Copy(io.Discard, request(t, dial(), "Connection: close\r\n").Body) // the page has a socket of its own
	nc := dial()
	r := bufio.NewReader(nc)
	upgrade(t, nc, r)
	io.WriteString(nc, "\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58") // section 5.7
	if _, err := io.ReadFull(r, make([]byte, 7)); err != nil {
		t.Fatal(err)
	}
	got := b.String()
	for _, want := range []string{
		"trace #2 accepted by " + nc.RemoteAddr().String() + " from " + nc.LocalAddr().String(),
		"| GET / HTTP/1.1\n",
		" #2    open     " + nc.LocalAddr().String(), // one number for both
		"SHA-1    b37a4f2cc0624f1690f64606cf385945b2bec4ea\n",
		"masked   7f 9f 4d 51 58\n     payload  48 65 6c 6c 6f\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the trace lacks %q:\n%s", want, got)
		}
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestMaxMessage(t *testing.T) {
	nc := start(t, "-max-message 4")()
	r := bufio.NewReader(nc)
	upgrade(t, nc, r)
	io.WriteString(nc, "\x82\x85\x00\x00\x00\x0012345")
	got := make([]byte, 4)
	if _, err := io.ReadFull(r, got); err != nil || got[0] != 0x88 || !bytes.Equal(got[2:], []byte{0x03, 0xf1}) {
		t.Errorf("5 bytes with -max-message 4: got % x, %v; want a close frame with 1009", got, err)
	}
}

func TestOrigin(t *testing.T) {
	for _, test := range []struct {
		args string
		want int
	}{
		{"", http.StatusForbidden},
		{"-origin other.example -origin pages.example", http.StatusSwitchingProtocols},
	} {
		nc := start(t, test.args)()
		got := upgrade(t, nc, bufio.NewReader(nc), "Origin: http://pages.example\r\n")
		if got.StatusCode != test.want {
			t.Errorf("%q: a page of pages.example gets %s, want %d", test.args, got.Status, test.want)
		}
	}
}

// The counters are for those who run the server: at an address of their own,
// of the loopback unless another was asked for, and not to a page of another
// site that has made its name point there.
func TestMetrics(t *testing.T) {
	o, err := parseFlags([]string{"-quiet", "-metrics", ":0"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, dial := serveFor(t, o)
	nc := dial()
	if resp := upgrade(t, nc, bufio.NewReader(nc)); resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade = %s", resp.Status)
	}
	counters, addr, err := startMetrics(o.metrics, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { counters.Close() })
	if !addr.(*net.TCPAddr).IP.IsLoopback() {
		t.Errorf("-metrics %s listens on %v, want the loopback", o.metrics, addr)
	}
	public, own := nc.RemoteAddr().String(), addr.String()
	_, port, _ := net.SplitHostPort(own)
	const counted, vars = "\nwebsocket_connections 1\n", `"Open":1`
	for _, test := range []struct {
		at, host, path, body string
		status               int
	}{
		{own, own, "/metrics", counted, http.StatusOK},
		{own, own, "/debug/vars", vars, http.StatusOK},
		{own, "LOCALHOST:" + port, "/metrics", counted, http.StatusOK},
		{own, "[::1]:" + port, "/metrics", counted, http.StatusOK},
		{own, "evil.example:" + port, "/metrics", "", http.StatusForbidden},
		{own, "evil.example", "/debug/vars", "", http.StatusForbidden},
		{public, public, "/metrics", "", http.StatusNotFound},
		{public, public, "/debug/vars", "", http.StatusNotFound},
	} {
		r, err := http.NewRequest("GET", "http://"+test.at+test.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = test.host
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != test.status || !strings.Contains(string(body), test.body) || err != nil {
			t.Errorf("GET %s of %s, Host: %s: %s, %v, want %d and %q in\n%s", test.path, test.at, test.host, resp.Status, err, test.status, test.body, body)
		}
		if test.body == "" && strings.Contains(string(body), "onnections") {
			t.Errorf("GET %s of %s, Host: %s shows counters:\n%s", test.path, test.at, test.host, body)
		}
	}
}

func TestMaxConns(t *testing.T) {
	dial := start(t, "-quiet -max-conns 1 -ping 0")
	first := dial()
	if resp := upgrade(t, first, bufio.NewReader(first)); resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("the first connection got %s", resp.Status)
	}
	second := dial()
	if resp := upgrade(t, second, bufio.NewReader(second)); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("the second connection got %s, want 503", resp.Status)
	}
}

func TestEnding(t *testing.T) {
	for _, test := range []struct {
		end  websocket.EndError
		want string
	}{
		{
			websocket.EndError{By: websocket.SidePeer, Sent: 1000, Received: 1000, Clean: true, Err: &websocket.CloseError{Code: 1000, Reason: "done"}},
			`by the peer, 1000 "done" (clean)`,
		},
		{
			websocket.EndError{Sent: 1001, Err: net.ErrClosed},
			`by the server, 1001 (not clean)`,
		},
		{
			websocket.EndError{By: websocket.SidePeer, Err: io.ErrUnexpectedEOF},
			`the peer went away without a closing handshake`,
		},
		{
			websocket.EndError{Sent: 1007, Err: &websocket.ProtocolError{Code: 1007, Reason: "text that isn't UTF-8", Section: "RFC 6455, section 8.1"}},
			`by the server, 1007: websocket: text that isn't UTF-8 (RFC 6455, section 8.1)`,
		},
		{
			websocket.EndError{Err: os.ErrDeadlineExceeded},
			os.ErrDeadlineExceeded.Error(),
		},
	} {
		if got := ending(&test.end); got != test.want {
			t.Errorf("ending(%+v) = %q, want %q", test.end, got, test.want)
		}
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int]string{0: "0 bytes", 1: "1 byte", 9999: "9999 bytes", 10_000: "10 kB", 9_999_999: "9999 kB", 10_000_000: "10 MB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestExcerpt(t *testing.T) {
	for in, want := range map[string]string{
		"":                                 `""`,
		"a\x1b[2Jb":                        `"a\x1b[2Jb"`,
		strings.Repeat("a", 64):            `"` + strings.Repeat("a", 64) + `"`,
		strings.Repeat("a", 63) + "\u00e9": `"` + strings.Repeat("a", 63) + `"...`,
	} {
		if got := excerpt([]byte(in)); got != want {
			t.Errorf("excerpt(%q) = %s, want %s", in, got, want)
		}
	}
}

// start serves with the flags in args until the test ends, and returns a dialer.
func start(t *testing.T, args string) (dial func() net.Conn) {
	t.Helper()
	o, err := parseFlags(strings.Fields(args), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, dial = serveFor(t, o)
	return dial
}

func serveFor(t *testing.T, o *options) (s *websocket.Server, dial func() net.Conn) {
	t.Helper()
	s, err := newServer(o)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- serve(s, ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-served; !errors.Is(err, websocket.ErrServerClosed) {
			t.Errorf("serve = %v, want ErrServerClosed", err)
		}
	})
	return s, func() net.Conn {
		t.Helper()
		nc, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if o.secure() {
			nc = tls.Client(nc, &tls.Config{RootCAs: roots(s), ServerName: "127.0.0.1"})
		}
		nc.SetDeadline(time.Now().Add(10 * time.Second))
		t.Cleanup(func() { nc.Close() })
		return nc
	}
}

// roots trusts the server's own certificate and nothing else.
func roots(s *websocket.Server) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(s.TLSConfig.Certificates[0].Leaf)
	return pool
}

func request(t *testing.T, nc net.Conn, header string) *http.Response {
	t.Helper()
	return exchange(t, nc, bufio.NewReader(nc), header)
}

func upgrade(t *testing.T, nc net.Conn, r *bufio.Reader, header ...string) *http.Response {
	t.Helper()
	return exchange(t, nc, r, "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"+strings.Join(header, ""))
}

func exchange(t *testing.T, nc net.Conn, r *bufio.Reader, header string) *http.Response {
	t.Helper()
	if _, err := io.WriteString(nc, "GET / HTTP/1.1\r\nHost: "+nc.RemoteAddr().String()+"\r\n"+header+"\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// Linux alone can do it; elsewhere the flag has to say so.
func TestReusePort(t *testing.T) {
	first, err := listen(&options{addr: "127.0.0.1:0", reusePort: true})
	if runtime.GOOS != "linux" {
		if err == nil || !strings.Contains(err.Error(), "SO_REUSEPORT") {
			t.Errorf("listen with -reuseport = %v, want an error that names SO_REUSEPORT", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	addr := first.Addr().String()
	second, err := listen(&options{addr: addr, reusePort: true})
	if err != nil {
		t.Fatalf("a second listener on %s with -reuseport: %v, want none", addr, err)
	}
	defer second.Close()
	if third, err := listen(&options{addr: addr}); err == nil {
		third.Close()
		t.Errorf("a listener on %s without -reuseport: no error, want one", addr)
	}
}
