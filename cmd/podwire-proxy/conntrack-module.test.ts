import { expect, it } from 'vitest';
import { silentLogger } from '#pkg/log/logger.ts';
import { loadConntrack } from './conntrack-module.ts';

it.each([
  [false, 1],
  [true, 0],
])('connection tracking that is there (%s) is not asked for again', async (isLoaded, asked) => {
  let loads = 0;
  const load = async (): Promise<void> => void (loads += 1);
  await loadConntrack(silentLogger, { isLoaded: () => isLoaded, load });
  expect(loads).toBe(asked);
});

it('a kernel that has none is no failure', async () => {
  const told: string[] = [];
  const log = { ...silentLogger, debug: (_: object, line: string) => void told.push(line) };
  const load = async (): Promise<void> => {
    throw new Error('EINVAL');
  };
  await loadConntrack(log, { isLoaded: () => false, load });
  expect(told).toEqual(['Cannot load connection tracking']);
});
