package proxyproto

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"
	"strconv"
	"strings"
	"testing"
)

// v2 returns a header of version 2; command and family are the two bytes
// behind the signature.
func v2(command, family byte, rest ...string) string {
	p := strings.Join(rest, "")
	b := append([]byte(signatureV2), command, family)
	return string(binary.BigEndian.AppendUint16(b, uint16(len(p)))) + p
}

func tlv(kind byte, value string) string {
	return string(binary.BigEndian.AppendUint16([]byte{kind}, uint16(len(value)))) + value
}

const (
	addrs4 = "\xc0\x00\x02\x01\xc0\x00\x02\x02\x12\x67\x00\x50"
	addrs6 = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" +
		"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x12\x67\x00\x50"
	mapped6 = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc0\x00\x02\x01" +
		"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc0\x00\x02\x02\x12\x67\x00\x50"
)

// withChecksum returns a header whose last TLV is its right checksum.
func withChecksum(behind string) string {
	s := v2(0x21, 0x11, addrs4, tlv(3, "\x00\x00\x00\x00"), behind)
	at := headV2 + len(addrs4) + 3
	b := []byte(s)
	binary.BigEndian.PutUint32(b[at:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return string(b)
}

var lawful = []struct {
	header      string
	source, dst string // "" for none
}{
	{"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\r\n", "192.0.2.1:4711", "192.0.2.2:80"},
	{"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255:65535", "255.255.255.255:65535"},
	{"PROXY TCP4 192.0.2.1 192.0.2.2 0 0\r\n", "192.0.2.1:0", "192.0.2.2:0"},
	{"PROXY TCP6 2001:db8::1 2001:DB8:0:0:0:0:0:2 4711 80\r\n", "[2001:db8::1]:4711", "[2001:db8::2]:80"},
	{"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.2 4711 80\r\n", "192.0.2.1:4711", "192.0.2.2:80"},
	{"PROXY UNKNOWN\r\n", "", ""},
	{"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n", "", ""},
	{"PROXY UNKNOWN \x00\xff whatever\r\n", "", ""},

	{v2(0x21, 0x11, addrs4), "192.0.2.1:4711", "192.0.2.2:80"},
	{v2(0x21, 0x21, addrs6), "[2001:db8::1]:4711", "[2001:db8::2]:80"},
	{v2(0x21, 0x21, mapped6), "192.0.2.1:4711", "192.0.2.2:80"},
	{v2(0x21, 0x31, strings.Repeat("/run/socket\x00", 18)), "", ""},
	{v2(0x21, 0x00), "", ""},
	{v2(0x21, 0x00, tlv(4, "pad")), "", ""},
	{v2(0x20, 0x00), "", ""},
	{v2(0x20, 0x11, addrs4), "", ""},
	{v2(0x20, 0xff, "anything"), "", ""},
	{v2(0x21, 0x11, addrs4, tlv(1, "h2"), tlv(0x20, strings.Repeat("x", 500))), "192.0.2.1:4711", "192.0.2.2:80"},
	{v2(0x21, 0x11, addrs4, tlv(4, strings.Repeat("x", maxV2-12-3))), "192.0.2.1:4711", "192.0.2.2:80"},
	{withChecksum(""), "192.0.2.1:4711", "192.0.2.2:80"},
	{withChecksum(tlv(4, "behind it")), "192.0.2.1:4711", "192.0.2.2:80"},
}

func addrString(ap netip.AddrPort) string {
	if !ap.IsValid() {
		return ""
	}
	return ap.String()
}

// Every header is taken whole, leaves what is behind it, and is asked more of
// at each byte before its end.
func TestParse(t *testing.T) {
	for _, test := range lawful {
		for _, behind := range []string{"", "GET / HTTP/1.1\r\n"} {
			h, n, err := Parse([]byte(test.header + behind))
			if n != len(test.header) || err != nil {
				t.Errorf("Parse(%q) = %d, %v; want %d", test.header+behind, n, err, len(test.header))
			}
			if got, dst := addrString(h.Source), addrString(h.Destination); got != test.source || dst != test.dst {
				t.Errorf("Parse(%q): from %s to %s; want from %s to %s", test.header, got, dst, test.source, test.dst)
			}
		}
		for i := range test.header {
			if h, n, err := Parse([]byte(test.header[:i])); n != 0 || err != nil || h != (Header{}) {
				t.Fatalf("Parse(%q) = %v, %d, %v; want more asked for", test.header[:i], h, n, err)
			}
		}
		if len(test.header) > MaxLen {
			t.Errorf("a header of %d bytes; MaxLen is %d", len(test.header), MaxLen)
		}
	}
}

// A reader that asks Next before each read has the header and nothing else.
func TestNext(t *testing.T) {
	for _, test := range lawful {
		stream := test.header + "behind"
		got := 0
		for reads := 0; ; reads++ {
			n := Next([]byte(stream[:got]))
			if n <= 0 || got+n > len(test.header) || reads > maxV1 {
				t.Fatalf("Next(%q) = %d; the header is %q", stream[:got], n, test.header)
			}
			got += n
			if _, n, err := Parse([]byte(stream[:got])); n > 0 || err != nil {
				break
			}
		}
		if got != len(test.header) {
			t.Errorf("read %q; want %q", stream[:got], test.header)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	tests := []struct{ header, want string }{
		{"GET / HTTP/1.1\r\n", "no PROXY header"},
		{"PROXY: x\r\n", "no PROXY header"},
		{"proxy TCP4", "no PROXY header"},
		{"\r\n\r\n\x00\r\nQUIT\r", "no PROXY header"},
		{"\x16\x03\x01", "no PROXY header"},

		{"PROXY \n", "without CR LF"},
		{"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\n", "without CR LF"},
		{"PROXY \r\n", `isn't one: ""`},
		{"PROXY UNKNOWNS\r\n", `isn't one: "UNKNOWNS"`},
		{"PROXY UDP4 192.0.2.1 192.0.2.2 4711 80\r\n", `isn't one: "UDP4`},
		{"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80 \r\n", "isn't one"},
		{"PROXY TCP4  192.0.2.1 192.0.2.2 4711 80\r\n", "isn't one"},
		{"PROXY TCP4 192.0.2.1 192.0.2.2 4711\r\n", "isn't one"},
		{"PROXY TCP4 192.0.2.01 192.0.2.2 4711 80\r\n", "isn't one"},
		{"PROXY TCP4 192.0.2.256 192.0.2.2 4711 80\r\n", "isn't one"},
		{"PROXY TCP4 192.0.2.1 ::1 4711 80\r\n", "isn't one"},
		{"PROXY TCP6 192.0.2.1 ::1 4711 80\r\n", "isn't one"},
		{"PROXY TCP6 fe80::1%eth0 ::1 4711 80\r\n", "isn't one"},
		{"PROXY TCP4 192.0.2.1 192.0.2.2 04711 80\r\n", "isn't one"},
		{"PROXY TCP4 192.0.2.1 192.0.2.2 4711 65536\r\n", "isn't one"},
		{"PROXY TCP4 192.0.2.1 192.0.2.2 -1 80\r\n", "isn't one"},
		{"PROXY TCP4 192.0.2.1 192.0.2.2 +1 80\r\n", "isn't one"},
		{"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\x00\r\n", `80\x00"`},
		{"PROXY UNKNOWN " + strings.Repeat("x", 92) + "\r\n", "more than 107"},
		{"PROXY " + strings.Repeat("x", 200), "more than 107"},

		{v2(0x11, 0x11, addrs4)[:13], "version and command 0x11"},
		{v2(0x31, 0x11, addrs4), "version and command 0x31"},
		{v2(0x22, 0x11, addrs4), "version and command 0x22"},
		{v2(0x21, 0x12, addrs4), "family and protocol 0x12"},
		{v2(0x21, 0x41, addrs4)[:16], "family and protocol 0x41"},
		{v2(0x21, 0x11, addrs4[1:])[:16], "too short"},
		{v2(0x21, 0x21, addrs4), "too short"},
		{v2(0x21, 0x31, addrs6), "too short"},
		{v2(0x21, 0x11, addrs4, strings.Repeat("x", 525))[:16], "more than 552"},
		{v2(0x20, 0x11, strings.Repeat("x", 537)), "more than 552"},
		{v2(0x21, 0x11, addrs4, "\x04\x00"), "isn't whole"},
		{v2(0x21, 0x11, addrs4, "\x04\x00\x02x"), "isn't whole"},
		{v2(0x21, 0x00, tlv(4, "pad"), "\x04"), "isn't whole"},
		{v2(0x21, 0x11, addrs4, tlv(3, "sum")), "isn't whole"},
		{v2(0x21, 0x11, addrs4, tlv(3, "\x00\x00\x00\x00")), "wrong checksum"},
		{strings.Replace(withChecksum(tlv(4, "behind it")), "behind", "before", 1), "wrong checksum"},
	}
	for _, test := range tests {
		h, n, err := Parse([]byte(test.header))
		if n != 0 || err == nil || !strings.Contains(err.Error(), test.want) || h != (Header{}) {
			t.Errorf("Parse(%q) = %v, %d, %v; want %q", test.header, h, n, err, test.want)
		}
		if err != nil && len(err.Error()) > 400 {
			t.Errorf("Parse(%q): an error of %d bytes", test.header, len(err.Error()))
		}
	}
}

// What was judged once is judged the same however it is cut, and a header that
// is taken says the same when it is put together again.
func FuzzParse(f *testing.F) {
	for _, test := range lawful {
		f.Add([]byte(test.header + "more"))
	}
	f.Add([]byte("PROXY TCP4 192.0.2.1\r\n"))
	f.Add([]byte(v2(0x21, 0x11, addrs4, "\x04\x00\x02x")))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n, err := Parse(b)
		if n > min(len(b), MaxLen) || n > 0 && err != nil || n == 0 && h != (Header{}) {
			t.Fatalf("Parse(%q) = %v, %d, %v", b, h, n, err)
		}
		if n == 0 && err == nil && len(b) >= MaxLen {
			t.Fatalf("Parse of %d bytes asks for more", len(b))
		}
		for i := range min(len(b), MaxLen+1) {
			hi, ni, erri := Parse(b[:i])
			if n > 0 && (i >= n && (hi != h || ni != n) || i < n && (ni != 0 || erri != nil)) {
				t.Fatalf("Parse(%q) = %v, %d, %v; of all of it %v, %d", b[:i], hi, ni, erri, h, n)
			}
			if err != nil && ni > 0 || erri != nil && err == nil {
				t.Fatalf("Parse(%q) = %v, %d, %v; of all of it %v", b[:i], hi, ni, erri, err)
			}
		}
		if h.Source.IsValid() != h.Destination.IsValid() || h.Source.Addr().Is4In6() || h.Source.Addr().Zone() != "" {
			t.Fatalf("Parse(%q) = %v", b, h)
		}
		if h.Source.IsValid() && h.Source.Addr().Is4() == h.Destination.Addr().Is4() {
			again := "PROXY TCP6 "
			if h.Source.Addr().Is4() {
				again = "PROXY TCP4 "
			}
			again += h.Source.Addr().String() + " " + h.Destination.Addr().String() + " " +
				strconv.Itoa(int(h.Source.Port())) + " " + strconv.Itoa(int(h.Destination.Port())) + "\r\n"
			if h2, n2, err := Parse([]byte(again)); h2 != h || n2 != len(again) || err != nil {
				t.Fatalf("Parse(%q) = %v, %d, %v; want %v", again, h2, n2, err, h)
			}
		}
	})
}
