"use strict";

// The four events of a browser's WebSocket, shown as they happen. Nothing is
// hidden in a helper: connect() below is all there is to the API.

const $ = (id) => document.getElementById(id);

const maxEvents = 500;      // rows kept on the page
const maxShown = 400;       // characters of a message shown
const maxReason = 123;      // bytes: a close frame's payload is at most 125 (RFC 6455, section 5.5)

let socket = null;
let sent = [];              // what was sent and hasn't come back: an echo server answers in order
let roundTrips = 0;

$("url").value = `${location.protocol === "https:" ? "wss:" : "ws:"}//${location.host}/`;

function connect(url) {
  let ws;
  try {
    ws = new WebSocket(url);
  } catch (err) {
    show("error", err.message);
    return;
  }
  ws.binaryType = "arraybuffer";
  sent = [];
  socket = ws;
  showState();

  ws.onopen = () => {
    const extras = [ws.protocol && `subprotocol ${ws.protocol}`, ws.extensions].filter(Boolean);
    show("open", ws.url, extras.join(", "));
    showState();
    $("text").focus();
  };
  ws.onmessage = ({ data }) => {
    const now = performance.now();
    const want = sent.shift();
    const note = [describe(data)];
    if (want && same(want.data, data)) {
      note.push(`as sent, after ${milliseconds(now - want.at)}`);
    } else {
      note.push("not what was sent");
    }
    show("message", want?.roundTrip ? "" : preview(data), note.join(", "), want?.roundTrip ? "round trip" : "message");
  };
  ws.onerror = () => {
    show("error", "", "the browser tells a page no more than that; the close event follows");
  };
  ws.onclose = ({ code, reason, wasClean }) => {
    show("close", reason, `code ${code}${meaning(code)}, ${wasClean ? "clean" : "not clean"} (wasClean is ${wasClean})`);
    if (socket === ws) {
      socket = null;
      showState();
    }
  };
}

function send(data, options = {}) {
  if (socket?.readyState !== WebSocket.OPEN) return;
  sent.push({ data, at: performance.now(), ...options });
  socket.send(data);
  if (!options.roundTrip) show("sent", preview(data), describe(data));
}

// Controls

$("connect").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!socket) connect($("url").value.trim());
});

$("send").addEventListener("submit", (event) => {
  event.preventDefault();
  send($("text").value);
  $("text").select();
});

$("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("send").requestSubmit();
});

$("send-file").addEventListener("submit", async (event) => {
  event.preventDefault();
  const file = $("file").files[0];
  if (!file) return;
  try {
    send(await file.arrayBuffer());
  } catch (err) {
    show("error", err.message, `${file.name} could not be read`);
  }
});

$("round-trip").addEventListener("submit", (event) => {
  event.preventDefault();
  roundTrips++;
  send(`round trip ${roundTrips}`, { roundTrip: true });
});

$("close").addEventListener("submit", (event) => {
  event.preventDefault();
  const code = Number($("code").value), reason = $("reason").value;
  try {
    socket?.close(code, reason);
    show("sent", reason, `close, code ${code}`);
    showState();
  } catch (err) {
    show("error", err.message);
  }
});

$("reason").addEventListener("input", () => {
  const bytes = byteLength($("reason").value);
  $("reason").setCustomValidity(bytes > maxReason ? `${bytes} bytes; a reason has at most ${maxReason}` : "");
});

$("code").addEventListener("input", () => {
  const code = Number($("code").value);
  const allowed = code === 1000 || (code >= 3000 && code <= 4999);
  $("code").setCustomValidity(allowed ? "" : "A page may use 1000 and 3000 to 4999");
});

$("clear").addEventListener("click", () => $("events").replaceChildren());

// Showing

function showState() {
  const state = socket ? ["connecting", "open", "closing", "closed"][socket.readyState] : "closed";
  $("state").value = state;
  $("state").dataset.state = state;
  $("open-only").disabled = state !== "open";
  $("connect-button").disabled = socket !== null;
  $("url").readOnly = socket !== null;
}

// show adds one row: its class decides the colour, kind is the word shown.
function show(className, body, note = "", kind = className) {
  const list = $("events");
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;

  const row = document.createElement("li");
  row.className = className;
  const now = new Date();
  const time = element("time", "", clock(now));
  time.dateTime = now.toISOString();
  const detail = element("span", "detail", "");
  if (body) detail.append(bodyElement(body));
  if (note) detail.append(element("span", "note", note));
  row.append(time, element("span", "kind", kind), detail);

  list.append(row);
  while (list.childElementCount > maxEvents) list.firstElementChild.remove();
  if (atEnd) list.scrollTop = list.scrollHeight;
}

function element(tag, className, text) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  e.textContent = text;
  return e;
}

function bodyElement(text) {
  const e = element("span", "body", text);
  e.dir = "auto"; // Arabic and Hebrew read from the right
  return e;
}

function clock(date) {
  const two = (n) => String(n).padStart(2, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

function milliseconds(ms) {
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

function byteLength(text) {
  return new TextEncoder().encode(text).length;
}

function describe(data) {
  if (typeof data === "string") return `text, ${count(byteLength(data))}`;
  return `binary, ${count(data.byteLength)}`;
}

function count(bytes) {
  return `${bytes.toLocaleString("en")} ${bytes === 1 ? "byte" : "bytes"}`;
}

// preview cuts by code points, so that no surrogate pair is torn.
function preview(data) {
  if (typeof data === "string") {
    if (data.length <= maxShown) return data;
    return [...data.slice(0, maxShown + 1)].slice(0, -1).join("") + "…";
  }
  const head = [...new Uint8Array(data, 0, Math.min(16, data.byteLength))];
  return head.map((b) => b.toString(16).padStart(2, "0")).join(" ") + (data.byteLength > 16 ? " …" : "");
}

function same(a, b) {
  if (typeof a === "string" || typeof b === "string") return a === b;
  if (a.byteLength !== b.byteLength) return false;
  const x = new Uint8Array(a), y = new Uint8Array(b);
  return x.every((byte, i) => byte === y[i]);
}

// The codes a person meets here (RFC 6455, section 7.4.1).
function meaning(code) {
  const words = {
    1000: "normal",
    1001: "going away",
    1002: "protocol error",
    1003: "unsupported data",
    1005: "no code in the close frame",
    1006: "no close frame",
    1007: "invalid payload",
    1008: "policy violation",
    1009: "message too big",
    1011: "internal error",
    1012: "service restart",
    1013: "try again later",
  }[code];
  return words ? ` (${words})` : "";
}

showState();
