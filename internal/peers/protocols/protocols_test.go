// Package protocols holds the tests in which the real clients of socket.io and
// SignalR talk to examples/protocols.
package protocols

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rawws/websocket/internal/peers/internal/npm"
)

var (
	scripts string // testdata, with what its package.json names
	binary  string // the example
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := npm.Install("testdata")
	if err == nil {
		defer os.RemoveAll(dir)
		scripts, binary = dir, filepath.Join(dir, "protocols")
		var out []byte
		out, err = exec.Command("go", "build", "-o", binary, "github.com/rawws/websocket/examples/protocols").CombinedOutput()
		err = wrap(err, out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "FAIL: these tests need node and npm, on Debian: apt-get install -y nodejs npm:", err)
		return 1
	}
	return m.Run()
}

func wrap(err error, out []byte) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w\n%s", err, out)
}

// A server is a process that says "open http://host:port/".
type server struct {
	addr string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended

	mu  sync.Mutex
	log bytes.Buffer // guarded by mu
}

var opened = regexp.MustCompile(`open http://([^/]+)/`)

// start runs a server until the test ends or kill.
func start(t *testing.T, name string, args ...string) *server {
	t.Helper()
	s := &server{cmd: exec.Command(name, args...), done: make(chan struct{})}
	s.cmd.Dir = scripts
	r, w := io.Pipe()
	s.cmd.Stdout, s.cmd.Stderr = w, w
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		s.cmd.Wait()
		w.Close()
	}()
	said := make(chan string, 1)
	go func() {
		defer close(s.done)
		for lines := bufio.NewScanner(r); lines.Scan(); {
			if m := opened.FindStringSubmatch(lines.Text()); m != nil {
				said <- m[1]
				continue
			}
			s.mu.Lock()
			s.log.WriteString(lines.Text() + "\n")
			s.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		s.kill()
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.log.Len() > 0 {
			t.Errorf("%s %q said:\n%s", filepath.Base(name), args, s.log.String())
		}
	})
	select {
	case s.addr = <-said:
	case <-s.done:
		t.Fatalf("%s %q ended", name, args)
	case <-time.After(20 * time.Second):
		t.Fatalf("%s %q doesn't say where it listens", name, args)
	}
	return s
}

func (s *server) kill() {
	s.cmd.Process.Kill()
	<-s.done
}

// node runs a script and wants it to find everything right.
func node(t *testing.T, script string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", append([]string{script}, args...)...)
	cmd.Dir = scripts
	out, err := cmd.CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("FAIL")) || !bytes.Contains(out, []byte("ok:")) {
		t.Errorf("node %s %q: %v\n%s", script, args, err, out)
	}
}

// variants are the ways to serve, each with the runs that are worth their time.
var variants = []struct {
	name string
	args []string
	runs []string
}{
	{"raw", nil, []string{
		"socketio.mjs websocket", "socketio.mjs polling", "socketio.mjs default",
		"signalr.mjs json negotiate", "signalr.mjs json skip", "signalr.mjs messagepack negotiate", "signalr.mjs messagepack skip",
	}},
	{"raw deflated", []string{"-deflate"}, []string{"socketio.mjs websocket deflate", "socketio.mjs default", "signalr.mjs messagepack negotiate"}},
	{"net-http", []string{"-nethttp"}, []string{
		"socketio.mjs websocket", "socketio.mjs polling", "socketio.mjs default", "signalr.mjs json negotiate", "signalr.mjs messagepack skip",
	}},
	{"net-http deflated", []string{"-nethttp", "-deflate"}, []string{"socketio.mjs default", "signalr.mjs json skip"}},
}

func TestRealClients(t *testing.T) {
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, binary, append(v.args, "-addr", "127.0.0.1:0")...)
			for _, run := range v.runs {
				t.Run(run, func(t *testing.T) {
					words := strings.Fields(run)
					node(t, words[0], append([]string{"http://" + s.addr}, words[1:]...)...)
				})
			}
		})
	}
}

// The checks hold socket.io's own server to the same.
func TestReference(t *testing.T) {
	t.Parallel()
	s := start(t, "node", "reference.mjs")
	node(t, "socketio.mjs", "http://"+s.addr, "default")
}

// The clients come back when the server has been killed, and when it was told
// to end.
func TestRestart(t *testing.T) {
	for _, run := range []string{
		"socketio.mjs websocket restart", "socketio.mjs polling restart", "socketio.mjs default restart",
		"signalr.mjs json negotiate restart", "signalr.mjs messagepack skip restart",
	} {
		for how, end := range map[string]func(*server){
			"killed":     (*server).kill,
			"terminated": func(s *server) { s.cmd.Process.Signal(os.Interrupt); <-s.done },
		} {
			t.Run(run+" "+how, func(t *testing.T) {
				t.Parallel()
				s := start(t, binary, "-addr", "127.0.0.1:0")
				words := strings.Fields(run)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				cmd := exec.CommandContext(ctx, "node", append([]string{words[0], "http://" + s.addr}, words[1:]...)...)
				cmd.Dir = scripts
				out, err := cmd.StdoutPipe()
				if err == nil {
					err = cmd.Start()
				}
				if err != nil {
					t.Fatal(err)
				}
				var said strings.Builder
				for lines := bufio.NewScanner(out); lines.Scan(); {
					said.WriteString(lines.Text() + "\n")
					if lines.Text() == "ready" {
						end(s)
						start(t, binary, "-addr", s.addr)
					}
				}
				if err := cmd.Wait(); err != nil || !strings.Contains(said.String(), "ok: comes back") {
					t.Errorf("node %q: %v\n%s", run, err, said.String())
				}
			})
		}
	}
}
