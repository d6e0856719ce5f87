// The same application on socket.io's own server: what the checks want of ours,
// they find there.
import { Server } from 'socket.io';
import { createServer } from 'node:http';

const http = createServer();
const io = new Server(http, { perMessageDeflate: process.argv[2] === 'deflate' });

function serve(socket) {
  const answer = (args) => (typeof args.at(-1) === 'function' ? args.pop() : null);
  socket.on('echo', (...args) => {
    const ack = answer(args);
    if (ack) ack(...args);
    else socket.emit('echo', ...args);
  });
  socket.on('join', (room, ack) => { socket.join(room); ack?.('ok'); });
  socket.on('leave', (room, ack) => { socket.leave(room); ack?.('ok'); });
  socket.on('tell', (room, ...args) => socket.to(room).emit('told', ...args));
  socket.on('ask', (...args) => socket.timeout(5000).emit('question', ...args, (err, text) => socket.emit('answered', text, !err)));
  socket.on('leave me', (all) => socket.disconnect(all));
}

io.on('connection', serve);
io.of('/admin').use((socket, next) => next(socket.handshake.auth.token === 'secret' ? undefined : new Error('not authorized')));
io.of('/admin').on('connection', (socket) => { socket.emit('welcome', socket.id); serve(socket); });
http.listen(0, '127.0.0.1', () => console.log(`open http://127.0.0.1:${http.address().port}/`));
