//go:build linux && !noloop

package netloop

import (
	"net"
	"net/netip"
	"syscall"
)

// The addresses of a socket are asked for seldom, and a hundred thousand sockets
// have the same local one. So a socket itself keeps what nearly all of them differ
// in, the peer's port and IPv4 address, and points to the rest.

// ends are what a socket knows of its addresses otherwise. They never change.
type ends struct {
	shared *sharedEnds
	remote netip.Addr // the peer's; of IPv4, any that is: the socket keeps its own
}

// sharedEnds are those of all sockets of a loop for which they are the same.
type sharedEnds struct {
	loop  *Loop
	local netip.AddrPort // of a TCP socket

	isUnix              bool
	localName, peerName string
}

// maxShared bounds what a loop remembers to share, for a host with many addresses.
// Beyond, a socket shares with those that came lately.
const maxShared = 64

// share returns the ends of a socket whose peer has an IPv4 address or no name.
func (l *Loop) share(key sharedEnds) *ends {
	key.loop = l
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.shared[key]; e != nil {
		return e
	}
	if len(l.shared) >= maxShared {
		clear(l.shared)
	}
	if l.shared == nil {
		l.shared = make(map[sharedEnds]*ends)
	}
	kept := key // or each look-up would allocate
	e := &ends{shared: &kept}
	if !key.isUnix {
		e.remote = netip.IPv4Unspecified()
	}
	l.shared[key] = e
	return e
}

// setAddrs gives a TCP socket its addresses: e are the ends of those that share its
// local one.
func (s *Socket) setAddrs(e *ends, remote netip.AddrPort) {
	s.ends, s.port = e, remote.Port()
	if ip := remote.Addr(); ip.Is4() {
		s.ip4 = ip.As4()
	} else {
		s.ends = &ends{e.shared, ip}
	}
}

// unnamed is what package syscall makes of the address of a unix socket without a name.
const unnamed = "@"

// setNames gives a unix socket its addresses.
func (s *Socket) setNames(l *Loop, local, remote string) {
	if remote == "" || remote == unnamed {
		s.ends = l.share(sharedEnds{isUnix: true, localName: local, peerName: remote})
	} else {
		s.ends = &ends{shared: &sharedEnds{loop: l, isUnix: true, localName: local, peerName: remote}}
	}
}

func (s *Socket) loop() *Loop { return s.ends.shared.loop }

func (s *Socket) isUnix() bool { return s.ends.shared.isUnix }

func (s *Socket) network() string {
	if s.isUnix() {
		return "unix"
	}
	return "tcp"
}

// LocalAddr returns the address of this end, a *net.TCPAddr or *net.UnixAddr. It
// is known after Close as well.
func (s *Socket) LocalAddr() net.Addr {
	if s.isUnix() {
		return &net.UnixAddr{Name: s.ends.shared.localName, Net: "unix"}
	}
	return net.TCPAddrFromAddrPort(s.ends.shared.local)
}

// RemoteAddr returns the address of the peer, as LocalAddr does.
func (s *Socket) RemoteAddr() net.Addr {
	if s.isUnix() {
		return &net.UnixAddr{Name: s.ends.shared.peerName, Net: "unix"}
	}
	return net.TCPAddrFromAddrPort(s.RemoteAddrPort())
}

// RemoteAddrPort is RemoteAddr without an allocation; the zero value for a unix
// socket.
func (s *Socket) RemoteAddrPort() netip.AddrPort {
	ip := s.ends.remote
	if ip.Is4() {
		ip = netip.AddrFrom4(s.ip4)
	}
	return netip.AddrPortFrom(ip, s.port)
}

func unmapped(a net.Addr) netip.AddrPort {
	addr, ok := a.(*net.TCPAddr)
	if !ok { // the socket has none any more
		return netip.AddrPort{}
	}
	ap := addr.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// unmappedIP returns an address as a socket of IPv6 tells it, an IPv4 one as what it is.
func unmappedIP(addr [16]byte, zone uint32) netip.Addr {
	ip := netip.AddrFrom16(addr).Unmap()
	if zone != 0 {
		ip = ip.WithZone(zoneName(zone))
	}
	return ip
}

func zoneName(index uint32) string {
	if ifi, err := net.InterfaceByIndex(int(index)); err == nil {
		return ifi.Name
	}
	return ""
}

func unixName(sa syscall.Sockaddr) string {
	if sa, ok := sa.(*syscall.SockaddrUnix); ok {
		return sa.Name
	}
	return ""
}
