/** Rounds of the proxy that write nothing, the cleaner that follows them, and what it cleans. */
import { FakeClock } from '#pkg/clock/fake-clock.ts';
import { removeFlows } from '#pkg/conntrack/apply.ts';
import type { FlowsRemoved } from '#pkg/conntrack/flow.ts';
import { FakeConntrack } from '#pkg/conntrack/testdata/fake-conntrack.ts';
import { createSyncTracker } from '#pkg/health/sync-tracker.ts';
import type { Family } from '#pkg/ip/address.ts';
import type { EndpointSliceRecord, ServiceRecord } from '#pkg/kube/types.ts';
import { silentLogger } from '#pkg/log/logger.ts';
import { asChanges, nodeName, service, slice, type Cluster } from '#pkg/proxy/testdata/records.ts';
import type { ServiceDestination } from '#pkg/proxy/flow-destinations.ts';
import { createConntrackCleaner } from '#cmd/podwire-proxy/conntrack-cleaner.ts';
import { createRound } from '#cmd/podwire-proxy/round.ts';

const nodeAddresses = { ip: ['192.168.0.2', '127.0.0.1'], ip6: ['fd00:192::2'] };

export class CleanerBench {
  readonly clock = new FakeClock(1_000);
  readonly kernel: FakeConntrack;
  readonly cleaned: { readonly family: Family; readonly removed: FlowsRemoved }[] = [];
  readonly warnings: string[] = [];
  fails: Family | undefined;
  /** The next writes find rules that are not as they were left. */
  repairs = false;
  /** What the first write finds of Services that are gone. */
  abandoned: readonly ServiceDestination[] = [];
  /** Called before each search. */
  onSearch: () => void | Promise<void> = () => undefined;
  #news = asChanges({ services: [], slices: [] });
  readonly #stop = new AbortController();

  readonly #cleaner = createConntrackCleaner({
    nodePortAddresses: (family) => nodeAddresses[family],
    remove: async (search, signal) => {
      await this.onSearch();
      return await removeFlows(this.kernel, search, signal);
    },
    onCleaned: (family, _, removed) => void this.cleaned.push({ family, removed }),
    clock: this.clock,
    log: { ...silentLogger, warn: (_, message) => void this.warnings.push(message) },
  });
  readonly #round = createRound({
    nodeName,
    feed: {
      take: () => {
        const news = this.#news;
        this.#news = { services: [], slices: [] };
        return news;
      },
    },
    nodes: { get: () => undefined },
    mode: {
      writers: new Map(
        (['ip', 'ip6'] as const).map((family) => [
          family,
          {
            write: async ({ changed }) => {
              if (this.fails === family) throw new Error('kernel fails');
              if (changed === 'all' || this.repairs) {
                return { kind: 'full', written: 1, abandoned: this.abandoned };
              }
              return { kind: 'partial', written: changed.size };
            },
            doubt: () => undefined,
          },
        ]),
      ),
    },
    afterWrite: [this.#cleaner.afterWrite],
    tracker: createSyncTracker<Family>(['ip', 'ip6'], 60_000, this.clock),
    metrics: { synced: () => undefined },
    clock: this.clock,
    log: silentLogger,
  });
  readonly #done = this.#cleaner.run(this.#stop.signal);

  constructor(entries: readonly string[]) {
    this.kernel = new FakeConntrack(entries);
  }

  /** The API says this anew: `undefined` is a deleted object. */
  async round(
    cluster: Cluster,
    gone: { services?: string[]; slices?: string[] } = {},
  ): Promise<void> {
    const news = asChanges(cluster);
    const deleted = (keys: string[] = []): { key: string; new: undefined }[] =>
      keys.map((key) => ({ key, new: undefined }));
    this.#news = {
      services: [...news.services, ...deleted(gone.services)],
      slices: [...news.slices, ...deleted(gone.slices)],
    };
    await this.#round(this.#stop.signal).catch((error: unknown) => {
      if (this.fails === undefined) throw error;
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#done;
  }
}

export const udp = (nodePort = 0): ServiceRecord['ports'] => [
  { name: 'u', protocol: 'UDP', port: 53, nodePort },
];
export const svc = (
  name: string,
  clusterIPs: string[],
  fields: Partial<ServiceRecord> = {},
): ServiceRecord => service(`ns/${name}`, { clusterIPs, ports: udp(), ...fields });
export const pods = (name: string, endpoints: Parameters<typeof slice>[1]): EndpointSliceRecord =>
  slice(`ns/${name}`, endpoints, { ports: [{ name: 'u', protocol: 'UDP', port: 5353 }] });

