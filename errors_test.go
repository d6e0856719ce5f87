package websocket

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
)

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
