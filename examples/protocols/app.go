package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/rawws/websocket/examples/protocols/hixie"
	"github.com/rawws/websocket/examples/protocols/jwebsocket"
	"github.com/rawws/websocket/examples/protocols/signalr"
	"github.com/rawws/websocket/examples/protocols/socketio"
)

// The same small application three times: an echo, something to all or to a
// room, and what each protocol has beside that.

func newSocketIO() *socketio.Server {
	admin := &socketio.Namespace{
		Name: "/admin",
		Auth: func(s *socketio.Socket, auth json.RawMessage) error {
			var who struct{ Token string }
			if json.Unmarshal(auth, &who) != nil || who.Token != "secret" {
				return errors.New("not authorized")
			}
			return nil
		},
		Connect: func(s *socketio.Socket) { s.Emit("welcome", s.ID) },
		Event:   onEvent,
	}
	return &socketio.Server{Namespaces: []*socketio.Namespace{{Name: "/", Event: onEvent}, admin}}
}

func onEvent(s *socketio.Socket, e socketio.Event) {
	room, _ := first(e.Args).(string)
	switch e.Name {
	case "echo": // as an answer, or as an event
		if e.Ack != nil {
			e.Ack(e.Args...)
		} else {
			s.Emit("echo", e.Args...)
		}
	case "say": // to all
		s.Namespace.Emit("", nil, "said", e.Args...)
	case "join":
		answer(e, s.Join(room))
	case "leave":
		s.Leave(room)
		answer(e, nil)
	case "tell": // a room, but not oneself
		if room != "" && len(e.Args) > 1 {
			s.Namespace.Emit(room, s, "told", e.Args[1:]...)
		}
	case "ask": // the client, and say what it has answered
		err := s.Request(5*time.Second, func(args []any, err error) {
			s.Emit("answered", fmt.Sprint(args...), err == nil)
		}, "question", e.Args...)
		if err != nil {
			s.Emit("answered", err.Error(), false)
		}
	case "leave me": // alone
		s.Disconnect(first(e.Args) == true)
	}
}

func first(args []any) any {
	if len(args) == 0 {
		return nil
	}
	return args[0]
}

func answer(e socketio.Event, err error) {
	switch {
	case e.Ack == nil:
	case err != nil:
		e.Ack(err.Error())
	default:
		e.Ack("ok")
	}
}

func newHub() *signalr.Hub {
	hub := &signalr.Hub{}
	var room signalr.Group
	hub.Methods = map[string]signalr.Method{
		"Echo":     func(c *signalr.Call) (any, error) { return first(c.Args), nil },
		"Say":      func(c *signalr.Call) (any, error) { return nil, hub.All.Send("said", c.Args...) },
		"Join":     func(c *signalr.Call) (any, error) { return room.Join(c.Client), nil },
		"Leave":    func(c *signalr.Call) (any, error) { return room.Leave(c.Client), nil },
		"Tell":     func(c *signalr.Call) (any, error) { return nil, room.Send("told", c.Args...) },
		"CallBack": func(c *signalr.Call) (any, error) { return nil, c.Send("calledBack", c.Args...) },
		"Fail":     func(c *signalr.Call) (any, error) { return nil, errors.New("it failed, as it was told to") },
		"Count":    count,
		"Sum":      sum,
	}
	return hub
}

// count streams numbers down, so many and so many milliseconds apart.
func count(c *signalr.Call) (any, error) {
	if c.Yield == nil || len(c.Args) < 2 {
		return nil, errors.New("Count(n, milliseconds) is to be streamed")
	}
	n, pause := number(c.Args[0]), time.Duration(number(c.Args[1]))*time.Millisecond
	ticks := time.NewTicker(max(pause, time.Millisecond))
	defer ticks.Stop()
	for i := range int(n) {
		if err := c.Yield(i); err != nil {
			return nil, err
		}
		select {
		case <-ticks.C:
		case <-c.Context.Done():
			return nil, context.Cause(c.Context)
		}
	}
	return nil, nil
}

// sum takes a stream of numbers.
func sum(c *signalr.Call) (any, error) {
	if len(c.Uploads) == 0 {
		return nil, errors.New("Sum takes a stream")
	}
	total := 0.0
	for item := range c.Uploads[0] {
		total += number(item)
	}
	return total, context.Cause(c.Context)
}

// number is what JSON and MessagePack make of one.
func number(v any) float64 {
	switch v := v.(type) {
	case float64:
		return v
	case int64:
		return float64(v)
	}
	return 0
}

func newTokens() *jwebsocket.Server {
	return &jwebsocket.Server{
		Login: func(username, password string) bool { return password == "guest" || password == "root" },
		Plugins: map[string]func(*jwebsocket.Client, jwebsocket.Token) (jwebsocket.Token, error){
			"org.example.time": func(c *jwebsocket.Client, t jwebsocket.Token) (jwebsocket.Token, error) {
				return jwebsocket.Token{"time": time.Now().UTC().Format(time.RFC3339)}, nil
			},
		},
	}
}

func echoHixie(c *hixie.Conn, r *http.Request) {
	for {
		text, err := c.ReadText()
		if err != nil || c.WriteText(text) != nil {
			return
		}
	}
}
