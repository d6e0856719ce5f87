package httphead

import (
	"bytes"
	"cmp"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// The limits of a request that no other was set for.
const (
	DefaultMaxLine    = 8 << 10
	DefaultMaxHeader  = 16 << 10
	DefaultMaxHeaders = 100
)

// limit is n, or standard where none was set, and never so large that adding
// a position to it overflows.
func limit(n, standard int) int {
	if n <= 0 {
		return standard
	}
	return min(n, 1<<30)
}

// parseState names what the next byte of a request belongs to.
type parseState uint8

const (
	beforeLine parseState = iota
	inEmptyLine
	inMethod
	inTarget
	inQuery
	inVersion
	inFields
	complete
)

// A Parser reads the head of one request (RFC 9112), more strictly than
// the RFC asks: where it lets a server be lenient, two servers in a row can
// disagree about what was said, and that is how requests are smuggled.
type Parser struct {
	// The limits, 0 or less for the defaults: bytes of the request line without
	// its CRLF, bytes of the header section with the empty line, header lines.
	MaxLine, MaxHeader, MaxHeaders int

	// Memory, when set, holds the request: it is for one that nobody keeps.
	Memory *Memory

	state   parseState // only moves forward
	pos     int        // bytes before it were examined
	start   int        // of the request line
	target  int        // where it begins
	version int        // where it begins
	fields  int        // where the header section begins
	line    int        // where the header line begins that pos is in
	count   int        // complete header lines
}

// Parse takes all the bytes received so far. n == 0 without an error asks for
// more; otherwise n is the length of the head, and the bytes behind it aren't
// looked at. Errors are *Error and depend on the bytes alone, not on how they
// were split. A parser that has returned a request or an error can't be used
// again.
func (p *Parser) Parse(b []byte) (r *http.Request, n int, err error) {
	if err := p.parseLine(b); err != nil || p.state < inFields {
		return nil, 0, err
	}
	if err := p.parseFields(b); err != nil || p.state < complete {
		return nil, 0, err
	}
	if r, err = p.request(b[:p.pos]); err != nil {
		return nil, 0, err
	}
	return r, p.pos, nil
}

// parseLine goes through the request line byte by byte, so that a client that
// speaks something else is refused at its first wrong byte.
func (p *Parser) parseLine(b []byte) error {
	longest := limit(p.MaxLine, DefaultMaxLine)
	for ; p.pos < len(b) && p.state < inFields; p.pos++ {
		c := b[p.pos]
		if p.pos-p.start >= longest && c != '\r' && c != '\n' {
			return refuse(http.StatusRequestURITooLong, "request line of more than %d bytes (RFC 9112, section 3)", longest)
		}
		switch p.state {
		case beforeLine:
			// One empty line is accepted, for clients that end the request
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
				if err := checkMethod(b[p.start:p.pos]); err != nil {
					return err
				}
			} else if byteClasses[c]&tokenByte == 0 {
				return refuse(http.StatusBadRequest, "byte %#02x in the method (RFC 9112, section 3.1)", c)
			}
		case inTarget, inQuery:
			class := uint8(targetByte)
			if c == '?' || p.state == inQuery {
				class, p.state = queryByte, inQuery
			}
			if c == ' ' {
				p.version, p.state = p.pos+1, inVersion
				if err := CheckTarget(b[p.target:p.pos]); err != nil {
					return err
				}
			} else if byteClasses[c]&class == 0 {
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
func refuseStart(c byte) error {
	if c == 0x16 {
		return refuse(http.StatusBadRequest, "byte 0x16 instead of a method: it looks like TLS on a plain port")
	}
	return refuse(http.StatusBadRequest, "byte %#02x instead of a method (RFC 9112, section 3.1)", c)
}

// checkMethod refuses the lines of other protocols, which their first word shows.
func checkMethod(method []byte) error {
	switch string(method) {
	case "PRI":
		return refuse(http.StatusHTTPVersionNotSupported, "the preface of HTTP/2 on a server of HTTP/1.1 (RFC 9113, section 3.4)")
	case "PROXY":
		return refuse(http.StatusBadRequest, "a line of the PROXY protocol, which isn't spoken here")
	case "CONNECT":
		return refuse(http.StatusMethodNotAllowed, "CONNECT, but this isn't a proxy (RFC 9110, section 9.3.6)")
	}
	return nil
}

// CheckTarget refuses what is wrong in every form of a target: before the query,
// an escape that isn't well-formed, and the escaped NUL, at which other programs
// end a path. The query may be any text: browsers send "?q=100%" as it was typed,
// and it can be read in one way only.
func CheckTarget[T string | []byte](target T) error {
	if len(target) == 0 {
		return refuse(http.StatusBadRequest, "no request target, or a space too many (RFC 9112, section 3)")
	}
	class := uint8(targetByte)
	for i := range len(target) {
		c := target[i]
		if c == '?' {
			class = queryByte
		}
		if byteClasses[c]&class == 0 {
			return refuse(http.StatusBadRequest, "byte %#02x in the request target (RFC 9112, section 3.2)", c)
		}
		if c != '%' || class == queryByte {
			continue
		}
		escape := target[i:min(i+3, len(target))]
		if len(escape) < 3 || !isHex(escape[1]) || !isHex(escape[2]) || string(escape) == "%00" {
			return refuse(http.StatusBadRequest, "escape %s in the request target (RFC 3986, section 2.1)", Quote(escape))
		}
	}
	return nil
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// parseVersion looks at the last byte of v, which is the version so far and at
// last its CRLF.
func (p *Parser) parseVersion(v []byte) error {
	const form = "HTTP/0.0\r\n"
	i := len(v) - 1
	digit := '0' <= v[i] && v[i] <= '9'
	if v[i] != form[i] && (form[i] != '0' || !digit) {
		return refuse(http.StatusBadRequest, "%s instead of an HTTP version (RFC 9112, section 2.3)", Quote(v))
	}
	switch {
	case i == len("HTTP/0.0")-1 && v[len("HTTP/")] != '1':
		return refuse(http.StatusHTTPVersionNotSupported, "%s, only HTTP/1.1 is spoken here", v)
	case i == len(form)-1:
		p.fields, p.line, p.state = p.pos+1, p.pos+1, inFields
	}
	return nil
}

// parseFields checks each header line as it gets complete, up to the empty one.
func (p *Parser) parseFields(b []byte) error {
	end := p.fields + limit(p.MaxHeader, DefaultMaxHeader)
	b = b[:min(end, len(b))]
	for {
		i := bytes.IndexByte(b[p.pos:], '\n')
		if i < 0 {
			break
		}
		line := b[p.line : p.pos+i]
		p.pos += i + 1
		p.line = p.pos
		if len(line) == 0 || line[len(line)-1] != '\r' {
			return refuse(http.StatusBadRequest, "LF without CR (RFC 9112, section 2.2)")
		}
		if line = line[:len(line)-1]; len(line) == 0 {
			p.state = complete
			return nil
		}
		if most := limit(p.MaxHeaders, DefaultMaxHeaders); p.count == most {
			return refuse(http.StatusRequestHeaderFieldsTooLarge, "more than %d header lines (RFC 6585, section 5)", most)
		}
		p.count++
		if err := checkField(line); err != nil {
			return err
		}
	}
	if p.pos = len(b); p.pos == end {
		return refuse(http.StatusRequestHeaderFieldsTooLarge, "header section of more than %d bytes (RFC 6585, section 5)", end-p.fields)
	}
	return nil
}

// checkField checks a header line against the grammar.
func checkField(line []byte) error {
	i := 0
	for i < len(line) && byteClasses[line[i]]&tokenByte != 0 {
		i++
	}
	switch {
	case i == len(line):
		return refuse(http.StatusBadRequest, "header line %s without a colon (RFC 9112, section 5)", Quote(line))
	case line[i] != ':' && i == 0 && (line[i] == ' ' || line[i] == '\t'):
		return refuse(http.StatusBadRequest, "folded header line, or space before one (RFC 9112, sections 2.2 and 5.2)")
	case line[i] != ':' && (line[i] == ' ' || line[i] == '\t'):
		return refuse(http.StatusBadRequest, "space in the name of header %s (RFC 9112, section 5.1)", Quote(line[:i]))
	case line[i] != ':':
		return refuse(http.StatusBadRequest, "byte %#02x in a header's name (RFC 9110, section 5.1)", line[i])
	case i == 0:
		return refuse(http.StatusBadRequest, "header without a name (RFC 9110, section 5.1)")
	}
	for _, c := range line[i+1:] {
		if byteClasses[c]&valueByte == 0 {
			return refuse(http.StatusBadRequest, "control byte %#02x in the value of header %s (RFC 9110, section 5.5)", c, Quote(line[:i]))
		}
	}
	return nil
}

// parsedRequest is what a request is made of, but for its header's values.
type parsedRequest struct {
	http.Request
	url url.URL
}

// newRequest returns a request and room for the values of as many header lines, in
// one allocation if they are no more than programs send, or than browsers do. The
// allocator adds a word of its own: with room for one more it would take more.
func newRequest(lines int) (r *parsedRequest, values []string) {
	switch {
	case lines <= fewLines:
		few := new(struct {
			parsedRequest
			values [fewLines]string
		})
		return &few.parsedRequest, few.values[:]
	case lines <= someLines:
		some := new(struct {
			parsedRequest
			values [someLines]string
		})
		return &some.parsedRequest, some.values[:]
	}
	return new(parsedRequest), make([]string, lines)
}

const fewLines, someLines = 7, 15

// Memory is for one request after the other: the next one overwrites it.
type Memory struct {
	request parsedRequest
	values  [someLines]string
	header  http.Header
}

// newRequest is newRequest in m, if there is room, with an empty header.
func (m *Memory) newRequest(lines int) (r *parsedRequest, values []string) {
	if m == nil || lines > someLines {
		r, values = newRequest(lines)
		r.Header = make(http.Header, max(lines-1, 0)) // Host isn't in it
		return r, values
	}
	if m.header == nil {
		m.header = make(http.Header, fewLines)
	}
	clear(m.header)
	m.request = parsedRequest{}
	m.request.Header = m.header
	return &m.request, m.values[:]
}

// request makes the *http.Request of a head whose lines were checked, with the
// fields that http.ReadRequest would give it. The strings in it are parts of one.
func (p *Parser) request(b []byte) (*http.Request, error) {
	head := canonicalHead(b[p.start:], p.fields-p.start)
	line, section := head[:p.fields-p.start], head[p.fields-p.start:]
	r, values := p.Memory.newRequest(p.count)
	r.Method = line[:p.target-p.start-1]
	r.RequestURI = line[p.target-p.start : p.version-p.start-1]
	r.Proto = line[p.version-p.start : len(line)-len("\r\n")]
	r.ProtoMajor, r.ProtoMinor = 1, int(line[len(line)-len("0\r\n")]-'0')
	r.URL, r.Body = &r.url, http.NoBody
	if err := parseTarget(r.URL, r.RequestURI); err != nil {
		return nil, err
	}
	if err := fillHeader(&r.Request, section, values); err != nil {
		return nil, err
	}
	connection := r.Header["Connection"]
	r.Close = HasToken(connection, "close") || r.ProtoMinor == 0 && !HasToken(connection, "keep-alive")
	return &r.Request, checkFraming(&r.Request)
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
func parseTarget(u *url.URL, target string) error {
	path, query, found := strings.Cut(target, "?")
	if target[0] == '/' && hasOnly(path, plainPathByte) {
		u.Path, u.RawQuery, u.ForceQuery = path, query, found && query == ""
		return nil
	}
	parsed, err := url.ParseRequestURI(target)
	if err != nil {
		return refuse(http.StatusBadRequest, "request target %s is neither a path nor an address (RFC 9112, section 3.2)", Quote(target))
	}
	*u = *parsed
	if target[0] != '/' && target != "*" && (u.Host == "" || u.User != nil) {
		return refuse(http.StatusBadRequest, "request target %s is neither a path nor an address (RFC 9112, section 3.2)", Quote(target))
	}
	return nil
}

// fillHeader splits the header section into names and values; Host goes into
// its own field, as with http.ReadRequest. values has room for one of each line.
func fillHeader(r *http.Request, section string, values []string) error {
	host, hosts := "", 0
	for len(section) > len("\r\n") {
		end := strings.IndexByte(section, '\r')
		line := section[:end]
		section = section[end+len("\r\n"):]
		colon := strings.IndexByte(line, ':')
		name, value := line[:colon], trim(line[colon+1:])
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

// setHost checks the rules on Host (RFC 9112, section 3.2). Where the target names
// an authority that is the host, whatever Host says (section 3.2.2).
func setHost(r *http.Request, host string, hosts int) error {
	r.Host = cmp.Or(r.URL.Host, host)
	switch {
	case hosts > 1:
		return refuse(http.StatusBadRequest, "%d Host headers instead of one (RFC 9112, section 3.2)", hosts)
	case hosts == 0 && r.ProtoMinor == 0:
		return nil
	case hosts == 0:
		return refuse(http.StatusBadRequest, "no Host header (RFC 9112, section 3.2)")
	}
	if _, _, ok := SplitHost(host); !ok {
		return refuse(http.StatusBadRequest, "Host %s isn't a host with or without a port (RFC 9112, section 3.2)", Quote(host))
	}
	if _, _, ok := SplitHost(r.Host); !ok {
		return refuse(http.StatusBadRequest, "request target of %s, which isn't a host with or without a port (RFC 9112, section 3.2.2)", Quote(r.Host))
	}
	return nil
}

// CheckSize checks a request that net/http has parsed against the limits of a
// Parser, as far as it can be told afterwards: spaces around values are gone.
func CheckSize(r *http.Request, maxHeader int) error {
	if n := len(r.Method) + len(r.RequestURI) + len(r.Proto) + len("  "); n > DefaultMaxLine {
		return refuse(http.StatusRequestURITooLong, "request line of more than %d bytes (RFC 9112, section 3)", DefaultMaxLine)
	}
	const around = len(": \r\n")
	count, size := 1, len("Host")+len(r.Host)+around+len("\r\n")
	for name, values := range r.Header {
		count += len(values)
		for _, v := range values {
			size += len(name) + len(v) + around
		}
	}
	if count > DefaultMaxHeaders {
		return refuse(http.StatusRequestHeaderFieldsTooLarge, "more than %d header lines (RFC 6585, section 5)", DefaultMaxHeaders)
	}
	if most := limit(maxHeader, DefaultMaxHeader); size > most {
		return refuse(http.StatusRequestHeaderFieldsTooLarge, "header section of more than %d bytes (RFC 6585, section 5)", most)
	}
	return nil
}

// checkFraming checks the rules on the length of a body (RFC 9112, section 6).
// The request's fields say that there is a body, but it isn't read here. Trailer
// stays in Header.
func checkFraming(r *http.Request) error {
	lengths, codings := r.Header["Content-Length"], r.Header["Transfer-Encoding"]
	switch {
	case len(lengths) > 0 && len(codings) > 0:
		return refuse(http.StatusBadRequest, "Content-Length and Transfer-Encoding together (RFC 9112, section 6.1)")
	case len(codings) > 0 && r.ProtoMinor == 0:
		return refuse(http.StatusBadRequest, "Transfer-Encoding in HTTP/1.0 (RFC 9112, section 6.1)")
	case len(codings) == 1 && EqualFold(codings[0], "chunked"):
		delete(r.Header, "Transfer-Encoding")
		r.TransferEncoding = []string{"chunked"}
		r.ContentLength = -1
		for _, name := range []string{"Transfer-Encoding", "Content-Length", "Trailer"} {
			if HasToken(r.Header["Trailer"], name) {
				return refuse(http.StatusBadRequest, "%s behind the body (RFC 9110, section 6.5.1)", name)
			}
		}
	case len(codings) > 0:
		return refuseCodings(codings)
	case len(lengths) > 1:
		return refuse(http.StatusBadRequest, "%d Content-Length headers instead of one (RFC 9112, section 6.3)", len(lengths))
	case len(lengths) == 1:
		n, err := strconv.ParseUint(lengths[0], 10, 63)
		if err != nil {
			return refuse(http.StatusBadRequest, "Content-Length %s isn't a length (RFC 9112, section 6.3)", Quote(lengths[0]))
		}
		r.ContentLength = int64(n)
	}
	return nil
}

// refuseCodings answers 501 when it is the coding that isn't known, and 400
// when the list is wrong in itself (RFC 9112, section 6.1).
func refuseCodings(values []string) error {
	for _, v := range values {
		for coding := range strings.SplitSeq(v, ",") {
			coding = trim(coding)
			if coding != "" && !EqualFold(coding, "chunked") {
				return refuse(http.StatusNotImplemented, "Transfer-Encoding %s isn't known (RFC 9112, section 6.1)", Quote(coding))
			}
		}
	}
	return refuse(http.StatusBadRequest, "Transfer-Encoding %s isn't chunked, once (RFC 9112, section 6.1)", Quote(strings.Join(values, ", ")))
}
