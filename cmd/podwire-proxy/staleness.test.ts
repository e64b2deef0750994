import { expect, it } from 'vitest';
import { createStats } from '#pkg/kube/list-watch-stats.ts';
import { staleness } from './staleness.ts';

it('names the watches that are down for longer than is tolerated', () => {
  const down = (failingSinceMs: number): { readonly stats: ReturnType<typeof createStats> } => ({
    stats: { ...createStats(), failingSinceMs, lastError: 'ECONNREFUSED' },
  });
  const watches = { services: down(1_000), nodes: down(40_001), endpointslices: down(0) };
  expect(staleness(watches, { nowMs: 100_000, toleratedMs: 60_000 })).toEqual([
    'the watch of services is down since 1970-01-01T00:00:01.000Z: ECONNREFUSED',
  ]);
});
