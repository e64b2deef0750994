/**
 * The proxy's domain model: what the API says about Services, seen from this node. Every mode
 * renders this one value, each in its own kernel vocabulary.
 */
import type { Family } from '#pkg/ip/address.ts';
import { objectKey, type EndpointSliceRecord, type ServiceRecord } from '#pkg/kube/types.ts';
import { indexEndpoints } from './endpoints.ts';
import { isExternallyAccessible, servicePorts, type ServicePort } from './service-port.ts';
import { categorizeEndpoints, type CategorizedEndpoints, type NodeTopology } from './topology.ts';

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

export interface ProxySnapshot {
  readonly family: Family;
  /** Sorted by print name, then protocol: equal input renders to equal text. */
  readonly ports: readonly ProxiedPort[];
  readonly problems: readonly Problem[];
}

export interface SnapshotInput {
  readonly services: ReadonlyMap<string, ServiceRecord>;
  readonly slices: ReadonlyMap<string, EndpointSliceRecord>;
  readonly node: NodeTopology;
}

/** What this node has to serve in one family. */
export function proxySnapshot(input: SnapshotInput, family: Family): ProxySnapshot {
  const endpoints = indexEndpoints(input.slices.values(), family, input.node.name);
  const problems: Problem[] = endpoints.problems.map(({ slice, problem }) => ({
    kind: 'EndpointSlice',
    object: objectKey(slice),
    problem,
  }));
  const ports: ProxiedPort[] = [];
  for (const service of input.services.values()) {
    const found = servicePorts(service, family);
    for (const problem of found.problems) {
      problems.push({ kind: 'Service', object: objectKey(service), problem });
    }
    for (const port of found.ports) {
      const categorized = categorizeEndpoints(endpoints.of(port), port, input.node);
      ports.push({ ...port, endpoints: categorized });
    }
  }
  return { family, ports: ports.toSorted(byName), problems };
}

function byName(a: ServicePort, b: ServicePort): number {
  if (a.printName !== b.printName) return a.printName < b.printName ? -1 : 1;
  return a.protocol < b.protocol ? -1 : a.protocol > b.protocol ? 1 : 0;
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
