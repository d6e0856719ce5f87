// Talks to the example by socket.io's own client.
//
//	node socketio.mjs URL websocket|polling|default [restart|deflate]
import { io } from 'socket.io-client';
import { assert, check, once, within } from './check.mjs';

const [url, transport, mode] = process.argv.slice(2);
const options = {
  forceNew: true,
  reconnectionDelay: 100,
  reconnectionDelayMax: 500,
  ...(transport === 'default' ? {} : { transports: [transport] }),
};
const final = transport === 'default' ? 'websocket' : transport;

async function connect(namespace = '', more = {}) {
  const socket = io(url + namespace, { ...options, ...more });
  await once(socket, 'connect');
  return socket;
}

// settled waits until the client has the transport that it ends with.
async function settled(socket) {
  if (socket.io.engine.transport.name !== final) await once(socket.io.engine, 'upgrade');
  assert.equal(socket.io.engine.transport.name, final);
}

const ask = (socket, ...args) => within(socket.emitWithAck(...args), args[0]);

async function everything() {
  await check('connect, and the transport it ends with', async () => {
    const socket = await connect();
    assert.ok(socket.id);
    await settled(socket);
    if (mode === 'deflate') assert.match(socket.io.engine.transport.ws.extensions, /permessage-deflate/);
    socket.close();
  });

  await check('an event and its echo', async () => {
    const socket = await connect();
    const echo = once(socket, 'echo');
    socket.emit('echo', 'один', 2, { three: [null, true] }, []);
    assert.deepEqual(await echo, ['один', 2, { three: [null, true] }, []]);
    socket.close();
  });

  await check('answers, many at once', async () => {
    const socket = await connect();
    const answers = await Promise.all([...Array(100).keys()].map((i) => ask(socket, 'echo', i)));
    assert.deepEqual(answers, [...Array(100).keys()]);
    socket.close();
  });

  await check('the server asks', async () => {
    const socket = await connect();
    socket.on('question', (text, answer) => answer(`${text}? yes`));
    const answered = once(socket, 'answered');
    socket.emit('ask', 'really');
    assert.deepEqual(await answered, ['really? yes', true]);
    socket.close();
  });

  await check('binary, nested and beside others', async () => {
    const socket = await connect();
    const a = Buffer.from([0, 1, 254, 255]);
    const b = new Uint8Array(70_000).fill(7);
    const echo = once(socket, 'echo');
    socket.emit('echo', a, { deep: [b, 'text'] }, Buffer.alloc(0));
    const [x, { deep: [y, text] }, z] = await echo;
    assert.ok(a.equals(Buffer.from(x)) && Buffer.from(b).equals(Buffer.from(y)) && Buffer.from(z).length === 0);
    assert.equal(text, 'text');
    assert.ok(a.equals(Buffer.from(await ask(socket, 'echo', a))));
    socket.close();
  });

  await check('as large as maxPayload lets it be', async () => {
    const socket = await connect();
    const large = 'é漢😀'.repeat(70_000); // 630 kB
    assert.equal(await ask(socket, 'echo', large), large);
    socket.close();
  });

  await check('rooms', async () => {
    const [one, two, three] = await Promise.all([connect(), connect(), connect()]);
    const room = `room ${one.id}`;
    assert.equal(await ask(one, 'join', room), 'ok');
    assert.equal(await ask(two, 'join', room), 'ok');
    const heard = [];
    one.on('told', (...args) => heard.push(['one', ...args]));
    three.on('told', (...args) => heard.push(['three', ...args]));
    const told = once(two, 'told');
    one.emit('tell', room, 'hello', Buffer.from('bytes'));
    const [text, bytes] = await told;
    assert.deepEqual([text, Buffer.from(bytes).toString()], ['hello', 'bytes']);
    await ask(two, 'leave', room);
    two.on('told', () => heard.push(['two']));
    one.emit('tell', room, 'nobody');
    await Promise.all([one, two, three].map((s) => ask(s, 'echo')));
    assert.deepEqual(heard, []);
    [one, two, three].forEach((s) => s.close());
  });

  await check('namespaces, and who may not enter', async () => {
    const admin = await connect('/admin', { auth: { token: 'secret' } });
    assert.equal(await ask(admin, 'echo', 'inside'), 'inside');
    const refused = io(url + '/admin', { ...options, auth: { token: 'wrong' } });
    const [error] = await once(refused, 'connect_error');
    assert.equal(error.message, 'not authorized');
    const nowhere = io(url + '/nowhere', options);
    assert.equal((await once(nowhere, 'connect_error'))[0].message, 'Invalid namespace');
    [admin, refused, nowhere].forEach((s) => s.close());
  });

  await check('two namespaces on one session', async () => {
    const one = io(url, { ...options, forceNew: false, multiplex: true, auth: { token: 'secret' } });
    const two = io(url + '/admin', { ...options, forceNew: false, multiplex: true, auth: { token: 'secret' } });
    await Promise.all([once(one, 'connect'), once(two, 'connect')]);
    assert.equal(one.io, two.io);
    assert.notEqual(one.id, two.id);
    assert.deepEqual(await Promise.all([ask(one, 'echo', 1), ask(two, 'echo', 2)]), [1, 2]);
    one.disconnect();
    assert.equal(await ask(two, 'echo', 3), 3);
    two.disconnect();
  });

  await check('the server sends it away: alone, and with its session', async () => {
    for (const all of [false, true]) {
      const socket = await connect();
      const end = once(socket, 'disconnect');
      socket.emit('leave me', all);
      assert.equal((await end)[0], 'io server disconnect');
      socket.close();
    }
  });

  await check('it goes, and comes back', async () => {
    const socket = await connect();
    const end = once(socket, 'disconnect');
    socket.disconnect();
    assert.equal((await end)[0], 'io client disconnect');
    const again = once(socket, 'connect');
    socket.connect();
    await again;
    assert.equal(await ask(socket, 'echo', 'again'), 'again');
    socket.close();
  });

  await check('volatile, and what was said before it was connected', async () => {
    const socket = io(url, options);
    const echo = once(socket, 'echo');
    socket.volatile.emit('echo', 'lost');
    socket.emit('echo', 'kept');
    assert.deepEqual(await echo, ['kept']);
    socket.close();
  });

  await check('150 clients that send while they upgrade', async () => {
    await Promise.all([...Array(150).keys()].map(async (c) => {
      const socket = io(url, options);
      const wanted = 60;
      const got = [];
      const done = new Promise((resolve) => socket.on('echo', (i, bytes) => {
        got.push(bytes ? Buffer.from(bytes)[0] : i);
        if (got.length === wanted) resolve();
      }));
      await once(socket, 'connect');
      for (let i = 0; i < wanted; i++) {
        if (i % 7 === 3) socket.emit('echo', null, Buffer.from([i]));
        else socket.emit('echo', i);
        if (i % 5 === 0) await new Promise((r) => setTimeout(r, Math.random() * 10));
      }
      await within(done, `client ${c} got ${got.length} of ${wanted}`);
      assert.deepEqual(got, [...Array(wanted).keys()]);
      await settled(socket);
      socket.close();
    }));
  });
}

async function restart() {
  const socket = await connect();
  await settled(socket);
  const first = socket.id;
  await check('comes back after the server has gone', async () => {
    const end = once(socket, 'disconnect');
    console.log('ready');
    assert.match((await end)[0], /^transport (close|error)$/);
    await once(socket, 'connect');
    assert.notEqual(socket.id, first);
    assert.equal(await ask(socket, 'echo', 'back'), 'back');
    await settled(socket);
  });
  socket.close();
}

await (mode === 'restart' ? restart() : everything());
process.exit();
