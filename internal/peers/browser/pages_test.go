package browser

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"
)

// quote makes a JavaScript string of text, which those of JSON are.
func quote(text string) string {
	quoted, err := json.Marshal(text)
	if err != nil {
		panic(err) // strings always encode
	}
	return string(quoted)
}

// The echo page, by hand: texts, a file, a round trip, the end from both sides.
func TestEchoPage(t *testing.T) {
	for name, args := range map[string][]string{"events": nil, "blocking": {"-blocking"}} {
		t.Run(name, func(t *testing.T) {
			addr := freeAddr(t)
			echo := start(t, addr, build(t, root, "./examples/echo"), append(args, "-addr", addr)...)
			b := visit(t, echo.url)
			last := func(kind, detail string) {
				b.Helper()
				b.wait(`(row => row?.matches(".` + kind + `") && row.innerText.includes(` + quote(detail) + `))(document.querySelector("#events li:last-child"))`)
			}
			b.click("#connect-button")
			b.wait(`document.getElementById("state").value === "open"`)
			last("open", "ws://"+addr+"/")
			for _, text := range []string{"hello", "Ελληνικά кириллица עברית العربية 漢字 かな 한국어", "👩‍🚀🏳️‍🌈"} {
				b.write("#text", text)
				last("message", text)
				last("message", "as sent")
			}
			file := filepath.Join(t.TempDir(), "megabyte")
			if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
				t.Fatal(err)
			}
			b.do("choose the file", chromedp.SetUploadFiles(chromedp.CSS("#file"), []string{file}))
			b.click("#send-file button")
			last("message", "binary, 1,048,576 bytes, as sent")
			b.click("#round-trip button")
			last("message", "round trip")
			b.click("#close button")
			last("close", "code 1000 (normal), clean")
			b.wait(`document.getElementById("state").value === "closed"`)

			b.click("#connect-button")
			last("open", "ws://"+addr+"/")
			echo.terminate()
			last("close", "code 1001 (going away), clean")
			b.click("#connect-button")
			last("close", "code 1006 (no close frame), not clean")
		})
	}
}

// A browser is content with the server of one file, but for how it ends.
func TestFromScratchPage(t *testing.T) {
	addr := freeAddr(t)
	scratch := start(t, addr, build(t, root, "./examples/fromscratch"), "-addr", addr)
	b := visit(t, scratch.url)
	logged := func(line string) {
		b.Helper()
		b.wait(`document.getElementById("log").innerText.includes(` + quote(line) + `)`)
	}
	logged("onopen\n")
	for _, text := range []string{"Hello", "καλημέρα 👋"} {
		eval[bool](b, `document.getElementById("text").select(); return true`)
		b.write("#text", text)
		logged("onmessage " + text + "\n")
	}
	b.click("#close")
	logged("onclose 1006, not clean\n")
}

// On a phone, and on a low screen, each event is in view when it comes.
func TestEchoPageInView(t *testing.T) {
	addr := freeAddr(t)
	echo := start(t, addr, build(t, root, "./examples/echo"), "-addr", addr)
	for _, size := range [][2]int64{{390, 844}, {390, 640}, {1280, 640}} {
		b := visit(t, echo.url)
		b.do("resize", chromedp.EmulateViewport(size[0], size[1]))
		shows := func(kind string) {
			b.Helper()
			b.wait(`document.querySelector("#events li:last-child")?.matches(".` + kind + `")`)
			b.inView("#events li:last-child")
		}
		b.click("#connect-button")
		shows("open")
		for i := range 10 {
			b.write("#text", fmt.Sprint("line ", i))
			shows("message")
		}
		b.click("#close button")
		shows("close")
	}
}

// A person enters a room of the chat, as somebody who was never there.
func enter(t *testing.T, url, name string) *tab {
	t.Helper()
	b := visit(t, url)
	b.wait(`document.getElementById("who").open`)
	b.write("#name", name)
	b.wait(`document.getElementById("state").value === ` + quote("as "+name))
	b.wait(`document.activeElement.id === "text"`) // who has entered goes on by typing
	return b
}

func (b *tab) say(line string) {
	b.Helper()
	b.write("#text", line)
}

// The page doesn't let a name go that the server would refuse without a page's
// being told why.
func TestChatNames(t *testing.T) {
	addr := freeAddr(t)
	chat := start(t, addr, build(t, root, "./examples/chat"), "-addr", addr)
	b := visit(t, chat.url)
	b.wait(`document.getElementById("who").open`)
	for _, name := range []string{"Ada\u200d", "A\u200dda", "\u3164", "Ada\ufe0f"} {
		eval[bool](b, `document.getElementById("name").value = ""; return true`)
		b.write("#name", name)
		if open := eval[bool](b, `return document.getElementById("who").open && !document.getElementById("name").validity.valid`); !open {
			t.Fatalf("the page enters as %q", name)
		}
	}
	eval[bool](b, `document.getElementById("name").value = ""; return true`)
	b.write("#name", "👩\u200d🚀 می\u200cخواهم")
	b.wait(`document.getElementById("state").value === ` + quote("as 👩\u200d🚀 می\u200cخواهم"))
}

// reads waits until the conversation's last line is this.
func (b *tab) reads(name, line string) {
	b.Helper()
	b.wait(`(row => row?.querySelector(".name")?.innerText === ` + quote(name) + ` && row.querySelector(".text").innerText === ` +
		quote(line) + `)([...document.querySelectorAll("#lines li:not(.notice)")].at(-1))`)
}

// meets waits until these people are here, and no others.
func (b *tab) meets(names string) {
	b.Helper()
	b.wait(`[...document.querySelectorAll("#here bdi")].map(e => e.innerText).join() === ` + quote(names))
}

// Two browsers talk, lose their server and find it again by themselves.
func TestChatPage(t *testing.T) {
	addr, binary := freeAddr(t), build(t, root, "./examples/chat")
	chat := start(t, addr, binary, "-addr", addr)
	ada := enter(t, chat.url, "Ada")
	bob := enter(t, chat.url, "Боб")
	ada.meets("Ada,Боб")
	bob.meets("Ada,Боб")
	ada.say("hello 👋")
	bob.reads("Ada", "hello 👋")
	bob.say("<b>привет</b> עברית")
	ada.reads("Боб", "<b>привет</b> עברית")

	carol := enter(t, chat.url+"room/other", "Carol")
	carol.meets("Carol")
	carol.say("anybody here?")
	carol.reads("Carol", "anybody here?")

	for how, end := range map[string]func(*program){"terminated": (*program).terminate, "killed": (*program).kill} {
		t.Logf("the server is %s", how)
		end(chat)
		for _, b := range []*tab{ada, bob, carol} {
			b.wait(`!document.getElementById("trouble").hidden && document.getElementById("send").disabled`)
		}
		chat = start(t, addr, binary, "-addr", addr)
		ada.meets("Ada,Боб")
		bob.meets("Ada,Боб")
		ada.wait(`document.getElementById("trouble").hidden`)
		bob.wait(`document.getElementById("trouble").hidden`)
		ada.say("still there, though " + how + "?")
		bob.reads("Ada", "still there, though "+how+"?")
		carol.meets("Carol")
	}
	if err := chromedp.Cancel(bob.ctx); err != nil {
		t.Errorf("closing the tab: %v", err)
	}
	ada.meets("Ada")
	chat.terminate()
}
