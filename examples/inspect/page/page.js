// The page: what its script does on one WebSocket, and by a second one
// (/trace) what the server did at that moment.

import * as draw from "./draw.js";
import { element, count, hexes } from "./draw.js";
import { say, via, page as words, raw as rawWords, scripts, outcomes, opcodeName, codeName } from "./words.js";
import { Story, rule } from "./story.js";

const $ = (id) => document.getElementById(id);
const session = hexes(crypto.getRandomValues(new Uint8Array(8))).replaceAll(" ", "");
const base = `${location.protocol === "https:" ? "wss:" : "ws:"}//${location.host}`;

const story = new Story($("steps"), $("below"));
const clients = new Map(); // what is known of each client, by its name
let socket = null;
let mine = null; // the client that socket is
let opened = 0; // clients of this page so far
let asked = null; // what the last button asked for, until something came of it
let answers = 0; // that were shown
let trace = null;
let ahead = 0; // of the server's clock, in milliseconds

const now = () => performance.timeOrigin + performance.now() + ahead;

// A client's steps, as far as later ones have to come behind them.
function client(name, at) {
  if (!clients.has(name)) {
    clients.set(name, { name, start: at, last: at, sent: [], received: [], writes: [], reads: 0, pieces: [], ends: null });
  }
  return clients.get(name);
}

// The verdict, one line above the steps

// ask begins one: c was asked for what the button says.
function ask(c, button) {
  asked = { c, button, at: now() };
  $("verdict").className = "";
  $("verdict").replaceChildren(element("b", "", button), " …");
}

// conclude ends it with what came of it. step is where it is told.
function conclude(c, step, came, problem = null) {
  if (asked?.c !== c) return;
  const show = element("button", "", "show");
  show.type = "button";
  show.addEventListener("click", () => story.show(step));
  const line = element("span", "", element("b", "", asked.button), " → ", came);
  if (problem) line.append(" ", ...rule({ ...problem, sentence: "" }).childNodes);
  $("verdict").className = problem ? "bad" : "";
  $("verdict").replaceChildren(line, show);
  asked = null;
}

const took = () => `after ${(now() - asked?.at).toFixed(1)} ms`;

// The page's script

function connect() {
  const name = `page-${++opened}`;
  const c = client(name, now());
  const url = `${base}/echo`;
  mine = c;
  ask(c, "new WebSocket");
  page(c, "new", `ws = new WebSocket("${url}")`, words.new);
  const ws = new WebSocket(`${url}?session=${session}&client=${name}`);
  ws.binaryType = "arraybuffer";
  socket = ws;
  showState();

  ws.onopen = () => {
    c.open = page(c, "onopen", "ws.onopen", words.onopen, { after: c.answer });
    conclude(c, c.open, `101: the connection is open, ${took()}`);
    showState();
    $("text").focus({ preventScroll: true });
  };
  ws.onmessage = ({ data }) => {
    const step = page(c, "onmessage", `ws.onmessage   event.data = ${literal(data)}`, words.onmessage, { after: c.writes[c.received.length] });
    c.received.push(step);
    if (asked?.echo) conclude(c, step, `echoed: ws.onmessage, ${took()}`);
  };
  ws.onerror = () => page(c, "onerror bad", "ws.onerror", words.onerror);
  ws.onclose = ({ code, reason, wasClean }) => {
    const step = page(c, "onclose", `ws.onclose   code = ${code}, reason = ${JSON.stringify(reason)}, wasClean = ${wasClean}`,
      `${words.onclose} ${codeName(code)}.`);
    conclude(c, step, `closed with ${codeName(code)}, ${wasClean ? "clean" : "not clean"}`);
    if (socket === ws) socket = null;
    showState();
  };
}

function send(data) {
  if (socket?.readyState !== WebSocket.OPEN) return;
  ask(mine, `ws.send(${literal(data)})`);
  asked.echo = true;
  mine.sent.push(page(mine, "send", `ws.send(${literal(data)})`, words.send));
  socket.send(data);
}

function close() {
  if (socket?.readyState !== WebSocket.OPEN) return;
  ask(mine, "ws.close(1000)");
  mine.sent.push(page(mine, "close", `ws.close(1000, "bye")`, words.close));
  socket.close(1000, "bye");
  showState();
}

// page adds a step of the script's to the story.
function page(c, kind, code, sentence, order = {}) {
  return story.add({ at: now(), start: c.start, side: "client", kind, causes: causes.has(kind), title: "script", code, sentence: story.once(sentence), ...order });
}

const causes = new Set(["new", "send", "close", "dial", "request", "write"]);

function literal(data) {
  if (typeof data !== "string") return `Uint8Array [${hexes(new Uint8Array(data).slice(0, 16)).replaceAll(" ", ", ")}]`;
  return JSON.stringify(data.length > 60 ? `${data.slice(0, 60)}…` : data);
}

// The server's trace

function watch() {
  const ws = new WebSocket(`${base}/trace?session=${session}`);
  ws.onopen = () => {
    trace = ws;
    synchronise(ws);
    showState();
  };
  ws.onmessage = ({ data }) => {
    const e = JSON.parse(data, (key, value) => (["bytes", "header", "wire", "payload"].includes(key) ? unpack(value) : value));
    if (e.kind === "clock") return ws.answers.get(e.id)?.(e.at);
    steps[e.kind]?.(e);
  };
  ws.onclose = () => {
    trace = null;
    showState();
    setTimeout(watch, 1000);
  };
}

const unpack = (base64) => Uint8Array.from(atob(base64 ?? ""), (c) => c.charCodeAt(0));

const command = (c) => trace?.send(JSON.stringify(c));

// synchronise finds out how far the server's clock is ahead, by the fastest of
// a few questions: its answer was given about half way.
async function synchronise(ws) {
  ws.answers = new Map();
  let fastest = Infinity;
  for (let id = 1; id <= 8; id++) {
    const asked = performance.timeOrigin + performance.now();
    const answer = new Promise((done) => ws.answers.set(id, done));
    ws.send(JSON.stringify({ do: "clock", id }));
    const at = await answer;
    const took = performance.timeOrigin + performance.now() - asked;
    if (took < fastest) {
      fastest = took;
      ahead = at - (asked + took / 2);
    }
  }
}

// server adds a step of the server's. The clocks may be wrong by a little; what
// causes it and what it causes say where it belongs.
function server(e, c, kind, title, sentence, parts = {}) {
  const at = Math.max(e.at, c ? c.last : 0);
  const step = story.add({ at, start: c?.start ?? at, side: "server", kind, title, sentence, client: c?.name, ...parts });
  if (c) c.last = step.at;
  return step;
}

const steps = {
  listen(e) {
    if (story.has("listen")) return; // the trace was lost, and is back
    const line = (code, sentence) => element("li", "", element("code", "", code), ` ${sentence}`);
    server(e, null, "listen", "before anyone comes", "", {
      via: via.listen,
      summary: "four calls of the system",
      pictures: [element("ol", "calls",
        line(`socket() = ${e.fd || "…"}`, say.socket),
        line(`bind(${e.local})`, say.bind),
        line("listen()", say.listen),
        line("accept() …", say.waiting))],
      note: `Process ${e.pid} is all there is to this server.`,
    });
  },

  accept(e) {
    const c = client(e.client ?? `other-${e.conn}`, e.at);
    server(e, c, "accept", "accept", story.once(say.accept), {
      via: via.accept, code: `accept() = ${e.fd || "…"}   from ${e.remote}`,
    });
  },

  request(e) {
    const c = client(e.client ?? `other-${e.conn}`, e.at);
    server(e, c, "request from-client", `request, ${count(e.text.length)}`, story.once(`${say.request} ${say.requestFirst}`), {
      via: via.request, summary: "as it came", folded: true, pictures: [draw.head(e.text)],
    });
  },

  answer(e) {
    const c = client(e.client ?? `other-${e.conn}`, e.at);
    const lawful = Boolean(e.key);
    c.answer = server(e, c, `answer from-server ${lawful ? "" : "bad"}`, `answer, ${count(e.text.length)}`, lawful ? story.once(say.answer) : say.refusal, {
      via: lawful ? via.answer : via.refusal, before: c.open,
      summary: lawful ? "how the accept value is made" : "as it went", folded: lawful && answers++ > 0,
      pictures: lawful ? [draw.accepting(e.key, e.accept), draw.head(e.text)] : [draw.head(e.text)],
      rule: lawful ? null : { reason: "no WebSocket", section: section(e.text) },
    });
    if (!lawful) conclude(c, c.answer, `${e.text.split("\r\n")[0].replace(/^HTTP\S+ /, "")}:`, { reason: e.text.split("\r\n\r\n")[1]?.trim().replace(/ \(RFC [^)]*\)$/, "") || "no WebSocket", section: section(e.text) });
  },

  state(e) {
    const c = client(e.client ?? `other-${e.conn}`, e.at);
    c.upgraded ||= e.state === "open";
    if (e.state === "open") server(e, c, "state", "open", story.once(say.open), { via: via.open });
  },

  read(e) {
    const c = client(e.client ?? `other-${e.conn}`, e.at);
    const f = e.frame;
    const h = draw.parse(f);
    const cause = h.opcode === 9 || h.opcode === 10 ? null : messageEnd(f, h) ? c.sent[c.reads++] : null;
    const isText = h.opcode === 1 || (h.opcode === 0 && c.isText);
    const pictures = [draw.diagram(f, h), draw.legend(f, h)];
    if (h.masked && f.wire.length) pictures.push(element("p", "aside", story.once(say.unmask)), draw.unmasking(f, h, isText || h.opcode === 9 || h.opcode === 10));
    const note = f.problem ? null : effect(c, f, h, pictures);
    c.broken ||= Boolean(f.problem);
    if (h.opcode === 8 && !c.ends) c.ends = "client";
    const step = server(e, c, `frame from-client ${f.problem ? "bad" : ""}`, `frame read: ${opcodeName(h.opcode)}`, `${story.once(say.twoBytes, f.problem ? "" : say.frameAgain)} ${about(h)}`, {
      via: via.read, summary: "bit by bit", after: cause, pictures, note,
      rule: f.problem && { ...f.problem, sentence: say.refused },
    });
    if (f.problem) conclude(c, step, "refused with", f.problem);
    if (h.opcode === 10 && asked?.ping) {
      conclude(c, step, `the browser's pong, after ${(step.at - c.pinged).toFixed(1)} ms; the script saw nothing of it`);
    }
  },

  write(e) {
    const c = client(e.client ?? `other-${e.conn}`, e.at);
    const f = e.frame;
    const h = draw.parse(f);
    const data = h.opcode < 8;
    if (h.opcode === 8 && !c.ends) c.ends = "server";
    const step = server(e, c, "frame from-server", `frame written: ${opcodeName(h.opcode)}`, `${about(h)} ${story.once(say.notMasked)}`, {
      via: { 8: c.broken ? via.closeBroken : c.ends === "client" ? via.closeAnswer : via.close, 9: via.ping, 10: via.pong }[h.opcode] ?? via.message,
      before: data ? c.received[c.writes.length] : null, summary: "bit by bit",
      pictures: [draw.diagram(f, h), draw.legend(f, h)], note: payloadNote(f, h),
    });
    if (data) c.writes.push(step);
    if (h.opcode === 9) c.pinged = step.at;
    if (h.opcode === 9 && c.name.startsWith("page")) {
      story.add({ at: step.at + 0.001, start: c.start, side: "client", kind: "quiet", causes: true, title: "script", code: "", sentence: words.quiet });
    }
  },

  closed(e) {
    const c = client(e.client ?? `other-${e.conn}`, e.at);
    const { end } = e;
    const upgraded = Boolean(c.open || c.upgraded);
    const how = !upgraded ? "" : end.clean ? say.clean : end.sent ? say.unclean : say.vanished;
    const step = server(e, c, `closed ${end.clean ? "" : "bad"}`, "closed", `${how} ${story.once(say.closed)}`, {
      via: upgraded ? via.closed : via.refusal, summary: "the closing handshake", pictures: upgraded ? [draw.handshake(end, c.ends)] : [],
      rule: upgraded && !end.clean ? end.problem : null,
    });
    if (!c.name.startsWith("page")) {
      const outcome = outcomes[asked?.script] ? `${outcomes[asked.script]}, then ` : "";
      conclude(c, step, `${outcome}closed with ${codeName(end.sent)}, ${end.clean ? "clean" : "not clean"}`);
    }
    clients.delete(c.name.startsWith("other") ? c.name : "");
  },

  raw(e) {
    const c = client(e.client, e.at);
    const parts = {
      dial: () => ({ code: `connect(${e.text})`, sentence: rawWords.dial }),
      request: () => ({ sentence: rawWords.request, summary: "as it goes", folded: true, pictures: [draw.head(e.text)] }),
      answer: () => ({ sentence: e.text.startsWith("HTTP/1.1 101") ? rawWords.answer : rawWords.refused, code: e.text.split("\r\n")[0] }),
      write: () => ({ code: `write(${clip(e.bytes)})`, sentence: rawWords.write }),
      read: () => ({ code: `read() = ${clip(e.bytes)}`, sentence: rawWords.read }),
      busy: () => ({ code: `not run: ${e.text} others still are`, sentence: rawWords.busy }),
      end: () => ({ code: `read() = ${e.text}`, sentence: rawWords.end }),
    }[e.state]();
    const step = story.add({ at: Math.max(e.at, c.rawLast ?? 0), start: c.start, side: "client", kind: `raw ${e.state}`, causes: causes.has(e.state), title: "raw TCP client", client: e.client, ...parts, sentence: story.once(parts.sentence) });
    c.rawLast = step.at;
    if (e.state === "busy") conclude(c, step, "not run: too many others still are");
  },
};

const clip = (bytes) => hexes(bytes.slice(0, 24)) + (bytes.length > 24 ? ` … ${bytes.length} bytes` : "");
const messageEnd = (f, h) => h.fin || h.opcode === 8;
const section = (text) => text.match(/RFC \d+, section [\d.]+/)?.[0] ?? "";

// about is the sentence for the kind of frame.
function about(h) {
  if (h.opcode === 8) return story.once(say.close);
  if (h.opcode === 9) return `${say.ping} ${story.once(say.control)}`;
  if (h.opcode === 10) return say.pong;
  if (!h.fin) return say.fragment;
  if (h.opcode === 0) return say.lastFragment;
  return h.masked ? story.once(say.masked) : "";
}

// effect says what a lawful frame led to, and draws fragments as one.
function effect(c, f, h, pictures) {
  if (h.opcode >= 8) return payloadNote(f, h);
  if (h.opcode !== 0) {
    c.isText = h.opcode === 1;
    c.pieces = [];
  }
  c.pieces.push(f.payload);
  if (!h.fin) return null;
  if (c.pieces.length > 1) pictures.push(draw.joining(c.pieces, c.isText));
  return `Events.OnMessage gets ${c.isText ? "text" : "bytes"}. ${story.once(say.message)}`;
}

function payloadNote(f, h) {
  if (h.opcode === 8) {
    if (f.payload.length < 2) return "No code: the script's onclose gets 1005.";
    const reason = draw.decode(f.payload.slice(2));
    return `Its first two bytes are the code: ${codeName(f.payload[0] * 256 + f.payload[1])}.${reason ? ` The rest is the reason: “${reason}”.` : ""}`;
  }
  const text = h.opcode === 2 ? null : draw.decode(f.payload);
  return text ? `Payload: “${text.length > 80 ? `${text.slice(0, 80)}…` : text}”` : null;
}

// Controls

function act(id, f) {
  $(id).addEventListener("click", () => {
    story.follow();
    f();
  });
}

const text = () => $("text").value || "Hello";

act("connect", connect);
act("emoji", () => send("🙂"));
act("binary", () => send(new Uint8Array([0, 1, 2, 3, 254, 255])));
act("long", () => send("0123456789".repeat(30)));
act("close", close);
act("server-ping", () => {
  ask(mine, "ping the page");
  asked.ping = true;
  command({ do: "ping", text: "are you there?" });
});
act("server-close", () => {
  ask(mine, "close with 1001");
  command({ do: "close", code: 1001, text: "going home" });
});
$("clear").addEventListener("click", () => story.clear());

$("script").addEventListener("submit", (event) => {
  event.preventDefault();
  story.follow();
  send(text());
});

for (const button of document.querySelectorAll("[data-script]")) {
  button.title = scripts[button.dataset.script];
  button.addEventListener("click", () => {
    story.follow();
    const script = button.dataset.script;
    const name = `raw-${++opened}`;
    const c = client(name, now());
    ask(c, button.textContent);
    asked.script = script;
    story.add({ at: c.start, start: c.start, side: "client", kind: "raw intro", title: "raw TCP client", client: name, code: button.textContent, sentence: scripts[script] });
    command({ do: "raw", script, client: name, text: text() });
  });
}

function showState() {
  const state = socket ? ["connecting", "open", "closing", "closed"][socket.readyState] : "closed";
  $("state").value = state;
  $("state").dataset.state = state;
  $("connect").disabled = socket !== null;
  for (const e of document.querySelectorAll(".open-only")) e.disabled = state !== "open";
  for (const e of document.querySelectorAll("[data-script]")) e.disabled = trace === null;
  $("watching").value = trace ? "" : "the server isn't there; trying again";
}

watch();
showState();
