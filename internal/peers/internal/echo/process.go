package echo

import (
	"encoding/json"
	"runtime"

	"github.com/rawws/websocket/internal/peers/internal/child"
)

const role = "echo"

func init() { child.Register(role, runRole) }

type hello struct {
	Addr  string
	Procs int
}

// runRole is the server's process: it listens, says where, and then measures
// its memory each time it is asked.
func runRole(config json.RawMessage, link *child.Link) error {
	var cfg Config
	if err := json.Unmarshal(config, &cfg); err != nil {
		return err
	}
	ln, err := Listen(cfg)
	if err != nil {
		return err
	}
	failed := Go(ln, cfg)
	if err := link.Answer(hello{ln.Addr().String(), runtime.GOMAXPROCS(0)}); err != nil {
		return err
	}
	for {
		if _, err := link.Next(); err != nil {
			return err
		}
		select {
		case err := <-failed:
			return err
		default:
		}
		if err := link.Answer(child.Measure()); err != nil {
			return err
		}
	}
}

// A Process is an echo server in a process of its own.
type Process struct {
	*child.Process
	Addr string
}

// Start runs the server in a new process on one CPU, or on cfg.Procs of them
// from that one on, or on all if cpu is negative.
func Start(cfg Config, cpu int) (*Process, error) {
	if _, err := Find(cfg.Server); err != nil {
		return nil, err
	}
	p, err := child.StartOn(role, cpu, max(cfg.Procs, 1), cfg)
	if err != nil {
		return nil, err
	}
	var h hello
	if err := p.Hear(&h); err != nil {
		p.Stop()
		return nil, err
	}
	return &Process{p, h.Addr}, nil
}

// Memory asks the server to collect its garbage and measure itself.
func (p *Process) Memory() (child.Memory, error) {
	var m child.Memory
	err := p.Ask("memory", &m)
	return m, err
}
