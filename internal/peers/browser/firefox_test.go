package browser

import (
	_ "embed"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/rawws/websocket"
)

//go:embed testdata/firefox.html
var firefoxScript []byte

// firefoxPatience is how long Firefox may take, its start with an empty profile
// among that.
const firefoxPatience = 90 * time.Second

// firefoxPrefs keep Firefox from asking questions, and from talking to anybody
// but us: a proxy that isn't there is asked for all but the loopback.
const firefoxPrefs = `
user_pref("network.proxy.type", 1);
user_pref("network.proxy.http", "127.0.0.1");
user_pref("network.proxy.http_port", 9);
user_pref("network.proxy.share_proxy_settings", true);
user_pref("network.proxy.ssl", "127.0.0.1");
user_pref("network.proxy.ssl_port", 9);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("app.update.auto", false);
user_pref("browser.aboutwelcome.enabled", false);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("termsofuse.bypassNotification", true);
user_pref("toolkit.telemetry.enabled", false);
`

// TestFirefox has Firefox exchange messages with each shape of a server, with
// compression and contexts both ways. On Debian: apt-get install -y firefox-esr.
func TestFirefox(t *testing.T) {
	saw := make(chan []string, 1)
	ended := make(chan error, 2)
	s := &websocket.Server{Handler: echoByReading()}
	events := echoByEvents().(websocket.Events)
	events.OnClose = func(_ *websocket.Conn, err error) { ended <- err }
	s.Upgrader = websocket.Upgrader{
		Subprotocols: []string{"superchat"},
		Compression:  &websocket.Compression{Threshold: -1, ServerContext: true},
		OnUpgrade: func(r *http.Request, a *websocket.Accept) error {
			if r.URL.Path == "/events" {
				a.Handler = events
			}
			return nil
		},
	}
	s.HTTP = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/":
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			w.Write(page)
			w.Write(firefoxScript)
		case "/saw":
			var faults []string
			if err := json.NewDecoder(r.Body).Decode(&faults); err != nil {
				faults = []string{err.Error()}
			}
			saw <- faults
		}
	})
	said := firefox(t, "http://"+serveHTTP(t, s, listen(t, "127.0.0.1:0"))+"/")
	select {
	case faults := <-saw:
		for _, fault := range faults {
			t.Error(fault)
		}
	case err := <-said:
		t.Fatalf("Firefox ended: %v", err)
	case <-time.After(firefoxPatience):
		t.Fatalf("the page has posted nothing within %v", firefoxPatience)
	}
	select {
	case err := <-ended:
		if code := websocket.CloseStatus(err); code != 4321 {
			t.Errorf("the end of /events: %v, want 4321 from the page", err)
		}
	case <-time.After(patience):
		t.Error("OnClose hasn't run")
	}
}

// firefox shows a page until the test ends.
func firefox(t *testing.T, url string) (ended <-chan error) {
	t.Helper()
	profile := filepath.Join(t.TempDir(), "profile")
	if err := os.Mkdir(profile, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(profile, "user.js"), []byte(firefoxPrefs), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("firefox-esr", "--headless", "--no-remote", "--profile", profile, url)
	cmd.Env = append(os.Environ(), "HOME="+filepath.Dir(profile))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // its children end with it
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait(); close(done) }()
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		for range done {
		}
	})
	return done
}
