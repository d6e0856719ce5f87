package peers

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rawws/websocket/internal/peers/internal/example"
)

// debian are the packages of the clients below. Python is Debian's own, since
// its modules are.
const debian = "libmojolicious-perl python3-tornado python3-websockets python3-gi gir1.2-soup-3.0 default-jdk-headless"

// A realClient is a program of testdata/clients, which says itself what it
// checks: text twice, binary, empty messages, 1 MiB, and the close code.
type realClient struct {
	name string
	args []string
}

var realClients = []realClient{
	{"websockets", []string{"/usr/bin/python3", "websockets_client.py"}},
	{"java.net.http", []string{"java", "HttpClientPeer.java"}},
	{"Mojolicious", []string{"/usr/bin/perl", "mojolicious.pl"}},
	{"Tornado", []string{"/usr/bin/python3", "tornado_client.py"}},
	{"libsoup", []string{"/usr/bin/python3", "libsoup_client.py"}},
}

// buildEcho compiles the echo example once; TestMain removes it.
var buildEcho = sync.OnceValues(func() (binary string, err error) {
	binary, echoDir, err = example.Build()
	return binary, err
})

var echoDir string

// startEcho runs the echo example with compression, until stopEcho.
func startEcho(t *testing.T, args ...string) *example.Process {
	t.Helper()
	binary, err := buildEcho()
	if err != nil {
		t.Fatal(err)
	}
	p, err := example.Start(binary, append([]string{"-addr", "127.0.0.1:0", "-deflate"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// stopEcho ends it and wants so many connections to have been closed with 4321.
func stopEcho(t *testing.T, p *example.Process, closed int) {
	t.Helper()
	if err := p.Interrupt(); err != nil {
		t.Error(err)
	}
	log, err := p.Wait(20 * time.Second)
	if err != nil {
		t.Error(err)
	}
	text := strings.Join(log, "\n")
	if got := strings.Count(text, `by the peer, 4321 "bye" (clean)`); got != closed {
		t.Errorf("%d connections were closed with 4321, want %d; the server said\n%s", got, closed, text)
	}
}

// TestRealClients needs what debian lists, and fails without it.
func TestRealClients(t *testing.T) {
	for shape, args := range map[string][]string{"events": nil, "blocking": {"-blocking"}, "contexts both ways": {"-deflate-takeover"}} {
		t.Run(shape, func(t *testing.T) {
			server := startEcho(t, args...)
			t.Cleanup(func() { stopEcho(t, server, len(realClients)) })
			for _, c := range realClients {
				t.Run(c.name, func(t *testing.T) {
					t.Parallel()
					runClient(t, c, "ws://"+server.Addr+"/")
				})
			}
		})
	}
}

func runClient(t *testing.T, c realClient, url string) {
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.args[0], append(c.args[1:], url)...)
	cmd.Dir = filepath.Join("testdata", "clients")
	cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v (Debian's packages are %s)\n%s", c.args, err, debian, out)
	}
	t.Logf("%s", out)
}
