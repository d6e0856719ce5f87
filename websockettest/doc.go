// Package websockettest is for tests of WebSocket servers, as net/http/httptest
// is for those of HTTP: a client that does what a test says, lawful or not, and
// a listener in memory.
//
//	func TestEcho(t *testing.T) {
//		ln := websockettest.Serve(t, &websocket.Server{Handler: echo})
//		c := websockettest.Dial(t, ln, "/echo")
//		c.SendText("hello")
//		c.WantText("hello")
//		c.Close(1000)
//	}
//
// It is no client for production. It masks each frame with the same key, which
// a client must not do (RFC 6455, section 10.3), buffers whatever the server
// sends without a limit, and ends the test where another client would return an
// error.
//
// # Failing
//
// What doesn't go as the test wants fails it at once, by Fatalf. So the methods
// of a Client belong to the test's own goroutine, as t.Fatal does. ReadFrame,
// which returns its error, and what NetConn returns may be used by any one.
//
// Where a function takes a [TB], nil does too: then a failure is a panic, and
// nothing is cleaned up. That is for Example functions, which have no t.
//
// # Breaking rules
//
// The zero [Frame] is a lawful one, a whole masked continuation; its fields
// break the rules one by one. Frame.Append gives its bytes, which can be
// altered, cut, and sent by SendRaw or SendSlowly. NewClient makes a Client
// that hasn't asked for anything yet, so that the request can be any bytes too.
//
// # Time
//
// A connection of [Listener] or [Pipe] is made of memory, sync.Cond and timers,
// and so works in the bubbles of testing/synctest, where time passes as soon as
// everybody waits: an hour of pings takes a moment. Make the listener, the
// Server and the Clients inside the bubble.
//
// The goroutine that looks after the pings and timeouts of the connections
// belongs to the bubble too, and there is one for each websocket.Server, and
// for each websocket.Upgrader that is used without a Server. Bubbles that run
// at the same time, those of parallel tests, must not share one: give each its
// own. websocket.Upgrade, the function, uses one that everybody shares.
package websockettest
