/**
 * Keeps account of which elements the table has for which Service ports, so that a change costs
 * what it changes. Holds ports, not elements: those are computed again when a port changes.
 */
import {
  commonElements,
  elementsOf,
  type Frontend,
  type ProxyElement,
} from './nftables-elements.ts';
import type { NftablesOptions } from './nftables-options.ts';
import type { ProxySet } from './nftables-sets.ts';
import { byKey, type ProxiedPort } from './proxied-port.ts';

/** An element that is not what it was: undefined = it is not there. A set's value is ''. */
export interface ElementChange {
  readonly set: ProxySet;
  readonly key: string;
  readonly old: string | undefined;
  readonly new: string | undefined;
}

export class ElementBook {
  readonly options: NftablesOptions;
  readonly #ports = new Map<string, ProxiedPort>();
  /**
   * Which ports claim a frontend: one key, or several, of which the first has it. As in iptables
   * mode: who has endpoints, then the first by name.
   */
  readonly #claims = new Map<string, string | readonly string[]>();
  /** How many ports want a shared element. */
  readonly #wanted = new Map<string, number>();

  constructor(options: NftablesOptions) {
    this.options = options;
  }

  get size(): number {
    return this.#ports.size;
  }

  /** The elements that come first, and belong to no port. */
  common(): readonly ElementChange[] {
    return commonElements(this.options).map(({ set, key, value }) => {
      return { set, key, old: undefined, new: value };
    });
  }

  /** The port as it was put last. */
  get(key: string): ProxiedPort | undefined {
    return this.#ports.get(key);
  }

  /**
   * Takes in that a port is now this, or gone, and tells what changes in the table. One transaction
   * must carry all of it: then every packet meets the port as it was or as it is.
   */
  put(key: string, port: ProxiedPort | undefined): readonly ElementChange[] {
    const before = this.#elements(key);
    const after = port === undefined ? nothing : this.#elementsOf(port);
    const changes = new Changes();
    for (const element of after.shared) {
      if (this.#count(element, 1) === 1) changes.add(element);
    }
    for (const frontend of new Set([...before.frontends.keys(), ...after.frontends.keys()])) {
      this.#move(frontend, { port: key, before, after, changes });
    }
    for (const element of before.shared) {
      if (this.#count(element, -1) === 0) changes.remove(element);
    }
    if (port === undefined) this.#ports.delete(key);
    else this.#ports.set(key, port);
    return changes.list();
  }

  #move(
    frontend: string,
    of: {
      readonly port: string;
      readonly before: IndexedElements;
      readonly after: IndexedElements;
      readonly changes: Changes;
    },
  ): void {
    const { port, before, after, changes } = of;
    const old = claimants(this.#claims.get(frontend));
    const others = old.filter((claimant) => claimant !== port);
    const isServed = (claimant: string): boolean =>
      (claimant === port ? after : this.#elements(claimant)).frontends.get(frontend)?.isServed ===
      true;
    const now = after.frontends.has(frontend) ? inOrder([...others, port], isServed) : others;
    const [first] = now;
    if (first === undefined) this.#claims.delete(frontend);
    else this.#claims.set(frontend, now.length === 1 ? first : now);
    const elementsFor = (owner: string | undefined, own: IndexedElements): Frontend | undefined =>
      owner === undefined
        ? undefined
        : (owner === port ? own : this.#elements(owner)).frontends.get(frontend);
    // Somebody else's before and after: nothing moves.
    if (old[0] === now[0] && old[0] !== port) return;
    for (const element of elementsFor(old[0], before)?.elements ?? []) changes.remove(element);
    for (const element of elementsFor(now[0], after)?.elements ?? []) changes.add(element);
  }

  #elements(key: string): IndexedElements {
    const port = this.#ports.get(key);
    return port === undefined ? nothing : this.#elementsOf(port);
  }

  #elementsOf(port: ProxiedPort): IndexedElements {
    const { frontends, shared } = elementsOf(port, this.options);
    return { shared, frontends: new Map(frontends.map((frontend) => [frontend.key, frontend])) };
  }

  #count({ set, key }: ProxyElement, by: 1 | -1): number {
    const id = `${set} ${key}`;
    const count = (this.#wanted.get(id) ?? 0) + by;
    if (count === 0) this.#wanted.delete(id);
    else this.#wanted.set(id, count);
    return count;
  }
}

/** Changes of which the last word on an element counts; what ends as it began is none. */
export class Changes {
  readonly #bySet = new Map<ElementChange['set'], Map<string, ElementChange>>();
  #size = 0;

  /** How many elements are spoken of. */
  get size(): number {
    return this.#size;
  }

  add({ set, key, value }: ProxyElement): void {
    this.put({ set, key, old: undefined, new: value });
  }

  remove({ set, key, value }: ProxyElement): void {
    this.put({ set, key, old: value, new: undefined });
  }

  put(change: ElementChange): void {
    let changes = this.#bySet.get(change.set);
    if (changes === undefined) this.#bySet.set(change.set, (changes = new Map()));
    const earlier = changes.get(change.key);
    if (earlier === undefined) this.#size += 1;
    changes.set(change.key, earlier === undefined ? change : { ...change, old: earlier.old });
  }

  list(): readonly ElementChange[] {
    return [...this.#bySet.values()].flatMap((changes) =>
      [...changes.values()].filter((change) => change.old !== change.new),
    );
  }
}

interface IndexedElements {
  readonly shared: readonly ProxyElement[];
  readonly frontends: ReadonlyMap<string, Frontend>;
}

const nothing: IndexedElements = { shared: [], frontends: new Map() };

function inOrder(
  claimants: readonly string[],
  isServed: (claimant: string) => boolean,
): readonly string[] {
  if (claimants.length === 1) return claimants;
  const served = new Set(claimants.filter(isServed));
  return claimants.toSorted((a, b) => Number(served.has(b)) - Number(served.has(a)) || byKey(a, b));
}

function claimants(claim: string | readonly string[] | undefined): readonly string[] {
  if (claim === undefined) return [];
  return typeof claim === 'string' ? [claim] : claim;
}
