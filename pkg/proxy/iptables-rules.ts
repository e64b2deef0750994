/** The iptables rules of one family's ports under one set of options, each port's rendered once. */
import { sameRules } from '#pkg/iptables/plan.ts';
import type {
  RuleEdit,
  Rules,
  Ruleset,
  Table,
  TableChange,
  TableName,
} from '#pkg/iptables/ruleset.ts';
import type { Parts } from '#pkg/reconcile/parts.ts';
import { AddressTree, type AddressRule } from './address-tree.ts';
import { baseRules, chains, type BaseRules } from './iptables-base.ts';
import { serviceRules, type RenderContext, type ServiceRules } from './iptables-service.ts';
import { byName, type ProxiedPort } from './proxied-port.ts';
import { SharedChain } from './shared-chain.ts';

/** Where ports are looked up; a Map of them is one. */
export type PortSource = Pick<ReadonlyMap<string, ProxiedPort>, 'get' | 'keys'>;

interface Entry {
  readonly port: ProxiedPort;
  readonly rules: ServiceRules;
}

/** A change of one table while it is gathered. */
interface Draft {
  readonly put: Map<string, Rules>;
  readonly gone: Set<string>;
  readonly edits: Map<string, RuleEdit>;
}

export class IptablesRules {
  readonly #entries = new Map<string, Entry>();
  readonly #context: RenderContext;
  readonly #base: BaseRules;
  readonly #shared = {
    filterServices: new SharedChain(),
    filterExternal: new SharedChain(),
    filterNodePorts: new SharedChain(),
    filterFirewall: new SharedChain(),
    natServices: new SharedChain(),
    natNodePorts: new SharedChain(),
  };
  /** Of the layout `tree` only. */
  readonly #tree: AddressTree | undefined;
  #ownRules = 0;

  constructor(context: RenderContext) {
    const { family, layout } = context.options;
    this.#context = context;
    this.#base = baseRules(context.options);
    this.#tree = layout === 'tree' ? new AddressTree(family, chains.services) : undefined;
  }

  get ports(): PortSource {
    return {
      get: (key) => this.#entries.get(key)?.port,
      keys: () => this.#entries.keys(),
    };
  }

  /** Renders the ports of these keys anew, unless they are the same, and tells what is different. */
  *take(ports: PortSource, keys: ReadonlySet<string>): Parts<TableChange[]> {
    const nat = emptyDraft();
    const removed: AddressRule[] = [];
    const added: AddressRule[] = [];
    for (const key of keys) {
      const [old, port] = [this.#entries.get(key), ports.get(key)];
      if (old?.port === port) continue;
      const rules = port === undefined ? undefined : serviceRules(port, this.#context);
      removed.push(...(old?.rules.natServices ?? []));
      added.push(...(rules?.natServices ?? []));
      this.#takeOwn(old?.rules.natChains ?? [], rules?.natChains ?? [], nat);
      for (const [part, chain] of Object.entries(this.#shared) as [Part, SharedChain][]) {
        chain.put(key, rules === undefined ? [] : textsOf(rules, part));
      }
      if (port === undefined || rules === undefined) this.#entries.delete(key);
      else this.#entries.set(key, { port, rules });
      yield;
    }
    const filter = emptyDraft();
    this.#drain('filterServices', chains.services, filter);
    this.#drain('filterExternal', chains.externalServices, filter);
    this.#drain('filterNodePorts', chains.nodePorts, filter);
    this.#drain('filterFirewall', chains.proxyFirewall, filter);
    this.#drain('natNodePorts', chains.nodePorts, nat);
    if (this.#tree === undefined) this.#drain('natServices', chains.services, nat);
    else {
      this.#shared.natServices.takeEdit();
      const change = yield* this.#tree.updateInParts(removed, added);
      for (const [chain, rules] of change.put) nat.put.set(chain, this.#withEnd(chain, rules));
      for (const chain of change.gone) nat.gone.add(chain);
    }
    return [
      { name: 'filter', ...filter },
      { name: 'nat', ...nat },
    ];
  }

  *ruleset(): Parts<Ruleset> {
    const keys = this.#sortedKeys();
    const rulesOf = (part: Part): Rules => this.#shared[part].inOrder(keys);
    const dispatch =
      this.#tree?.chains ?? new Map<string, Rules>([[chains.services, rulesOf('natServices')]]);
    const nat = new Map<string, Rules>(this.#base.nat);
    for (const [chain, rules] of dispatch) nat.set(chain, this.#withEnd(chain, rules));
    nat.set(chains.nodePorts, rulesOf('natNodePorts'));
    for (const key of keys) {
      for (const [chain, rules] of this.#entries.get(key)?.rules.natChains ?? []) {
        nat.set(chain, rules);
      }
      yield;
    }
    return this.#rulesetOf(rulesOf, nat);
  }

  landmarks(): Ruleset {
    const nat = new Map<string, Rules>([
      ...this.#base.nat,
      [chains.services, this.#base.servicesEnd],
      [chains.nodePorts, this.#shared.natNodePorts.some],
    ]);
    return this.#rulesetOf((part) => this.#shared[part].some, nat);
  }

  counts(): ReadonlyMap<TableName, number> {
    const { filter, filterJumps, nat, natJumps, servicesEnd } = this.#base;
    const inLists = (...lists: Iterable<readonly [string, Rules]>[]): number =>
      lists.flatMap((list) => [...list]).reduce((count, [, rules]) => count + rules.length, 0);
    const s = this.#shared;
    return new Map([
      [
        'filter',
        inLists(filter, filterJumps) +
          s.filterServices.length +
          s.filterExternal.length +
          s.filterNodePorts.length +
          s.filterFirewall.length,
      ],
      [
        'nat',
        inLists(nat, natJumps) +
          servicesEnd.length +
          s.natServices.length +
          (this.#tree?.jumpCount ?? 0) +
          s.natNodePorts.length +
          this.#ownRules,
      ],
    ]);
  }

  ownersOf(chainNames: ReadonlySet<string>, rules: ReadonlySet<string>): ReadonlySet<string> {
    const owners = [...this.#entries].filter(
      ([, entry]) =>
        entry.rules.natChains.some(([chain]) => chainNames.has(chain)) ||
        parts.some((part) => textsOf(entry.rules, part).some((rule) => rules.has(rule))),
    );
    return new Set(owners.map(([key]) => key));
  }

  #takeOwn(
    before: ServiceRules['natChains'],
    after: ServiceRules['natChains'],
    { gone, put }: Draft,
  ): void {
    const had = new Map(before);
    for (const [chain, rules] of after) {
      const old = had.get(chain);
      if (old === undefined || !sameRules(old, rules)) put.set(chain, rules);
      this.#ownRules += rules.length - (old?.length ?? 0);
      had.delete(chain);
    }
    for (const [chain, rules] of had) {
      gone.add(chain);
      this.#ownRules -= rules.length;
    }
  }

  #drain(part: Part, chain: string, { edits, put }: Draft): void {
    const edit = this.#shared[part].takeEdit();
    if (edit === undefined) {
      const rules = this.#shared[part].inOrder(this.#sortedKeys());
      put.set(chain, part === 'natServices' ? this.#withEnd(chain, rules) : rules);
    } else if (edit.remove.length + edit.insert.length > 0) edits.set(chain, edit);
  }

  #withEnd(chain: string, rules: Rules): Rules {
    return chain === chains.services ? [...rules, ...this.#base.servicesEnd] : rules;
  }

  #sortedKeys(): string[] {
    return [...this.#entries]
      .toSorted(([, a], [, b]) => byName(a.port, b.port))
      .map(([key]) => key);
  }

  #rulesetOf(rulesOf: (part: Part) => Rules, nat: ReadonlyMap<string, Rules>): Ruleset {
    const { filter, filterJumps, mangle, natJumps, servicesEnd } = this.#base;
    const filterShared = [
      [chains.services, 'filterServices'],
      [chains.externalServices, 'filterExternal'],
      [chains.nodePorts, 'filterNodePorts'],
      [chains.proxyFirewall, 'filterFirewall'],
    ] as const;
    const filterTable: Table = {
      name: 'filter',
      chains: new Map<string, Rules>([
        ...filter,
        ...filterShared.map(([chain, part]): [string, Rules] => [chain, rulesOf(part)]),
      ]),
      jumps: filterJumps,
      unordered: new Map(filterShared.map(([chain]) => [chain, 0])),
    };
    const unordered = new Map<string, number>([[chains.nodePorts, 0]]);
    if (this.#tree === undefined) unordered.set(chains.services, servicesEnd.length);
    return {
      family: this.#context.options.family,
      tables: [
        filterTable,
        { name: 'nat', chains: nat, jumps: natJumps, unordered },
        { name: 'mangle', chains: new Map(mangle), jumps: new Map() },
      ],
    };
  }
}

type Part = keyof Omit<ServiceRules, 'natChains'>;
const parts: readonly Part[] = [
  'filterServices',
  'filterExternal',
  'filterNodePorts',
  'filterFirewall',
  'natServices',
  'natNodePorts',
];

function textsOf(rules: ServiceRules, part: Part): Rules {
  return part === 'natServices' ? rules.natServices.map(({ rule }) => rule) : rules[part];
}

function emptyDraft(): Draft {
  return { put: new Map(), gone: new Set(), edits: new Map() };
}
