// Package proxyproto parses the header of the PROXY protocol, versions 1 and 2,
// by which a proxy that forwards bytes (HAProxy, ELB and stunnel in TCP mode,
// nginx's stream module) tells where a connection comes from. It stands before
// everything else on the connection, TLS too.
//
// Whether there is a header can't be seen from the bytes: who sends one is
// agreed on beforehand, and from anybody else it is a lie
// (https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt, section 2).
package proxyproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"strconv"
	"strings"
)

// A Header is what a proxy says of a connection.
type Header struct {
	// Source is the client's address, Destination the one that it called. Both
	// are invalid where the proxy speaks for itself (a health check), doesn't
	// know, or was called on a unix socket: then those of the socket count. IPv4
	// addresses in IPv6 form are the IPv4 addresses that they are.
	Source, Destination netip.AddrPort
}

const (
	maxV1       = 107 // with its CR LF
	headV2      = 16  // the fixed part
	maxV2       = 536 // of what is behind it; the format's own limit is 65,535
	prefixV1    = "PROXY "
	signatureV2 = "\r\n\r\n\x00\r\nQUIT\n"
)

// MaxLen is the length of the longest header that Parse takes.
const MaxLen = headV2 + maxV2

var (
	errNone     = errors.New("no PROXY header")
	errTooLong  = fmt.Errorf("PROXY header of more than %d bytes", MaxLen)
	errLine     = fmt.Errorf("PROXY line of more than %d bytes", maxV1)
	errLineEnd  = errors.New("PROXY line that ends without CR LF")
	errShort    = errors.New("PROXY header too short for its addresses")
	errTLV      = errors.New("PROXY header with a TLV that isn't whole")
	errChecksum = errors.New("PROXY header with a wrong checksum")
)

// Parse decodes the header at the start of b and returns its length n. While n
// is 0 and err nil it asks for more. An error is told as soon as the bytes show
// it; what was received is quoted and cut.
func Parse(b []byte) (h Header, n int, err error) {
	switch {
	case startsLike(b, prefixV1):
		return parseV1(b)
	case startsLike(b, signatureV2):
		return parseV2(b)
	}
	return h, 0, errNone
}

// Next returns how many bytes more than b are sure to be the header's, where it
// isn't whole yet: for who must not read what is behind it.
func Next(b []byte) int {
	const shortest = len(prefixV1 + "UNKNOWN\r\n")
	switch {
	case len(b) < shortest:
		return shortest - len(b)
	case b[0] == prefixV1[0]:
		return 1 // up to the end of the line
	case len(b) < headV2:
		return headV2 - len(b)
	}
	return headV2 + int(binary.BigEndian.Uint16(b[headV2-2:])) - len(b)
}

// startsLike reports whether b begins with s, as far as it goes.
func startsLike(b []byte, s string) bool {
	n := min(len(b), len(s))
	return string(b[:n]) == s[:n]
}

// parseV1 decodes "PROXY TCP4 192.0.2.1 192.0.2.2 4711 80" CR LF (section 2.1).
func parseV1(b []byte) (h Header, n int, err error) {
	n = bytes.IndexByte(b[:min(len(b), maxV1)], '\n') + 1
	switch {
	case n == 0 && len(b) >= maxV1:
		return h, 0, errLine
	case n == 0:
		return h, 0, nil
	case b[n-2] != '\r': // there is a byte before: the prefix
		return h, 0, errLineEnd
	}
	line := string(b[len(prefixV1) : n-2])
	if line == "UNKNOWN" || strings.HasPrefix(line, "UNKNOWN ") {
		return h, n, nil // whatever is behind it
	}
	f := strings.Split(line, " ")
	if len(f) != 5 {
		return h, 0, lineError(line)
	}
	is4 := f[0] == "TCP4"
	if !is4 && f[0] != "TCP6" {
		return h, 0, lineError(line)
	}
	var ok, ok2 bool
	h.Source, ok = parseAddrPort(f[1], f[3], is4)
	h.Destination, ok2 = parseAddrPort(f[2], f[4], is4)
	if !ok || !ok2 {
		return Header{}, 0, lineError(line)
	}
	return h, n, nil
}

func lineError(line string) error {
	return fmt.Errorf("PROXY line that isn't one: %.64q", line)
}

// parseAddrPort takes an address of one family without a zone, and a decimal
// port without leading zeros.
func parseAddrPort(addr, port string, is4 bool) (ap netip.AddrPort, ok bool) {
	ip, err := netip.ParseAddr(addr)
	if err != nil || ip.Is4() != is4 || ip.Zone() != "" {
		return ap, false
	}
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil || strconv.FormatUint(p, 10) != port {
		return ap, false
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(p)), true
}

// parseV2 decodes the binary form (section 2.2): the signature, version and
// command, family and protocol, a length, and as many bytes of addresses and
// TLVs.
func parseV2(b []byte) (h Header, n int, err error) {
	const command, family, length = 12, 13, 14
	if len(b) > command && b[command] != 0x20 && b[command] != 0x21 {
		return h, 0, fmt.Errorf("PROXY header of version and command %#02x", b[command])
	}
	if len(b) < headV2 {
		return h, 0, nil
	}
	rest := int(binary.BigEndian.Uint16(b[length:]))
	if rest > maxV2 {
		return h, 0, errTooLong
	}
	size, err := addressesSize(b[family])
	if b[command] == 0x20 { // LOCAL: the rest means nothing
		size, err = 0, nil
	}
	if err != nil {
		return h, 0, err
	}
	if rest < size {
		return h, 0, errShort
	}
	if n = headV2 + rest; len(b) < n {
		return h, 0, nil
	}
	if b[command] == 0x20 {
		return h, n, nil
	}
	if err := checkTLVs(b[:n], headV2+size); err != nil {
		return h, 0, err
	}
	p := b[headV2:n]
	switch size {
	case 12:
		h.Source, h.Destination = addrPort(p[0:4], p[8:10]), addrPort(p[4:8], p[10:12])
	case 36:
		h.Source, h.Destination = addrPort(p[0:16], p[32:34]), addrPort(p[16:32], p[34:36])
	}
	return h, n, nil
}

// addressesSize returns the length of the addresses of a family and protocol.
// A connection that we serve is a stream.
func addressesSize(b byte) (int, error) {
	switch b {
	case 0x00: // unspecified: the proxy doesn't know
		return 0, nil
	case 0x11: // TCP over IPv4
		return 12, nil
	case 0x21: // TCP over IPv6
		return 36, nil
	case 0x31: // a unix socket
		return 216, nil
	}
	return 0, fmt.Errorf("PROXY header of family and protocol %#02x", b)
}

func addrPort(ip, port []byte) netip.AddrPort {
	addr, _ := netip.AddrFromSlice(ip) // of 4 or 16 bytes
	return netip.AddrPortFrom(addr.Unmap(), binary.BigEndian.Uint16(port))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checkTLVs holds what is behind the addresses against its own lengths, and a
// checksum against the header, whose bytes it counts as zeros (section 2.2.3).
func checkTLVs(header []byte, at int) error {
	const typeCRC32C = 0x03
	for at < len(header) {
		p := header[at:]
		if len(p) < 3 {
			return errTLV
		}
		length := int(binary.BigEndian.Uint16(p[1:]))
		if length > len(p)-3 {
			return errTLV
		}
		if p[0] == typeCRC32C {
			if length != crc32.Size {
				return errTLV
			}
			sum := crc32.Checksum(header[:at+3], castagnoli)
			sum = crc32.Update(sum, castagnoli, make([]byte, crc32.Size))
			sum = crc32.Update(sum, castagnoli, p[3+crc32.Size:])
			if sum != binary.BigEndian.Uint32(p[3:]) {
				return errChecksum
			}
		}
		at += 3 + length
	}
	return nil
}
