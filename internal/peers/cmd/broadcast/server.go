package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rawws/websocket/internal/peers/internal/child"
	"github.com/rawws/websocket/internal/peers/internal/load"
)

const serverRole = "broadcast"

type serverConfig struct {
	Name       string
	SendBuffer int // of the sockets, 0 leaves it to the kernel
}

// listen opens a listener whose connections inherit the send buffer.
func (c serverConfig) listen() (net.Listener, error) {
	var lc net.ListenConfig
	if c.SendBuffer > 0 {
		lc.Control = func(_, _ string, rc syscall.RawConn) error {
			var failed error
			err := rc.Control(func(fd uintptr) {
				failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, c.SendBuffer)
			})
			return errors.Join(err, failed)
		}
	}
	return lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
}

// An order is what the server's process is asked to do.
type order struct {
	Burst int           // messages to broadcast, one right after the other
	Size  int           // of their payload
	Every time.Duration // the time between two of them, instead
	Await int           // wait until there are so many connections
}

// An account is its answer.
type account struct {
	Addr   string
	Last   uint64 // the number of the last message
	Conns  int
	Peak   int64 // of the heap, while it broadcast with Every
	Cut    int
	CutHow string
}

// body is the part of a payload that doesn't change.
func body(size int) []byte {
	return bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[load.StampLen:size]
}

func runServer(config json.RawMessage, link *child.Link) error {
	var cfg serverConfig
	if err := json.Unmarshal(config, &cfg); err != nil {
		return err
	}
	h, err := findHub(cfg.Name)
	if err != nil {
		return err
	}
	ln, err := cfg.listen()
	if err != nil {
		return err
	}
	go h.serve(ln)
	a := account{Addr: ln.Addr().String()}
	if err := link.Answer(a); err != nil {
		return err
	}
	for {
		request, err := link.Next()
		if err != nil {
			return err
		}
		var o order
		if err := json.Unmarshal(request, &o); err != nil {
			return err
		}
		a.Peak = 0
		for deadline := time.Now().Add(20 * time.Second); h.len() < o.Await && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		a.obey(h, o)
		a.Conns = h.len()
		a.Cut, a.CutHow = h.cut()
		if err := link.Answer(a); err != nil {
			return err
		}
	}
}

// obey broadcasts. Each message is made anew, as an application's would be.
func (a *account) obey(h hub, o order) {
	next := time.Now()
	for range o.Burst {
		p := append(make([]byte, load.StampLen, o.Size), body(o.Size)...)
		a.Last++
		load.StampMessage(p, a.Last)
		h.broadcast(p)
		if o.Every > 0 {
			if a.Last%16 == 0 {
				a.Peak = max(a.Peak, heapInUse())
			}
			next = next.Add(o.Every)
			time.Sleep(time.Until(next))
		}
	}
}

// A server is such a process.
type server struct {
	*child.Process
	addr string
	last uint64
}

func start(cfg serverConfig, cpu int) (*server, error) {
	p, err := child.Start(serverRole, cpu, cfg)
	if err != nil {
		return nil, err
	}
	var a account
	if err := p.Hear(&a); err != nil {
		p.Stop()
		return nil, err
	}
	return &server{Process: p, addr: a.Addr}, nil
}
