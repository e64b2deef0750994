/**
 * The structure of a family's table: what is there whatever the Services, and the on-demand chains
 * that their elements lead to.
 */
import { createHash } from 'node:crypto';
import { formatPrefix } from '#pkg/ip/prefix.ts';
import { renderTable } from '#pkg/nftables/render.ts';
import type { BaseChain, Chain, Rule, Table } from '#pkg/nftables/ruleset.ts';
import { localMatch } from './local-detector.ts';
import {
  dispatchName,
  front,
  markRule,
  onDemandChain,
  originalFront,
  protocols,
  rejectChain,
} from './nftables-dispatch.ts';
import { markBit, type NftablesOptions } from './nftables-options.ts';
import { proxyMaps, proxySets, proxyTableName } from './nftables-sets.ts';

/** Made in advance: up to so many endpoints, the usual Service needs no new chain. */
const preparedCounts = 16;

/**
 * The table without elements. `chains` names on-demand chains beyond the prepared ones. Its comment
 * ends with a digest of all but on-demand chains: who reads the table back knows what made it.
 */
export function proxySkeleton(options: NftablesOptions, chains: Iterable<string>): Table {
  const core: Table = {
    family: options.family,
    name: proxyTableName,
    sets: proxySets(options.family),
    maps: proxyMaps(options.family),
    chains: [...baseChains(options), ...innerChains(options)],
  };
  const digest = createHash('sha256').update(renderTable(core)).digest('hex').slice(0, 12);
  const onDemand = [...new Set([...preparedChains(), ...chains])];
  return {
    ...core,
    comment: `Services of Kubernetes, by podwire-proxy #${digest}`,
    chains: [...core.chains, ...onDemand.map((name) => onDemandChain(name, options))],
  };
}

function preparedChains(): string[] {
  const kinds = [
    { by: 'vip', masquerade: false, local: false, sticky: false },
    { by: 'vip', masquerade: true, local: false, sticky: false },
    { by: 'node-port', masquerade: true, local: false, sticky: false },
  ] as const;
  return kinds.flatMap((kind) =>
    Array.from({ length: preparedCounts }, (_, i) => dispatchName({ ...kind, count: i + 1 })),
  );
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
  return [
    { name: 'services', rules: [...serviceRules(options), ...toNodePorts(options, 'node-ports')] },
    { name: 'node-ports', rules: nodePortRules(options) },
    {
      name: 'no-endpoint-node-ports-check',
      rules: [
        { text: `${portKey} vmap @no-endpoint-node-ports`, why: 'node ports without endpoints' },
      ],
    },
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
    { name: rejectChain, rules: [{ text: 'reject', why: 'nobody is there' }] },
  ];
}

const portKey = 'meta l4proto . th dport';

/** Before translation: afterwards the load balancer's address is gone. */
function firewallRules({ family }: NftablesOptions): Rule[] {
  const key = front(family);
  return [
    {
      text: `ct state new ${key} @firewalled-services ${key} . ${family} saddr != @source-ranges drop`,
      why: 'not in loadBalancerSourceRanges',
    },
  ];
}

function serviceRules(options: NftablesOptions): Rule[] {
  const { family } = options;
  const key = front(family);
  return [
    ...masqueradeClusterAddresses(options),
    { text: `${key} vmap @service-ips`, why: 'Services' },
    ...byOrigin(options, key, 'services'),
  ];
}

function nodePortRules(options: NftablesOptions): Rule[] {
  return [
    { text: `${portKey} vmap @node-ports`, why: 'node ports' },
    ...byOrigin(options, portKey, 'node-ports'),
  ];
}

/** Policy Local: pods and the node itself reach every endpoint, others those of this node. */
function byOrigin(options: NftablesOptions, key: string, what: 'services' | 'node-ports'): Rule[] {
  const pods = localText(options, false);
  return [
    ...(pods === undefined
      ? []
      : [{ text: `${pods} ${key} vmap @${what}-from-pods`, why: 'policy Local, from pods' }]),
    {
      text: `fib saddr type local ${key} vmap @${what}-from-node`,
      why: 'policy Local, from this node',
    },
    { text: `${key} vmap @${what}-from-outside`, why: 'policy Local' },
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
  const [toPorts] = toNodePorts(options, 'no-endpoint-node-ports-check');
  return [
    {
      text: `ct state new ${front(options.family)} vmap @no-endpoint-services`,
      why: 'Services without endpoints',
    },
    ...(toPorts === undefined ? [] : [{ ...toPorts, text: `ct state new ${toPorts.text}` }]),
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

function affinityRules({ family }: NftablesOptions): Rule[] {
  return protocols.flatMap((protocol) => [
    {
      text: `meta l4proto ${protocol} ${originalFront(family)} vmap @affinity-services`,
      why: 'Services with session affinity',
    },
    {
      text: `meta l4proto ${protocol} meta l4proto . ct original proto-dst vmap @affinity-node-ports`,
      why: 'node ports with session affinity',
    },
  ]);
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
