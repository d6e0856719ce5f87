package websocket

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/bits"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/rawws/websocket/internal/httphead"
	"github.com/rawws/websocket/internal/netloop"
)

// An Upgrader is the policy of a server's connections: which requests become
// one, and what a connection may cost. The zero value is safe. A zero field
// means its default, a negative number or duration switches the limit off. A
// duration of more than 12 days counts as 12 days, MaxLifetime and IdleTimeout
// excepted. An Upgrader is shared by its connections, never written by the
// library, and must not be changed while it is in use.
type Upgrader struct {
	// The handshake: how much time and room a request has.

	// HandshakeTimeout is the time from accept to the 101 has been written, the
	// TLS handshake and OnUpgrade included; 10 s by default. Over it the socket is
	// closed, or answered with 503 when it is OnUpgrade that takes long.
	HandshakeTimeout time.Duration
	// MaxHeaderBytes limits the request's header section; 16 KiB by default.
	// Over it the request is refused with 431, without storing more. The
	// request line may have 8 KiB (414), the section 100 headers (431). None of
	// these can be switched off.
	MaxHeaderBytes int

	// The handshake: who may connect, and as what.

	// Subprotocols are those that the server speaks, the preferred first. The
	// first one that the client offers is agreed on (RFC 6455, section 1.9).
	Subprotocols []string
	// Origins are the pages that may connect beside those of the server's own
	// host and port, as "https://example.com", "example.com:8080" for http and
	// https (over TLS for https alone), or "https://*.example.com" for its
	// subdomains, but not for itself. "*" allows every Origin, whatever it says, as
	// "null" or the "file://" of an application. Another is refused with 403. A
	// request without Origin doesn't come from a page and is allowed (section 10.2).
	Origins []string
	// CheckOrigin replaces that rule when it is set: where it returns false the
	// request is refused with 403.
	CheckOrigin func(*http.Request) bool
	// AllowedHosts are the values of Host that the server answers to, against
	// DNS rebinding: "example.com" for any port, "example.com:8080",
	// "*.example.com", or "*". The standard port, 443 over TLS and else 80, needn't
	// be sent. Another is refused with 403; an empty list allows all. Where a
	// request's target names a host, that one counts (RFC 9112, section 3.2.2).
	AllowedHosts []string
	// OnUpgrade is called for a request that would be answered with 101, and is
	// the one place to authenticate. What it puts into a holds for this
	// connection. An error refuses the upgrade: a *HandshakeError with its
	// status and reason, any other with 403 and without its text. The reason is
	// sent as a line of text, or as it stands if a.Header has a Content-Type, such
	// as that of JSON.
	//
	// It has what is left of HandshakeTimeout. Then, or when the server is closed,
	// r.Context() ends, context.Cause says why, the client is answered with 503,
	// and what OnUpgrade returns later is thrown away. Behind net/http and on the
	// event loop the context also ends when the client leaves. After the 101 it is
	// the connection's.
	OnUpgrade func(r *http.Request, a *Accept) error
	// OnRefuse is called for each request that was refused, by a rule, a limit
	// or OnUpgrade, when it has been answered: a page isn't told why, so the
	// server's side has to be able to see it. status is that of the answer, and
	// err matches a *HandshakeError with what was wrong; with OnUpgrade's own
	// error in it where that isn't one. Of a request that couldn't be read, or
	// was turned away before, r has nothing but RemoteAddr. It has a goroutine of its
	// own; while 256 of them haven't returned there are no more calls, and a line in
	// the log says so.
	OnRefuse func(r *http.Request, status int, err error)

	// Messages.

	// MaxMessageSize limits a message that comes in, in bytes, after inflating;
	// 1 MiB by default. Over it: close code 1009, told from the header.
	MaxMessageSize int64
	// MaxFragments limits the frames of a message that comes in; 131,072 by
	// default. Over it, or over 64 empty ones in a row: close code 1008.
	MaxFragments int
	// Compression, when set, agrees to permessage-deflate (RFC 7692).
	Compression *Compression

	// Peers that are gone, or stuck.

	// PingInterval is the time between two keep-alive pings, spread by 10 % each
	// way; 25 s by default. Without them, or without PongTimeout, ListenAndServe and
	// the event loop turn on the keep-alive of TCP.
	PingInterval time.Duration
	// PongTimeout is how long a peer may make no progress after a ping before
	// the connection is cut; 20 s by default. Progress is a byte that comes, or one
	// that its system takes from ours. A ping's time begins when it has left, and
	// silence counts only while something waits to read: a callback that takes
	// long, or a handler that only writes, cuts nobody. Where nothing tells what was
	// taken (see WriteTimeout) a ping has left when it was written: there a slow
	// reader needs longer, for what may lie in the system before it.
	PongTimeout time.Duration
	// WriteTimeout is how long a write may wait without the peer's system taking
	// a byte before the connection is cut; 10 s by default. A peer that keeps
	// reading is never cut, however slowly and whatever the size. Linux tells what
	// was taken; elsewhere, and for a net.Conn that shows no socket under it, by
	// SyscallConn or by NetConn, a Write of up to 16 KiB has to return in that time.
	// Over TLS a client reads a whole record, of up to 16 KiB, before it reads on.
	WriteTimeout time.Duration
	// CloseTimeout is how long the closing handshake may make no progress, as
	// the peer reads what was written before; 5 s by default. It can't be switched
	// off. A peer that has our close frame, goes on sending and never answers has
	// five times that.
	CloseTimeout time.Duration
	// MinRate is the bytes in a second that a message under way must make, coming
	// or going, over half a minute; off by default. Under it: close code 1008.
	// It is for servers that strangers reach, so that nobody keeps the memory of a
	// message by a byte now and then. Choose it far below what the slowest
	// network of a client of yours makes, as 100.
	MinRate int

	// Peers that stay too long, or ask for too much.

	// MaxLifetime closes a connection that has been open for so long, or up to a
	// tenth less, so that those which began together don't end together; off by
	// default. The peer is told 1001, "maximum lifetime": it may come back, to be
	// authenticated again, or to another server behind the same address.
	MaxLifetime time.Duration
	// IdleTimeout closes a connection on which no part of a message has come or
	// was taken for so long, whatever pings and pongs say; off by default. The peer is
	// told 1000, "idle": nothing went wrong, and it needn't come back at once.
	IdleTimeout time.Duration
	// MaxControlRate limits the pings and pongs that a peer sends in a second;
	// 1000 by default. A ping of 6 bytes costs an answer and a system call. Over
	// it: close code 1008.
	MaxControlRate int

	// One message to many: Conn.Send and Group.

	// SendQueue bounds what Send holds for a connection behind the message that
	// is being written, in bytes, each message counting 32 more than its frame; 1
	// MiB by default. Over it SlowPolicy decides. A queue that is empty takes any
	// one message.
	SendQueue int
	// SlowPolicy is what becomes of a connection whose queue is full: CloseSlow,
	// the default, DropNewest or DropOldest.
	SlowPolicy SlowPolicy

	// Looking at it.

	// Trace, when set, is shown what goes over the wire.
	Trace *Trace
}

const (
	defaultMaxMessageSize = 1 << 20
	defaultMaxFragments   = 128 << 10
	maxEmptyFragments     = 64
)

// orDefault returns v, def for 0, and off for a negative v.
func orDefault[T int | int64 | time.Duration](v, def, off T) T {
	if v < 0 {
		return off
	}
	return cmp.Or(v, def)
}

// What is longer is cut to it: the instants of a connection's clock come around.
const (
	longestTimeout = 12 * 24 * time.Hour
	longestLife    = time.Duration(math.MaxInt64 / 4) // no sum with it overflows
)

func timeout(v, def time.Duration) time.Duration { return min(orDefault(v, def, 0), longestTimeout) }

func (u *Upgrader) handshakeTimeout() time.Duration {
	return timeout(u.HandshakeTimeout, 10*time.Second)
}
func (u *Upgrader) pingInterval() time.Duration { return timeout(u.PingInterval, 25*time.Second) }
func (u *Upgrader) pongTimeout() time.Duration  { return timeout(u.PongTimeout, 20*time.Second) }
func (u *Upgrader) writeTimeout() time.Duration { return timeout(u.WriteTimeout, 10*time.Second) }
func (u *Upgrader) idleTimeout() time.Duration  { return min(max(u.IdleTimeout, 0), longestLife) }
func (u *Upgrader) maxLifetime() time.Duration  { return min(max(u.MaxLifetime, 0), longestLife) }
func (u *Upgrader) maxFragments() int {
	return orDefault(u.MaxFragments, defaultMaxFragments, math.MaxInt32)
}

// closeTimeout can't be switched off: a peer that never answers would stay.
func (u *Upgrader) closeTimeout() time.Duration {
	return min(orDefault(u.CloseTimeout, 5*time.Second, 5*time.Second), longestTimeout)
}

func (u *Upgrader) maxControlRate() int { return orDefault(u.MaxControlRate, 1000, math.MaxInt) }

func (u *Upgrader) maxHeaderBytes() int {
	return orDefault(u.MaxHeaderBytes, httphead.DefaultMaxHeader, httphead.DefaultMaxHeader)
}

func (u *Upgrader) sendQueue() int { return orDefault(u.SendQueue, 1<<20, math.MaxInt) }

func (u *Upgrader) maxMessageSize() uint64 {
	n := orDefault(u.MaxMessageSize, defaultMaxMessageSize, math.MaxInt64)
	return min(uint64(n), math.MaxInt) // a message is one []byte
}

// bitLen is bits.Len of an int that isn't negative.
func bitLen(n int) int { return bits.Len(uint(n)) }

// Upgrade reads a handshake from nc and answers it, with the zero Upgrader.
func Upgrade(nc net.Conn) (*Conn, *http.Request, error) { return zeroUpgrader.Upgrade(nc) }

var zeroUpgrader Upgrader

// Upgrade reads a handshake from nc and answers it (RFC 6455, section 4.2). A
// request that isn't a lawful upgrade, or that u refuses, is answered with its
// status and one line of text, and the error matches a *HandshakeError, through
// errors.As; so it does when a callback of u's panics, for which the client gets
// 500. Any other error is that of the network. With an error nc is closed. Frames
// that came with the request are the connection's first bytes. The caller reads
// and closes the connection.
func (u *Upgrader) Upgrade(nc net.Conn) (*Conn, *http.Request, error) {
	reg := standalone(u)
	defer reg.settle()
	h := newHandshake(reg, nil, nc)
	c, err := h.serve()
	if err != nil {
		return nil, nil, err
	}
	return c, h.r, nil
}

// standalones are the registries of Upgraders used without a Server; an entry
// exists while it has connections.
var standalones = struct {
	sync.Mutex
	of map[*Upgrader]*registry
}{of: make(map[*Upgrader]*registry)}

func standalone(u *Upgrader) *registry {
	standalones.Lock()
	defer standalones.Unlock()
	g := standalones.of[u]
	if g == nil {
		g = &registry{u: u, standalone: true}
		standalones.of[u] = g
	}
	g.pending.Add(1)
	return g
}

// forget drops an empty registry from the table, unless an Upgrade is about to
// add to it.
func (g *registry) forget() {
	standalones.Lock()
	defer standalones.Unlock()
	if g.pending.Load() == 0 && g.count() == 0 && standalones.of[g.u] == g {
		delete(standalones.of, g.u)
	}
}

// writeAnswer writes the answer of a handshake. by is for a socket of the loop's;
// others have their deadline already. One costs such a socket memory for its whole
// life, so it is set only when the answer has to wait.
func (g *registry) writeAnswer(nc net.Conn, answer []byte, by time.Time) error {
	if s, ok := nc.(*netloop.Socket); ok {
		n, err := s.TryWrite(answer, nil)
		if n == len(answer) || err != nil && err != netloop.ErrWait {
			return err
		}
		answer = answer[n:]
		if !by.IsZero() {
			s.SetWriteDeadline(by)
		}
	}
	_, err := g.write(nc, answer)
	return err
}

// hangUp answers err, if it is a refusal, and closes the socket. r is the request
// that was refused, nil if it wasn't read. Inside of Ready only the answer may wait,
// if the application has made it large.
func (h *handshake) hangUp(r *http.Request, err error, extra http.Header, inside bool) {
	h.mu.Lock()
	t := h.trace // start may be setting it
	h.mu.Unlock()
	defer t.closed(err)
	var refused *HandshakeError
	if !errors.As(err, &refused) {
		h.reg.cutConn(h.nc) // TLS may have counted a 101 that never left: an alert behind it wouldn't decrypt
		return
	}
	answer := appendRefusal(nil, refused, withDate(extra))
	if r != nil && r.Method == http.MethodHead { // without content (RFC 9110, section 9.3.2)
		answer = answer[:bytes.Index(answer, []byte("\r\n\r\n"))+len("\r\n\r\n")]
	}
	t.refusal(answer)
	if !inside {
		h.reg.writeAnswer(h.nc, answer, time.Time{})
		h.reg.linger(h.nc)
		return
	}
	h.reg.writeAnswer(h.nc, answer, h.deadline)
	beginLinger(h.sock, time.Now().Add(lingerTime))
	h.sock.Become(&lingerer{h, lingerBytes})
	h.stays = true
}

// withDate returns h with the time, which an answer of 400 and more carries
// (RFC 9110, section 6.6.1). net/http adds its own.
func withDate(h http.Header) http.Header {
	if hasField(h, "Date") {
		return h
	}
	if h = h.Clone(); h == nil {
		h = http.Header{}
	}
	h.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	return h
}

// An answer is what goes into the 101, and what holds for the connection behind it.
type answer struct {
	Accept
	key, extensions string
	deflate         *deflateState
}

// settle makes c keep what was agreed on.
func (a *answer) settle(c *Conn) {
	c.deflate = a.deflate
	c.Data = a.Data
	if a.MaxMessageSize != 0 {
		c.SetMaxMessageSize(a.MaxMessageSize)
	}
	if a.Subprotocol != "" {
		c.details().subprotocol = a.Subprotocol
	}
}

// negotiate holds a request against the RFC and the policy.
func (u *Upgrader) negotiate(r *http.Request) (a answer, err error) {
	if a.key, err = checkUpgrade(r); err != nil {
		return a, err
	}
	if err := checkHost(r, u.AllowedHosts); err != nil {
		return a, err
	}
	if u.CheckOrigin == nil {
		err = checkOrigin(r, r.TLS != nil, u.Origins)
	} else if !u.CheckOrigin(r) {
		err = refuse(http.StatusForbidden, "Origin %s (Upgrader.CheckOrigin)", quote(r.Header.Get("Origin")))
	}
	if err != nil {
		return a, err
	}
	a.Subprotocol = selectSubprotocol(r, u.Subprotocols)
	if u.OnUpgrade != nil {
		if err := u.askApplication(r, &a); err != nil {
			return a, err
		}
	}
	// Last, since OnUpgrade may take long, and what is free of ContextMemory is only
	// known when the connection comes to take it.
	if u.Compression != nil {
		err = a.negotiateDeflate(r, u.Compression)
	}
	return a, err
}

// UpgradeHTTP is Upgrade behind net/http: it answers a request that an
// http.Handler got, and takes the connection over, which goes on when that Handler
// has returned. Bytes that net/http had read are kept. After an error the request
// has been answered, or its connection is closed. HTTP/2 requests are refused: the
// TLS configuration must offer http/1.1 only.
func (u *Upgrader) UpgradeHTTP(w http.ResponseWriter, r *http.Request) (*Conn, error) {
	reg := standalone(u)
	defer reg.settle()
	return newHandshakeHTTP(reg, nil, w, r).serve()
}

// takeOver takes the connection from net/http, with the bytes that it had read.
func (h *handshake) takeOver() error {
	nc, brw, err := http.NewResponseController(h.w).Hijack()
	if err != nil {
		return fmt.Errorf("websocket: %w (%w)", err, refuse(http.StatusInternalServerError,
			"the connection can't be taken over from a %T", h.w))
	}
	h.reg.setDeadline(nc, net.Conn.SetDeadline, h.deadline)
	buffered, _ := brw.Reader.Peek(brw.Reader.Buffered())
	var unread []byte // by net/http
	if pc, ok := nc.(*plainConn); ok {
		nc, unread, h.from = pc.Conn, pc.head, pc.from
		h.trace = pc.release()
	}
	if n := len(buffered) + len(unread); n > 0 {
		h.in = getBuffer(n)
		h.in.w = copy(h.in.b, buffered)
		h.in.w += copy(h.in.b[h.in.w:], unread)
	}
	if h.trace == nil {
		h.trace = h.reg.u.Trace.accepted(nc, h.reg)
	}
	h.trace.requestHTTP(h.r)
	h.setConn(nc)
	return nil
}

// refuseHTTP has net/http refuse the request in what is left of HandshakeTimeout.
func (h *handshake) refuseHTTP(r *http.Request, err error, extra http.Header) {
	control := http.NewResponseController(h.w)
	if soon := time.Now().Add(refusalTime); h.deadline.After(soon) {
		control.SetWriteDeadline(h.deadline)
	} else if !h.deadline.IsZero() { // it is over, or nearly
		control.SetWriteDeadline(soon)
	}
	var refused *HandshakeError
	if !errors.As(err, &refused) {
		refused = &HandshakeError{Status: http.StatusServiceUnavailable}
	}
	raw := appendRefusal(nil, refused, extra) // as hangUp would send it
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(raw)), r)
	if err != nil {
		http.Error(h.w, refused.Reason, http.StatusInternalServerError)
		return
	}
	header := h.w.Header()
	maps.Copy(header, resp.Header)
	header.Set("Connection", "close")
	if refused.Status == http.StatusUpgradeRequired {
		header.Add("Connection", "Upgrade") // net/http closes if the first value is close
	}
	h.w.WriteHeader(resp.StatusCode)
	io.Copy(h.w, resp.Body)
	control.Flush() // runtime.Goexit keeps net/http from doing so
}

// An Accept is what Upgrader.OnUpgrade decides for one connection. OnUpgrade gets
// it as the Upgrader's own rules have it, and changes what is to be different.
type Accept struct {
	// Header goes into the answer, the 101 or the refusal: cookies, mostly. Where
	// it has a field of the handshake's, Content-Length, a Content-Type for a 101,
	// or a name or value that may not be sent, the client gets 500. The reason of a
	// refusal with a Content-Type is content of that type, and not a line of text.
	Header http.Header
	// Data is the first value of the connection's Data: who it is.
	Data any
	// Subprotocol is what the answer agrees on: the one that was chosen from
	// Upgrader.Subprotocols, "" for none. Another has to be among those that the
	// client offers (see Subprotocols). With one that isn't the client would break
	// off (RFC 6455, section 4.1); it gets 500 instead.
	Subprotocol string
	// MaxMessageSize limits the messages of this connection, as
	// Upgrader.MaxMessageSize does those of all; 0 leaves it at that, and a negative
	// number means no limit.
	MaxMessageSize int64
	// Handler serves this connection instead of the Server's: OnUpgrade is where
	// paths become routes. A pointer to an Events, made once, saves a copy of it
	// for each connection. Without one here and in the Server the client gets 404.
	// Upgrade and UpgradeHTTP don't look at it: there the caller serves.
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
// the client can't set another header, as a page in a browser can't, it may put a
// token there, to be checked by OnUpgrade.
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
	if g.telling.Add(1) > maxTellings {
		g.telling.Add(-1)
		g.logFault(logUntold, "websocket: OnRefuse doesn't keep up, and isn't called", "remote", remote, "status", refused.status())
		return
	}
	// On a goroutine of its own: it may take its time, and the socket, its place and
	// Shutdown don't wait for it.
	g.pending.Add(1)
	go func() {
		defer g.settle()
		defer g.telling.Add(-1)
		g.guard(nobody{}, func() { g.u.OnRefuse(r, refused.status(), err) })
	}()
}

// maxTellings bounds the calls of OnRefuse at the same time: each has a goroutine and
// a request, of up to MaxHeaderBytes, and strangers are refused as often as they like.
const maxTellings = 256

// askApplication lets OnUpgrade decide, and holds what it says against what an
// answer may be.
func (u *Upgrader) askApplication(r *http.Request, a *answer) error {
	accept := Accept{Header: make(http.Header), Subprotocol: a.Subprotocol}
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
	a.Accept = accept
	return err
}
