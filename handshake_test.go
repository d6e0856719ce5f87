package websocket

import (
	"bufio"
	"net/http"
	"strings"
	"testing"
)

func TestAcceptKey(t *testing.T) {
	// RFC 6455, section 1.3.
	const key, want = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
	if got := string(appendAcceptKey(nil, key)); got != want {
		t.Errorf("appendAcceptKey(%q) = %q; want %q", key, got, want)
	}
}

func TestUpgradeOfRFC(t *testing.T) {
	head := strings.ReplaceAll(`GET /chat HTTP/1.1
Host: server.example.com
Upgrade: websocket
Connection: Upgrade
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==
Origin: http://example.com
Sec-WebSocket-Protocol: chat, superchat
Sec-WebSocket-Version: 13

`, "\n", "\r\n")
	var p requestParser
	r, n, err := p.parse([]byte(head + "\x81\x80...."))
	if err != nil || n != len(head) {
		t.Fatalf("parse(%q) = %d, %v; want %d", head, n, err, len(head))
	}
	if _, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head))); err != nil {
		t.Fatal(err)
	}
	key, err := checkUpgrade(r)
	if err != nil {
		t.Fatal(err)
	}
	got := string(appendSwitching(nil, key, "chat", "", nil))
	if want := "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n"; !strings.HasSuffix(got, want) {
		t.Errorf("answer %q; want it to end in %q", got, want)
	}
	if err := checkOrigin(r, false, nil); err == nil {
		t.Errorf("checkOrigin(%q, %q) = nil; want 403", r.Header["Origin"], r.Host)
	}
	if err := checkOrigin(r, false, []string{"*.example.org", "http://example.com"}); err != nil {
		t.Errorf("checkOrigin(%q, %q) = %v; want nil", r.Header["Origin"], r.Host, err)
	}
}
