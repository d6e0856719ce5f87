package websocket_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rawws/websocket"
	"github.com/rawws/websocket/websockettest"
)

// dashboard shows value to everybody, ten times a second. A queue that holds one
// message at most, the newest, gives a slow client the latest value when it can
// take one, and leaves out those between.
func dashboard(ctx context.Context, value func() any) *websocket.Server {
	var all websocket.Group
	go func() {
		for tick := time.NewTicker(100 * time.Millisecond); ; {
			select {
			case <-tick.C:
				p, _ := json.Marshal(value())
				all.Broadcast(websocket.NewPreparedMessage(websocket.TextMessage, p))
			case <-ctx.Done():
				return
			}
		}
	}()
	return &websocket.Server{
		Upgrader: websocket.Upgrader{SendQueue: 1, SlowPolicy: websocket.DropOldest},
		Handler:  websocket.Events{OnOpen: func(c *websocket.Conn, r *http.Request) { all.Join(c) }},
	}
}

// Half a minute of a dashboard, seen by a client that reads all of it and by one
// that takes a picture every five seconds. What lies in its socket is old; what
// comes behind that is the latest, and not the next.
func TestDashboard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type picture struct {
			N      int
			Pixels string
		}
		n, pixels := 0, strings.Repeat("#", 20_000)
		ctx, stop := context.WithCancel(t.Context())
		s := dashboard(ctx, func() any { n++; return picture{n, pixels} })
		s.Upgrader.PingInterval = -1 // one that waits for the slow client would hold the writer, for whose mutex no clock goes on
		ln := websockettest.Serve(t, s)
		fast, slow := websockettest.Dial(t, ln, "/"), websockettest.Dial(t, ln, "/")
		var p picture
		seen := 0
		for i := range 300 {
			if fast.ReadJSON(&p); p.N != i+1 {
				t.Fatalf("the fast client got picture %d; want %d", p.N, i+1)
			}
			if i%50 == 49 {
				slow.ReadJSON(&p)
				seen++
			}
		}
		stop()
		for p.N < n {
			slow.ReadJSON(&p)
			seen++
		}
		if p.N != 300 || seen > 15 {
			t.Errorf("the slow client saw %d pictures, the last was %d; want a few, and 300", seen, p.N)
		}
		fast.Close(1000)
		slow.Close(1000)
	})
}
