// What the checks of both protocols need.
import assert from 'node:assert/strict';

export { assert };

const patience = 20_000;

// check runs one check, named, and ends the process with the first that fails.
export async function check(name, run) {
  try {
    await within(run(), name);
    console.log(`ok: ${name}`);
  } catch (e) {
    console.log(`FAIL: ${name}: ${e.stack ?? e}`);
    process.exit(1);
  }
}

export function within(promise, what, ms = patience) {
  let timer;
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error(`waited too long: ${what}`)), ms); });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// once resolves with the arguments of the next event.
export const once = (emitter, event) => within(new Promise((resolve) => emitter.once(event, (...args) => resolve(args))), event);

// A process that hangs is a failure.
setTimeout(() => { console.log('FAIL: it hangs'); process.exit(1); }, 100_000).unref();
