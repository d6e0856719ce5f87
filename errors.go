package websocket

import (
	"errors"
	"fmt"
	"net"
	"net/http"
)

// A CloseCode is the status code of a closing handshake (RFC 6455, section 7.4).
type CloseCode uint16

// The registered close codes (RFC 6455, section 7.4.1, and the IANA registry).
// CloseNoStatus, CloseAbnormal and CloseTLSHandshake never stand in a frame:
// they report what an endpoint saw. Codes from 3000 to 3999 are for libraries and
// frameworks, those from 4000 to 4999 for applications (section 7.4.2).
const (
	CloseNormal             CloseCode = 1000 // the purpose was fulfilled
	CloseGoingAway          CloseCode = 1001 // a server going down, a page left
	CloseProtocolError      CloseCode = 1002 // a rule of the protocol was broken
	CloseUnsupportedData    CloseCode = 1003 // a type of data that isn't accepted
	CloseNoStatus           CloseCode = 1005 // the close frame carried no code
	CloseAbnormal           CloseCode = 1006 // the stream ended without a close frame
	CloseInvalidPayload     CloseCode = 1007 // text that isn't UTF-8, data that doesn't inflate
	ClosePolicyViolation    CloseCode = 1008 // a limit or a rule of the application
	CloseMessageTooBig      CloseCode = 1009 // over MaxMessageSize
	CloseMandatoryExtension CloseCode = 1010 // sent by clients only
	CloseInternalError      CloseCode = 1011 // the server failed
	CloseServiceRestart     CloseCode = 1012 // the server restarts: come back, not all at once
	CloseTryAgainLater      CloseCode = 1013 // the server is overloaded
	CloseBadGateway         CloseCode = 1014 // a gateway got a wrong answer from behind it
	CloseTLSHandshake       CloseCode = 1015 // the TLS handshake failed
)

// sendable reports whether the code may stand in a close frame: the defined
// ones but 1004, 1005, 1006 and 1015, those of libraries and frameworks (3000
// to 3999) and private ones (4000 to 4999) (RFC 6455, section 7.4).
func (c CloseCode) sendable() bool {
	return 1000 <= c && c <= 1003 || 1007 <= c && c <= 1014 || 3000 <= c && c <= 4999
}

// complains reports whether the code says that something went wrong. A peer that
// answers 1012 with 1002 wasn't sent away: it has found a fault. One that answers
// 1012 with 1000 has only left in the same moment.
func (c CloseCode) complains() bool {
	return CloseProtocolError <= c && c <= CloseInternalError && c.sendable()
}

// ErrServerClosed is what Serve and its kin return after Shutdown or Close. The
// ends of connections that these close match it too, see EndError.
var ErrServerClosed = errors.New("websocket: server closed")

// ErrMessageTooBig is matched, through errors.Is, by the error of a read whose
// message is larger than MaxMessageSize. The peer is told 1009.
var ErrMessageTooBig = errors.New("websocket: message too big")

// A CloseError is the close frame that the peer sent. Code is CloseNoStatus
// when the frame was empty (RFC 6455, section 7.1.5).
type CloseError struct {
	Code   CloseCode
	Reason string // UTF-8, at most 123 bytes
}

// Error names the code and quotes the reason.
func (e *CloseError) Error() string {
	if e.Reason == "" {
		return fmt.Sprintf("websocket: peer closed with %d", e.Code)
	}
	return fmt.Sprintf("websocket: peer closed with %d %q", e.Code, e.Reason)
}

// A ProtocolError is a rule that the peer broke: what was received, the close
// code it was told, and the section that holds the rule.
type ProtocolError struct {
	Code    CloseCode // that the peer is told
	Reason  string    // what was received; EndError.SentReason is what the peer was told of it
	Section string    // as in "RFC 6455, section 5.5"; empty for a limit of ours
}

// Error gives the reason and the section.
func (e *ProtocolError) Error() string {
	if e.Section == "" {
		return "websocket: " + e.Reason
	}
	return "websocket: " + e.Reason + " (" + e.Section + ")"
}

// Is makes errors.Is(err, ErrMessageTooBig) hold for a refusal with 1009.
func (e *ProtocolError) Is(target error) bool {
	return target == ErrMessageTooBig && e.Code == CloseMessageTooBig
}

// A HandshakeError is an upgrade that was refused, with the status of the HTTP
// answer. OnUpgrade may return one to choose the status and the line of text. What
// Upgrade, UpgradeHTTP and OnRefuse give may have one inside: take it by errors.As.
type HandshakeError struct {
	Status int    // of HTTP, 300 to 599 but 304; another is sent as 500
	Reason string // one line for the client to read, or content of the type that OnUpgrade has set; "" is the status' name
}

// Error gives the status and the reason.
func (e *HandshakeError) Error() string {
	return fmt.Sprintf("websocket: refused with %d %s: %s", e.Status, http.StatusText(e.Status), e.Reason)
}

// A Side names one end of a connection.
type Side uint8

// The two sides of a connection.
const (
	SideServer Side = iota // this library, or the application on top of it
	SidePeer               // the client, or the network before it
)

// String returns "server" or "peer".
func (s Side) String() string {
	if s == SidePeer {
		return "peer"
	}
	return "server"
}

// An EndError records how a connection ended. Every read after the end returns
// it, OnClose gets it, and it is the cause of Conn.Context. It unwraps to Err:
//
//   - *CloseError: the peer sent a close frame first
//   - *ProtocolError: the peer broke a rule and was told its code
//   - net.ErrClosed: Close or CloseNow was called here, or the handler returned
//   - ErrServerClosed, and net.ErrClosed too: Shutdown or Close of the Server, or
//     a handler that returned after that
//   - io.ErrUnexpectedEOF: the stream ended without a closing handshake
//   - os.ErrDeadlineExceeded: PongTimeout, WriteTimeout, IdleTimeout, MaxLifetime
//     or a deadline of the application's; the text tells which
//   - anything else: the error of the network, or a panic of the handler, whose
//     value it unwraps to if that is an error
//
// Clean is a browser's wasClean: both close frames were exchanged (section 7.1.4).
// It doesn't say that all was well. A peer that closes first with 1002 has found a
// fault, as Received tells, and its end is clean; but where the peer answers our close
// frame with another code that complains, as 1002 to our 1001, the two didn't agree on
// the end, and it isn't.
type EndError struct {
	By       Side      // who began the end, or gave the reason for it
	Sent     CloseCode // the code of our close frame, 0 when none went out
	Received CloseCode // the code of the peer's, 0 when none came
	Clean    bool      // both close frames were exchanged; see above
	Err      error     // why

	SentReason, ReceivedReason string // of the close frames

	code   CloseCode // of the close frame that is to go out
	reason string
}

// Error tells the cause, and for a close of ours the code.
func (e *EndError) Error() string {
	switch {
	case e.Err == nil: // of a test of the application's
		return "websocket: connection ended"
	case e.Err != net.ErrClosed:
		return e.Err.Error()
	case e.Sent == 0:
		return "websocket: connection cut by the server"
	}
	return fmt.Sprintf("websocket: connection closed by the server with %d", e.Sent)
}

// Unwrap returns the cause.
func (e *EndError) Unwrap() error { return e.Err }

// closeCode is what a browser's onclose would call the end: the code of the
// close frame that began it, or 1006.
func (e *EndError) closeCode() CloseCode {
	if e.By == SidePeer && e.Received != 0 {
		return e.Received
	}
	if e.Sent != 0 {
		return e.Sent
	}
	return CloseAbnormal
}

// CloseStatus returns the close code that err stands for, 0 for none, as for a
// refused upgrade or a deadline that passed. Of the end of a connection it is
// what a browser's onclose would call it: the code of the close frame that
// began the end, CloseNoStatus (1005) when that had none, CloseAbnormal (1006)
// when no close frame was sent or received.
func CloseStatus(err error) CloseCode {
	var end *EndError
	var peer *CloseError
	var broken *ProtocolError
	switch {
	case errors.As(err, &end):
		return end.closeCode()
	case errors.As(err, &peer):
		return peer.Code
	case errors.As(err, &broken):
		return broken.Code
	}
	return 0
}
