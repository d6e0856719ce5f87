// Decompresses messages with zlib and no larger a window than was agreed on,
// and prints what came out. Each line of the input is a JSON object: "bits" of
// the window, and "payloads" in base64, of messages that share a context.
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import zlib from 'node:zlib';

const tail = Buffer.from([0, 0, 0xff, 0xff]); // RFC 7692, section 7.2.2

for await (const line of createInterface({ input: process.stdin })) {
  const { bits, payloads } = JSON.parse(line);
  // What lies in the same chunk of output can be referred to whatever the window.
  const inflate = zlib.createInflateRaw({ windowBits: bits, chunkSize: 64 });
  let out = [];
  inflate.on('data', (b) => out.push(b));
  const failed = once(inflate, 'error').then(([e]) => { throw e; });
  failed.catch(() => {});
  const messages = [];
  try {
    for (const payload of payloads) {
      inflate.write(Buffer.from(payload, 'base64'));
      inflate.write(tail);
      await Promise.race([failed, new Promise((done) => inflate.flush(done))]);
      messages.push(Buffer.concat(out).toString('base64'));
      out = [];
    }
    console.log(JSON.stringify({ messages }));
  } catch (e) {
    console.log(JSON.stringify({ error: e.message, messages }));
  }
}
