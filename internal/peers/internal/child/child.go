// Package child runs a part of a benchmark in a process of its own: the
// program starts itself again under another role, talks to that child over its
// standard input and output, and reads its costs from the kernel. Linux only.
package child

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

const roleEnv = "PEERS_ROLE"

// A Role is what a child does. It gets its configuration, answers each request
// through the Link, and ends when Link.Next reports io.EOF: a child never
// outlives its parent.
type Role func(config json.RawMessage, link *Link) error

var roles = map[string]Role{}

// Register names a role. Every command registers its roles before Main.
func Register(name string, r Role) { roles[name] = r }

// Main runs the role that the environment asks for and doesn't return, or
// returns at once in the parent.
func Main() {
	name := os.Getenv(roleEnv)
	if name == "" {
		return
	}
	role, ok := roles[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "child: no role is called %q\n", name)
		os.Exit(2)
	}
	link := &Link{in: bufio.NewReader(os.Stdin), out: os.Stdout}
	config, err := link.Next()
	if err == nil {
		err = role(config, link)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintf(os.Stderr, "child: %s: %v\n", name, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// A Link is the child's end of the conversation: one JSON value per line.
type Link struct {
	in  *bufio.Reader
	out io.Writer
}

// Next waits for the parent's next request; io.EOF means that it is gone or
// wants the child to end.
func (l *Link) Next() (json.RawMessage, error) {
	line, err := l.in.ReadBytes('\n')
	if err != nil {
		return nil, io.EOF
	}
	return line, nil
}

// Answer sends v to the parent.
func (l *Link) Answer(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = l.out.Write(append(line, '\n'))
	return err
}

// A Process is a running child.
type Process struct {
	PID int
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// Start runs role in a new process on the given CPU, or anywhere if cpu is
// negative. GOMAXPROCS follows from the CPUs it may use.
func Start(role string, cpu int, config any, env ...string) (*Process, error) {
	return StartOn(role, cpu, 1, config, env...)
}

// StartOn is Start on n CPUs, cpu and those behind it, with as many processors
// of the Go runtime.
func StartOn(role string, cpu, n int, config any, env ...string) (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(append(os.Environ(), roleEnv+"="+role), env...)
	var cpus []int
	if cpu >= 0 {
		cmd.Env = append(cmd.Env, fmt.Sprintf("GOMAXPROCS=%d", n))
		for i := range n {
			cpus = append(cpus, cpu+i)
		}
	}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := startOn(cmd, cpus); err != nil {
		return nil, err
	}
	p := &Process{PID: cmd.Process.Pid, cmd: cmd, in: in, out: bufio.NewReader(out)}
	if err := p.Tell(config); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

// startOn forks from a thread that may only use cpus: the child inherits that,
// all its threads included. The thread is thrown away if it can't be put back.
func startOn(cmd *exec.Cmd, cpus []int) error {
	if len(cpus) == 0 {
		return cmd.Start()
	}
	runtime.LockOSThread()
	before, err := threadAffinity()
	if err != nil {
		return err
	}
	if err := setThreadAffinity(0, cpus...); err != nil {
		return err
	}
	err = cmd.Start()
	if restoreThreadAffinity(before) == nil {
		runtime.UnlockOSThread()
	}
	return err
}

// Tell sends a request without waiting for an answer.
func (p *Process) Tell(request any) error {
	line, err := json.Marshal(request)
	if err != nil {
		return err
	}
	_, err = p.in.Write(append(line, '\n'))
	return err
}

// Hear waits for the child's next answer.
func (p *Process) Hear(answer any) error {
	line, err := p.out.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("child %d gave no answer: %w", p.PID, err)
	}
	return json.Unmarshal(line, answer)
}

// Ask is Tell and Hear.
func (p *Process) Ask(request, answer any) error {
	if err := p.Tell(request); err != nil {
		return err
	}
	return p.Hear(answer)
}

// Stop asks the child to end and kills it when it doesn't.
func (p *Process) Stop() error {
	p.in.Close()
	kill := time.AfterFunc(5*time.Second, func() { p.cmd.Process.Kill() })
	defer kill.Stop()
	err := p.cmd.Wait()
	if err != nil && strings.Contains(err.Error(), "killed") {
		return fmt.Errorf("child %d had to be killed", p.PID)
	}
	return err
}
