package main

import (
	"fmt"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/rawws/websocket"
)

// startMetrics serves the counters on an address of their own: they are for
// those who run the server, and the port that it serves is everybody's.
// Without a host, addr is of the loopback.
func startMetrics(addr string, s *websocket.Server) (*http.Server, net.Addr, error) {
	if strings.HasPrefix(addr, ":") {
		addr = "127.0.0.1" + addr
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, nil, fmt.Errorf("-metrics: %w", err)
	}
	h := metrics(s)
	if ip := ln.Addr().(*net.TCPAddr).IP; ip.IsLoopback() {
		h = onlyLocal(h)
	}
	web := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
	go func() {
		if err := web.Serve(ln); err != http.ErrServerClosed {
			log.Printf("metrics: %v", err)
		}
	}()
	return web, ln.Addr(), nil
}

func metrics(s *websocket.Server) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.MetricsHandler())
	mux.HandleFunc("GET /debug/vars", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		fmt.Fprintf(w, "{\"websocket\": %v}\n", s.Expvar())
	})
	return mux
}

// onlyLocal keeps DNS rebinding out: a page of another site can make its own
// name point to the loopback, and would read what is served there. It can't
// make the browser put an address or "localhost" into Host.
func onlyLocal(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err != nil && !strings.EqualFold(host, "localhost") {
			http.Error(w, "the counters are served to this machine only", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}
