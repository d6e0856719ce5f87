package websockettest_test

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rawws/websocket"
	"github.com/rawws/websocket/websockettest"
)

// quiz asks a question and gives a minute for the answer.
func quiz(c *websocket.Conn, r *http.Request) {
	c.WriteMessage(websocket.TextMessage, []byte("6 x 9?"))
	asked := time.Now()
	c.SetReadDeadline(asked.Add(time.Minute))
	if _, answer, err := c.ReadMessage(); err != nil {
		c.Close(4000, "too slow")
	} else {
		c.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, "%s after %v", answer, time.Since(asked)))
	}
}

// A handler that waits is tested in a bubble, where waiting takes no time and
// is exact.
func TestQuiz(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := websockettest.Serve(t, &websocket.Server{Handler: websocket.HandlerFunc(quiz)})
		c := websockettest.Dial(t, ln, "/")
		c.WantText("6 x 9?")
		c.WantQuiet(59 * time.Second)
		c.SendText("42")
		c.WantText("42 after 59s")
		c.WantClose(1000)

		c = websockettest.Dial(t, ln, "/")
		c.WantText("6 x 9?")
		c.WantQuiet(time.Minute - 1)
		c.WantClose(4000)
	})
}
