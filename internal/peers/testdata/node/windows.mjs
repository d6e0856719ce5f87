// Talks to the echo server with Node's ws, once for each size of the windows,
// with the client's context kept and not, and ends with status 0 if everything
// was as it must be. Usage: node windows.mjs URL
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import WebSocket from 'ws';

const url = process.argv[2];
const patience = setTimeout(() => { console.error('timed out'); process.exit(1); }, 25_000);

// The same 100 bytes at each distance that lies between two windows: a message
// that only a larger window holds if a writer looks back as far as it can.
function repeated() {
  const block = randomBytes(100);
  const parts = [block];
  for (let bits = 8; bits < 15; bits++) {
    parts.push(Buffer.alloc(1.5 * (1 << bits), bits), block);
  }
  return Buffer.concat(parts);
}

const document = (n) => JSON.stringify(Array.from({ length: n }, (_, i) => ({ id: i, name: `user${i % 7}`, tags: ['a', 'b'] })));

for (let bits = 8; bits <= 15; bits++) {
  for (const takeover of [true, false]) {
    const what = `${bits} bits, context ${takeover ? 'kept' : 'not kept'}`;
    const ws = new WebSocket(url, [], {
      maxPayload: 16 << 20,
      perMessageDeflate: { threshold: 0, serverMaxWindowBits: bits, clientMaxWindowBits: bits, clientNoContextTakeover: !takeover },
    });
    const [[response]] = await Promise.all([once(ws, 'upgrade'), once(ws, 'open')]);
    const answer = response.headers['sec-websocket-extensions'];
    assert.ok(answer.includes(`server_max_window_bits=${bits}`), `${what}: ${answer}`);
    assert.equal(answer.includes('client_no_context_takeover'), !takeover, `${what}: ${answer}`);
    const same = repeated();
    for (const sent of [document(1), document(1), document(300), same, same, Buffer.alloc(0), Buffer.alloc(100_000, 'x'), document(2000), randomBytes(70_000), document(1)]) {
      const came = once(ws, 'message');
      ws.send(sent);
      const [data, isBinary] = await came;
      assert.equal(isBinary, typeof sent !== 'string', what);
      assert.ok(Buffer.from(sent).equals(data), `${what}: ${sent.length} characters or bytes came back as ${data.length}`);
    }
    const closed = once(ws, 'close');
    ws.close(1000);
    assert.equal((await closed)[0], 1000, what);
  }
}
clearTimeout(patience);
