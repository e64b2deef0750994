/**
 * Source NAT for what leaves the cluster: pods' packets to anywhere but pods, nodes and the
 * networks the configuration names get an address of this node. One nftables table of ours; its
 * rules never change with the cluster, only the elements of its sets do.
 */
import {
  addressBits,
  compareAddresses,
  families,
  formatAddress,
  type Address,
  type Family,
} from '#pkg/ip/address.ts';
import {
  containsPrefix,
  formatPrefix,
  hostPrefix,
  parsePrefix,
  type Prefix,
} from '#pkg/ip/prefix.ts';
import type { ElementSet, Rule, Ruleset, TableName } from '#pkg/nftables/ruleset.ts';

export const masqueradeTable: TableName = { family: 'inet', name: 'podwire-masquerade' };

/** The packet mark by which kube-proxy asks itself to masquerade (its --iptables-masquerade-bit 14). */
export const kubeProxyMark = '0x4000';

/**
 * Just before srcnat (100), where kube-proxy's POSTROUTING runs: it clears its mark there, and our
 * rule must see it.
 */
const postroutingPriority = 99;

export interface MasqueradeFacts {
  /** The pod ranges of this node: whose packets are masqueraded. */
  readonly ownPodCIDRs: readonly Prefix[];
  /** The pod ranges of every node. */
  readonly podCIDRs: Iterable<Prefix>;
  /** Node addresses pods reach under their own address. */
  readonly nodeAddresses: Iterable<Address>;
  readonly nonMasqueradeCIDRs: readonly Prefix[];
  /** Give random source ports; true by default. */
  readonly randomFully?: boolean;
}

/** The table for these facts; a family without pods on this node is left out. */
export function masqueradeRuleset(facts: MasqueradeFacts): Ruleset {
  const sets: ElementSet[] = [];
  const random = facts.randomFully === false ? '' : ' fully-random';
  const rules: Rule[] = [
    {
      text: `meta mark & ${kubeProxyMark} == ${kubeProxyMark} return`,
      why: 'kube-proxy masquerades these itself',
    },
  ];
  for (const family of families) {
    const own = facts.ownPodCIDRs.filter(({ address }) => address.family === family);
    if (own.length === 0) continue;
    const suffix = family === 'ip' ? '4' : '6';
    sets.push(
      addressSet(`pods${suffix}`, family, own),
      addressSet(exemptSetName(family), family, exemptPrefixes(family, facts)),
    );
    rules.push({
      // Random ports: two pods that pick one source port at once must not end in one tuple, which
      // the kernel would settle by dropping a packet.
      text: `${family} saddr @pods${suffix} ${family} daddr != @nomasq${suffix} masquerade${random}`,
      why: `pods leave the cluster as this node, IPv${suffix}`,
    });
  }
  if (sets.length === 0) return { tables: [] };
  const base = {
    type: 'nat',
    hook: 'postrouting',
    priority: postroutingPriority,
    policy: 'accept',
  } as const;
  return {
    tables: [
      { ...masqueradeTable, sets, maps: [], chains: [{ name: 'postrouting', base, rules }] },
    ],
  };
}

/** What is not masqueraded, in address order and without what lies in another. */
export function exemptPrefixes(family: Family, facts: MasqueradeFacts): readonly Prefix[] {
  const kept = [
    ...fixedExemptions,
    ...facts.podCIDRs,
    ...facts.nonMasqueradeCIDRs,
    ...[...facts.nodeAddresses].map(hostPrefix),
  ];
  return disjoint(kept.filter(({ address }) => address.family === family));
}

/** The set of a family's destinations that see pods' own addresses. */
export function exemptSetName(family: Family): string {
  return family === 'ip' ? 'nomasq4' : 'nomasq6';
}

/** Multicast, and IPv4's limited broadcast: what never leaves a link, seen with br_netfilter on. */
export const fixedExemptions: readonly Prefix[] = [
  '224.0.0.0/4',
  '255.255.255.255/32',
  'ff00::/8',
].map(parsePrefix);

function addressSet(name: string, family: Family, prefixes: readonly Prefix[]): ElementSet {
  return {
    name,
    type: family === 'ip' ? 'ipv4_addr' : 'ipv6_addr',
    interval: true,
    elements: new Set(disjoint(prefixes).map(elementOf)),
  };
}

/** In address order, without what lies in another: an interval set refuses overlaps. */
function disjoint(prefixes: readonly Prefix[]): readonly Prefix[] {
  const sorted = prefixes.toSorted(
    (a, b) => compareAddresses(a.address, b.address) || a.length - b.length,
  );
  const kept: Prefix[] = [];
  for (const prefix of sorted) {
    const last = kept.at(-1);
    if (last === undefined || !containsPrefix(last, prefix)) kept.push(prefix);
  }
  return kept;
}

/** As nft lists it: a prefix of one address is that address. */
function elementOf(prefix: Prefix): string {
  const isHost = prefix.length === addressBits(prefix.address.family);
  return isHost ? formatAddress(prefix.address) : formatPrefix(prefix);
}
