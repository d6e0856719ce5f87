//go:build !linux || noloop

package netloop

import (
	"errors"
	"net"
	"net/netip"
)

// Supported reports whether sockets can be served here.
const Supported = false

// ErrWait is never returned here.
var ErrWait = errors.New("netloop: nothing to do yet")

var errUnsupported = errors.New("netloop: there is no event loop for this system")

// A Handler is told what happens to a Socket.
type Handler interface {
	Ready(s *Socket, w *Worker) (more bool)
}

// A Writer goes on with a write.
type Writer interface{ Writable() }

// A Worker is never made here.
type Worker struct {
	Buf   []byte
	Local any
}

// A Loop serves nothing here.
type Loop struct{}

// Listen returns nil.
func (l *Loop) Listen(net.Listener) *Listener { return nil }

// Adopt returns an error.
func (l *Loop) Adopt(net.Conn) (*Socket, error) { return nil, errUnsupported }

// Trim does nothing.
func (l *Loop) Trim() {}

// A Listener is never made here.
type Listener struct{}

// Open, and all that follows, is never called.
func (a *Listener) Open() bool               { panic(errUnsupported) }
func (a *Listener) Serve(func() bool) error  { panic(errUnsupported) }
func (a *Listener) Stop()                    { panic(errUnsupported) }
func (a *Listener) Accept() (*Socket, error) { panic(errUnsupported) }

// A Socket is never made here.
type Socket struct{ net.Conn }

// Serve, and all that follows, is never called.
func (s *Socket) Serve(Handler) error                              { panic(errUnsupported) }
func (s *Socket) Start()                                           { panic(errUnsupported) }
func (s *Socket) Become(Handler)                                   { panic(errUnsupported) }
func (s *Socket) Done()                                            { panic(errUnsupported) }
func (s *Socket) Detach() (net.Conn, error)                        { panic(errUnsupported) }
func (s *Socket) Notify()                                          { panic(errUnsupported) }
func (s *Socket) TryRead([]byte) (int, error)                      { panic(errUnsupported) }
func (s *Socket) TryWrite(p, q []byte) (int, error)                { panic(errUnsupported) }
func (s *Socket) WriteAll(p, q []byte, told Progress) (int, error) { panic(errUnsupported) }
func (s *Socket) WantWrite(Writer)                                 { panic(errUnsupported) }
func (s *Socket) CloseWrite() error                                { panic(errUnsupported) }
func (s *Socket) OnHangup(func())                                  { panic(errUnsupported) }
func (s *Socket) SetKeepAliveConfig(net.KeepAliveConfig) error     { panic(errUnsupported) }
func (s *Socket) Unsent() (int, error)                             { panic(errUnsupported) }
func (s *Socket) RemoteAddrPort() netip.AddrPort                   { panic(errUnsupported) }
func (s *Socket) LimitUnsent() error                               { panic(errUnsupported) }
func (s *Socket) Lingers() bool                                    { panic(errUnsupported) }
func (s *Socket) SetLinger(int) error                              { panic(errUnsupported) }
func (s *Socket) Arrived() int                                     { panic(errUnsupported) }
