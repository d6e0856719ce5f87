package browser

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/rawws/websocket"
)

//go:embed testdata/page.html
var page []byte

// serve serves s, and the page that has class Session beside it, until the
// test ends. It returns host:port.
func serve(t *testing.T, s *websocket.Server) string {
	t.Helper()
	return serveOn(t, s, listen(t, "127.0.0.1:0"))
}

func serveOn(t *testing.T, s *websocket.Server, ln net.Listener) string {
	s.HTTP = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "page.html", time.Time{}, bytes.NewReader(page))
	})
	return serveHTTP(t, s, ln)
}

// serveHTTP is serveOn with a page of the caller's, or none.
func serveHTTP(t *testing.T, s *websocket.Server, ln net.Listener) string {
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-served; !errors.Is(err, websocket.ErrServerClosed) {
			t.Errorf("Serve = %v, want ErrServerClosed", err)
		}
	})
	return ln.Addr().String()
}

func listen(t *testing.T, addr string) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

func shutDown(t *testing.T, s *websocket.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

func echoByEvents() websocket.Handler {
	return websocket.Events{
		OnMessage: func(c *websocket.Conn, t websocket.MessageType, p []byte) { c.WriteMessage(t, p) },
	}
}

func echoByReading() websocket.Handler {
	return websocket.HandlerFunc(func(c *websocket.Conn, _ *http.Request) {
		for m, err := range c.Messages() {
			if err != nil || c.WriteMessage(m.Type, m.Data) != nil {
				return
			}
		}
	})
}

// Whatever a page can send comes back as it was, of its type, in its order.
func TestMessages(t *testing.T) {
	compressions := map[string]*websocket.Compression{
		"plain":    nil,
		"deflate":  {Threshold: -1},
		"takeover": {Threshold: -1, ServerContext: true},
	}
	for name, handler := range map[string]func() websocket.Handler{"events": echoByEvents, "reading": echoByReading} {
		for compressed, compression := range compressions {
			t.Run(name+"-"+compressed, func(t *testing.T) {
				s := &websocket.Server{Handler: handler()}
				s.Upgrader.Compression = compression
				b := visit(t, "http://"+serve(t, s))
				faults := eval[[]string](b, `
					const s = await opened(), faults = [];
					const mb = 1 << 20, runes = "aé漢😀ж ";
					const messages = ["", "plain", "naïve Ελληνικά кириллица עברית العربية हिन्दी ไทย 漢字 かな 한국어 👩‍🚀 🏳️‍🌈 \u0000 \u{10ffff}",
						"x".repeat(125), "x".repeat(126), "x".repeat(65535), "x".repeat(65536), "x".repeat(mb),
						runes.repeat(mb / (await bytes(runes)).length),
						pattern(0), pattern(1).buffer, pattern(126), pattern(65536).buffer, pattern(mb), pattern(mb).buffer,
						new Blob(["in ", pattern(70000), " parts"])];
					for (const binaryType of ["blob", "arraybuffer"]) {
						s.ws.binaryType = binaryType;
						for (const [i, data] of messages.entries()) {
							const fault = await s.exchange(data);
							if (fault) faults.push(`+"`${binaryType}, message ${i}: ${fault}`"+`);
						}
					}
					for (let i = 0; i < 1000; i++) s.ws.send(i % 2 ? String(i) : new Blob([String(i)]));
					for (let i = 0; i < 1000; i++) {
						const back = new TextDecoder().decode(await bytes(await s.message()));
						if (back !== String(i)) faults.push(`+"`message ${i} of many: ${back}`"+`);
					}
					return [...faults, String(s.events.length)];`)
				// An open, and a message for each that was sent.
				if want := []string{fmt.Sprint(1 + 2*16 + 1000)}; !slices.Equal(faults, want) {
					t.Errorf("faults and the number of events: %q, want %q", faults, want)
				}
			})
		}
	}
}

// onclose says the code, the reason and wasClean, and the server's OnClose the
// same from its side.
func TestClose(t *testing.T) {
	type seen struct {
		by             websocket.Side
		sent, received websocket.CloseCode
		clean          bool
		reason         string // of the page
	}
	long := strings.Repeat("é", 61) + "!" // 123 bytes, the most
	tests := []struct {
		name string
		do   func(c *websocket.Conn) // at the page's first message
		page string
		want string // after open
		seen seen
	}{
		{"page, no code", nil, `s.ws.close()`, `close 1005 "" clean`, seen{websocket.SidePeer, 1005, 1005, true, ""}},
		{"page, 1000", nil, `s.ws.close(1000)`, `close 1000 "" clean`, seen{websocket.SidePeer, 1000, 1000, true, ""}},
		{"page, reason", nil, `s.ws.close(4999, "` + long + `")`, `close 4999 "" clean`, seen{websocket.SidePeer, 4999, 4999, true, long}},
		{"server, 1000", func(c *websocket.Conn) { c.Close(1000, "done") }, `s.ws.send("x")`, `close 1000 "done" clean`, seen{0, 1000, 1000, true, ""}},
		{"server, 3000", func(c *websocket.Conn) { c.Close(3000, long) }, `s.ws.send("x")`, `close 3000 "` + long + `" clean`, seen{0, 3000, 3000, true, ""}},
		{"server, 1012", func(c *websocket.Conn) { c.Close(1012, "") }, `s.ws.send("x")`, `close 1012 "" clean`, seen{0, 1012, 1012, true, ""}},
		{"server cuts", func(c *websocket.Conn) { c.CloseNow() }, `s.ws.send("x")`, `close 1006 "" not clean`, seen{}},
		{"server panics", func(c *websocket.Conn) { panic("on purpose") }, `s.ws.send("x")`, `close 1011 "" clean`, seen{0, 1011, 0, false, ""}},
		{"too big", nil, `s.ws.send(pattern(3 << 20))`, `close 1009 "message over the limit of 1048576 bytes" clean`, seen{websocket.SidePeer, 1009, 0, false, ""}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ends := make(chan error, 1)
			b := visit(t, "http://"+serve(t, &websocket.Server{ErrorLog: discard, Handler: websocket.Events{
				OnMessage: func(c *websocket.Conn, _ websocket.MessageType, p []byte) {
					if test.do != nil {
						test.do(c)
					} else {
						c.WriteMessage(websocket.TextMessage, p)
					}
				},
				OnClose: func(_ *websocket.Conn, err error) { ends <- err },
			}}))
			events := eval[[]string](b, `const s = await opened(); `+test.page+`; return await s.closed();`)
			events = slices.DeleteFunc(events, func(e string) bool { return e == "message String" })
			if len(events) != 2 || events[0] != "open" || events[1] != test.want {
				t.Errorf("the page saw %q, want open and %q", events, test.want)
			}
			end := next(t, ends)
			got := seen{end.By, end.Sent, end.Received, end.Clean, ""}
			var closed *websocket.CloseError
			if errors.As(end, &closed) {
				got.reason = closed.Reason
			}
			if got != test.seen {
				t.Errorf("the server saw %+v, want %+v", got, test.seen)
			}
		})
	}
}

func next(t *testing.T, ends <-chan error) *websocket.EndError {
	t.Helper()
	select {
	case err := <-ends:
		var end *websocket.EndError
		if errors.As(err, &end) {
			return end
		}
		t.Fatalf("OnClose(%v), want an *EndError", err)
	case <-time.After(patience):
		t.Fatalf("no OnClose within %v", patience)
	}
	return nil
}

// A page whose tab is closed says so. (One that is left by a link needn't: the
// back/forward cache may keep it, with its socket, for minutes.)
func TestLeaving(t *testing.T) {
	ends := make(chan error, 1)
	b := visit(t, "http://"+serve(t, &websocket.Server{
		Handler: websocket.Events{OnClose: func(_ *websocket.Conn, err error) { ends <- err }},
	}))
	eval[bool](b, `window.s = await opened(); return true`)
	if err := chromedp.Cancel(b.ctx); err != nil {
		t.Errorf("closing the tab: %v", err)
	}
	if end := next(t, ends); end.By != websocket.SidePeer || end.Received != websocket.CloseGoingAway || !end.Clean {
		t.Errorf("the server saw %+v, want a clean end by the peer with 1001", end)
	}
}

// A refused handshake is an error and a close with 1006, and never an open.
func TestRefused(t *testing.T) {
	refusal := &websocket.HandshakeError{Status: http.StatusUnauthorized, Reason: "not on the list"}
	for _, test := range []struct {
		name     string
		upgrader websocket.Upgrader
		args     string // of class Session
		status   int    // 0: the server agrees, but not the browser
	}{
		{"by the application", websocket.Upgrader{OnUpgrade: func(*http.Request, *websocket.Accept) error { return refusal }}, `address()`, 401},
		{"another site", websocket.Upgrader{}, `address().replace("127.0.0.1", "localhost")`, 403},
		{"another host", websocket.Upgrader{AllowedHosts: []string{"127.0.0.1"}, Origins: []string{"*"}}, `address().replace("127.0.0.1", "localhost")`, 403},
		{"no subprotocol in common", websocket.Upgrader{Subprotocols: []string{"v2"}}, `address(), ["v1"]`, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &websocket.Server{Handler: echoByEvents(), Upgrader: test.upgrader}
			b := visit(t, "http://"+serve(t, s))
			got := eval[[]string](b, `return await new Session(`+test.args+`).closed();`)
			if want := []string{"error", `close 1006 "" not clean`}; !slices.Equal(got, want) {
				t.Errorf("the page saw %q, want %q", got, want)
			}
			shutDown(t, s) // which waits until the refusal is counted
			if refused := s.Stats().Refused; test.status != 0 && refused[test.status] != 1 {
				t.Errorf("refused, by status: %v; want one with %d", refused, test.status)
			}
		})
	}
}

// A page of another site is let in when it is on the list.
func TestOrigin(t *testing.T) {
	s := &websocket.Server{Handler: echoByEvents()}
	other := visit(t, "http://"+serve(t, &websocket.Server{}))
	origin := eval[string](other, `return location.origin`)
	s.Upgrader.Origins = []string{origin}
	addr := serve(t, s)
	if fault := eval[string](other, `return (await opened("ws://`+addr+`/")).exchange("hello")`); fault != "" {
		t.Errorf("a page of %s, which is allowed: %s", origin, fault)
	}
}

func TestSubprotocol(t *testing.T) {
	s := &websocket.Server{Handler: echoByEvents()}
	s.Upgrader.Subprotocols = []string{"chat.v2", "chat.v1"}
	b := visit(t, "http://"+serve(t, s))
	for offered, want := range map[string]string{
		`[]`:                        "",
		`"chat.v1"`:                 "chat.v1",
		`["unknown", "chat.v1"]`:    "chat.v1",
		`["chat.v1", "chat.v2"]`:    "chat.v2", // the server's order counts
		`["chat.v2", "v3", "soap"]`: "chat.v2",
	} {
		if got := eval[string](b, `return (await opened(address(), `+offered+`)).ws.protocol`); got != want {
			t.Errorf("offered %s: ws.protocol is %q, want %q", offered, got, want)
		}
	}
}

// What Chromium offers is taken up, and what is sent is really compressed.
func TestDeflate(t *testing.T) {
	for _, test := range []struct {
		name        string
		compression *websocket.Compression
		want        string // ws.extensions
		most        int64  // bytes each way for 4 times 256 KiB that are the same
	}{
		{"off", nil, "", 2 << 20},
		{"on", &websocket.Compression{}, "permessage-deflate", 40 << 10},
		{"takeover", &websocket.Compression{ServerContext: true}, "permessage-deflate; client_max_window_bits=12", 40 << 10},
		{"large windows", &websocket.Compression{ServerContext: true, WindowBits: 15}, "permessage-deflate", 40 << 10},
		{"no contexts", &websocket.Compression{ContextMemory: -1}, "permessage-deflate; client_no_context_takeover", 40 << 10},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &websocket.Server{Handler: echoByEvents()}
			s.Upgrader.Compression = test.compression
			ln := &countingListener{Listener: listen(t, "127.0.0.1:0")}
			b := visit(t, "http://"+serveOn(t, s, ln))
			ln.in.Store(0)
			ln.out.Store(0)
			got := eval[[]string](b, `
				const s = await opened(), result = [s.ws.extensions];
				for (let i = 0; i < 4; i++) result.push(await s.exchange("WebSocket ".repeat(26214)));
				return result`)
			if want := []string{test.want, "", "", "", ""}; !slices.Equal(got, want) {
				t.Errorf("extensions and faults: %q, want %q", got, want)
			}
			if in, out := ln.in.Load(), ln.out.Load(); max(in, out) > test.most || in == 0 || out == 0 {
				t.Errorf("a mebibyte of repetition took %d bytes in and %d out, want at most %d", in, out, test.most)
			}
			if test.compression != nil && s.Stats().DeflatedIn == 0 {
				t.Errorf("Stats count no compressed bytes: %+v", s.Stats())
			}
		})
	}
}

// A countingListener counts the bytes of all its connections.
type countingListener struct {
	net.Listener
	in, out atomic.Int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	return &countingConn{nc, l}, err
}

type countingConn struct {
	net.Conn
	l *countingListener
}

func (c *countingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.l.in.Add(int64(n))
	return n, err
}

func (c *countingConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.l.out.Add(int64(n))
	return n, err
}

// The browser answers pings on its own; a page sees nothing of it.
func TestKeepAlive(t *testing.T) {
	s := &websocket.Server{Handler: websocket.Events{
		OnMessage: func(c *websocket.Conn, t websocket.MessageType, p []byte) {
			c.WriteMessage(t, fmt.Appendf(nil, "%d", c.RTT().Nanoseconds()))
		},
	}}
	s.Upgrader.PingInterval = 50 * time.Millisecond
	b := visit(t, "http://"+serve(t, s))
	events := eval[[]string](b, `
		const s = await opened();
		do s.ws.send("round trip?"); while (await s.message() === "0");
		return s.events`)
	if slices.Contains(events, "error") || !strings.HasPrefix(events[1], "message") {
		t.Errorf("the page saw %q, want its messages", events)
	}
	if stats := s.Stats(); stats.PongsIn == 0 {
		t.Errorf("no pong came: %+v", stats)
	}
}

// A page that connects again after a restart is served by the new server.
func TestRestart(t *testing.T) {
	first := &websocket.Server{Handler: echoByEvents()}
	addr := serve(t, first)
	b := visit(t, "http://"+addr)
	eval[bool](b, `window.s = await opened(); return true`)
	shutDown(t, first)
	if got, want := eval[[]string](b, `return await s.closed()`), []string{"open", `close 1001 "" clean`}; !slices.Equal(got, want) {
		t.Errorf("the page saw %q, want %q", got, want)
	}
	if got := eval[[]string](b, `return await new Session(address()).closed()`); !slices.Equal(got, []string{"error", `close 1006 "" not clean`}) {
		t.Errorf("with no server there the page saw %q", got)
	}
	serveOn(t, &websocket.Server{Handler: echoByEvents()}, listen(t, addr))
	if fault := eval[string](b, `return (await opened()).exchange("again")`); fault != "" {
		t.Errorf("after the restart: %s", fault)
	}
}

var discard = slog.New(slog.DiscardHandler)
