package websocket_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"time"

	"github.com/rawws/websocket"
	"github.com/rawws/websocket/websockettest"
)

// What a server on the open network may want to bound beside the defaults.
func ExampleServer_limits() {
	s := &websocket.Server{
		Handler:        websocket.Events{},
		MaxConns:       100_000,          // 503 for more
		MaxConnsPerIP:  50,               // 429 for more
		MaxHandshakes:  1000,             // more wait to be accepted
		ShutdownSpread: 30 * time.Second, // the clients come back over as long
		Upgrader: websocket.Upgrader{
			MaxLifetime:    12 * time.Hour,   // then 1001
			IdleTimeout:    30 * time.Minute, // without a message, then 1000
			MaxControlRate: 20,               // pings and pongs a second, then 1008
			MinRate:        100,              // bytes a second of a message under way, or 1008
		},
	}
	defer s.Close()
	ln := websockettest.Serve(nil, s)
	c := websockettest.Dial(nil, ln, "/")
	c.Close(1000)
	fmt.Println(s.Stats().Accepted)
	// Output: 1
}

// The Shutdown of net/http doesn't know of the connections, calls who is
// registered, and doesn't wait for that.
func ExampleServer_Shutdown_netHTTP() {
	s := &websocket.Server{Handler: websocket.Events{}}
	web := httptest.NewServer(s) // or an http.Server of your own
	stopped := make(chan error, 1)
	web.Config.RegisterOnShutdown(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		stopped <- s.Shutdown(ctx)
	})
	c := websockettest.Dial(nil, web.Listener, "/")

	go web.Config.Shutdown(context.Background())
	c.WantClose(1001)
	fmt.Println(<-stopped)
	fmt.Println(s.Stats().ClosedByServer)
	// Output:
	// <nil>
	// map[1001:1]
}
