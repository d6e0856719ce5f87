package main

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/rawws/websocket/internal/peers/internal/ws"
)

// limits are the settings of a row. Zero is each library's default, or what its
// examples set where it has none.
type limits struct {
	ping, pong, write, idle time.Duration
	queue                   int
	policy                  policy
	minRate                 int
}

// A policy is what becomes of a message that finds the queue full.
type policy int

const (
	closeSlow policy = iota
	dropNewest
	dropOldest
)

// A conn is the server's end of a connection, whichever library has it.
type conn interface {
	Write(p []byte) error  // waits for the peer
	Send(p []byte) error   // never waits
	Stream(p []byte) error // one message, handed over in pieces
	Close(code int) error
	Shrink() // the system's send buffer, so that little lies between us and the peer
}

// A room gives a message to all its members and waits for none.
type room interface {
	Join(conn)
	Broadcast(p []byte)
}

// A way is how the library is used: over what, and in which shape.
type way struct {
	transport string // tcp, tls, unix, or http: behind net/http
	handler   bool   // a HandlerFunc instead of Events
}

func (w way) String() string {
	if w.handler {
		return w.transport + " handler"
	}
	return w.transport + " events"
}

var errNotOffered = errors.New("not offered")

// A subject is a library.
type subject struct {
	name  string
	ways  []way
	serve func(b *bench, ln net.Listener) (*server, error)
	room  func() room
}

// A server is one that runs. A nil shutdown means that the library has none.
type server struct {
	stop     func()
	shutdown func(context.Context) error
}

// An end is the server's side of a connection's end.
type end struct {
	at  time.Time
	err error
}

// A bench is one row with one library in one way: a server, what it does, and
// its clients.
type bench struct {
	limits
	subject *subject
	way     way
	quick   bool

	open      func(c conn)           // OnOpen, or the start of a HandlerFunc
	message   func(c conn, p []byte) // OnMessage
	writeOnly func(c conn)           // a HandlerFunc that doesn't read, and returns with it
	ends      chan end

	server *server
	addr   net.Addr
	dir    string // of the unix socket

	mu      sync.Mutex // guards clients
	clients []*client
}

func (b *bench) ended(err error) {
	select {
	case b.ends <- end{time.Now(), err}:
	default: // more than anybody looks at
	}
}

// start runs the server.
func (b *bench) start() error {
	b.ends = make(chan end, 256)
	network, addr := "tcp", "127.0.0.1:0"
	if b.way.transport == "unix" {
		dir, err := os.MkdirTemp("", "slow")
		if err != nil {
			return err
		}
		b.dir = dir
		network, addr = "unix", filepath.Join(dir, "s")
	}
	ln, err := net.Listen(network, addr)
	if err != nil {
		return err
	}
	b.addr = ln.Addr()
	b.server, err = b.subject.serve(b, ln)
	return err
}

// stop ends everything, whatever hangs.
func (b *bench) stop() {
	b.mu.Lock()
	for _, c := range b.clients {
		c.nc.Close()
	}
	b.mu.Unlock()
	if b.server != nil {
		b.server.stop()
	}
	if b.dir != "" {
		os.RemoveAll(b.dir)
	}
}

// dial opens a connection whose client reads rate bytes a second, as fast as it
// can for 0, from a receive buffer of so many bytes. All of that is real: what
// the client hasn't read fills the buffers, and then the server has to wait.
func (b *bench) dial(rate, buffer int) (*client, error) {
	nc, err := ws.DialBuffer(b.addr.Network(), b.addr.String(), 0, buffer)
	if err != nil {
		return nil, err
	}
	var over *tls.Config
	if b.way.transport == "tls" {
		over = &tls.Config{InsecureSkipVerify: true} // a certificate made for this run
	}
	c := newClient(nc, rate, over)
	b.mu.Lock()
	b.clients = append(b.clients, c)
	b.mu.Unlock()
	return c, c.upgrade()
}

// during is how long something takes, in a quick run and in a whole one.
func during[T any](b *bench, quick, whole T) T {
	if b.quick {
		return quick
	}
	return whole
}

// nextEnd waits for a connection to end.
func (b *bench) nextEnd(limit time.Duration) (end, error) {
	select {
	case e := <-b.ends:
		return e, nil
	case <-time.After(limit):
		return end{}, fmt.Errorf("not cut in %s", seconds(limit))
	}
}

// numbered fills a message of n bytes that says its number and proves itself.
func numbered(n int, seq uint64) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = patternByte(seq, i)
	}
	binary.BigEndian.PutUint64(p, seq)
	return p
}

func patternByte(seq uint64, i int) byte { return byte(seq) + byte(i) + byte(i>>8)*7 }

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
