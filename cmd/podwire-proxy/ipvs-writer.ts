/** Writes one family's ports as virtual servers, sets and addresses of the host. */
import { isDeepStrictEqual } from 'node:util';
import type { Clock } from '#pkg/clock/clock.ts';
import type { Family } from '#pkg/ip/address.ts';
import { roomFor, type ObservedIpSet } from '#pkg/ipset/ip-set.ts';
import { planIpSets, planMembers, type IpSetStep, type MemberChange } from '#pkg/ipset/plan.ts';
import type { Step } from '#pkg/iptables/plan.ts';
import type { Ruleset } from '#pkg/iptables/ruleset.ts';
import { afterPlan, planIpvs, type IpvsPlan, type IpvsStep } from '#pkg/ipvs/plan.ts';
import { endpointText, type VirtualServer } from '#pkg/ipvs/virtual-server.ts';
import type { NodeRecord } from '#pkg/kube/types.ts';
import { IpvsBook } from '#pkg/proxy/ipvs-book.ts';
import type { IpvsOptions } from '#pkg/proxy/ipvs-options.ts';
import { ipvsRuleset } from '#pkg/proxy/ipvs-rules.ts';
import { ipvsSets } from '#pkg/proxy/ipvs-sets.ts';
import type { FamilyWriter, Wanted, WriteReport } from './proxy-mode.ts';
import type { RulesWriter } from './rules-writer.ts';

/** The kernel calls this needs; `ipvs-mode.ts` has those of the host. */
export interface IpvsDriver {
  sets(signal: AbortSignal): Promise<ReadonlyMap<string, ObservedIpSet>>;
  servers(signal: AbortSignal): Promise<ReadonlyMap<string, VirtualServer>>;
  connections(key: string, signal: AbortSignal): Promise<ReadonlyMap<string, number>>;
  /** On the device for Services. */
  boundAddresses(): ReadonlySet<string>;
  /** The host's own. */
  ownAddresses(): readonly string[];
  applySets(steps: readonly IpSetStep[], signal: AbortSignal): Promise<void>;
  applyServers(steps: readonly IpvsStep[], signal: AbortSignal): Promise<void>;
  applyAddresses(change: MemberChange): void;
}

export interface IpvsWriterParts {
  readonly family: Family;
  readonly driver: IpvsDriver;
  readonly rules: RulesWriter;
  readonly options: (node: NodeRecord | undefined, hostAddresses: readonly string[]) => IpvsOptions;
  /** Whether an unwanted virtual server may be deleted. */
  readonly isOurs: (server: VirtualServer) => boolean;
  readonly observeIntervalMs: number;
  readonly clock: Clock;
}

export interface IpvsWriter extends FamilyWriter {
  /** What must be there of the rules; undefined while that is in doubt. */
  readonly written: Ruleset | undefined;
}

/** Endpoints that are leaving are asked for their connections this often. */
const drainIntervalMs = 15_000;

export function createIpvsWriter(parts: IpvsWriterParts): IpvsWriter {
  const { clock, driver, family, isOurs, rules } = parts;
  let book: IpvsBook | undefined;
  /** What the kernel has, as far as we know; undefined = in doubt. */
  let have: Map<string, VirtualServer> | undefined;
  let room = new Map<string, number>();
  let written: Ruleset | undefined;
  let observedAtMs = Number.NEGATIVE_INFINITY;
  let drainedAtMs = Number.NEGATIVE_INFINITY;

  /**
   * Virtual servers before packets are sent to them, and gone after nothing leads there. Addresses
   * come last: before, packets to them do not come in at all.
   */
  async function apply(
    steps: {
      readonly servers: IpvsPlan;
      readonly sets: readonly IpSetStep[];
      readonly addresses: MemberChange;
      readonly ruleset: Ruleset | undefined;
    },
    signal: AbortSignal,
  ): Promise<number> {
    const { addresses, ruleset, servers, sets } = steps;
    await driver.applyServers(servers.puts, signal);
    await driver.applySets(sets, signal);
    let ruleSteps: readonly Step[] = [];
    if (ruleset !== undefined) ruleSteps = await rules.writeAll(ruleset, written, signal);
    driver.applyAddresses(addresses);
    await driver.applyServers(servers.deletions, signal);
    const counts = [servers.puts, servers.deletions, sets, ruleSteps];
    const changed = addresses.added.length + addresses.removed.length;
    return counts.reduce((sum, list) => sum + list.length, changed);
  }

  async function writeAll(next: IpvsBook, signal: AbortSignal): Promise<number> {
    const startedMs = clock.now();
    have = undefined;
    const observed = await driver.servers(signal);
    const ofFamily = new Map([...observed].filter(([, server]) => server.family === family));
    const sets = await driver.sets(signal);
    const bound = driver.boundAddresses();
    const wanted = next.servers();
    const wantedAddresses = next.addresses();
    const ruleset = ipvsRuleset(next.options);
    const servers = planIpvs(wanted, ofFamily, isOurs);
    const count = await apply(
      {
        servers,
        sets: planIpSets(next.sets(), sets),
        addresses: {
          added: [...wantedAddresses].filter((address) => !bound.has(address)),
          removed: [...bound].filter((address) => !wantedAddresses.has(address)),
        },
        ruleset,
      },
      signal,
    );
    have = new Map([...wanted].map(([key, server]) => [key, afterPlan(server, ofFamily.get(key))]));
    room = new Map(
      ipvsSets(family).map(({ name }) => {
        const size = next.sizeOf(name);
        const present = sets.get(name)?.maxMembers;
        return [name, present === undefined || present < size ? roomFor(size) : present];
      }),
    );
    written = ruleset;
    observedAtMs = startedMs;
    return count;
  }

  /** Undefined when the change is more than a change: then everything must be written. */
  async function writeChange(
    current: IpvsBook,
    present: Map<string, VirtualServer>,
    { changed, ports }: { readonly changed: ReadonlySet<string>; readonly ports: Wanted['ports'] },
    signal: AbortSignal,
  ): Promise<number | undefined> {
    const change = current.update(ports, changed);
    const sizes = new Map(
      [...change.members.keys()].map((name) => [
        name,
        { size: current.sizeOf(name), room: room.get(name) ?? 0 },
      ]),
    );
    const sets = planMembers(change.members, sizes);
    have = undefined;
    if (sets === undefined) return undefined;
    const wanted = pick(change.servers, (key) => current.server(key));
    const before = pick(change.servers, (key) => present.get(key));
    const servers = planIpvs(wanted, before, isOurs);
    const count = await apply(
      { servers, sets, addresses: change.addresses, ruleset: undefined },
      signal,
    );
    for (const key of change.servers) {
      const server = wanted.get(key);
      if (server === undefined) present.delete(key);
      else present.set(key, afterPlan(server, present.get(key)));
    }
    have = present;
    return count;
  }

  /** Takes endpoints away that were leaving and whose last connection has ended. */
  async function drain(present: Map<string, VirtualServer>, signal: AbortSignal): Promise<number> {
    if (clock.now() - drainedAtMs < drainIntervalMs) return 0;
    drainedAtMs = clock.now();
    const steps: IpvsStep[] = [];
    for (const [key, server] of present) {
      const leaving = server.realServers.filter(({ weight }) => weight === 0);
      if (leaving.length === 0) continue;
      const connections = await driver.connections(key, signal);
      const idle = leaving.filter((real) => (connections.get(endpointText(real)) ?? 0) === 0);
      if (idle.length === 0) continue;
      steps.push(...idle.map((real): IpvsStep => ({ op: 'delete-real', key, real })));
      const realServers = server.realServers.filter((real) => !idle.includes(real));
      present.set(key, { ...server, realServers });
    }
    await driver.applyServers(steps, signal).catch((error: unknown) => {
      have = undefined;
      throw error;
    });
    return steps.length;
  }

  /** What must be told to the kernel anew, whatever is known of it. */
  function isFullDue(options: IpvsOptions, { changed }: Wanted): boolean {
    return (
      changed === 'all' ||
      !isDeepStrictEqual(book?.options, options) ||
      clock.now() - observedAtMs >= parts.observeIntervalMs ||
      rules.nextKind === 'full'
    );
  }

  async function write(want: Wanted, signal: AbortSignal): Promise<WriteReport> {
    const { changed, ports } = want;
    const options = parts.options(want.node, driver.ownAddresses());
    if (book !== undefined && have !== undefined && changed !== 'all') {
      if (!isFullDue(options, want)) {
        const count = await writeChange(book, have, { changed, ports }, signal);
        if (count !== undefined && have !== undefined) {
          return { kind: 'partial', written: count + (await drain(have, signal)) };
        }
      }
    }
    if (book === undefined || changed === 'all' || !isDeepStrictEqual(book.options, options)) {
      book = new IpvsBook(options);
      book.update(ports, ports.keys());
    } else {
      // Keys of a failed write come again: the book may be ahead of the kernel, never behind.
      book.update(ports, changed);
    }
    const count = await writeAll(book, signal);
    return { kind: 'full', written: count + (have === undefined ? 0 : await drain(have, signal)) };
  }

  return {
    write,
    doubt: () => {
      rules.doubt();
      written = undefined;
      observedAtMs = Number.NEGATIVE_INFINITY;
    },
    get written() {
      return written;
    },
  };
}

function pick<T>(
  keys: Iterable<string>,
  get: (key: string) => T | undefined,
): ReadonlyMap<string, T> {
  const found = new Map<string, T>();
  for (const key of keys) {
    const value = get(key);
    if (value !== undefined) found.set(key, value);
  }
  return found;
}
