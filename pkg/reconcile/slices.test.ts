import { expect, it } from 'vitest';
import { atOnce, type Parts } from './parts.ts';
import { inSlices, partsInSlices } from './slices.ts';

function* count(to: number, onPart: () => void = () => undefined): Parts<number> {
  for (let i = 0; i < to; i++) {
    onPart();
    yield;
  }
  return to;
}

it('partsInSlices() lets others have a turn each 10 ms, and returns the result', async () => {
  let nowMs = 0;
  const turns: number[] = [];
  const others = {
    now: () => nowMs,
    breathe: async () => {
      turns.push(nowMs);
      // Theirs takes long, and counts for nothing.
      nowMs += 1_000;
    },
  };
  const result = await partsInSlices(
    count(10, () => (nowMs += 3)),
    others,
  );
  expect(result).toBe(10);
  expect(turns).toEqual([12, 1_024]);
  expect(atOnce(count(7))).toBe(7);
});

it('partsInSlices() rejects with what the work throws', async () => {
  const broken = count(3, () => {
    throw new Error('broken');
  });
  await expect(partsInSlices(broken)).rejects.toThrow('broken');
});

it('inSlices() takes all, while timers go on', async () => {
  let ticks = 0;
  const timer = setInterval(() => (ticks += 1), 1);
  const taken: number[] = [];
  await inSlices([1, 2, 3], (item) => {
    for (const until = performance.now() + 15; performance.now() < until;);
    taken.push(item);
  });
  clearInterval(timer);
  expect(taken).toEqual([1, 2, 3]);
  expect(ticks).toBeGreaterThanOrEqual(2);
});
