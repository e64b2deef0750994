/**
 * What the pod network needs to know of each Node, parsed once: a Node whose text is wrong is
 * reported and left out, and every other Node goes on.
 */
import {
  compareAddresses,
  families,
  tryParseAddress,
  type Address,
  type Family,
} from '#pkg/ip/address.ts';
import {
  containsPrefix,
  formatPrefix,
  networkOf,
  tryParsePrefix,
  type Prefix,
} from '#pkg/ip/prefix.ts';
import type { NodeRecord } from '#pkg/kube/types.ts';
import { parseAnnouncement, type Announcement } from './annotations.ts';

/** Something per family; a family that is not there is not in use. */
export type ByFamily<T> = Readonly<Partial<Record<Family, T>>>;

/** What is wrong with one Node, for logs and health: nothing of it stops the others. */
export interface NodeProblem {
  readonly node: string;
  readonly message: string;
}

/** One Node as the overlay sees it. */
export interface NodeFacts {
  readonly name: string;
  readonly uid: string;
  /** The pod range per family, host bits zero. */
  readonly podCIDRs: ByFamily<Prefix>;
  /** `status.addresses` of type InternalIP, in their order. */
  readonly internalIPs: readonly Address[];
  /** What the Node's own agent announced in annotations, per family. */
  readonly announcements: ByFamily<Announcement>;
}

export interface ClusterFacts {
  /** Every usable Node by name, our own included. */
  readonly nodes: ReadonlyMap<string, NodeFacts>;
  readonly problems: readonly NodeProblem[];
  /** Whether a Node lost a range to another. */
  readonly isContested: boolean;
}

export interface ClusterOptions {
  readonly selfName: string;
  readonly annotationPrefix: string;
  /** Families of pods; what Nodes say of another one counts for nothing. None = both. */
  readonly families?: readonly Family[];
}

/**
 * Parses all Nodes. Where pod ranges of two Nodes overlap, our own Node wins, then the older one
 * (by name where ages are equal); the loser keeps what does not overlap.
 */
export function parseCluster(records: Iterable<NodeRecord>, options: ClusterOptions): ClusterFacts {
  const problems: NodeProblem[] = [];
  const sorted = [...records].sort((a, b) => byPrecedence(a, b, options.selfName));
  const parsed = sorted.map((record) => parseNode(record, options, problems));
  const losers = new Set(families.flatMap((family) => overlapLosers(parsed, family, problems)));
  const nodes = new Map<string, NodeFacts>();
  for (const node of parsed) {
    const podCIDRs: Partial<Record<Family, Prefix>> = {};
    for (const family of families) {
      const range = node.podCIDRs[family];
      if (range !== undefined && !losers.has(range)) podCIDRs[family] = range;
    }
    nodes.set(node.name, { ...node, podCIDRs });
  }
  return { nodes, problems, isContested: losers.size > 0 };
}

function byPrecedence(a: NodeRecord, b: NodeRecord, selfName: string): number {
  if (a.name === selfName) return -1;
  if (b.name === selfName) return 1;
  return compareText(a.createdAt, b.createdAt) || compareText(a.name, b.name);
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function parseNode(
  record: NodeRecord,
  { annotationPrefix: prefix, families: wanted = families }: ClusterOptions,
  problems: NodeProblem[],
): NodeFacts {
  const report = (message: string): void => {
    problems.push({ node: record.name, message });
  };
  const podCIDRs: Partial<Record<Family, Prefix>> = {};
  for (const text of record.podCIDRs) {
    const range = tryParsePrefix(text);
    if (range === undefined) {
      report(`Cannot use podCIDR ${JSON.stringify(text)}: expected address/length`);
    } else if (!wanted.includes(range.address.family)) {
      continue;
    } else if (podCIDRs[range.address.family] !== undefined) {
      report(`Cannot use podCIDR ${text}: the Node has another one of this family`);
    } else {
      podCIDRs[range.address.family] = networkOf(range);
    }
  }
  const internalIPs: Address[] = [];
  for (const text of record.internalIPs) {
    const address = tryParseAddress(text);
    if (address === undefined) {
      report(`Cannot use InternalIP ${JSON.stringify(text)}: expected an IP address`);
    } else {
      internalIPs.push(address);
    }
  }
  const announcements: Partial<Record<Family, Announcement>> = {};
  for (const family of wanted) {
    const result = parseAnnouncement(record.annotations, family, prefix);
    if (typeof result === 'string') report(result);
    else if (result !== undefined) announcements[family] = result;
  }
  return { name: record.name, uid: record.uid, podCIDRs, internalIPs, announcements };
}

/** The ranges that give way. `nodes` is in order of precedence. */
function overlapLosers(
  nodes: readonly NodeFacts[],
  family: Family,
  problems: NodeProblem[],
): readonly Prefix[] {
  const losers: Prefix[] = [];
  for (const group of overlapGroups(nodes, family)) {
    const winners: RankedRange[] = [];
    for (const candidate of group.toSorted((a, b) => a.rank - b.rank)) {
      const winner = winners.find(
        ({ range }) =>
          containsPrefix(range, candidate.range) || containsPrefix(candidate.range, range),
      );
      if (winner === undefined) {
        winners.push(candidate);
        continue;
      }
      losers.push(candidate.range);
      problems.push({
        node: candidate.name,
        message:
          `Cannot use podCIDR ${formatPrefix(candidate.range)}: it overlaps ` +
          `${formatPrefix(winner.range)} of node ${winner.name}`,
      });
    }
  }
  return losers;
}

interface RankedRange {
  readonly name: string;
  readonly rank: number;
  readonly range: Prefix;
}

/**
 * Prefixes nest or are disjoint, so in address order everything that overlaps follows its outermost
 * range: one sorted pass finds the groups, however many nodes there are.
 */
function overlapGroups(nodes: readonly NodeFacts[], family: Family): readonly RankedRange[][] {
  const ranges = nodes.flatMap((node, rank): RankedRange[] => {
    const range = node.podCIDRs[family];
    return range === undefined ? [] : [{ name: node.name, rank, range }];
  });
  ranges.sort(
    (a, b) => compareAddresses(a.range.address, b.range.address) || a.range.length - b.range.length,
  );
  const groups: RankedRange[][] = [];
  for (const range of ranges) {
    const group = groups.at(-1);
    const outermost = group?.[0];
    if (group !== undefined && outermost && containsPrefix(outermost.range, range.range)) {
      group.push(range);
    } else {
      groups.push([range]);
    }
  }
  return groups.filter((group) => group.length > 1);
}
