/**
 * All that ipvs mode wants of one family, kept in step with ports at the cost of those that changed.
 * Ports share addresses, and may claim the same one: what several want is there while one does.
 */
import type { IpSet } from '#pkg/ipset/ip-set.ts';
import type { MemberChange } from '#pkg/ipset/plan.ts';
import type { VirtualServer } from '#pkg/ipvs/virtual-server.ts';
import { IpvsClaims } from './ipvs-claims.ts';
import type { IpvsOptions } from './ipvs-options.ts';
import { ipvsPart, type IpvsPart, type SetMember } from './ipvs-port.ts';
import { ipvsSets, setName } from './ipvs-sets.ts';
import type { ProxiedPort } from './proxied-port.ts';

export interface IpvsChange {
  /** By set. */
  readonly members: ReadonlyMap<string, MemberChange>;
  readonly addresses: MemberChange;
  /** Virtual servers that came, went or changed, by serverKey(). */
  readonly servers: ReadonlySet<string>;
}

export class IpvsBook {
  readonly options: IpvsOptions;
  readonly #parts = new Map<string, IpvsPart & { readonly port: ProxiedPort }>();
  readonly #sets = new Map<string, Counter>();
  readonly #addresses = new Counter();
  readonly #claims = new IpvsClaims();

  constructor(options: IpvsOptions) {
    this.options = options;
    for (const { name } of ipvsSets(options.family)) this.#sets.set(name, new Counter());
  }

  /** The port of this key as it was taken in. */
  port(key: string): ProxiedPort | undefined {
    return this.#parts.get(key)?.port;
  }

  /** Takes in ports that may differ. */
  update(
    ports: Pick<ReadonlyMap<string, ProxiedPort>, 'get'>,
    changed: Iterable<string>,
  ): IpvsChange {
    const touched = new Set<string>();
    for (const key of changed) {
      const port = ports.get(key);
      const before = this.#parts.get(key);
      const after = port === undefined ? undefined : ipvsPart(port, this.options);
      const places = new Set<string>();
      for (const entry of before?.entries ?? []) places.add(entry.key);
      for (const entry of after?.entries ?? []) places.add(entry.key);
      const fates = [...places].flatMap((place) => this.#claims.members(place));
      // What stays is counted up before it is counted down, so that it is no change.
      if (after !== undefined) this.#count(after, 1);
      if (before !== undefined) this.#count(before, -1);
      for (const entry of before?.entries ?? []) this.#claims.delete(key, entry);
      for (const entry of after?.entries ?? []) this.#claims.add(key, entry);
      for (const place of places) {
        touched.add(place);
        this.#countMembers(this.#claims.members(place), 1);
      }
      this.#countMembers(fates, -1);
      if (port === undefined || after === undefined) this.#parts.delete(key);
      else this.#parts.set(key, { ...after, port });
    }
    const members = new Map<string, MemberChange>();
    for (const [name, counter] of this.#sets) {
      const change = counter.takeChange();
      if (change.added.length + change.removed.length > 0) members.set(name, change);
    }
    return { members, addresses: this.#addresses.takeChange(), servers: touched };
  }

  server(key: string): VirtualServer | undefined {
    return this.#claims.server(key);
  }

  /** Whether new connections there are refused or dropped, since nobody may take them. */
  refuses(key: string): boolean {
    return this.#claims.refuses(key);
  }

  servers(): ReadonlyMap<string, VirtualServer> {
    const servers = new Map<string, VirtualServer>();
    for (const key of this.#claims.keys()) {
      const server = this.server(key);
      if (server !== undefined) servers.set(key, server);
    }
    return servers;
  }

  sets(): readonly IpSet[] {
    return ipvsSets(this.options.family).map((kind) => ({
      ...kind,
      members: new Set(this.#sets.get(kind.name)?.keys() ?? []),
    }));
  }

  /** How many members a set has. */
  sizeOf(set: string): number {
    return this.#sets.get(set)?.size ?? 0;
  }

  addresses(): ReadonlySet<string> {
    return new Set(this.#addresses.keys());
  }

  #count({ addresses, members }: IpvsPart, by: 1 | -1): void {
    for (const address of addresses) this.#addresses.add(address, by);
    this.#countMembers(members, by);
  }

  #countMembers(members: Iterable<SetMember>, by: 1 | -1): void {
    for (const [set, member] of members) {
      this.#sets.get(setName(set, this.options.family))?.add(member, by);
    }
  }
}

/** Things that several may want at a time. */
class Counter {
  readonly #counts = new Map<string, number>();
  /** As it was when the change was last taken. */
  readonly #before = new Map<string, boolean>();

  get size(): number {
    return this.#counts.size;
  }

  keys(): Iterable<string> {
    return this.#counts.keys();
  }

  add(item: string, by: 1 | -1): void {
    const count = this.#counts.get(item) ?? 0;
    if (!this.#before.has(item)) this.#before.set(item, count > 0);
    if (count + by === 0) this.#counts.delete(item);
    else this.#counts.set(item, count + by);
  }

  takeChange(): MemberChange {
    const added: string[] = [];
    const removed: string[] = [];
    for (const [item, was] of this.#before) {
      const is = this.#counts.has(item);
      if (is && !was) added.push(item);
      else if (was && !is) removed.push(item);
    }
    this.#before.clear();
    return { added, removed };
  }
}
