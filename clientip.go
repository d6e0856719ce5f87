package websocket

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"

	"github.com/rawws/websocket/internal/httphead"
	"github.com/rawws/websocket/internal/proxyproto"
)

// ForwardedIP returns a function for Server.ClientIP that finds the client
// behind proxies. header is the one that they write: "Forwarded" (RFC 7239),
// "X-Forwarded-For" or another of that form. Only that one is read, because a
// header that no proxy looks at is whatever the client likes.
//
// Each proxy adds the address it was called from at the right. So the path is
// followed from the socket's own address to the left for as long as it leads
// through a proxy of ours; the first address that isn't one is the client's.
// Everything left of it is the client's word and not looked at. Where the path
// ends in something that is no address, the proxy that wrote it stands for all
// its clients. A unix socket counts as a proxy of ours.
//
// A proxy that forwards bytes and no HTTP writes no header: behind it, what the
// client has sent would be believed. Server.ProxyProtocol is for that one; the
// address that it gives is where the path begins.
func ForwardedIP(header string, proxies ...netip.Prefix) func(*http.Request) netip.Addr {
	header = http.CanonicalHeaderKey(header)
	proxies = slices.Clone(proxies)
	return func(r *http.Request) netip.Addr {
		client := hostIP(r.RemoteAddr)
		if client.IsValid() && !contain(proxies, client) {
			return client
		}
		for ip := range httphead.ForwardedHops(header, r.Header[header]) {
			if !ip.IsValid() {
				return client
			}
			if client = ip; !contain(proxies, ip) {
				return client
			}
		}
		return client
	}
}

// hostIP returns the address in "ip:port", as net.Addr and http.Request have it.
func hostIP(s string) netip.Addr { return httphead.HostIP(s) }

// contain reports whether ip is in one of the networks.
func contain(networks []netip.Prefix, ip netip.Addr) bool {
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// isProxy reports whether remote is one of the proxies that ProxyProtocol names.
func (s *Server) isProxy(remote string) bool {
	return len(s.ProxyProtocol) > 0 && contain(s.ProxyProtocol, hostIP(remote))
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
	tc, ok := h.nc.(interface {
		tlsConn
		NetConn() net.Conn
	})
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
