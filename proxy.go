package websocket

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/rawws/websocket/internal/proxyproto"
)

// isProxy reports whether remote is one of the proxies that ProxyProtocol names.
func (s *Server) isProxy(remote string) bool {
	if len(s.ProxyProtocol) == 0 {
		return false
	}
	ip := hostIP(remote)
	return slices.ContainsFunc(s.ProxyProtocol, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// takeProxyHeader takes the PROXY protocol's header from what has come, and
// reports whether it is whole.
func (h *handshake) takeProxyHeader() (whole bool, _ error) {
	header, n, err := proxyproto.Parse(h.in.pending())
	if err != nil || n == 0 {
		return false, h.wrongProxy(err)
	}
	h.in.w = copy(h.in.b, h.in.b[n:h.in.w])
	h.comesFrom(header)
	return true, nil
}

// readProxyHeader takes the header from under TLS, where it stands before the
// hello: not a byte more is read. Elsewhere it comes with the request.
func (h *handshake) readProxyHeader() error {
	tc, ok := h.nc.(*tls.Conn)
	if !ok || !h.proxied {
		return nil
	}
	b := make([]byte, 0, proxyproto.MaxLen)
	for {
		n, err := tc.NetConn().Read(b[len(b) : len(b)+proxyproto.Next(b)])
		if b = b[:len(b)+n]; n == 0 && err != nil {
			return fmt.Errorf("websocket: handshake: %w", streamEnd(err))
		}
		header, n, err := proxyproto.Parse(b)
		if err != nil {
			return h.wrongProxy(err)
		}
		if n > 0 {
			h.comesFrom(header)
			return nil
		}
	}
}

// wrongProxy says which proxy doesn't do what it was named for: that is a fault
// of whoever runs the two, and no client's.
func (h *handshake) wrongProxy(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("websocket: %w, from a proxy that Server.ProxyProtocol names", err)
}

// comesFrom makes what a proxy says of its client that of the handshake.
func (h *handshake) comesFrom(header proxyproto.Header) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.proxied = false
	if header.Source.IsValid() && h.phase != phaseEnded { // else who ends it is reading these
		h.from = net.TCPAddrFromAddrPort(header.Source)
		h.remote = header.Source.String()
	}
}
