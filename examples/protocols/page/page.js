// The panes, and what goes over the wire below them.

import { bits, hex, ofFrame, ofHTTP } from "./layers.js";
import { JWebSocket, SignalR, SocketIO } from "./clients.js";

const session = crypto.getRandomValues(new Uint32Array(4)).join("-");
const maxCards = 60;

function element(tag, className, ...children) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  e.append(...children);
  return e;
}

// A pane is a client with its controls and its log.
class Pane {
  constructor(id, Client) {
    this.id = id;
    this.root = document.getElementById(id);
    this.form = this.root.querySelector("form");
    this.log = this.root.querySelector(".log");
    this.state = this.root.querySelector("output");
    this.Client = Client;
    this.form.addEventListener("submit", (e) => {
      e.preventDefault();
      this.do("say");
    });
    for (const button of this.form.querySelectorAll("button[type=button]")) button.addEventListener("click", () => this.do(button.dataset.do));
  }

  do(what) {
    if (what === "connect") {
      const saw = (out, line, body) => this.show(out, ofHTTP(this.id, line, body));
      this.client = new this.Client(session, (state) => this.changed(state), saw);
      this.client.connect(this.form.elements.transport?.value);
    } else if (this.state.value === "open" || what === "close") {
      this.client?.[what](this.form.elements.text.value);
    }
  }

  changed(state) {
    this.state.value = state;
    this.state.dataset.state = state;
    for (const b of this.form.querySelectorAll("[data-do]")) {
      b.disabled = { connect: state !== "closed", close: state === "closed" }[b.dataset.do] ?? state !== "open";
    }
    if (this.form.elements.transport) this.form.elements.transport.disabled = state !== "closed";
  }

  show(out, layers) {
    const head = element("div", "head", element("b", "", out ? "page → server" : "server → page"),
      element("time", "", new Date().toLocaleTimeString("en", { hour12: false })));
    const card = element("li", out ? "out" : "in", head, ...layers.map(draw));
    this.log.prepend(card);
    while (this.log.children.length > maxCards) this.log.lastChild.remove();
  }
}

// draw draws one layer of a card.
function draw({ name, pieces, frame }) {
  const content = element("div", "content");
  if (frame) {
    content.classList.add("frame");
    for (const [title, digits, className] of frame) content.append(element("span", `field ${className}`, element("small", "", title), element("code", "", digits)));
  } else {
    for (const [text, what] of pieces) {
      const piece = element("span", "piece", element("code", "", text));
      if (what) piece.append(element("small", "", what));
      content.append(piece);
    }
  }
  return element("div", `layer ${name === "application" ? "top" : ""}`, element("div", "name", name), content);
}

const panes = { socketio: new Pane("socketio", SocketIO), signalr: new Pane("signalr", SignalR), jwebsocket: new Pane("jwebsocket", JWebSocket) };

// The server shows this page the frames of its own connections.

const bytes = (base64) => Array.from(atob(base64 ?? ""), (c) => c.charCodeAt(0));
const paneOf = (path) => (path.startsWith("/socket.io/") ? panes.socketio : path.startsWith("/hub") ? panes.signalr : panes.jwebsocket);

function watch() {
  const trouble = document.getElementById("trouble");
  const shown = new Map(); // the pane of each connection
  const ws = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/wire?session=${session}`);
  ws.onopen = () => {
    trouble.textContent = "";
    Object.values(panes).filter((p) => p.state.value === "closed").forEach((p) => p.changed("closed"));
  };
  ws.onmessage = (e) => {
    const f = JSON.parse(e.data);
    if (f.path) {
      shown.set(f.conn, paneOf(f.path));
      shown.get(f.conn).show(true, [{ name: "HTTP", pieces: [[`GET ${f.path}`, "asks for the upgrade"]] }]);
      return;
    }
    Object.assign(f, { header: bytes(f.header), wire: bytes(f.wire), payload: bytes(f.payload) });
    const pane = shown.get(f.conn);
    f.payload = Uint8Array.from(f.payload);
    pane?.show(!f.sent, ofFrame(pane.id, f));
  };
  ws.onclose = () => {
    trouble.textContent = "The server doesn't answer, so nothing of the wire can be seen. Trying again …";
    setTimeout(watch, 1000);
  };
}

// The same text in the draft of old iOS and in RFC 6455, byte by byte.

const key = [0x37, 0xfa, 0x21, 0x3d]; // that of the RFC's examples

function compare() {
  const text = new TextEncoder().encode(document.getElementById("old-text").value);
  const draft = [["00", "begin", "flag"], ...[...text].map((b) => [hex(b), letter(b), "payload"]), ["ff", "end", "flag"]];
  const rfc = [
    ["81", `${bits(0x81)}: FIN, text`, "flag"], [hex(0x80 | text.length), `${bits(0x80 | text.length)}: MASK, length ${text.length}`, "length"],
    ...key.map((b, i) => [hex(b), `key ${i + 1}`, "key"]),
    ...[...text].map((b, i) => [hex(b ^ key[i % 4]), `${letter(b)} ⊕ ${hex(key[i % 4])}`, "payload"]),
  ];
  for (const [id, cells] of [["draft", draft], ["rfc", rfc]]) {
    document.getElementById(id).replaceChildren(...cells.map(([digits, what, className]) => element("li", `field ${className}`, element("code", "", digits), element("small", "", what))));
  }
}

const letter = (b) => (b > 0x20 && b < 0x7f ? String.fromCharCode(b) : "·");

document.getElementById("old-text").addEventListener("input", compare);
compare();
watch();
