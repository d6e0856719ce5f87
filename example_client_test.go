package websocket_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"

	"github.com/rawws/websocket"
)

// A client is what a browser is to the examples, as small as it can be. Its
// frames are masked with the key 0, so that they can be read (RFC 6455,
// section 5.3), and shorter than 126 bytes.
type client struct {
	nc net.Conn
	r  *bufio.Reader
	http.Response
}

// dial connects and asks for an upgrade, with more header lines if given.
func dial(addr, path string, header ...string) *client {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		log.Fatal(err)
	}
	return upgrade(nc, path, header...)
}

func upgrade(nc net.Conn, path string, header ...string) *client {
	request := "GET " + path + " HTTP/1.1\r\nHost: server.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	for _, line := range header {
		request += line + "\r\n"
	}
	if _, err := io.WriteString(nc, request+"\r\n"); err != nil {
		log.Fatal(err)
	}
	r := bufio.NewReader(nc)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		log.Fatal(err)
	}
	return &client{nc, r, *resp}
}

func (c *client) send(text string) { c.frame(0x81, []byte(text)) }

// close does the closing handshake and ends with the server's end of TCP.
func (c *client) close(code websocket.CloseCode, reason string) {
	c.frame(0x88, append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason...))
	io.Copy(io.Discard, c.r)
	c.nc.Close()
}

func (c *client) frame(first byte, payload []byte) {
	c.nc.Write(append([]byte{first, 0x80 | byte(len(payload)), 0, 0, 0, 0}, payload...))
}

// receive returns the payload of the next frame, or what the close frame says.
func (c *client) receive() string {
	head := make([]byte, 2)
	if _, err := io.ReadFull(c.r, head); err != nil {
		return err.Error()
	}
	payload := make([]byte, head[1])
	if _, err := io.ReadFull(c.r, payload); err != nil {
		return err.Error()
	}
	if head[0] == 0x88 {
		return fmt.Sprintf("close %d %q", binary.BigEndian.Uint16(payload), payload[2:])
	}
	return string(payload)
}

// serve serves s on a free port of the loopback; stop ends it.
func serve(s *websocket.Server) (addr string, stop func()) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		s.Serve(ln)
		close(done)
	}()
	return ln.Addr().String(), func() {
		s.Close()
		<-done
	}
}
