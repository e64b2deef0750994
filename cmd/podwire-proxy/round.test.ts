import { describe, expect, it } from 'vitest';
import { FakeClock } from '#pkg/clock/fake-clock.ts';
import { createSyncTracker } from '#pkg/health/sync-tracker.ts';
import type { Family } from '#pkg/ip/address.ts';
import type { NodeRecord } from '#pkg/kube/types.ts';
import { silentLogger } from '#pkg/log/logger.ts';
import type { SyncReport } from '#pkg/metrics/proxy-metrics.ts';
import type { PortChange } from '#pkg/proxy/service-model.ts';
import { asChanges, nodeName, service, slice, type Cluster } from '#pkg/proxy/testdata/records.ts';
import type { FamilyWriter } from './proxy-mode.ts';
import { createRound } from './round.ts';

const signal = new AbortController().signal;
const nothing = { services: [], slices: [] };
const pods = (...addresses: string[]): Cluster => ({
  services: [],
  slices: [slice('ns/a', addresses)],
});

/** A round whose API, kernel and hooks are at hand. */
class Bench {
  readonly #clock = new FakeClock(1_000);
  readonly tracker = createSyncTracker<Family>(['ip', 'ip6'], 60_000, this.#clock);
  readonly synced: SyncReport[] = [];
  /** What each writer was asked for: family, sorted keys or 'all'. */
  readonly asked: (readonly [Family, readonly string[] | 'all'])[] = [];
  /** What hooks were told. */
  readonly told: { readonly family: Family; readonly changes: readonly PortChange[] }[] = [];
  node: NodeRecord | undefined;
  fails: Family | undefined;
  news = nothing as ReturnType<typeof asChanges>;

  readonly #round = createRound({
    nodeName,
    feed: {
      take: () => {
        const { news } = this;
        this.news = nothing;
        return news;
      },
    },
    nodes: { get: () => this.node },
    mode: { writers: new Map([this.#writer('ip'), this.#writer('ip6')]) },
    afterWrite: [(family, changes) => void this.told.push({ family, changes })],
    tracker: this.tracker,
    metrics: { synced: (report) => void this.synced.push(report) },
    clock: this.#clock,
    log: silentLogger,
  });

  round(cluster?: Cluster): Promise<'idle' | void> {
    if (cluster !== undefined) this.news = asChanges(cluster);
    return this.#round(signal);
  }

  #writer(family: Family): [Family, FamilyWriter] {
    const write: FamilyWriter['write'] = async ({ changed }) => {
      this.asked.push([family, changed === 'all' ? 'all' : [...changed].toSorted()]);
      if (this.fails === family) throw new Error('kernel fails');
      return { kind: 'partial', written: changed === 'all' ? 1 : changed.size };
    };
    return [family, { write, doubt: () => undefined }];
  }
}

/** "old -> new" of each change, as endpoints. */
function story(changes: readonly PortChange[]): string[] {
  const text = (port: PortChange['old']): string =>
    port === undefined ? '-' : port.endpoints.cluster.map((e) => e.address).join('+');
  return changes.map((change) => `${text(change.old)} > ${text(change.new)}`);
}

const first: Cluster = {
  ...pods('10.0.0.1'),
  services: [service('ns/a', { clusterIPs: ['10.96.0.1'] })],
};

describe('a round', () => {
  it('asks for everything until a family was written once, then for what changed', async () => {
    const bench = new Bench();
    bench.fails = 'ip';
    await expect(bench.round(first)).rejects.toThrow('Cannot write all rules');
    expect(bench.tracker.status().get('ip6')).toMatchObject({ healthy: true });
    expect(bench.tracker.status().get('ip')).toMatchObject({ healthy: false });
    bench.fails = undefined;
    await bench.round();
    await bench.round(pods('10.0.0.2'));
    await bench.round();
    expect(bench.asked.filter(([family]) => family === 'ip').map(([, keys]) => keys)).toEqual([
      'all',
      'all',
      ['ns/a:p80/tcp'],
      [],
    ]);
    expect(bench.asked.filter(([family]) => family === 'ip6').map(([, keys]) => keys)).toEqual([
      'all',
      [],
      [],
      [],
    ]);
  });

  it('is idle when no writer had anything to do', async () => {
    const bench = new Bench();
    expect(await bench.round(first)).toBeUndefined();
    expect(await bench.round()).toBe('idle');
    expect(await bench.round(pods('10.0.0.2'))).toBeUndefined();
  });

  it('tells hooks of all that happened since the last success, in order', async () => {
    const bench = new Bench();
    await bench.round(first);
    bench.told.length = 0;
    bench.fails = 'ip';
    await bench.round(pods('10.0.0.2')).catch(() => undefined);
    await bench.round(pods('10.0.0.3')).catch(() => undefined);
    expect(bench.told.map(({ family }) => family)).toEqual(['ip6', 'ip6']);
    bench.fails = undefined;
    bench.asked.length = 0;
    await bench.round(pods('10.0.0.1'));
    expect(bench.asked[0]).toEqual(['ip', ['ns/a:p80/tcp']]);
    const told = bench.told.filter(({ family }) => family === 'ip');
    expect(told.map(({ changes }) => story(changes))).toEqual([
      ['10.0.0.1 > 10.0.0.2', '10.0.0.2 > 10.0.0.3', '10.0.0.3 > 10.0.0.1'],
    ]);
    await bench.round();
    expect(bench.told.at(-2)).toEqual({ family: 'ip', changes: [] });
  });

  it('does not remember each of many changes of one port, while the kernel fails', async () => {
    const bench = new Bench();
    await bench.round(first);
    bench.told.length = 0;
    bench.fails = 'ip';
    for (let i = 0; i < 1_000; i++) {
      await bench.round(pods(`10.0.1.${i % 250}`)).catch(() => undefined);
    }
    bench.fails = undefined;
    await bench.round(pods('10.0.0.9'));
    const [{ changes } = { changes: [] }] = bench.told.filter(({ family }) => family === 'ip');
    expect(changes.length).toBeLessThan(20);
    // All that may have been served counts as gone, and what is now as new.
    expect(story(changes)).toContain('10.0.0.1 > -');
    expect(story(changes).at(-1)).toMatch(/ > 10\.0\.0\.9$/);
    // Each begins where the one before it ended.
    for (const [i, { old }] of changes.entries()) if (i > 0) expect(old).toBe(changes[i - 1]?.new);
  });

  it('counts what is dropped here for want of a local endpoint, as it comes and goes', async () => {
    const bench = new Bench();
    const local = service('ns/a', { clusterIPs: ['10.96.0.1'], internalTrafficPolicy: 'Local' });
    const counts = async (cluster: Cluster): Promise<unknown> => {
      await bench.round(cluster);
      return bench.synced.at(-2)?.noLocalEndpoints;
    };
    expect(await counts({ services: [local], slices: [slice('ns/a', ['10.0.0.1'])] })).toEqual({
      internal: 1,
      external: 0,
    });
    const here = slice('ns/a', [{ address: '10.0.0.1', nodeName }]);
    expect(await counts({ services: [], slices: [here] })).toMatchObject({ internal: 0 });
    expect(await counts(pods('10.0.0.1'))).toMatchObject({ internal: 1 });
    bench.news = { services: [{ key: 'ns/a', new: undefined }], slices: [] };
    await bench.round();
    expect(bench.synced.at(-2)?.noLocalEndpoints).toEqual({ internal: 0, external: 0 });
  });
});
