package websocket

import (
	"cmp"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
)

// splitHost parts host[:port]. The brackets of an IPv6 address stay on the
// host; the port is "" when it isn't given.
func splitHost(s string) (host, port string, ok bool) {
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

// standardPort is the port that an address of the scheme needn't name.
func standardPort(scheme string) string {
	switch {
	case equalFold(scheme, "http"), equalFold(scheme, "ws"):
		return "80"
	case equalFold(scheme, "https"), equalFold(scheme, "wss"):
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
	if o.host, o.port, ok = splitHost(rest); !ok {
		return origin{}, false
	}
	o.port = cmp.Or(o.port, standardPort(o.scheme))
	return o, true
}

// secure reports whether pages of the origin come over TLS.
func (o origin) secure() bool { return standardPort(o.scheme) == "443" }

// of reports whether the origin is that of the server's own pages. A page of
// https may talk to a plain connection, since TLS may end at a proxy; a page
// of http has no business on a TLS one.
func (o origin) of(hostport string, secure bool) bool {
	host, port, ok := splitHost(hostport)
	standard := standardPort(o.scheme)
	return ok && standard != "" && (o.secure() || !secure) &&
		equalFold(o.host, host) && o.port == cmp.Or(port, standard)
}

// matches compares with a pattern of Upgrader.Origins. One without a scheme
// means http and https alike, but https alone on a TLS connection.
func (o origin) matches(pattern string, secure bool) bool {
	if strings.Contains(pattern, "://") {
		p, ok := parseOrigin(pattern)
		return ok && equalFold(p.scheme, o.scheme) && p.port == o.port && matchHost(p.host, o.host)
	}
	host, port, ok := splitHost(pattern)
	standard := standardPort(o.scheme)
	return ok && standard != "" && (o.secure() || !secure) &&
		cmp.Or(port, standard) == o.port && matchHost(host, o.host)
}

// matchHost compares with a host or with "*." and a domain, which stands for
// its sub-domains of any depth but not for itself.
func matchHost(pattern, host string) bool {
	if domain, ok := strings.CutPrefix(pattern, "*"); ok && strings.HasPrefix(domain, ".") {
		return len(host) > len(domain) && equalFold(host[len(host)-len(domain):], domain)
	}
	return equalFold(pattern, host)
}

// checkOrigin keeps pages of other sites away (RFC 6455, section 10.2):
// browsers let any page connect to any server, cookies included. Clients that
// aren't browsers send no Origin and could send any. allowed holds hosts,
// hosts with a port, either with a scheme before it, "*." and a domain in
// place of the host, whole origins as they are sent, or "*" for all.
func checkOrigin(r *http.Request, secure bool, allowed []string) error {
	values := r.Header["Origin"]
	if len(values) == 0 {
		return nil
	}
	if len(values) > 1 {
		return refuse(http.StatusForbidden, "%d Origin headers instead of one (RFC 6454, section 7.3)", len(values))
	}
	sent := values[0]
	o, ok := parseOrigin(sent)
	if ok && o.of(r.Host, secure) {
		return nil
	}
	for _, pattern := range allowed {
		switch {
		case pattern == "*" && (ok || sent == "null"),
			sent != "" && equalFold(pattern, sent),
			ok && o.matches(pattern, secure):
			return nil
		}
	}
	over := ""
	if secure {
		over = " over TLS"
	}
	return refuse(http.StatusForbidden, "Origin %s isn't that of Host %s%s, and Upgrader.Origins doesn't allow it (RFC 6455, section 10.2)", quote(sent), quote(r.Host), over)
}

// checkHost keeps names away that aren't ours: by DNS rebinding a page of
// another site gets the same host in Origin and Host, and both are the site's.
// allowed holds hosts, which stand for any port, hosts with a port, "*." and a
// domain, or "*"; an empty list allows all.
func checkHost(r *http.Request, allowed []string) error {
	host, port, ok := splitHost(r.Host)
	for _, pattern := range allowed {
		phost, pport, pok := splitHost(pattern)
		if pattern == "*" || ok && pok && matchHost(phost, host) && (pport == "" || pport == port) {
			return nil
		}
	}
	if len(allowed) == 0 {
		return nil
	}
	return refuse(http.StatusForbidden, "Host %s isn't among Upgrader.AllowedHosts, which keep DNS rebinding out", quote(r.Host))
}
