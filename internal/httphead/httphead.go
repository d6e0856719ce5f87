// Package httphead reads the heads of HTTP/1.1 requests, more strictly than the
// RFCs ask, and the grammars of their fields: tokens, lists, quoted strings,
// hosts, origins, Forwarded. The server's own listener reads its requests with
// it, and requests that net/http has read are checked by the same rules.
//
// Bytes go in, values come out. It must never know what a request is for: no
// WebSocket, no policy of an Upgrader, no socket, deadline or lock. Whoever
// calls it decides what is refused beyond the grammar, and writes the answers.
package httphead

import (
	"fmt"
	"strconv"
)

// An Error is why a request was refused.
type Error struct {
	Status int    // of the HTTP answer, 400 to 599
	Reason string // one line: what was received, and which rule it broke
}

// Error gives the reason.
func (e *Error) Error() string { return e.Reason }

// refuse makes the error that is answered to the client.
func refuse(status int, format string, args ...any) error {
	return &Error{Status: status, Reason: fmt.Sprintf(format, args...)}
}

// Quote makes bytes of the client fit for a line of a log or an answer.
func Quote[T string | []byte](s T) string {
	if len(s) > 64 {
		return strconv.QuoteToASCII(string(s[:64])) + "..."
	}
	return strconv.QuoteToASCII(string(s))
}
