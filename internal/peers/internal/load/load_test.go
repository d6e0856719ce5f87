package load_test

import (
	"bufio"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rawws/websocket/internal/peers/internal/echo"
	"github.com/rawws/websocket/internal/peers/internal/load"
)

// serverBinary is cmd/echoserver as it is shipped: what is tried out here is the
// client, and a library whose event loop the race detector doesn't understand
// is still a server.
var serverBinary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "echoserver")
		if err != nil {
			log.Fatal(err)
		}
		defer os.RemoveAll(dir)
		serverBinary = filepath.Join(dir, "echoserver")
		if out, err := exec.Command("go", "build", "-o", serverBinary, "../../cmd/echoserver").CombinedOutput(); err != nil {
			log.Printf("go build: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// start runs a server until the test ends, and returns its address.
func start(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(serverBinary, append(args, "-addr", "127.0.0.1:0")...)
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	line, err := bufio.NewReader(said).ReadString('\n')
	_, addr, found := strings.Cut(strings.TrimSpace(line), " listens on ")
	if !found {
		t.Fatalf("the server said %q, %v; want where it listens", line, err)
	}
	return addr
}

func payloads(n int) [][]byte {
	return [][]byte{[]byte(strings.Repeat("0123456789abcdef", n/16+1)[:n])}
}

// TestEveryServerEchoes runs the client against each server: what the
// comparisons measure is a whole and correct echo.
func TestEveryServerEchoes(t *testing.T) {
	for _, s := range echo.All {
		t.Run(s.Name, func(t *testing.T) {
			for _, size := range []int{8, 125, 126, 65535, 65536, 1 << 20} {
				addr := start(t, "-server", s.Name, "-validate", "-raw-message", strconv.Itoa(load.FrameSize(size)))
				for _, pipeline := range []int{1, 4} {
					l := &load.Load{
						Addr: addr, Conns: 3, Pipeline: pipeline, Payloads: payloads(size),
						Text: true, Raw: s.Raw, Sources: 2,
					}
					defer l.Close()
					if err := l.Open(); err != nil {
						t.Fatalf("%d bytes: open: %v", size, err)
					}
					if err := l.Warm(50); err != nil {
						t.Errorf("%d bytes, pipeline %d: %v", size, pipeline, err)
					}
				}
			}
		})
	}
}

// TestEveryServerCompresses does so with and without context takeover, and with
// a small window, for long enough that the messages come again.
func TestEveryServerCompresses(t *testing.T) {
	tests := []struct {
		name  string
		args  []string
		knows func(echo.Server) bool
		load  load.Load
	}{
		{"no takeover", nil, func(s echo.Server) bool { return s.Deflates }, load.Load{}},
		{"takeover", []string{"-takeover"}, func(s echo.Server) bool { return s.Takeover }, load.Load{Takeover: true}},
		{"4 KiB windows", []string{"-takeover", "-window-bits", "12"}, func(s echo.Server) bool { return s.Windows }, load.Load{Takeover: true, Bits: 12}},
	}
	for _, tt := range tests {
		know := slices.DeleteFunc(slices.Clone(echo.All), func(s echo.Server) bool { return !tt.knows(s) })
		if len(know) < 3 {
			t.Errorf("%s: %d servers know it; want three at least", tt.name, len(know))
		}
		for _, s := range know {
			t.Run(tt.name+"/"+s.Name, func(t *testing.T) {
				l := tt.load
				l.Addr = start(t, append([]string{"-server", s.Name, "-deflate"}, tt.args...)...)
				l.Conns, l.Payloads, l.Text, l.Deflate = 2, load.Documents(40, 1<<10), true, true
				defer l.Close()
				if err := l.Open(); err != nil {
					t.Fatal(err)
				}
				if err := l.Warm(300); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestNoticesNoTakeover asks servers for more than they have: they say so, or
// are seen to compress each answer by itself.
func TestNoticesNoTakeover(t *testing.T) {
	for name, want := range map[string]string{
		"gorilla": "takeover declined", "nbio": "takeover declined", "gws": "takeover declined", "ours": "keeps no context",
	} {
		l := &load.Load{
			Addr: start(t, "-server", name, "-deflate"), Conns: 1, Payloads: load.Documents(4, 1<<10), Text: true,
			Deflate: true, Takeover: true,
		}
		err := l.Open()
		if err == nil {
			err = l.Warm(10)
		}
		l.Close()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s without context takeover: %v; want an error with %q", name, err, want)
		}
	}
}

func TestHandshakes(t *testing.T) {
	for _, s := range echo.All {
		t.Run(s.Name, func(t *testing.T) {
			l := &load.Load{Addr: start(t, "-server", s.Name), Conns: 5, Raw: s.Raw, Sources: 3}
			r, err := l.Handshakes(40)
			if err != nil {
				t.Fatal(err)
			}
			if r.Latency.Count != 40 {
				t.Errorf("40 handshakes: %d were timed; want all", r.Latency.Count)
			}
		})
	}
}

// TestNoticesAlteredEcho puts a server in front that flips one bit, loses a
// byte or repeats one: the client has to say so.
func TestNoticesAlteredEcho(t *testing.T) {
	tests := []struct {
		name  string
		alter func(p []byte) []byte
	}{
		{"bit", func(p []byte) []byte { p[len(p)/2] ^= 1; return p }},
		{"number", func(p []byte) []byte { p[6] ^= 1; return p }},
		{"last", func(p []byte) []byte { p[len(p)-1] ^= 0x80; return p }},
		{"twice", func(p []byte) []byte { return append(p, p...) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			go func() {
				nc, err := ln.Accept()
				if err != nil {
					return
				}
				defer nc.Close()
				buf := make([]byte, 4096)
				for {
					n, err := nc.Read(buf)
					if err != nil {
						return
					}
					nc.Write(tt.alter(buf[:n]))
				}
			}()
			l := &load.Load{Addr: ln.Addr().String(), Conns: 1, Raw: true, Payloads: payloads(100)}
			defer l.Close()
			if err := l.Open(); err != nil {
				t.Fatal(err)
			}
			if err := l.Warm(5); err == nil {
				t.Errorf("the echo was altered (%s): got no error; want one", tt.name)
			}
		})
	}
}

func TestHistQuantiles(t *testing.T) {
	var a, b load.Hist
	for i := 1; i <= 1000; i++ {
		h := &a
		if i%2 == 0 {
			h = &b
		}
		h.Add(time.Duration(i) * time.Microsecond)
	}
	a.Seal()
	b.Seal()
	a.Merge(&b)
	for _, tt := range []struct {
		q    float64
		want time.Duration
	}{{0, time.Microsecond}, {0.5, 501 * time.Microsecond}, {0.99, 991 * time.Microsecond}, {1, time.Millisecond}} {
		got := a.Quantile(tt.q)
		if off := float64(got-tt.want) / float64(tt.want); off < -0.02 || off > 0.02 {
			t.Errorf("Quantile(%v) of 1 to 1000 µs = %v; want %v within 2%%", tt.q, got, tt.want)
		}
	}
}
