/**
 * A node, three pods and an outside host as network namespaces, joined by veth pairs. The node
 * routes between them, as a node's kernel does; all packets between them meet its iptables.
 */
import { createScratchNetns, type ScratchNetns } from '#pkg/netns/scratch.ts';
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

/** Addresses: pod n has 10.1.n.2 and fd00:10:n::2, the node 10.1.n.1 and fd00:10:n::1 towards it. */
export async function createSmallCluster(): Promise<SmallCluster> {
  const stack = new AsyncDisposableStack();
  try {
    const made: ScratchNetns[] = [];
    for (const name of ['node', 'client', 'one', 'two', 'outside']) {
      made.push(stack.use(await createScratchNetns(`pw-proxy-${name}`)));
    }
    const [node, client, one, two, outside] = made as [
      ScratchNetns,
      ScratchNetns,
      ScratchNetns,
      ScratchNetns,
      ScratchNetns,
    ];
    // Waiting for duplicate address detection would take a second for each link.
    for (const netns of made) await sysctl(netns, 'net.ipv6.conf.default.accept_dad=0');
    await sysctl(node, 'net.ipv4.ip_forward=1');
    await sysctl(node, 'net.ipv6.conf.all.forwarding=1');
    // By default one address is refused once a second, and then a client waits for its second try.
    await sysctl(node, 'net.ipv4.icmp_ratelimit=0');
    await sysctl(node, 'net.ipv6.icmp.ratelimit=0');
    await join(node, client, { ip: '10.1.1', ip6: 'fd00:10:1:' });
    await join(node, one, { ip: '10.1.2', ip6: 'fd00:10:2:' });
    await join(node, two, { ip: '10.1.3', ip6: 'fd00:10:3:' });
    await join(node, outside, { ip: '203.0.113', ip6: '2001:db8:' });
    // Another client outside, for source ranges to keep out.
    await outside.ip('addr add 203.0.113.130/24 dev eth0');
    // Deprecated: used only by who asks for it.
    await outside.ip('addr add 2001:db8::1:130/64 dev eth0 nodad preferred_lft 0');
    // The node's way to the rest of the world, so that it has a route to service addresses.
    await node.ip('route add default via 203.0.113.2');
    await node.ip('-6 route add default via 2001:db8::2');
    const names = new Map([
      [one, 'one'],
      [two, 'two'],
    ]);
    const agents = new Map<ScratchNetns, Agent>();
    const start = async (netns: ScratchNetns): Promise<void> => {
      const name = names.get(netns);
      const server = name === undefined ? undefined : { name, port: 8080 };
      agents.set(netns, stack.use(await startAgent(netns, server)));
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

async function sysctl(netns: ScratchNetns, setting: string): Promise<void> {
  await netns.exec('sysctl', ['-qw', setting]);
}

async function join(
  node: ScratchNetns,
  pod: ScratchNetns,
  net: { readonly ip: string; readonly ip6: string },
): Promise<void> {
  const device = pod.name.slice(-8);
  await node.ip(`link add v${device} type veth peer name eth0 netns ${pod.name}`);
  await node.ip(`addr add ${net.ip}.1/24 dev v${device}`);
  await node.ip(`addr add ${net.ip6}:1/64 dev v${device} nodad`);
  await node.ip(`link set v${device} up`);
  await pod.ip(`addr add ${net.ip}.2/24 dev eth0`);
  await pod.ip(`addr add ${net.ip6}:2/64 dev eth0 nodad`);
  await pod.ip('link set eth0 up');
  await pod.ip(`route add default via ${net.ip}.1`);
  await pod.ip(`-6 route add default via ${net.ip6}:1`);
}
