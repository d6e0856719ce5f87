// Pictures of frames, as elements.

import { opcodeName } from "./words.js";

export function element(tag, className, ...children) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  e.append(...children);
  return e;
}

export const hex = (byte) => byte.toString(16).padStart(2, "0");
export const bits = (byte) => byte.toString(2).padStart(8, "0");
export const hexes = (bytes) => [...bytes].map(hex).join(" ");
export const count = (n) => `${n.toLocaleString("en")} ${n === 1 ? "byte" : "bytes"}`;

const strict = new TextDecoder("utf-8", { fatal: true });

// decode returns the text that the bytes are, or null.
export function decode(bytes) {
  try {
    return strict.decode(bytes);
  } catch {
    return null;
  }
}

// parse takes a header apart (RFC 6455, section 5.2). Of a frame that its first
// bytes condemned, the rest may be missing.
export function parse(frame) {
  const [b0, b1] = frame.header;
  const short = b1 & 0x7f;
  const extended = { 126: 2, 127: 8 }[short] ?? 0;
  const rest = frame.header.slice(2);
  return {
    fin: b0 >> 7 === 1,
    rsv: (b0 >> 4) & 7,
    opcode: b0 & 15,
    masked: b1 >> 7 === 1,
    short,
    extended: rest.slice(0, extended),
    key: rest.slice(extended, extended + 4),
    whole: rest.length >= extended + (b1 >> 7) * 4,
  };
}

const drawnPayload = 8; // bytes of it in the diagram

// diagram draws the frame as section 5.2 does, with its bits in it: in words of
// 16, two in a row where there is room.
export function diagram(frame, h) {
  const fields = [
    ["FIN", bits(frame.header[0])[0], "flag"],
    ...[1, 2, 3].map((i) => [`RSV${i}`, bits(frame.header[0])[i], "reserved"]),
    ["opcode", bits(frame.header[0]).slice(4), "opcode"],
    ["MASK", bits(frame.header[1])[0], "flag"],
    ["length", bits(frame.header[1]).slice(1), "length"],
  ];
  if (h.extended.length) fields.push(["extended length", [...h.extended].map(bits).join(""), "length"]);
  if (h.masked && h.key.length === 4) fields.push(["masking key", [...h.key].map(bits).join(""), "key"]);
  const shown = frame.wire.slice(0, drawnPayload);
  shown.forEach((byte, i) => fields.push([`${hex(byte)}`, bits(byte), "payload", i]));

  const box = element("div", "diagram");
  box.setAttribute("role", "img");
  box.setAttribute("aria-label", describe(frame, h));
  let word = null;
  let room = 0;
  for (const [name, all, className] of fields) {
    for (let from = 0; from < all.length; ) {
      if (room === 0) {
        box.append((word = element("div", "word")));
        room = 16;
      }
      const part = all.slice(from, from + room);
      word.append(segment(from === 0 ? name : "(continued)", part, className));
      from += part.length;
      room -= part.length;
    }
  }
  const more = frame.length - shown.length;
  if (more > 0 && frame.seen > shown.length) box.append(element("div", "more", `… ${count(more)} more`));
  return box;
}

function segment(name, part, className) {
  const cells = element("div", "cells", ...[...part].map((bit) => element("span", bit === "1" ? "one" : "zero", bit)));
  const label = part.length === 1 ? element("div", "name tall", ...[...name].map((c) => element("span", "", c))) : element("div", "name", name);
  const s = element("div", `segment ${className}`, label, cells);
  s.style.gridColumn = `span ${part.length}`;
  cells.style.gridTemplateColumns = `repeat(${part.length}, 1fr)`;
  return s;
}

function describe(frame, h) {
  const words = [`FIN ${h.fin ? 1 : 0}`, `reserved bits ${h.rsv.toString(2).padStart(3, "0")}`, `opcode ${opcodeName(h.opcode)}`,
    `MASK ${h.masked ? 1 : 0}`, h.whole ? `length ${frame.length}` : `length field ${h.short}`];
  if (h.masked && h.key.length === 4) words.push(`masking key ${hexes(h.key)}`);
  if (frame.wire.length) words.push(`payload as on the wire ${hexes(frame.wire.slice(0, drawnPayload))}`);
  return words.join(", ");
}

// legend says the diagram's fields in words.
export function legend(frame, h) {
  const item = (className, name, text) => element("li", className, element("b", "", name), ` ${text}`);
  const list = element("ul", "legend",
    item("flag", "FIN", h.fin ? "1: the last frame of its message" : "0: more frames of the message follow"),
    item("opcode", "opcode", `${h.opcode}: ${opcodeName(h.opcode)}`),
    item("flag", "MASK", h.masked ? "1: a masking key follows" : "0: not masked"));
  if (h.rsv) list.append(item("reserved", "RSV", `${h.rsv.toString(2).padStart(3, "0")}: for extensions; none was agreed on`));
  if (!h.extended.length) {
    list.append(item("length", "length", h.short < 126 ? count(h.short) : `${h.short}: in the next ${h.short === 126 ? 16 : 64} bits, which weren't looked at`));
  } else {
    list.append(item("length", "length", `${h.short} means: in the next ${8 * h.extended.length} bits. ${count(frame.length)}`));
  }
  return list;
}

const drawnXOR = 16;
const perTable = 8;

// unmasking draws the XOR, byte by byte, and of the first one bit by bit.
export function unmasking(frame, h, isText) {
  const n = Math.min(frame.wire.length, drawnXOR);
  if (n === 0) return null;
  const box = element("div", "unmasking");
  const [wire, key, plain] = [frame.wire[0], h.key[0], frame.payload[0]];
  box.append(element("pre", "first",
    element("span", "payload", bits(wire)), `  ${hex(wire)}  first byte on the wire\n`,
    element("span", "key", bits(key)), `  ${hex(key)}  first byte of the key\n`,
    element("span", "plain", bits(plain)), `  ${hex(plain)}  XOR: 1 where they differ`));
  const marks = isText ? characters(frame.payload.slice(0, n)) : null;
  for (let from = 0; from < n; from += perTable) {
    const range = [...Array(Math.min(perTable, n - from)).keys()].map((i) => from + i);
    const row = (name, className, cell) => element("tr", className, headCell(name), ...range.map((i) => element("td", "", cell(i))));
    const table = element("table", "xor",
      row("wire", "payload", (i) => hex(frame.wire[i])),
      row("⊕ key", "key", (i) => hex(h.key[i % 4])),
      row("= payload", "plain", (i) => hex(frame.payload[i])));
    if (marks) table.append(element("tr", "text", headCell("text"), ...characterCells(marks, range)));
    box.append(table);
  }
  if (frame.length > n) box.append(element("div", "more", `… ${count(frame.length - n)} more`));
  return box;
}

function headCell(name) {
  const th = element("th", "", name);
  th.scope = "row";
  return th;
}

// characters returns for each byte the character that it begins, or "" for the
// bytes that go on with one; what isn't UTF-8 is "✗".
function characters(bytes) {
  const marks = [];
  for (let i = 0; i < bytes.length; ) {
    const b = bytes[i];
    const size = b < 0x80 ? 1 : b >> 5 === 6 ? 2 : b >> 4 === 14 ? 3 : b >> 3 === 30 ? 4 : 1;
    const c = i + size <= bytes.length ? decode(bytes.slice(i, i + size)) : "…";
    marks.push(c === null ? "✗" : visible(c));
    if (c !== null) for (let k = 1; k < size && i + k < bytes.length; k++) marks.push("");
    i += c === null ? 1 : size;
  }
  return marks;
}

function visible(c) {
  if (c === " ") return "␣";
  return /\p{C}/u.test(c) ? "·" : c;
}

function characterCells(marks, range) {
  const cells = [];
  for (const i of range) {
    if (marks[i] === "" && cells.length) {
      cells.at(-1).colSpan++;
    } else {
      cells.push(element("td", marks[i] === "✗" ? "bad" : "", marks[i] || "…"));
    }
  }
  return cells;
}

// joining draws fragments as the one message that they are.
export function joining(pieces, isText) {
  const all = new Uint8Array(pieces.flatMap((p) => [...p]));
  const words = (bytes) => (isText && decode(bytes)) || hexes(bytes.slice(0, 12)) + (bytes.length > 12 ? " …" : "");
  const row = element("div", "joining");
  pieces.forEach((p, i) => {
    if (i > 0) row.append(element("span", "plus", "+"));
    row.append(element("span", "piece", element("b", "", p.length ? words(p) : "(empty)"), element("small", "", `${i === 0 ? "first" : i === pieces.length - 1 ? "last, FIN" : "continuation"}, ${count(p.length)}`)));
  });
  row.append(element("span", "plus", "="), element("span", "piece whole", element("b", "", words(all)), element("small", "", `one message, ${count(all.length)}`)));
  return row;
}

// accepting draws how the accept value comes out of the key.
export function accepting(key, accept) {
  const sum = Uint8Array.from(atob(accept), (c) => c.charCodeAt(0));
  const line = (name, value, className = "") => [element("dt", "", name), element("dd", className, value)];
  return element("dl", "accepting",
    ...line("Sec-WebSocket-Key", key, "key"),
    ...line("+ a fixed GUID", "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"),
    ...line("SHA-1 of both", hexes(sum).replaceAll(" ", "")),
    ...line("in base64", accept, "plain"));
}

const important = /^(GET|HTTP\/|Upgrade|Connection|Sec-WebSocket-|Origin|Host)/i;

// head draws an HTTP head, the lines that matter for a WebSocket in front.
export function head(text) {
  const pre = element("pre", "head");
  for (const line of text.trimEnd().split("\r\n")) {
    pre.append(element("span", important.test(line) ? "matters" : "", line), "\n");
  }
  return pre;
}

// handshake draws which close frames went which way.
export function handshake(end, first) {
  const arrow = (fromClient, code) =>
    element("li", fromClient ? "from-client" : "from-server",
      code ? `${fromClient ? "client → server" : "client ← server"}   close ${code === 1005 ? "(no code)" : code}` : `no close frame from the ${fromClient ? "client" : "server"}`);
  const frames = [arrow(true, end.received), arrow(false, end.sent)];
  if (first === "server") frames.reverse();
  return element("ol", "handshake", ...frames, element("li", "tcp", end.clean ? "TCP closed: clean" : "TCP closed: not clean"));
}
