//go:build linux && !noloop

package websocket

import (
	"bytes"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

func init() { servings = append(servings, serving{reader: "Events", loop: runOnLoop}) }

// runOnLoop is serving.run on the event loop, over a pair of unix sockets: the
// handshake too. The server has read each piece before the next is sent.
func runOnLoop(tb testing.TB, v *conformanceCase, s *scriptConn) {
	tb.Helper()
	server, client := socketPair(tb)
	defer client.Close()
	over := make(chan struct{})
	e := s.e.events()
	onClose := e.OnClose
	e.OnClose = func(c *Conn, err error) {
		defer close(over)
		onClose(c, err)
	}
	srv := &Server{Handler: e, Upgrader: v.u, ErrorLog: new(logBook).logger()}
	srv.init()
	sock, err := srv.reg.loop.Adopt(server)
	if err != nil {
		tb.Fatal(err)
	}
	srv.acceptedOnLoop(sock)
	client.SetDeadline(time.Now().Add(patience))
	answered := make(chan error, 1)
	go func() {
		defer client.Close() // a server that has closed its half waits for that
		buf := make([]byte, 64<<10)
		for {
			n, err := client.Read(buf)
			if !s.quiet {
				s.out = append(s.out, buf[:n]...)
			}
			if err != nil {
				answered <- err
				return
			}
		}
	}()
	sendPieces(client, s.pieces)
	if err := <-answered; err != io.EOF && !isReset(err) {
		tb.Fatalf("the answers end with %v", err)
	}
	select {
	case <-over:
	case <-time.After(patience):
		tb.Fatal("OnClose wasn't called")
	}
	eventually(tb, "the socket is closed", func() bool { return sock.SetDeadline(time.Time{}) != nil })
	s.closed = true
	srv.Close()
}

// sendPieces sends one piece when the last one was read, and then the end. The
// server may be gone before. A piece takes a switch or two between processes, so
// that those behind the 25th leave together.
func sendPieces(client *net.UnixConn, pieces [][]byte) {
	raw, err := client.SyscallConn()
	if err != nil {
		return
	}
	if most := 25; len(pieces) > most {
		pieces = append(slices.Clone(pieces[:most]), bytes.Join(pieces[most:], nil))
	}
	for _, p := range pieces {
		if _, err := client.Write(p); err != nil {
			return
		}
		for i, unread := 0, int32(1); unread > 0; i++ {
			if runtime.Gosched(); i > 100 {
				time.Sleep(10 * time.Microsecond) // an idle processor looks at the sockets
			}
			if raw.Control(func(fd uintptr) {
				syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCOUTQ, uintptr(unsafe.Pointer(&unread)))
			}) != nil {
				return
			}
		}
	}
	client.CloseWrite()
}

func isReset(err error) bool {
	op, ok := err.(*net.OpError)
	if !ok {
		return false
	}
	sys, ok := op.Err.(*os.SyscallError)
	return ok && sys.Err == syscall.ECONNRESET
}

// socketPair returns two connected unix sockets.
func socketPair(tb testing.TB) (a, b *net.UnixConn) {
	tb.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		tb.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socketpair")
		nc, err := net.FileConn(f)
		f.Close()
		if err != nil {
			tb.Fatal(err)
		}
		ends[i] = nc.(*net.UnixConn)
	}
	return ends[0], ends[1]
}
