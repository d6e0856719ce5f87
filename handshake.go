package websocket

import (
	"bytes"
	"cmp"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// The limits of a request that no other was set for.
const (
	defaultMaxLine    = 8 << 10
	defaultMaxHeader  = 16 << 10
	defaultMaxHeaders = 100
)

// maxListElements bounds the elements of a list that are told apart one by
// one: with it, comparing each with each stays cheap.
const maxListElements = 64

// The classes of bytes that the grammars are made of.
const (
	tokenByte     = 1 << iota // tchar (RFC 9110, section 5.6.2)
	valueByte                 // field-vchar, obs-text, SP and HTAB (RFC 9110, section 5.5)
	targetByte                // visible ASCII but "#", which never is sent (RFC 9112, section 3.2)
	hostByte                  // unreserved and sub-delims (RFC 3986, section 3.2.2)
	plainPathByte             // those of a path that stand for themselves, escaped or not
)

var byteClasses = func() (t [256]uint8) {
	for i := range t {
		c := byte(i)
		alnum := '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if alnum || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0 {
			t[i] |= tokenByte
		}
		if c >= ' ' && c != 0x7f || c == '\t' {
			t[i] |= valueByte
		}
		if c > ' ' && c < 0x7f && c != '#' {
			t[i] |= targetByte
		}
		if alnum || strings.IndexByte("-._~!$&'()*+,;=", c) >= 0 {
			t[i] |= hostByte
		}
		if alnum || strings.IndexByte("-._~/$&+:=@", c) >= 0 {
			t[i] |= plainPathByte
		}
	}
	return t
}()

// hasOnly reports whether s is made of bytes of the class alone.
func hasOnly(s string, class uint8) bool {
	for i := range len(s) {
		if byteClasses[s[i]]&class == 0 {
			return false
		}
	}
	return true
}

func isToken(s string) bool { return s != "" && hasOnly(s, tokenByte) }

// equalFold compares without regard to the case of ASCII letters only: under
// Unicode's folding U+212A (Kelvin) would be a "k", and "websoc\u212Aet" the token.
func equalFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c |= 0x20
	}
	return c
}

// refuse makes the error that is answered to the client.
func refuse(status int, format string, args ...any) *HandshakeError {
	return &HandshakeError{Status: status, Reason: fmt.Sprintf(format, args...)}
}

// quote makes bytes of the client fit for a line of a log or an answer.
func quote[T string | []byte](s T) string {
	if len(s) > 64 {
		return strconv.QuoteToASCII(string(s[:64])) + "..."
	}
	return strconv.QuoteToASCII(string(s))
}

// parseState names what the next byte of a request belongs to.
type parseState uint8

const (
	beforeLine parseState = iota
	inEmptyLine
	inMethod
	inTarget
	inVersion
	inFields
)

// A requestParser reads the head of one request (RFC 9112), more strictly than
// the RFC asks: where it lets a server be lenient, two servers in a row can
// disagree about what was said, and that is how requests are smuggled.
type requestParser struct {
	// The limits, 0 for the defaults: bytes of the request line without its
	// CRLF, bytes of the header section with the empty line, number of headers.
	maxLine, maxHeader, maxHeaders int

	state   parseState // only moves forward
	pos     int        // bytes before it were examined
	start   int        // of the request line
	target  int        // where it begins
	version int        // where it begins
	fields  int        // where the header section begins
	line    int        // where the header line begins that pos is in
	count   int        // complete header lines
}

// parse takes all the bytes received so far. n == 0 without an error asks for
// more; otherwise n is the length of the head, and the bytes behind it are
// frames. Errors are *HandshakeError and depend on the bytes alone, not on how
// they were cut. A parser that has given a request or an error is spent.
func (p *requestParser) parse(b []byte) (r *http.Request, n int, err error) {
	if p.state != inFields {
		if err := p.parseLine(b); err != nil {
			return nil, 0, err
		}
	}
	if p.state != inFields {
		return nil, 0, nil
	}
	done, herr := p.parseFields(b)
	if herr != nil {
		return nil, 0, herr
	}
	if !done {
		return nil, 0, nil
	}
	r, herr = p.request(b[:p.pos])
	if herr != nil {
		return nil, 0, herr
	}
	return r, p.pos, nil
}

// parseLine goes through the request line byte by byte, so that a client that
// speaks something else is turned away by its first wrong byte.
func (p *requestParser) parseLine(b []byte) *HandshakeError {
	limit := cmp.Or(p.maxLine, defaultMaxLine)
	for ; p.pos < len(b) && p.state != inFields; p.pos++ {
		c := b[p.pos]
		if p.pos-p.start >= limit && c != '\r' && c != '\n' {
			return refuse(http.StatusRequestURITooLong, "request line of more than %d bytes (RFC 9112, section 3)", limit)
		}
		switch p.state {
		case beforeLine:
			// One empty line is let through, for clients that end the request
			// before this one with a CRLF too many (RFC 9112, section 2.2).
			if c == '\r' && p.pos == 0 {
				p.state = inEmptyLine
				break
			}
			if byteClasses[c]&tokenByte == 0 {
				return refuseStart(c)
			}
			p.state = inMethod
		case inEmptyLine:
			if c != '\n' {
				return refuse(http.StatusBadRequest, "CR without LF (RFC 9112, section 2.2)")
			}
			p.start, p.state = p.pos+1, beforeLine
		case inMethod:
			if c == ' ' {
				p.target, p.state = p.pos+1, inTarget
				if err := checkMethod(string(b[p.start:p.pos])); err != nil {
					return err
				}
			} else if byteClasses[c]&tokenByte == 0 {
				return refuse(http.StatusBadRequest, "byte %#02x in the method (RFC 9112, section 3.1)", c)
			}
		case inTarget:
			if c == ' ' {
				p.version, p.state = p.pos+1, inVersion
				if err := checkTarget(string(b[p.target:p.pos])); err != nil {
					return err
				}
			} else if byteClasses[c]&targetByte == 0 {
				return refuse(http.StatusBadRequest, "byte %#02x in the request target (RFC 9112, section 3.2)", c)
			}
		case inVersion:
			if err := p.parseVersion(b[p.version : p.pos+1]); err != nil {
				return err
			}
		}
	}
	return nil
}

// refuseStart answers a first byte that begins no request.
func refuseStart(c byte) *HandshakeError {
	if c == 0x16 {
		return refuse(http.StatusBadRequest, "byte 0x16 instead of a method: it looks like TLS on a plain port")
	}
	return refuse(http.StatusBadRequest, "byte %#02x instead of a method (RFC 9112, section 3.1)", c)
}

// checkMethod knows the lines of other protocols by their first word.
func checkMethod(method string) *HandshakeError {
	switch method {
	case "PRI":
		return refuse(http.StatusHTTPVersionNotSupported, "the preface of HTTP/2 on a server of HTTP/1.1 (RFC 9113, section 3.4)")
	case "PROXY":
		return refuse(http.StatusBadRequest, "a line of the PROXY protocol, which isn't spoken here")
	case "CONNECT":
		return refuse(http.StatusMethodNotAllowed, "method %q, this isn't a proxy (RFC 9110, section 9.3.6)", method)
	}
	return nil
}

// checkTarget holds what is wrong in any form of a target: an escape that isn't
// one, and the escaped NUL, at which paths are cut short elsewhere.
func checkTarget(target string) *HandshakeError {
	if target == "" {
		return refuse(http.StatusBadRequest, "two spaces instead of a request target (RFC 9112, section 3)")
	}
	if !hasOnly(target, targetByte) {
		return refuse(http.StatusBadRequest, "request target %s (RFC 9112, section 3.2)", quote(target))
	}
	for s := target; ; {
		i := strings.IndexByte(s, '%')
		if i < 0 {
			return nil
		}
		s = s[i+1:]
		if len(s) < 2 || !isHex(s[0]) || !isHex(s[1]) || s[:2] == "00" {
			return refuse(http.StatusBadRequest, "escape %s in the request target (RFC 3986, section 2.1)", quote("%"+s[:min(2, len(s))]))
		}
		s = s[2:]
	}
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// parseVersion looks at the last byte of v, which is the version so far and at
// last its CRLF.
func (p *requestParser) parseVersion(v []byte) *HandshakeError {
	const form = "HTTP/d.d\r\n"
	i := len(v) - 1
	if v[i] != form[i] && (form[i] != 'd' || v[i] < '0' || v[i] > '9') {
		return refuse(http.StatusBadRequest, "HTTP version %s (RFC 9112, section 2.3)", quote(v))
	}
	switch {
	case i == len("HTTP/d.d")-1 && v[len("HTTP/")] != '1':
		return refuse(http.StatusHTTPVersionNotSupported, "%s, only HTTP/1.1 is spoken here", v)
	case i == len(form)-1:
		p.fields, p.line, p.state = p.pos+1, p.pos+1, inFields
	}
	return nil
}

// parseFields checks each header line as it gets complete and reports whether
// the empty line was reached.
func (p *requestParser) parseFields(b []byte) (done bool, err *HandshakeError) {
	limit := p.fields + cmp.Or(p.maxHeader, defaultMaxHeader)
	for {
		i := bytes.IndexByte(b[p.pos:min(limit, len(b))], '\n')
		if i < 0 {
			p.pos = min(limit, len(b))
			if p.pos == limit {
				return false, refuse(http.StatusRequestHeaderFieldsTooLarge, "header section of more than %d bytes", limit-p.fields)
			}
			return false, nil
		}
		line := b[p.line : p.pos+i]
		p.pos += i + 1
		p.line = p.pos
		if len(line) == 0 || line[len(line)-1] != '\r' {
			return false, refuse(http.StatusBadRequest, "LF without CR (RFC 9112, section 2.2)")
		}
		if line = line[:len(line)-1]; len(line) == 0 {
			return true, nil
		}
		if p.count == cmp.Or(p.maxHeaders, defaultMaxHeaders) {
			return false, refuse(http.StatusRequestHeaderFieldsTooLarge, "more than %d headers", p.count)
		}
		p.count++
		if err := checkField(line); err != nil {
			return false, err
		}
	}
}

// checkField holds the grammar of a header line.
func checkField(line []byte) *HandshakeError {
	i := 0
	for i < len(line) && byteClasses[line[i]]&tokenByte != 0 {
		i++
	}
	switch {
	case i == len(line):
		return refuse(http.StatusBadRequest, "header line %s without a colon (RFC 9112, section 5)", quote(line))
	case line[i] != ':' && i == 0 && (line[i] == ' ' || line[i] == '\t'):
		return refuse(http.StatusBadRequest, "folded header line, or space before one (RFC 9112, sections 2.2 and 5.2)")
	case line[i] != ':' && (line[i] == ' ' || line[i] == '\t'):
		return refuse(http.StatusBadRequest, "space in the name of header %s (RFC 9112, section 5.1)", quote(line[:i]))
	case line[i] != ':':
		return refuse(http.StatusBadRequest, "byte %#02x in a header's name (RFC 9110, section 5.1)", line[i])
	case i == 0:
		return refuse(http.StatusBadRequest, "header without a name (RFC 9110, section 5.1)")
	}
	for _, c := range line[i+1:] {
		if byteClasses[c]&valueByte == 0 {
			return refuse(http.StatusBadRequest, "control byte %#02x in the value of header %s (RFC 9110, section 5.5)", c, quote(line[:i]))
		}
	}
	return nil
}

// request makes the *http.Request of a head whose lines were checked, with the
// fields that http.ReadRequest would give it. The strings in it are parts of one.
func (p *requestParser) request(b []byte) (*http.Request, *HandshakeError) {
	head := canonicalHead(b[p.start:], p.fields-p.start)
	target := head[p.target-p.start : p.version-p.start-1]
	version := head[p.version-p.start:][:len("HTTP/1.1")]
	both := &struct { // one allocation
		r http.Request
		u url.URL
	}{}
	if err := parseTarget(&both.u, target); err != nil {
		return nil, err
	}
	r := &both.r
	r.Method = head[:p.target-p.start-1]
	r.RequestURI = target
	r.URL = &both.u
	r.Proto = version
	r.ProtoMajor, r.ProtoMinor = 1, int(version[7]-'0')
	r.Header = make(http.Header, p.count)
	r.Body = http.NoBody
	if err := fillHeader(r, head[p.fields-p.start:], p.count); err != nil {
		return nil, err
	}
	closes := hasListToken(r.Header["Connection"], "close")
	r.Close = closes || r.ProtoMinor == 0 && !hasListToken(r.Header["Connection"], "keep-alive")
	if err := checkFraming(r); err != nil {
		return nil, err
	}
	return r, nil
}

// canonicalHead returns the head as a string, header names in their canonical
// form, so that names need no strings of their own.
func canonicalHead(b []byte, fields int) string {
	var head strings.Builder
	head.Grow(len(b))
	done := 0
	for i := fields; b[i] != '\r'; i++ {
		upper := true
		for ; b[i] != ':'; i++ {
			c := b[i]
			if upper && 'a' <= c && c <= 'z' || !upper && 'A' <= c && c <= 'Z' {
				head.Write(b[done:i])
				head.WriteByte(c ^ 0x20)
				done = i + 1
			}
			upper = c == '-'
		}
		i += bytes.IndexByte(b[i:], '\n')
	}
	head.Write(b[done:])
	return head.String()
}

// parseTarget tells the forms of a request target apart (RFC 9112, section 3.2).
func parseTarget(u *url.URL, target string) *HandshakeError {
	path, query, found := strings.Cut(target, "?")
	if target[0] == '/' && hasOnly(path, plainPathByte) {
		u.Path, u.RawQuery, u.ForceQuery = path, query, found && query == ""
		return nil
	}
	parsed, err := url.ParseRequestURI(target)
	if err != nil {
		return refuse(http.StatusBadRequest, "request target %s (RFC 9112, section 3.2)", quote(target))
	}
	*u = *parsed
	if target[0] != '/' && target != "*" && (u.Host == "" || u.User != nil) {
		return refuse(http.StatusBadRequest, "request target %s is neither a path nor an address (RFC 9112, section 3.2)", quote(target))
	}
	return nil
}

// fillHeader parts the header section into names and values; Host goes into
// its own field, as with http.ReadRequest.
func fillHeader(r *http.Request, section string, count int) *HandshakeError {
	values := make([]string, count)
	host, hosts := "", 0
	for len(section) > len("\r\n") {
		end := strings.IndexByte(section, '\r')
		line := section[:end]
		section = section[end+len("\r\n"):]
		colon := strings.IndexByte(line, ':')
		name, value := line[:colon], strings.Trim(line[colon+1:], " \t")
		if name == "Host" {
			host = value
			hosts++
			continue
		}
		if before := r.Header[name]; before != nil {
			r.Header[name] = append(before, value)
			continue
		}
		values[0] = value
		r.Header[name] = values[:1:1]
		values = values[1:]
	}
	// As http.ReadRequest does it (RFC 9111, section 5.4).
	if v := r.Header["Pragma"]; len(v) > 0 && v[0] == "no-cache" && r.Header["Cache-Control"] == nil {
		r.Header["Cache-Control"] = []string{"no-cache"}
	}
	return setHost(r, host, hosts)
}

// setHost holds the rules on Host (RFC 9112, section 3.2).
func setHost(r *http.Request, host string, hosts int) *HandshakeError {
	r.Host = cmp.Or(r.URL.Host, host)
	switch {
	case hosts > 1:
		return refuse(http.StatusBadRequest, "%d Host headers (RFC 9112, section 3.2)", hosts)
	case hosts == 0 && r.ProtoMinor == 0:
		return nil
	case hosts == 0:
		return refuse(http.StatusBadRequest, "no Host header (RFC 9112, section 3.2)")
	}
	name, port, ok := splitHost(host)
	if !ok {
		return refuse(http.StatusBadRequest, "Host %s (RFC 9112, section 3.2)", quote(host))
	}
	if r.URL.Host == "" {
		return nil
	}
	uname, uport, ok := splitHost(r.URL.Host)
	standard := standardPort(r.URL.Scheme)
	if !ok || !equalFold(name, uname) || cmp.Or(port, standard) != cmp.Or(uport, standard) {
		return refuse(http.StatusBadRequest, "request target of %s with Host %s (RFC 9112, section 3.2.2)", quote(r.URL.Host), quote(host))
	}
	return nil
}

// checkFraming holds the rules on the length of a body (RFC 9112, section 6).
// A body is declared in the request's fields but never read: a request with
// one is for net/http, or refused by checkUpgrade.
func checkFraming(r *http.Request) *HandshakeError {
	lengths, codings := r.Header["Content-Length"], r.Header["Transfer-Encoding"]
	switch {
	case len(lengths) > 0 && len(codings) > 0:
		return refuse(http.StatusBadRequest, "Content-Length and Transfer-Encoding together (RFC 9112, section 6.1)")
	case len(codings) > 0 && r.ProtoMinor == 0:
		return refuse(http.StatusBadRequest, "Transfer-Encoding in HTTP/1.0 (RFC 9112, section 6.1)")
	case len(codings) == 1 && equalFold(codings[0], "chunked"):
		delete(r.Header, "Transfer-Encoding")
		r.TransferEncoding = []string{"chunked"}
		r.ContentLength = -1
	case len(codings) > 0:
		return refuseCodings(codings)
	case len(lengths) > 1:
		return refuse(http.StatusBadRequest, "%d Content-Length headers (RFC 9112, section 6.3)", len(lengths))
	case len(lengths) == 1:
		n, err := strconv.ParseUint(lengths[0], 10, 63)
		if err != nil {
			return refuse(http.StatusBadRequest, "Content-Length %s (RFC 9112, section 6.3)", quote(lengths[0]))
		}
		r.ContentLength = int64(n)
	}
	return nil
}

// refuseCodings answers 501 when it is the coding that isn't known, and 400
// when the list is wrong in itself (RFC 9112, section 6.1).
func refuseCodings(values []string) *HandshakeError {
	for _, v := range values {
		for coding := range strings.SplitSeq(v, ",") {
			coding = strings.Trim(coding, " \t")
			if coding != "" && !equalFold(coding, "chunked") {
				return refuse(http.StatusNotImplemented, "Transfer-Encoding %s (RFC 9112, section 6.1)", quote(coding))
			}
		}
	}
	return refuse(http.StatusBadRequest, "Transfer-Encoding %s (RFC 9112, section 6.1)", quote(strings.Join(values, ", ")))
}

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

// hasListToken looks for a token among the elements of a header's lines. An
// element that only begins with it, as "websocket/13" does, isn't it.
func hasListToken(values []string, token string) bool {
	for _, v := range values {
		for more := true; more; {
			var element string
			element, v, more = strings.Cut(v, ",")
			if equalFold(strings.Trim(element, " \t"), token) {
				return true
			}
		}
	}
	return false
}

// wantsUpgrade tells a request for a WebSocket from one for plain HTTP.
func wantsUpgrade(r *http.Request) bool {
	return hasListToken(r.Header["Upgrade"], "websocket")
}

// checkUpgrade holds the rules of an upgrade (RFC 6455, section 4.2.1), for
// requests of our parser and of net/http. It returns the client's key.
func checkUpgrade(r *http.Request) (key string, err error) {
	if err := checkRequest(r); err != nil {
		return "", err
	}
	if !wantsUpgrade(r) {
		return "", refuse(http.StatusUpgradeRequired, "Upgrade %s isn't websocket (RFC 6455, section 4.2.1)", quote(strings.Join(r.Header["Upgrade"], ", ")))
	}
	if !hasListToken(r.Header["Connection"], "upgrade") {
		return "", refuse(http.StatusUpgradeRequired, "Connection %s without Upgrade (RFC 6455, section 4.2.1)", quote(strings.Join(r.Header["Connection"], ", ")))
	}
	if err := checkVersion(r.Header); err != nil {
		return "", err
	}
	keys := r.Header["Sec-Websocket-Key"]
	if len(keys) != 1 {
		return "", refuse(http.StatusBadRequest, "%d Sec-WebSocket-Key headers (RFC 6455, section 4.2.1)", len(keys))
	}
	if !isKey(keys[0]) {
		return "", refuse(http.StatusBadRequest, "Sec-WebSocket-Key %s isn't 16 bytes in base64 (RFC 6455, section 4.2.1)", quote(keys[0]))
	}
	if _, err := scanExtensions(r.Header["Sec-Websocket-Extensions"], false); err != nil {
		return "", err
	}
	var buf [8]string
	if _, err := appendSubprotocols(buf[:0], r.Header["Sec-Websocket-Protocol"]); err != nil {
		return "", err
	}
	return keys[0], nil
}

// checkRequest holds what an upgrade asks of the request under it.
func checkRequest(r *http.Request) *HandshakeError {
	switch {
	case r.ProtoMajor != 1:
		return refuse(http.StatusHTTPVersionNotSupported, "%s, an upgrade is made in HTTP/1.1 (RFC 6455, section 4.2.1)", quote(r.Proto))
	case r.ProtoMinor == 0:
		return refuse(http.StatusUpgradeRequired, "HTTP/1.0 knows no upgrade (RFC 6455, section 4.2.1)")
	case r.Method != http.MethodGet:
		return refuse(http.StatusMethodNotAllowed, "method %s, an upgrade is a GET (RFC 6455, section 4.2.1)", quote(r.Method))
	case r.RequestURI == "*" || r.URL.Scheme != "" && standardPort(r.URL.Scheme) == "":
		return refuse(http.StatusBadRequest, "request target %s (RFC 6455, section 4.2.1)", quote(r.RequestURI))
	case len(r.TransferEncoding) > 0 || r.ContentLength != 0:
		return refuse(http.StatusBadRequest, "an upgrade with a body (RFC 9110, section 9.3.1)")
	}
	if _, _, ok := splitHost(r.Host); !ok {
		return refuse(http.StatusBadRequest, "Host %s (RFC 6455, section 4.2.1)", quote(r.Host))
	}
	return checkTarget(cmp.Or(r.RequestURI, "/"))
}

// checkVersion asks for Sec-WebSocket-Version: 13 (RFC 6455, section 4.4).
func checkVersion(h http.Header) *HandshakeError {
	versions := h["Sec-Websocket-Version"]
	switch {
	case len(versions) > 1:
		return refuse(http.StatusBadRequest, "%d Sec-WebSocket-Version headers (RFC 6455, section 4.2.1)", len(versions))
	case len(versions) == 0 && h["Sec-Websocket-Key1"] != nil:
		return refuse(http.StatusUpgradeRequired, "the handshake of draft hixie-76, spoken by old browsers such as that of iOS 4 and 5: version 13 is needed (RFC 6455, section 4.2.1)")
	case len(versions) == 0:
		return refuse(http.StatusUpgradeRequired, "no Sec-WebSocket-Version, 13 is needed (RFC 6455, section 4.4)")
	case versions[0] != "13":
		return refuse(http.StatusUpgradeRequired, "Sec-WebSocket-Version %s, 13 is needed (RFC 6455, section 4.4)", quote(versions[0]))
	}
	return nil
}

// isKey reports whether s is 16 bytes in base64, which is 22 digits, the last
// of them with two bits only, and the padding.
func isKey(s string) bool {
	var buf [18]byte
	if len(s) != 24 || strings.ContainsAny(s, "\r\n") {
		return false
	}
	n, err := base64.StdEncoding.Strict().Decode(buf[:], []byte(s))
	return err == nil && n == 16
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
		return refuse(http.StatusForbidden, "%d Origin headers (RFC 6454, section 7.3)", len(values))
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
	return refuse(http.StatusForbidden, "Origin %s isn't that of Host %s, and Upgrader.Origins doesn't allow it (RFC 6455, section 10.2)", quote(sent), quote(r.Host))
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
	return refuse(http.StatusForbidden, "Host %s isn't among Upgrader.AllowedHosts", quote(r.Host))
}

// A lexer takes the elements of header values one by one.
type lexer struct{ s string }

func (l *lexer) space() { l.s = strings.TrimLeft(l.s, " \t") }

func (l *lexer) accept(c byte) bool {
	if l.s == "" || l.s[0] != c {
		return false
	}
	l.s = l.s[1:]
	return true
}

// token takes the longest token, "" if there is none.
func (l *lexer) token() (token string) {
	i := 0
	for i < len(l.s) && byteClasses[l.s[i]]&tokenByte != 0 {
		i++
	}
	token, l.s = l.s[:i], l.s[i:]
	return token
}

// element goes to the next element of a list, past empty ones (RFC 9110,
// section 5.6.1), and reports whether there is one.
func (l *lexer) element() bool {
	for l.space(); l.accept(','); l.space() {
	}
	return l.s != ""
}

// end reports whether the element ends here.
func (l *lexer) end() bool {
	l.space()
	return l.s == "" || l.s[0] == ','
}

// tokenOrQuoted takes a token, or a quoted string that holds one once its
// quoted pairs are undone (RFC 6455, section 9.1); "" if there is neither.
func (l *lexer) tokenOrQuoted() string {
	if !l.accept('"') {
		return l.token()
	}
	var unquoted []byte
	for i := 0; i < len(l.s); i++ {
		c := l.s[i]
		switch {
		case c == '"' && unquoted == nil:
			token := l.s[:i]
			l.s = l.s[i+1:]
			return token
		case c == '"':
			l.s = l.s[i+1:]
			return string(unquoted)
		case c == '\\' && i+1 < len(l.s):
			if unquoted == nil {
				unquoted = append(make([]byte, 0, len(l.s)), l.s[:i]...)
			}
			i++
			c = l.s[i]
		}
		if byteClasses[c]&tokenByte == 0 {
			return ""
		}
		if unquoted != nil {
			unquoted = append(unquoted, c)
		}
	}
	return ""
}

// An extension is an element of Sec-WebSocket-Extensions.
type extension struct {
	name   string
	params []extensionParam
}

// An extensionParam is a parameter of an extension. value is "" if none was
// given: one that is given is a token.
type extensionParam struct{ name, value string }

// parseExtensions reads the lines of Sec-WebSocket-Extensions (RFC 6455,
// section 9.1), in time that is linear in their length.
func parseExtensions(values []string) ([]extension, error) {
	list, err := scanExtensions(values, true)
	if err != nil {
		return nil, err
	}
	return list, nil
}

// scanExtensions checks the lines, and keeps what they hold if asked to.
func scanExtensions(values []string, keep bool) (list []extension, err *HandshakeError) {
	count := 0
	for _, v := range values {
		l := lexer{v}
		for l.element() {
			e := extension{name: l.token()}
			ok := e.name != ""
			for ok && !l.end() {
				var param extensionParam
				param, ok = l.param()
				if count++; keep {
					e.params = append(e.params, param)
				}
			}
			if count++; !ok || count > maxListElements {
				return nil, refuse(http.StatusBadRequest, "Sec-WebSocket-Extensions %s, not a list of at most %d extensions and parameters (RFC 6455, section 9.1)", quote(v), maxListElements)
			}
			if keep {
				list = append(list, e)
			}
		}
	}
	if len(values) > 0 && count == 0 {
		return nil, refuse(http.StatusBadRequest, "empty Sec-WebSocket-Extensions (RFC 6455, section 9.1)")
	}
	return list, nil
}

// param takes the semicolon and the parameter behind it.
func (l *lexer) param() (p extensionParam, ok bool) {
	if !l.accept(';') {
		return p, false
	}
	l.space()
	if p.name = l.token(); p.name == "" {
		return p, false
	}
	l.space()
	if !l.accept('=') {
		return p, true
	}
	l.space()
	p.value = l.tokenOrQuoted()
	return p, p.value != ""
}

// appendSubprotocols reads the lines of Sec-WebSocket-Protocol, a list of
// different tokens (RFC 6455, section 4.1, item 10).
func appendSubprotocols(dst, values []string) ([]string, *HandshakeError) {
	for _, v := range values {
		l := lexer{v}
		for l.element() {
			name := l.token()
			if name == "" || !l.end() || len(dst) == maxListElements || slices.Contains(dst, name) {
				return nil, refuse(http.StatusBadRequest, "Sec-WebSocket-Protocol %s, not a list of at most %d different subprotocols (RFC 6455, section 4.1)", quote(v), maxListElements)
			}
			dst = append(dst, name)
		}
	}
	if len(values) > 0 && len(dst) == 0 {
		return nil, refuse(http.StatusBadRequest, "empty Sec-WebSocket-Protocol (RFC 6455, section 4.1)")
	}
	return dst, nil
}

// selectSubprotocol takes the first of ours that the client offers, "" if it
// offers none of them (RFC 6455, section 4.2.2). Names are case-sensitive.
func selectSubprotocol(r *http.Request, supported []string) (string, error) {
	var buf [8]string
	offered, err := appendSubprotocols(buf[:0], r.Header["Sec-Websocket-Protocol"])
	if err != nil {
		return "", err
	}
	for _, name := range supported {
		if slices.Contains(offered, name) {
			return name, nil
		}
	}
	return "", nil
}

// appendAcceptKey proves that the answer comes from a WebSocket server, and
// not from one that sends back what it gets (RFC 6455, section 4.2.2, item 5.4).
func appendAcceptKey(dst []byte, key string) []byte {
	var buf [64]byte
	sum := sha1.Sum(append(append(buf[:0], key...), "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"...))
	return base64.StdEncoding.AppendEncode(dst, sum[:])
}

// checkExtraHeader holds what a header of the application may be. A CR or LF
// in it would end the header early and let whoever chose the value write the
// rest; the fields of the handshake and of the message's length are ours.
func checkExtraHeader(h http.Header) error {
	for name, values := range h {
		if !isToken(name) {
			return fmt.Errorf("websocket: header name %s (RFC 9110, section 5.1)", quote(name))
		}
		if isReserved(name) {
			return fmt.Errorf("websocket: header %s is written by the handshake", name)
		}
		for _, v := range values {
			if !hasOnly(v, valueByte) {
				return fmt.Errorf("websocket: value %s of header %s (RFC 9110, section 5.5)", quote(v), name)
			}
		}
	}
	return nil
}

func isReserved(name string) bool {
	switch http.CanonicalHeaderKey(name) {
	case "Connection", "Upgrade", "Content-Length", "Content-Type", "Transfer-Encoding", "Trailer":
		return true
	}
	const prefix = "Sec-WebSocket-"
	return len(name) >= len(prefix) && equalFold(name[:len(prefix)], prefix)
}

// appendSwitching appends the answer that ends the handshake (RFC 6455,
// section 4.2.2). extra was through checkExtraHeader.
func appendSwitching(dst []byte, key, subprotocol, extensions string, extra http.Header) []byte {
	dst = append(dst, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "...)
	dst = append(appendAcceptKey(dst, key), "\r\n"...)
	if subprotocol != "" {
		dst = appendField(dst, "Sec-WebSocket-Protocol", subprotocol)
	}
	if extensions != "" {
		dst = appendField(dst, "Sec-WebSocket-Extensions", extensions)
	}
	return append(appendHeaderFields(dst, extra), "\r\n"...)
}

// appendRefusal appends the answer to a request that was refused. extra was
// through checkExtraHeader. A status that refuses nothing becomes 500.
func appendRefusal(dst []byte, e *HandshakeError, extra http.Header) []byte {
	status := e.Status
	if status < 300 || status > 599 || status == http.StatusNotModified {
		status = http.StatusInternalServerError
	}
	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendInt(dst, int64(status), 10)
	dst = append(append(append(dst, ' '), http.StatusText(status)...), "\r\n"...)
	switch status {
	case http.StatusUpgradeRequired:
		// What is named in Upgrade has to be named in Connection (RFC 9110, section 7.8).
		dst = append(dst, "Upgrade: websocket\r\nConnection: Upgrade, close\r\nSec-WebSocket-Version: 13\r\n"...)
	default:
		dst = append(dst, "Connection: close\r\n"...)
	}
	if status == http.StatusMethodNotAllowed && !hasField(extra, "Allow") {
		dst = appendField(dst, "Allow", "GET")
	}
	if status == http.StatusServiceUnavailable && !hasField(extra, "Retry-After") {
		dst = appendField(dst, "Retry-After", retryAfter)
	}
	dst = appendHeaderFields(dst, extra)
	reason := cmp.Or(e.Reason, http.StatusText(status))
	dst = append(dst, "Content-Type: text/plain; charset=utf-8\r\nContent-Length: "...)
	dst = strconv.AppendInt(dst, int64(len(reason)+1), 10)
	dst = append(dst, "\r\n\r\n"...)
	for i := range len(reason) {
		// One line: what the application gave as a reason may hold anything.
		c := reason[i]
		if c < ' ' || c == 0x7f {
			c = ' '
		}
		dst = append(dst, c)
	}
	return append(dst, '\n')
}

// retryAfter is in seconds. A client that waits less finds the same crowd.
const retryAfter = "5"

func hasField(h http.Header, name string) bool {
	for key := range h {
		if equalFold(key, name) {
			return true
		}
	}
	return false
}

// appendHeaderFields appends the fields in the order of their names, so that
// the same header makes the same bytes.
func appendHeaderFields(dst []byte, h http.Header) []byte {
	var buf [16]string
	names := buf[:0]
	for name := range h {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, v := range h[name] {
			dst = appendField(dst, name, v)
		}
	}
	return dst
}

func appendField(dst []byte, name, value string) []byte {
	dst = append(append(dst, name...), ": "...)
	return append(append(dst, value...), "\r\n"...)
}
