// Command echoserver runs one of the echo servers that the comparisons use, to
// be looked at with other clients.
//
//	go run ./cmd/echoserver -server gorilla -addr 127.0.0.1:9001
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"strings"

	"github.com/rawws/websocket/internal/peers/internal/echo"
)

func main() {
	var cfg echo.Config
	flag.StringVar(&cfg.Server, "server", "gorilla", "one of "+strings.Join(echo.Names(), ", "))
	flag.StringVar(&cfg.Addr, "addr", "127.0.0.1:9001", "address to listen on")
	flag.BoolVar(&cfg.Deflate, "deflate", false, "permessage-deflate")
	flag.BoolVar(&cfg.Takeover, "takeover", false, "with -deflate, context takeover both ways, where the library has it")
	flag.IntVar(&cfg.WindowBits, "window-bits", 15, "with -takeover, bits of both windows")
	flag.BoolVar(&cfg.Validate, "validate", false, "check text for UTF-8")
	flag.IntVar(&cfg.MaxMessage, "max-message", 0, "largest message in bytes, 0 is 4 MiB")
	flag.IntVar(&cfg.RawMessage, "raw-message", 0, "rawtcp, epoll, gnet: bytes of a message, 0 answers whatever was read")
	flag.BoolVar(&cfg.ReusePort, "reuseport", false, "share the port with other processes")
	flag.Parse()

	if _, err := echo.Find(cfg.Server); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	ln, err := echo.Listen(cfg)
	if err != nil {
		log.Fatal(err)
	}
	addr := ln.Addr()
	failed := echo.Go(ln, cfg)
	log.Printf("%s listens on %s", cfg.Server, addr)
	log.Fatal(<-failed)
}
