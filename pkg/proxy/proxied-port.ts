/**
 * The values of the proxy's domain model: what the API says about Services, seen from this node.
 * Every mode renders these, each in its own kernel vocabulary; `service-model.ts` keeps them.
 */
import { isExternallyAccessible, type ServicePort } from './service-port.ts';
import type { CategorizedEndpoints } from './topology.ts';

/** A Service port with the endpoints its traffic may reach from this node. */
export interface ProxiedPort extends ServicePort {
  readonly endpoints: CategorizedEndpoints;
}

/** One object, or part of one, that cannot be served; the rest of the cluster is not affected. */
export interface Problem {
  readonly kind: 'Service' | 'EndpointSlice';
  /** "namespace/name". */
  readonly object: string;
  readonly problem: string;
}

/** Identity of a port in one family; the print name alone leaves the protocol out. */
export function portKey(port: Pick<ServicePort, 'printName' | 'protocol'>): string {
  return `${port.printName}/${port.protocol}`;
}

/** Sorts by print name, then protocol. */
export function byName(a: ServicePort, b: ServicePort): number {
  if (a.printName !== b.printName) return a.printName < b.printName ? -1 : 1;
  return a.protocol < b.protocol ? -1 : a.protocol > b.protocol ? 1 : 0;
}

/**
 * Sorts keys as {@link byName} sorts their ports. As mere text "ns/a-b/tcp" would come before
 * "ns/a/tcp".
 */
export function byKey(a: string, b: string): number {
  const [ofA, ofB] = [a.lastIndexOf('/'), b.lastIndexOf('/')];
  const [nameA, nameB] = [a.slice(0, ofA), b.slice(0, ofB)];
  if (nameA !== nameB) return nameA < nameB ? -1 : 1;
  return a < b ? -1 : a > b ? 1 : 0;
}

/** How many ports drop traffic here only because this node has no endpoint of theirs. */
export function countWithoutLocal(ports: readonly ProxiedPort[]): {
  readonly internal: number;
  readonly external: number;
} {
  const lacking = ports.filter((p) => p.endpoints.hasAny && p.endpoints.local.length === 0);
  return {
    internal: lacking.filter((p) => p.internalPolicy === 'Local').length,
    external: lacking.filter((p) => p.externalPolicy === 'Local' && isExternallyAccessible(p))
      .length,
  };
}
