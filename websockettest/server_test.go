package websockettest_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rawws/websocket"
	"github.com/rawws/websocket/websockettest"
)

// An hour of pings passes in a moment, and the connection stays.
func TestAnHourInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := websockettest.Serve(t, &websocket.Server{Handler: echo})
		c := websockettest.Dial(t, ln, "/")
		if pings := c.WantQuiet(time.Hour); pings < 120 || pings > 160 {
			t.Errorf("%d pings in an hour; want one every 25 s", pings)
		}
		c.SendText("still here")
		c.WantText("still here")

		other := websockettest.Dial(t, ln, "/")
		other.ReadInBackground()
		time.Sleep(time.Hour)
		other.SendText("still here")
		other.WantText("still here")
		other.Close(1000)
	})
}

// Who doesn't answer is cut: the first, cut by now, as one who read nothing.
func TestNoPongsInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan error, 1)
		ln := websockettest.Serve(t, &websocket.Server{Handler: websocket.Events{OnClose: func(c *websocket.Conn, err error) { ended <- err }}})
		c := websockettest.Dial(t, ln, "/")
		c.NoPongs = true
		start := time.Now()
		c.WantEnd()
		if got := time.Since(start); got < 40*time.Second || got > 50*time.Second {
			t.Errorf("cut after %v; want PingInterval and PongTimeout", got)
		}
		if err := <-ended; !strings.Contains(err.Error(), "PongTimeout") {
			t.Errorf("OnClose: %v", err)
		}
	})
}

func TestBehindNetHTTP(t *testing.T) {
	socket := &websocket.Server{Handler: echo, Upgrader: websocket.Upgrader{Compression: &websocket.Compression{Threshold: -1}}}
	t.Cleanup(func() { socket.Close() })
	for name, ln := range map[string]net.Listener{
		"in memory": websockettest.Serve(t, &http.Server{Handler: socket}),
		"over TCP":  listenerOf(t, socket),
	} {
		t.Run(name, func(t *testing.T) {
			c := websockettest.Dial(t, ln, "/", "Sec-WebSocket-Extensions: permessage-deflate", "Host: "+ln.Addr().String())
			c.SendFrame(websockettest.Frame{Opcode: websockettest.Text, RSV1: true, Payload: websockettest.Deflate([]byte("hello"))})
			c.WantText("hello")
			c.Close(1005)
		})
	}
}

func TestDialAddr(t *testing.T) {
	ln := listenerOf(t, &websocket.Server{Handler: echo})
	c := websockettest.DialAddr(t, ln.Addr().String(), "/")
	c.SendBinary([]byte("hello"))
	c.WantBinary([]byte("hello"))
	c.Close(1000)
}

// A refusal that isn't the one wanted.
func TestWantRefusalFails(t *testing.T) {
	defer func() {
		if v := recover(); v == nil || !strings.Contains(v.(string), `answer 101 Switching Protocols ""; want 403`) {
			t.Errorf("failed with %v", v)
		}
	}()
	websockettest.WantRefusal(nil, websockettest.Serve(t, &websocket.Server{Handler: echo}), 403, "/")
}

func listenerOf(t *testing.T, h http.Handler) net.Listener {
	ts := httptest.NewServer(h)
	t.Cleanup(ts.Close)
	return ts.Listener
}

func TestRequestLines(t *testing.T) {
	ln := websockettest.Serve(t, &websocket.Server{Handler: echo})
	for _, test := range []struct {
		status int
		lines  []string
	}{
		{400, []string{"Host:"}},
		{426, []string{"upgrade: h2c"}},
		{426, []string{"Sec-WebSocket-Version: 8"}},
		{400, []string{"Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 13"}},
		{400, []string{"Sec-WebSocket-Key: short"}},
	} {
		websockettest.WantRefusal(t, ln, test.status, "/", test.lines...)
	}
	c := websockettest.Dial(t, ln, "/", "Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==", "X-Empty:")
	c.Close(1000)
}
