import { expect, it } from 'vitest';
import { createStats, downSinceMs } from './list-watch-stats.ts';

it.each([
  ['has not begun', {}, undefined],
  ['works', { openedAtMs: 90_000 }, undefined],
  ['fails', { failingSinceMs: 40_000 }, 40_000],
  ['has just been opened again', { failingSinceMs: 40_000, openedAtMs: 95_000 }, 40_000],
  ['has been open for a while, silent', { failingSinceMs: 40_000, openedAtMs: 90_000 }, undefined],
])('a watch that %s', (_, stats, expected) => {
  expect(downSinceMs({ ...createStats(), ...stats }, 100_000)).toBe(expected);
});
