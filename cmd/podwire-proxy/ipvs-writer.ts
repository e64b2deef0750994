/** Writes one family's ports as virtual servers, sets and addresses of the host. */
import { isDeepStrictEqual } from 'node:util';
import type { Clock } from '#pkg/clock/clock.ts';
import type { Family } from '#pkg/ip/address.ts';
import { planMembers } from '#pkg/ipset/plan.ts';
import type { Ruleset } from '#pkg/iptables/ruleset.ts';
import { afterPlan, planIpvs } from '#pkg/ipvs/plan.ts';
import type { VirtualServer } from '#pkg/ipvs/virtual-server.ts';
import type { NodeRecord } from '#pkg/kube/types.ts';
import type { Logger } from '#pkg/log/logger.ts';
import { IpvsBook } from '#pkg/proxy/ipvs-book.ts';
import { foreignAddresses, type IpvsOptions } from '#pkg/proxy/ipvs-options.ts';
import { ipvsRuleset } from '#pkg/proxy/ipvs-rules.ts';
import { ipvsSets } from '#pkg/proxy/ipvs-sets.ts';
import type { ProxiedPort } from '#pkg/proxy/proxied-port.ts';
import { inSlices } from '#pkg/reconcile/slices.ts';
import { compareAll, keepLeaving, unwantedBeside } from './ipvs-comparison.ts';
import { leavingOf, takeIdle } from './ipvs-drain.ts';
import { applyInOrder, isIpvsRefusal, type IpvsDriver } from './ipvs-driver.ts';
import { ParkedPorts } from './parked-ports.ts';
import type { FamilyWriter, Wanted, WriteReport } from './proxy-mode.ts';
import type { RulesWriter } from './rules-writer.ts';
import { writeWithoutRefused, type PortView } from './without-refused.ts';

export interface IpvsWriterParts {
  readonly family: Family;
  readonly driver: IpvsDriver;
  readonly rules: RulesWriter;
  readonly options: (
    node: NodeRecord | undefined,
    hostAddresses: readonly string[],
  ) => Omit<IpvsOptions, 'foreignAddresses'>;
  /** Canonical addresses of other hosts; undefined while they are not known. */
  readonly otherHosts: () => ReadonlySet<string> | undefined;
  /** Whether an unwanted virtual server may be deleted. */
  readonly isOurs: (server: VirtualServer) => boolean;
  readonly observeIntervalMs: number;
  /** A port the kernel refuses was left out. */
  readonly onParked: (port: ProxiedPort, error: unknown) => void;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface IpvsWriter extends FamilyWriter {
  /** What must be there of the rules; undefined while that is in doubt. */
  readonly written: Ruleset | undefined;
  /** What must be there of the rest; another object after each write. */
  readonly known: IpvsKnown | undefined;
}

export interface IpvsKnown {
  /** By serverKey(). */
  readonly servers: ReadonlyMap<string, VirtualServer>;
  /** How many members each set has. */
  readonly sets: ReadonlyMap<string, number>;
  /** On the device for Services. */
  readonly addresses: ReadonlySet<string>;
}

/** Endpoints that are leaving are asked for their connections this often. */
const drainIntervalMs = 15_000;

/** Comparing takes at most this part of the time: ipvsadm asks for each virtual server apart. */
const observeShare = 50;

const never = Number.NEGATIVE_INFINITY;

export function createIpvsWriter(parts: IpvsWriterParts): IpvsWriter {
  const { clock, driver, family, isOurs, rules } = parts;
  const parked = new ParkedPorts(clock, parts.onParked);
  let book: IpvsBook | undefined;
  /** What the kernel has, as far as we know; undefined = in doubt. */
  let have: Map<string, VirtualServer> | undefined;
  let known: IpvsKnown | undefined;
  let room = new Map<string, number>();
  let written: Ruleset | undefined;
  let dueAtMs = never;
  let drainedAtMs = never;

  /** @param areKept others are: what is not in the book may be served all the same */
  async function writeAll(next: IpvsBook, areKept: boolean, signal: AbortSignal): Promise<number> {
    const startedMs = clock.monotonicMs();
    have = undefined;
    // Before it is read: a doubt that comes meanwhile stands.
    dueAtMs = startedMs + parts.observeIntervalMs;
    const servers = await driver.servers(signal);
    const found = {
      servers: new Map([...servers].filter(([, server]) => server.family === family)),
      sets: await driver.sets(signal),
      addresses: driver.boundAddresses(),
    };
    const comparison = compareAll(next, found, { areKept, isOurs });
    const ruleset = ipvsRuleset(next.options);
    const writeRules = () => rules.writeAll(ruleset, written, signal);
    const costMs = clock.monotonicMs() - startedMs;
    if (dueAtMs !== never) {
      dueAtMs = startedMs + Math.max(parts.observeIntervalMs, observeShare * costMs);
    }
    const count = await applyInOrder(driver, { ...comparison.steps, writeRules }, signal);
    written = ruleset;
    room = comparison.room;
    // With others there it is not known what is.
    if (!areKept) have = comparison.servers;
    return count;
  }

  /** Undefined when the change is more than a change: then everything must be written. */
  async function writeChange(
    current: IpvsBook,
    present: Map<string, VirtualServer>,
    { changed, ports }: { readonly changed: Iterable<string>; readonly ports: PortView },
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
    const unwanted = unwantedBeside(current, isOurs);
    const servers = planIpvs(wanted, before, unwanted);
    const { addresses } = change;
    const steps = { servers, sets, addresses, writeRules: undefined };
    const count = await applyInOrder(driver, steps, signal);
    for (const key of change.servers) {
      const server = wanted.get(key);
      const there = before.get(key);
      if (server !== undefined) present.set(key, afterPlan(server, there));
      else if (there !== undefined) keepLeaving(present, there, unwanted);
    }
    have = present;
    return count;
  }

  /** Takes endpoints away that were leaving and whose last connection has ended. */
  async function drain(signal: AbortSignal): Promise<void> {
    if (have === undefined || clock.monotonicMs() - drainedAtMs < drainIntervalMs) return;
    drainedAtMs = clock.monotonicMs();
    const leaving = leavingOf(have);
    if (leaving.size === 0) return;
    const connections = await driver.connections(new Set(leaving.keys()), signal);
    const steps = takeIdle(have, leaving, connections);
    await driver.applyServers(steps, signal).catch((error: unknown) => {
      have = undefined;
      throw error;
    });
    if (steps.length > 0)
      parts.log.debug({ family, steps: steps.length }, 'Idle endpoints are gone');
  }

  /** What must be told to the kernel anew, whatever is known of it. */
  function isFullDue(options: IpvsOptions): boolean {
    return (
      !isDeepStrictEqual(book?.options, options) ||
      clock.monotonicMs() >= dueAtMs ||
      rules.nextKind === 'full'
    );
  }

  /** One attempt to bring the kernel to what is to be served. */
  async function attempt(
    { options, ports }: { readonly options: IpvsOptions; readonly ports: ServedPorts },
    changed: ReadonlySet<string> | 'all',
    areKept: boolean,
    signal: AbortSignal,
  ): Promise<WriteReport> {
    if (book !== undefined && have !== undefined && changed !== 'all' && !isFullDue(options)) {
      const count = await writeChange(book, have, { changed, ports }, signal);
      if (count !== undefined) return { kind: 'partial', written: count };
    }
    if (book === undefined || changed === 'all' || !isDeepStrictEqual(book.options, options)) {
      const whole = new IpvsBook(options);
      await inSlices(ports.keys(), (key) => whole.update(ports, [key]));
      book = whole;
    } else {
      // Keys of a failed write come again: the book may be ahead of the kernel, never behind.
      book.update(ports, changed);
    }
    return { kind: 'full', written: await writeAll(book, areKept, signal) };
  }

  async function write({ changed, node, ports }: Wanted, signal: AbortSignal) {
    known = undefined;
    const options = {
      ...parts.options(node, driver.ownAddresses()),
      foreignAddresses: foreignAddresses(ports.values(), parts.otherHosts),
    };
    const released = parked.release(changed);
    const keys = changed === 'all' ? changed : new Set([...changed, ...released]);
    const served: ServedPorts = {
      get: (key) => (parked.has(key) ? undefined : ports.get(key)),
      keys: () => ports.keys(),
    };
    const old = book;
    // What a failed write was to write may not be there: nor is that so of a process that is new.
    const isKnown = have !== undefined;
    const ofChanged = new Map(
      keys === 'all' ? [] : [...keys].map((key) => [key, old?.port(key)] as const),
    );
    let report: WriteReport;
    try {
      report = await attempt({ options, ports: served }, keys, false, signal);
    } catch (err) {
      signal.throwIfAborted();
      // With other options each port is written anew.
      const isAnew = book !== old;
      const suspects = keys === 'all' || isAnew ? new Set(ports.keys()) : keys;
      if (!isIpvsRefusal(err) || suspects.size === 0) throw err;
      parts.log.warn({ err, family, ports: suspects.size }, 'Looking for the port that is refused');
      let count = 0;
      const attemptAt = async (view: PortView, of: ReadonlySet<string>, areKept: boolean) => {
        const target = { options, ports: { ...view, keys: served.keys } };
        count += (await attempt(target, of, areKept, signal)).written;
      };
      const before = isAnew ? { get: (key: string) => old?.port(key) } : ofChanged;
      await writeWithoutRefused({
        ports: served,
        suspects,
        before: isKnown ? before : nothing,
        attempt: (view, of) => attemptAt(view, of, !isKnown),
        isFault: isIpvsRefusal,
        parked,
      });
      if (!isKnown) await attemptAt(served, suspects, false);
      report = { kind: 'full', written: count };
    }
    await drain(signal);
    if (have !== undefined && book !== undefined) known = knownOf(book, have);
    return report;
  }

  return {
    write,
    doubt: () => {
      rules.doubt();
      written = undefined;
      known = undefined;
      dueAtMs = never;
    },
    get written() {
      return written;
    },
    get known() {
      return known;
    },
  };
}

const nothing: PortView = { get: () => undefined };

type ServedPorts = PortView & Pick<Wanted['ports'], 'keys'>;

/** Made when it is looked at: most writes are followed by another before somebody looks. */
function knownOf(book: IpvsBook, servers: ReadonlyMap<string, VirtualServer>): IpvsKnown {
  return {
    servers,
    get sets() {
      return new Map(ipvsSets(book.options.family).map(({ name }) => [name, book.sizeOf(name)]));
    },
    get addresses() {
      return book.addresses();
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
