import { once } from 'node:events';
import { PassThrough } from 'node:stream';
import { setImmediate } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { readInTurns } from './read-in-turns.ts';

it('lets others have a turn after some chunks that take long, and loses none', async () => {
  const stream = new PassThrough({ highWaterMark: 1_000_000 });
  for (let n = 0; n < 100; n++) stream.write(Buffer.of(n));
  stream.end();
  let nowMs = 0;
  const seen: string[] = [];
  readInTurns(
    stream,
    ([n]) => {
      nowMs += 2.5;
      seen.push(String(n));
    },
    () => nowMs,
  );
  const ended = once(stream, 'end');
  let isOver = false;
  const others = (async () => {
    while (!isOver) {
      await setImmediate();
      if (seen.at(-1) !== 'turn') seen.push('turn');
    }
  })();
  await ended;
  isOver = true;
  await others;

  expect(seen.filter((what) => what !== 'turn')).toEqual(
    Array.from({ length: 100 }, (_, n) => String(n)),
  );
  const turns = seen
    .join(' ')
    .split(' turn')
    .map((part) => part.trim().split(' ').length);
  expect(Math.max(...turns)).toBeLessThanOrEqual(4);
});

it('leaves a stream alone whose chunks take little', async () => {
  const stream = new PassThrough();
  let pauses = 0;
  stream.on('pause', () => (pauses += 1));
  readInTurns(
    stream,
    () => undefined,
    () => 0,
  );
  for (let n = 0; n < 100; n++) stream.write(Buffer.of(n));
  stream.end();
  await once(stream, 'end');
  expect(pauses).toBe(0);
});
