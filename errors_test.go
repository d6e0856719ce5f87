package websocket

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
)

// An application's test may make an EndError of its own, for its OnClose.
func TestEndErrorText(t *testing.T) {
	for _, test := range []struct {
		err  EndError
		want string
	}{
		{EndError{}, "websocket: connection ended"},
		{EndError{By: SidePeer, Received: 1000}, "websocket: connection ended"},
		{EndError{Err: net.ErrClosed}, "websocket: connection cut by the server"},
		{EndError{Err: net.ErrClosed, Sent: 1000}, "websocket: connection closed by the server with 1000"},
		{EndError{Err: io.ErrUnexpectedEOF}, "unexpected EOF"},
	} {
		if got := test.err.Error(); got != test.want {
			t.Errorf("%+v: Error() = %q; want %q", test.err, got, test.want)
		}
	}
}

func TestCloseStatus(t *testing.T) {
	tests := []struct {
		err  error
		want CloseCode
	}{
		{nil, 0},
		{io.EOF, 0},
		{os.ErrDeadlineExceeded, 0},
		{errClosing, 0},
		{ErrServerClosed, 0},
		{&HandshakeError{Status: 403}, 0},
		{&CloseError{4000, "bye"}, 4000},
		{fmt.Errorf("read: %w", &CloseError{CloseNoStatus, ""}), CloseNoStatus},
		{tooBig(1), CloseMessageTooBig},
		{&EndError{By: SidePeer, Received: 4000, Sent: 4000, Err: &CloseError{4000, ""}}, 4000},
		{&EndError{By: SidePeer, Sent: 1002, Err: protocolError("section 5.1", "no mask")}, 1002},
		{&EndError{By: SideServer, Sent: 1001, Received: 1000, Err: errShutdown}, 1001},
		{&EndError{By: SidePeer, Err: io.ErrUnexpectedEOF}, CloseAbnormal},
		{fmt.Errorf("end: %w", &EndError{By: SideServer, Err: net.ErrClosed}), CloseAbnormal},
		{errors.Join(io.EOF, &CloseError{1000, ""}), 1000},
	}
	for _, test := range tests {
		if got := CloseStatus(test.err); got != test.want {
			t.Errorf("CloseStatus(%v) = %d; want %d", test.err, got, test.want)
		}
	}
}
