package main

import (
	"encoding/json"
	"fmt"
	"net"
	"time"

	"github.com/rawws/websocket/internal/peers/internal/child"
	"github.com/rawws/websocket/internal/peers/internal/report"
	"github.com/rawws/websocket/internal/peers/internal/ws"
)

const hostRole = "slow-host"

func init() { child.Register(hostRole, runHost) }

// A hostConfig is a way of the library's.
type hostConfig struct {
	Transport string
	Handler   bool
}

type hostAddr struct{ Network, Addr string }

// runHost is a server in a process of its own, whose memory is nobody else's.
func runHost(config json.RawMessage, link *child.Link) error {
	var cfg hostConfig
	if err := json.Unmarshal(config, &cfg); err != nil {
		return err
	}
	b := &bench{subject: &subject{serve: serveLibrary}, way: way{cfg.Transport, cfg.Handler}, open: nothing}
	defer b.stop()
	if err := b.start(); err != nil {
		return err
	}
	if err := link.Answer(hostAddr{b.addr.Network(), b.addr.String()}); err != nil {
		return err
	}
	for {
		if _, err := link.Next(); err != nil {
			return err
		}
		if err := link.Answer(child.Measure()); err != nil {
			return err
		}
	}
}

// halfMessages lets many clients send the same part of a message that says it
// is ten times as large, and wants the server to hold no more than what has
// come, as much again, and the rest of a connection.
func halfMessages(b *bench) error {
	const n, sent, most = 100, 100 << 10, 3 * (100 << 10)
	host, err := child.Start(hostRole, -1, hostConfig{b.way.transport, b.way.handler})
	if err != nil {
		return err
	}
	defer host.Stop()
	var addr hostAddr
	if err := host.Hear(&addr); err != nil {
		return err
	}
	if b.addr, err = net.ResolveTCPAddr("tcp", addr.Addr); addr.Network == "unix" {
		b.addr, err = net.ResolveUnixAddr("unix", addr.Addr)
	}
	if err != nil {
		return err
	}
	before, err := heap(host)
	if err != nil {
		return err
	}
	frame := ws.AppendFrame(nil, ws.Fin|ws.Binary, clientKey, make([]byte, 1<<20))
	for range n {
		c, err := b.dial(0, 0)
		if err != nil {
			return err
		}
		if err := c.send(frame[:sent]); err != nil {
			return err
		}
	}
	held := int64(0)
	for deadline := time.Now().Add(10 * time.Second); held < sent*9/10 && time.Now().Before(deadline); {
		time.Sleep(200 * time.Millisecond) // until it has read what is there
		after, err := heap(host)
		if err != nil {
			return err
		}
		held = (after - before) / n
	}
	if held < sent*9/10 || held > most {
		return fmt.Errorf("%s held for each", report.Bytes(float64(held)))
	}
	return nil
}

func heap(p *child.Process) (int64, error) {
	var m child.Memory
	err := p.Ask("memory", &m)
	return m.Heap, err
}
