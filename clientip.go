package websocket

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
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
		for _, line := range slices.Backward(r.Header[header]) {
			for more := true; more; {
				var hop string
				line, hop, more = cutLast(line, ',')
				if header == "Forwarded" {
					hop = forwardedFor(hop)
				}
				ip := hostIP(trim(hop))
				if !ip.IsValid() {
					return client
				}
				if client = ip; !trusted(ip) {
					return client
				}
			}
		}
		return client
	}
}

// cutLast splits s at the last sep outside of a quoted string. It looks from
// the right, so that a quote which the client left open at the left can't
// swallow what a proxy wrote.
func cutLast(s string, sep byte) (before, after string, found bool) {
	quoted := false
	for i := len(s) - 1; i >= 0; i-- {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case s[i] == sep && !quoted:
			return s[:i], s[i+1:], true
		}
	}
	return "", s, false
}

// forwardedFor returns the node that an element of Forwarded names as the one
// the request came from (RFC 7239, section 5.2).
func forwardedFor(element string) string {
	for more := true; more; {
		var pair string
		element, pair, more = cutLast(element, ';')
		name, value, _ := strings.Cut(trim(pair), "=")
		if !equalFold(name, "for") {
			continue
		}
		if n := len(value); n >= 2 && value[0] == '"' && value[n-1] == '"' {
			value = value[1 : n-1]
		}
		return value
	}
	return ""
}

// hostIP returns the address in "ip", "ip:port", "[ip]" or "[ip]:port", and an
// invalid one for anything else. An IPv4 address in IPv6 form is that address,
// and a zone, which means something on one machine only, isn't kept.
func hostIP(s string) netip.Addr {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap().WithZone("")
	}
	if n := len(s); n >= 2 && s[0] == '[' && s[n-1] == ']' {
		s = s[1 : n-1]
	}
	ip, _ := netip.ParseAddr(s)
	return ip.Unmap().WithZone("")
}
