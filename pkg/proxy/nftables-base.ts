/**
 * The structure of a family's table: what is there whatever the Services, and the on-demand chains
 * that their elements lead to.
 */
import { createHash } from 'node:crypto';
import { formatPrefix } from '#pkg/ip/prefix.ts';
import { renderTable } from '#pkg/nftables/render.ts';
import type { BaseChain, Chain, Rule, Table } from '#pkg/nftables/ruleset.ts';
import { localMatch } from './local-detector.ts';
import { affinityRules, onDemandChain } from './nftables-affinity.ts';
import { markBit, type NftablesOptions } from './nftables-options.ts';
import { front, pickChain, pickChains, portKey } from './nftables-pick.ts';
import { affinityMap, proxyMaps, proxySets, proxyTableName } from './nftables-sets.ts';

/**
 * The table without elements. `chains` names on-demand chains. Its comment
 * ends with a digest of all but on-demand chains: who reads the table back knows what made it.
 */
export function proxySkeleton(options: NftablesOptions, chains: Iterable<string>): Table {
  const core: Table = {
    family: options.family,
    name: proxyTableName,
    sets: proxySets(options.family, options.counters),
    maps: proxyMaps(options.family, options.counters),
    chains: [...baseChains(options), ...innerChains(options), ...pickChains(options.family)],
  };
  const digest = createHash('sha256').update(renderTable(core)).digest('hex').slice(0, 12);
  const onDemand = [...new Set(chains)].toSorted();
  return {
    ...core,
    comment: `Services of Kubernetes, by podwire-proxy #${digest}`,
    chains: [...core.chains, ...onDemand.map((name) => onDemandChain(name, options))],
  };
}

function baseChains(options: NftablesOptions): Chain[] {
  const base = (
    name: string,
    place: Pick<BaseChain, 'type' | 'hook' | 'priority'>,
    rules: readonly Rule[],
  ): Chain => ({ name, base: { ...place, policy: 'accept' }, rules });
  const toServices: Rule[] = [{ text: 'jump services', why: 'to Services' }];
  const fire = firewallRules(options);
  const remember: Rule[] = [
    { text: 'ct state new ct status dnat jump affinity', why: 'remember clients of Services' },
  ];
  const passing = [...noEndpointRules(options), ...clusterAddressRules(options)];
  const [early, nat, after] = [-110, -100, -99];
  return [
    base('firewall-prerouting', { type: 'filter', hook: 'prerouting', priority: early }, fire),
    base('firewall-output', { type: 'filter', hook: 'output', priority: early }, fire),
    base('nat-prerouting', { type: 'nat', hook: 'prerouting', priority: nat }, toServices),
    base('nat-output', { type: 'nat', hook: 'output', priority: nat }, toServices),
    base('affinity-prerouting', { type: 'filter', hook: 'prerouting', priority: after }, remember),
    base('affinity-output', { type: 'filter', hook: 'output', priority: after }, remember),
    base('filter-input', { type: 'filter', hook: 'input', priority: 0 }, noEndpointRules(options)),
    base('filter-forward', { type: 'filter', hook: 'forward', priority: 0 }, passing),
    base('filter-output', { type: 'filter', hook: 'output', priority: 0 }, passing),
    base(
      'nat-postrouting',
      { type: 'nat', hook: 'postrouting', priority: 100 },
      postroutingRules(options),
    ),
  ];
}

function innerChains(options: NftablesOptions): Chain[] {
  const { family } = options;
  const key = front(family);
  return [
    { name: 'services', rules: serviceRules(options) },
    { name: 'special-services', rules: specialRules(options, key, 'services') },
    { name: 'special-node-ports', rules: specialRules(options, portKey, 'node-ports') },
    { name: 'local-policy-services', rules: localPolicyRules(options, 'services') },
    { name: 'local-policy-node-ports', rules: localPolicyRules(options, 'node-ports') },
    {
      name: 'node-ports',
      rules: [
        { text: `${portKey} @special-node-ports goto special-node-ports`, why: 'node ports' },
      ],
    },
    { name: 'unserved-node-ports', rules: unservedRules(portKey, 'node-ports') },
    { name: 'affinity', rules: affinityRules(options) },
    {
      name: 'masquerading',
      rules: [
        {
          // The packet may pass here again, in a tunnel: it must not be masqueraded twice.
          text: `meta mark set meta mark xor ${markBit(options)}`,
          why: 'asked for once',
        },
        { text: 'masquerade fully-random', why: 'so that replies come back to this node' },
      ],
    },
  ];
}

/** Before translation: afterwards the load balancer's address is gone. */
function firewallRules({ counters, family }: NftablesOptions): Rule[] {
  const key = front(family);
  // Not `meta l4proto`, for which nft 1.0 adds a change of byte order to what is looked up in a set of
  // ranges; kernels since 6.12.117 refuse that. Both are the same but for a packet of IPv6 with further
  // headers, which finds no range and is dropped.
  const protocol = family === 'ip' ? 'ip protocol' : 'ip6 nexthdr';
  const ranges = `${family} daddr . ${protocol} . th dport . ${family} saddr != @source-ranges`;
  // Asked last, and so only for what is dropped: its elements count that.
  const counting = counters === 'none' ? '' : `${key} @barred-services `;
  return [
    {
      text: `ct state new ${key} @firewalled-services ${ranges} ${counting}drop`,
      why: 'not in loadBalancerSourceRanges',
    },
  ];
}

function serviceRules(options: NftablesOptions): Rule[] {
  const key = front(options.family);
  return [
    ...masqueradeClusterAddresses(options),
    { text: `${key} @plain-services goto ${pickChain('services')}`, why: 'Services' },
    { text: `${key} @special-services goto special-services`, why: 'Services with more to know' },
    ...toNodePorts(options, 'node-ports'),
  ];
}

/** Marked first: the choice of an endpoint ends the way through the table. */
function specialRules(
  options: NftablesOptions,
  key: string,
  what: 'services' | 'node-ports',
): Rule[] {
  const { family } = options;
  return [
    markRule(options, `${key} @masqueraded-${what} `),
    // The node's source may be the external address itself.
    markRule(options, `fib saddr type local ${key} @local-policy-${what} `),
    {
      text: `${key} @sticky-${what} dnat ${family} to ${front(family)} . ${family} saddr map @${affinityMap}`,
      why: 'the endpoint this client had',
    },
    { text: `${key} @local-policy-${what} goto local-policy-${what}`, why: 'policy Local' },
    { text: `goto ${pickChain(what)}`, why: 'any endpoint' },
  ];
}

/** Pods and the node itself reach every endpoint, others those of this node. */
function localPolicyRules(options: NftablesOptions, what: 'services' | 'node-ports'): Rule[] {
  const pods = localText(options, false);
  const anyEndpoint = `goto ${pickChain(what)}`;
  return [
    ...(pods === undefined
      ? []
      : [{ text: `${pods} ${anyEndpoint}`, why: 'pods, as if they had gone out and back' }]),
    { text: `fib saddr type local ${anyEndpoint}`, why: 'this node, likewise' },
    { text: `goto ${pickChain(`local-${what}`)}`, why: 'others' },
  ];
}

/** Traffic to cluster addresses from outside the cluster must return through this node. */
function masqueradeClusterAddresses(options: NftablesOptions): Rule[] {
  const others = options.masqueradeAll ? '' : localText(options, true);
  if (others === undefined) return [];
  const match = `${others === '' ? '' : `${others} `}${options.family} daddr @cluster-ips `;
  return [markRule(options, match)];
}

/** The match for traffic of this node's pods, or of anybody else; undefined when none can tell. */
function localText(options: NftablesOptions, negated: boolean): string | undefined {
  const match = localMatch(options.localDetector, options.family);
  if (match === undefined) return undefined;
  const operator = negated ? '!= ' : '';
  if ('source' in match) return `${options.family} saddr ${operator}${match.source}`;
  // iptables' "+" is nft's "*".
  return `iifname ${operator}"${match.inInterface.replace(/\+$/, '*')}"`;
}

/** Addresses of the host that are also a Service's belong to the Service: this comes last. */
function toNodePorts({ family, nodePortAddresses }: NftablesOptions, chain: string): Rule[] {
  const why = 'node ports';
  if (nodePortAddresses !== 'all') {
    return [{ text: `${family} daddr @node-port-ips jump ${chain}`, why }];
  }
  const loopback = family === 'ip' ? '127.0.0.0/8' : '::1';
  return [{ text: `fib daddr type local ${family} daddr != ${loopback} jump ${chain}`, why }];
}

function noEndpointRules(options: NftablesOptions): Rule[] {
  const [toPorts] = toNodePorts(options, 'unserved-node-ports');
  const rules = [
    ...unservedRules(front(options.family), 'services'),
    ...(toPorts === undefined ? [] : [toPorts]),
  ];
  return rules.map((rule) => ({ ...rule, text: `ct state new ${rule.text}` }));
}

function unservedRules(key: string, what: 'services' | 'node-ports'): Rule[] {
  return [
    { text: `${key} @refused-${what} reject`, why: 'no endpoints' },
    { text: `${key} @dropped-${what} drop`, why: 'no endpoints on this node' },
  ];
}

/** What was not translated and still goes to a cluster address asks for a port that is not there. */
function clusterAddressRules({ family, serviceCIDRs }: NftablesOptions): Rule[] {
  const rules: Rule[] = [
    { text: `ct state new ${family} daddr @cluster-ips reject`, why: 'no such port' },
  ];
  const ranges = serviceCIDRs.filter((prefix) => prefix.address.family === family);
  if (ranges.length === 0) return rules;
  const text = ranges.map(formatPrefix).toSorted().join(', ');
  return [
    ...rules,
    { text: `ct state new ${family} daddr { ${text} } drop`, why: 'no such cluster address' },
  ];
}

function markRule(options: NftablesOptions, match: string): Rule {
  return {
    text: `${match}meta mark set meta mark or ${markBit(options)}`,
    why: 'replies must come back through this node',
  };
}

function postroutingRules(options: NftablesOptions): Rule[] {
  const { family } = options;
  return [
    { text: `meta mark and ${markBit(options)} != 0 goto masquerading`, why: 'was marked' },
    {
      text: `ct status dnat ${family} saddr . ${front(family)} @hairpin-connections masquerade fully-random`,
      why: 'a pod that reached itself would answer itself',
    },
  ];
}
