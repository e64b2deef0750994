/**
 * Which endpoints a packet may reach: readiness, the fallback to terminating endpoints (KEP-1669),
 * traffic policies, and the topology hints of EndpointSlices (KEP-2433, KEP-3015).
 */
import { byTarget, type Endpoint } from './endpoints.ts';
import { usesClusterEndpoints, usesLocalEndpoints, type ServicePort } from './service-port.ts';

/** Where this node is. */
export interface NodeTopology {
  readonly name: string;
  /** Label `topology.kubernetes.io/zone`; undefined = the node has none. */
  readonly zone: string | undefined;
}

export interface CategorizedEndpoints {
  /** For traffic of policy Cluster; empty when no traffic of this port uses it. */
  readonly cluster: readonly Endpoint[];
  /** For traffic of policy Local; empty when no traffic of this port uses it. */
  readonly local: readonly Endpoint[];
  /** Every endpoint known, whatever its state: for connection tracking and health checks. */
  readonly all: readonly Endpoint[];
  /** Everything this node may send to: both lists without doubles, sorted by target. */
  readonly reachable: readonly Endpoint[];
  /**
   * Whether any endpoint anywhere could take traffic. It tells "refuse: nobody is there" from
   * "drop: nobody is here", which a load balancer must see as a node to avoid.
   */
  readonly hasAny: boolean;
}

export function categorizeEndpoints(
  endpoints: readonly Endpoint[],
  port: ServicePort,
  node: NodeTopology,
): CategorizedEndpoints {
  const ready = endpoints.filter((e) => e.ready);
  const cluster = usesClusterEndpoints(port) ? clusterEndpoints(endpoints, ready, node) : [];
  const local = usesLocalEndpoints(port) ? localEndpoints(endpoints, ready) : [];
  return {
    all: endpoints,
    cluster,
    local,
    reachable: union(cluster, local),
    hasAny: ready.length > 0 || endpoints.some(isServingTerminating),
  };
}

function clusterEndpoints(
  endpoints: readonly Endpoint[],
  ready: readonly Endpoint[],
  node: NodeTopology,
): readonly Endpoint[] {
  return ready.length > 0 ? nearest(ready, node) : endpoints.filter(isServingTerminating);
}

/** Policy Local knows no topology: what is on this node is as near as can be. */
function localEndpoints(
  endpoints: readonly Endpoint[],
  ready: readonly Endpoint[],
): readonly Endpoint[] {
  const local = ready.filter((e) => e.local);
  if (local.length > 0) return local;
  return endpoints.filter((e) => e.local && isServingTerminating(e));
}

/**
 * Hints count only when every ready endpoint carries one: a single endpoint without them means that
 * the controller is not (or not yet) giving hints for this Service.
 */
function nearest(ready: readonly Endpoint[], node: NodeTopology): readonly Endpoint[] {
  if (ready.every((e) => e.nodeHints.length > 0)) {
    const here = ready.filter((e) => e.nodeHints.includes(node.name));
    if (here.length > 0) return here;
  }
  const { zone } = node;
  if (zone !== undefined && ready.every((e) => e.zoneHints.length > 0)) {
    const here = ready.filter((e) => e.zoneHints.includes(zone));
    if (here.length > 0) return here;
  }
  return ready;
}

function isServingTerminating(endpoint: Endpoint): boolean {
  return endpoint.serving && endpoint.terminating;
}

function union(a: readonly Endpoint[], b: readonly Endpoint[]): readonly Endpoint[] {
  if (b.length === 0) return a;
  if (a.length === 0) return b;
  const seen = new Set(a.map((e) => e.target));
  const rest = b.filter((e) => !seen.has(e.target));
  return rest.length === 0 ? a : [...a, ...rest].toSorted(byTarget);
}
