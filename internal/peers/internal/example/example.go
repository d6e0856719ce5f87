// Package example runs the echo example of the repository, the same program
// that a user runs, in a process of its own.
package example

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"

	"github.com/rawws/websocket/internal/peers/internal/child"
)

// Build compiles the example into a directory that the caller removes.
func Build() (binary, dir string, err error) {
	dir, err = os.MkdirTemp("", "echo-example")
	if err != nil {
		return "", "", err
	}
	binary = filepath.Join(dir, "echo")
	out, err := exec.Command("go", "build", "-o", binary, "github.com/rawws/websocket/examples/echo").CombinedOutput()
	if err != nil {
		os.RemoveAll(dir)
		return "", "", fmt.Errorf("build of the echo example (in internal/peers): %w: %s", err, out)
	}
	return binary, dir, nil
}

// A Process is a running example.
type Process struct {
	child.Process
	Addr string
	cmd  *exec.Cmd
	log  *bufio.Scanner
}

var announced = regexp.MustCompile(` on wss?://([^/]+)/`)

// Start runs the binary with args and waits until it says where it listens.
func Start(binary string, args ...string) (*Process, error) {
	p := &Process{cmd: exec.Command(binary, args...)}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.PID = p.cmd.Process.Pid
	p.log = bufio.NewScanner(stderr)
	var said string
	for p.log.Scan() {
		said += p.log.Text() + "\n"
		if m := announced.FindStringSubmatch(p.log.Text()); m != nil {
			p.Addr = m[1]
			return p, nil
		}
	}
	p.Kill()
	return nil, fmt.Errorf("the echo example didn't say where it listens: %s", said)
}

// Interrupt is Ctrl-C.
func (p *Process) Interrupt() error { return p.cmd.Process.Signal(os.Interrupt) }

// Wait waits for the process to end and returns what it logged since Start. It
// kills it after limit.
func (p *Process) Wait(limit time.Duration) (log []string, err error) {
	killed := errors.New("had to be killed")
	kill := time.AfterFunc(limit, func() { p.cmd.Process.Kill() })
	for p.log.Scan() {
		log = append(log, p.log.Text())
	}
	err = p.cmd.Wait()
	if !kill.Stop() {
		err = errors.Join(err, killed)
	}
	return log, err
}

// Kill ends the process at once.
func (p *Process) Kill() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
}
