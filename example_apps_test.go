package websocket_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"sync"

	"github.com/rawws/websocket"
	"github.com/rawws/websocket/websockettest"
)

// chat is the well-known example of another library, with its limit and without
// its hub, its goroutines and its deadlines.
func chat() *websocket.Server {
	var room websocket.Group
	return &websocket.Server{
		Upgrader: websocket.Upgrader{MaxMessageSize: 512},
		Handler: websocket.Events{
			OnOpen: func(c *websocket.Conn, r *http.Request) { room.Join(c) },
			OnMessage: func(c *websocket.Conn, t websocket.MessageType, data []byte) {
				room.Broadcast(websocket.NewPreparedMessage(websocket.TextMessage, bytes.TrimSpace(data)))
			},
		},
	}
}

// A chat on a mux of net/http.
func Example_chat() {
	socket := chat()
	mux := http.NewServeMux()
	mux.Handle("GET /ws", socket)
	web := &http.Server{Handler: mux}
	defer web.Close()
	defer socket.Close()

	ln := websockettest.Serve(nil, web)
	a := websockettest.Dial(nil, ln, "/ws")
	a.SendText(" anybody here?\n")
	a.WantText("anybody here?")
	b := websockettest.Dial(nil, ln, "/ws")
	b.SendText("yes")
	a.WantText("yes")
	b.WantText("yes")
	a.Close(1000)
	b.Close(1000)
	// Output:
}

// A call asks for a method, or, with Cancel, for the end of the one with its ID.
type call struct {
	ID     int             `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Cancel bool            `json:"cancel"`
}

type reply struct {
	ID     int    `json:"id"`
	Result any    `json:"result,omitempty"`
	Error  string `json:"error,omitempty"`
}

// rpc serves calls side by side, as many of a connection's as it likes.
type rpc map[string]func(ctx context.Context, params json.RawMessage) (any, error)

func (methods rpc) ServeWebSocket(c *websocket.Conn, r *http.Request) {
	var running sync.Map // context.CancelFunc by ID
	for {
		var q call
		switch err := c.ReadJSON(&q); {
		case errors.Is(err, websocket.ErrJSON):
			c.WriteJSON(reply{Error: err.Error()})
		case err != nil:
			return
		case q.Cancel:
			if stop, ok := running.Load(q.ID); ok {
				stop.(context.CancelFunc)()
			}
		case methods[q.Method] == nil:
			c.WriteJSON(reply{ID: q.ID, Error: "no method " + q.Method})
		default:
			ctx, stop := context.WithCancel(c.Context()) // ends with the connection
			running.Store(q.ID, stop)
			go func() {
				defer running.Delete(q.ID)
				defer stop()
				answer := reply{ID: q.ID}
				var err error
				if answer.Result, err = methods[q.Method](ctx, q.Params); err != nil {
					answer.Error = err.Error()
				}
				c.WriteJSON(answer)
			}()
		}
	}
}

// Calls by JSON that can be cancelled; the end of the connection cancels all.
func Example_rpc() {
	started, ended := make(chan bool), make(chan error, 1)
	s := &websocket.Server{Handler: rpc{
		"add": func(_ context.Context, params json.RawMessage) (any, error) {
			var n []int
			if err := json.Unmarshal(params, &n); err != nil || len(n) != 2 {
				return nil, errors.New("two numbers are wanted")
			}
			return n[0] + n[1], nil
		},
		"wait": func(ctx context.Context, _ json.RawMessage) (any, error) {
			started <- true
			<-ctx.Done()
			ended <- ctx.Err()
			return nil, ctx.Err()
		},
	}}
	defer s.Close()

	c := websockettest.Dial(nil, websockettest.Serve(nil, s), "/")
	c.SendText(`{"id": 1, "method": "wait"}`)
	<-started
	c.SendText(`{"id": 2, "method": "add", "params": [20, 22]}`)
	c.WantJSON(reply{ID: 2, Result: 42})
	c.SendText(`{"id": 1, "cancel": true}`)
	c.WantJSON(reply{ID: 1, Error: "context canceled"})
	fmt.Println("cancelled:", <-ended)
	c.SendText(`{"id": 3, "method": "wait"}`)
	<-started
	c.Close(1000)
	fmt.Println("gone:", <-ended)
	// Output:
	// cancelled: context canceled
	// gone: context canceled
}

// A store keeps what is sent to it, and gives it back: neither is ever in
// memory as a whole.
type store struct{ io.ReadWriteSeeker }

func (file store) ServeWebSocket(c *websocket.Conn, r *http.Request) {
	c.SetMaxMessageSize(100 << 20)
	if _, up, err := c.NextReader(); err != nil {
		return
	} else if n, err := io.Copy(file, up); err != nil {
		return // the connection, or the file
	} else if c.WriteJSON(n) != nil {
		return
	}
	file.Seek(0, io.SeekStart)
	down, err := c.NextWriter(websocket.BinaryMessage)
	if err != nil {
		return
	}
	if _, err := io.Copy(down, file); err != nil {
		c.Close(websocket.CloseInternalError, "") // the message never gets whole
		return
	}
	down.Close()
}

// A large message up, and down again, in pieces.
func Example_streaming() {
	file, err := os.CreateTemp("", "store")
	if err != nil {
		panic(err)
	}
	defer os.Remove(file.Name())
	defer file.Close()
	s := &websocket.Server{Handler: store{file}}
	defer s.Close()

	c := websockettest.Dial(nil, websockettest.Serve(nil, s), "/")
	c.ReadInBackground()
	piece := bytes.Repeat([]byte("0123456789abcdef"), 4<<10)
	sum := sha256.New()
	const pieces = 64 // 4 MiB; a real client may send its 100 in one frame
	for i := range pieces {
		f := websockettest.Frame{Payload: piece, More: i < pieces-1}
		if i == 0 {
			f.Opcode = websockettest.Binary
		}
		c.SendFrame(f)
		sum.Write(piece)
	}
	c.WantJSON(len(piece) * pieces)
	_, down := c.Read()
	fmt.Println(len(down), sha256.Sum256(down) == [32]byte(sum.Sum(nil)))
	c.WantClose(1000)
	// Output: 4194304 true
}

// members is a chat for who has logged in, behind a mux.
func members() (http.Handler, *websocket.Server) {
	var room websocket.Group
	var sessions sync.Map // name by the cookie's value
	socket := &websocket.Server{
		Upgrader: websocket.Upgrader{OnUpgrade: func(r *http.Request, a *websocket.Accept) error {
			if cookie, err := r.Cookie("session"); err == nil {
				a.Data, _ = sessions.Load(cookie.Value)
			}
			if a.Data == nil {
				return &websocket.HandshakeError{Status: http.StatusUnauthorized, Reason: "log in first"}
			}
			return nil
		}},
		Handler: websocket.Events{
			OnOpen: func(c *websocket.Conn, r *http.Request) { room.Join(c) },
			OnMessage: func(c *websocket.Conn, t websocket.MessageType, data []byte) {
				room.Broadcast(websocket.NewPreparedMessage(t, fmt.Appendf(nil, "%v: %s", c.Data, data)))
			},
		},
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		id := rand.Text() // a real one asks for a password
		sessions.Store(id, r.FormValue("name"))
		http.SetCookie(w, &http.Cookie{Name: "session", Value: id, HttpOnly: true, SameSite: http.SameSiteStrictMode})
	})
	mux.Handle("GET /chat", socket)
	return mux, socket
}

// A login by HTTP, and the cookie of it on the WebSocket.
func Example_login() {
	mux, socket := members()
	web := httptest.NewServer(mux)
	defer web.Close()
	defer socket.Close()

	for _, name := range []string{"jane", "joe"} {
		resp, err := http.PostForm(web.URL+"/login", url.Values{"name": {name}})
		if err != nil {
			panic(err)
		}
		resp.Body.Close()
		c := websockettest.Dial(nil, web.Listener, "/chat", "Cookie: "+resp.Cookies()[0].String())
		c.SendText("hello")
		c.WantText(name + ": hello")
		c.Close(1000)
	}
	websockettest.WantRefusal(nil, web.Listener, http.StatusUnauthorized, "/chat", "Cookie: session=guessed")
	// Output:
}
