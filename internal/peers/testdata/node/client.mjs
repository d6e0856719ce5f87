// Talks to the echo server with Node's ws and ends with status 0 if everything
// was as it must be. Usage: node client.mjs URL [deflate]
import assert from 'node:assert/strict';
import { once } from 'node:events';
import WebSocket from 'ws';

const [url, ...flags] = process.argv.slice(2);
const perMessageDeflate = flags.includes('deflate') ? { threshold: 0 } : false;
const patience = setTimeout(() => { console.error('timed out'); process.exit(1); }, 40_000);

async function open(protocols = []) {
  const ws = new WebSocket(url, protocols, { perMessageDeflate, rejectUnauthorized: false, maxPayload: 16 << 20 });
  await once(ws, 'open');
  if (perMessageDeflate) assert.match(ws.extensions, /permessage-deflate/);
  return ws;
}

async function exchange(ws, sent) {
  const answer = once(ws, 'message');
  ws.send(sent);
  const [data, isBinary] = await answer;
  assert.equal(isBinary, typeof sent !== 'string');
  assert.ok(Buffer.from(sent).equals(data), `${sent.length} characters or bytes came back as ${data.length}`);
}

async function closing(ws) {
  const [code, reason] = await once(ws, 'close');
  return [code, reason.toString()];
}

// Texts and binary messages of every length form.
{
  const ws = await open();
  for (const size of [0, 1, 125, 126, 127, 65535, 65536, 1 << 20, 4 << 20]) {
    await exchange(ws, Buffer.alloc(size, 'ab\x00\xff', 'latin1'));
    await exchange(ws, 'é漢😀'.repeat(Math.ceil(size / 9)).slice(0, size - size % 4));
  }
  // Fragments, a ping in between.
  const answer = once(ws, 'message');
  ws.send('fir', { fin: false });
  ws.ping('between');
  const pong = once(ws, 'pong');
  ws.send('st, sec', { fin: false });
  ws.send('ond', { fin: true });
  assert.equal((await pong)[0].toString(), 'between');
  assert.equal((await answer)[0].toString(), 'first, second');
  // The server's ping is answered by ws itself, and the connection goes on.
  const ping = once(ws, 'ping');
  await exchange(ws, 'ping:are you there');
  assert.equal((await ping)[0].toString(), 'are you there');
  const end = closing(ws);
  ws.close(1000, 'done');
  assert.deepEqual(await end, [1000, '']);
}

// Many at once, in order.
{
  const ws = await open();
  const n = 1000;
  let seen = 0;
  const all = new Promise((resolve, reject) => {
    ws.on('message', (data) => {
      if (data.toString() !== `message ${seen}`) reject(new Error(`message ${seen} came as ${data}`));
      if (++seen === n) resolve();
    });
    ws.on('error', reject);
  });
  for (let i = 0; i < n; i++) ws.send(`message ${i}`);
  await all;
  ws.terminate();
}

// Subprotocols and closes by the server.
for (const [offered, want] of [[['chat.v1'], 'chat.v1'], [['unknown', 'chat.v2'], 'chat.v2']]) {
  const ws = await open(offered);
  assert.equal(ws.protocol, want);
  ws.terminate();
}
for (const want of [[1000, ''], [1001, 'leaving'], [3000, 'a framework'], [4999, 'ours é']]) {
  const ws = await open();
  const end = closing(ws);
  ws.send(`close:${want[0]}:${want[1]}`);
  assert.deepEqual(await end, want);
}

clearTimeout(patience);
