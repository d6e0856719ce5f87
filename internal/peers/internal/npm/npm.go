// Package npm installs packages of npm for tests.
package npm

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// Install copies dir, which has a package.json and its lock, and installs what
// these name, with the checksums that the lock has. The caller removes what it
// returns.
func Install(dir string) (installed string, err error) {
	installed, err = os.MkdirTemp("", "peers-npm")
	if err != nil {
		return "", err
	}
	if err := os.CopyFS(installed, os.DirFS(dir)); err != nil {
		os.RemoveAll(installed)
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
	cmd.Dir = installed
	if out, err := cmd.CombinedOutput(); err != nil {
		os.RemoveAll(installed)
		return "", fmt.Errorf("npm ci of %s: %w\n%s", dir, err, out)
	}
	return installed, nil
}
