// A server that sends each client the messages of a JSON array on its input,
// compressed as the arguments say, and closes. Its first line of output is the
// port. Usage: node updates.mjs WINDOWBITS takeover|no-takeover
import { once } from 'node:events';
import { WebSocketServer } from 'ws';

let input = '';
for await (const piece of process.stdin) input += piece;
const updates = JSON.parse(input);
const server = new WebSocketServer({
  port: 0, host: '127.0.0.1',
  perMessageDeflate: {
    threshold: 0, serverMaxWindowBits: Number(process.argv[2]), serverNoContextTakeover: process.argv[3] !== 'takeover',
  },
});
server.on('connection', (ws) => {
  for (const u of updates) ws.send(u);
  ws.close(1000);
});
await once(server, 'listening');
console.log(server.address().port);
