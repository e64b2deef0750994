/** What the proxy serves now and what clients did with it: for `podwire status` and /metrics. */
import type { Traffic } from '#pkg/conntrack/flow-tally.ts';
import type { SyncTracker } from '#pkg/health/sync-tracker.ts';
import type { Family } from '#pkg/ip/address.ts';
import { frontendKeys } from '#pkg/proxy/nftables-elements.ts';
import { byName, type ProxiedPort } from '#pkg/proxy/proxied-port.ts';
import { inSlices } from '#pkg/reconcile/slices.ts';
import type { FrontendCounts, ProxyMode } from './proxy-mode.ts';
import type { AfterWrite } from './round.ts';
import { serviceMetricsText } from './service-metrics.ts';

export interface ProxyStatus {
  readonly mode: string;
  readonly node: string;
  readonly version: string;
  readonly families: readonly FamilyStatus[];
  /** Those that were asked for. */
  readonly services: readonly ServiceStatus[];
  /** How many more there are than were told. */
  readonly omitted: number;
}

export interface FamilyStatus {
  readonly family: Family;
  readonly healthy: boolean;
  /** ISO 8601; null = never. */
  readonly lastWritten: string | null;
  readonly ports: number;
  readonly endpoints: number;
  /** Ports that nobody serves. */
  readonly withoutEndpoints: number;
}

/** One port of a Service in one family. */
export interface ServiceStatus {
  readonly family: Family;
  readonly namespace: string;
  readonly name: string;
  readonly port: string;
  readonly protocol: string;
  readonly address: string;
  readonly endpoints: readonly EndpointStatus[];
  /** Since its elements were written; null = not counted. */
  readonly counts: FrontendCounts | null;
  /** Of all connections since the proxy started, and those it found; null = not counted. */
  readonly traffic: Traffic | null;
}

export interface EndpointStatus {
  readonly target: string;
  /** Null = not counted, as with traffic. */
  readonly connections: number | null;
  readonly traffic: Traffic | null;
}

export interface StatusQuery {
  /** "namespace", "namespace/name"; '' = all; undefined = none. */
  readonly services: string | undefined;
  readonly limit: number;
}

export interface ServiceStatusSource {
  readonly afterWrite: AfterWrite;
  status(query: StatusQuery): Promise<ProxyStatus>;
  /** Prometheus text of the Services with most connections, at most so many ports. */
  metrics(limit: number): Promise<string>;
}

export function createServiceStatus(parts: {
  readonly mode: Pick<ProxyMode, 'name' | 'counters' | 'traffic' | 'writers'>;
  readonly node: string;
  readonly version: string;
  readonly tracker: Pick<SyncTracker<Family>, 'status'>;
}): ServiceStatusSource {
  const { mode, node, tracker, version } = parts;
  const ports = new Map<Family, Map<string, ProxiedPort>>(
    [...mode.writers.keys()].map((family) => [family, new Map()]),
  );

  function familyStatus(family: Family): FamilyStatus {
    const state = tracker.status().get(family);
    const lastMs = state?.lastUpdatedMs ?? 0;
    let endpoints = 0;
    let withoutEndpoints = 0;
    for (const port of ports.get(family)?.values() ?? []) {
      endpoints += port.endpoints.all.length;
      if (!port.endpoints.hasAny) withoutEndpoints += 1;
    }
    return {
      family,
      healthy: state?.healthy ?? false,
      lastWritten: lastMs === 0 ? null : new Date(lastMs).toISOString(),
      ports: ports.get(family)?.size ?? 0,
      endpoints,
      withoutEndpoints,
    };
  }

  async function serviceStatus(
    family: Family,
    chosen: readonly ProxiedPort[],
  ): Promise<ServiceStatus[]> {
    const { counters, traffic } = mode;
    if (chosen.length === 0) return [];
    const byFrontend = await counters?.services(family);
    const byEndpoint = await counters?.endpoints(family);
    const told: ServiceStatus[] = [];
    await inSlices(chosen, (port) => {
      const keys = frontendKeys(port);
      told.push({
        family,
        namespace: port.namespace,
        name: port.name,
        port: port.portName === '' ? String(port.port) : `${port.portName}:${port.port}`,
        protocol: port.protocol,
        address: port.clusterIP,
        endpoints: port.endpoints.reachable.map(({ address, port: number, target }) => {
          const endpoint = `${address} ${number}`;
          return {
            target,
            connections:
              byEndpoint === undefined || byEndpoint.size === 0
                ? null
                : sum(keys.map((key) => byEndpoint.get(key)?.get(endpoint) ?? 0)),
            traffic:
              traffic === undefined
                ? null
                : carried(keys.map((key) => traffic.endpoint(family, key, endpoint))),
          };
        }),
        counts:
          byFrontend === undefined ? null : total(keys.flatMap((key) => byFrontend.get(key) ?? [])),
        traffic:
          traffic === undefined ? null : carried(keys.map((key) => traffic.total(family, key))),
      });
    });
    return told;
  }

  return {
    afterWrite: (family, changes) => {
      mode.traffic?.update(family, changes);
      const known = ports.get(family);
      for (const { key, new: port } of changes) {
        if (port === undefined) known?.delete(key);
        else known?.set(key, port);
      }
    },
    status: async ({ limit, services: wanted }) => {
      const services: ServiceStatus[] = [];
      let omitted = 0;
      if (wanted !== undefined) await mode.traffic?.look();
      for (const [family, all] of ports) {
        if (wanted === undefined) break;
        const [namespace, name] = wanted.split('/');
        const chosen = [...all.values()].filter(
          (port) =>
            (wanted === '' || port.namespace === namespace) &&
            (name === undefined || port.name === name),
        );
        const room = Math.max(0, limit - services.length);
        omitted += Math.max(0, chosen.length - room);
        services.push(...(await serviceStatus(family, chosen.toSorted(byName).slice(0, room))));
      }
      const families = [...ports.keys()].map(familyStatus);
      return { mode: mode.name, node, version, families, services, omitted };
    },
    metrics: async (limit) => {
      if (limit === 0 || (mode.counters ?? mode.traffic) === undefined) return '';
      await mode.traffic?.look();
      const all: ServiceStatus[] = [];
      for (const [family, known] of ports) {
        all.push(...(await serviceStatus(family, [...known.values()])));
      }
      return serviceMetricsText(all, { limit, overflows: mode.traffic?.overflows });
    },
  };
}

function total(counts: readonly FrontendCounts[]): FrontendCounts {
  const of = (what: 'refused' | 'dropped' | 'barred') => ({
    packets: sum(counts.map((count) => count[what].packets)),
    bytes: sum(counts.map((count) => count[what].bytes)),
  });
  return {
    connections: sum(counts.map(({ connections }) => connections)),
    refused: of('refused'),
    dropped: of('dropped'),
    barred: of('barred'),
  };
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((all, n) => all + n, 0);
}

function carried(parts: readonly (Traffic | undefined)[]): Traffic {
  const of = (way: 'in' | 'out') => ({
    packets: sum(parts.map((part) => part?.[way].packets ?? 0)),
    bytes: sum(parts.map((part) => part?.[way].bytes ?? 0)),
  });
  return { in: of('in'), out: of('out') };
}
