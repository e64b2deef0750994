/**
 * The iptables rules of one family over time: which there are, and which became different when
 * Services or options did. Holds no clock and no socket; what it holds for a set of ports does not
 * depend on how they came.
 */
import { isDeepStrictEqual } from 'node:util';
import type { Ruleset, TableChange, TableName } from '#pkg/iptables/ruleset.ts';
import { atOnce, type Parts } from '#pkg/reconcile/parts.ts';
import type { IptablesOptions } from './iptables-options.ts';
import { IptablesRules, type PortSource } from './iptables-rules.ts';
import type { RenderContext } from './iptables-service.ts';

/** kube-proxy's largeClusterEndpointsThreshold. */
const largeClusterEndpoints = 1_000;

export class IptablesBook {
  #context: RenderContext;
  #rules: IptablesRules;
  #endpoints = 0;

  constructor(options: IptablesOptions) {
    this.#context = { options, endpointComments: true };
    this.#rules = new IptablesRules(this.#context);
  }

  /**
   * Takes in ports that changed. Returns what became different, or undefined when everything may be,
   * since the options changed.
   */
  update(...what: Parameters<IptablesBook['updateInParts']>): readonly TableChange[] | undefined {
    return atOnce(this.updateInParts(...what));
  }

  /**
   * The same, for who has other things to do: 20,000 Services take two seconds. Until it has ended
   * nothing else may be asked of the book.
   */
  *updateInParts(
    ports: PortSource,
    changed: ReadonlySet<string> | 'all',
    options: IptablesOptions,
  ): Parts<readonly TableChange[] | undefined> {
    const known = this.#rules.ports;
    const keys = new Set(changed === 'all' ? [...ports.keys(), ...known.keys()] : changed);
    for (const key of keys) {
      const before = known.get(key)?.endpoints.all.length ?? 0;
      this.#endpoints += (ports.get(key)?.endpoints.all.length ?? 0) - before;
    }
    const context = { options, endpointComments: this.#endpoints <= largeClusterEndpoints };
    if (isDeepStrictEqual(context, this.#context)) return yield* this.#rules.take(ports, keys);
    this.#context = context;
    this.#rules = new IptablesRules(context);
    yield* this.#rules.take(ports, new Set(ports.keys()));
    return undefined;
  }

  /** The ports whose rules are in the book. */
  get ports(): PortSource {
    return this.#rules.ports;
  }

  /** All rules. */
  ruleset(): Ruleset {
    return atOnce(this.rulesetInParts());
  }

  /** The same, for who has other things to do. */
  rulesetInParts(): Parts<Ruleset> {
    return this.#rules.ruleset();
  }

  /** The jumps, and a rule of each chain that is not of a single Service: a flush takes them all. */
  landmarks(): Ruleset {
    return this.#rules.landmarks();
  }

  /** How many rules there are, by table. */
  counts(): ReadonlyMap<TableName, number> {
    return this.#rules.counts();
  }

  /** The ports that have one of these chains, or one of these rules in a shared chain. */
  ownersOf(chains: ReadonlySet<string>, rules: ReadonlySet<string>): ReadonlySet<string> {
    return this.#rules.ownersOf(chains, rules);
  }
}
