package websocket

import (
	"net/http"
	"slices"
	"strings"
)

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

// maxListElements bounds the elements of a list that are told apart one by
// one: with it, comparing each with each stays cheap.
const maxListElements = 64

// trim takes the space off both ends of a value or an element.
func trim(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// hasListToken looks for a token among the elements of a header's lines. An
// element that only begins with it, as "websocket/13" does, isn't it.
func hasListToken(values []string, token string) bool {
	for _, v := range values {
		for more := true; more; {
			var element string
			element, v, more = strings.Cut(v, ",")
			if equalFold(trim(element), token) {
				return true
			}
		}
	}
	return false
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
	pairs := false
	for i := 0; i < len(l.s); i++ {
		switch l.s[i] {
		case '\\':
			pairs = true
			i++
		case '"':
			value := l.s[:i]
			l.s = l.s[i+1:]
			if pairs {
				value = unpair(value)
			}
			if !isToken(value) {
				return ""
			}
			return value
		}
	}
	return ""
}

// unpair undoes the quoted pairs of a string in which none is cut.
func unpair(s string) string {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' {
			i++
		}
		b = append(b, s[i])
	}
	return string(b)
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
	return scanExtensions(values, true)
}

// scanExtensions checks the lines, and keeps what they hold if asked to.
func scanExtensions(values []string, keep bool) (list []extension, err error) {
	count := 0
	for _, v := range values {
		l := lexer{v}
		for l.element() {
			e := extension{name: l.token()}
			count++
			ok := e.name != ""
			for ok && count <= maxListElements && !l.end() {
				var param extensionParam
				param, ok = l.param()
				if count++; keep {
					e.params = append(e.params, param)
				}
			}
			if !ok || count > maxListElements {
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
func appendSubprotocols(dst, values []string) ([]string, error) {
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
