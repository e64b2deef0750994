/**
 * Three nodes and a router as network namespaces: `a` and `b` share an L2 network, `c` is behind
 * the router. Pods are addresses on each node's loopback device; `outside` is one on the router,
 * which knows no way back to pods.
 */
import { createInterface } from 'node:readline';
import { execa } from 'execa';
import { createScratchNetns, type ScratchNetns } from '#pkg/netns/scratch.ts';
import type { PingReport } from './probe.ts';

export type NodeName = 'a' | 'b' | 'c';

export interface TestNode {
  readonly name: NodeName;
  readonly netns: ScratchNetns;
  readonly podCIDRs: readonly string[];
  readonly internalIPs: readonly string[];
  /** One pod address per family. */
  readonly pods: Readonly<Record<'ip' | 'ip6', string>>;
}

export interface ThreeNodes extends AsyncDisposable {
  readonly nodes: Readonly<Record<NodeName, TestNode>>;
  readonly router: ScratchNetns;
  readonly outside: Readonly<Record<'ip' | 'ip6', string>>;
}

export const echoPort = 7007;
const program = new URL('probe.ts', import.meta.url).pathname;

/** Builds it all and starts an echo server on every pod address and outside. */
export async function createThreeNodes(): Promise<ThreeNodes> {
  const stack = new AsyncDisposableStack();
  try {
    const router = stack.use(await createScratchNetns('pw-node-r'));
    await router.exec('sysctl', ['-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1']);
    const outside = { ip: '203.0.113.1', ip6: '2001:db8::1' };
    await router.ip(`addr add ${outside.ip}/32 dev lo`);
    await router.ip(`addr add ${outside.ip6}/128 dev lo nodad`);
    for (const subnet of [1, 2]) {
      await router.ip(`link add br${subnet} type bridge`);
      await router.ip(`link set br${subnet} up`);
      await router.ip(`addr add 192.168.${subnet}.254/24 dev br${subnet}`);
      await router.ip(`addr add fd00:${subnet}::254/64 dev br${subnet} nodad`);
    }
    const a = await createNode(stack, router, { name: 'a', n: 1, subnet: 1 });
    const b = await createNode(stack, router, { name: 'b', n: 2, subnet: 1 });
    const c = await createNode(stack, router, { name: 'c', n: 3, subnet: 2 });
    for (const address of Object.values(outside)) await serve(stack, router, address);
    for (const node of [a, b, c]) {
      for (const pod of Object.values(node.pods)) await serve(stack, node.netns, pod);
    }
    return {
      nodes: { a, b, c },
      router,
      outside,
      [Symbol.asyncDispose]: () => stack.disposeAsync(),
    };
  } catch (error) {
    await stack.disposeAsync();
    throw error;
  }
}

async function createNode(
  stack: AsyncDisposableStack,
  router: ScratchNetns,
  { name, n, subnet }: { readonly name: NodeName; readonly n: number; readonly subnet: number },
): Promise<TestNode> {
  const netns = stack.use(await createScratchNetns(`pw-node-${name}`));
  await router.ip(`link add to-${name} type veth peer name eth0 netns ${netns.name}`);
  await router.ip(`link set to-${name} master br${subnet} up`);
  await netns.ip('link set eth0 up');
  const internalIPs = [`192.168.${subnet}.${n}`, `fd00:${subnet}::${n}`];
  await netns.ip(`addr add ${internalIPs[0]}/24 dev eth0`);
  await netns.ip(`addr add ${internalIPs[1]}/64 dev eth0 nodad`);
  await netns.ip(`route add default via 192.168.${subnet}.254`);
  await netns.ip(`-6 route add default via fd00:${subnet}::254`);
  const pods = { ip: `10.244.${n}.9`, ip6: `fd00:10:244:${n}::9` };
  await netns.ip(`addr add ${pods.ip}/32 dev lo`);
  await netns.ip(`addr add ${pods.ip6}/128 dev lo nodad`);
  const podCIDRs = [`10.244.${n}.0/24`, `fd00:10:244:${n}::/64`];
  return { name, netns, podCIDRs, internalIPs, pods };
}

async function serve(
  stack: AsyncDisposableStack,
  netns: ScratchNetns,
  address: string,
): Promise<void> {
  const { child, listening } = probe(netns, ['serve', address, String(echoPort)], () => undefined);
  stack.defer(async () => {
    child.stdin?.end();
    await child.catch(() => undefined);
  });
  await listening;
}

/** A stream of packets that runs until it is stopped. */
export interface Pinger {
  /** Packets answered so far. */
  answered(): number;
  stop(): Promise<PingReport>;
}

/** Starts sending from a node's address to another, one packet each 10 ms. */
export async function startPing(netns: ScratchNetns, from: string, to: string): Promise<Pinger> {
  let answered = 0;
  const { child, listening } = probe(netns, ['ping', from, to, String(echoPort)], (line) => {
    answered = Number(/^answered (\d+)$/.exec(line)?.[1] ?? answered);
  });
  await listening;
  return {
    answered: () => answered,
    stop: async () => {
      child.stdin?.end();
      const { stdout } = await child;
      return JSON.parse(stdout.split('\n').at(-1) ?? '') as PingReport;
    },
  };
}

interface Probe {
  readonly child: ReturnType<typeof spawn>;
  /** Resolves when it is bound; rejects when it ends before. */
  readonly listening: Promise<void>;
}

function probe(
  netns: ScratchNetns,
  args: readonly string[],
  onLine: (line: string) => void,
): Probe {
  const child = spawn(netns, args);
  const bound = Promise.withResolvers<void>();
  createInterface({ input: child.stdout }).on('line', (line) => {
    if (line === 'ready') bound.resolve();
    onLine(line);
  });
  return { child, listening: Promise.race([bound.promise, child.then(() => undefined)]) };
}

function spawn(netns: ScratchNetns, args: readonly string[]) {
  const command = ['netns', 'exec', netns.name, process.execPath, program, ...args];
  return execa('ip', command, { stdin: 'pipe', stderr: 'inherit' });
}
