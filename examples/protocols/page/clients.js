// The three protocols from the client's side, as far as this page needs them.
// The real ones are @microsoft/signalr, socket.io-client and jWebSocket.js.

const host = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}`;

// A Client opens, says what became of it, and tells what it has heard.
class Client {
  constructor(session, changed, sawHTTP) {
    Object.assign(this, { session, changed, sawHTTP });
  }

  // open opens a WebSocket, whose end is the client's.
  open(path, protocols = []) {
    const ws = new WebSocket(`${host}${path}${path.includes("?") ? "&" : "?"}session=${this.session}`, protocols);
    ws.binaryType = "arraybuffer";
    ws.onclose = () => this.ended();
    this.ws = ws;
    return ws;
  }

  ended() {
    clearInterval(this.pings);
    this.stopped = true;
    this.changed("closed");
  }

  close() {
    this.stopped = true;
    this.ws?.close();
    if (!this.ws) this.ended();
  }
}

export class SocketIO extends Client {
  ids = 0;

  async connect(transport) {
    this.changed("connecting");
    if (transport === "websocket") {
      const ws = this.open("/socket.io/?EIO=4&transport=websocket");
      ws.onmessage = (e) => this.packet(e.data);
      return;
    }
    try {
      const hello = await this.http("GET", "");
      this.sid = JSON.parse(hello.slice(1)).sid;
      await this.http("POST", "40");
      this.poll(); // and on
      if (transport === "upgrade") this.upgrade();
    } catch (e) {
      this.ended();
    }
  }

  async http(method, body) {
    const query = `EIO=4&transport=polling${this.sid ? `&sid=${this.sid}` : ""}`;
    if (method === "POST") this.sawHTTP(true, `POST /socket.io/?${query}`, body);
    const r = await fetch(`/socket.io/?${query}`, { method, ...(method === "POST" ? { body } : {}) });
    const text = await r.text();
    this.sawHTTP(false, `${r.status} to ${method} /socket.io/?${query}`, text);
    if (!r.ok) throw new Error(text);
    return text;
  }

  async poll() {
    try {
      while (!this.stopped && !this.pausing) for (const p of (await this.http("GET", "")).split("\x1e")) this.packet(p);
      this.paused?.();
    } catch {
      this.ended();
    }
  }

  // upgrade is the dance: a probe, its answer, the end of the polling, and 5.
  upgrade() {
    const ws = new WebSocket(`${host}/socket.io/?EIO=4&transport=websocket&sid=${this.sid}&session=${this.session}`);
    ws.binaryType = "arraybuffer";
    ws.onopen = () => ws.send("2probe");
    ws.onmessage = async (e) => {
      if (e.data !== "3probe") return;
      const paused = new Promise((resolve) => { this.paused = resolve; });
      this.pausing = true;
      await paused;
      await this.posting;
      this.ws = ws;
      ws.onmessage = (e) => this.packet(e.data);
      ws.onclose = () => this.ended();
      ws.send("5");
    };
  }

  packet(p) {
    if (typeof p !== "string") return;
    if (p[0] === "0" && this.ws) this.write("40"); // by polling it has gone already
    if (p.startsWith("40")) this.changed("open");
    if (p === "2") this.write("3");
    if (p === "1") this.ended();
  }

  write(...packets) {
    if (this.ws) packets.forEach((p) => this.ws.send(p));
    else this.posting = Promise.resolve(this.posting).then(() => this.http("POST", packets.map((p) => (typeof p === "string" ? p : `b${btoa(String.fromCharCode(...p))}`)).join("\x1e"))).catch(() => this.ended());
  }

  say(text) { this.write(`42${JSON.stringify(["say", text])}`); }
  ask(text) { this.write(`42${this.ids++}${JSON.stringify(["echo", text])}`); }
  binary(text) { this.write(`451-${JSON.stringify(["echo", { _placeholder: true, num: 0 }])}`, new TextEncoder().encode(text)); }

  close() {
    if (this.ws) return super.close();
    this.stopped = true;
    this.write("1");
    this.ended();
  }
}

export class SignalR extends Client {
  ids = 0;

  async connect(how) {
    this.changed("connecting");
    let path = "/hub";
    if (how === "negotiate") {
      try {
        this.sawHTTP(true, "POST /hub/negotiate?negotiateVersion=1", "");
        const r = await fetch("/hub/negotiate?negotiateVersion=1", { method: "POST" });
        const text = await r.text();
        this.sawHTTP(false, `${r.status} to POST /hub/negotiate`, text);
        path += `?id=${JSON.parse(text).connectionToken}`;
      } catch {
        return this.ended();
      }
    }
    const ws = this.open(path);
    ws.onopen = () => this.write({ protocol: "json", version: 1 });
    ws.onmessage = (e) => {
      if (e.data === "{}\x1e") this.changed("open");
    };
    this.pings = setInterval(() => ws.readyState === 1 && this.write({ type: 6 }), 15_000);
  }

  write(record) { this.ws.send(`${JSON.stringify(record)}\x1e`); }
  say(text) { this.write({ type: 1, target: "Say", arguments: [text] }); }
  ask(text) { this.write({ type: 1, invocationId: String(this.ids++), target: "Echo", arguments: [text] }); }
  stream() { this.write({ type: 4, invocationId: String(this.ids++), target: "Count", arguments: [3, 500] }); }
}

export class JWebSocket extends Client {
  ids = 0;

  connect() {
    this.changed("connecting");
    const ws = this.open("/jWebSocket/jWebSocket", ["org.jwebsocket.json"]);
    ws.onmessage = (e) => {
      if (e.data.startsWith("maxframesize")) {
        this.write({ type: "header", clientType: "browser" });
        return;
      }
      const token = JSON.parse(e.data);
      if (token.type === "welcome") this.write({ type: "login", username: "guest", password: "guest" });
      if (token.reqType === "login") this.changed("open");
    };
  }

  write(token) { this.ws.send(JSON.stringify({ ns: "org.jwebsocket.plugins.system", utid: ++this.ids, ...token })); }
  say(data) { this.write({ type: "broadcast", data, senderIncluded: true }); }
  ask(data) { this.write({ type: "echo", data }); }
  ping() { this.write({ type: "ping", echo: true }); }
}
