package httphead

import (
	"iter"
	"net/netip"
	"slices"
	"strings"
)

// ForwardedHops goes through the addresses that proxies have added to a header,
// the last one first. The header named Forwarded has a syntax of its own (RFC
// 7239), any other is a list of addresses, as X-Forwarded-For is. A hop that is
// not an address is an invalid netip.Addr.
func ForwardedHops(name string, lines []string) iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		for _, line := range slices.Backward(lines) {
			for more := true; more; {
				var hop string
				line, hop, more = cutLast(line, ',')
				if name == "Forwarded" {
					hop = forwardedFor(hop)
				}
				if !yield(HostIP(trim(hop))) {
					return
				}
			}
		}
	}
}

// cutLast splits s at the last sep that isn't in a quoted string. It searches
// from the right: a quoted string that the client began at the left and never
// ended can't hide what a proxy has added at the right.
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
		if !EqualFold(name, "for") {
			continue
		}
		if n := len(value); n >= 2 && value[0] == '"' && value[n-1] == '"' {
			value = value[1 : n-1]
		}
		return withoutObfuscatedPort(value)
	}
	return ""
}

// withoutObfuscatedPort removes a port that is a name and not a number, as in
// "192.0.2.1:_p" (RFC 7239, section 6.3).
func withoutObfuscatedPort(node string) string {
	host, port, found := strings.Cut(node, ":_")
	if found && port != "" && hasOnly(port, obfuscatedByte) {
		return host
	}
	return node
}

// HostIP returns the address in "ip", "ip:port", "[ip]" or "[ip]:port", and an
// invalid one for anything else. An IPv4 address in IPv6 form is that address,
// and a zone, which means something on one machine only, isn't kept.
func HostIP(s string) netip.Addr {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap().WithZone("")
	}
	if n := len(s); n >= 2 && s[0] == '[' && s[n-1] == ']' {
		s = s[1 : n-1]
	}
	ip, _ := netip.ParseAddr(s)
	return ip.Unmap().WithZone("")
}
