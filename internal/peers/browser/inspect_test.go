package browser

import (
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// One's own message as bits, and each wrong frame with the section it breaks.
func TestInspectPage(t *testing.T) {
	addr := freeAddr(t)
	inspect := start(t, addr, build(t, root, "./examples/inspect"), "-addr", addr)
	b := visit(t, inspect.url)
	b.click("#connect")
	b.wait(`document.getElementById("state").value === "open"`)
	b.tells("socket()", "bind("+addr+")", "accept()", "Sec-WebSocket-Key", "101 Switching Protocols", "ws.onopen")

	const text = "Hi 🙂"
	b.click("#clear")
	eval[bool](b, `document.getElementById("text").select(); return true`)
	b.write("#text", text)
	b.tells("ws.send("+quote(text)+")", "ws.onmessage   event.data = "+quote(text))
	frames := eval[[]struct{ Label, Bits string }](b, `
		return [...document.querySelectorAll("#steps .diagram")].map(d => ({
			label: d.getAttribute("aria-label"),
			bits: [...d.querySelectorAll(".cells span")].map(e => e.innerText).join(""),
		}))`)
	if len(frames) != 2 {
		t.Fatalf("%d frames drawn, want that of the message and that of its echo: %q", len(frames), frames)
	}
	checkFrame(t, frames[0].Label, frames[0].Bits, text, true)
	checkFrame(t, frames[1].Label, frames[1].Bits, text, false)

	for script, broken := range map[string][]string{
		"nomask":   {"close 1002", "without a mask", "section 5.1"},
		"reserved": {"close 1002", "RSV", "section 5.2"},
		"utf8":     {"close 1007", "UTF-8", "section 8.1"},
		"opcode":   {"close 1002", "opcode", "section 5.2"},
		"longping": {"close 1002", "125", "section 5.5"},
		"length":   {"close 1002", "shortest", "section 5.2"},
		"orphan":   {"close 1002", "continuation", "section 5.4"},
		"nokey":    {"400 Bad Request", "Sec-WebSocket-Key", "section 4.2.1"},
	} {
		b.click("#clear")
		b.click(`[data-script="` + script + `"]`)
		b.tells(broken...)
	}
	b.click("#clear")
	b.click(`[data-script="fragments"]`)
	b.tells("continuation", "one message", "close 1000")

	// None of that was the page's own connection.
	b.click("#clear")
	b.click("#close")
	b.tells("close 1000", "ws.onclose   code = 1000", "wasClean = true")
	b.wait(`document.getElementById("state").value === "closed"`)
}

// What came of a click is seen without scrolling, on a low screen and on a
// phone, and what lies below is one click away.
func TestInspectVerdict(t *testing.T) {
	addr := freeAddr(t)
	inspect := start(t, addr, build(t, root, "./examples/inspect"), "-addr", addr)
	for _, size := range [][2]int64{{1280, 640}, {390, 844}, {390, 640}} {
		b := visit(t, inspect.url)
		b.do("resize", chromedp.EmulateViewport(size[0], size[1]))
		for _, click := range []struct{ on, want string }{
			{"#connect", "101"},
			{"#send", "echoed"},
			{"#server-ping", "pong"},
			{`[data-script="nomask"]`, "1002: text frame without a mask. RFC 6455, section 5.1"},
			{`[data-script="nokey"]`, "400 Bad Request: 0 Sec-WebSocket-Key headers instead of one. RFC 6455, section 4.2.1"},
			{`[data-script="fragments"]`, "echoed as one message, then closed with 1000 (normal), clean"},
			{"#send", "echoed"}, // not mixed up with the raw clients
			{"#server-close", "closed with 1001 (going away), clean"},
			{"#connect", "101"},
			{"#close", "closed with 1000 (normal), clean"},
		} {
			b.wait(`!document.querySelector('` + click.on + `').disabled`)
			eval[bool](b, `document.querySelector('`+click.on+`').click(); return true`)
			b.wait(`document.getElementById("verdict").innerText.includes(` + quote(click.want) + `)`)
			b.inView("#verdict")
		}
		b.click("#below")
		if words := eval[string](b, `return document.getElementById("steps").textContent`); strings.Contains(words, "NaN") {
			t.Errorf("at %v the steps have a time that is none:\n%s", size, words)
		}
		order := eval[bool](b, `
			const rows = [...document.querySelectorAll("#steps > li")];
			const sent = rows.findLastIndex(r => r.matches(".send")), raw = rows.findLastIndex(r => r.matches(".raw"));
			const heard = rows.findLastIndex(r => r.matches(".onmessage"));
			return raw < sent && sent < heard;`)
		if !order {
			t.Errorf("at %v what was sent after the raw client isn't behind its steps, and before its echo", size)
		}
		for range 100 {
			if eval[bool](b, `return document.getElementById("below").hidden`) {
				break
			}
			b.click("#below")
			eval[bool](b, `await new Promise(requestAnimationFrame); return true`)
		}
		b.inView("#steps > li:last-child .title")
	}
}

// inView wants the whole element on the screen.
func (b *tab) inView(selector string) {
	b.Helper()
	r := eval[struct{ Left, Top, Right, Bottom, Width, Height float64 }](b, `
		const r = document.querySelector(`+quote(selector)+`).getBoundingClientRect();
		return {left: r.left, top: r.top, right: r.right, bottom: r.bottom, width: innerWidth, height: innerHeight}`)
	if r.Left < 0 || r.Top < 0 || r.Right > r.Width || r.Bottom > r.Height || r.Bottom <= r.Top {
		b.Errorf("%s isn't in view: %+v", selector, r)
	}
}

// tells waits until the steps hold all these words.
func (b *tab) tells(words ...string) {
	b.Helper()
	for _, w := range words {
		b.wait(`document.getElementById("steps").innerText.includes(` + quote(w) + `)`)
	}
}

var drawnFrame = regexp.MustCompile(`^FIN 1, reserved bits 000, opcode text, MASK ([01]), length (\d+)(?:, masking key ([0-9a-f ]+))?, payload as on the wire ([0-9a-f ]+)$`)

// checkFrame wants the picture's bits to be those of a text frame with this
// payload, which is what its words say as well (RFC 6455, section 5.2).
func checkFrame(t *testing.T, label, bits, payload string, masked bool) {
	t.Helper()
	m := drawnFrame.FindStringSubmatch(label)
	if m == nil || (m[1] == "1") != masked || m[2] != fmt.Sprint(len(payload)) {
		t.Errorf("the frame of %q is told as %q; want FIN 1, opcode text, MASK %t and length %d", payload, label, masked, len(payload))
		return
	}
	second := byte(len(payload))
	if masked {
		second |= 0x80
	}
	key, wire := unhex(t, m[3]), unhex(t, m[4])
	var drawn strings.Builder
	for _, c := range append(append([]byte{0x81, second}, key...), wire...) {
		fmt.Fprintf(&drawn, "%08b", c)
	}
	if bits != drawn.String() {
		t.Errorf("the frame of %q is drawn as\n%s, and told as\n%s", payload, bits, drawn.String())
	}
	for i := range wire {
		if masked {
			wire[i] ^= key[i%4]
		}
	}
	if string(wire) != payload {
		t.Errorf("the frame %q unmasked is %q, want %q", label, wire, payload)
	}
}

func unhex(t *testing.T, spaced string) []byte {
	t.Helper()
	p, err := hex.DecodeString(strings.ReplaceAll(spaced, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return p
}
