package websocket

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// waysIn are the ways by which a request reaches an Upgrader: each returns a
// peer whose next request does. What is refused, and how, is the same in all.
var waysIn = map[string]func(t *testing.T, u Upgrader) *peer{
	"Upgrade": func(t *testing.T, u Upgrader) *peer {
		server, client := tcpPair(t)
		go func() {
			if c, _, err := u.Upgrade(server); err == nil {
				c.CloseNow()
			}
		}()
		return newPeer(t, client)
	},
	"Server": func(t *testing.T, u Upgrader) *peer {
		return serveTCP(t, &Server{Handler: echoEvents(), Upgrader: u, ErrorLog: new(logBook).logger()})()
	},
	"Server, second request": func(t *testing.T, u Upgrader) *peer {
		s := &Server{Handler: echoEvents(), HTTP: plainHandler, Upgrader: u, ErrorLog: new(logBook).logger()}
		p := serveTCP(t, s)()
		host := "server.example"
		if len(u.AllowedHosts) > 0 { // which hold for this request too
			host = u.AllowedHosts[0]
		}
		p.send([]byte("GET /first HTTP/1.1\r\nHost: " + host + "\r\n\r\n"))
		p.wantAnswer(200, `GET /first "" <nil> TLS false`)
		return p
	},
	"ServeHTTP": func(t *testing.T, u Upgrader) *peer {
		s := &Server{Handler: echoEvents(), Upgrader: u, ErrorLog: new(logBook).logger()}
		return dialHTTPTest(t, httptest.NewUnstartedServer(s), false)
	},
	"UpgradeHTTP": func(t *testing.T, u Upgrader) *peer {
		return dialHTTPTest(t, httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if c, err := u.UpgradeHTTP(w, r); err == nil {
				c.CloseNow()
			}
		})), false)
	},
}

// What real clients send and can be read in one way only is accepted, and what
// only looks like it isn't.
func TestRealClients(t *testing.T) {
	for _, test := range []struct {
		name     string
		old, new string // replaced in the usual request
		u        Upgrader
		status   int
		host     string // that OnUpgrade sees, "" for the usual
	}{
		{name: "the usual request", status: 101},
		{name: "no subprotocol asked for", old: "\r\n\r\n", new: "\r\nSec-WebSocket-Protocol:\r\n\r\n", u: Upgrader{Subprotocols: []string{"a"}}, status: 101},
		{name: "no subprotocol but spaces", old: "\r\n\r\n", new: "\r\nSec-WebSocket-Protocol:  \t \r\n\r\n", status: 101},
		{name: "a subprotocol that is no token", old: "\r\n\r\n", new: "\r\nSec-WebSocket-Protocol: a b\r\n\r\n", status: 400},
		{name: "the key of the RFC's example", old: peerKey, new: "AQIDBAUGBwgJCgsMDQ4PEC==", status: 101},
		{name: "a key of 15 bytes", old: peerKey, new: "AQIDBAUGBwgJCgsMDQ4P", status: 400},
		{name: "a percent sign in the query", old: "/chat", new: "/chat?q=100%", status: 101},
		{name: "escape() in the query", old: "/chat", new: "/chat?x=%u00fc", status: 101},
		{name: "NUL in the query", old: "/chat", new: "/chat?x=%00", status: 101},
		{name: "bytes over ASCII in the query", old: "/chat", new: "/chat?x=\xc3\xbc", status: 101},
		{name: "NUL in the path", old: "/chat", new: "/chat%00", status: 400},
		{name: "a whole target", old: "/chat", new: "http://server.example/chat", status: 101},
		{name: "a whole target with a port", old: "/chat", new: "ws://server.example:9001/", status: 101, host: "server.example:9001"},
		{name: "a whole target with the Origin", old: "/chat HTTP/1.1", new: "http://a.example/ HTTP/1.1\r\nOrigin: http://a.example", status: 101, host: "a.example"},
		{name: "a whole target without the Origin", old: "/chat HTTP/1.1", new: "http://a.example/ HTTP/1.1\r\nOrigin: http://server.example", status: 403},
		{name: "a whole target of ours", old: "/chat", new: "http://a.example/", u: Upgrader{AllowedHosts: []string{"a.example"}}, status: 101, host: "a.example"},
		{name: "a whole target that isn't ours", old: "/chat", new: "http://a.example/", u: Upgrader{AllowedHosts: []string{"server.example"}}, status: 403},
		{name: "the standard port not sent", u: Upgrader{AllowedHosts: []string{"server.example:80"}}, status: 101},
		{name: "the standard port sent", old: ".example", new: ".example:80", u: Upgrader{AllowedHosts: []string{"server.example"}}, status: 101, host: "server.example:80"},
		{name: "another port than the standard one", u: Upgrader{AllowedHosts: []string{"server.example:81"}}, status: 403},
		{name: "Origin of a file", old: "\r\n\r\n", new: "\r\nOrigin: file://\r\n\r\n", u: Upgrader{Origins: []string{"*"}}, status: 101},
		{name: "Origin with a path", old: "\r\n\r\n", new: "\r\nOrigin: https://example.org/a/path\r\n\r\n", u: Upgrader{Origins: []string{"*"}}, status: 101},
		{name: "Origin empty", old: "\r\n\r\n", new: "\r\nOrigin:\r\n\r\n", u: Upgrader{Origins: []string{"*"}}, status: 101},
		{name: "Origin of a file, not allowed", old: "\r\n\r\n", new: "\r\nOrigin: file://\r\n\r\n", status: 403},
		{name: "version 8", old: "Version: 13", new: "Version: 8", status: 426},
		{name: "hixie-76", old: "Sec-WebSocket-Key: " + peerKey + "\r\nSec-WebSocket-Version: 13",
			new: "Sec-WebSocket-Key1: 4 @1  46546xW%0l 1 5\r\nSec-WebSocket-Key2: 12998 5 Y3 1  .P00", status: 426},
	} {
		for way, connect := range waysIn {
			t.Run(test.name+"/"+way, func(t *testing.T) {
				u, hosts := test.u, make(chan string, 1)
				u.OnUpgrade = func(r *http.Request, _ *Accept) error {
					hosts <- r.Host
					return nil
				}
				p := connect(t, u)
				p.send([]byte(strings.Replace(peerRequest, test.old, test.new, 1)))
				resp, text := p.answer()
				if resp.StatusCode != test.status {
					t.Fatalf("answer %s %q, want %d", resp.Status, text, test.status)
				}
				if want := "13"; test.status == 426 && resp.Header.Get("Sec-WebSocket-Version") != want {
					t.Errorf("Sec-WebSocket-Version %q, want %s", resp.Header.Get("Sec-WebSocket-Version"), want)
				}
				if test.status != 101 {
					return
				}
				if _, protocol := resp.Header["Sec-Websocket-Protocol"]; protocol {
					t.Errorf("answer with Sec-WebSocket-Protocol %q, want none", resp.Header["Sec-Websocket-Protocol"])
				}
				want := test.host
				if want == "" {
					want = "server.example"
				}
				if host := <-hosts; host != want {
					t.Errorf("r.Host = %q, want %q", host, want)
				}
			})
		}
	}
}

// The answer to a HEAD has the fields that one to a GET would have, and no
// content (RFC 9110, section 9.3.2).
func TestHeadHasNoContent(t *testing.T) {
	for way, connect := range waysIn {
		t.Run(way, func(t *testing.T) {
			p := connect(t, Upgrader{})
			p.send([]byte(strings.Replace(peerRequest, "GET", "HEAD", 1)))
			for p.receive() == nil {
			}
			head, content, _ := strings.Cut(string(p.in), "\r\n\r\n")
			if content != "" {
				t.Errorf("answer with the content %q, want none", content)
			}
			lines := strings.Split(head, "\r\n")
			if lines[0] != "HTTP/1.1 405 Method Not Allowed" {
				t.Errorf("answer %q, want 405", lines[0])
			}
			for _, want := range []string{"Allow: GET", "Connection: close", "Content-Length: 65", "Content-Type: text/plain; charset=utf-8"} {
				if !slices.Contains(lines, want) {
					t.Errorf("answer %q, want in it %q", lines, want)
				}
			}
		})
	}
}
