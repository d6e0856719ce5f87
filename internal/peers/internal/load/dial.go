package load

import (
	"bytes"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

const (
	sampleKey    = "dGhlIHNhbXBsZSBub25jZQ==" // of RFC 6455, section 1.3
	sampleAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
)

// request is the upgrade as a browser sends it.
func request(addr netip.AddrPort, x extension) []byte {
	b := fmt.Appendf(nil, "GET /echo HTTP/1.1\r\n"+
		"Host: %s\r\n"+
		"Connection: Upgrade\r\n"+
		"Pragma: no-cache\r\n"+
		"Cache-Control: no-cache\r\n"+
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n"+
		"Upgrade: websocket\r\n"+
		"Origin: http://%s\r\n"+
		"Sec-WebSocket-Version: 13\r\n"+
		"Accept-Encoding: gzip, deflate, br\r\n"+
		"Accept-Language: en-US,en;q=0.9\r\n"+
		"Sec-WebSocket-Key: "+sampleKey+"\r\n", addr, addr)
	if x.deflate {
		b = append(b, "Sec-WebSocket-Extensions: "+x.offer()+"\r\n"...)
	}
	return append(b, "\r\n"...)
}

// checkAnswer looks at the head of an answer. It returns the length of the
// head, or 0 while the head isn't whole.
func checkAnswer(b []byte, x extension) (int, error) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		if len(b) > 8<<10 {
			return 0, fmt.Errorf("load: the answer's head has no end after %d bytes", len(b))
		}
		return 0, nil
	}
	head := b[:end+4]
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 101 ")) || !bytes.Contains(head, []byte(sampleAccept)) {
		return 0, fmt.Errorf("load: upgrade refused: %q", head)
	}
	if err := x.agreed(head); err != nil {
		return 0, err
	}
	return end + 4, nil
}

// dial connects a blocking socket. Source 0 leaves the address to the kernel;
// source n binds 127.0.0.1+n, since one address has only some 28,000 ports for
// one destination.
func dial(addr netip.AddrPort, source int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("load: socket: %w", err)
	}
	if source > 0 {
		from := &unix.SockaddrInet4{Addr: [4]byte{127, 0, byte(source >> 8), byte(1 + source)}}
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		if err == nil {
			err = unix.Bind(fd, from)
		}
	}
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()})
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("load: connect to %s: %w", addr, err)
	}
	return fd, nil
}

// source spreads connection i over n addresses.
func source(i, n int) int {
	if n == 0 {
		return 0
	}
	return 1 + i%n
}
