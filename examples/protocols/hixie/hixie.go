// Package hixie serves the WebSocket draft that iOS 4 and 5 spoke before there
// was an RFC, draft-hixie-thewebsocketprotocol-76 (the same text is
// draft-ietf-hybi-thewebsocketprotocol-00), to show what RFC 6455 changed.
// Nobody should serve it today: it has no ping, no close code, no binary, no
// masks, and its handshake hangs behind proxies.
package hixie

import (
	"bufio"
	"crypto/md5"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

const (
	maxHead, maxMessage, maxConns  = 8 << 10, 64 << 10, 1000 // bytes, bytes, connections
	handshakeTimeout, writeTimeout = 10 * time.Second, 10 * time.Second
	idleTimeout                    = 10 * time.Minute // who is gone can't be told from who is quiet, without a ping
)

var errTooBig = errors.New("hixie: message too big")

// A Conn is an open connection. One goroutine reads, any number write.
type Conn struct {
	nc net.Conn
	r  *bufio.Reader
	mu sync.Mutex // held while writing
}

// Serve accepts connections from ln until that is closed. One goroutine calls
// handler for each, and ends the connection when it returns.
func Serve(ln net.Listener, handler func(*Conn, *http.Request)) error {
	slots := make(chan struct{}, maxConns)
	for {
		nc, err := ln.Accept()
		if err != nil {
			return err
		}
		select {
		case slots <- struct{}{}:
			go func() { defer func() { <-slots }(); serve(nc, handler) }()
		default:
			nc.Close()
		}
	}
}

func serve(nc net.Conn, handler func(*Conn, *http.Request)) {
	defer nc.Close()
	defer func() {
		if v := recover(); v != nil { // a panic costs this connection and nothing else
			log.Printf("hixie: handler panicked: %v", v)
		}
	}()
	nc.SetDeadline(time.Now().Add(handshakeTimeout))
	if c, r, err := handshake(nc); err == nil {
		handler(c, r)
		c.write([]byte{0xff, 0}) // the end, with no room for a reason
	}
}

// handshake reads the request and answers it. The draft has no words to refuse.
func handshake(nc net.Conn) (*Conn, *http.Request, error) {
	limited := &io.LimitedReader{R: nc, N: maxHead}
	c := &Conn{nc: nc, r: bufio.NewReader(limited)}
	r, err := readRequest(c.r)
	if err != nil {
		return nil, nil, err
	}
	// These eight bytes are a body without a Content-Length: a proxy doesn't
	// know that they belong to the request, and may keep them for ever.
	body := make([]byte, 8)
	_, err = io.ReadFull(c.r, body)
	key1, err1 := keyNumber(r.Header.Get("Sec-WebSocket-Key1"))
	key2, err2 := keyNumber(r.Header.Get("Sec-WebSocket-Key2"))
	if err := errors.Join(err, err1, err2); err != nil {
		return nil, nil, err
	}
	limited.N = math.MaxInt64
	head := fmt.Appendf(nil, "HTTP/1.1 101 WebSocket Protocol Handshake\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Origin: %s\r\nSec-WebSocket-Location: ws://%s%s\r\n\r\n", r.Header.Get("Origin"), r.Host, r.RequestURI)
	return c, r, c.write(append(head, answer(key1, key2, body)...))
}

// readRequest wants a page of our own host: it is the server's to look at Origin.
func readRequest(b *bufio.Reader) (*http.Request, error) {
	r, err := http.ReadRequest(b)
	if err != nil {
		return nil, err
	}
	origin, err := url.Parse(r.Header.Get("Origin"))
	if err != nil || origin.Host == "" || origin.Host != r.Host {
		return nil, errors.New("hixie: another origin")
	} else if r.Method != http.MethodGet || !strings.HasPrefix(r.RequestURI, "/") || r.Header.Get("Upgrade") != "WebSocket" {
		return nil, errors.New("hixie: no upgrade was asked for")
	}
	return r, nil
}

// keyNumber makes a number of a key: its digits, divided by its spaces. No form
// and no script of a page can make a browser send such a thing.
func keyNumber(key string) (uint32, error) {
	var digits, spaces uint64
	for _, b := range []byte(key) {
		if '0' <= b && b <= '9' && digits <= math.MaxUint32 {
			digits = digits*10 + uint64(b-'0')
		} else if b == ' ' {
			spaces++
		}
	}
	if digits > math.MaxUint32 || spaces == 0 || digits%spaces != 0 {
		return 0, fmt.Errorf("hixie: key %.64q: %d digits in %d spaces", key, digits, spaces)
	}
	return uint32(digits / spaces), nil
}

// answer is what proves that the server has read both keys and the body. RFC
// 6455 asks for the SHA-1 of one header instead, without a body.
func answer(key1, key2 uint32, body []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, key1)
	b = binary.BigEndian.AppendUint32(b, key2)
	sum := md5.Sum(append(b, body...))
	return sum[:]
}

// ReadText returns the next message, or io.EOF when the peer has closed.
func (c *Conn) ReadText() (string, error) {
	for {
		c.nc.SetReadDeadline(time.Now().Add(idleTimeout))
		kind, err := c.r.ReadByte()
		var p []byte
		if err == nil && kind&0x80 == 0 { // bytes up to FF, which UTF-8 doesn't have
			p, err = c.readUntilFF()
		} else if err == nil {
			err = c.skip(kind)
		}
		if err != nil || kind == 0 {
			return strings.ToValidUTF8(string(p), "\ufffd"), err
		}
	}
}

// readUntilFF looks at every byte for the end; RFC 6455 has a length in front.
func (c *Conn) readUntilFF() ([]byte, error) {
	var p []byte
	for {
		part, err := c.r.ReadSlice(0xff)
		p = append(p, part...)
		switch {
		case len(p) > maxMessage:
			return nil, errTooBig
		case err == nil:
			return p[:len(p)-1], nil
		case err != bufio.ErrBufferFull:
			return nil, err
		}
	}
}

// skip reads over a frame with a length, seven bits a byte. The draft reserved
// it for binary, which no version of it had; FF with length 0 is the end.
func (c *Conn) skip(kind byte) error {
	n, b, err := 0, byte(0x80), error(nil) // as long as the highest bit is set, more follows
	for b&0x80 != 0 && n <= maxMessage && err == nil {
		b, err = c.r.ReadByte()
		n = n<<7 | int(b&0x7f)
	}
	switch {
	case n > maxMessage:
		return errTooBig
	case err == nil && kind == 0xff && n == 0:
		return io.EOF
	case err == nil:
		_, err = c.r.Discard(n)
	}
	return err
}

// WriteText sends a message. What isn't UTF-8 would break the framing: replaced.
func (c *Conn) WriteText(s string) error {
	return c.write(append(append([]byte{0}, strings.ToValidUTF8(s, "\ufffd")...), 0xff))
}

func (c *Conn) write(p []byte) error {
	c.mu.Lock() // a message is never torn by another
	defer c.mu.Unlock()
	c.nc.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, err := c.nc.Write(p)
	return err
}
