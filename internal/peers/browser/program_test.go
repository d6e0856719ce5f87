package browser

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// root is where the repository's own module lies.
const root = "../../.."

// build compiles a command of the module in dir, once.
func build(t *testing.T, dir, pkg string) (binary string) {
	t.Helper()
	builds.Lock()
	defer builds.Unlock()
	binary = filepath.Join(scratch, filepath.Base(filepath.Join(dir, strings.TrimSuffix(pkg, "/v2"))))
	if _, err := os.Stat(binary); err == nil {
		return binary
	}
	cmd := exec.Command("go", "build", "-o", binary, pkg)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v in %s: %v\n%s", cmd.Args, dir, err, out)
	}
	return binary
}

var builds sync.Mutex

// A program is a command of ours, in a process of its own.
type program struct {
	*testing.T
	cmd  *exec.Cmd
	url  string        // of its page
	done chan struct{} // closed when the process has ended; then:
	err  error

	mu  sync.Mutex
	log strings.Builder // guarded by mu
}

// start runs binary until the test ends, and waits until it serves at addr.
func start(t *testing.T, addr, binary string, args ...string) *program {
	t.Helper()
	p := &program{T: t, cmd: exec.Command(binary, args...), url: "http://" + addr + "/", done: make(chan struct{})}
	stderr, err := p.cmd.StderrPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			p.mu.Lock()
			p.log.WriteString(lines.Text() + "\n")
			p.mu.Unlock()
		}
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("%s %q said:\n%s", filepath.Base(binary), args, p.said())
		}
	})
	p.awaitListener(addr)
	return p
}

// awaitListener tries until somebody accepts at addr.
func (p *program) awaitListener(addr string) {
	p.Helper()
	for deadline := time.Now().Add(patience); ; {
		nc, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			nc.Close()
			return
		}
		select {
		case <-p.done:
			p.Fatalf("%v ended: %v\n%s", p.cmd.Args, p.err, p.said())
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			p.Fatalf("%v: nobody listens at %s: %v\n%s", p.cmd.Args, addr, err, p.said())
		}
	}
}

func (p *program) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// kill ends the process at once.
func (p *program) kill() {
	p.cmd.Process.Kill()
	<-p.done
}

// terminate asks the process to end, and wants it to do so well.
func (p *program) terminate() {
	p.Helper()
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		if p.err != nil {
			p.Errorf("%v: %v\n%s", p.cmd.Args, p.err, p.said())
		}
	case <-time.After(patience):
		p.Fatalf("%v didn't end\n%s", p.cmd.Args, p.said())
	}
}

// freeAddr returns an address that nobody listens at.
func freeAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return fmt.Sprint(ln.Addr())
}

func split(t *testing.T, addr string) (host, port string) {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return host, port
}
