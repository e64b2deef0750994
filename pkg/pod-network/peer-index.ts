/**
 * What a change of a few other nodes changes, at the cost of those nodes and not of the cluster. A
 * peer's objects do not depend on the other peers, as long as no two want the same range or MAC: so
 * the difference is that of the backend's answer for the changed peers alone. Whatever is not plain
 * (a conflict, a problem, something unknown) has no quick answer, and everything is worked out anew.
 */
import { isDeepStrictEqual } from 'node:util';
import { objectKey } from '#pkg/host-network/object.ts';
import { planHostNetwork } from '#pkg/host-network/plan.ts';
import type { Step } from '#pkg/host-network/step.ts';
import { families, formatAddress, type Address, type Family } from '#pkg/ip/address.ts';
import {
  containsAddress,
  containsPrefix,
  formatPrefix,
  networkOf,
  type Prefix,
} from '#pkg/ip/prefix.ts';
import type { NodeRecord } from '#pkg/kube/types.ts';
import type { NftStep } from '#pkg/nftables/plan.ts';
import type { Announcement } from '#pkg/overlay/annotations.ts';
import type { Backend, SelfNode } from '#pkg/overlay/backend.ts';
import { parseCluster, type ByFamily, type NodeFacts } from '#pkg/overlay/node-facts.ts';
import { Counts } from './counts.ts';
import { exemptSetName, fixedExemptions, masqueradeTable } from './masquerade.ts';

/** What everything was worked out from the last time. */
export interface PeerBasis {
  readonly backend: Backend;
  readonly self: SelfNode;
  /** What this node announces. */
  readonly announcements: ByFamily<Announcement>;
  /** All nodes, our own included. */
  readonly nodes: ReadonlyMap<string, NodeFacts>;
  /** Nodes that something is wrong with. */
  readonly troubled: ReadonlySet<string>;
  /** Whether a node had to give a range away to another. */
  readonly isContested: boolean;
  readonly annotationPrefix: string;
  /** Families of pods; none = both. */
  readonly families?: readonly Family[];
  /** Families that are masqueraded. */
  readonly masqueraded: readonly Family[];
  readonly nonMasqueradeCIDRs: readonly Prefix[];
}

export interface PeerChange {
  readonly old: NodeRecord | undefined;
  readonly new: NodeRecord | undefined;
}

export interface PeerDelta {
  readonly steps: readonly Step[];
  readonly tableSteps: readonly NftStep[];
}

/** Follows the peers from one full calculation on. */
export class PeerIndex {
  readonly #basis: PeerBasis;
  readonly #nodes: Map<string, NodeFacts>;
  /** How many nodes have this range, and this MAC, and this address or range as an exemption. */
  readonly #ranges = new Counts();
  readonly #macs = new Counts();
  readonly #exempt = new Counts();
  /** How many addresses of nodes lie in a range of the usual length. */
  readonly #homes = new Counts();
  /** The one length of all ranges of a family; undefined = there is none. */
  readonly #lengths: ByFamily<number>;
  /** What is exempt whoever joins: elements within it are left out. */
  readonly #covering: readonly Prefix[];
  /** Objects that are there without any peer. */
  readonly #ownKeys: ReadonlySet<string>;
  #isPlain: boolean;

  constructor(basis: PeerBasis) {
    const { backend, isContested, nonMasqueradeCIDRs, self } = basis;
    this.#basis = basis;
    this.#nodes = new Map(basis.nodes);
    this.#lengths = usualLengths(basis.nodes.values());
    this.#covering = [...fixedExemptions, ...nonMasqueradeCIDRs];
    const alone = backend([], self);
    this.#ownKeys = new Set(alone.objects.map(objectKey));
    this.#isPlain = !isContested && Object.keys(alone).every((key) => knownResults.has(key));
    for (const facts of this.#nodes.values()) this.#add(facts);
    for (const [family, { vtep }] of entriesOf(basis.announcements)) {
      const said = basis.nodes.get(basis.self.name)?.announcements[family]?.vtep;
      if (vtep !== undefined && vtep.mac !== said?.mac) this.#macs.add(`${family} ${vtep.mac}`);
    }
  }

  /**
   * The steps for these changes, which are taken in. Undefined when there is no quick answer: the
   * index is then of no use any more.
   */
  take(changes: readonly PeerChange[]): PeerDelta | undefined {
    const { backend, self } = this.#basis;
    const exemptBefore = new Map<string, boolean>();
    const before: NodeFacts[] = [];
    const after: NodeFacts[] = [];
    for (const change of changes) {
      const name = change.new?.name ?? change.old?.name ?? '';
      const old = this.#nodes.get(name);
      const next = change.new === undefined ? undefined : this.#factsOf(change.new);
      if (next === null || !this.#isQuick(name, old)) return undefined;
      // What stays for the sake of peers with another backend is a matter of all of them.
      if (next !== undefined && old !== undefined && changesBackend(old, next)) return undefined;
      for (const facts of [old, next]) {
        for (const key of facts === undefined ? [] : this.#exemptionsOf(facts)) {
          if (!exemptBefore.has(key)) exemptBefore.set(key, this.#exempt.has(key));
        }
      }
      if (old !== undefined) {
        this.#remove(old);
        before.push(old);
      }
      if (next !== undefined) {
        this.#nodes.set(name, next);
        this.#add(next);
        after.push(next);
      }
    }
    if (!this.#isPlain) return undefined;
    const have = backend(before, self);
    const want = backend(after, self);
    if (have.problems.length + want.problems.length > 0) return undefined;
    const steps = planHostNetwork(want.objects, have.objects);
    // An object that holds something of every peer.
    if (steps.some(({ object }) => this.#ownKeys.has(objectKey(object)))) return undefined;
    return { steps, tableSteps: this.#tableSteps(exemptBefore) };
  }

  /**
   * Whether it may go on from another full calculation, of the nodes that it knows: all but the nodes
   * is as it was. To be made anew costs as much as a hundred changes.
   */
  fits(basis: PeerBasis): boolean {
    const { backend: _, nodes: __, ...rest } = basis;
    const { backend: ___, nodes: ____, ...own } = this.#basis;
    return this.#isPlain && basis.nodes.size === this.#nodes.size && isDeepStrictEqual(rest, own);
  }

  /** Null for a node that is not plain by itself. */
  #factsOf(record: NodeRecord): NodeFacts | null {
    const alone = parseCluster([record], { ...this.#basis, selfName: this.#basis.self.name });
    return alone.problems.length > 0 ? null : (alone.nodes.get(record.name) ?? null);
  }

  #isQuick(name: string, old: NodeFacts | undefined): boolean {
    const { self, troubled } = this.#basis;
    if (!this.#isPlain || name === self.name || troubled.has(name)) return false;
    // What gives way to a twin comes back when the twin goes.
    return old === undefined || macsOf(old).every((key) => this.#macs.count(key) === 1);
  }

  #add(facts: NodeFacts): void {
    for (const [family, range] of entriesOf(facts.podCIDRs)) {
      // Ranges of one length are the same or apart: one look tells. Others may lie in each other.
      if (range.length !== this.#lengths[family]) this.#isPlain = false;
      if (this.#homes.has(rangeKey(range))) this.#isPlain = false;
      // What is in the set for its own sake comes back when the range around it goes.
      if (this.#covering.some((inner) => liesWithin(inner, range))) this.#isPlain = false;
    }
    for (const address of nodeAddresses(facts)) {
      const home = this.#homeOf(address);
      if (home === undefined) continue;
      // The set has the range only: which of both it needs is a matter of all nodes.
      if (this.#ranges.has(home)) this.#isPlain = false;
      this.#homes.add(home);
    }
    const isOld = this.#basis.nodes.get(facts.name) === facts;
    for (const key of keysOf(facts)) {
      if (this.#ranges.add(key) > 1 && !isOld) this.#isPlain = false;
    }
    for (const key of macsOf(facts)) {
      if (this.#macs.add(key) > 1 && !isOld) this.#isPlain = false;
    }
    for (const key of this.#exemptionsOf(facts)) this.#exempt.add(key);
    if (Object.values(facts.announcements).some(isUnknown)) this.#isPlain = false;
  }

  #remove(facts: NodeFacts): void {
    this.#nodes.delete(facts.name);
    for (const key of keysOf(facts)) this.#ranges.remove(key);
    for (const key of macsOf(facts)) this.#macs.remove(key);
    for (const key of this.#exemptionsOf(facts)) this.#exempt.remove(key);
    for (const address of nodeAddresses(facts)) {
      const home = this.#homeOf(address);
      if (home !== undefined) this.#homes.remove(home);
    }
  }

  /** The range of the usual length around an address. */
  #homeOf(address: Address): string | undefined {
    const length = this.#lengths[address.family];
    return length === undefined ? undefined : rangeKey(networkOf({ address, length }));
  }

  /** Elements of the sets of what is not masqueraded that this node brings: "4 10.244.1.0/24". */
  *#exemptionsOf(facts: NodeFacts): Generator<string> {
    const { masqueraded } = this.#basis;
    for (const [family, range] of entriesOf(facts.podCIDRs)) {
      if (!masqueraded.includes(family)) continue;
      if (!this.#covering.some((outer) => containsPrefix(outer, range))) {
        yield `${family} ${formatPrefix(range)}`;
      }
    }
    for (const address of nodeAddresses(facts)) {
      if (!masqueraded.includes(address.family)) continue;
      if (this.#covering.some((outer) => containsAddress(outer, address))) continue;
      yield `${address.family} ${formatAddress(address)}`;
    }
  }

  #tableSteps(before: ReadonlyMap<string, boolean>): readonly NftStep[] {
    const steps: NftStep[] = [];
    for (const op of ['deleteElements', 'addElements'] as const) {
      for (const family of families) {
        const elements = [...before].flatMap(([key, had]) => {
          const [of, element = ''] = key.split(' ');
          const has = this.#exempt.has(key);
          return of === family && had !== has && has === (op === 'addElements') ? [element] : [];
        });
        const set = exemptSetName(family);
        if (elements.length > 0) steps.push({ op, table: masqueradeTable, set, elements });
      }
    }
    return steps;
  }
}

/** What a backend can answer that is compared here. */
const knownResults: ReadonlySet<string> = new Set([
  'objects',
  'problems',
  'families',
  'announcements',
  'mtuBytes',
]);

function usualLengths(nodes: Iterable<NodeFacts>): ByFamily<number> {
  const lengths: Partial<Record<Family, number>> = {};
  for (const { podCIDRs } of nodes) {
    for (const [family, { length }] of entriesOf(podCIDRs)) lengths[family] ??= length;
  }
  return lengths;
}

/** Every address of a node that pods reach under their own. */
export function nodeAddresses(facts: NodeFacts): ReadonlySet<Address> {
  const announced = Object.values(facts.announcements).map(({ publicIP }) => publicIP);
  const addresses = new Map([...facts.internalIPs, ...announced].map((a) => [addressKey(a), a]));
  return new Set(addresses.values());
}

function addressKey({ family, value }: Address): string {
  return `${family} ${value.toString(36)}`;
}

function rangeKey({ address, length }: Prefix): string {
  return `${addressKey(address)}/${length}`;
}

function liesWithin(inner: Prefix, outer: Prefix): boolean {
  return inner.length > outer.length && containsPrefix(outer, inner);
}

function keysOf(facts: NodeFacts): readonly string[] {
  return Object.values(facts.podCIDRs).map(rangeKey);
}

function changesBackend(old: NodeFacts, next: NodeFacts): boolean {
  return entriesOf(old.announcements).some(([family, { backend }]) => {
    const said = next.announcements[family]?.backend;
    return said !== undefined && said !== backend;
  });
}

/** What no two nodes may have: the addresses of their VTEPs, and their keys. */
function macsOf(facts: NodeFacts): readonly string[] {
  const keys = entriesOf(facts.announcements).flatMap(([family, { vtep, publicKey }]) => [
    ...(vtep === undefined ? [] : [`${family} ${vtep.mac}`]),
    ...(publicKey === undefined ? [] : [publicKey]),
  ]);
  return [...new Set(keys)];
}

const knownSayings: ReadonlySet<string> = new Set(['backend', 'publicIP', 'vtep', 'publicKey']);

/** Whether it says more than is compared here. */
function isUnknown(announcement: Announcement): boolean {
  return !Object.keys(announcement).every((key) => knownSayings.has(key));
}

function entriesOf<T>(values: ByFamily<T>): readonly (readonly [Family, T])[] {
  return families.flatMap((family) => {
    const value = values[family];
    return value === undefined ? [] : [[family, value] as const];
  });
}
