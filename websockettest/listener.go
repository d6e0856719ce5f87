package websockettest

import (
	"net"
	"net/netip"
	"sync"
	"syscall"
)

// A Listener accepts the connections in memory that Dial makes, each as one of
// Pipe. The clients have the address 192.0.2.1 (RFC 5737), with ports from 1024
// on, unless DialFrom says another.
type Listener struct {
	mu      sync.Mutex // guards the rest
	changed *sync.Cond
	waiting []*conn // dialed and not accepted yet
	port    uint16  // of the last client
	closed  bool
}

// firstPort is the first that no service of the system's has.
const firstPort = 1024

// NewListener returns a Listener. It has to be closed only to end Accept.
func NewListener() *Listener {
	l := new(Listener)
	l.changed = sync.NewCond(&l.mu)
	return l
}

// Accept waits for the next connection. After Close it returns an error that
// matches net.ErrClosed.
func (l *Listener) Accept() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.closed {
		if len(l.waiting) > 0 {
			c := l.waiting[0]
			l.waiting = l.waiting[1:]
			return c, nil
		}
		l.changed.Wait()
	}
	return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
}

// Close ends Accept, and resets what it hasn't accepted yet.
func (l *Listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return &net.OpError{Op: "close", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
	}
	l.closed = true
	for _, c := range l.waiting {
		c.reset()
	}
	l.waiting = nil
	l.changed.Broadcast()
	return nil
}

// Addr returns 192.0.2.2:80.
func (l *Listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(serverAddr) }

// Dial returns the client's end of a new connection; it doesn't wait for Accept.
// After Close the error matches syscall.ECONNREFUSED.
func (l *Listener) Dial() (net.Conn, error) { return l.dial(netip.AddrPort{}) }

// DialFrom is Dial by a client of the given address, as "203.0.113.9:1234". An
// error of a wrong address is net/netip's.
func (l *Listener) DialFrom(addr string) (net.Conn, error) {
	from, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	return l.dial(from)
}

func (l *Listener) dial(from netip.AddrPort) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: l.Addr(), Err: syscall.ECONNREFUSED}
	}
	if !from.IsValid() {
		l.port = max(l.port+1, firstPort) // it comes around
		from = netip.AddrPortFrom(clientIP, l.port)
	}
	client, server := newPipe(from, serverAddr)
	l.waiting = append(l.waiting, server)
	l.changed.Broadcast()
	return client, nil
}

// A Server is a *websocket.Server, an *http.Server, or what serves like them.
type Server interface {
	Serve(net.Listener) error
	Close() error
}

// Serve serves s on a new Listener until the test ends; then it closes s and
// waits until Serve has returned. With nil for t the caller closes s.
func Serve(t TB, s Server) *Listener {
	ln := NewListener()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Serve(ln) // returns when it is closed, and says so
	}()
	orPanic(t).Cleanup(func() {
		s.Close()
		ln.Close() // also when s never served it
		<-done
	})
	return ln
}
