package peers

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	coder "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"
	"github.com/lxzan/gws"

	ours "github.com/rawws/websocket"
)

// updates are JSON objects of about 100 bytes, as a feed of prices sends them.
func updates(n int) (list []string) {
	r := rand.New(rand.NewPCG(4, 4))
	symbols := []string{"BTC-EUR", "ETH-EUR", "SOL-EUR", "XRP-EUR", "ADA-EUR", "DOT-EUR"}
	at := 1_764_270_000_000
	for i := range n {
		at += r.IntN(400)
		list = append(list, fmt.Sprintf(`{"type":"trade","symbol":"%s","id":%d,"price":"%d.%02d","size":"0.%04d","side":"%s","time":%d}`,
			symbols[r.IntN(len(symbols))], 48_213_000+i, 90_000+r.IntN(900), r.IntN(100), r.IntN(10_000), []string{"buy", "sell"}[r.IntN(2)], at))
	}
	return list
}

// A feed is a server that sends the updates to whoever comes, and closes.
type feed struct {
	name  string
	serve func(t *testing.T, list []string) (addr string)
}

func ourFeed(name string, c *ours.Compression) feed {
	return feed{name, func(t *testing.T, list []string) string {
		s := &ours.Server{Upgrader: ours.Upgrader{Compression: c}}
		s.Handler = ours.HandlerFunc(func(c *ours.Conn, _ *http.Request) {
			for _, u := range list {
				if c.WriteMessage(ours.TextMessage, []byte(u)) != nil {
					return
				}
			}
		})
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go s.Serve(ln)
		t.Cleanup(func() { s.Close() })
		return ln.Addr().String()
	}}
}

// handlerFeed is for libraries behind net/http.
func handlerFeed(name string, send func(w http.ResponseWriter, r *http.Request, list []string) error) feed {
	return feed{name, func(t *testing.T, list []string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := send(w, r, list); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}))
		t.Cleanup(s.Close)
		return s.Listener.Addr().String()
	}}
}

func sendGorilla(w http.ResponseWriter, r *http.Request, list []string) error {
	c, err := (&gorilla.Upgrader{EnableCompression: true}).Upgrade(w, r, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, u := range list {
		if err := c.WriteMessage(gorilla.TextMessage, []byte(u)); err != nil {
			return err
		}
	}
	return c.WriteMessage(gorilla.CloseMessage, gorilla.FormatCloseMessage(1000, ""))
}

func sendCoder(mode coder.CompressionMode) func(w http.ResponseWriter, r *http.Request, list []string) error {
	return func(w http.ResponseWriter, r *http.Request, list []string) error {
		c, err := coder.Accept(w, r, &coder.AcceptOptions{CompressionMode: mode, CompressionThreshold: 1})
		if err != nil {
			return err
		}
		for _, u := range list {
			if err := c.Write(r.Context(), coder.MessageText, []byte(u)); err != nil {
				return err
			}
		}
		go c.Close(1000, "")
		return nil
	}
}

func sendGWS(takeover bool, bits int) func(w http.ResponseWriter, r *http.Request, list []string) error {
	return func(w http.ResponseWriter, r *http.Request, list []string) error {
		u := gws.NewUpgrader(gws.BuiltinEventHandler{}, &gws.ServerOption{PermessageDeflate: gws.PermessageDeflate{
			Enabled: true, ServerContextTakeover: takeover, ClientContextTakeover: true, Threshold: 1, ServerMaxWindowBits: bits,
		}})
		c, err := u.Upgrade(w, r)
		if err != nil {
			return err
		}
		for _, s := range list {
			if err := c.WriteMessage(gws.OpcodeText, []byte(s)); err != nil {
				return err
			}
		}
		return c.WriteClose(1000, nil)
	}
}

func nodeFeed(name string, bits int, takeover string) feed {
	return feed{name, func(t *testing.T, list []string) string {
		dir, err := installNode()
		if err != nil {
			t.Fatal(err)
		}
		in, err := json.Marshal(list)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), "node", "updates.mjs", fmt.Sprint(bits), takeover)
		cmd.Dir, cmd.Stdin = dir, bytes.NewReader(in)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		port, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return "127.0.0.1:" + strings.TrimSpace(port)
	}}
}

// receive counts the bytes of the messages that a feed sends, headers included,
// to a client that allows it everything.
func receive(t *testing.T, addr string) (messages, size int, agreed string) {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(nc, "GET / HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"+
		"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n", addr)
	r := bufio.NewReader(nc)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v; want 101", resp, err)
	}
	for {
		op, fin, n, err := readFrame(r)
		if err != nil {
			t.Fatalf("after %d messages: %v; want a close frame", messages, err)
		}
		if op == 8 {
			return messages, size, resp.Header.Get("Sec-WebSocket-Extensions")
		}
		size += n
		if fin {
			messages++
		}
	}
}

// readFrame gives the length of a frame, its header included.
func readFrame(r *bufio.Reader) (op byte, fin bool, n int, err error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:2]); err != nil {
		return 0, false, 0, err
	}
	length, n := int(head[1]), 2
	switch length {
	case 126:
		if _, err := io.ReadFull(r, head[2:]); err != nil {
			return 0, false, 0, err
		}
		length, n = int(binary.BigEndian.Uint16(head[2:])), 4
	case 127:
		return 0, false, 0, errors.New("a frame of 64 KiB")
	}
	_, err = r.Discard(length)
	return head[0] & 15, head[0]&0x80 != 0, n + length, err
}

// TestUpdatesOnTheWire counts what 2,000 updates take on the wire. -v shows the
// table.
func TestUpdatesOnTheWire(t *testing.T) {
	list := updates(2000)
	size := map[string]int{}
	for _, f := range []feed{
		ourFeed("ours, plain", nil),
		ourFeed("ours, no context", &ours.Compression{Threshold: -1}),
		ourFeed("ours, 4 KiB", &ours.Compression{Threshold: -1, ServerContext: true}),
		ourFeed("ours, 32 KiB", &ours.Compression{Threshold: -1, ServerContext: true, WindowBits: 15}),
		ourFeed("ours, level 2, 4 KiB", &ours.Compression{Threshold: -1, ServerContext: true, Level: 2}),
		ourFeed("ours, level 2, 32 KiB", &ours.Compression{Threshold: -1, ServerContext: true, WindowBits: 15, Level: 2}),
		handlerFeed("gorilla, no context", sendGorilla),
		handlerFeed("coder, no context", sendCoder(coder.CompressionNoContextTakeover)),
		handlerFeed("coder, 32 KiB", sendCoder(coder.CompressionContextTakeover)),
		handlerFeed("gws, no context", sendGWS(false, 15)),
		handlerFeed("gws, 4 KiB", sendGWS(true, 12)),
		handlerFeed("gws, 32 KiB", sendGWS(true, 15)),
		nodeFeed("Node's ws, no context", 15, "no-takeover"),
		nodeFeed("Node's ws, 4 KiB", 12, "takeover"),
		nodeFeed("Node's ws, 32 KiB", 15, "takeover"),
	} {
		n, bytes, agreed := receive(t, f.serve(t, list))
		if n != len(list) {
			t.Errorf("%s: %d messages, want %d", f.name, n, len(list))
		}
		size[f.name] = bytes
		t.Logf("%-22s %7.1f bytes a message, agreed on %q", f.name, float64(bytes)/float64(len(list)), agreed)
	}
	for _, c := range []struct{ small, large string }{
		{"ours, 4 KiB", "ours, no context"}, {"ours, 32 KiB", "ours, 4 KiB"}, {"ours, level 2, 4 KiB", "ours, 4 KiB"}, {"ours, no context", "ours, plain"},
	} {
		if size[c.small] >= size[c.large] {
			t.Errorf("%s took %d bytes, %s %d; want less", c.small, size[c.small], c.large, size[c.large])
		}
	}
}
