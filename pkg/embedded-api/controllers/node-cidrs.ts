/** Gives every Node its pod subnets, as kube-controller-manager --allocate-node-cidrs does. */
import type { Family } from '#pkg/ip/address.ts';
import {
  containsPrefix,
  formatPrefix,
  lastAddress,
  networkOf,
  parsePrefix,
  prefixesOverlap,
  tryParsePrefix,
  type Prefix,
} from '#pkg/ip/prefix.ts';
import { textsAt } from '#pkg/embedded-api/json.ts';
import type { KubeObject } from '#pkg/embedded-api/object.ts';
import type { ControllerContext } from './context.ts';

export interface NodeCidrOptions {
  /** The cluster's pod ranges, at most one a family: 10.244.0.0/16. */
  readonly clusterCIDRs: readonly string[];
  /** Mask length of a node's subnet; 24 and 64 by default. */
  readonly maskLength?: Readonly<Partial<Record<Family, number>>>;
}

/** A range that is cut into node subnets. */
interface Range {
  readonly cluster: Prefix;
  /** Mask length of one node's subnet. */
  readonly length: number;
}

const defaultLength: Readonly<Record<Family, number>> = { ip: 24, ip6: 64 };

/** Follows the Nodes until disposed of. */
export class NodeCidrController implements Disposable {
  readonly #context: ControllerContext;
  readonly #ranges: readonly Range[];
  readonly #unsubscribe: () => void;
  #round: NodeJS.Immediate | undefined;

  /** @throws {AgentError} InvalidPrefix */
  constructor(context: ControllerContext, options: NodeCidrOptions) {
    this.#context = context;
    this.#ranges = options.clusterCIDRs.map(parsePrefix).map((cluster) => {
      const { family } = cluster.address;
      return { cluster, length: options.maskLength?.[family] ?? defaultLength[family] };
    });
    this.#unsubscribe = context.storage.subscribe((change) => {
      if (change.resource === 'nodes') this.#ask();
    });
    this.#ask();
  }

  [Symbol.dispose](): void {
    this.#unsubscribe();
    clearImmediate(this.#round);
  }

  #ask(): void {
    this.#round ??= setImmediate(() => {
      this.#round = undefined;
      const { storage, access, log } = this.#context;
      const nodes = storage.snapshot('nodes').entries.map(([, node]) => node);
      for (const { node, podCIDRs } of planNodeCidrs(nodes, this.#ranges)) {
        const name = { apiVersion: 'v1', kind: 'Node', name: node };
        try {
          access.patch(name, 'merge', { spec: { podCIDR: podCIDRs[0] ?? null, podCIDRs } });
        } catch (error) {
          log.warn({ err: error, node }, 'cannot set podCIDRs');
        }
      }
    });
  }
}

/**
 * Subnets for the Nodes that have none, oldest Node first: the lowest that overlap no other
 * Node's. A Node gets all families or nothing, since its podCIDRs are set only once. Pure.
 */
function planNodeCidrs(
  nodes: readonly KubeObject[],
  ranges: readonly Range[],
): readonly { readonly node: string; readonly podCIDRs: readonly string[] }[] {
  const used = nodes
    .flatMap((node) => textsAt(node, 'spec', 'podCIDRs'))
    .map(tryParsePrefix)
    .filter((prefix) => prefix !== undefined);
  const waiting = nodes
    .filter((node) => textsAt(node, 'spec', 'podCIDRs').length === 0)
    .toSorted((a, b) => Number(a.metadata.resourceVersion) - Number(b.metadata.resourceVersion));
  const plan: { node: string; podCIDRs: readonly string[] }[] = [];
  for (const node of waiting) {
    const subnets = ranges.map((range) => freeSubnet(range, used));
    const found = subnets.filter((subnet) => subnet !== undefined);
    if (found.length === 0 || found.length < ranges.length) continue;
    used.push(...found);
    plan.push({ node: node.metadata.name, podCIDRs: found.map(formatPrefix) });
  }
  return plan;
}

function freeSubnet({ cluster, length }: Range, used: readonly Prefix[]): Prefix | undefined {
  const { family } = cluster.address;
  const last = lastAddress(cluster).value;
  let value = networkOf(cluster).address.value;
  while (value <= last) {
    const subnet: Prefix = { address: { family, value }, length };
    const inTheWay = used.find((prefix) => prefixesOverlap(prefix, subnet));
    if (inTheWay === undefined) return containsPrefix(cluster, subnet) ? subnet : undefined;
    // Past what is in the way: one subnet, or a larger prefix someone set by hand.
    const wider = containsPrefix(inTheWay, subnet) ? inTheWay : subnet;
    value = lastAddress(wider).value + 1n;
  }
  return undefined;
}
