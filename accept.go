package websocket

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
)

// An Accept is what Upgrader.OnUpgrade decides for one connection. Its fields
// are those of a request that is granted by the Upgrader's own rules;
// OnUpgrade changes what is to be different.
type Accept struct {
	// Header goes into the answer, the 101 or the refusal: cookies, mostly. The
	// fields of the handshake and Content-Length can't be set: the client gets
	// 500. A Content-Type is for a refusal, whose reason is content of that type
	// then, and not a line of text.
	Header http.Header
	// Data is the first value of the connection's Data: who it is.
	Data any
	// Subprotocol is what the answer agrees on: the one that was chosen from
	// Upgrader.Subprotocols, "" for none. Another has to be among those that the
	// client offers (see Subprotocols), which would break the connection off
	// otherwise (RFC 6455, section 4.1): the client gets 500.
	Subprotocol string
	// MaxMessageSize limits the messages of this connection, as
	// Upgrader.MaxMessageSize does those of all; 0 leaves it at that.
	MaxMessageSize int64
	// Handler serves this connection instead of the Server's: OnUpgrade is where
	// paths become routes. An Events by its pointer isn't copied for each
	// connection. Without one here and in the Server the client gets 404. It is
	// not looked at where the caller serves, as that of Upgrade and UpgradeHTTP.
	Handler Handler
}

// asEvents returns h if it is an Events, and nil for another Handler.
func asEvents(h Handler) *Events {
	switch h := h.(type) {
	case Events:
		return &h
	case *Events:
		return h
	}
	return nil
}

var errNoHandler = refuse(http.StatusNotFound, "no WebSocket is served here")

// Subprotocols returns the subprotocols that a request offers, the preferred
// first (RFC 6455, section 11.3.4), and none where they are ill-formed. Where
// the client can't set another header, a browser's page among them, it may put
// a token there.
func Subprotocols(r *http.Request) []string {
	offered, err := appendSubprotocols(nil, r.Header["Sec-Websocket-Protocol"])
	if err != nil {
		return nil
	}
	return offered
}

// tellRefusal shows OnRefuse a handshake that err has ended, if it was answered. r
// is nil when it wasn't read.
func (g *registry) tellRefusal(r *http.Request, remote string, err error) {
	var refused *HandshakeError
	if g.u.OnRefuse == nil || !errors.As(err, &refused) {
		return
	}
	if r == nil {
		r = &http.Request{RemoteAddr: remote, URL: new(url.URL), Header: make(http.Header)}
	}
	g.guard(nobody{}, func() { g.u.OnRefuse(r, refused.status(), err) })
}

// askApplication lets OnUpgrade decide, and holds what it says against what an
// answer may be.
func (u *Upgrader) askApplication(r *http.Request, a *answer) error {
	accept := Accept{Header: make(http.Header), Subprotocol: a.subprotocol}
	err := u.OnUpgrade(r, &accept)
	var refused *HandshakeError
	if err != nil && !errors.As(err, &refused) {
		delete(accept.Header, contentType) // the text is ours
		err = fmt.Errorf("%w (%w)", err, refuse(http.StatusForbidden, "refused"))
	}
	bad := checkExtraHeader(accept.Header, err != nil)
	if p := accept.Subprotocol; bad == nil && err == nil && p != "" && !slices.Contains(Subprotocols(r), p) {
		bad = fmt.Errorf("websocket: subprotocol %s, which the client doesn't offer (RFC 6455, section 4.1)", quote(p))
	}
	if bad != nil {
		bad = fmt.Errorf("%w (%w)", bad, refuse(http.StatusInternalServerError, "internal server error"))
		if err != nil {
			bad = fmt.Errorf("%w, instead of OnUpgrade's %w", bad, err)
		}
		return bad
	}
	a.extra, a.subprotocol = accept.Header, accept.Subprotocol
	a.data, a.limit, a.handler = accept.Data, accept.MaxMessageSize, accept.Handler
	return err
}
