package main

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/rawws/websocket/internal/peers/internal/child"
	"github.com/rawws/websocket/internal/peers/internal/load"
)

const clientRole = "client"

type clientConfig struct {
	Addr    string
	Conns   int
	Sources int
}

// runClient opens its connections, answers pings while it isn't asked for
// anything, and echoes once on each when it is. An answer is the text of an
// error, or empty.
func runClient(config json.RawMessage, link *child.Link) error {
	var cfg clientConfig
	if err := json.Unmarshal(config, &cfg); err != nil {
		return err
	}
	l := &load.Load{Addr: cfg.Addr, Conns: cfg.Conns, Sources: cfg.Sources, Payloads: [][]byte{[]byte(strings.Repeat("many", 31))}}
	defer l.Close()
	if err := l.Open(); err != nil {
		return link.Answer(err.Error())
	}
	if err := link.Answer(""); err != nil {
		return err
	}
	for {
		ctx, cancel := context.WithCancel(context.Background())
		asked := make(chan error, 1)
		go func() {
			_, err := link.Next()
			cancel()
			asked <- err
		}()
		idleErr := l.Idle(ctx)
		if err := <-asked; err != nil {
			return err
		}
		if idleErr == nil {
			idleErr = l.Warm(cfg.Conns)
		}
		text := ""
		if idleErr != nil {
			text = idleErr.Error()
		}
		if err := link.Answer(text); err != nil {
			return err
		}
	}
}
