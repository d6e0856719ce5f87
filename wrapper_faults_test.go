package websocket

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// A panickingConn panics in the method that its switch names, from then on, or
// blocks there.
type panickingConn struct {
	net.Conn
	in      *atomic.Pointer[string]
	release <-chan struct{} // until then it blocks; nil for one that panics
}

func (c panickingConn) check(method string) {
	if in := c.in.Load(); in == nil || *in != method {
		return
	}
	if c.release == nil {
		panic("boom in " + method)
	}
	<-c.release
}

func (c panickingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.check("Read")
	return n, err
}

func (c panickingConn) Write(p []byte) (int, error) {
	c.check("Write")
	return c.Conn.Write(p)
}

func (c panickingConn) Close() error {
	err := c.Conn.Close()
	c.check("Close")
	return err
}

func (c panickingConn) SetReadDeadline(t time.Time) error {
	c.check("SetReadDeadline")
	return c.Conn.SetReadDeadline(t)
}

func (c panickingConn) SetWriteDeadline(t time.Time) error {
	c.check("SetWriteDeadline")
	return c.Conn.SetWriteDeadline(t)
}

// A panickingListener accepts them, each with the same switch.
type panickingListener struct {
	net.Listener
	in atomic.Pointer[string]
}

func (l *panickingListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	return panickingConn{nc, &l.in, nil}, err
}

// A net.Conn of the application's that panics costs its connection, whoever calls
// it: the handler, the sweeper with its ping, or the queue.
func TestConnPanics(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		method string
		do     func(c *Conn)
	}{
		"Read":             {"Read", func(*Conn) {}},
		"Write":            {"Write", func(c *Conn) { c.WriteMessage(TextMessage, nil) }},
		"Write, large":     {"Write", func(c *Conn) { c.WriteMessage(TextMessage, make([]byte, 1<<20)) }},
		"Write of a ping":  {"Write", func(*Conn) {}},
		"Write of a queue": {"Write", func(c *Conn) { c.Send(text("to all")) }},
		"Write at the end": {"Write", func(c *Conn) { c.Close(CloseNormal, "") }},
		"Close":            {"Close", func(c *Conn) { c.CloseNow() }},
		"SetReadDeadline":  {"SetReadDeadline", func(c *Conn) { c.Close(CloseNormal, "") }},
		"SetWriteDeadline": {"SetWriteDeadline", func(c *Conn) {
			c.SetWriteDeadline(time.Now().Add(time.Minute))
			c.WriteMessage(TextMessage, nil)
		}},
	} {
		for kind, h := range eitherHandler(func(c *Conn, _ *http.Request, text []byte) {
			if text != nil {
				c.Data.(func(*Conn))(c)
			}
		}) {
			t.Run(name+"/"+kind, func(t *testing.T) {
				t.Parallel()
				closeTimeout := 200 * time.Millisecond
				if name == "Write at the end" { // which comes in time on a busy machine, too
					closeTimeout = time.Second
				}
				ln := &panickingListener{Listener: listen(t)}
				s := &Server{Handler: h, ErrorLog: new(logBook).logger(), Upgrader: Upgrader{
					PingInterval: 50 * time.Millisecond, PongTimeout: time.Second, CloseTimeout: closeTimeout,
					OnUpgrade: func(_ *http.Request, a *Accept) error {
						a.Data = func(c *Conn) {
							ln.in.Store(&test.method)
							test.do(c)
						}
						return nil
					},
				}}
				serve(t, s, ln)
				p := newPeer(t, dialAddr(t, ln.Addr().String()))
				p.send([]byte(peerRequest), textFrame("now")) // at once, since it answers no ping
				p.wantBytes(peerAnswer)
				eventually(t, "it has begun", func() bool { return ln.in.Load() != nil })
				p.nc.Write(textFrame("to be read"))
				p.leave()
				eventually(t, "nothing is left", s.isAtRest)
				if s.Stats().Panics == 0 {
					t.Error("no panic was counted")
				}
				ln.in.Store(nil)
				p = newPeer(t, dialAddr(t, ln.Addr().String()))
				p.send([]byte(peerRequest), closeFrame(CloseNormal, ""))
				p.wantBytes(peerAnswer)
				for op := opPing; op == opPing; { // which a slow peer gets first
					h, _, err := p.frame()
					if op = h.opcode; err != nil || op != opPing && op != opClose {
						t.Fatalf("the next peer gets %v, %v; want its close frame", op, err)
					}
				}
				p.wantEnd()
			})
		}
	}
}

// One that panics as the sweeper takes its deadline off is closed as any other.
func TestConnPanicsAsItIsIdle(t *testing.T) {
	t.Parallel()
	method := "SetReadDeadline"
	ln := &panickingListener{Listener: listen(t)}
	s := &Server{Handler: Events{}, ErrorLog: new(logBook).logger(), Upgrader: Upgrader{IdleTimeout: 100 * time.Millisecond, CloseTimeout: 2 * time.Second}}
	serve(t, s, ln)
	p := newPeer(t, dialAddr(t, ln.Addr().String()))
	p.handshake()
	ln.in.Store(&method)
	p.wantClose(CloseNormal, "idle")
	p.wantEnd()
	eventually(t, "nothing is left", s.isAtRest)
}

// The same while a handshake is given up, by a timer.
func TestConnPanicsInARefusal(t *testing.T) {
	for _, method := range []string{"Read", "Write", "Close"} {
		synctest.Test(t, func(t *testing.T) {
			pipes := newPipeListener()
			ln := &panickingListener{Listener: pipes}
			release := make(chan struct{})
			s := &Server{Handler: Events{}, ErrorLog: new(logBook).logger(), Upgrader: Upgrader{
				OnUpgrade: func(*http.Request, *Accept) error {
					ln.in.Store(&method)
					<-release
					return nil
				}}}
			serve(t, s, ln)
			p := pipes.dial(t)
			p.send([]byte(peerRequest))
			go p.nc.Write([]byte("what is thrown away"))
			p.leave()
			time.Sleep(time.Minute)
			if s.Stats().Panics == 0 {
				t.Errorf("no panic in %s was counted", method)
			}
			close(release)
			synctest.Wait()
			if !s.isAtRest() {
				t.Errorf("%s: something is left", method)
			}
		})
	}
}

// A net.Conn may have no deadlines, as a channel of SSH.
type timelessConn struct{ net.Conn }

func (timelessConn) SetDeadline(time.Time) error      { return errors.ErrUnsupported }
func (timelessConn) SetReadDeadline(time.Time) error  { return errors.ErrUnsupported }
func (timelessConn) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }

// One without deadlines is held to HandshakeTimeout all the same, and Shutdown
// doesn't wait for longer than else.
func TestConnWithoutDeadlines(t *testing.T) {
	for name, test := range map[string]struct {
		request string // "" for none
		reads   bool
		takes   time.Duration
	}{
		"silent":                   {"", false, time.Minute},
		"half a request":           {peerRequest[:40], false, time.Minute},
		"takes no 101":             {peerRequest, false, time.Minute},
		"takes no refusal":         {"GET / HTTP/1.1\r\n\r\n", false, time.Minute},
		"stays behind a refusal":   {"GET / HTTP/1.1\r\n\r\n", true, 0},
		"silent, Shutdown":         {"", false, time.Second},
		"takes no 101, Shutdown":   {peerRequest, false, time.Minute},
		"half of one, Shutdown":    {peerRequest[:40], false, time.Second},
		"refused, stays, Shutdown": {"GET / HTTP/1.1\r\n\r\n", true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ln := newPipeListener()
				s := &Server{Handler: echoEvents(), ErrorLog: new(logBook).logger(), Upgrader: Upgrader{HandshakeTimeout: time.Minute}}
				serve(t, s, ln)
				server, client := pipePair(t)
				ln.conns <- timelessConn{server}
				start := time.Now()
				go client.Write([]byte(test.request))
				if test.reads {
					go io.Copy(io.Discard, client)
				}
				synctest.Wait()
				if strings.Contains(name, "Shutdown") {
					go s.Shutdown(t.Context())
				}
				for !s.isAtRest() && time.Since(start) < time.Hour {
					time.Sleep(10 * time.Millisecond) // of the bubble's
				}
				if took := time.Since(start); took > test.takes+100*time.Millisecond {
					t.Errorf("over after %v, want %v", took, test.takes)
				}
				client.Close()
				synctest.Wait()
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		server, client := pipePair(t)
		start := time.Now()
		if _, _, err := Upgrade(timelessConn{server}); err == nil || time.Since(start) != 10*time.Second {
			t.Errorf("Upgrade of a silent one = %v after %v, want an error after 10 s", err, time.Since(start))
		}
		client.Close()
	})
}

// Nor does HandshakeTimeout end what HTTP serves on one.
func TestPageOnAConnWithoutDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipeListener()
		s := &Server{Handler: Events{}, Upgrader: Upgrader{HandshakeTimeout: time.Second},
			HTTP: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				time.Sleep(time.Minute) // of the bubble's
				io.WriteString(w, "at last")
			})}
		serve(t, s, ln)
		server, client := pipePair(t)
		p := newPeer(t, client)
		client.SetDeadline(time.Time{})
		ln.conns <- timelessConn{server}
		if status, _, body := p.status("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); status != 200 || body != "at last" {
			t.Errorf("a page that takes a minute: %d %q, want 200 and all of it", status, body)
		}
	})
}

// A lazyListener accepts connections whose Close waits.
type lazyListener struct {
	net.Listener
	release <-chan struct{}
}

type lazyConn struct {
	net.Conn
	release <-chan struct{}
}

func (l lazyListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	return lazyConn{nc, l.release}, err
}

func (c lazyConn) Close() error {
	err := c.Conn.Close()
	<-c.release
	return err
}

// A net.Conn whose Close takes long delays nobody else's pings and timeouts.
func TestConnThatClosesSlowly(t *testing.T) {
	for name, u := range map[string]Upgrader{
		"PongTimeout":  {PingInterval: 50 * time.Millisecond, PongTimeout: 100 * time.Millisecond},
		"CloseTimeout": {PingInterval: 50 * time.Millisecond, PongTimeout: time.Minute, CloseTimeout: 50 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { closeSlowly(t, name, u) })
		})
	}
}

func closeSlowly(t *testing.T, name string, u Upgrader) {
	release := make(chan struct{})
	closed := make(chan error, 3)
	s := &Server{Upgrader: u, Handler: Events{
		OnMessage: func(c *Conn, _ MessageType, _ []byte) { c.Close(CloseNormal, "") },
		OnClose:   func(_ *Conn, err error) { closed <- err },
	}}
	pipes := newPipeListener()
	serve(t, s, lazyListener{pipes, release})
	lives := pipes.open(t)
	for range 2 {
		p := pipes.open(t)
		if name == "CloseTimeout" {
			p.sendText("close")
		}
		p.leave()
	}
	for done := 0; done < 2; {
		select {
		case <-closed:
			done++
		default:
			h, payload, err := lives.frame()
			if err != nil || h.opcode != opPing {
				t.Fatalf("another gets %v, %v; want its pings", h.opcode, err)
			}
			lives.send(clientFrame(opPong, true, payload))
		}
	}
	close(release)
	lives.nc.Close()
}

// Behind the end nothing is written, in OnClose too, though who made the end is still
// at work on it, and answers were held back until then.
func TestWriteBehindTheEnd(t *testing.T) {
	release, written := make(chan struct{}), make(chan error, 3)
	s := &Server{Handler: Events{
		OnMessage: func(c *Conn, _ MessageType, _ []byte) {
			go c.CloseNow() // which waits in the Close below
			<-c.Context().Done()
		},
		OnClose: func(c *Conn, _ error) {
			written <- c.WriteMessage(TextMessage, nil)
			written <- c.WritePrepared(NewPreparedMessage(TextMessage, nil))
			written <- c.Ping(nil)
		},
	}}
	ln := lazyListener{listen(t), release}
	serve(t, s, ln)
	p := newPeer(t, dialAddr(t, ln.Addr().String()))
	p.handshake()
	p.send(textFrame("one"), textFrame("of a batch"))
	for _, name := range []string{"WriteMessage", "WritePrepared", "Ping"} {
		if err := <-written; !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s in OnClose = %v, want %v", name, err, net.ErrClosed)
		}
	}
	close(release)
}

// A lateConn has something done in the moment in which a read deadline passes.
type lateConn struct {
	net.Conn
	passed *atomic.Pointer[func()]
}

func (c lateConn) Read(p []byte) (int, error) {
	if f := c.passed.Swap(nil); f != nil {
		(*f)()
		return 0, os.ErrDeadlineExceeded
	}
	return c.Conn.Read(p)
}

// A read deadline that passes while Close begins is none of the closing handshake's.
func TestReadDeadlinePassesAtClose(t *testing.T) {
	for name, read := range map[string]func(c *Conn) error{
		"events": func(c *Conn) (end error) {
			Events{OnClose: func(_ *Conn, err error) { end = err }}.ServeWebSocket(c, nil)
			return end
		},
		"function": func(c *Conn) error {
			if _, _, err := c.ReadMessage(); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the read whose deadline has passed: %v", err)
			}
			_, _, err := c.ReadMessage()
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			passed := new(atomic.Pointer[func()])
			c, p := connect(t, new(Upgrader), func(t testing.TB) (server, client net.Conn) {
				server, client = pipePair(t)
				return lateConn{server, passed}, client
			})
			begins := func() {
				go c.Close(4000, "enough")
				eventually(t, "Close begins", func() bool { return c.connState() != stateOpen })
			}
			passed.Store(&begins)
			end := make(chan error, 1)
			go func() { end <- read(c) }()
			p.wantClose(4000, "enough")
			p.send(closeFrame(4000, ""))
			wantEndError(t, <-end, EndError{By: SideServer, Sent: 4000, SentReason: "enough", Received: 4000, Clean: true}, net.ErrClosed)
		})
	}
}

// A deafConn says at each read that a deadline has passed, from some time on, as a
// stream of QUIC does whose connection was idle for too long.
type deafConn struct {
	net.Conn
	deaf  *atomic.Bool
	reads *atomic.Int64
}

func (c deafConn) Read(p []byte) (int, error) {
	if c.deaf.Load() {
		c.reads.Add(1)
		return 0, os.ErrDeadlineExceeded
	}
	return c.Conn.Read(p)
}

func connectDeaf(t *testing.T) (*Conn, *peer, deafConn) {
	nc := deafConn{deaf: new(atomic.Bool), reads: new(atomic.Int64)}
	c, p := connect(t, new(Upgrader), func(t testing.TB) (server, client net.Conn) {
		server, client = tcpPair(t)
		nc.Conn = server
		return nc, client
	})
	nc.deaf.Store(true)
	return c, p, nc
}

// Nobody reads on and on from such a net.Conn: the end that has begun is over.
func TestDeadlineAtEachRead(t *testing.T) {
	c, p, nc := connectDeaf(t)
	began, end := make(chan struct{}), make(chan error, 1)
	go Events{
		OnOpen: func(c *Conn, _ *http.Request) {
			c.beginClose(&EndError{By: SideServer, Err: net.ErrClosed, code: 4000})
			close(began)
		},
		OnClose: func(_ *Conn, err error) { end <- err },
	}.ServeWebSocket(c, nil)
	<-began
	wantEndError(t, <-end, EndError{By: SideServer, Sent: 4000}, net.ErrClosed)
	p.wantClose(4000, "")
	if n := nc.reads.Load(); n > 10 {
		t.Errorf("%d reads that each said that a deadline had passed, want a few", n)
	}
}

// A frankConn shows what lies under it, and has more that a socket has.
type frankConn struct {
	panickingConn
	nothing bool
}

func (c frankConn) NetConn() net.Conn {
	if c.check("NetConn"); c.nothing {
		return nil
	}
	return c.Conn
}

// A toughConn has the methods itself.
type toughConn struct{ panickingConn }

func (c toughConn) CloseWrite() error {
	c.check("CloseWrite")
	return c.Conn.(closeWriter).CloseWrite()
}

func (c toughConn) SetLinger(int) error {
	c.check("SetLinger")
	return nil
}

func (c toughConn) SyscallConn() (syscall.RawConn, error) {
	c.check("SyscallConn")
	return c.Conn.(syscall.Conn).SyscallConn()
}

// What a net.Conn may have beside the methods of all may panic as well, on the sweeper's
// goroutine and on one of Close's, where nobody else would catch it.
func TestConnPanicsInMoreMethods(t *testing.T) {
	for _, method := range []string{"NetConn", "nothing under it", "CloseWrite", "SetLinger", "SyscallConn"} {
		t.Run(method, func(t *testing.T) {
			in := new(atomic.Pointer[string])
			u := &Upgrader{PingInterval: 20 * time.Millisecond, PongTimeout: 100 * time.Millisecond, CloseTimeout: 100 * time.Millisecond}
			if method == "CloseWrite" { // whose peer mustn't be cut before
				u = new(Upgrader)
			}
			c, p := connect(t, u, func(t testing.TB) (server, client net.Conn) {
				server, client = tcpPair(t)
				nc := panickingConn{server, in, nil}
				if method == "NetConn" || method == "nothing under it" {
					return frankConn{nc, method != "NetConn"}, client
				}
				return toughConn{nc}, client
			})
			in.Store(&method)
			ended := c.CloseRead().Done() // the peer doesn't answer the first ping
			if method == "CloseWrite" {
				p.send(closeFrame(CloseNormal, ""))
			}
			<-ended
			if n := c.reg.total.panics.Load(); n == 0 && method != "nothing under it" {
				t.Errorf("no panic in %s was counted", method)
			}
		})
	}
}

// CloseRead takes a deadline off, and reads on, as often as one is set; but not from a
// net.Conn that says so all the same.
func TestCloseReadOfADeafConn(t *testing.T) {
	c, p, nc := connectDeaf(t)
	select {
	case <-c.CloseRead().Done():
	case <-time.After(patience / 4):
		t.Fatalf("nothing ends behind %d reads that each said that a deadline had passed", nc.reads.Load())
	}
	wantEndError(t, c.endError(), EndError{By: SidePeer}, os.ErrDeadlineExceeded)
	p.wantEnd()
}

// A closeCounter has no deadlines, and counts how often it is closed.
type closeCounter struct {
	timelessConn
	closes *atomic.Int32
}

func (c closeCounter) Close() error {
	c.closes.Add(1)
	return c.timelessConn.Close()
}

// One that was refused is closed once, and not again when HandshakeTimeout is over.
func TestRefusedConnWithoutDeadlinesIsClosedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var closes atomic.Int32
		server, client := pipePair(t)
		go io.WriteString(client, "GET / HTTP/1.1\r\n\r\n")
		go io.Copy(io.Discard, client)
		if _, _, err := Upgrade(closeCounter{timelessConn{server}, &closes}); err == nil {
			t.Error("Upgrade of a wrong request = nil, want an error")
		}
		time.Sleep(time.Minute) // of the bubble's
		if got := closes.Load(); got != 1 {
			t.Errorf("closed %d times, want once", got)
		}
		client.Close()
	})
}
