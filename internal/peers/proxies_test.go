package peers

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rawws/websocket"
	"github.com/rawws/websocket/websockettest"
)

// proxyPackages are Debian's packages for TestProxies.
const proxyPackages = "nginx haproxy apache2 caddy lighttpd"

var (
	silence = flag.Duration("silence", 3*time.Second, "how long TestProxies says nothing through each proxy; 46s outlasts a keep-alive ping of 25 s and its answer")
	unasked = flag.Bool("unasked", false, "send no pings in TestProxies, and tell which proxy cuts the connection within -silence")
)

// A proxy is a program with a file of docs/proxies. main is what Debian's own
// configuration has around that file; FILE and DIR are replaced in it and in
// the arguments.
type proxy struct {
	file string
	main string
	args []string
}

var proxies = []proxy{
	{"nginx.conf", `
daemon off;
pid DIR/pid;
error_log stderr;
events {}
http {
	access_log off;
	client_body_temp_path DIR/body;
	proxy_temp_path DIR/proxy;
	fastcgi_temp_path DIR/fastcgi;
	uwsgi_temp_path DIR/uwsgi;
	scgi_temp_path DIR/scgi;
	include FILE;
}
`, []string{"nginx", "-p", "DIR", "-e", "stderr", "-c", "DIR/main"}},
	{"haproxy-http.cfg", "", []string{"haproxy", "-db", "-f", "FILE"}},
	{"haproxy-tcp.cfg", "", []string{"haproxy", "-db", "-f", "FILE"}},
	{"apache.conf", `
ServerName proxy.example
PidFile DIR/pid
DefaultRuntimeDir DIR
ErrorLog /dev/stderr
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
User www-data
Group www-data
Include FILE
`, []string{"apache2", "-X", "-f", "DIR/main"}},
	{"Caddyfile", "{\n\tadmin off\n\tauto_https off\n}\nimport FILE\n",
		[]string{"caddy", "run", "--adapter", "caddyfile", "--config", "DIR/main"}},
	{"lighttpd.conf", `
server.document-root = "DIR"
include "FILE"
`, []string{"lighttpd", "-D", "-f", "DIR/main"}},
}

// TestProxies holds the files of docs/proxies: an echo, the client's address
// whatever the client claims, close codes of both sides, a refusal, a page, and
// silence. It needs proxyPackages, and fails without them. With -silence 46s all
// are silent at the same time if -parallel is 6.
func TestProxies(t *testing.T) {
	for _, p := range proxies {
		t.Run(p.file, func(t *testing.T) {
			t.Parallel()
			backend, ended := startBehind(t, strings.Contains(p.file, "tcp"))
			front := p.start(t, backend)
			throughProxy(t, front, ended)
		})
	}
}

// startBehind serves what a proxy is put in front of: it tells the client's
// address at first and echoes then. ended gets the error of each connection.
func startBehind(t *testing.T, proxyProtocol bool) (addr string, ended chan error) {
	loopback := netip.MustParsePrefix("127.0.0.1/32")
	clientIP := websocket.ForwardedIP("X-Forwarded-For", loopback)
	ended = make(chan error, 4)
	s := &websocket.Server{
		ClientIP: clientIP,
		HTTP:     http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "a page") }),
		Upgrader: websocket.Upgrader{PingInterval: *silence * 25 / 46},
		Handler: websocket.Events{
			OnOpen: func(c *websocket.Conn, r *http.Request) {
				c.WriteMessage(websocket.TextMessage, []byte("from "+clientIP(r).String()))
			},
			OnMessage: func(c *websocket.Conn, mt websocket.MessageType, data []byte) {
				if string(data) == "close" {
					c.Close(websocket.CloseTryAgainLater, "later")
					return
				}
				c.WriteMessage(mt, data)
			},
			OnClose: func(c *websocket.Conn, err error) { ended <- err },
		},
	}
	if proxyProtocol {
		// No HTTP header is believed: the proxy writes none, so it is the client's.
		s.ProxyProtocol, s.ClientIP = []netip.Prefix{loopback}, nil
		clientIP = func(r *http.Request) netip.Addr { return netip.MustParseAddrPort(r.RemoteAddr).Addr() }
	}
	if *unasked {
		s.Upgrader.PingInterval = -1
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	t.Cleanup(func() { s.Close(); <-served })
	return ln.Addr().String(), ended
}

// start runs the proxy with its file, on a port that is free, until the test
// ends, and waits until it listens.
func (p proxy) start(t *testing.T, backend string) (front string) {
	front = freeAddr(t)
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // for www-data
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "proxies", p.file))
	if err != nil {
		t.Fatal(err)
	}
	config := withAddrs(t, string(text), front, backend)
	file := filepath.Join(dir, "file.conf")
	paths := strings.NewReplacer("FILE", file, "DIR", dir)
	for name, text := range map[string]string{file: config, filepath.Join(dir, "main"): paths.Replace(p.main)} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	args := make([]string, len(p.args))
	for i, arg := range p.args {
		args[i] = paths.Replace(arg)
	}
	runProxy(t, dir, args)
	awaitListening(t, front)
	return front
}

// withAddrs puts the two addresses in the place of those in the file.
func withAddrs(t *testing.T, config, front, backend string) string {
	for old, addr := range map[string]string{"8080": front, "9001": backend} {
		_, port, _ := net.SplitHostPort(addr)
		changed := regexp.MustCompile(`\b`+old+`\b`).ReplaceAllString(config, port)
		if changed == config {
			t.Fatalf("the file doesn't name the port %s", old)
		}
		config = changed
	}
	return config
}

func freeAddr(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func runProxy(t *testing.T, dir string, args []string) {
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin", "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	if path, err := exec.LookPath("/usr/sbin/" + args[0]); err == nil {
		cmd.Path, cmd.Err = path, nil
	}
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatalf("%q: %v (Debian's packages are %s)", args, err, proxyPackages)
	}
	t.Cleanup(func() {
		cancel()
		cmd.Wait() // how it ends on a signal is its own affair
		if t.Failed() {
			t.Logf("%q said\n%s", args, said.String())
		}
	})
}

func awaitListening(t *testing.T, addr string) {
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		nc, err := net.Dial("tcp", addr)
		if err == nil {
			nc.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("nobody listens on %s: %v", addr, err)
		}
		<-tick.C
	}
}

// proxiedClient connects from 127.0.0.2, and claims to be somebody else.
func proxiedClient(t *testing.T, front string) *websockettest.Client {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	nc, err := d.Dial("tcp", front)
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(front)
	host := "chat.example:" + port
	c := websockettest.NewClient(t, nc)
	c.Handshake("/", "Host: "+host, "Origin: http://"+host, "X-Forwarded-For: 203.0.113.9")
	c.WantText("from 127.0.0.2")
	return c
}

func throughProxy(t *testing.T, front string, ended chan error) {
	c := proxiedClient(t, front)
	c.SendText("Hello")
	c.WantText("Hello")
	large := strings.Repeat("0123456789abcdef", 1<<14)
	go c.SendBinary([]byte(large)) // more than lies between the two
	c.WantBinary([]byte(large))

	if *unasked {
		wantCut(t, c)
		return
	}
	if pings := c.WantQuiet(*silence); pings == 0 {
		t.Errorf("no ping came in %v", *silence)
	} else {
		t.Logf("%v without a message, %d pings", *silence, pings)
	}
	c.SendText("still there")
	c.WantText("still there")
	c.Close(4321)
	if err := <-ended; websocket.CloseStatus(err) != 4321 {
		t.Errorf("the server's end of a client's close = %v; want 4321", err)
	}

	c = proxiedClient(t, front)
	c.SendText("close")
	if reason := c.WantClose(1013); reason != "later" {
		t.Errorf("the reason of 1013 = %q; want %q", reason, "later")
	}
	<-ended
	wantAnswers(t, front)
}

// wantCut tells when the proxy cuts a connection on which nothing comes.
func wantCut(t *testing.T, c *websockettest.Client) {
	began := time.Now()
	c.NetConn().SetReadDeadline(began.Add(*silence))
	_, err := c.NetConn().Read(make([]byte, 1))
	t.Logf("without pings: %v after %.0f s", err, time.Since(began).Seconds())
}

// wantAnswers wants a refusal and a page to come through as they are.
func wantAnswers(t *testing.T, front string) {
	for _, want := range []struct {
		origin string
		status int
		text   string
	}{{"", 200, "a page"}, {"http://evil.example", 403, "Upgrader.Origins doesn't allow it"}} {
		r, err := http.NewRequest("GET", fmt.Sprintf("http://%s/", front), nil)
		if err != nil {
			t.Fatal(err)
		}
		if want.origin != "" {
			r.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Origin": {want.origin},
				"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}}
		}
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Errorf("Origin %q: %v", want.origin, err)
			continue
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want.status || !strings.Contains(string(body), want.text) || err != nil {
			t.Errorf("Origin %q: %s %q, %v; want %s %q", want.origin, resp.Status, body, err, strconv.Itoa(want.status), want.text)
		}
	}
}
