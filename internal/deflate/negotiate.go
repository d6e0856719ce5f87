package deflate

import (
	"slices"
	"strconv"

	"github.com/rawws/websocket/internal/httphead"
)

// Extension is the name that is negotiated (RFC 7692, section 7).
const Extension = "permessage-deflate"

// A Policy is what a server wants.
type Policy struct {
	// ServerContext: the server's messages refer to earlier ones, if the client
	// allows it.
	ServerContext bool
	// ClientContext: the client's messages may refer to earlier ones.
	ClientContext bool
	// Tell lets the answer forbid the client its context though the offer
	// didn't hold that, as section 7.1.1.2 allows. Some clients keep it all the
	// same, or refuse the answer. Without Tell, and without ClientContext, only
	// offers of clients that do without are taken.
	Tell bool
	// Bits bounds the windows, as far as the client's can be bounded: 8 to 15.
	Bits int
}

// Params are what the two sides agreed upon.
type Params struct {
	ServerContext, ClientContext bool
	ServerBits                   int // the server's back references reach at most 2^ServerBits bytes
	ClientBits                   int // the client's
}

// Memory is what the contexts may take, in bytes.
func (p Params) Memory() (n int64) {
	if p.ClientContext {
		n = 1 << p.ClientBits
	}
	if p.ServerContext {
		n += 1<<p.ServerBits + 4*int64(tableSize(1<<p.ServerBits))
	}
	return n
}

// Negotiate takes the first offer of permessage-deflate that it understands and
// can keep in full, and gives the answer to it (RFC 7692, section 7.1). An offer
// that it can't take is none that it may change: a parameter that is unknown,
// repeated or out of range leaves the next offer.
func Negotiate(offers []httphead.Element, policy Policy) (p Params, answer string, ok bool) {
	for _, e := range offers {
		if e.Name != Extension {
			continue
		}
		o, ok := parseOffer(e.Params)
		if ok && (policy.ClientContext || policy.Tell || o.clientForgets) {
			p, answer = o.answer(policy)
			return p, answer, true
		}
	}
	return Params{}, "", false
}

// An offer holds an offer's parameters. A number of bits is 0 if it wasn't
// given.
type offer struct {
	serverForgets, clientForgets bool
	serverBits, clientBits       int
	clientBound                  bool // client_max_window_bits may be in the answer
}

func parseOffer(params []httphead.Param) (o offer, ok bool) {
	for i, param := range params {
		if slices.ContainsFunc(params[:i], func(q httphead.Param) bool { return q.Name == param.Name }) {
			return offer{}, false
		}
		switch param.Name {
		case "server_no_context_takeover":
			o.serverForgets, ok = true, param.Value == ""
		case "client_no_context_takeover":
			o.clientForgets, ok = true, param.Value == ""
		case "server_max_window_bits":
			o.serverBits, ok = parseBits(param.Value)
		case "client_max_window_bits":
			o.clientBound = true
			if ok = param.Value == ""; !ok {
				o.clientBits, ok = parseBits(param.Value)
			}
		default:
			ok = false
		}
		if !ok {
			return offer{}, false
		}
	}
	return o, true
}

// parseBits takes a number from 8 to 15 without leading zeros (RFC 7692,
// section 7.1.2).
func parseBits(s string) (bits int, ok bool) {
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil || s[0] == '0' || n < MinBits || n > MaxBits {
		return 0, false
	}
	return int(n), true
}

// answer says what the client has to know, and nothing that it didn't ask for
// but what Tell allows: what the server keeps to by itself, a smaller window or
// no context, needs no words, and some clients refuse an answer with words that
// they didn't offer.
func (o offer) answer(policy Policy) (p Params, answer string) {
	p = Params{
		ServerContext: policy.ServerContext && !o.serverForgets,
		ClientContext: policy.ClientContext && !o.clientForgets,
		ServerBits:    policy.Bits,
		ClientBits:    MaxBits,
	}
	answer = Extension
	if o.serverForgets {
		answer += "; server_no_context_takeover"
	}
	if !p.ClientContext {
		answer += "; client_no_context_takeover"
	}
	if o.serverBits != 0 {
		p.ServerBits = min(p.ServerBits, o.serverBits)
		answer += "; server_max_window_bits=" + strconv.Itoa(p.ServerBits)
	}
	// A window is worth bounding only where it is kept. The offer's value is but
	// a hint until it is repeated (section 7.1.2.2).
	if p.ClientContext && o.clientBound {
		if p.ClientBits = o.boundClient(policy.Bits); p.ClientBits < MaxBits || o.clientBits != 0 {
			answer += "; client_max_window_bits=" + strconv.Itoa(p.ClientBits)
		}
	}
	return p, answer
}

// boundClient asks nobody for a window of 2^8 bytes who didn't offer it: zlib
// can't compress for that.
func (o offer) boundClient(bits int) int {
	if o.clientBits == MinBits {
		return MinBits
	}
	bits = max(bits, MinBits+1)
	if o.clientBits != 0 {
		bits = min(bits, o.clientBits)
	}
	return bits
}
