package httphead

import (
	"cmp"
	"net/netip"
	"strconv"
	"strings"
)

// SplitHost splits host[:port]. The brackets of an IPv6 address stay on the
// host; the port is "" when it isn't given.
func SplitHost(s string) (host, port string, ok bool) {
	host = s
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, ']') {
		host, port = s[:i], s[i+1:]
	}
	if port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return "", "", false
		}
	}
	if len(host) > 2 && host[0] == '[' && host[len(host)-1] == ']' {
		addr, err := netip.ParseAddr(host[1 : len(host)-1])
		return host, port, err == nil && addr.Is6() && addr.Zone() == ""
	}
	return host, port, host != "" && hasOnly(host, hostByte)
}

// StandardPort is the port that an address of the scheme needn't name.
func StandardPort(scheme string) string {
	switch {
	case EqualFold(scheme, "http"), EqualFold(scheme, "ws"):
		return "80"
	case EqualFold(scheme, "https"), EqualFold(scheme, "wss"):
		return "443"
	}
	return ""
}

// An origin is a scheme, a host and a port that is always named if the scheme
// has a standard one (RFC 6454, section 4).
type origin struct{ scheme, host, port string }

// parseOrigin reads the serialized form, in which neither a path nor userinfo
// has a place (RFC 6454, section 6.2). Patterns of ours have it too.
func parseOrigin(s string) (o origin, ok bool) {
	var rest string
	if o.scheme, rest, ok = strings.Cut(s, "://"); !ok {
		return origin{}, false
	}
	if o.host, o.port, ok = SplitHost(rest); !ok {
		return origin{}, false
	}
	o.port = cmp.Or(o.port, StandardPort(o.scheme))
	return o, true
}

// secure reports whether pages of the origin come over TLS.
func (o origin) secure() bool { return StandardPort(o.scheme) == "443" }

// isOf reports whether the origin is that of pages of the host. A page of https
// may use a plain connection, since TLS may end at a proxy; a page of http may
// not use one over TLS.
func (o origin) isOf(hostport string, secure bool) bool {
	host, port, ok := SplitHost(hostport)
	standard := StandardPort(o.scheme)
	return ok && standard != "" && (o.secure() || !secure) &&
		EqualFold(o.host, host) && o.port == cmp.Or(port, standard)
}

// matches compares with a pattern of AllowsOrigin. One without a scheme stands
// for http and https, over TLS for https only.
func (o origin) matches(pattern string, secure bool) bool {
	if strings.Contains(pattern, "://") {
		p, ok := parseOrigin(pattern)
		return ok && EqualFold(p.scheme, o.scheme) && p.port == o.port && matchHost(p.host, o.host)
	}
	host, port, ok := SplitHost(pattern)
	standard := StandardPort(o.scheme)
	return ok && standard != "" && (o.secure() || !secure) &&
		cmp.Or(port, standard) == o.port && matchHost(host, o.host)
}

// matchHost compares with a host or with "*." and a domain, which stands for
// its sub-domains of any depth but not for itself.
func matchHost(pattern, host string) bool {
	if domain, ok := strings.CutPrefix(pattern, "*"); ok && strings.HasPrefix(domain, ".") {
		return len(host) > len(domain) && EqualFold(host[len(host)-len(domain):], domain)
	}
	return EqualFold(pattern, host)
}

// AllowsOrigin reports whether a page of the origin sent may talk to the host of
// a connection that is plain or secure. It may if it is the host's own, or is
// among those allowed: hosts, hosts with a port, either with a scheme before it,
// "*." and a domain in place of the host, whole origins as they are sent, or "*"
// for all, whatever their form: applications on a phone send "file://".
func AllowsOrigin(allowed []string, sent, host string, secure bool) bool {
	o, ok := parseOrigin(sent)
	if ok && o.isOf(host, secure) {
		return true
	}
	for _, pattern := range allowed {
		switch {
		case pattern == "*",
			sent != "" && EqualFold(pattern, sent),
			ok && o.matches(pattern, secure):
			return true
		}
	}
	return false
}

// AllowsHost reports whether the host of a request, over a connection that is
// plain or secure, is among those allowed: hosts, which stand for any port, hosts
// with a port, "*." and a domain, or "*". A port that isn't sent is the standard
// one.
func AllowsHost(allowed []string, sent string, secure bool) bool {
	host, port, ok := SplitHost(sent)
	if port == "" {
		port = "80"
		if secure {
			port = "443"
		}
	}
	for _, pattern := range allowed {
		phost, pport, pok := SplitHost(pattern)
		if pattern == "*" || ok && pok && matchHost(phost, host) && (pport == "" || pport == port) {
			return true
		}
	}
	return false
}
