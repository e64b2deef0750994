/**
 * A node, three pods and an outside host as network namespaces, joined by veth pairs. The node
 * routes between them, as a node's kernel does; all packets between them meet its iptables.
 */
import { withNetns } from '#pkg/netns/netns.ts';
import { createScratchNetnses, type ScratchNetns } from '#pkg/netns/scratch.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import { writeSysctl } from '#pkg/sysctl/sysctl.ts';
import { startAgent, type Agent, type AskRequest } from '#pkg/proxy/testdata/agent.ts';

export interface SmallCluster extends AsyncDisposable {
  readonly node: ScratchNetns;
  readonly client: ScratchNetns;
  /**
   * Listen on TCP and UDP port 8080, and TCP 8082, and answer with their name and the client's
   * address; on TCP port 8081 they send back what they get.
   */
  readonly servers: readonly [ScratchNetns, ScratchNetns];
  readonly outside: ScratchNetns;
  /** What `count` connections from a namespace of these get: answers or error codes. */
  connect(from: ScratchNetns, to: AskRequest): Promise<string[]>;
  /** The process that connects from a namespace of these. */
  agent(of: ScratchNetns): Agent;
}

/**
 * Addresses: pod n has 10.1.n.2 and fd00:10:n::2, the node 10.1.n.1 and fd00:10:n::1 towards it.
 *
 * @param nodeListens on this port of all of its addresses, and answers as servers do, as "node"
 */
export async function createSmallCluster(nodeListens?: number): Promise<SmallCluster> {
  const stack = new AsyncDisposableStack();
  try {
    const made = await createScratchNetnses([
      'pw-proxy-node',
      'pw-proxy-client',
      'pw-proxy-one',
      'pw-proxy-two',
      'pw-proxy-outside',
    ]);
    for (const netns of made) stack.use(netns);
    const [node, client, one, two, outside] = made;
    const sys = await openSys();
    for (const netns of made) {
      // Waiting for duplicate address detection would take a second for each link.
      setSysctls(sys, netns, { 'net/ipv6/conf/default/accept_dad': '0' });
    }
    setSysctls(sys, node, {
      'net/ipv4/ip_forward': '1',
      'net/ipv6/conf/all/forwarding': '1',
      // By default one address is refused once a second, and then a client waits for its second try.
      'net/ipv4/icmp_ratelimit': '0',
      'net/ipv6/icmp/ratelimit': '0',
    });
    const pods = [
      { netns: client, ip: '10.1.1', ip6: 'fd00:10:1:' },
      { netns: one, ip: '10.1.2', ip6: 'fd00:10:2:' },
      { netns: two, ip: '10.1.3', ip6: 'fd00:10:3:' },
      { netns: outside, ip: '203.0.113', ip6: '2001:db8:' },
    ];
    await node.batch([
      'link set lo up',
      ...pods.flatMap(nodeEnd),
      // The node's way to the rest of the world, so that it has a route to service addresses.
      'route add default via 203.0.113.2',
      'route add default via 2001:db8::2',
    ]);
    await Promise.all(pods.map((pod) => pod.netns.batch(podEnd(pod))));
    await outside.batch([
      // Another client outside, for source ranges to keep out.
      'addr add 203.0.113.130/24 dev eth0',
      // Deprecated: used only by who asks for it.
      'addr add 2001:db8::1:130/64 dev eth0 nodad preferred_lft 0',
    ]);
    const listeners = new Map([
      [one, { name: 'one', port: 8080 }],
      [two, { name: 'two', port: 8080 }],
    ]);
    if (nodeListens !== undefined) listeners.set(node, { name: 'node', port: nodeListens });
    const agents = new Map<ScratchNetns, Agent>();
    const start = async (netns: ScratchNetns): Promise<void> => {
      agents.set(netns, stack.use(await startAgent(netns, listeners.get(netns))));
    };
    await Promise.all(made.map(start));
    const agent = (of: ScratchNetns): Agent => {
      const found = agents.get(of);
      if (found === undefined) throw new Error(`${of.name} is not of this cluster`);
      return found;
    };
    return {
      node,
      client,
      servers: [one, two],
      outside,
      connect: (from, to) => agent(from).ask(to),
      agent,
      [Symbol.asyncDispose]: () => stack.disposeAsync(),
    };
  } catch (error) {
    await stack.disposeAsync();
    throw error;
  }
}

function setSysctls(
  sys: Sys,
  { path }: ScratchNetns,
  settings: Readonly<Record<string, string>>,
): void {
  const set = (): void => {
    for (const [name, value] of Object.entries(settings)) writeSysctl(name, value);
  };
  withNetns(sys, path, set, (error) => {
    throw error;
  });
}

interface Pod {
  readonly netns: ScratchNetns;
  readonly ip: string;
  readonly ip6: string;
}

function nodeEnd({ ip, ip6, netns }: Pod): string[] {
  const device = `v${netns.name.slice(-8)}`;
  return [
    `link add ${device} type veth peer name eth0 netns ${netns.name}`,
    `addr add ${ip}.1/24 dev ${device}`,
    `addr add ${ip6}:1/64 dev ${device} nodad`,
    `link set ${device} up`,
  ];
}

function podEnd({ ip, ip6 }: Pod): string[] {
  return [
    'link set lo up',
    `addr add ${ip}.2/24 dev eth0`,
    `addr add ${ip6}:2/64 dev eth0 nodad`,
    'link set eth0 up',
    `route add default via ${ip}.1`,
    `route add default via ${ip6}:1`,
  ];
}
