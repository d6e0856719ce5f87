package hixie

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rawws/websocket"
)

// The draft's own examples.
var examples = []struct{ key1, key2, body, answer string }{
	{"4 @1  46546xW%0l 1 5", "12998 5 Y3 1  .P00", "^n:ds[4U", "8jKS'y:G*Co,Wxa-"},
	{"18x 6]8vM;54 *(5:  {   U1]8  z [  8", "1_ tx7X d  <  nw  334J702) 7]o}` 0", "Tm[K T2u", "fQJ,fN/4F4!~K~MH"},
}

func TestAnswer(t *testing.T) {
	for _, e := range examples {
		key1, err1 := keyNumber(e.key1)
		key2, err2 := keyNumber(e.key2)
		if got := answer(key1, key2, []byte(e.body)); err1 != nil || err2 != nil || string(got) != e.answer {
			t.Errorf("answer to %q, %q, %q = %q, %v, %v; want %q", e.key1, e.key2, e.body, got, err1, err2, e.answer)
		}
	}
}

func TestKeyNumber(t *testing.T) {
	for key, want := range map[string]int64{
		"1 0":              10,
		"4 2 9496729 5x":   1431655765,
		"0 ":               0,
		"":                 -1,
		"12":               -1, // no space to divide by
		"1 1 1":            -1, // 111 by 2
		"4 294967296":      -1, // 33 bits
		"9999999999999999": -1,
		" 99999999999999999999999999999999999999999999": -1, // more than 64 bits
	} {
		got, err := keyNumber(key)
		if want < 0 && err == nil || want >= 0 && (err != nil || int64(got) != want) {
			t.Errorf("keyNumber(%q) = %d, %v; want %d", key, got, err, want)
		}
	}
}

// echo serves what the tests talk to.
func echo(t *testing.T) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error)
	go func() {
		served <- Serve(ln, func(c *Conn, r *http.Request) {
			for {
				s, err := c.ReadText()
				if err != nil || s == "bye" {
					return
				}
				if s == "panic" {
					panic("as told")
				}
				c.WriteText(s)
			}
		})
	}()
	t.Cleanup(func() { ln.Close(); <-served })
	return ln.Addr().String()
}

// request is what such a browser sends: its keys hide a number each.
func request(host string, number1, number2 uint32, body string) string {
	return "GET /chat?x=1 HTTP/1.1\r\nHost: " + host + "\r\nConnection: Upgrade\r\nSec-WebSocket-Key2: " + hide(number2) +
		"\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key1: " + hide(number1) + "\r\nOrigin: http://" + host + "\r\n\r\n" + body
}

// hide multiplies a number by some spaces and mixes them and other characters
// between its digits, as the draft says.
func hide(number uint32) string {
	spaces := uint64(rand.IntN(12) + 1)
	spaces = min(spaces, 0xffffffff/max(uint64(number), 1))
	key := []byte(strconv.FormatUint(uint64(number)*spaces, 10))
	insert := func(b byte, from, to int) {
		i := from + rand.IntN(to-from)
		key = append(key[:i], append([]byte{b}, key[i:]...)...)
	}
	for range rand.IntN(12) + 1 {
		insert(byte('A'+rand.IntN(26)), 0, len(key)+1)
	}
	for range spaces {
		insert(' ', 1, len(key)) // not at an end
	}
	return string(key)
}

// A client is the other end, restated from the draft.
type client struct {
	*testing.T
	nc net.Conn
	r  *bufio.Reader
}

func dial(t *testing.T, addr string) *client {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(10 * time.Second))
	return &client{t, nc, bufio.NewReader(nc)}
}

func open(t *testing.T, addr string) *client {
	t.Helper()
	c := dial(t, addr)
	number1, number2 := rand.Uint32N(1<<28), rand.Uint32N(1<<28)
	body := fmt.Sprintf("%08x", rand.Uint32())
	c.send(request(addr, number1, number2, body))
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil || resp.StatusCode != 101 {
		t.Fatalf("answer: %v, %v; want 101", resp, err)
	}
	for name, want := range map[string]string{
		"Upgrade": "WebSocket", "Connection": "Upgrade",
		"Sec-Websocket-Origin": "http://" + addr, "Sec-Websocket-Location": "ws://" + addr + "/chat?x=1",
	} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s: %q; want %q", name, got, want)
		}
	}
	if got, want := c.bytes(16), answer(number1, number2, []byte(body)); !bytes.Equal(got, want) {
		t.Fatalf("the answer's body: % x; want % x", got, want)
	}
	return c
}

func (c *client) send(s string) {
	c.Helper()
	if _, err := io.WriteString(c.nc, s); err != nil {
		c.Fatal(err)
	}
}

func (c *client) bytes(n int) []byte {
	c.Helper()
	p := make([]byte, n)
	if _, err := io.ReadFull(c.r, p); err != nil {
		c.Fatal(err)
	}
	return p
}

// want reads what was written to the wire, byte for byte.
func (c *client) want(frames string) {
	c.Helper()
	if got := c.bytes(len(frames)); string(got) != frames {
		c.Fatalf("read % x; want % x", got, frames)
	}
}

// end wants nothing more but the end, with or without the frame that says so.
func (c *client) end(frame string) {
	c.Helper()
	got, err := io.ReadAll(c.r)
	if string(got) != frame {
		c.Fatalf("at the end % x, %v; want % x", got, err, frame)
	}
}

func TestEcho(t *testing.T) {
	addr := echo(t)
	for range 20 { // as many ways to hide two numbers
		c := open(t, addr)
		c.send("\x00Hello\xff\x00\xff\x00Ελληνικά 👋\xff")
		c.want("\x00Hello\xff\x00\xff\x00Ελληνικά 👋\xff")
		c.send("\xff\x00")
		c.end("\xff\x00")
	}
}

func TestFrames(t *testing.T) {
	addr := echo(t)
	long := "\x00" + strings.Repeat("x", maxMessage-1) + "\xff"
	for _, tt := range []struct{ name, in, out, end string }{
		{"one byte at a time later", "\x00a\xff", "\x00a\xff", ""},
		{"not UTF-8", "\x00a\xc3(\xff", "\x00a\ufffd(\xff", ""},
		{"binary is passed over", "\x80\x05\x00\xff\x00\xff\x00\x00after\xff", "\x00after\xff", ""},
		{"a length of two bytes", "\x81\x81\x00" + strings.Repeat("\xff", 128) + "\x00after\xff", "\x00after\xff", ""},
		{"text of an unknown kind", "\x01no\xff\x00yes\xff", "\x00yes\xff", ""},
		{"the largest", long, long, ""},
		{"too large", "\x00" + strings.Repeat("x", maxMessage) + "\xff", "", "\xff\x00"},
		{"a length too large", "\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "", "\xff\x00"},
		{"the handler returns", "\x00bye\xff", "", "\xff\x00"},
		{"the handler panics", "\x00panic\xff", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := open(t, addr)
			c.send(tt.in)
			c.want(tt.out)
			if tt.out != "" {
				c.send("\x00bye\xff")
				tt.end = "\xff\x00"
			}
			c.end(tt.end)
		})
	}
}

func TestRefused(t *testing.T) {
	addr := echo(t)
	lawful := request(addr, 1, 2, "12345678")
	for name, req := range map[string]string{
		"another method":    strings.Replace(lawful, "GET", "POST", 1),
		"another page":      strings.Replace(lawful, "Origin: http://", "Origin: http://evil", 1),
		"no Origin":         strings.Replace(lawful, "Origin", "Other", 1),
		"no key":            strings.Replace(lawful, "Key1", "Key3", 1),
		"no Upgrade":        strings.Replace(lawful, "Upgrade: WebSocket", "Upgrade: h2c", 1),
		"a head too large":  strings.Replace(lawful, "\r\n", "\r\nX: "+strings.Repeat("x", maxHead)+"\r\n", 1),
		"a client of today": "GET / HTTP/1.1\r\nHost: " + addr + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, addr)
			c.nc.Write([]byte(req)) // may meet a socket that is closed already
			if got, _ := io.ReadAll(c.r); len(got) > 0 {
				t.Errorf("answer %q; want none", got)
			}
		})
	}
}

// The library tells such a client that it speaks another version: who looks at
// the wire, or at the log of a proxy, learns why it fails.
func TestLibraryAnswers426(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &websocket.Server{Handler: websocket.Events{}}
	go s.Serve(ln)
	defer s.Shutdown(context.Background())
	c := dial(t, ln.Addr().String())
	c.send(request(ln.Addr().String(), 1, 2, "12345678"))
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	why, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != 426 || resp.Header.Get("Sec-Websocket-Version") != "13" || len(why) == 0 {
		t.Errorf("answer: %v, %q; want 426, Sec-WebSocket-Version: 13 and the reason", resp, why)
	}
}
