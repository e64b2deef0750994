/** Writes one family's ports as iptables rules, and what the host must allow for them to work. */
import type { Clock } from '#pkg/clock/clock.ts';
import type { ProxyConfig } from '#pkg/config/proxy-config.ts';
import { AgentError, isErrno } from '#pkg/errors/agent-error.ts';
import type { Family } from '#pkg/ip/address.ts';
import type { Step } from '#pkg/iptables/plan.ts';
import type { ObservedRuleset, Ruleset } from '#pkg/iptables/ruleset.ts';
import type { Logger } from '#pkg/log/logger.ts';
import type { ProxyMetrics } from '#pkg/metrics/proxy-metrics.ts';
import { abandonedDestinations } from '#pkg/proxy/abandoned-destinations.ts';
import { IptablesBook } from '#pkg/proxy/iptables-book.ts';
import { servesLocalhost, type IptablesOptions } from '#pkg/proxy/iptables-options.ts';
import type { PortSource } from '#pkg/proxy/iptables-rules.ts';
import type { ProxiedPort } from '#pkg/proxy/proxied-port.ts';
import { destinationKey, type ServiceDestination } from '#pkg/proxy/flow-destinations.ts';
import { partsInSlices } from '#pkg/reconcile/slices.ts';
import type { ProxyHost } from './host.ts';
import { isolate } from './isolate.ts';
import { ParkedPorts } from './parked-ports.ts';
import type { FamilyWriter, Wanted } from './proxy-mode.ts';
import { iptablesOptions } from './round-options.ts';
import type { RulesWriter } from './rules-writer.ts';
import { countRules, linesIn, rulesIn } from './step-counts.ts';

export interface IptablesWriterParts {
  readonly family: Family;
  /** The iptables here knows MASQUERADE --random-fully. */
  readonly randomFully: boolean;
  readonly rules: RulesWriter;
  readonly config: ProxyConfig;
  readonly host: ProxyHost;
  readonly metrics: Pick<ProxyMetrics, 'iptablesRules' | 'restoreFailed'>;
  /** A port the kernel refuses was left out. */
  readonly onParked: (port: ProxiedPort, error: unknown) => void;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface IptablesWriter extends FamilyWriter {
  /** What must be there of what was written; undefined while that is in doubt. */
  readonly written: Ruleset | undefined;
}

/** What a write is about. */
interface Target {
  readonly ports: PortSource;
  readonly options: IptablesOptions;
  readonly signal: AbortSignal;
}

/** So many bad ports in one write, and it is not them. */
const maxGuilty = 16;

export function createIptablesWriter(parts: IptablesWriterParts): IptablesWriter {
  const { family, log, metrics, randomFully, rules } = parts;
  const parked = new ParkedPorts(parts.clock, parts.onParked);
  let book: IptablesBook | undefined;
  let written: Ruleset | undefined;
  let localnetRefused = false;
  /** By key, until a write has succeeded; then undefined. */
  let abandoned: Map<string, ServiceDestination> | undefined = new Map();

  /** One attempt to bring the kernel from what the book says to what it says after the changes. */
  async function attempt(
    { options, ports, signal }: Target,
    changed: ReadonlySet<string> | 'all',
  ): Promise<{ readonly kind: 'full' | 'partial'; readonly steps: readonly Step[] }> {
    written = undefined;
    let kind = rules.nextKind;
    const wasKnown = rules.isKnown;
    book ??= new IptablesBook(options);
    const changes = await partsInSlices(book.updateInParts(ports, changed, options));
    if (changes === undefined) kind = 'full';
    try {
      const steps: Step[] = [];
      let isAsExpected = false;
      if (changes !== undefined && (kind === 'partial' || wasKnown)) {
        // What is known to be different need not wait until everything is read, which takes seconds.
        try {
          steps.push(...(await rules.writeChange(changes, signal)));
          isAsExpected = true;
        } catch (error) {
          signal.throwIfAborted();
          // Somebody may have taken away what it changes.
          if (kind === 'partial') throw error;
        }
      }
      if (kind === 'full') {
        const want = await partsInSlices(book.rulesetInParts());
        const onFound = (found: ObservedRuleset): void => {
          if (abandoned === undefined) return;
          for (const place of abandonedDestinations(want, found)) {
            abandoned.set(destinationKey(place), place);
          }
        };
        const expected = isAsExpected ? want : undefined;
        steps.push(...(await rules.writeAll(want, expected, signal, onFound)));
      }
      if (rules.nextKind === 'partial') written = book.landmarks();
      return { kind, steps };
    } catch (error) {
      if (isErrno(error, 'IptablesRestoreFailed')) metrics.restoreFailed(family, kind);
      throw error;
    }
  }

  /**
   * Writes all but the ports that the kernel refuses. While it looks for them, ports that changed
   * stay as they were before.
   */
  async function attemptWithoutBad(
    target: Target,
    suspects: ReadonlySet<string>,
    before: ReadonlyMap<string, ProxiedPort | undefined>,
  ): Promise<readonly Step[]> {
    const { ports } = target;
    const held = new Map([...suspects].map((key) => [key, before.get(key)]));
    const source: PortSource = {
      get: (key) => (held.has(key) ? held.get(key) : ports.get(key)),
      keys: () => new Set([...ports.keys(), ...held.keys()]).values(),
    };
    const steps: Step[] = [];
    const step = async (): Promise<void> => {
      steps.push(...(await attempt({ ...target, ports: source }, suspects)).steps);
    };
    await step();
    const admit = async (keys: readonly string[]): Promise<void> => {
      for (const key of keys) held.delete(key);
      await step().catch((error: unknown) => {
        for (const key of keys) held.set(key, before.get(key));
        throw error;
      });
    };
    const guilty = await isolate([...suspects], admit, { isFault: isRefusal, maxGuilty });
    for (const [key, error] of guilty) {
      held.set(key, undefined);
      parked.park(key, ports.get(key), error);
    }
    await step();
    return steps;
  }

  async function write({ changed, node, ports }: Wanted, signal: AbortSignal) {
    const options = iptablesOptions({ ...parts, node }, { family, randomFully });
    const released = parked.release(changed);
    const keys = changed === 'all' ? changed : new Set([...changed, ...released]);
    const served: PortSource = {
      get: (key) => (parked.has(key) ? undefined : ports.get(key)),
      keys: () => ports.keys(),
    };
    const target = { ports: served, options, signal };
    const before = new Map(
      keys === 'all' ? [] : [...keys].map((key) => [key, book?.ports.get(key)] as const),
    );
    let result: { readonly kind: 'full' | 'partial'; readonly steps: readonly Step[] };
    try {
      result = await attempt(target, keys);
    } catch (error) {
      signal.throwIfAborted();
      const suspects = keys === 'all' ? ownersOf(rules.attempted) : keys;
      if (!isRefusal(error) || suspects.size === 0) throw error;
      log.warn(
        { err: error, family, ports: suspects.size },
        'Looking for the rule that is refused',
      );
      const steps = await attemptWithoutBad(target, suspects, before);
      result = { kind: 'full', steps };
    }
    const { kind, steps } = result;
    metrics.iptablesRules(family, countRules(book?.counts() ?? new Map(), steps));
    // After the rules: among them is the guard of what this opens.
    if (servesLocalhost(options)) openLocalhost(ports.values());
    const report = { kind, written: linesIn(steps) };
    if (abandoned === undefined) return report;
    const places = [...abandoned.values()];
    abandoned = undefined;
    return { ...report, abandoned: places };
  }

  /** The ports that a write concerned. */
  function ownersOf(steps: readonly Step[]): ReadonlySet<string> {
    const chains = new Set(steps.map(({ chain }) => chain));
    const inserted = new Set(steps.flatMap(rulesIn));
    return book?.ownersOf(chains, inserted) ?? new Set();
  }

  /** Only with a node port to serve: the setting concerns the whole host. */
  function openLocalhost(ports: Iterable<ProxiedPort>): void {
    if (!hasNodePort(ports)) return;
    try {
      parts.host.allowRouteLocalnet();
      localnetRefused = false;
    } catch (err) {
      if (!localnetRefused) log.warn({ err }, 'Node ports will not answer on 127.0.0.1');
      localnetRefused = true;
    }
  }

  return {
    write,
    doubt: () => {
      rules.doubt();
      written = undefined;
    },
    get written() {
      return written;
    },
  };
}

/** Whether iptables named a rule that it or the kernel does not take. */
function isRefusal(error: unknown): boolean {
  return (
    error instanceof AgentError &&
    isErrno(error, 'IptablesRestoreFailed') &&
    error.details?.['near'] !== undefined
  );
}

function hasNodePort(ports: Iterable<ProxiedPort>): boolean {
  for (const port of ports) if (port.nodePort !== 0) return true;
  return false;
}
