/**
 * What iptables has to do for pods: let them pass where the host drops what it forwards (Docker sets
 * that policy; a rule of nftables cannot lift it), and masquerade where there is no nft. Chains of
 * ours, each with one jump.
 */
import { families, type Family } from '#pkg/ip/address.ts';
import { formatPrefix, type Prefix } from '#pkg/ip/prefix.ts';
import { comment, formatRule } from '#pkg/iptables/rule.ts';
import { planIptables, type Step } from '#pkg/iptables/plan.ts';
import type { ObservedRuleset, Ruleset, Table } from '#pkg/iptables/ruleset.ts';
import { exemptPrefixes, kubeProxyMark, type MasqueradeFacts } from './masquerade.ts';

/** Whether a chain is the pod network's. */
export function isPodChain(name: string): boolean {
  return name.startsWith('PODWIRE-');
}

const forwardChain = 'PODWIRE-FORWARD';
const masqueradeChain = 'PODWIRE-MASQUERADE';

export interface PacketFilterFacts {
  readonly ownPodCIDRs: readonly Prefix[];
  /** Let what comes from and goes to pods pass, whatever the policy of the chain FORWARD is. */
  readonly forward: boolean;
  /** Undefined = nothing is to be masqueraded here. */
  readonly masquerade: MasqueradeFacts | undefined;
}

/** Both families' rules; one without pods here has none. */
export function packetFilterRulesets(facts: PacketFilterFacts): readonly Ruleset[] {
  return families.map((family) => {
    const own = facts.ownPodCIDRs.filter(({ address }) => address.family === family);
    const tables: Table[] = [];
    if (facts.forward && own.length > 0) tables.push(forwardTable(own));
    if (facts.masquerade !== undefined && own.length > 0) {
      tables.push(masqueradeTable(family, own, facts.masquerade));
    }
    return { family, tables };
  });
}

function forwardTable(own: readonly Prefix[]): Table {
  const why = comment('podwire: pods may send and be sent to');
  const rules = own
    .map(formatPrefix)
    .flatMap((prefix) => [
      formatRule({ source: prefix, matches: [why], target: 'ACCEPT' }),
      formatRule({ destination: prefix, matches: [why], target: 'ACCEPT' }),
    ]);
  const jump = formatRule({ matches: [comment('podwire: pod traffic')], target: forwardChain });
  return {
    name: 'filter',
    chains: new Map([[forwardChain, rules]]),
    jumps: new Map(),
    // Behind what others drop for a reason: kube-proxy's source ranges, a firewall, policies.
    tails: new Map([['FORWARD', [jump]]]),
  };
}

function masqueradeTable(family: Family, own: readonly Prefix[], facts: MasqueradeFacts): Table {
  const random = facts.randomFully === false ? '' : ' --random-fully';
  const rules = [
    formatRule({
      matches: [
        `-m mark --mark ${kubeProxyMark}/${kubeProxyMark}`,
        comment('podwire: kube-proxy masquerades these itself'),
      ],
      target: 'RETURN',
    }),
    ...exemptPrefixes(family, facts).map((prefix) =>
      formatRule({ destination: formatPrefix(prefix), target: 'RETURN' }),
    ),
    formatRule({
      matches: [comment('podwire: pods leave the cluster as this node')],
      target: `MASQUERADE${random}`,
    }),
  ];
  const why = comment('podwire: what pods send');
  return {
    name: 'nat',
    chains: new Map([[masqueradeChain, rules]]),
    jumps: new Map([
      [
        'POSTROUTING',
        own.map((prefix) =>
          formatRule({ source: formatPrefix(prefix), matches: [why], target: masqueradeChain }),
        ),
      ],
    ]),
  };
}

/** Steps from what a family's tables hold to what is wanted; our chains nobody wants any more go. */
export function planPacketFilter(want: Ruleset, have: ObservedRuleset): readonly Step[] {
  const leftovers = have.tables.flatMap((table): Step[] => {
    const wanted = want.tables.find(({ name }) => name === table.name);
    const gone = [...table.chains.keys()].filter((chain) => wanted?.chains.has(chain) !== true);
    const jumps = [...table.jumps].flatMap(([chain, rules]): Step[] => {
      const remove = rules.filter((rule) => gone.some((name) => rule.endsWith(`-j ${name}`)));
      return remove.length === 0
        ? []
        : [{ op: 'edit-chain', table: table.name, chain, remove, insert: [] }];
    });
    return [
      ...jumps,
      ...gone.map((chain): Step => ({ op: 'delete-chain', table: table.name, chain })),
    ];
  });
  return [...planIptables(want, have), ...leftovers];
}
