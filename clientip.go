package websocket

import (
	"net/http"
	"net/netip"
	"slices"

	"github.com/rawws/websocket/internal/httphead"
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
	trusted := func(ip netip.Addr) bool {
		return slices.ContainsFunc(proxies, func(p netip.Prefix) bool { return p.Contains(ip) })
	}
	return func(r *http.Request) netip.Addr {
		client := hostIP(r.RemoteAddr)
		if client.IsValid() && !trusted(client) {
			return client
		}
		for ip := range httphead.ForwardedHops(header, r.Header[header]) {
			if !ip.IsValid() {
				return client
			}
			if client = ip; !trusted(ip) {
				return client
			}
		}
		return client
	}
}

// hostIP returns the address in "ip:port", as net.Addr and http.Request have it.
func hostIP(s string) netip.Addr { return httphead.HostIP(s) }
