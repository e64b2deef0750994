/**
 * The demo's network as data: three nodes in two subnets behind a router, a control plane beside
 * them and one host beyond the router that knows nothing of pods or Services. Documentation
 * addresses (RFC 5737) and unique local ones: nothing here exists anywhere else.
 */

export type NodeName = 'node1' | 'node2' | 'node3';
export type HostName = NodeName | 'control' | 'outside';

export interface Host {
  readonly name: HostName;
  /** Name of its network namespace. */
  readonly namespace: string;
  readonly subnet: 'a' | 'b' | 'c';
  readonly ip: string;
  readonly ip6: string;
}

export interface Topology {
  readonly hosts: Readonly<Record<HostName, Host>>;
  /** Carries the bridges that join the hosts; where packets between nodes are seen. */
  readonly underlay: string;
  readonly router: string;
  /** Every namespace this network is made of, in the order they are made. */
  readonly namespaces: readonly string[];
}

export const nodeNames: readonly NodeName[] = ['node1', 'node2', 'node3'];
export const clusterCIDRs = ['10.244.0.0/16', 'fd00:10:244::/48'] as const;

/** node1 and node2 share L2; node3 is behind the router. */
const places = {
  node1: ['a', 11],
  node2: ['a', 12],
  node3: ['b', 13],
  control: ['a', 10],
  outside: ['c', 99],
} as const satisfies Record<HostName, readonly ['a' | 'b' | 'c', number]>;

const subnets = {
  a: { ip: '192.0.2.', ip6: 'fd00:77:a::' },
  b: { ip: '198.51.100.', ip6: 'fd00:77:b::' },
  c: { ip: '203.0.113.', ip6: 'fd00:77:c::' },
} as const;

/** All namespaces of a run start with this: what makes a leftover recognisable. */
export function namespacePrefix(runId: string): string {
  return `podwire-demo-${runId}-`;
}

export function topologyOf(runId: string): Topology {
  const prefix = namespacePrefix(runId);
  const host = (name: HostName): Host => {
    const [subnet, number] = places[name];
    const { ip, ip6 } = subnets[subnet];
    return { name, namespace: prefix + name, subnet, ip: ip + number, ip6: ip6 + number };
  };
  const hosts = {
    node1: host('node1'),
    node2: host('node2'),
    node3: host('node3'),
    control: host('control'),
    outside: host('outside'),
  };
  const underlay = `${prefix}underlay`;
  const router = `${prefix}router`;
  const namespaces = [underlay, router, ...Object.values(hosts).map((h) => h.namespace)];
  return { hosts, underlay, router, namespaces };
}

/** `ip -batch` lines for one namespace. */
export interface Wiring {
  readonly namespace: string;
  readonly lines: readonly string[];
}

/**
 * What joins the namespaces, in order: cables are laid by the underlay, which has their other ends
 * appear in the hosts.
 */
export function wiringOf(topology: Topology): Wiring[] {
  const hosts = Object.values(topology.hosts);
  return [
    {
      namespace: topology.underlay,
      lines: [...bridges(), ...hosts.flatMap(hostCable), ...routerCables(topology)],
    },
    {
      namespace: topology.router,
      lines: ['link set lo up', ...(['a', 'b', 'c'] as const).flatMap(routerPort)],
    },
    ...hosts.map((host) => ({ namespace: host.namespace, lines: hostLines(host) })),
  ];
}

function bridges(): string[] {
  return [
    'link set lo up',
    ...['a', 'b', 'c'].map((s) => `link add br-${s} up type bridge mcast_snooping 0`),
  ];
}

function hostCable({ name, namespace, subnet }: Host): string[] {
  return cable({ port: name, peer: 'eth0', namespace, subnet });
}

function routerCables({ router }: Topology): string[] {
  return (['a', 'b', 'c'] as const).flatMap((subnet) =>
    cable({ port: `router-${subnet}`, peer: `eth-${subnet}`, namespace: router, subnet }),
  );
}

function cable(c: { port: string; peer: string; namespace: string; subnet: string }): string[] {
  return [
    `link add ${c.port} type veth peer name ${c.peer} netns ${c.namespace}`,
    `link set ${c.port} master br-${c.subnet} up`,
  ];
}

function routerPort(subnet: 'a' | 'b' | 'c'): string[] {
  const { ip, ip6 } = subnets[subnet];
  return linkLines(`eth-${subnet}`, `${ip}1`, `${ip6}1`);
}

function hostLines(host: Host): string[] {
  const { ip, ip6 } = subnets[host.subnet];
  return [
    'link set lo up',
    ...linkLines('eth0', host.ip, host.ip6),
    `route add default via ${ip}1`,
    `route add default via ${ip6}1`,
  ];
}

/** Without duplicate detection: the addresses are ours, and it takes a second. */
function linkLines(link: string, ip: string, ip6: string): string[] {
  return [
    `address add ${ip}/24 dev ${link}`,
    `address add ${ip6}/64 dev ${link} nodad`,
    `link set ${link} up`,
  ];
}
