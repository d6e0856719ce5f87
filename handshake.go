package websocket

import (
	"cmp"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/rawws/websocket/internal/httphead"
)

// refuse makes the error that is answered to the client.
func refuse(status int, format string, args ...any) error {
	return &HandshakeError{Status: status, Reason: fmt.Sprintf(format, args...)}
}

// refusal makes an error of package httphead the one that is answered to the
// client.
func refusal(err error) error {
	if e, ok := err.(*httphead.Error); ok {
		return &HandshakeError{Status: e.Status, Reason: e.Reason}
	}
	return err
}

// quote makes bytes of the client fit for a line of a log or an answer.
func quote[T string | []byte](s T) string { return httphead.Quote(s) }

// wantsUpgrade tells a request for a WebSocket from one for plain HTTP.
func wantsUpgrade(r *http.Request) bool {
	return httphead.HasToken(r.Header["Upgrade"], "websocket")
}

// checkUpgrade checks the rules of an upgrade (RFC 6455, section 4.2.1), for
// requests of our parser and of net/http. It returns the client's key.
func checkUpgrade(r *http.Request) (key string, err error) {
	if err := checkRequest(r); err != nil {
		return "", err
	}
	if !wantsUpgrade(r) {
		return "", refuse(http.StatusUpgradeRequired, "a WebSocket is served here, and Upgrade is %s instead of websocket (RFC 6455, section 4.2.1)", quote(strings.Join(r.Header["Upgrade"], ", ")))
	}
	if !httphead.HasToken(r.Header["Connection"], "upgrade") {
		return "", refuse(http.StatusUpgradeRequired, "Connection is %s, without Upgrade (RFC 6455, section 4.2.1)", quote(strings.Join(r.Header["Connection"], ", ")))
	}
	if err := checkVersion(r.Header); err != nil {
		return "", err
	}
	keys := r.Header["Sec-Websocket-Key"]
	if len(keys) != 1 {
		return "", refuse(http.StatusBadRequest, "%d Sec-WebSocket-Key headers instead of one (RFC 6455, section 4.2.1)", len(keys))
	}
	if !isKey(keys[0]) {
		return "", refuse(http.StatusBadRequest, "Sec-WebSocket-Key %s isn't 16 bytes in base64 (RFC 6455, section 4.2.1)", quote(keys[0]))
	}
	if err := checkExtensions(r.Header["Sec-Websocket-Extensions"]); err != nil {
		return "", err
	}
	var buf [8]string
	if _, err := appendSubprotocols(buf[:0], r.Header["Sec-Websocket-Protocol"]); err != nil {
		return "", err
	}
	return keys[0], nil
}

// checkRequest checks what an upgrade requires of any request.
func checkRequest(r *http.Request) error {
	switch {
	case r.ProtoMajor != 1:
		return refuse(http.StatusHTTPVersionNotSupported, "%s, but an upgrade is made in HTTP/1.1 (RFC 6455, section 4.2.1)", quote(r.Proto))
	case r.ProtoMinor == 0:
		return refuse(http.StatusUpgradeRequired, "HTTP/1.0 knows no upgrade (RFC 6455, section 4.2.1)")
	case r.Method != http.MethodGet:
		return refuse(http.StatusMethodNotAllowed, "method %s, but an upgrade is a GET (RFC 6455, section 4.2.1)", quote(r.Method))
	case r.RequestURI == "*" || r.URL.Scheme != "" && httphead.StandardPort(r.URL.Scheme) == "":
		return refuse(http.StatusBadRequest, "request target %s, an upgrade asks for a path (RFC 6455, section 4.2.1)", quote(r.RequestURI))
	case len(r.TransferEncoding) > 0 || r.ContentLength != 0:
		return refuse(http.StatusBadRequest, "an upgrade with a body (RFC 9110, section 9.3.1)")
	}
	if _, _, ok := httphead.SplitHost(r.Host); !ok {
		return refuse(http.StatusBadRequest, "Host %s isn't a host with or without a port (RFC 6455, section 4.2.1)", quote(r.Host))
	}
	return refusal(httphead.CheckTarget(cmp.Or(r.RequestURI, "/")))
}

// checkVersion requires Sec-WebSocket-Version: 13 (RFC 6455, section 4.4).
func checkVersion(h http.Header) error {
	versions := h["Sec-Websocket-Version"]
	switch {
	case len(versions) > 1:
		return refuse(http.StatusBadRequest, "%d Sec-WebSocket-Version headers instead of one (RFC 6455, section 4.2.1)", len(versions))
	case len(versions) == 0 && (h["Sec-Websocket-Key1"] != nil || h["Sec-Websocket-Key2"] != nil):
		return refuse(http.StatusUpgradeRequired, "the handshake of draft hixie-76, spoken by old browsers such as that of iOS 4 and 5: version 13 is needed (RFC 6455, section 4.2.1)")
	case len(versions) == 0:
		return refuse(http.StatusUpgradeRequired, "no Sec-WebSocket-Version, 13 is needed (RFC 6455, section 4.4)")
	case versions[0] != "13":
		return refuse(http.StatusUpgradeRequired, "Sec-WebSocket-Version %s, 13 is needed (RFC 6455, section 4.4)", quote(versions[0]))
	}
	return nil
}

// isKey reports whether s is 16 bytes in base64, which is 22 digits and the
// padding. Four bits of the last digit stand for nothing; they needn't be 0, and
// aren't in the RFC's own example (section 4.1, item 7).
func isKey(s string) bool {
	var buf [18]byte
	if len(s) != 24 || strings.ContainsAny(s, "\r\n") {
		return false
	}
	n, err := base64.StdEncoding.Decode(buf[:], []byte(s))
	return err == nil && n == 16
}

// checkExtensions checks the grammar of Sec-WebSocket-Extensions (RFC 6455,
// section 9.1).
func checkExtensions(lines []string) error {
	count, wrong, ok := httphead.CheckElements(lines)
	switch {
	case !ok:
		return refuse(http.StatusBadRequest, "Sec-WebSocket-Extensions %s, not a list of at most %d extensions and parameters (RFC 6455, section 9.1)", quote(wrong), httphead.MaxElements)
	case len(lines) > 0 && count == 0:
		return refuse(http.StatusBadRequest, "empty Sec-WebSocket-Extensions (RFC 6455, section 9.1)")
	}
	return nil
}

// parseExtensions reads the lines of Sec-WebSocket-Extensions.
func parseExtensions(lines []string) ([]httphead.Element, error) {
	if err := checkExtensions(lines); err != nil {
		return nil, err
	}
	list, _, _ := httphead.ParseElements(lines)
	return list, nil
}

// appendSubprotocols reads the lines of Sec-WebSocket-Protocol, a list of
// different tokens (RFC 6455, section 4.1, item 10). An empty one asks for none:
// several clients send it when the application named no subprotocol.
func appendSubprotocols(dst, lines []string) ([]string, error) {
	list, wrong, ok := httphead.AppendTokens(dst, lines)
	if !ok {
		return nil, refuse(http.StatusBadRequest, "Sec-WebSocket-Protocol %s, not a list of at most %d different subprotocols (RFC 6455, section 4.1)", quote(wrong), httphead.MaxElements)
	}
	return list, nil
}

// selectSubprotocol takes the first of ours that the client offers, "" if it
// offers none of them (RFC 6455, section 4.2.2). Names are case-sensitive. r was
// through checkUpgrade.
func selectSubprotocol(r *http.Request, supported []string) string {
	var buf [8]string
	offered, _ := appendSubprotocols(buf[:0], r.Header["Sec-Websocket-Protocol"])
	for _, name := range supported {
		if slices.Contains(offered, name) {
			return name
		}
	}
	return ""
}

// checkOrigin refuses pages of other sites (RFC 6455, section 10.2):
// browsers let any page connect to any server, cookies included. Clients that
// aren't browsers send no Origin and could send any. allowed is
// Upgrader.Origins.
func checkOrigin(r *http.Request, secure bool, allowed []string) error {
	values := r.Header["Origin"]
	switch {
	case len(values) == 0:
		return nil
	case len(values) > 1:
		return refuse(http.StatusForbidden, "%d Origin headers instead of one (RFC 6454, section 7.3)", len(values))
	case httphead.AllowsOrigin(allowed, values[0], r.Host, secure):
		return nil
	}
	over := ""
	if secure {
		over = " over TLS"
	}
	return refuse(http.StatusForbidden, "Origin %s isn't that of Host %s%s, and Upgrader.Origins doesn't allow it (RFC 6455, section 10.2)", quote(values[0]), quote(r.Host), over)
}

// checkHost refuses names that aren't ours: by DNS rebinding a page of another
// site gets its own host in Origin and in Host.
// allowed is Upgrader.AllowedHosts; an empty list allows all.
func checkHost(r *http.Request, allowed []string) error {
	if len(allowed) == 0 || httphead.AllowsHost(allowed, r.Host, r.TLS != nil) {
		return nil
	}
	return refuse(http.StatusForbidden, "Host %s isn't among Upgrader.AllowedHosts, which keep DNS rebinding out", quote(r.Host))
}

// The GUID has no meaning but that whoever appends it knows RFC 6455 (section 1.3).
const acceptGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// appendAcceptKey proves that the answer comes from a WebSocket server, and
// not from one that sends back what it gets (RFC 6455, section 4.2.2, item 5.4).
func appendAcceptKey(dst []byte, key string) []byte {
	var buf [64]byte
	sum := sha1.Sum(append(append(buf[:0], key...), acceptGUID...))
	return base64.StdEncoding.AppendEncode(dst, sum[:])
}

// checkExtraHeader checks what the application adds to the answer. A CR or LF
// in it would end the header early and let whoever chose the value write the
// rest; the fields of the handshake and of the message's length are ours. A
// refusal has content, whose type may be the application's.
func checkExtraHeader(h http.Header, refusal bool) error {
	for name, values := range h {
		if !httphead.IsToken(name) {
			return fmt.Errorf("websocket: header name %s (RFC 9110, section 5.1)", quote(name))
		}
		content := refusal && len(values) == 1 && httphead.EqualFold(name, contentType)
		if isReserved(name) && !content {
			return fmt.Errorf("websocket: header %s is written by the handshake", name)
		}
		for _, v := range values {
			if !httphead.IsValue(v) {
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
	return len(name) >= len(prefix) && httphead.EqualFold(name[:len(prefix)], prefix)
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

// status is that of the answer, 500 where e has one that isn't a refusal's.
func (e *HandshakeError) status() int {
	if e.Status < 300 || e.Status > 599 || e.Status == http.StatusNotModified {
		return http.StatusInternalServerError
	}
	return e.Status
}

// appendRefusal appends the answer to a request that was refused: a line of text,
// or the reason as it stands if extra names its type. extra was through
// checkExtraHeader.
func appendRefusal(dst []byte, e *HandshakeError, extra http.Header) []byte {
	status := e.status()
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
	if (status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests) && !hasField(extra, "Retry-After") {
		dst = appendField(dst, "Retry-After", retryAfter)
	}
	dst = appendHeaderFields(dst, extra)
	content := e.Reason
	if !hasField(extra, contentType) {
		dst = appendField(dst, contentType, "text/plain; charset=utf-8")
		content = oneLine(cmp.Or(content, http.StatusText(status)))
	}
	dst = append(dst, "Content-Length: "...)
	dst = strconv.AppendInt(dst, int64(len(content)), 10)
	return append(append(dst, "\r\n\r\n"...), content...)
}

const contentType = "Content-Type"

// oneLine makes a line of what the application gave as a reason, which may hold
// anything.
func oneLine(reason string) string {
	b := append([]byte(reason), '\n')
	for i, c := range b[:len(reason)] {
		if c < ' ' || c == 0x7f {
			b[i] = ' '
		}
	}
	return string(b)
}

// retryAfter is in seconds. A client that comes back sooner would most likely be
// refused again.
const retryAfter = "5"

func hasField(h http.Header, name string) bool {
	for key := range h {
		if httphead.EqualFold(key, name) {
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
