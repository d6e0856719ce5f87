// What the steps mean, in plain words.

export const opcodes = {
  0x0: "continuation", 0x1: "text", 0x2: "binary", 0x8: "close", 0x9: "ping", 0xa: "pong",
};

export const opcodeName = (opcode) => opcodes[opcode] ?? `unknown (0x${opcode.toString(16)})`;

// The codes a person meets here (RFC 6455, section 7.4.1).
export const closeCodes = {
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
};

export const codeName = (code) => (closeCodes[code] ? `${code} (${closeCodes[code]})` : String(code));

export const say = {
  socket: "A socket is a number by which a program asks its system to send and receive bytes. It is connected to nobody yet.",
  bind: "The address and port now belong to this process. A second server on the same port would fail here.",
  listen: "From now on the system itself completes TCP connections for this port, and lines them up.",
  waiting: "The server sleeps until one is in line. It burns no CPU meanwhile.",
  accept: "The system has connected a client by TCP, and hands over a second socket, for this client alone. The first one goes on listening.",
  request: "The first bytes are plain HTTP: a GET that asks to turn this TCP connection into a WebSocket.",
  requestFirst: "Reads until the empty line that ends the request, then checks each line that matters.",
  answer: "101 means: agreed, from the next byte on this is no longer HTTP. The accept value proves that a WebSocket server has read this very key.",
  refusal: "The request isn't a lawful upgrade. The answer says why in plain HTTP, and the connection ends.",
  open: "The connection is open: both sides may send frames whenever they like.",

  frameAgain: "Again: two bytes, the key, the payload.",
  twoBytes: "The server looks at two bytes first, of all that has come: they say what kind of frame this is, whether it is the last of its message, and how long it is.",
  masked: "A client masks every frame with four random bytes, so that a page can't choose what exact bytes travel: a proxy that doesn't know WebSocket might take them for HTTP.",
  unmask: "Each byte XOR its byte of the key, the four over and over, gives the payload back. It hides nothing: the key travels along.",
  notMasked: "The server's frames aren't masked: what a server sends is not chosen by a stranger's page.",
  control: "A control frame is short and whole, so that it can slip between the fragments of a message.",
  ping: "A ping asks: are you there?",
  pong: "A pong answers with the ping's own bytes.",
  fragment: "FIN is 0: more of this message follows, in continuation frames. Nobody had to know its length before.",
  lastFragment: "FIN is 1: the message is whole.",
  message: "The application gets the whole message at once, and in order: TCP loses nothing and swaps nothing.",
  close: "A close frame says that no more will be sent, and why: two bytes of code, then a reason.",
  clean: "Each side has sent a close frame, so nothing is lost. Then the server closes the TCP connection.",
  unclean: "The server has said why, and doesn't wait for an answer: it closes the TCP connection.",
  vanished: "TCP ended without a close frame. What the other side still had to say, nobody knows.",
  refused: "The frame breaks a rule, so the server says goodbye with a close frame, and looks at nothing more.",
  closed: "The socket is gone. Its number may go to the next client.",
};

// What does a step in this library: a name that it exports, or the file that
// has it.
export const via = {
  listen: ["net.Listen"],
  accept: ["Server.Serve"],
  request: ["Upgrader.Upgrade", "internal/httphead/request.go"],
  answer: ["Upgrader.Upgrade", "handshake.go"],
  refusal: ["HandshakeError"],
  open: ["Events.OnOpen"],
  read: ["conn_read.go", "frame.go", "mask.go"],
  message: ["Conn.WriteMessage"],
  ping: ["Conn.Ping"],
  pong: ["conn_write.go"],
  close: ["Conn.Close"],
  closeAnswer: ["conn_close.go"],
  closeBroken: ["ProtocolError", "conn_close.go"],
  closed: ["Events.OnClose"],
};

// What a script of the page does, or hears.
export const page = {
  new: "The browser looks up the host, connects by TCP, and sends an HTTP request. The script goes on meanwhile.",
  onopen: "The answer was 101 and its accept value right. From now on the script may send.",
  send: "The browser puts the message into a frame, masks it, and returns at once: send doesn't wait.",
  onmessage: "A whole message has come. The script never sees frames.",
  close: "The browser sends a close frame and waits for the server's.",
  onclose: "The last event of every WebSocket, however it ended.",
  onerror: "Something failed. The script isn't told what, only that the close event follows.",
  quiet: "The script sees nothing of the ping: the browser answers it with a pong by itself.",
};

export const raw = {
  dial: "connect() reaches the system at the other end, which completes the TCP connection before the server has called accept.",
  request: "HTTP is text, so asking for a WebSocket is writing a few lines.",
  answer: "101: from here on both sides send frames.",
  refused: "Not 101: this stays HTTP, and there is no WebSocket.",
  write: "One frame, byte by byte.",
  read: "What the server sent, as it comes out of TCP: bytes, that the client has to cut into frames itself.",
  busy: "The server runs only so many raw clients at once. Try again in a moment.",
  end: "The server closed TCP, as it should: between the two, the server closes first (RFC 6455, section 7.1.1).",
};

export const scripts = {
  fragments: "First fragment, a ping in between, the middle, the end: five writes, three of them one message.",
  ping: "A ping, and then goodbye.",
  nomask: "The MASK bit is 0, as only a server may have it.",
  reserved: "RSV3 is 1, but no extension was agreed on that would give it a meaning.",
  utf8: "A text frame in which the byte c3 isn't followed by its second half.",
  opcode: "Opcode 3 is reserved for a later standard.",
  longping: "Control frames may carry 125 bytes, this one has 126.",
  length: "The length 5 fits into seven bits, but is written in sixteen.",
  orphan: "A continuation frame, when no message has begun.",
  nokey: "Everything is there but Sec-WebSocket-Key.",
};

// What came of those scripts that break no rule, beside the end.
export const outcomes = {
  fragments: "echoed as one message",
  ping: "answered with a pong",
};
