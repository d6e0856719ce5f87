// Talks to the example by SignalR's own client.
//
//	node signalr.mjs URL json|messagepack negotiate|skip [restart]
import * as signalR from '@microsoft/signalr';
import { MessagePackHubProtocol } from '@microsoft/signalr-protocol-msgpack';
import { assert, check, within } from './check.mjs';

const [url, protocol, negotiation, mode] = process.argv.slice(2);

function build() {
  const skip = negotiation === 'skip';
  const builder = new signalR.HubConnectionBuilder()
    .withUrl(`${url}/hub`, skip ? { skipNegotiation: true, transport: signalR.HttpTransportType.WebSockets } : {})
    .withAutomaticReconnect(Array(50).fill(100))
    .configureLogging(signalR.LogLevel.None);
  if (protocol === 'messagepack') builder.withHubProtocol(new MessagePackHubProtocol());
  return builder.build();
}

async function connect() {
  const c = build();
  await within(c.start(), 'start');
  return c;
}

const next = (c, event) => within(new Promise((resolve) => {
  const f = (...args) => { c.off(event, f); resolve(args); };
  c.on(event, f);
}), event);

// all collects a stream from the server.
const all = (stream) => within(new Promise((resolve, reject) => {
  const items = [];
  stream.subscribe({ next: (i) => items.push(i), complete: () => resolve(items), error: reject });
}), 'stream');

async function everything() {
  await check('connect', async () => {
    const c = await connect();
    assert.equal(c.state, 'Connected');
    if (negotiation !== 'skip') assert.ok(c.connectionId);
    await c.stop();
    assert.equal(c.state, 'Disconnected');
  });

  await check('a call and its result', async () => {
    const c = await connect();
    for (const v of ['é漢😀', 1, -70_000, 1.5, 2 ** 40, true, [1, null, [2]], { a: { b: 'c' } }, 'x'.repeat(70_000)]) {
      assert.deepEqual(await c.invoke('Echo', v), v);
    }
    await c.stop();
  });

  await check('bytes', async () => {
    const c = await connect();
    const bytes = new Uint8Array([0, 1, 254, 255]);
    if (protocol === 'messagepack') assert.deepEqual(new Uint8Array(await c.invoke('Echo', bytes)), bytes);
    else assert.equal(await c.invoke('Echo', Buffer.from(bytes).toString('base64')), 'AAH+/w==');
    await c.stop();
  });

  await check('a call that fails, and one that there isn\'t', async () => {
    const c = await connect();
    await assert.rejects(c.invoke('Fail'), /it failed, as it was told to/);
    await assert.rejects(c.invoke('Nothing'), /no method "Nothing"/);
    assert.equal(await c.invoke('Echo', 'still here'), 'still here');
    await c.stop();
  });

  await check('the server calls', async () => {
    const c = await connect();
    const called = next(c, 'calledBack');
    await c.send('CallBack', 'a', 2, null);
    assert.deepEqual(await called, ['a', 2, null]);
    await c.stop();
  });

  await check('order of 500 calls', async () => {
    const c = await connect();
    const got = [];
    c.on('calledBack', (i) => got.push(i));
    for (let i = 0; i < 500; i++) c.send('CallBack', i);
    await c.invoke('Echo', 'behind them');
    while (got.length < 500) await next(c, 'calledBack');
    assert.deepEqual(got, [...Array(500).keys()]);
    await c.stop();
  });

  await check('to all, and to a group', async () => {
    const [one, two] = await Promise.all([connect(), connect()]);
    const text = `hello ${Math.random()}`;
    const said = new Promise((resolve) => two.on('said', (t) => t === text && resolve()));
    await one.invoke('Say', text);
    await within(said, 'said');
    assert.equal(await one.invoke('Join'), true);
    const heard = [];
    two.on('told', (t) => heard.push(t));
    const told = new Promise((resolve) => one.on('told', (t) => t === text && resolve()));
    await two.invoke('Tell', text);
    await within(told, 'told');
    await two.invoke('Echo');
    assert.ok(!heard.includes(text));
    assert.equal(await one.invoke('Leave'), true);
    await Promise.all([one.stop(), two.stop()]);
  });

  await check('a stream from the server', async () => {
    const c = await connect();
    assert.deepEqual(await all(c.stream('Count', 100, 0)), [...Array(100).keys()]);
    assert.deepEqual(await all(c.stream('Count', 0, 0)), []);
    await assert.rejects(all(c.stream('Fail')), /it failed/);
    await assert.rejects(c.invoke('Count', 3, 0), /is to be streamed/);
    await c.stop();
  });

  await check('a stream that is cancelled', async () => {
    const c = await connect();
    let items = 0;
    await within(new Promise((resolve) => {
      const subscription = c.stream('Count', 1e9, 1).subscribe({
        next: () => { if (++items === 3) { subscription.dispose(); resolve(); } },
        complete: () => {}, error: () => {},
      });
    }), 'three items');
    const seen = items;
    for (let i = 0; i < 20; i++) await c.invoke('Echo', i);
    assert.equal(items, seen);
    await c.stop();
  });

  await check('a stream to the server', async () => {
    const c = await connect();
    const subject = new signalR.Subject();
    const sum = c.invoke('Sum', subject);
    for (let i = 1; i <= 100; i++) subject.next(i);
    assert.equal(await c.invoke('Echo', 'meanwhile'), 'meanwhile');
    subject.complete();
    assert.equal(await within(sum, 'sum'), 5050);
    const broken = new signalR.Subject();
    const failed = c.invoke('Sum', broken);
    broken.next(1);
    broken.error(new Error('lost it'));
    await assert.rejects(within(failed, 'failed'), /lost it/);
    await c.stop();
  });

  await check('many streams at once', async () => {
    const c = await connect();
    const streams = await Promise.all([...Array(20).keys()].map((i) => all(c.stream('Count', i, 1))));
    assert.deepEqual(streams.map((s) => s.length), [...Array(20).keys()]);
    await c.stop();
  });

  await check('150 clients that call as soon as they can', async () => {
    await Promise.all([...Array(150).keys()].map(async (n) => {
      const c = await connect();
      const got = await Promise.all([...Array(20).keys()].map((i) => c.invoke('Echo', `${n} ${i}`)));
      assert.deepEqual(got, [...Array(20).keys()].map((i) => `${n} ${i}`));
      await c.stop();
    }));
  });
}

async function restart() {
  const c = await connect();
  await check('comes back after the server has gone', async () => {
    const lost = within(new Promise((resolve) => c.onreconnecting(resolve)), 'reconnecting');
    const back = within(new Promise((resolve) => c.onreconnected(resolve)), 'reconnected');
    console.log('ready');
    await lost;
    await back;
    assert.equal(await c.invoke('Echo', 'back'), 'back');
  });
  await c.stop();
}

await (mode === 'restart' ? restart() : everything());
process.exit();
