package websocket

import (
	"net/http"
	"testing"
	"time"
)

// Who reads a connection that Events serves is told so, where it would wait for
// itself: in a callback, or beside one.
func TestReadUnderEvents(t *testing.T) {
	errs := make(chan error, 4)
	read := func(c *Conn) {
		_, _, err := c.ReadMessage()
		errs <- err
		_, _, err = c.NextReader()
		errs <- err
	}
	events := Events{
		OnOpen:    func(c *Conn, _ *http.Request) { read(c) },
		OnMessage: func(c *Conn, t MessageType, data []byte) { read(c); c.WriteMessage(t, data) },
	}
	for name, handler := range map[string]Handler{
		"a Server's":         events,
		"of a HandlerFunc's": HandlerFunc(events.ServeWebSocket),
	} {
		t.Run(name, func(t *testing.T) {
			testReadUnderEvents(t, handler, errs)
		})
	}
}

func testReadUnderEvents(t *testing.T, handler Handler, errs <-chan error) {
	p := serveTCP(t, &Server{Handler: handler, ErrorLog: new(logBook).logger()})()
	p.handshake()
	p.sendText("hello")
	for range 4 {
		select {
		case err := <-errs:
			if err != errEventsRead {
				t.Errorf("a read under Events: %v, want %v", err, errEventsRead)
			}
		case <-time.After(patience):
			t.Fatal("a read under Events waits for itself")
		}
	}
	p.want(opText, "hello")
	p.closeWith(CloseNormal, "")
}
