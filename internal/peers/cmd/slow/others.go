package main

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/http"
	"sync"
	"time"

	coder "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"
)

// The settings that the examples of the others have, where a row sets none.
const (
	othersWrite = 10 * time.Second
	othersPing  = 54 * time.Second
	othersPong  = 6 * time.Second
	othersQueue = 256 // messages, not bytes
)

// otherWays is one: what is under them makes no difference to the others.
var otherWays = []way{{"tcp", true}}

// A pump is the queue of the others' examples: a channel and a goroutine that
// writes what comes out of it.
type pump struct {
	queue  chan []byte
	policy policy
	slow   func() // ends the connection of one who reads too slowly
	dead   func() // ends that of one who answers no ping
	done   chan struct{}
}

func newPump(b *bench) pump {
	return pump{queue: make(chan []byte, othersQueue), policy: b.policy, done: make(chan struct{})}
}

func (p *pump) Send(m []byte) error {
	select {
	case p.queue <- m:
		return nil
	default:
	}
	if p.policy == closeSlow {
		p.slow()
	}
	return io.ErrShortWrite
}

// start writes what is queued, and pings, on a goroutine for each.
func (p *pump) start(every time.Duration, write func([]byte) error, ping func() error) {
	go func() {
		for {
			select {
			case m := <-p.queue:
				if write(m) != nil {
					p.dead()
					return
				}
			case <-p.done:
				return
			}
		}
	}()
	go func() {
		t := time.NewTicker(every)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				if ping() != nil {
					p.dead()
					return
				}
			case <-p.done:
				return
			}
		}
	}()
}

// A memberList is a room as the others' examples make it.
type memberList struct {
	mu  sync.Mutex
	all []conn
}

func newMemberList() room { return &memberList{} }

func (l *memberList) Join(c conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, c)
}

func (l *memberList) Broadcast(p []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.all {
		c.Send(p)
	}
}

// gorillaConn is a connection with the deadlines and the goroutines of the
// library's chat example.
type gorillaConn struct {
	*gorilla.Conn
	pump
	mu    sync.Mutex // one writer at a time
	write time.Duration
}

func (c *gorillaConn) Write(p []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.SetWriteDeadline(time.Now().Add(c.write))
	return c.orClose(c.WriteMessage(gorilla.BinaryMessage, p))
}

// orClose ends the connection after a write that failed, as the examples do.
func (c *gorillaConn) orClose(err error) error {
	if err != nil {
		c.NetConn().Close()
	}
	return err
}

func (c *gorillaConn) Send(p []byte) error { return c.pump.Send(p) }

func (c *gorillaConn) Stream(p []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	w, err := c.NextWriter(gorilla.BinaryMessage)
	if err != nil {
		return err
	}
	for len(p) > 0 {
		n := min(len(p), 10_000)
		c.SetWriteDeadline(time.Now().Add(c.write))
		if _, err := w.Write(p[:n]); err != nil {
			return c.orClose(err)
		}
		p = p[n:]
	}
	return c.orClose(w.Close())
}

// Close waits for the client's close frame as long as the other libraries do.
func (c *gorillaConn) Close(code int) error {
	err := c.WriteControl(gorilla.CloseMessage, gorilla.FormatCloseMessage(code, ""), time.Now().Add(c.write))
	time.AfterFunc(5*time.Second, func() { c.NetConn().Close() })
	return err
}

func (c *gorillaConn) Shrink() { shrink(c.NetConn()) }

func serveGorilla(b *bench, ln net.Listener) (*server, error) {
	if b.policy == dropOldest || b.minRate > 0 || b.idle > 0 {
		return nil, errNotOffered
	}
	var u gorilla.Upgrader
	return serveOther(ln, func(w http.ResponseWriter, r *http.Request) {
		nc, err := u.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		c := &gorillaConn{Conn: nc, pump: newPump(b), write: cmp.Or(b.write, othersWrite)}
		c.slow = func() { nc.NetConn().Close() }
		c.dead = c.slow
		defer nc.Close()
		defer close(c.done)
		ping, silence := cmp.Or(b.ping, othersPing), cmp.Or(b.ping, othersPing)+cmp.Or(b.pong, othersPong)
		nc.SetReadDeadline(time.Now().Add(silence))
		nc.SetPongHandler(func(string) error { return nc.SetReadDeadline(time.Now().Add(silence)) })
		c.start(ping, c.Write, func() error {
			return nc.WriteControl(gorilla.PingMessage, nil, time.Now().Add(c.write))
		})
		b.readOther(c, func() ([]byte, error) {
			_, p, err := nc.ReadMessage()
			return p, err
		})
	}), nil
}

// readOther is the loop of a handler, or the handler that only writes with a
// reader beside it.
func (b *bench) readOther(c conn, read func() ([]byte, error)) {
	loop := func() {
		for {
			p, err := read()
			if err != nil {
				b.ended(err)
				return
			}
			if b.message != nil {
				b.message(c, p)
			}
		}
	}
	if b.writeOnly != nil {
		go loop()
		b.writeOnly(c)
		return
	}
	b.open(c)
	loop()
}

// coderConn is a connection that writes under a context, as the library's
// examples do.
type coderConn struct {
	*coder.Conn
	pump
	nc    net.Conn
	write time.Duration
}

func (c *coderConn) Write(p []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), c.write)
	defer cancel()
	return c.Conn.Write(ctx, coder.MessageBinary, p)
}

func (c *coderConn) Send(p []byte) error { return c.pump.Send(p) }

func (c *coderConn) Stream(p []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), c.write) // one for the whole message
	defer cancel()
	w, err := c.Writer(ctx, coder.MessageBinary)
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

func (c *coderConn) Close(code int) error { return c.Conn.Close(coder.StatusCode(code), "") }

func (c *coderConn) Shrink() { shrink(c.nc) }

type ncKey struct{}

func serveCoder(b *bench, ln net.Listener) (*server, error) {
	if b.policy == dropOldest || b.minRate > 0 || b.idle > 0 {
		return nil, errNotOffered
	}
	return serveOther(ln, func(w http.ResponseWriter, r *http.Request) {
		cc, err := coder.Accept(w, r, nil)
		if err != nil {
			return
		}
		c := &coderConn{Conn: cc, pump: newPump(b), nc: r.Context().Value(ncKey{}).(net.Conn), write: cmp.Or(b.write, othersWrite)}
		c.slow = func() { go cc.Close(coder.StatusPolicyViolation, "reading too slowly") }
		c.dead = func() { cc.CloseNow() }
		defer cc.CloseNow()
		defer close(c.done)
		cc.SetReadLimit(1 << 20)
		c.start(cmp.Or(b.ping, othersPing), c.Write, func() error {
			ctx, cancel := context.WithTimeout(context.Background(), cmp.Or(b.pong, othersPong))
			defer cancel()
			return cc.Ping(ctx)
		})
		b.readOther(c, func() ([]byte, error) {
			_, p, err := cc.Read(context.Background())
			return p, err
		})
	}), nil
}

func serveOther(ln net.Listener, h http.HandlerFunc) *server {
	hs := &http.Server{Handler: h, ConnContext: func(ctx context.Context, nc net.Conn) context.Context {
		return context.WithValue(ctx, ncKey{}, nc)
	}}
	go hs.Serve(ln)
	return &server{stop: func() { hs.Close() }}
}

var certificate = sync.OnceValues(func() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
})
