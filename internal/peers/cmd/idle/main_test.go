package main

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// command builds the command as it is shipped, without the race detector's
// memory.
func command(t *testing.T) string {
	name := filepath.Join(t.TempDir(), "idle")
	if out, err := exec.Command("go", "build", "-o", name, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return name
}

// An idle connection stays within what the design allows it, and a margin for
// the allocator's moods: under Events it has no goroutine, with a HandlerFunc
// one whose stack has grown to 4 KiB.
func TestIdleMemory(t *testing.T) {
	command := command(t)
	args := []string{"-servers", "ours-blocking,ours", "-wakes", "1", "-wait", "10s"}
	few := append([]string{"-conns", "100", "-most", "ours=1e-3"}, args...)
	if out, err := exec.Command(command, append(few, "-wait", "1s")...).CombinedOutput(); err == nil {
		t.Fatalf("a limit that nothing can hold was held:\n%s", out)
	}
	out, err := exec.Command(command, append(args, "-most", "ours=1.25", "-most-left", "ours=1.75", "-most", "ours-blocking=6.75")...).CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}

// What is kept between two messages is what context takeover needs, two windows
// of 4 KiB and a table of 8 KiB, and without that nothing.
func TestIdleContexts(t *testing.T) {
	command := command(t)
	args := []string{"-conns", "4000", "-servers", "ours", "-wakes", "1", "-wait", "2s", "-most-more", "ours-takeover=17"}
	if out, err := exec.Command(command, append(args, "-deflate", "takeover")...).CombinedOutput(); err == nil {
		t.Fatalf("a limit was held against nothing to compare with:\n%s", out)
	}
	out, err := exec.Command(command, append(args, "-deflate", "none,no-takeover,takeover", "-most-more", "ours-no-takeover=0.5")...).CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}
