/**
 * Where UDP ports of Services answer, and which endpoints flows there may keep. Kept up to date by
 * changes, so that a look at one destination costs the same among any number of Services.
 */
import { formatEndpoint } from './address-text.ts';
import type { Endpoint } from './endpoints.ts';
import type { ProxiedPort } from './proxied-port.ts';
import type { PortChange } from './service-model.ts';
import type { TrafficPolicy } from './service-port.ts';

/** Where a Service answers; a node port on what addresses this node has when it matters. */
export type ServiceDestination =
  | { readonly kind: 'address'; readonly address: string; readonly port: number }
  | { readonly kind: 'node-port'; readonly port: number };

/** A destination, and the endpoints flows there may keep. */
export interface ServedDestination {
  readonly destination: ServiceDestination;
  readonly targets: ReadonlySet<string>;
}

/** Equal for equal destinations. */
export function destinationKey(destination: ServiceDestination): string {
  const { port } = destination;
  return destination.kind === 'node-port'
    ? `node-port ${port}`
    : formatEndpoint(destination.address, port);
}

/** All destinations of UDP ports that the rules serve. */
export class ServedDestinations {
  readonly #byPort = new Map<string, readonly ServedDestination[]>();
  /** By {@link destinationKey}, then by port: Services may claim the same external address. */
  readonly #byDestination = new Map<string, Map<string, ServedDestination>>();

  /** Takes in changes in the order they happened. */
  update(changes: Iterable<PortChange>): void {
    for (const { key, new: port } of changes) {
      for (const { destination } of this.#byPort.get(key) ?? []) {
        const id = destinationKey(destination);
        const claims = this.#byDestination.get(id);
        claims?.delete(key);
        if (claims?.size === 0) this.#byDestination.delete(id);
      }
      const served = port === undefined ? [] : destinationsOf(port);
      if (served.length === 0) {
        this.#byPort.delete(key);
        continue;
      }
      this.#byPort.set(key, served);
      for (const one of served) {
        const id = destinationKey(one.destination);
        let claims = this.#byDestination.get(id);
        if (claims === undefined) this.#byDestination.set(id, (claims = new Map()));
        // An external address may be the cluster address too.
        const targets = claims.get(key)?.targets.union(one.targets) ?? one.targets;
        claims.set(key, { ...one, targets });
      }
    }
  }

  /** By {@link destinationKey}. */
  all(): ReadonlyMap<string, ServiceDestination> {
    return new Map(
      [...this.#byPort.values()]
        .flat()
        .map((one) => [destinationKey(one.destination), one.destination]),
    );
  }

  /** Endpoints that flows to there may keep, of whatever Service; undefined when none answers. */
  targets(destination: ServiceDestination): ReadonlySet<string> | undefined {
    const claims = this.#byDestination.get(destinationKey(destination));
    if (claims === undefined) return undefined;
    const [first, ...rest] = claims.values();
    return rest.reduce<ReadonlySet<string>>(
      (all, { targets }) => all.union(targets),
      first?.targets ?? new Set(),
    );
  }
}

/** Where a UDP port answers, with the endpoints flows there may keep; nothing for other ports. */
export function destinationsOf(port: ProxiedPort): ServedDestination[] {
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
