package websocket

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rawws/websocket/internal/netloop"
)

// plainHandler tells what it sees of a request.
var plainHandler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %s %q %v TLS %t", r.Method, r.URL, body, err, r.TLS != nil)
})

func (p *peer) wantAnswer(status int, body string) *http.Response {
	p.Helper()
	resp, got := p.answer()
	if resp.StatusCode != status || got != body {
		p.Fatalf("answer %s %q, want %d %q", resp.Status, got, status, body)
	}
	return resp
}

// Plain HTTP on the same port: requests with and without a body, one behind the
// other, keep-alive, and at last an upgrade on the same socket.
func TestPlainHTTP(t *testing.T) {
	for name, h := range echoHandlers {
		t.Run(name, func(t *testing.T) {
			s := &Server{Handler: h, HTTP: plainHandler}
			p := serveTCP(t, s)()
			long := strings.Repeat("x", 10000)
			p.send([]byte("GET /a HTTP/1.1\r\nHost: x\r\n\r\n"))
			p.wantAnswer(200, `GET /a "" <nil> TLS false`)
			p.send([]byte("POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n"+long[:5000]), nil)
			p.send([]byte(long[5000:] + "GET /c HTTP/1.1\r\nHost: x\r\n\r\n"))
			p.wantAnswer(200, `POST /b "`+long+`" <nil> TLS false`)
			p.wantAnswer(200, `GET /c "" <nil> TLS false`)
			p.send([]byte(peerRequest), textFrame("with the request"))
			p.wantBytes(peerAnswer)
			p.want(opText, "with the request")
			if n := s.Stats().Open; n != 1 {
				t.Errorf("%d connections open, want 1", n)
			}
			for c := range s.Conns() {
				if c.raw == nil && c.sock == nil && netloop.Readable {
					t.Errorf("after plain HTTP the connection is served over a %T", c.NetConn())
				}
			}
			p.wantEcho("and behind it")
			p.closeWith(CloseNormal, "")
		})
	}
}

// Two plain requests in one segment are both answered, and the first bytes are
// replayed however they were cut.
func TestPlainHTTPReplay(t *testing.T) {
	dial := serveTCP(t, &Server{HTTP: plainHandler})
	head := "POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
	stream := head + "Hello" + "GET /c HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
	for _, cut := range []int{1, len(head) - 1, len(head), len(head) + 2, len(head) + 5, len(head) + 7, len(stream)} {
		p := dial()
		p.send([]byte(stream[:cut]))
		p.send([]byte(stream[cut:]))
		p.wantAnswer(200, `POST /b "Hello" <nil> TLS false`)
		if resp := p.wantAnswer(200, `GET /c "" <nil> TLS false`); !resp.Close {
			t.Errorf("cut at %d: the connection was to be closed", cut)
		}
		p.wantEnd()
	}
}

// Without a handler for it plain HTTP is told what this port is for.
func TestNoPlainHTTP(t *testing.T) {
	p := serveTCP(t, &Server{Handler: echoEvents()})()
	p.send([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	resp, _ := p.answer()
	if resp.StatusCode != http.StatusUpgradeRequired || resp.Header.Get("Upgrade") != "websocket" {
		t.Errorf("answer %s, Upgrade %q; want 426, websocket", resp.Status, resp.Header.Get("Upgrade"))
	}
	p.wantEnd()
}

// A refused upgrade on the port of plain HTTP is answered like any other.
func TestRefusalBesidePlainHTTP(t *testing.T) {
	p := serveTCP(t, &Server{Handler: echoEvents(), HTTP: plainHandler, ErrorLog: new(logBook).logger()})()
	p.send([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	p.wantAnswer(200, `GET / "" <nil> TLS false`)
	p.send([]byte(strings.Replace(peerRequest, ": 13", ": 7", 1)))
	if resp, body := p.answer(); resp.StatusCode != http.StatusUpgradeRequired || !strings.Contains(body, `"7"`) {
		t.Errorf("answer %s %q, want 426 about version 7", resp.Status, body)
	}
	p.wantEnd()
}

// A panic in the handler of plain HTTP is net/http's to log, in our log.
func TestPlainHTTPPanics(t *testing.T) {
	var book logBook
	p := serveTCP(t, &Server{ErrorLog: book.logger(), HTTP: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("ouch") })})()
	p.send([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	p.wantEnd()
	if lines := book.all(); len(lines) != 1 || !strings.Contains(lines[0], "ouch") {
		t.Errorf("logged %q, want one line with the panic", lines)
	}
}

// Shutdown lets a plain request that is being served end, and closes the idle
// keep-alive connections; Close cuts both.
func TestPlainHTTPShutdown(t *testing.T) {
	for name, end := range map[string]func(*Server, chan struct{}) error{
		"Shutdown": func(s *Server, release chan struct{}) error {
			time.AfterFunc(10*time.Millisecond, func() { close(release) })
			return s.Shutdown(t.Context())
		},
		"Close": func(s *Server, release chan struct{}) error {
			defer close(release)
			return s.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			release, entered := make(chan struct{}), make(chan struct{})
			s := &Server{HTTP: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/slow" {
					close(entered)
					<-release
				}
				plainHandler(w, r)
			})}
			dial := serveTCP(t, s)
			idle, busy := dial(), dial()
			idle.send([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
			idle.wantAnswer(200, `GET / "" <nil> TLS false`)
			busy.send([]byte("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"))
			<-entered
			if err := end(s, release); err != nil {
				t.Errorf("%s = %v", name, err)
			}
			if name == "Shutdown" {
				busy.wantAnswer(200, `GET /slow "" <nil> TLS false`)
			}
			for _, p := range []*peer{idle, busy} {
				for p.receive() == nil {
				}
			}
		})
	}
}

// A Server is an http.Handler for any mux.
func TestServeHTTPOnAMux(t *testing.T) {
	for name, h := range echoHandlers {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, TLS %t", name, secure), func(t *testing.T) {
				mux := http.NewServeMux()
				mux.Handle("/chat", &Server{Handler: h})
				mux.Handle("/", plainHandler)
				ts := httptest.NewUnstartedServer(mux)
				p := dialHTTPTest(t, ts, secure)
				p.send([]byte("GET /plain HTTP/1.1\r\nHost: x\r\n\r\n"))
				p.wantAnswer(200, fmt.Sprintf(`GET /plain "" <nil> TLS %t`, secure))
				p.handshake()
				p.wantEcho("on a mux")
				p.wantEcho(strings.Repeat("long ", 10000))
				p.closeWith(4000, "")
			})
		}
	}
}

// Deadlines that net/http has set for a request don't end its connection.
func TestServeHTTPBehindTimeouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipeListener()
		hs := &http.Server{Handler: &Server{Handler: echoEvents(), Upgrader: Upgrader{PingInterval: -1}}, ReadTimeout: time.Second, WriteTimeout: time.Second}
		go hs.Serve(ln)
		defer hs.Close()
		p := ln.open(t)
		time.Sleep(time.Minute)
		p.wantEcho("still there")
		p.closeWith(CloseNormal, "")
	})
	ts := httptest.NewUnstartedServer(&Server{Handler: echoEvents()}) // whose socket the loop adopts
	ts.Config.ReadTimeout, ts.Config.WriteTimeout = 50*time.Millisecond, 50*time.Millisecond
	ts.Start()
	defer ts.Close()
	var p *peer
	eventually(t, "a handshake comes in time, on a busy machine", func() bool {
		p = newPeer(t, dialAddr(t, ts.Listener.Addr().String()))
		io.WriteString(p.nc, peerRequest)
		for len(p.in) < len(peerAnswer) {
			if p.receive() != nil {
				return false
			}
		}
		return true
	})
	p.wantBytes(peerAnswer)
	p.nc.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if err := p.receive(); !isTimeout(err) {
		t.Fatalf("the connection brought %v, want silence for 100ms", err)
	}
	p.nc.SetReadDeadline(time.Now().Add(patience))
	p.wantEcho("still there")
}

// An answer doesn't wait for a body that the handler didn't want.
func TestPlainAnswersBeforeTheBody(t *testing.T) {
	s := &Server{HTTP: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body.Read(make([]byte, 1))
		http.Error(w, "no", http.StatusRequestEntityTooLarge)
	})}
	p := serveTCP(t, s)()
	p.nc.SetReadDeadline(time.Now().Add(s.bodyTimeout() / 2))
	p.send([]byte("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nand so on"))
	p.wantAnswer(413, "no\n")
}
