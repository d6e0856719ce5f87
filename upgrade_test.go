package websocket

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// answer reads an HTTP answer with its body, and leaves what is behind it.
func (p *peer) answer() (*http.Response, string) {
	p.Helper()
	br := bufio.NewReader(io.MultiReader(bytes.NewReader(p.in), p.nc))
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		p.Fatalf("peer: no answer: %v", err)
	}
	var body []byte
	if resp.StatusCode != http.StatusSwitchingProtocols {
		body, err = io.ReadAll(resp.Body)
		if err != nil {
			p.Fatalf("peer: answer %s: %v", resp.Status, err)
		}
	}
	p.in, _ = br.Peek(br.Buffered())
	return resp, string(body)
}

// request is the usual one with lines added before its end.
func request(lines ...string) []byte {
	head := strings.TrimSuffix(peerRequest, "\r\n")
	for _, line := range lines {
		head += line + "\r\n"
	}
	return []byte(head + "\r\n")
}

// Frames that come with the request, whole or in half, are the connection's
// first bytes.
func TestFramesWithTheRequest(t *testing.T) {
	long := strings.Repeat("long ", 3000)
	stream := append([]byte(peerRequest), textFrame("one")...)
	stream = append(stream, textFrame(long)...)
	n := len(peerRequest)
	overTransports(t, func(t *testing.T, pair transport) {
		for _, cut := range []int{n - 1, n, n + 1, n + 6, n + 9, n + 10, n + 100, n + 4000, n + 4096, len(stream)} {
			server, client := pair(t)
			p := newPeer(t, client)
			go func() {
				p.nc.Write(stream[:cut])
				p.nc.Write(stream[cut:])
			}()
			done := make(chan struct{})
			go func() {
				p.wantBytes(peerAnswer)
				close(done)
			}()
			c, r, err := new(Upgrader).Upgrade(server)
			if err != nil {
				t.Fatal(err)
			}
			if r.URL.Path != "/chat" || r.Host != "server.example" || r.RemoteAddr != server.RemoteAddr().String() {
				t.Errorf("request of %s for %s at %s", r.RemoteAddr, r.URL, r.Host)
			}
			for _, want := range []string{"one", long} {
				if _, got, err := c.ReadMessage(); string(got) != want || err != nil {
					t.Fatalf("cut at %d: ReadMessage = %d bytes, %v; want %d", cut, len(got), err, len(want))
				}
			}
			<-done
			c.CloseNow()
		}
	})
}

// What net/http had read of the frames when the connection was taken over is
// not lost, over TLS neither, where a small buffer stays with the connection.
func TestHijackKeepsFrames(t *testing.T) {
	medium, long := strings.Repeat("medium ", 500), strings.Repeat("long ", 3000)
	for _, secure := range []bool{false, true} {
		for _, first := range []int{0, 1, 7, 9, 100, 300, 1000, 4000} {
			ts := httptest.NewUnstartedServer(&Server{Handler: echoEvents()})
			ts.EnableHTTP2 = false
			p := dialHTTPTest(t, ts, secure)
			frames := bytes.Join([][]byte{textFrame("one"), textFrame(medium), textFrame(long)}, nil)
			p.send([]byte(peerRequest), frames[:first])
			p.wantBytes(peerAnswer)
			p.send(frames[first:])
			p.want(opText, "one")
			p.want(opText, medium)
			p.want(opText, long)
			p.closeWith(CloseNormal, "")
			ts.Close()
		}
	}
}

func dialHTTPTest(t *testing.T, ts *httptest.Server, secure bool) *peer {
	t.Helper()
	var nc net.Conn
	var err error
	if secure {
		ts.StartTLS()
		nc, err = tls.Dial("tcp", ts.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	} else {
		ts.Start()
		nc, err = net.Dial("tcp", ts.Listener.Addr().String())
	}
	t.Cleanup(ts.Close)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return newPeer(t, nc)
}

// A policyTest is a request against an Upgrader's policy.
type policyTest struct {
	name   string
	u      Upgrader
	lines  []string
	status int
	text   string            // in the body, and the error
	header map[string]string // of the answer
}

var errNoTicket = errors.New("no ticket")

var policyTests = []policyTest{
	{"zero value", Upgrader{}, nil, 101, "", map[string]string{"Upgrade": "websocket", "Connection": "Upgrade"}},
	{"no upgrade", Upgrader{}, []string{"Transfer-Encoding: gzip"}, 501, "gzip", nil},
	{"version twice", Upgrader{}, []string{"Sec-WebSocket-Version: 13"}, 400, "2 Sec-WebSocket-Version", nil},
	{"origin of a stranger", Upgrader{}, []string{"Origin: http://evil.example"}, 403, "evil.example", nil},
	{"own origin", Upgrader{}, []string{"Origin: http://server.example"}, 101, "", nil},
	{"origin on the list", Upgrader{Origins: []string{"https://*.friend.example"}}, []string{"Origin: https://a.friend.example"}, 101, "", nil},
	{"CheckOrigin lets through", Upgrader{CheckOrigin: func(r *http.Request) bool { return r.Header.Get("Origin") == "null" }},
		[]string{"Origin: null"}, 101, "", nil},
	{"CheckOrigin refuses", Upgrader{CheckOrigin: func(*http.Request) bool { return false }}, []string{"Origin: http://server.example"}, 403, "CheckOrigin", nil},
	{"another host", Upgrader{AllowedHosts: []string{"other.example"}}, nil, 403, "server.example", nil},
	{"subprotocol", Upgrader{Subprotocols: []string{"v2", "v1"}}, []string{"Sec-WebSocket-Protocol: v1", "Sec-WebSocket-Protocol: v3, v2"},
		101, "", map[string]string{"Sec-WebSocket-Protocol": "v2"}},
	{"no subprotocol in common", Upgrader{Subprotocols: []string{"v2"}}, []string{"Sec-WebSocket-Protocol: v1"}, 101, "", map[string]string{"Sec-WebSocket-Protocol": ""}},
	{"OnUpgrade adds headers", Upgrader{OnUpgrade: func(r *http.Request, a *Accept) error {
		a.Header.Set("Set-Cookie", "session="+r.URL.Path[1:])
		return nil
	}}, nil, 101, "", map[string]string{"Set-Cookie": "session=chat"}},
	{"OnUpgrade picks the status", Upgrader{OnUpgrade: func(_ *http.Request, a *Accept) error {
		a.Header.Set("WWW-Authenticate", `Basic realm="chat"`)
		return fmt.Errorf("of %w", &HandshakeError{http.StatusUnauthorized, "who are you?"})
	}}, nil, 401, "who are you?", map[string]string{"Www-Authenticate": `Basic realm="chat"`, "Connection": "close"}},
	{"OnUpgrade answers with JSON", Upgrader{OnUpgrade: func(_ *http.Request, a *Accept) error {
		a.Header.Set("Content-Type", "application/json")
		return &HandshakeError{http.StatusBadRequest, "{\n\t\"error\": \"no room\"\n}"}
	}}, nil, 400, "{\n\t\"error\": \"no room\"\n}", map[string]string{"Content-Type": "application/json"}},
	{"OnUpgrade fails with a type", Upgrader{OnUpgrade: func(_ *http.Request, a *Accept) error {
		a.Header.Set("Content-Type", "application/json")
		return errNoTicket
	}}, nil, 403, "refused\n", map[string]string{"Content-Type": "text/plain; charset=utf-8"}},
	{"a type for the 101", Upgrader{OnUpgrade: func(_ *http.Request, a *Accept) error {
		a.Header.Set("Content-Type", "application/json")
		return nil
	}}, nil, 500, "internal server error", nil},
	{"OnUpgrade fails", Upgrader{OnUpgrade: func(*http.Request, *Accept) error { return errNoTicket }}, nil, 403, "refused", nil},
	{"OnUpgrade sees the subprotocol", Upgrader{Subprotocols: []string{"v1"}, OnUpgrade: func(_ *http.Request, a *Accept) error {
		a.Header.Set("X-Chosen", a.Subprotocol)
		return nil
	}}, []string{"Sec-WebSocket-Protocol: v2, v1"}, 101, "", map[string]string{"X-Chosen": "v1", "Sec-WebSocket-Protocol": "v1"}},
	{"OnUpgrade picks the subprotocol", Upgrader{Subprotocols: []string{"v1"}, OnUpgrade: func(r *http.Request, a *Accept) error {
		a.Subprotocol = Subprotocols(r)[0]
		return nil
	}}, []string{"Sec-WebSocket-Protocol: v2", "Sec-WebSocket-Protocol: v1"}, 101, "", map[string]string{"Sec-WebSocket-Protocol": "v2"}},
	{"OnUpgrade wants none", Upgrader{Subprotocols: []string{"v1"}, OnUpgrade: func(r *http.Request, a *Accept) error {
		a.Subprotocol, a.Header = "", nil
		return nil
	}}, []string{"Sec-WebSocket-Protocol: v1"}, 101, "", map[string]string{"Sec-WebSocket-Protocol": ""}},
	{"subprotocol that isn't offered", Upgrader{OnUpgrade: func(r *http.Request, a *Accept) error {
		a.Subprotocol = "v2"
		return nil
	}}, []string{"Sec-WebSocket-Protocol: v1"}, 500, "internal server error", map[string]string{"Sec-WebSocket-Protocol": ""}},
	{"subprotocol for who offers none", Upgrader{OnUpgrade: func(r *http.Request, a *Accept) error {
		a.Subprotocol = "v2\r\nSet-Cookie: b"
		return nil
	}}, nil, 500, "internal server error", map[string]string{"Set-Cookie": ""}},
	{"subprotocol that is missing", Upgrader{OnUpgrade: func(r *http.Request, a *Accept) error {
		if a.Subprotocol == "" {
			return &HandshakeError{http.StatusBadRequest, "v1 is spoken here"}
		}
		return nil
	}}, nil, 400, "v1 is spoken here", nil},
	{"header with a line break", Upgrader{OnUpgrade: func(_ *http.Request, a *Accept) error {
		a.Header.Set("X-Name", "a\r\nSet-Cookie: b")
		return nil
	}}, nil, 500, "internal server error", map[string]string{"X-Name": "", "Set-Cookie": ""}},
	{"header of the handshake", Upgrader{OnUpgrade: func(_ *http.Request, a *Accept) error {
		a.Header.Set("Sec-WebSocket-Accept", "mine")
		return nil
	}}, nil, 500, "internal server error", nil},
	{"bad header and a refusal", Upgrader{OnUpgrade: func(_ *http.Request, a *Accept) error {
		a.Header["bad name"] = []string{"x"}
		return &HandshakeError{http.StatusNotFound, "no such room"}
	}}, nil, 500, "internal server error", nil},
}

func checkPolicyAnswer(t *testing.T, test policyTest, resp *http.Response, body string) {
	t.Helper()
	if resp.StatusCode != test.status || !strings.Contains(body, test.text) {
		t.Errorf("answer %d %q, want %d with %q", resp.StatusCode, body, test.status, test.text)
	}
	if strings.Contains(body, errNoTicket.Error()) {
		t.Errorf("answer %q tells the client the application's error", body)
	}
	for name, want := range test.header {
		if got := resp.Header.Get(name); got != want && !(name == "Connection" && want == "close" && resp.Close) {
			t.Errorf("answer with %s %q, want %q", name, got, want)
		}
	}
}

// The policy holds on a connection of one's own and behind net/http alike.
func TestUpgradePolicy(t *testing.T) {
	for _, test := range policyTests {
		t.Run(test.name, func(t *testing.T) {
			server, client := tcpPair(t)
			p := newPeer(t, client)
			p.send(request(test.lines...))
			p.nc.(*net.TCPConn).CloseWrite()
			c, r, err := test.u.Upgrade(server)
			resp, body := p.answer()
			checkPolicyAnswer(t, test, resp, body)
			if test.status == 101 {
				if c == nil || r == nil || err != nil {
					t.Fatalf("Upgrade = %v, %v, %v; want a connection", c, r, err)
				}
				if got := c.Subprotocol(); got != test.header["Sec-WebSocket-Protocol"] {
					t.Errorf("Subprotocol() = %q, want %q", got, test.header["Sec-WebSocket-Protocol"])
				}
				c.CloseNow()
				return
			}
			p.wantEnd()
			var refused *HandshakeError
			if c != nil || !errors.As(err, &refused) || refused.Status != test.status {
				t.Errorf("Upgrade = %v, %v; want a *HandshakeError of %d", c, err, test.status)
			}
			if test.name == "OnUpgrade fails" && !errors.Is(err, errNoTicket) {
				t.Errorf("Upgrade: %v, want OnUpgrade's error in it", err)
			}
		})
	}
}

func TestUpgradePolicyBehindNetHTTP(t *testing.T) {
	for _, test := range policyTests {
		if test.status == 501 {
			continue // net/http itself answers
		}
		t.Run(test.name, func(t *testing.T) {
			errs := make(chan error, 1)
			ts := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				c, err := test.u.UpgradeHTTP(w, r)
				errs <- err
				if c != nil {
					c.Close(CloseNormal, "")
				}
			}))
			p := dialHTTPTest(t, ts, false)
			p.send(request(test.lines...))
			resp, body := p.answer()
			checkPolicyAnswer(t, test, resp, body)
			err := <-errs
			if test.status == 101 {
				p.wantClose(CloseNormal, "")
				p.send(closeFrame(CloseNormal, ""))
			} else if refused := (*HandshakeError)(nil); !errors.As(err, &refused) || refused.Status != test.status {
				t.Errorf("UpgradeHTTP: %v, want a *HandshakeError of %d", err, test.status)
			}
			p.wantEnd()
		})
	}
}

// A ResponseWriter that can't be taken over, and HTTP/2, are refused in HTTP.
func TestUpgradeHTTPRefusals(t *testing.T) {
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(peerRequest)))
	if err != nil {
		t.Fatal(err)
	}
	second := r.Clone(t.Context())
	second.Proto, second.ProtoMajor, second.ProtoMinor = "HTTP/2.0", 2, 0
	for want, r := range map[int]*http.Request{500: r, 505: second} {
		w := httptest.NewRecorder()
		c, err := new(Upgrader).UpgradeHTTP(w, r)
		var refused *HandshakeError
		if c != nil || !errors.As(err, &refused) || refused.Status != want || w.Code != want {
			t.Errorf("UpgradeHTTP of %s answered %d, %v, %v; want %d", r.Proto, w.Code, c, err, want)
		}
		if want == 500 && (!strings.Contains(err.Error(), "*httptest.ResponseRecorder") || !errors.Is(err, http.ErrNotSupported)) {
			t.Errorf("UpgradeHTTP: %v; want it to name the type of the ResponseWriter", err)
		}
	}
}

// What stands between net/http and a Server, and hides the connection, is named
// to the client and in the log.
func TestServeHTTPInsideTimeoutHandler(t *testing.T) {
	var book logBook
	s := &Server{Handler: echoEvents(), ErrorLog: book.logger()}
	ts := httptest.NewUnstartedServer(http.TimeoutHandler(s, patience, ""))
	p := dialHTTPTest(t, ts, false)
	p.send([]byte(peerRequest))
	const name = "*http.timeoutWriter"
	if resp, text := p.answer(); resp.StatusCode != 500 || !strings.Contains(text, name) {
		t.Errorf("answer %s %q, want 500 with %s", resp.Status, text, name)
	}
	if lines := book.all(); len(lines) != 1 || !strings.Contains(lines[0], name) {
		t.Errorf("logged %q, want one line with %s", lines, name)
	}
}

// Whoever speaks something else is turned away by its first wrong bytes, and
// not at the end of HandshakeTimeout, of which there is none here.
func TestOtherProtocolsAreClosedAtOnce(t *testing.T) {
	tests := map[string]string{
		"HTTP/2 preface": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
		"TLS hello":      "\x16\x03\x01\x00\xf1\x01\x00\x00\xed\x03\x03",
		"PROXY line":     "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n",
		"PROXY v2":       "\r\n\r\n\x00\r\nQUIT\n",
		"SSH":            "SSH-2.0-OpenSSH_9.2\r\n",
		"zeros":          strings.Repeat("\x00", 100),
		"a frame":        "\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",
		"bare LF":        "GET / HTTP/1.1\nHost: x\n\n",
	}
	for name, sent := range tests {
		t.Run(name, func(t *testing.T) {
			var calls atomic.Int64
			var book logBook
			p := serveTCP(t, &Server{
				Handler:  Events{OnOpen: func(*Conn, *http.Request) { calls.Add(1) }},
				Upgrader: Upgrader{HandshakeTimeout: -1},
				ErrorLog: book.logger(),
			})()
			p.send([]byte(sent))
			resp, body := p.answer()
			if resp.StatusCode < 400 || body == "" || !resp.Close {
				t.Errorf("answer %d %q, want a refusal", resp.StatusCode, body)
			}
			p.wantEnd()
			if n := calls.Load(); n != 0 {
				t.Errorf("the handler was called %d times", n)
			}
			if lines := book.all(); len(lines) != 1 || !strings.Contains(lines[0], "level=INFO") {
				t.Errorf("logged %q; want one line, and as a stranger's mistake no fault of the server's", lines)
			}
		})
	}
}

// Behind a refused request nothing is read as another one.
func TestNoSecondRequest(t *testing.T) {
	p := serveTCP(t, &Server{Handler: echoEvents()})()
	p.send([]byte(strings.Replace(peerRequest, "GET", "POST", 1)), []byte(peerRequest), textFrame("x"))
	if resp, _ := p.answer(); resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "GET" {
		t.Errorf("answer %s, Allow %q; want 405, GET", resp.Status, resp.Header.Get("Allow"))
	}
	p.wantEnd()
}

// A client that stalls in the handshake, or sends a byte now and then, has
// HandshakeTimeout in all.
func TestHandshakeTimeout(t *testing.T) {
	for name, size := range map[string]int{"stalled": 40, "dripping": len(peerRequest)} {
		for _, timeout := range []time.Duration{0, 3 * time.Second} {
			synctest.Test(t, func(t *testing.T) {
				server, client := pipePair(t)
				u := &Upgrader{HandshakeTimeout: timeout}
				start := time.Now()
				done := make(chan struct{})
				go func() {
					defer close(done)
					for i := range size {
						if _, err := client.Write([]byte{peerRequest[i]}); err != nil {
							return
						}
						if size > 40 {
							time.Sleep(100 * time.Millisecond)
						}
					}
				}()
				c, _, err := u.Upgrade(server)
				want := timeout
				if want == 0 {
					want = 10 * time.Second
				}
				if got := time.Since(start); got != want || c != nil || !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("%s: Upgrade = %v, %v after %v; want a timeout after %v", name, c, err, got, want)
				}
				if _, err := client.Read(make([]byte, 1)); err == nil {
					t.Errorf("%s: the client could read after the timeout", name)
				}
				<-done
			})
		}
	}
}

// A client that takes the answer no sooner than it can has the same time.
func TestHandshakeTimeoutOfTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := pipePair(t)
		go client.Write([]byte(peerRequest))
		start := time.Now()
		c, _, err := new(Upgrader).Upgrade(server)
		if got := time.Since(start); got != 10*time.Second || c != nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Upgrade = %v, %v after %v; want a timeout after 10s", c, err, got)
		}
	})
}

// A slow but lawful client isn't held to the handshake's deadline afterwards.
func TestHandshakeDeadlineEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connectPipe(t, &Upgrader{HandshakeTimeout: time.Second, PingInterval: -1})
		time.Sleep(time.Minute)
		go p.nc.Write(textFrame("late"))
		if _, data, err := c.ReadMessage(); string(data) != "late" || err != nil {
			t.Errorf("ReadMessage = %q, %v; want %q", data, err, "late")
		}
	})
}

// A meteredConn counts what is read of it.
type meteredConn struct {
	*net.TCPConn
	read atomic.Int64
}

func (mc *meteredConn) Read(p []byte) (int, error) {
	n, err := mc.TCPConn.Read(p)
	mc.read.Add(int64(n))
	return n, err
}

// openHead is a request but for its end.
var openHead = strings.TrimSuffix(peerRequest, "\r\n")

var endlessHandshakes = []struct {
	name   string
	u      Upgrader
	start  string
	repeat string
	status int
	limit  int64
}{
	{"request line", Upgrader{}, "GET /", "a", 414, 16 << 10},
	{"header line", Upgrader{}, openHead + "X: ", "a", 431, 32 << 10},
	{"header lines", Upgrader{}, openHead, "X: a\r\n", 431, 16 << 10},
	{"long header lines", Upgrader{}, openHead, "X: " + strings.Repeat("a", 1000) + "\r\n", 431, 32 << 10},
	{"MaxHeaderBytes", Upgrader{MaxHeaderBytes: 1000}, openHead + "X: ", "a", 431, 4 << 10},
}

// Lines and sections without an end are answered when the limit is passed, and
// no more than a buffer of the limit's size is ever stored.
func TestEndlessHandshakes(t *testing.T) {
	for _, test := range endlessHandshakes {
		t.Run(test.name, func(t *testing.T) {
			server, client := tcpPair(t)
			mc := &meteredConn{TCPConn: server.(*net.TCPConn)}
			p := newPeer(t, client)
			go p.nc.Write([]byte(test.start + strings.Repeat(test.repeat, 2<<20/len(test.repeat))))
			done := make(chan error)
			stored := int64(0)
			test.u.OnUpgrade = func(*http.Request, *Accept) error { return errNoTicket }
			go func() {
				h := newHandshake(&registry{u: &test.u}, nil, mc)
				h.start()
				var err error
				for whole := false; !whole && err == nil; {
					var n int
					n, err = h.nc.Read(h.room())
					whole, err = h.received(n, err, nil)
				}
				stored = mc.read.Load()
				done <- h.end(err, nil)
			}()
			resp, _ := p.answer()
			if resp.StatusCode != test.status {
				t.Errorf("answer %s, want %d", resp.Status, test.status)
			}
			p.wantEnd()
			var refused *HandshakeError
			if err := <-done; !errors.As(err, &refused) || refused.Status != test.status {
				t.Errorf("%v, want a *HandshakeError of %d", err, test.status)
			}
			if stored > test.limit {
				t.Errorf("%d bytes were read before the answer, want at most %d", stored, test.limit)
			}
		})
	}
}

// A refusal is read by a client that is still sending.
func TestRefusedUpgradeReachesABusyClient(t *testing.T) {
	bad := strings.Replace(peerRequest, "Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8", 1)
	p := serveTCP(t, &Server{Handler: echoEvents()})()
	p.send([]byte(bad), make([]byte, 1800<<10))
	resp, body := p.answer()
	if resp.StatusCode != http.StatusUpgradeRequired || resp.Header.Get("Sec-WebSocket-Version") != "13" || !strings.Contains(body, `"8"`) {
		t.Errorf("answer %s, version %q, %q; want 426 for 13", resp.Status, resp.Header.Get("Sec-WebSocket-Version"), body)
	}
	p.wantEnd()
}

// A client that goes away during the handshake leaves an error, and no answer.
func TestHandshakeCutShort(t *testing.T) {
	for _, cut := range []int{0, 1, 50, len(peerRequest) - 1} {
		server, client := tcpPair(t)
		p := newPeer(t, client)
		p.send([]byte(peerRequest[:cut]))
		client.(*net.TCPConn).CloseWrite()
		c, _, err := Upgrade(server)
		if c != nil || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("Upgrade of %d bytes = %v, %v; want %v", cut, c, err, io.ErrUnexpectedEOF)
		}
		p.wantEnd()
	}
	c, p := connect(t, &zeroUpgrader, tcpPair)
	ended := make(chan error, 1)
	go func() {
		_, _, err := c.ReadMessage()
		ended <- err
	}()
	p.closeWith(CloseNormal, "")
	if err := <-ended; err == nil {
		t.Error("ReadMessage at the end = nil, want an error")
	}
}

// A plainConn of a connection gives back what was read before what comes.
func TestPlainConnReplays(t *testing.T) {
	server, client := tcpPair(t)
	client.Write([]byte("world"))
	rc := &plainConn{Conn: server, head: []byte("Hello, ")}
	b := make([]byte, 12)
	if _, err := io.ReadFull(rc, b); string(b) != "Hello, world" || err != nil {
		t.Errorf("read %q, %v; want %q", b, err, "Hello, world")
	}
}

// OnRefuse may block, and strangers may be refused as often as they like: it is called
// so often at the same time and no more, behind a Server and without one.
func TestOnRefuseIsBounded(t *testing.T) {
	for _, way := range []string{"Server", "Upgrade"} {
		t.Run(way, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var book logBook
				var calls atomic.Int64
				release := make(chan struct{})
				s := &Server{Handler: Events{}, ErrorLog: book.logger(), Upgrader: Upgrader{OnRefuse: func(*http.Request, int, error) {
					calls.Add(1)
					<-release
				}}}
				ln := newPipeListener()
				serve(t, s, ln)
				refuse := func() {
					server, client := pipePair(t)
					p := newPeer(t, client)
					if way == "Server" {
						ln.conns <- server
					} else {
						go s.Upgrader.Upgrade(server)
					}
					p.send([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
					if resp, _ := p.answer(); resp.StatusCode != 426 {
						t.Fatalf("answer %s, want 426", resp.Status)
					}
					p.nc.Close()
					synctest.Wait()
				}
				for range maxTellings + 10 {
					refuse()
				}
				if got := calls.Load(); got != maxTellings {
					t.Errorf("%d refusals, and %d calls of an OnRefuse that blocks; want %d", maxTellings+10, got, maxTellings)
				}
				if got := strings.Join(book.all(), ""); way == "Server" && strings.Count(got, "OnRefuse doesn't keep up") != 1 {
					t.Errorf("the log says %q, want one line about OnRefuse", got)
				}
				close(release)
				synctest.Wait()
				if refuse(); calls.Load() != maxTellings+1 {
					t.Error("OnRefuse isn't called any more when it has returned")
				}
			})
		})
	}
}
