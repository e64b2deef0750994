import { isErrno } from '#pkg/errors/agent-error.ts';
import { expect, test } from 'vitest';
import { nodeType } from './resources.ts';
import { startRig } from './testing/list-watch-rig.ts';
import { until } from './testing/until.ts';

const never = new AbortController().signal;
const ref = { type: nodeType, name: 'a' };

test('a single request that gets no answer fails after 30 s', async () => {
  await using rig = await startRig();
  await rig.refuseWatchList();
  await rig.list('10');
  await rig.watch();
  const error = rig.client.get(ref, never).catch((thrown: unknown) => thrown);
  const exchange = await rig.server.next();
  await rig.clock.advance(29_999);
  expect(exchange.closed).toBe(false);
  await rig.clock.advance(1);
  expect(isErrno(await error, 'Overdue')).toBe(true);
  await until('the server sees it', () => exchange.closed);
  expect(rig.delays).toEqual([]);
});

test('an answer that is no object is an error that names the request', async () => {
  await using rig = await startRig();
  await rig.refuseWatchList();
  await rig.list('10');
  await rig.watch();
  for (const answer of ['"text"', '', 'not JSON']) {
    const error = rig.client.get(ref, never).catch((thrown: unknown) => thrown);
    const exchange = await rig.server.next();
    exchange.open();
    exchange.raw(answer);
    exchange.end();
    expect(await error).toMatchObject({ code: 'UnexpectedAnswer' });
    expect(String(await error)).toContain('GET /api/v1/nodes/a');
  }
});

test('closing the client stops its list+watches, and waits until nothing of them is left', async () => {
  const rig = await startRig();
  await rig.refuseWatchList();
  await rig.list('10', 'a=1');
  const watch = await rig.watch();
  let done = false;
  void rig.listWatch.done.then(() => (done = true));
  await rig.client[Symbol.asyncDispose]();
  expect(done).toBe(true);
  await until('the server sees it', () => watch.closed);
  expect(rig.clock.sleeping).toBe(0);
  expect(rig.delays).toEqual([]);
  await rig[Symbol.asyncDispose]();
});
