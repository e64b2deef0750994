/** kube-proxy's /healthz and /livez (KEP-3458, KEP-3836): load balancers and kubelets read them. */
import type { Clock } from '#pkg/clock/clock.ts';
import type { Family } from '#pkg/ip/address.ts';
import type { Answer, Routes } from './http-server.ts';
import type { PartStatus } from './sync-tracker.ts';

export interface ProxyHealthSource {
  readonly status: () => ReadonlyMap<Family, PartStatus>;
  /** False while load balancers should send nothing new to this node. */
  readonly nodeEligible: () => boolean;
  /** Why what is written may not be what the cluster wants, in words: watches that are down. */
  readonly staleness?: () => readonly string[];
  readonly clock: Clock;
  /** Told of each answer, for metrics. */
  readonly onAnswer: (endpoint: 'healthz' | 'livez', status: 200 | 503) => void;
}

/**
 * /healthz also asks whether the node may get traffic, whether anything was written yet and whether
 * changes are still heard of; /livez, for the kubelet's restarts, does not: a node about to go, or
 * an API server that does not answer, is no reason to restart the node's proxy.
 */
export function proxyHealthRoutes(source: ProxyHealthSource): Routes {
  return new Map([
    ['/healthz', () => answer(source, 'healthz')],
    ['/livez', () => answer(source, 'livez')],
  ]);
}

function answer(source: ProxyHealthSource, endpoint: 'healthz' | 'livez'): Answer {
  const parts = source.status();
  const nodeEligible = source.nodeEligible();
  const isWell = (part: PartStatus): boolean => (endpoint === 'livez' ? part.alive : part.healthy);
  const written = [...parts.values()].every(isWell);
  const stale = endpoint === 'livez' ? [] : (source.staleness?.() ?? []);
  const healthy = written && stale.length === 0 && (endpoint === 'livez' || nodeEligible);
  const nowMs = source.clock.now();
  const ineligible =
    endpoint === 'livez' || nodeEligible ? [] : ['the node shall get no new traffic'];
  const oldestMs = Math.min(...[...parts.values()].map((part) => part.lastUpdatedMs));
  const body = {
    // While all is well nothing is waiting: what is written is what is wanted now.
    lastUpdated: timestamp(written ? nowMs : oldestMs),
    currentTime: timestamp(nowMs),
    ...(endpoint === 'healthz' ? { nodeEligible } : {}),
    healthy,
    // Not kube-proxy's: for people who wonder why.
    ...(healthy ? {} : { reasons: [...reasonsOf(parts, isWell, nowMs), ...stale, ...ineligible] }),
    status: Object.fromEntries(
      [...parts].map(([family, part]) => [
        nameOf(family),
        {
          lastUpdated: timestamp(isWell(part) ? nowMs : part.lastUpdatedMs),
          healthy: isWell(part),
        },
      ]),
    ),
  };
  const status = healthy ? 200 : 503;
  source.onAnswer(endpoint, status);
  return { status, contentType: 'application/json', body: JSON.stringify(body) };
}

function reasonsOf(
  parts: ReadonlyMap<Family, PartStatus>,
  isWell: (part: PartStatus) => boolean,
  nowMs: number,
): string[] {
  return [...parts]
    .filter(([, part]) => !isWell(part))
    .map(([family, { lastUpdatedMs }]) =>
      lastUpdatedMs === 0
        ? `${nameOf(family)}: nothing was written yet`
        : `${nameOf(family)}: changes wait to be written, the last write was ${Math.round((nowMs - lastUpdatedMs) / 1000)} s ago`,
    );
}

function nameOf(family: Family): 'IPv4' | 'IPv6' {
  return family === 'ip' ? 'IPv4' : 'IPv6';
}

/** RFC 3339; Go's zero time for "never". */
function timestamp(ms: number): string {
  return Number.isFinite(ms) && ms > 0 ? new Date(ms).toISOString() : '0001-01-01T00:00:00Z';
}
