package main

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// An idle connection stays within what the design allows it, and a margin for
// the allocator's moods: under Events it has no goroutine, with a HandlerFunc
// one whose stack has grown to 4 KiB. The command runs as it is shipped, without
// the race detector's memory.
func TestIdleMemory(t *testing.T) {
	command := filepath.Join(t.TempDir(), "idle")
	if out, err := exec.Command("go", "build", "-o", command, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
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
