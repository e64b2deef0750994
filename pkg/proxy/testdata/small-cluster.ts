/**
 * A node, three pods and an outside host as network namespaces, joined by veth pairs. The node
 * routes between them, as a node's kernel does; all packets between them meet its iptables.
 */
import { systemClock } from '#pkg/clock/clock.ts';
import { createScratchNetns, type ScratchNetns } from '#pkg/netns/scratch.ts';

export interface SmallCluster extends AsyncDisposable {
  readonly node: ScratchNetns;
  readonly client: ScratchNetns;
  /** Listen on TCP port 8080 and answer with their name and the client's address. */
  readonly servers: readonly [ScratchNetns, ScratchNetns];
  readonly outside: ScratchNetns;
  /** What `count` connections from a namespace get: answers or error codes. */
  connect(
    from: ScratchNetns,
    to: { readonly host: string; readonly port: number; readonly count?: number },
  ): Promise<string[]>;
}

/** Addresses: pod n has 10.1.n.2 and fd00:10:n::2, the node 10.1.n.1 and fd00:10:n::1 towards it. */
export async function createSmallCluster(): Promise<SmallCluster> {
  const stack = new AsyncDisposableStack();
  const running = new AbortController();
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
    await join(node, client, { ip: '10.1.1', ip6: 'fd00:10:1:' });
    await join(node, one, { ip: '10.1.2', ip6: 'fd00:10:2:' });
    await join(node, two, { ip: '10.1.3', ip6: 'fd00:10:3:' });
    await join(node, outside, { ip: '203.0.113', ip6: '2001:db8:' });
    // The node's way to the rest of the world, so that it has a route to service addresses.
    await node.ip('route add default via 203.0.113.2');
    await node.ip('-6 route add default via 2001:db8::2');
    stack.defer(() => running.abort());
    const cluster: SmallCluster = {
      node,
      client,
      servers: [one, two],
      outside,
      connect: async (from, { host, port, count = 1 }) => {
        const args = [script('tcp-client.mjs'), host, String(port), String(count)];
        const { stdout } = await from.exec(process.execPath, args);
        return JSON.parse(stdout) as string[];
      },
      [Symbol.asyncDispose]: () => stack.disposeAsync(),
    };
    for (const [name, netns] of [
      ['one', one],
      ['two', two],
    ] as const) {
      await startServer(netns, name, running.signal);
    }
    return cluster;
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

async function startServer(netns: ScratchNetns, name: string, stop: AbortSignal): Promise<void> {
  const args = [script('tcp-server.mjs'), name, '8080'];
  const server = netns.exec(process.execPath, args, { timeoutMs: 600_000, signal: stop });
  const ended = server.then(
    () => true,
    (error: unknown) => {
      if (!stop.aborted) throw error;
      return true;
    },
  );
  for (;;) {
    const { stdout } = await netns.exec('ss', ['-Hltn', 'sport = :8080']);
    if (stdout !== '') return;
    if (await Promise.race([ended, systemClock.sleep(20).then(() => false)])) return;
  }
}

function script(name: string): string {
  return `${import.meta.dirname}/${name}`;
}
