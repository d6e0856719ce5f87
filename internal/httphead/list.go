package httphead

import (
	"slices"
	"strings"
)

// The classes of bytes that the grammars are made of.
const (
	tokenByte      = 1 << iota // tchar (RFC 9110, section 5.6.2)
	valueByte                  // field-vchar, obs-text, SP and HTAB (RFC 9110, section 5.5)
	targetByte                 // visible ASCII but "#", which never is sent (RFC 9112, section 3.2)
	queryByte                  // the same, and the bytes over ASCII that some clients send as they are
	hostByte                   // unreserved and sub-delims (RFC 3986, section 3.2.2)
	obfuscatedByte             // those of a obfuscated name (RFC 7239, section 6.3)
	plainPathByte              // those of a path that stand for themselves, escaped or not
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
		if c > ' ' && c != 0x7f && c != '#' {
			t[i] |= queryByte
		}
		if alnum || strings.IndexByte("-._~!$&'()*+,;=", c) >= 0 {
			t[i] |= hostByte
		}
		if alnum || strings.IndexByte("._-", c) >= 0 {
			t[i] |= obfuscatedByte
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

// IsToken reports whether s is a token (RFC 9110, section 5.6.2).
func IsToken(s string) bool { return s != "" && hasOnly(s, tokenByte) }

// IsValue reports whether s may be the value of a field (RFC 9110, section 5.5).
func IsValue(s string) bool { return hasOnly(s, valueByte) }

// EqualFold compares without regard to the case of ASCII letters only: under
// Unicode's folding U+212A (Kelvin) would be a "k", and "websoc\u212Aet" the token.
func EqualFold(a, b string) bool {
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

// MaxElements bounds the elements of a list whose elements are looked at one by
// one, so that comparing each with all others stays cheap.
const MaxElements = 64

// trim removes the space at both ends of a value or an element.
func trim(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// HasToken reports whether a token is among the elements of a header's lines. An
// element that only begins with it, as "websocket/13" does, is another.
func HasToken(values []string, token string) bool {
	for _, v := range values {
		for more := true; more; {
			var element string
			element, v, more = strings.Cut(v, ",")
			if EqualFold(trim(element), token) {
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
// quoted pairs are decoded (RFC 6455, section 9.1); "" if there is neither.
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
				value = decodePairs(value)
			}
			if !IsToken(value) {
				return ""
			}
			return value
		}
	}
	return ""
}

// decodePairs decodes the quoted pairs of a string that doesn't end inside one.
func decodePairs(s string) string {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' {
			i++
		}
		b = append(b, s[i])
	}
	return string(b)
}

// An Element of a list is a token with parameters (RFC 9110, section 5.6.6).
type Element struct {
	Name   string
	Params []Param
}

// A Param is a parameter of an element. Value is "" if none was given: one that
// is given is a token.
type Param struct{ Name, Value string }

// ParseElements reads the lines of a list of elements that are names or have
// parameters behind them, in time that is linear in their length:
//
//	1#( token *( OWS ";" OWS token [ OWS "=" OWS ( token | quoted-string ) ] ) )
//
// A quoted string has to hold a token, and elements and parameters together may
// be MaxElements. Where the lines are something else, ok is false and wrong the
// line at fault. Lines without any element are lawful.
func ParseElements(lines []string) (list []Element, wrong string, ok bool) {
	list, _, wrong, ok = scanElements(lines, true)
	return list, wrong, ok
}

// CheckElements is ParseElements without its allocations. It returns the number
// of elements and parameters.
func CheckElements(lines []string) (count int, wrong string, ok bool) {
	_, count, wrong, ok = scanElements(lines, false)
	return count, wrong, ok
}

// scanElements checks the lines, and keeps what they hold if asked to.
func scanElements(lines []string, keep bool) (list []Element, count int, wrong string, ok bool) {
	for _, line := range lines {
		l := lexer{line}
		for l.element() {
			e := Element{Name: l.token()}
			count++
			ok := e.Name != ""
			for ok && count <= MaxElements && !l.end() {
				var param Param
				param, ok = l.param()
				if count++; keep {
					e.Params = append(e.Params, param)
				}
			}
			if !ok || count > MaxElements {
				return nil, 0, line, false
			}
			if keep {
				list = append(list, e)
			}
		}
	}
	return list, count, "", true
}

// param takes the semicolon and the parameter behind it.
func (l *lexer) param() (p Param, ok bool) {
	if !l.accept(';') {
		return p, false
	}
	l.space()
	if p.Name = l.token(); p.Name == "" {
		return p, false
	}
	l.space()
	if !l.accept('=') {
		return p, true
	}
	l.space()
	p.Value = l.tokenOrQuoted()
	return p, p.Value != ""
}

// AppendTokens reads the lines of a list of at most MaxElements different
// tokens. Where they are something else, ok is false and wrong the line at
// fault. Lines without any token are lawful.
func AppendTokens(dst, lines []string) (list []string, wrong string, ok bool) {
	for _, line := range lines {
		l := lexer{line}
		for l.element() {
			name := l.token()
			if name == "" || !l.end() || len(dst) == MaxElements || slices.Contains(dst, name) {
				return nil, line, false
			}
			dst = append(dst, name)
		}
	}
	return dst, "", true
}
