/**
 * Which UDP flows the kernel must forget: a flow that goes on keeps the endpoint it was once
 * translated to, and a client that never changes its port would talk to a pod that is gone, or to
 * nobody, for hours. TCP and SCTP end by themselves, and ending them would cut sessions that an
 * ending pod still serves.
 */
import type { FlowDestination, TrackedFlow } from '#pkg/conntrack/flow.ts';
import { formatEndpoint } from './address-text.ts';
import type { Endpoint } from './endpoints.ts';
import type { ProxiedPort } from './proxied-port.ts';
import type { PortChange } from './service-model.ts';
import type { TrafficPolicy } from './service-port.ts';

/** Where a Service answers; a node port on what addresses this node has when it matters. */
export type ServiceDestination =
  | { readonly kind: 'address'; readonly address: string; readonly port: number }
  | { readonly kind: 'node-port'; readonly port: number };

/** What to look at, and the judgement on what is found there. */
export interface FlowReview {
  readonly destinations: readonly FlowDestination[];
  readonly isStale: (flow: TrackedFlow) => boolean;
}

/** Equal for equal destinations. */
export function destinationKey(destination: ServiceDestination): string {
  const { port } = destination;
  return destination.kind === 'node-port'
    ? `node-port ${port}`
    : formatEndpoint(destination.address, port);
}

/**
 * Destinations at which flows may have become stale, by {@link destinationKey}. More endpoints are
 * no reason to look, with one exception: where nobody served before, flows from the time before the
 * rules may go on untranslated (kubernetes/kubernetes#126468).
 */
export function doubtfulDestinations(
  changes: Iterable<PortChange>,
): ReadonlyMap<string, ServiceDestination> {
  const doubtful = new Map<string, ServiceDestination>();
  for (const { old, new: now } of changes) {
    const before = old === undefined ? [] : destinationsOf(old);
    const after = now === undefined ? [] : destinationsOf(now);
    const kept = new Map(after.map((d) => [destinationKey(d.destination), d.targets]));
    const known = new Set(before.map((d) => destinationKey(d.destination)));
    for (const { destination, targets } of before) {
      const key = destinationKey(destination);
      const left = kept.get(key);
      const isFirst = targets.size === 0 && left !== undefined && left.size > 0;
      if (left === undefined || isFirst || !targets.isSubsetOf(left)) {
        doubtful.set(key, destination);
      }
    }
    for (const { destination } of after) {
      const key = destinationKey(destination);
      if (!known.has(key)) doubtful.set(key, destination);
    }
  }
  return doubtful;
}

/**
 * The judgement by what the rules say now. Where Services answer, a flow is stale unless it goes to
 * one of their endpoints; so it is when there are none. Where none answers any more, it is stale if
 * it is translated: untranslated flows to that address are somebody else's.
 *
 * @param ports all ports the rules serve
 * @param nodePortAddresses on which node ports answer here, canonical. Flows to other hosts' ports
 *   of the same number are nobody's business (kubernetes/kubernetes#49881).
 */
export function reviewFlows(
  doubtful: Iterable<ServiceDestination>,
  ports: Iterable<ProxiedPort>,
  nodePortAddresses: readonly string[],
): FlowReview {
  const destinations = [...doubtful].map((destination): FlowDestination => {
    const { kind, port } = destination;
    return { addresses: kind === 'address' ? [destination.address] : nodePortAddresses, port };
  });
  const served = new Map<string, Set<string> | undefined>(
    destinations.flatMap(({ addresses, port }) =>
      addresses.map((address) => [formatEndpoint(address, port), undefined]),
    ),
  );
  for (const port of ports) {
    for (const { destination, targets } of destinationsOf(port)) {
      const addresses = destination.kind === 'address' ? [destination.address] : nodePortAddresses;
      for (const address of addresses) {
        const key = formatEndpoint(address, destination.port);
        // Two Services may claim one external address: whichever the rules prefer, both may be right.
        if (served.has(key)) served.set(key, targets.union(served.get(key) ?? new Set()));
      }
    }
  }
  return {
    destinations: destinations.filter(({ addresses }) => addresses.length > 0),
    isStale: ({ destination, server }) => {
      if (!served.has(destination)) return false;
      const targets = served.get(destination);
      return targets === undefined ? server !== destination : !targets.has(server);
    },
  };
}

/** Where a UDP port answers, with the endpoints flows there may keep; nothing for other ports. */
function destinationsOf(
  port: ProxiedPort,
): { readonly destination: ServiceDestination; readonly targets: Set<string> }[] {
  if (port.protocol !== 'udp') return [];
  const anywhere = keptTargets(port, 'Cluster');
  const external = [...port.externalIPs, ...port.loadBalancerIPs];
  return [
    {
      destination: { kind: 'address', address: port.clusterIP, port: port.port },
      targets: port.internalPolicy === 'Local' ? keptTargets(port, 'Local') : anywhere,
    },
    // Under externalTrafficPolicy Local pods and the node itself may go to any endpoint, and the
    // table does not tell who is one of them.
    ...external.map((address) => ({
      destination: { kind: 'address', address, port: port.port } as const,
      targets: anywhere,
    })),
    ...(port.nodePort === 0
      ? []
      : [{ destination: { kind: 'node-port', port: port.nodePort } as const, targets: anywhere }]),
  ];
}

/**
 * An endpoint that serves keeps the flows it has, even where new ones go elsewhere: because it is
 * ending, not ready, or further away than another.
 */
function keptTargets(port: ProxiedPort, policy: TrafficPolicy): Set<string> {
  const isKept = (e: Endpoint): boolean =>
    // Ready without serving: publishNotReadyAddresses, which new flows follow.
    (e.ready || e.serving) && (policy === 'Cluster' || e.local);
  return new Set(port.endpoints.all.filter(isKept).map((e) => e.target));
}
