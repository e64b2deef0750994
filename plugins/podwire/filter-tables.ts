/**
 * The nf_tables tables that pods of this node share. Each is made once, by `nft`; a pod is nothing
 * but elements of their sets and maps.
 */
import type { SetName } from '#pkg/nfnetlink/set-element.ts';

export const hostPortTable = 'podwire-hostport';
export const antiSpoofTable = 'podwire-antispoof';

/** A table of ours. */
export type FilterTable = Pick<SetName, 'family' | 'table'>;

/** Every table there may be. */
export const filterTables: readonly FilterTable[] = [
  { family: 'inet', table: hostPortTable },
  { family: 'bridge', table: antiSpoofTable },
  { family: 'inet', table: antiSpoofTable },
  { family: 'arp', table: antiSpoofTable },
];

/** The sets and maps of a table, which hold what belongs to pods. */
export function setsOf({ family, table }: FilterTable): readonly SetName[] {
  const names = table === hostPortTable ? hostPortSets : antiSpoofSets[family];
  return names.map((set) => ({ family, table, set }));
}

/** What `nft -f -` makes the table from: it fails as a whole when there is one. */
export function tableText(of: FilterTable): string {
  const { family, table } = of;
  return `create table ${family} ${table}\ntable ${family} ${table} {\n${bodyOf(of)}}\n`;
}

/** The words of nft that a set or map is declared with, one for each field. */
export interface FieldTypes {
  readonly key: readonly string[];
  /** Empty for sets. */
  readonly data: readonly string[];
}

/** How the elements of a set or map are laid out. */
export function fieldTypes(of: SetName): FieldTypes {
  const declared = new RegExp(String.raw`\b(?:set|map) ${of.set} \{ type(?:of)? ([^;]+);`);
  const [key = '', data] = declared.exec(bodyOf(of))?.[1]?.split(' : ') ?? [];
  return { key: key.split(' . '), data: data?.split(' . ') ?? [] };
}

function bodyOf({ family, table }: FilterTable): string {
  return table === hostPortTable ? hostPortBody : antiSpoofBody[family];
}

const hostPortSets = [
  'specific4',
  'any4',
  'specific6',
  'any6',
  'selves4',
  'selves6',
  'returns4',
  'returns6',
] as const;

/**
 * The bit of a packet's mark between our prerouting and our postrouting, in a connection's first
 * packet only. Not one of those that Kubernetes (14, 15), the reference plugin portmap (13), Cilium
 * (8 to 11) or Calico (16 and up) use.
 */
const markBit = 0x1000;
const setMark = `meta mark set meta mark | 0x${markBit.toString(16)}`;
const clearMark = `meta mark set meta mark & 0x${(0xffffffff - markBit).toString(16)}`;

/**
 * Host ports. A connection that came by one gets the host as source where the answer would not come
 * back through us, or not at all: from the pod itself; from its neighbour on the bridge, that is by
 * the link it leaves by (with br_netfilter such packets are bridged, which sees no link, and their
 * answers come through us); from 127.0.0.0/8. For the last the link to the pod has route_localnet
 * on, which would also let pods send to the host's 127.0.0.0/8: no packet on a wire has such a
 * destination.
 */
const hostPortBody = `\
  map specific4 { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
  map any4 { type inet_proto . inet_service : ipv4_addr . inet_service; }
  map specific6 { type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }
  map any6 { type inet_proto . inet_service : ipv6_addr . inet_service; }
  set selves4 { type ipv4_addr . ipv4_addr; }
  set selves6 { type ipv6_addr . ipv6_addr; }
  set returns4 { type ipv4_addr . ifname; }
  set returns6 { type ipv6_addr . ifname; }
  chain loopback {
    type filter hook prerouting priority -300; policy accept;
    iif != "lo" ip daddr 127.0.0.0/8 drop
  }
  chain hostports {
    ${setMark}
    dnat ip to ip daddr . meta l4proto . th dport map @specific4
    dnat ip to meta l4proto . th dport map @any4
    dnat ip6 to ip6 daddr . meta l4proto . th dport map @specific6
    dnat ip6 to meta l4proto . th dport map @any6
    ${clearMark}
  }
  chain prerouting {
    type nat hook prerouting priority -105; policy accept;
    meta l4proto { tcp, udp, sctp } fib daddr type local jump hostports
  }
  chain output {
    type nat hook output priority -105; policy accept;
    meta l4proto { tcp, udp, sctp } fib daddr type local jump hostports
  }
  chain postrouting {
    type nat hook postrouting priority 95; policy accept;
    meta mark & 0x${markBit.toString(16)} == 0 return
    ${clearMark}
    ip saddr 127.0.0.0/8 masquerade
    ip saddr . ip daddr @selves4 masquerade
    ip6 saddr . ip6 daddr @selves6 masquerade
    ip daddr . iifname @returns4 masquerade
    ip6 daddr . iifname @returns6 masquerade
  }
`;

const antiSpoofSets: Readonly<Record<FilterTable['family'], readonly string[]>> = {
  bridge: ['links', 'macs', 'addresses4', 'addresses6', 'targets6'],
  inet: ['links', 'macs', 'addresses4', 'addresses6', 'targets6'],
  arp: ['links', 'macs', 'addresses4'],
};

/** nft before 1.0.8 has no name for the target of a neighbour advertisement: bytes 8 to 23. */
const ndTarget = '@th,64,128';

const ipSets = `\
  set links { type ifname; }
  set macs { type ifname . ether_addr; }
  set addresses4 { type ifname . ipv4_addr; }
  set addresses6 { type ifname . ipv6_addr; }
  set targets6 { typeof iifname . ${ndTarget}; }
`;

/**
 * IPv6 from a pod: its own addresses; "::" while it looks for others with its address (RFC 4862
 * §5.4). It is no router, and speaks for no other's address.
 */
const ip6Chain = `\
  chain from-pod-ip6 {
    icmpv6 type { nd-router-advert, nd-redirect } drop
    icmpv6 type nd-neighbor-advert iifname . ${ndTarget} != @targets6 drop
    iifname . ip6 saddr @addresses6 accept
    ip6 saddr :: meta l4proto ipv6-icmp accept
    drop
  }
`;

/** ARP from a pod: for its own address; a sender of 0.0.0.0 asks who has one (RFC 5227 §2.1). */
const ethernetArp = 'arp htype 1 arp hlen 6 arp ptype ip arp plen 4';
const ownMac = 'iifname . arp saddr ether @macs';
const arpRules = `\
    ${ethernetArp} ${ownMac} iifname . arp saddr ip @addresses4 accept
    ${ethernetArp} ${ownMac} arp saddr ip 0.0.0.0 arp operation request accept
    drop
`;

/** Before connection tracking (-200): a forged packet must not become part of a connection. */
const filterHook = (name: string): string =>
  `    type filter hook ${name} priority -300; policy accept;\n`;

const antiSpoofBody: Readonly<Record<FilterTable['family'], string>> = {
  bridge: `\
${ipSets}${ip6Chain}  chain from-pod-arp {
${arpRules}  }
  chain from-pod {
    iifname . ether saddr != @macs drop
    ether type arp goto from-pod-arp
    ether type ip6 goto from-pod-ip6
    ether type ip iifname . ip saddr @addresses4 accept
    drop
  }
  chain prerouting {
${filterHook('prerouting')}    iifname @links goto from-pod
  }
`,
  inet: `\
${ipSets}${ip6Chain}  chain from-pod {
    iifname . ether saddr != @macs drop
    meta nfproto ipv6 goto from-pod-ip6
    iifname . ip saddr @addresses4 accept
    drop
  }
  chain prerouting {
${filterHook('prerouting')}    iifname @links goto from-pod
  }
`,
  arp: `\
  set links { type ifname; }
  set macs { type ifname . ether_addr; }
  set addresses4 { type ifname . ipv4_addr; }
  chain from-pod {
${arpRules}  }
  chain input {
${filterHook('input')}    iifname @links goto from-pod
  }
`,
};
