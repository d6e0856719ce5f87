package browser

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rawws/websocket/internal/peers/internal/npm"
)

// The panes of the protocols' page: each connects, sends, and shows the layers
// of it.
func TestProtocolsPageSocketIO(t *testing.T) {
	addr := freeAddr(t)
	protocols := start(t, addr, build(t, root, "./examples/protocols"), "-addr", addr)
	for _, transport := range []string{"upgrade", "websocket", "polling"} {
		t.Run(transport, func(t *testing.T) {
			b := visit(t, protocols.url)
			eval[bool](b, `document.querySelector("#socketio select").value = `+quote(transport)+`; return true`)
			b.click("#socketio [data-do=connect]")
			b.wait(`document.querySelector("#socketio output").value === "open"`)
			if transport == "upgrade" {
				b.shows("socketio", "3", "probe", "of the upgrade")
				b.shows("socketio", "5", "upgrade", "text message")
			}
			eval[bool](b, `document.querySelector("#socketio [name=text]").select(); return true`)
			b.write("#socketio [name=text]", "привет 👋")
			b.shows("socketio", "page → server", `emit("say", "привет 👋")`, "event", "Engine.IO 4", "message")
			b.shows("socketio", "server → page", `emit("said", "привет 👋")`)
			b.click("#socketio [data-do=ask]")
			b.shows("socketio", "server → page", `answer("привет 👋")`, "the number it answers")
			b.click("#socketio [data-do=binary]")
			b.shows("socketio", "server → page", `emit("echo", {"_placeholder":true,"num":0})`, "attachments")
			b.shows("socketio", "server → page", "an attachment of the event before it")
			if transport != "polling" {
				b.shows("socketio", "page → server", "WebSocket", "FIN", "0001", "MASK", "payload, masked")
			}
			b.click("#socketio [data-do=close]")
			b.wait(`document.querySelector("#socketio output").value === "closed"`)
		})
	}
}

func TestProtocolsPageSignalR(t *testing.T) {
	addr := freeAddr(t)
	protocols := start(t, addr, build(t, root, "./examples/protocols"), "-addr", addr)
	for _, how := range []string{"negotiate", "skip"} {
		t.Run(how, func(t *testing.T) {
			b := visit(t, protocols.url)
			eval[bool](b, `document.querySelector("#signalr select").value = `+quote(how)+`; return true`)
			b.click("#signalr [data-do=connect]")
			b.wait(`document.querySelector("#signalr output").value === "open"`)
			b.shows("signalr", "page → server", "we speak json", "end of the record", "text message")
			b.click("#signalr [data-do=say]")
			b.shows("signalr", "server → page", `said("Hello")`, "invocation")
			b.click("#signalr [data-do=ask]")
			b.shows("signalr", "server → page", `result "Hello"`, "completion")
			b.click("#signalr [data-do=stream]")
			b.shows("signalr", "server → page", "item 2", "stream item")
			b.click("#signalr [data-do=close]")
			b.shows("signalr", "close frame")
			b.wait(`document.querySelector("#signalr output").value === "closed"`)
		})
	}
}

func TestProtocolsPageJWebSocket(t *testing.T) {
	addr := freeAddr(t)
	protocols := start(t, addr, build(t, root, "./examples/protocols"), "-addr", addr)
	b := visit(t, protocols.url)
	b.click("#jwebsocket [data-do=connect]")
	b.wait(`document.querySelector("#jwebsocket output").value === "open"`)
	b.shows("jwebsocket", "server → page", "maxframesize65536", "the largest message")
	b.shows("jwebsocket", "server → page", "answer to login: ok")
	b.click("#jwebsocket [data-do=say]")
	b.shows("jwebsocket", "server → page", "system: broadcast", `"sender":"guest"`)
	b.click("#jwebsocket [data-do=ping]")
	b.shows("jwebsocket", "server → page", "answer to ping: ok")

	b.wait(`[...document.querySelectorAll("#rfc code")].map(e => e.innerText).join(" ") === "81 85 37 fa 21 3d 7f 9f 4d 51 58"`) // as in RFC 6455, section 5.7
	b.wait(`[...document.querySelectorAll("#draft code")].map(e => e.innerText).join(" ") === "00 48 65 6c 6c 6f ff"`)

	// A server that ends is seen, and one that comes back too.
	protocols.terminate()
	b.wait(`document.querySelector("#jwebsocket output").value === "closed" && document.getElementById("trouble").innerText !== ""`)
	start(t, addr, build(t, root, "./examples/protocols"), "-addr", addr)
	b.wait(`document.getElementById("trouble").innerText === ""`)
	b.click("#jwebsocket [data-do=connect]")
	b.wait(`document.querySelector("#jwebsocket output").value === "open"`)
	b.shows("jwebsocket", "server → page", "answer to login: ok")
}

// shows waits for a card of the pane that has all these words.
func (b *tab) shows(pane string, words ...string) {
	b.Helper()
	has := make([]string, len(words))
	for i, w := range words {
		has[i] = "text.includes(" + quote(w) + ")"
	}
	b.wait(`[...document.querySelectorAll("#` + pane + ` .log > li")].map(e => e.innerText).some(text => ` + strings.Join(has, " && ") + `)`)
}

var browserScripts = []string{
	"socket.io-client/dist/socket.io.js", "@microsoft/signalr/dist/browser/signalr.js",
	"@microsoft/signalr-protocol-msgpack/dist/browser/signalr-protocol-msgpack.js",
}

// The real clients as a browser has them, from the files that npm brings.
func TestRealClientsInBrowser(t *testing.T) {
	dir, err := npm.Install("../protocols/testdata")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	binary := build(t, root, "./examples/protocols")
	for name, args := range map[string][]string{"raw": nil, "deflated": {"-deflate"}, "net-http": {"-nethttp"}} {
		t.Run(name, func(t *testing.T) {
			addr := freeAddr(t)
			args := append(args, "-addr", addr)
			server := start(t, addr, binary, args...)
			b := visit(t, server.url)
			for _, file := range browserScripts {
				script, err := os.ReadFile(filepath.Join(dir, "node_modules", file))
				if err != nil {
					t.Fatal(err)
				}
				eval[bool](b, string(script)+"\n;return true") // by the debugger: the page's own policy forbids foreign scripts
			}
			for _, transport := range []string{"websocket", "polling", "default"} {
				if got := eval[string](b, "const transport = "+quote(transport)+";"+socketInBrowser); got != "ok" {
					t.Errorf("socket.io by %s: %s", transport, got)
				}
			}
			for _, protocol := range []string{"json", "messagepack"} {
				if got := eval[string](b, "const protocol = "+quote(protocol)+";"+signalInBrowser); got != "ok" {
					t.Errorf("SignalR in %s: %s", protocol, got)
				}
			}
			// They come back to a server that was killed and is there again.
			eval[bool](b, comeBackInBrowser)
			server.kill()
			b.wait(`window.away === 2`)
			start(t, addr, binary, args...)
			b.wait(`window.back.sort().join() === "signalr true,socket.io true"`)
		})
	}
}

// Clients that send while they upgrade: order, attachments, answers. A
// browser has six sockets for HTTP to one host, so that by polling alone only
// two fit, each with a GET that hangs.
const socketInBrowser = `
	const clients = { polling: 2, default: 12, websocket: 30 }[transport];
	const ends = transport === "default" ? "websocket" : transport;
	const wanted = 30;
	const results = await Promise.all([...Array(clients).keys()].map((n) => new Promise((resolve) => {
		const socket = io(location.origin, {forceNew: true, ...(transport === "default" ? {} : {transports: [transport]})});
		const got = [];
		socket.on("connect_error", (e) => resolve("client " + n + ": " + e));
		socket.on("connect", () => {
			for (let i = 0; i < wanted; i++) i % 5 === 2 ? socket.emit("echo", i, new Uint8Array([i, 255])) : socket.emit("echo", i);
		});
		socket.on("echo", async (i, bytes) => {
			got.push(bytes ? new Uint8Array(bytes)[0] : i);
			if (got.length < wanted) return;
			const answer = await socket.emitWithAck("echo", "é漢😀");
			if (socket.io.engine.transport.name !== ends) await new Promise((r) => socket.io.engine.once("upgrade", r));
			socket.close();
			resolve(got.every((v, k) => v === k) && answer === "é漢😀" ? "ok" : "client " + n + " got " + got + ", " + answer);
		});
	})));
	return results.find((r) => r !== "ok") ?? "ok";`

const signalInBrowser = `
	const builder = new signalR.HubConnectionBuilder().withUrl("/hub").configureLogging(signalR.LogLevel.None);
	if (protocol === "messagepack") builder.withHubProtocol(new signalR.protocols.msgpack.MessagePackHubProtocol());
	const c = builder.build();
	const called = [];
	c.on("calledBack", (i) => called.push(i));
	await c.start();
	for (let i = 0; i < 100; i++) c.send("CallBack", i);
	const value = ["é漢😀", 1.5, -7, true, {a: [null]}];
	const echo = await c.invoke("Echo", value);
	const items = await new Promise((complete, error) => {
		const all = [];
		c.stream("Count", 20, 1).subscribe({next: (i) => all.push(i), complete: () => complete(all), error});
	});
	const subject = new signalR.Subject();
	const sum = c.invoke("Sum", subject);
	for (let i = 1; i <= 10; i++) subject.next(i);
	subject.complete();
	const total = await sum;
	await c.stop();
	const got = JSON.stringify([called, echo, items, total]);
	return got === JSON.stringify([[...Array(100).keys()], value, [...Array(20).keys()], 55]) ? "ok" : got;`

const comeBackInBrowser = `
	Object.assign(window, {away: 0, back: []});
	const socket = io(location.origin, {forceNew: true, reconnectionDelay: 100, reconnectionDelayMax: 300});
	await new Promise((r) => socket.on("connect", r));
	socket.on("disconnect", () => window.away++);
	socket.io.on("reconnect", async () => window.back.push("socket.io " + (await socket.emitWithAck("echo", 1) === 1)));
	const c = new signalR.HubConnectionBuilder().withUrl("/hub").withAutomaticReconnect(Array(100).fill(200)).configureLogging(signalR.LogLevel.None).build();
	c.onreconnecting(() => window.away++);
	c.onreconnected(async () => window.back.push("signalr " + (await c.invoke("Echo", 1) === 1)));
	await c.start();
	return true;`
