package main

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"reflect"

	"github.com/rawws/websocket"
)

// libraryWays are all ways in.
var libraryWays = func() (all []way) {
	for _, t := range []string{"tcp", "tls", "unix", "http"} {
		all = append(all, way{t, false}, way{t, true})
	}
	return all
}()

type libraryConn struct{ *websocket.Conn }

func (c libraryConn) Write(p []byte) error { return c.WriteMessage(websocket.BinaryMessage, p) }

func (c libraryConn) Send(p []byte) error {
	return c.Conn.Send(websocket.NewPreparedMessage(websocket.BinaryMessage, p))
}

func (c libraryConn) Stream(p []byte) error {
	w, err := c.NextWriter(websocket.BinaryMessage)
	if err != nil {
		return err
	}
	for len(p) > 0 {
		n := min(len(p), 10_000)
		if _, err := w.Write(p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	return w.Close()
}

func (c libraryConn) Close(code int) error { return c.Conn.Close(websocket.CloseCode(code), "") }

func (c libraryConn) Shrink() { shrink(c.NetConn()) }

// shrink makes the system's send buffer as small as it lets us.
func shrink(nc net.Conn) {
	if tc, ok := nc.(*tls.Conn); ok {
		nc = tc.NetConn()
	}
	if s, ok := nc.(interface{ SetWriteBuffer(int) error }); ok {
		s.SetWriteBuffer(4 << 10)
	}
}

type libraryRoom struct{ websocket.Group }

func (r *libraryRoom) Join(c conn) { r.Group.Join(c.(libraryConn).Conn) }

func (r *libraryRoom) Broadcast(p []byte) {
	r.Group.Broadcast(websocket.NewPreparedMessage(websocket.BinaryMessage, p))
}

func (b *bench) upgrader() (websocket.Upgrader, error) {
	u := websocket.Upgrader{
		PingInterval: b.ping, PongTimeout: b.pong, WriteTimeout: b.write, IdleTimeout: b.idle,
		SendQueue: b.queue, SlowPolicy: websocket.SlowPolicy(b.policy),
	}
	if b.minRate > 0 {
		// A field that the library is about to get.
		f := reflect.ValueOf(&u).Elem().FieldByName("MinRate")
		if !f.IsValid() {
			return u, errNotOffered
		}
		f.SetInt(int64(b.minRate))
	}
	return u, nil
}

func (b *bench) events() websocket.Handler {
	return websocket.Events{
		OnOpen: func(c *websocket.Conn, _ *http.Request) { b.open(libraryConn{c}) },
		OnMessage: func(c *websocket.Conn, _ websocket.MessageType, p []byte) {
			if b.message != nil {
				b.message(libraryConn{c}, p)
			}
		},
		OnClose: func(_ *websocket.Conn, err error) { b.ended(err) },
	}
}

func (b *bench) handlerFunc() websocket.Handler {
	return websocket.HandlerFunc(func(c *websocket.Conn, _ *http.Request) {
		lc := libraryConn{c}
		if b.writeOnly != nil {
			context.AfterFunc(c.Context(), func() { b.ended(context.Cause(c.Context())) })
			b.writeOnly(lc)
			return
		}
		b.open(lc)
		for {
			_, p, err := c.ReadMessage()
			if err != nil {
				b.ended(err)
				return
			}
			if b.message != nil {
				b.message(lc, p)
			}
		}
	})
}

func serveLibrary(b *bench, ln net.Listener) (*server, error) {
	u, err := b.upgrader()
	if err != nil {
		return nil, err
	}
	s := &websocket.Server{Upgrader: u, Handler: b.events(), ErrorLog: slog.New(slog.NewTextHandler(io.Discard, nil))}
	if b.way.handler {
		s.Handler = b.handlerFunc()
	}
	switch b.way.transport {
	case "tls":
		cert, err := certificate()
		if err != nil {
			return nil, err
		}
		s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}}
		go s.ServeTLS(ln, "", "")
	case "http":
		hs := &http.Server{Handler: s}
		go hs.Serve(ln)
		return &server{func() { s.Close(); hs.Close() }, s.Shutdown}, nil
	default:
		go s.Serve(ln)
	}
	return &server{func() { s.Close() }, s.Shutdown}, nil
}

// sentCode is the code that the library ended the connection with, whether or
// not a close frame could still be sent, if err tells.
func sentCode(err error) (code int, known bool) {
	e, ok := errors.AsType[*websocket.EndError](err)
	if !ok {
		return 0, false
	}
	if broken, ok := errors.AsType[*websocket.ProtocolError](err); ok {
		return int(broken.Code), true
	}
	return int(e.Sent), true
}
