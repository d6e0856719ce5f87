//go:build linux && !noloop

package netloop

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"reflect"
	"testing"
	"unsafe"
)

// A hundred thousand sockets that are quiet have one of each. The first also fills
// just one line of the processor's cache.
func TestSocketSize(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) != 8 {
		return // and all is smaller
	}
	if got := unsafe.Sizeof(Socket{}); got > 64 {
		t.Errorf("a Socket takes %d bytes, want at most 64", got)
	}
	if got := unsafe.Sizeof(ends{}); got > 32 {
		t.Errorf("what a socket of an IPv6 peer needs besides takes %d bytes, want at most 32", got)
	}
}

// checkAddrs compares with what package net would say.
func checkAddrs(t *testing.T, when string, s *Socket, local, remote net.Addr) {
	t.Helper()
	if got := s.LocalAddr(); !reflect.DeepEqual(got, local) {
		t.Errorf("%s: LocalAddr() = %#v, want %#v", when, got, local)
	}
	if got := s.RemoteAddr(); !reflect.DeepEqual(got, remote) {
		t.Errorf("%s: RemoteAddr() = %#v, want %#v", when, got, remote)
	}
	if got := s.network(); got != local.Network() {
		t.Errorf("%s: it is of %q, want %q", when, got, local.Network())
	}
	if _, isUnix := remote.(*net.UnixAddr); isUnix && s.RemoteAddrPort() != (netip.AddrPort{}) {
		t.Errorf("%s: RemoteAddrPort() = %v, want none", when, s.RemoteAddrPort())
	}
}

func TestTCPAddrs(t *testing.T) {
	var loop Loop
	port := func(p uint16) netip.AddrPort { return netip.AddrPortFrom(netip.Addr{}, p) }
	for _, test := range []struct{ local, remote netip.AddrPort }{
		{netip.MustParseAddrPort("10.0.0.1:80"), netip.MustParseAddrPort("1.2.3.4:50000")},
		{netip.MustParseAddrPort("10.0.0.1:80"), netip.MustParseAddrPort("255.255.255.255:65535")},
		{netip.MustParseAddrPort("10.0.0.2:80"), netip.MustParseAddrPort("0.0.0.0:0")},
		{netip.MustParseAddrPort("10.0.0.2:81"), netip.MustParseAddrPort("[::ffff:1.2.3.4]:5")}, // Accept and Adopt know it as IPv4
		{netip.MustParseAddrPort("[2001:db8::1]:80"), netip.MustParseAddrPort("[2001:db8::2]:5")},
		{netip.MustParseAddrPort("[::1]:80"), netip.MustParseAddrPort("[::]:0")},
		{netip.MustParseAddrPort("[fe80::1%eth0]:80"), netip.MustParseAddrPort("[fe80::2%eth0]:5")},
		{netip.MustParseAddrPort("[fe80::1%eth1]:80"), netip.MustParseAddrPort("[fe80::2%eth1]:5")},
		{netip.AddrPort{}, netip.AddrPort{}},
		{port(1), port(2)},
		{netip.AddrPort{}, netip.MustParseAddrPort("1.2.3.4:5")},
	} {
		s := new(Socket)
		s.setAddrs(loop.share(sharedEnds{local: test.local}), test.remote)
		name := fmt.Sprintf("setAddrs(%v, %v)", test.local, test.remote)
		checkAddrs(t, name, s, net.TCPAddrFromAddrPort(test.local), net.TCPAddrFromAddrPort(test.remote))
		if got := s.RemoteAddrPort(); got != test.remote {
			t.Errorf("%s: RemoteAddrPort() = %v", name, got)
		}
		if s.loop() != &loop {
			t.Errorf("%s: the socket has lost its loop", name)
		}
	}
}

func TestUnixAddrs(t *testing.T) {
	var loop Loop
	for _, test := range []struct{ local, remote string }{
		{"/run/s", ""}, {"/run/s", "@"}, {"/run/s", "/run/client"}, {"@abstract", "@client"}, {"", ""},
	} {
		s := new(Socket)
		s.setNames(&loop, test.local, test.remote)
		checkAddrs(t, fmt.Sprintf("setNames(%q, %q)", test.local, test.remote), s,
			&net.UnixAddr{Name: test.local, Net: "unix"}, &net.UnixAddr{Name: test.remote, Net: "unix"})
		if s.loop() != &loop {
			t.Errorf("setNames(%q, %q): the socket has lost its loop", test.local, test.remote)
		}
	}
}

// Sockets of all kinds have the addresses that package net gives the same sockets,
// open and closed, however they have come to the loop.
func TestAddrsAsPackageNet(t *testing.T) {
	for _, test := range []struct{ network, listen, dial, bind string }{
		{"tcp", "127.0.0.1:0", "127.0.0.1", ""},
		{"tcp", "0.0.0.0:0", "127.0.0.2", ""},
		{"tcp", "[::1]:0", "::1", ""},
		{"tcp", ":0", "::1", ""},
		{"tcp", ":0", "127.0.0.3", ""}, // the system tells an IPv4-mapped address
		{"unix", filepath.Join(t.TempDir(), "a"), "", ""},
		{"unix", filepath.Join(t.TempDir(), "b"), "", filepath.Join(t.TempDir(), "client")},
		{"unix", "@", "", ""}, // the system chooses an abstract one
	} {
		t.Run(test.network+" "+test.listen+" "+test.dial, func(t *testing.T) {
			ln, err := net.Listen(test.network, test.listen)
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			var loop Loop
			a := loop.Listen(ln)
			for _, adopt := range []bool{false, true} {
				s, local, remote := arrive(t, a, ln, test.dial, test.bind, adopt)
				when := fmt.Sprintf("adopted %v", adopt)
				checkAddrs(t, when, s, local, remote)
				s.Close()
				checkAddrs(t, when+", closed", s, local, remote)
			}
		})
	}
}

// arrive returns a socket of a client's that ln has accepted, and the addresses that
// package net knows of it.
func arrive(t *testing.T, a *Listener, ln net.Listener, host, bind string, adopt bool) (s *Socket, local, remote net.Addr) {
	t.Helper()
	var d net.Dialer
	to := ln.Addr().String()
	if host != "" {
		_, port, _ := net.SplitHostPort(to)
		to = net.JoinHostPort(host, port)
	}
	if bind != "" {
		d.LocalAddr = &net.UnixAddr{Name: fmt.Sprint(bind, adopt), Net: "unix"}
	}
	nc, err := d.Dial(ln.Addr().Network(), to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	if adopt {
		accepted, err := ln.Accept()
		if err == nil {
			s, err = a.loop.Adopt(accepted)
		}
		if err != nil {
			t.Fatal(err)
		}
		return s, plain(accepted.LocalAddr()), plain(accepted.RemoteAddr())
	}
	eventually(t, "the client is accepted", func() bool {
		s, err = a.Accept()
		return err == nil
	})
	accepted, err := s.File() // a second view on the same socket
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	same, err := net.FileConn(accepted)
	if err != nil {
		t.Fatal(err)
	}
	defer same.Close()
	return s, plain(same.LocalAddr()), plain(same.RemoteAddr())
}

// plain is a with an IPv4 address of 4 bytes: package net's may have 16.
func plain(a net.Addr) net.Addr {
	if _, ok := a.(*net.TCPAddr); ok {
		return net.TCPAddrFromAddrPort(unmapped(a))
	}
	return a
}

// Sockets of one local address share it, so that each costs no more than itself.
func TestSharedAddrs(t *testing.T) {
	var loop Loop
	accept := func(local, remote string) *Socket {
		s := new(Socket)
		s.setAddrs(loop.share(sharedEnds{local: netip.MustParseAddrPort(local)}), netip.MustParseAddrPort(remote))
		return s
	}
	four, six := accept("10.0.0.1:80", "1.2.3.4:5"), accept("[2001:db8::1]:80", "[2001:db8::2]:5")
	for i := range 10 { // both kinds by turns
		remote := fmt.Sprintf("1.2.3.%d:%d", i, i)
		if s := accept("10.0.0.1:80", remote); s.ends != four.ends {
			t.Errorf("a socket from %s doesn't share its local address", remote)
		}
		if s := accept("[2001:db8::1]:80", "[2001:db8::3]:5"); s.ends.shared != six.ends.shared || s.ends == six.ends {
			t.Error("a socket of an IPv6 peer doesn't share its local address, or shares the remote one")
		}
	}
	var names [2]Socket
	for i := range names {
		names[i].setNames(&loop, "/run/s", "@")
	}
	if names[0].ends != names[1].ends {
		t.Error("two unix sockets whose peers have no name don't share their ends")
	}
	again, ipv4 := new(Socket), netip.MustParseAddrPort("10.0.0.1:80")
	if n := testing.AllocsPerRun(100, func() {
		again.setAddrs(loop.share(sharedEnds{local: ipv4}), ipv4)
		again.setNames(&loop, "/run/s", "@")
	}); n != 0 {
		t.Errorf("the addresses of one more socket make %v allocations, want none", n)
	}
	for port := range 10 * maxShared {
		accept(fmt.Sprintf("10.0.0.1:%d", port), "1.2.3.4:5")
		if n := len(loop.shared); n > maxShared {
			t.Fatalf("the loop remembers %d local addresses, want at most %d", n, maxShared)
		}
	}
	if err := loop.Hold(); err != nil {
		t.Fatal(err)
	}
	if loop.Release(); loop.shared != nil {
		t.Errorf("a loop that nobody holds remembers %d local addresses", len(loop.shared))
	}
}
