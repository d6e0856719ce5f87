package websockettest

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// Dial connects to ln and asks for target, as "/chat?room=1", with more header
// lines if given ("Cookie: session=1"). A line takes the place of the one that
// a handshake has by itself; "Host:" with nothing behind the colon leaves it
// out. It fails the test unless the answer is 101 and right.
//
// A Listener, or what else has a method Dial() (net.Conn, error), is dialed by
// that; another, as that of an httptest.Server, by its address.
func Dial(t TB, ln net.Listener, target string, header ...string) *Client {
	t = orPanic(t)
	t.Helper()
	c := NewClient(t, connect(t, ln))
	c.Handshake(target, header...)
	return c
}

// DialAddr is Dial to a TCP address, as "127.0.0.1:8080".
func DialAddr(t TB, addr, target string, header ...string) *Client {
	t = orPanic(t)
	t.Helper()
	c := NewClient(t, connectAddr(t, "tcp", addr))
	c.Handshake(target, header...)
	return c
}

// WantRefusal asks ln for target as Dial does, and wants another answer than
// 101: one with this status. Its body can be read.
func WantRefusal(t TB, ln net.Listener, status int, target string, header ...string) *http.Response {
	t = orPanic(t)
	t.Helper()
	c := NewClient(t, connect(t, ln))
	c.SendRequest(target, header...)
	if c.ReadResponse(); c.Response.StatusCode != status {
		body, _ := io.ReadAll(c.Response.Body)
		t.Fatalf("websockettest: answer %s %s; want %d", c.Response.Status, shorten(body), status)
	}
	c.nc.Close()
	return c.Response
}

func connect(t TB, ln net.Listener) net.Conn {
	t.Helper()
	d, ok := ln.(interface{ Dial() (net.Conn, error) })
	if !ok {
		return connectAddr(t, ln.Addr().Network(), ln.Addr().String())
	}
	nc, err := d.Dial()
	if err != nil {
		t.Fatalf("websockettest: %v", err)
	}
	return nc
}

func connectAddr(t TB, network, addr string) net.Conn {
	t.Helper()
	nc, err := net.DialTimeout(network, addr, time.Minute)
	if err != nil {
		t.Fatalf("websockettest: %v", err)
	}
	return nc
}

// Handshake asks for target with Dial's header lines, and wants it granted.
func (c *Client) Handshake(target string, header ...string) {
	c.t.Helper()
	key := c.sendRequest(target, header)
	resp := c.ReadResponse()
	if resp.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(resp.Body)
		c.t.Fatalf("websockettest: answer %s %s; want 101", resp.Status, shorten(body))
	}
	for name, want := range map[string]string{"Upgrade": "websocket", "Connection": "upgrade", "Sec-Websocket-Accept": acceptKey(key)} {
		if got := resp.Header.Get(name); got != want && (name == "Sec-Websocket-Accept" || !strings.EqualFold(got, want)) {
			c.t.Fatalf("websockettest: answer with %s %q; want %q (RFC 6455, section 4.1)", name, got, want)
		}
	}
	c.deflate = newInflater(resp.Header.Get("Sec-WebSocket-Extensions"))
}

// SendRequest sends Handshake's request and doesn't read the answer.
func (c *Client) SendRequest(target string, header ...string) {
	c.t.Helper()
	c.sendRequest(target, header)
}

func (c *Client) sendRequest(target string, header []string) (key string) {
	c.t.Helper()
	lines := []string{
		"Host: server.example", "Upgrade: websocket", "Connection: Upgrade",
		"Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
	}
	request := "GET " + target + " HTTP/1.1\r\n"
	for _, line := range append(withoutFields(lines, header), header...) {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		if value == "" && len(withoutFields(lines, []string{line})) < len(lines) {
			continue
		}
		if strings.EqualFold(name, "Sec-WebSocket-Key") {
			key = value
		}
		request += line + "\r\n"
	}
	c.SendRaw([]byte(request + "\r\n"))
	return key
}

// withoutFields returns the lines whose field no line of others has.
func withoutFields(lines, others []string) []string {
	var kept []string
	for _, line := range lines {
		name, _, _ := strings.Cut(line, ":")
		had := false
		for _, other := range others {
			otherName, _, _ := strings.Cut(other, ":")
			had = had || strings.EqualFold(name, otherName)
		}
		if !had {
			kept = append(kept, line)
		}
	}
	return kept
}

// acceptKey returns the Sec-WebSocket-Accept for a Sec-WebSocket-Key (RFC 6455,
// section 4.2.2).
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// ReadResponse reads an HTTP answer with its body, which is Response then.
func (c *Client) ReadResponse() *http.Response {
	c.t.Helper()
	c.nc.SetReadDeadline(time.Now().Add(c.Timeout))
	br := bufio.NewReader(io.MultiReader(bytes.NewReader(c.in), c.nc))
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		c.t.Fatalf("websockettest: no answer: %v", err)
	}
	var body []byte
	if resp.StatusCode != http.StatusSwitchingProtocols {
		if body, err = io.ReadAll(resp.Body); err != nil {
			c.t.Fatalf("websockettest: the body of the answer: %v", err)
		}
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	rest, _ := br.Peek(br.Buffered())
	c.in, c.Response = bytes.Clone(rest), resp
	return resp
}
