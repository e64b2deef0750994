import { expect, it } from 'vitest';
import { FakeClock } from '#pkg/clock/fake-clock.ts';
import { createStats } from '#pkg/kube/list-watch-stats.ts';
import { staleness } from './staleness.ts';

it('names the watches that are down for longer than is tolerated', () => {
  const down = (failingSinceMs: number): { readonly stats: ReturnType<typeof createStats> } => ({
    stats: { ...createStats(), failingSinceMs, lastError: 'ECONNREFUSED' },
  });
  const clock = new FakeClock(100_000);
  clock.set(Date.UTC(2026, 10, 30, 12));
  const watches = { services: down(1_000), nodes: down(40_001), endpointslices: down(0) };
  expect(staleness(watches, { clock, toleratedMs: 60_000 })).toEqual([
    'the watch of services is down since 2026-11-30T11:58:21.000Z: ECONNREFUSED',
  ]);
});
