import { describe, expect, it } from 'vitest';
import { FakeClock } from '#pkg/clock/fake-clock.ts';
import { createSyncTracker } from '#pkg/health/sync-tracker.ts';
import type { Family } from '#pkg/ip/address.ts';
import { createStore } from '#pkg/kube/store.ts';
import type { EndpointSliceRecord, ServiceRecord } from '#pkg/kube/types.ts';
import { trackChanges } from './change-tracking.ts';

const startMs = Date.parse('2026-01-01T00:00:00Z');

function slice(
  name: string,
  resourceVersion: string,
  triggerTime: string,
  addressType: EndpointSliceRecord['addressType'] = 'IPv4',
): EndpointSliceRecord {
  const meta = { namespace: 'ns', name, uid: name, resourceVersion };
  return { ...meta, serviceName: 'svc', addressType, ports: [], endpoints: [], triggerTime };
}

function rig(): {
  readonly tracker: ReturnType<typeof trackChanges>;
  readonly clock: FakeClock;
  readonly put: (...records: EndpointSliceRecord[]) => Promise<void>;
  readonly remove: (name: string) => Promise<void>;
  readonly putService: (name: string) => Promise<void>;
  readonly told: string[];
} {
  const clock = new FakeClock(startMs);
  const services = createStore<ServiceRecord>();
  const slices = createStore<EndpointSliceRecord>();
  const told: string[] = [];
  const tracker = trackChanges({
    services,
    slices,
    tracker: createSyncTracker<Family>(['ip', 'ip6'], 60_000, clock),
    metrics: {
      changed: (kind, { pending, seen }) => told.push(`${kind} +${seen} ${pending}`),
      programmed: (family, ms) => told.push(`${family} ${ms} ms`),
    },
    clock,
  });
  return {
    tracker,
    clock,
    put: async (...records) => {
      for (const record of records) slices.put(record);
      await clock.advance(0);
    },
    remove: async (name) => {
      slices.remove(`ns/${name}`);
      await clock.advance(0);
    },
    putService: async (name) => {
      services.put({ namespace: 'ns', name, uid: name, resourceVersion: '1' } as ServiceRecord);
      await clock.advance(0);
    },
    told,
  };
}

const at = (seconds: number): string => new Date(startMs + seconds * 1000).toISOString();

describe('a tracker of changes', () => {
  it('measures from the cause to the write, for the family that was written', async () => {
    const { clock, put, told, tracker } = rig();
    await clock.advance(10_000);
    await put(slice('a', '1', at(7)), slice('b', '1', at(8), 'IPv6'));
    tracker.roundStarted();
    await clock.advance(500);
    tracker.written('ip');
    tracker.written('ip6');
    tracker.roundStarted();
    tracker.written('ip');
    expect(told.filter((line) => line.endsWith('ms'))).toEqual(['ip 3500 ms', 'ip6 2500 ms']);
  });

  it('keeps what a failed round took up, and measures it when it is written at last', async () => {
    const { clock, put, told, tracker } = rig();
    await put(slice('a', '1', at(1)));
    await clock.advance(2_000);
    tracker.roundStarted();
    tracker.failed('ip');
    await put(slice('a', '2', at(3)));
    await clock.advance(2_000);
    tracker.roundStarted();
    tracker.written('ip');
    expect(told.filter((line) => line.endsWith('ms'))).toEqual(['ip 3000 ms', 'ip 1000 ms']);
  });

  it('takes up what came until the round starts, and leaves what comes later', async () => {
    const { clock, put, told, tracker } = rig();
    await clock.advance(5_000);
    tracker.roundStarted();
    await put(slice('late', '1', at(1)));
    tracker.written('ip');
    expect(told.filter((line) => line.endsWith('ms'))).toEqual([]);
    tracker.roundStarted();
    tracker.written('ip');
    expect(told.filter((line) => line.endsWith('ms'))).toEqual(['ip 4000 ms']);
  });

  it.each([
    ['no time', ''],
    ['nonsense', 'yesterday'],
    ['a time before this proxy started', at(-1)],
  ])('ignores %s', async (_, time) => {
    const { put, told, tracker } = rig();
    await put(slice('a', '1', time));
    tracker.roundStarted();
    tracker.written('ip');
    expect(told.filter((line) => line.endsWith('ms'))).toEqual([]);
  });

  it('ignores slices that are gone', async () => {
    const { put, remove, told, tracker } = rig();
    await put(slice('a', '1', ''));
    await remove('a');
    tracker.roundStarted();
    tracker.written('ip');
    expect(told.filter((line) => line.endsWith('ms'))).toEqual([]);
  });

  it('counts changes, and those that wait', async () => {
    const { put, putService, told, tracker } = rig();
    await put(slice('a', '1', ''), slice('b', '1', ''));
    await put(slice('a', '2', ''));
    await putService('s');
    tracker.roundStarted();
    expect(told).toEqual([
      'endpoint +2 2',
      'endpoint +1 2',
      'service +1 1',
      'service +0 0',
      'endpoint +0 0',
    ]);
  });
});
