// What lies in a message, layer by layer, from the application to the frame.

export const hex = (byte) => byte.toString(16).padStart(2, "0");
export const bits = (byte) => byte.toString(2).padStart(8, "0");
const strict = new TextDecoder("utf-8", { fatal: true });
const count = (n) => `${n.toLocaleString("en")} ${n === 1 ? "byte" : "bytes"}`;

// A layer is a name and pieces of [text, what it is].
const layer = (name, ...pieces) => ({ name, pieces });
const short = (s, n = 400) => (s.length > n ? `${s.slice(0, n)} …` : s);
const values = (list) => short(list.map((v) => JSON.stringify(v)).join(", "));

const enginePackets = ["open", "close", "ping", "pong", "message", "upgrade", "noop"];
const socketMessages = ["connect", "disconnect", "event", "answer", "refusal", "event with attachments", "answer with attachments"];

// socketio reads a packet of Engine.IO, and the message of Socket.IO in it.
function socketio(text) {
  if (text === null) return [layer("Socket.IO 5", ["an attachment of the event before it", "note"])];
  const [digit, rest] = [text[0], text.slice(1)];
  if (text === "2probe" || text === "3probe") return [layer("Engine.IO 4", [digit, enginePackets[digit]], ["probe", "of the upgrade"])];
  const engine = layer("Engine.IO 4", [digit, enginePackets[digit] ?? "unknown"]);
  if (digit !== "4") {
    if (rest) engine.pieces.push([short(rest), ""]);
    return [engine];
  }
  const m = /^(\d)(?:(\d+)-)?(?:(\/[^,]*),?)?(\d+)?(.*)$/s.exec(rest);
  if (!m) return [engine];
  const [, kind, attachments, namespace, id, json] = m;
  const message = layer("Socket.IO 5", [kind, socketMessages[kind]]);
  if (attachments) message.pieces.push([`${attachments}-`, "attachments"]);
  if (namespace) message.pieces.push([`${namespace},`, "namespace"]);
  if (id) message.pieces.push([id, kind === "3" || kind === "6" ? "the number it answers" : "the number to answer"]);
  if (json) message.pieces.push([short(json), ""]);
  return [layer("application", [application(kind, json, id), ""]), message, engine];
}

function application(kind, json, id) {
  const data = parse(json);
  if ((kind === "2" || kind === "5") && Array.isArray(data)) return `emit(${values(data)}${id ? ", answer => …" : ""})`;
  if ((kind === "3" || kind === "6") && Array.isArray(data)) return `answer(${values(data)})`;
  return { 0: "connect", 1: "disconnect", 4: "connect_error" }[kind] ?? "?";
}

const records = [, "invocation", "stream item", "completion", "stream invocation", "cancel", "ping", "close"];

// signalr reads the records of a message.
function signalr(text) {
  const layers = [];
  for (const part of text.split("\x1e").slice(0, -1)) {
    const r = parse(part) ?? {};
    const what = r.protocol ? "handshake" : r.type ? records[r.type] ?? "unknown" : "handshake's answer";
    layers.push(layer("application", [call(r), ""]), layer("SignalR", [short(part), what], ["1e", "end of the record"]));
  }
  return layers;
}

function call(r) {
  switch (r.type) {
    case 1: return `${r.target}(${values(r.arguments)})${r.invocationId ? "" : ", no result wanted"}`;
    case 2: return `item ${JSON.stringify(r.item)}`;
    case 3: return r.error ? `failed: ${r.error}` : "result" in r ? `result ${short(JSON.stringify(r.result))}` : "done";
    case 4: return `stream of ${r.target}(${values(r.arguments)})`;
    case 5: return "enough of the stream";
    case 6: return "are you there?";
    case 7: return r.allowReconnect ? "the end; come back" : "the end";
  }
  return r.protocol ? `we speak ${r.protocol}` : r.error ? `refused: ${r.error}` : "agreed";
}

// jwebsocket reads a token.
function jwebsocket(text) {
  const t = parse(text);
  if (!t) return [layer("jWebSocket", [short(text), "the largest message"])];
  const ns = String(t.ns ?? "").replace("org.jwebsocket.plugins.", "");
  const what = t.type === "response" ? `answer to ${t.reqType}: ${t.code === 0 ? "ok" : t.msg}` : t.type === "event" ? `event ${t.name}` : t.type;
  return [layer("application", [`${ns}: ${what}`, ""]), layer("jWebSocket", [short(text), "token"])];
}

function parse(json) {
  try {
    return JSON.parse(json);
  } catch {
    return null;
  }
}

const protocols = { socketio, signalr, jwebsocket };
const opcodes = { 0: "continuation", 1: "text", 2: "binary", 8: "close", 9: "ping", 10: "pong" };

// ofHTTP are the layers of a request or answer of the polling, or of the
// negotiation.
export function ofHTTP(protocol, line, body) {
  const layers = protocol === "socketio"
    ? body.split("\x1e").filter(Boolean).flatMap((p) => (p === "ok" ? [] : socketio(p[0] === "b" ? null : p)))
    : body ? [layer("SignalR", [short(body), "negotiation"])] : [];
  return [...layers, layer("HTTP", [line, ""], [count(new TextEncoder().encode(body).length), "body"])];
}

// ofFrame are the layers of a frame.
export function ofFrame(protocol, f) {
  const [b0, b1] = f.header;
  const opcode = b0 & 15;
  const layers = [];
  let text = null;
  try {
    if (opcode === 1) text = strict.decode(f.payload);
  } catch { /* cut inside a character, or compressed */ }
  if ((opcode === 1 && text !== null) || (opcode === 2 && protocol === "socketio")) layers.push(...protocols[protocol](text));
  if (opcode === 8) layers.push(layer("close frame", [String((f.payload[0] << 8) | f.payload[1] || 1005), "code"], [new TextDecoder().decode(f.payload.slice(2)), ""]));
  const kind = opcode < 8 ? `${opcodes[opcode]} message` : `control frame: ${opcodes[opcode]}`;
  layers.push(layer("WebSocket", [kind, ""], [count(f.length), ""]), { name: "frame", frame: fields(f, b0, b1) });
  return layers;
}

// fields are the frame as RFC 6455, section 5.2 draws it: [name, digits, class].
function fields(f, b0, b1) {
  const extended = { 126: 2, 127: 8 }[b1 & 127] ?? 0;
  const list = [
    ["FIN", bits(b0)[0], "flag"],
    ["RSV", bits(b0).slice(1, 4), "reserved"],
    ["opcode", bits(b0).slice(4), "opcode"],
    ["MASK", bits(b1)[0], "flag"],
    ["length", bits(b1).slice(1), "length"],
  ];
  if (extended) list.push(["extended length", f.header.slice(2, 2 + extended).map(hex).join(" "), "length"]);
  if (b1 >> 7) list.push(["key", f.header.slice(2 + extended, 6 + extended).map(hex).join(" "), "key"]);
  const shown = f.wire.slice(0, 16).map(hex).join(" ");
  if (f.length) list.push([b1 >> 7 ? "payload, masked" : "payload", shown + (f.length > 16 ? " …" : ""), "payload"]);
  return list;
}
