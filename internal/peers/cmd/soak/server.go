package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rawws/websocket"
	"github.com/rawws/websocket/internal/peers/internal/child"
	"github.com/rawws/websocket/internal/peers/internal/ledger"
)

// servers are the shapes in which the library serves.
var servers = []struct {
	name          string
	blocking, tls bool
}{
	{name: "events"},
	{name: "blocking", blocking: true},
	{name: "events over TLS", tls: true},
}

const (
	maxMessage = 1 << 20 // what a server takes

	pingInterval     = 2 * time.Second
	pongTimeout      = 15 * time.Second
	writeTimeout     = 8 * time.Second
	closeTimeout     = 10 * time.Second
	handshakeTimeout = 15 * time.Second
	shutdownTimeout  = 30 * time.Second
)

const serverRole = "soak-server"

type serverConfig struct{ Seed uint64 }

// A serverAnswer is a line from the server's process: one of its fields.
type serverAnswer struct {
	Addrs  []string `json:",omitempty"`
	Record *record  `json:",omitempty"` // a connection has ended
	Fault  string   `json:",omitempty"`
	Final  *final   `json:",omitempty"`
}

// A final is what a server's process says of itself when all has ended.
type final struct {
	Before, After   usage
	Goroutines      int // the most there were
	Shutdown        time.Duration
	Stats           []websocket.Stats
	StillGoroutines string // their stacks, if there are more than before
}

type usage struct {
	Goroutines, Descriptors int
	Heap                    int64
}

// A host is the server's process.
type host struct {
	seed  uint64
	maker *ledger.Maker
	mu    sync.Mutex // guards link
	link  *child.Link
	peak  atomic.Int64
}

func (h *host) answer(a serverAnswer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.link.Answer(a) != nil {
		os.Exit(0) // the parent is gone
	}
}

func (h *host) fault(id uint32, format string, args ...any) {
	h.answer(serverAnswer{Fault: fmt.Sprintf("connection %d, at the server: ", id) + fmt.Sprintf(format, args...)})
}

// look measures the process after it has settled.
func look() (usage, error) {
	for range 3 { // sync.Pool gives its things up at the second collection
		runtime.GC()
	}
	debug.FreeOSMemory()
	fds, err := os.ReadDir("/proc/self/fd")
	m := child.Measure()
	return usage{m.Goroutines, len(fds), m.Heap}, err
}

func runServer(config json.RawMessage, link *child.Link) error {
	var cfg serverConfig
	if err := json.Unmarshal(config, &cfg); err != nil {
		return err
	}
	h := &host{seed: cfg.Seed, maker: ledger.NewMaker(cfg.Seed), link: link}
	cert, err := certificate()
	if err != nil {
		return err
	}
	if err := warmRuntime(); err != nil {
		return err
	}
	before, err := look()
	if err != nil {
		return err
	}
	var (
		all    []*websocket.Server
		addrs  []string
		served sync.WaitGroup
	)
	for _, kind := range servers {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		s := h.newServer(kind.blocking)
		serve := func() error { return s.Serve(ln) }
		if kind.tls {
			s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}}
			serve = func() error { return s.ServeTLS(ln, "", "") }
		}
		all, addrs = append(all, s), append(addrs, ln.Addr().String())
		served.Go(func() {
			if err := serve(); !errors.Is(err, websocket.ErrServerClosed) {
				h.answer(serverAnswer{Fault: fmt.Sprintf("Serve returned %v", err)})
			}
		})
	}
	h.answer(serverAnswer{Addrs: addrs})
	stopped := make(chan struct{})
	go h.watch(stopped)
	if _, err := link.Next(); err != nil {
		return err
	}
	close(stopped)
	f := final{Before: before, Goroutines: int(h.peak.Load())}
	h.shutdown(&f, all)
	served.Wait()
	f.settle()
	h.answer(serverAnswer{Final: &f})
	_, err = link.Next()
	return err
}

// newServer makes a server whose times are short enough to pass in a test.
func (h *host) newServer(blocking bool) *websocket.Server {
	s := &websocket.Server{
		Handler:  h.events(),
		ErrorLog: slog.New(slog.NewTextHandler(io.Discard, nil)), // panics and refusals are part of the plan
		Upgrader: websocket.Upgrader{
			MaxMessageSize: maxMessage, Compression: &websocket.Compression{},
			PingInterval: pingInterval, PongTimeout: pongTimeout, WriteTimeout: writeTimeout,
			CloseTimeout: closeTimeout, HandshakeTimeout: handshakeTimeout,
			SendQueue: 1 << 20,
		},
	}
	if blocking {
		s.Handler = websocket.HandlerFunc(h.serve)
	}
	return s
}

// watch notes the most goroutines there are.
func (h *host) watch(stopped <-chan struct{}) {
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-stopped:
			return
		case <-t.C:
			h.peak.Store(max(h.peak.Load(), int64(runtime.NumGoroutine())))
		}
	}
}

func (h *host) shutdown(f *final, all []*websocket.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	began := time.Now()
	var down sync.WaitGroup
	for i, s := range all {
		down.Go(func() {
			if err := s.Shutdown(ctx); err != nil {
				h.answer(serverAnswer{Fault: fmt.Sprintf("Shutdown of %q returned %v", servers[i].name, err)})
			}
		})
	}
	down.Wait()
	f.Shutdown = time.Since(began)
	for _, s := range all {
		f.Stats = append(f.Stats, s.Stats())
	}
}

// settle gives what is about to end the time to do so.
func (f *final) settle() {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		var err error
		if f.After, err = look(); err != nil {
			return
		}
		if f.After.Goroutines <= f.Before.Goroutines && f.After.Descriptors <= f.Before.Descriptors {
			return
		}
		if time.Now().After(deadline) {
			stacks := make([]byte, 64<<10)
			f.StillGoroutines = string(stacks[:runtime.Stack(stacks, true)])
			return
		}
	}
}

// warmRuntime makes what the runtime and the packages make once.
func warmRuntime() error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	return ln.Close()
}

func certificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
