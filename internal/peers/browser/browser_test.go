// Package browser holds the tests in which a browser is the client: its
// WebSocket against this library, and the pages of the examples.
package browser

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// patience is how long a page may take for what it must show.
const patience = 30 * time.Second

var (
	chromium context.Context // the browser that every tab is of
	scratch  string          // removed at the end
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	err := prepare()
	if err == nil {
		defer os.RemoveAll(scratch)
		defer chromedp.Cancel(chromium)
		err = chromedp.Do(chromium)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "FAIL: these tests need Chromium, on Debian: apt-get install -y chromium:", err)
		return 1
	}
	return m.Run()
}

// prepare describes a browser that talks to nobody but us, with no profile.
func prepare() error {
	path, err := exec.LookPath("chromium")
	if err != nil {
		return err
	}
	if scratch, err = os.MkdirTemp("", "browser"); err != nil {
		return err
	}
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path),
		chromedp.UserDataDir(filepath.Join(scratch, "profile")),
	}
	for _, flag := range []string{
		"headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run",
		"disable-background-networking", "disable-component-update", "disable-sync",
	} {
		options = append(options, chromedp.Flag(flag, true))
	}
	ctx, _ := chromedp.NewExecAllocator(context.Background(), options...)
	chromium, _ = chromedp.NewContext(ctx)
	return nil
}

// A tab shows one page. Its storage is its own, as if it were another browser.
type tab struct {
	*testing.T
	ctx context.Context
}

// visit opens url in a new tab that lives as long as the test. An exception of
// the page's script is a failure.
func visit(t *testing.T, url string) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(chromium, chromedp.WithNewBrowserContext(), chromedp.WithListener(func(ev any) {
		if e, ok := ev.(*runtime.EventExceptionThrown); ok {
			t.Errorf("%s: exception in the page: %v", url, e.ExceptionDetails)
		}
	}))
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("new tab: %v", err)
	}
	b := &tab{t, ctx}
	b.do("open "+url, chromedp.Navigate(url))
	return b
}

// do runs steps, each within patience.
func (b *tab) do(what string, steps ...chromedp.Action[chromedp.Void]) {
	b.Helper()
	for _, step := range steps {
		ctx, cancel := context.WithTimeout(b.ctx, patience)
		err := chromedp.Do(ctx, step)
		cancel()
		if err != nil {
			b.Fatalf("%s: %v\nthe page shows:\n%s", what, err, b.shown())
		}
	}
}

func (b *tab) click(selector string) {
	b.Helper()
	b.do("click on "+selector, chromedp.Click(chromedp.CSS(selector)))
}

// write puts text into a field as an input method would, in the place of what
// is selected there, and presses Enter.
func (b *tab) write(selector, text string) {
	b.Helper()
	b.do("write into "+selector,
		chromedp.Focus(chromedp.CSS(selector)),
		chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
			_, err := cdp.Call(ctx, t, input.InsertText, input.InsertTextParams{Text: text})
			return err
		}),
		chromedp.KeyEvent(kb.Enter))
}

// wait waits for an expression of the page to become true.
func (b *tab) wait(expression string) {
	b.Helper()
	poll := chromedp.Poll[bool](expression, chromedp.WithPollingInterval(20*time.Millisecond), chromedp.WithPollingTimeout(patience))
	if _, err := chromedp.Run(b.ctx, poll); err != nil {
		b.Fatalf("waiting for %s: %v\nthe page shows:\n%s", expression, err, b.shown())
	}
}

// shown is what a person would read on the page.
func (b *tab) shown() string {
	ctx, cancel := context.WithTimeout(b.ctx, 5*time.Second)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.body?.innerText ?? ""`))
	if err != nil {
		return err.Error()
	}
	return text
}

// eval runs the body of an async function in the page and returns its result.
func eval[T any](b *tab, body string) T {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T]("(async () => {"+body+"})()", chromedp.EvalAwaitPromise))
	if err != nil {
		b.Fatalf("%s: %v", body, err)
	}
	return v
}

// screenshot writes what the page looks like into the directory SCREENSHOTS of
// the environment, for a person to look at; without one it does nothing.
func (b *tab) screenshot(name string) {
	b.Helper()
	dir := os.Getenv("SCREENSHOTS")
	if dir == "" {
		return
	}
	png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644)
	}
	if err != nil {
		b.Errorf("screenshot %s: %v", name, err)
	}
}
