/**
 * The layout of kube-proxy's nftables mode (1.36), for Services with a cluster address and nothing
 * else, as a script of nft: a chain a Service behind maps of verdicts. Written from KEP-3866 and what
 * kube-proxy prints, to compare layouts where no kube-proxy is at hand; it is not kube-proxy.
 */
import { createHash } from 'node:crypto';
import type { ProxiedPort } from '#pkg/proxy/proxied-port.ts';

const table = 'ip kube-proxy';

export interface UpstreamOptions {
  /** Pods are in there. */
  readonly clusterCIDR: string;
  readonly nodeAddress: string;
  readonly serviceCIDR: string;
}

/** Everything, in one transaction, as the first full sync writes it. */
export function upstreamTable(ports: Iterable<ProxiedPort>, options: UpstreamOptions): string {
  const chains: string[] = [];
  const rules: string[] = [];
  const elements: string[] = [];
  for (const port of ports) {
    const name = chainName(port);
    chains.push(`add chain ${table} ${name}`);
    rules.push(`add rule ${table} ${name} ${dnat(port)}`);
    elements.push(
      `add element ${table} cluster-ips { ${port.clusterIP} }`,
      `add element ${table} service-ips { ${port.clusterIP} . ${port.protocol} . ${port.port} : goto ${name} }`,
    );
  }
  return `${[...baseOf(options), ...chains, ...rules, ...elements].join('\n')}\n`;
}

/** What a sync writes when the endpoints of this port are other ones. */
export function upstreamChange(port: ProxiedPort): string {
  const name = chainName(port);
  return [
    `add chain ${table} ${name}`,
    `flush chain ${table} ${name}`,
    `add rule ${table} ${name} ${dnat(port)}`,
    '',
  ].join('\n');
}

function dnat({ endpoints, protocol }: ProxiedPort): string {
  const targets = endpoints.reachable.map(
    ({ address, port }, slot) => `${slot} : ${address} . ${port}`,
  );
  const pick = `numgen random mod ${targets.length} map { ${targets.join(' , ')} }`;
  return `meta l4proto ${protocol} dnat ip to ${pick}`;
}

function chainName({ name, namespace, portName, protocol }: ProxiedPort): string {
  const rest = `${namespace}/${name}/${protocol}/${portName}`;
  return `service-${base32(createHash('sha256').update(rest).digest()).slice(0, 8)}-${rest}`;
}

/** RFC 4648, of the first five bytes: eight characters. */
function base32(bytes: Uint8Array): string {
  let bits = 0n;
  for (const byte of bytes.subarray(0, 5)) bits = (bits << 8n) | BigInt(byte);
  const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';
  return Array.from(
    { length: 8 },
    (_, i) => letters[Number((bits >> BigInt(35 - 5 * i)) & 31n)],
  ).join('');
}

function baseOf({ clusterCIDR, nodeAddress, serviceCIDR }: UpstreamOptions): string[] {
  const front = 'ip daddr . meta l4proto . th dport';
  const onNodePort = 'ip daddr @nodeport-ips meta l4proto . th dport';
  const key = 'type ipv4_addr . inet_proto . inet_service : verdict ;';
  const portKey = 'type inet_proto . inet_service : verdict ;';
  const bases: readonly (readonly [chain: string, type: string, hook: string, at: number])[] = [
    ['filter-prerouting-pre-dnat', 'filter', 'prerouting', -110],
    ['filter-output-pre-dnat', 'filter', 'output', -110],
    ['filter-input', 'filter', 'input', 0],
    ['filter-forward', 'filter', 'forward', 0],
    ['filter-output', 'filter', 'output', 0],
    ['nat-prerouting', 'nat', 'prerouting', -100],
    ['nat-output', 'nat', 'output', -100],
    ['nat-postrouting', 'nat', 'postrouting', 100],
  ];
  const plain = [
    'services',
    'masquerading',
    'mark-for-masquerade',
    'reject-chain',
    'firewall-check',
    'service-endpoints-check',
    'nodeport-endpoints-check',
    'cluster-ips-check',
  ];
  const rules: readonly (readonly [chain: string, rule: string])[] = [
    ['filter-prerouting-pre-dnat', 'ct state new jump firewall-check'],
    ['filter-output-pre-dnat', 'ct state new jump firewall-check'],
    ['filter-input', 'ct state new jump nodeport-endpoints-check'],
    ['filter-input', 'ct state new jump service-endpoints-check'],
    ['filter-forward', 'ct state new jump service-endpoints-check'],
    ['filter-forward', 'ct state new jump cluster-ips-check'],
    ['filter-output', 'ct state new jump service-endpoints-check'],
    ['filter-output', 'ct state new jump cluster-ips-check'],
    ['nat-prerouting', 'jump services'],
    ['nat-output', 'jump services'],
    ['nat-postrouting', 'jump masquerading'],
    ['mark-for-masquerade', 'mark set mark or 0x4000'],
    ['masquerading', 'mark and 0x4000 != 0 mark set mark xor 0x4000 masquerade fully-random'],
    [
      'masquerading',
      'ct status dnat ip saddr . ip daddr . meta l4proto . th dport @hairpin-connections masquerade fully-random',
    ],
    ['reject-chain', 'reject'],
    ['firewall-check', `${front} vmap @firewall-ips`],
    ['service-endpoints-check', `${front} vmap @no-endpoint-services`],
    ['nodeport-endpoints-check', `${onNodePort} vmap @no-endpoint-nodeports`],
    ['cluster-ips-check', 'ip daddr @cluster-ips reject'],
    ['cluster-ips-check', `ip daddr { ${serviceCIDR} } drop`],
    ['services', `ip saddr != ${clusterCIDR} ip daddr @cluster-ips jump mark-for-masquerade`],
    ['services', `${front} vmap @service-ips`],
    ['services', `${onNodePort} vmap @service-nodeports`],
  ];
  return [
    `add table ${table} { comment "rules for kube-proxy" ; }`,
    ...bases.map(
      ([chain, type, hook, at]) =>
        `add chain ${table} ${chain} { type ${type} hook ${hook} priority ${at} ; }`,
    ),
    ...plain.map((chain) => `add chain ${table} ${chain}`),
    `add set ${table} cluster-ips { type ipv4_addr ; }`,
    `add set ${table} nodeport-ips { type ipv4_addr ; }`,
    `add set ${table} hairpin-connections { type ipv4_addr . ipv4_addr . inet_proto . inet_service ; }`,
    ...['service-ips', 'no-endpoint-services', 'firewall-ips'].map(
      (map) => `add map ${table} ${map} { ${key} }`,
    ),
    ...['service-nodeports', 'no-endpoint-nodeports'].map(
      (map) => `add map ${table} ${map} { ${portKey} }`,
    ),
    ...rules.map(([chain, rule]) => `add rule ${table} ${chain} ${rule}`),
    `add element ${table} nodeport-ips { ${nodeAddress} }`,
  ];
}
