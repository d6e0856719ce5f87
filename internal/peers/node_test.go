package peers

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// nodeModules is the version of Node's ws that the tests install.
const nodeModules = "ws@8.23.0"

// installNode puts ws into a directory that lives as long as the test binary:
// TestMain removes it.
var installNode = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "peers-node")
	if err != nil {
		return "", err
	}
	nodeDir = dir
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "node"))); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "install", "--no-audit", "--no-fund", "--no-save", nodeModules)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", &installError{out, err}
	}
	return dir, nil
})

var nodeDir string

type installError struct {
	out []byte
	err error
}

func (e *installError) Error() string {
	return "npm install " + nodeModules + ": " + e.err.Error() + "\n" + string(e.out)
}

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
