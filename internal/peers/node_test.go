package peers

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/rawws/websocket/internal/peers/internal/npm"
)

// installNode puts testdata/node, with Node's ws in the version that its lock
// has, into a directory that lives as long as the test binary: TestMain removes it.
var installNode = sync.OnceValues(func() (dir string, err error) {
	nodeDir, err = npm.Install(filepath.Join("testdata", "node"))
	return nodeDir, err
})

var nodeDir string

func TestMain(m *testing.M) {
	code := m.Run()
	for _, dir := range []string{nodeDir, echoDir} {
		if dir != "" {
			os.RemoveAll(dir)
		}
	}
	os.Exit(code)
}

// TestNodeWindows runs testdata/node/windows.mjs: ws inflates with zlib, and
// with no larger a window than the server agreed to keep.
func TestNodeWindows(t *testing.T) {
	dir, err := installNode()
	if err != nil {
		t.Fatal(err)
	}
	s := startTarget(t, variant{deflate: true})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "windows.mjs", s.url)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("node windows.mjs: %v\n%s", err, out)
	}
}

// TestNode runs testdata/node/client.mjs, which says itself what it checks.
// It needs node and npm, and fails without them.
func TestNode(t *testing.T) {
	dir, err := installNode()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range variants {
		t.Run(v.String(), func(t *testing.T) {
			s := startTarget(t, v)
			args := []string{"client.mjs", s.url}
			if v.deflate {
				args = append(args, "deflate")
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, "node", args...)
			cmd.Dir = dir
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("node %q: %v\n%s", args, err, out)
			}
		})
	}
}
