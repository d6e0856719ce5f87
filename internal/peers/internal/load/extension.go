package load

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// maxBits are the bits of the largest window that there is (RFC 7692, section
// 7.1.2).
const maxBits = 15

// An extension is what the client wants of permessage-deflate. The zero value
// doesn't offer it.
type extension struct {
	deflate  bool
	takeover bool // each side's messages refer to its earlier ones
	bits     int  // of both windows, with takeover
}

// offer is the value of the request's Sec-WebSocket-Extensions.
func (x extension) offer() string {
	switch {
	case !x.deflate:
		return ""
	case !x.takeover:
		return "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
	case x.bits == maxBits:
		return "permessage-deflate; client_max_window_bits"
	}
	return fmt.Sprintf("permessage-deflate; server_max_window_bits=%d; client_max_window_bits=%[1]d", x.bits)
}

// agreed looks whether the head of an answer agrees to all of the offer. What
// is measured must be what was asked for, so less isn't good enough.
func (x extension) agreed(head []byte) error {
	if !x.deflate {
		return nil
	}
	name, params := accepted(head)
	if name != "permessage-deflate" {
		return fmt.Errorf("load: permessage-deflate declined: %q", head)
	}
	if !x.takeover {
		return nil
	}
	for _, side := range []string{"server", "client"} {
		if _, ok := params[side+"_no_context_takeover"]; ok {
			return fmt.Errorf("load: the %s's context takeover declined: %q", side, head)
		}
		bits := maxBits
		if v, ok := params[side+"_max_window_bits"]; ok {
			bits, _ = strconv.Atoi(v)
		}
		if bits != x.bits {
			return fmt.Errorf("load: the %s's window has %d bits, want %d: %q", side, bits, x.bits, head)
		}
	}
	return nil
}

// accepted gives the extension of an answer, and its parameters.
func accepted(head []byte) (name string, params map[string]string) {
	params = map[string]string{}
	for line := range bytes.Lines(head) {
		field, value, _ := strings.Cut(string(line), ":")
		if !strings.EqualFold(field, "Sec-WebSocket-Extensions") {
			continue
		}
		for i, part := range strings.Split(value, ";") {
			key, v, _ := strings.Cut(strings.TrimSpace(part), "=")
			if i == 0 {
				name = key
			} else {
				params[key] = strings.Trim(v, `"`)
			}
		}
	}
	return name, params
}
