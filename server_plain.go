package websocket

import (
	"context"
	"crypto/tls"
	"log"
	"net"
	"net/http"
	"strings"
	"time"
)

// A chanListener gives net/http the sockets whose request was for it.
type chanListener struct {
	conns chan net.Conn
	done  <-chan struct{}
	close func()
}

func (l chanListener) Accept() (net.Conn, error) {
	select {
	case nc := <-l.conns:
		return nc, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l chanListener) Close() error {
	l.close()
	return nil
}

func (l chanListener) Addr() net.Addr { return plainAddr{} }

type plainAddr struct{}

func (plainAddr) Network() string { return "tcp" }
func (plainAddr) String() string  { return "behind a websocket.Server" }

type tlsKey struct{}

// servePlain hands a socket to net/http with what was read from it. A request
// for a WebSocket that follows on the same socket comes back by ServeHTTP.
func (s *Server) servePlain(rc *replayConn) {
	s.mu.Lock()
	if s.stopping.Load() {
		s.mu.Unlock()
		rc.Close()
		return
	}
	if s.plain == nil {
		ctx, cancel := context.WithCancel(context.Background())
		s.plainConns = chanListener{make(chan net.Conn), ctx.Done(), cancel}
		s.plain = &http.Server{
			Handler:           http.HandlerFunc(s.routePlain),
			ReadHeaderTimeout: s.Upgrader.handshakeTimeout(),
			IdleTimeout:       2 * time.Minute,
			ErrorLog:          log.New(plainLog{s}, "", 0),
			ConnContext:       withTLS,
		}
		go s.plain.Serve(s.plainConns)
	}
	ln := s.plainConns
	s.mu.Unlock()
	rc.SetDeadline(time.Time{})
	select {
	case ln.conns <- rc:
	case <-ln.done: // net/http has stopped accepting
		rc.Close()
	}
}

// withTLS keeps what net/http can't see through a replayConn.
func withTLS(ctx context.Context, nc net.Conn) context.Context {
	if rc, ok := nc.(*replayConn); ok {
		if tc, ok := rc.Conn.(*tls.Conn); ok {
			return context.WithValue(ctx, tlsKey{}, tc)
		}
	}
	return ctx
}

func (s *Server) routePlain(w http.ResponseWriter, r *http.Request) {
	if tc, ok := r.Context().Value(tlsKey{}).(*tls.Conn); ok {
		state := tc.ConnectionState()
		r.TLS = &state
	}
	if wantsUpgrade(r) {
		s.ServeHTTP(w, r)
		return
	}
	s.HTTP.ServeHTTP(w, r)
}

// plainLog brings net/http's lines into ErrorLog.
type plainLog struct{ s *Server }

func (l plainLog) Write(p []byte) (int, error) {
	l.s.reg.log.write(logPlain, "websocket: net/http", "message", cut(strings.TrimSpace(string(p)), 8<<10))
	return len(p), nil
}

// requestHead returns a copy of the request that was read from in.
func requestHead(in *buffer) []byte { return append([]byte(nil), in.b[:in.r]...) }
