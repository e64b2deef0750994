/**
 * Three nodes whose rounds this process runs itself, one after the other: the daemon's own parts on
 * real namespaces, without an API server and without a process per node. `a` and `b` share an L2
 * network, `c` is behind a router; a pod is an address on its node's loopback device. `outside` is
 * on the router, which knows no way to pods unless the test gives it one.
 */
import { parseNodeConfig } from '#pkg/config/node-config.ts';
import { systemClock } from '#pkg/clock/clock.ts';
import { messageOf } from '#pkg/errors/agent-error.ts';
import { applyHostNetwork } from '#pkg/host-network/apply.ts';
import type { HostObject } from '#pkg/host-network/object.ts';
import { observeHostNetwork } from '#pkg/host-network/observe.ts';
import { openHostKernel } from '#pkg/host-network/rtnetlink.ts';
import { WireguardDriver, type WireguardSecrets } from '#pkg/host-network/rtnetlink-wireguard.ts';
import type { Step } from '#pkg/host-network/step.ts';
import { generatePrivateKey } from '#pkg/host-network/wireguard-key.ts';
import type { Family } from '#pkg/ip/address.ts';
import type { NodeRecord } from '#pkg/kube/types.ts';
import { silentLogger } from '#pkg/log/logger.ts';
import { NETLINK_GENERIC } from '#pkg/netlink/constants.ts';
import { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { withNetns } from '#pkg/netns/netns.ts';
import type { BackendResult } from '#pkg/overlay/backend.ts';
import { createScratchNetns, type ScratchNetns } from '#pkg/netns/scratch.ts';
import { nodeRecord } from '#pkg/pod-network/testdata/vxlan-node.ts';
import { readSysctl } from '#pkg/sysctl/sysctl.ts';
import { openDatagramSys } from '#pkg/sys/datagram-sys.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { createTun } from '#pkg/udp-forwarder/tun.ts';
import { createTableDriver } from '#cmd/podwire-node/host-driver.ts';
import { observeHostLinks } from '#cmd/podwire-node/host-facts.ts';
import { createNodeMetrics } from '#cmd/podwire-node/node-metrics.ts';
import { podNetworkOptions } from '#cmd/podwire-node/pod-network-options.ts';
import { createRoutingDriver } from '#cmd/podwire-node/routing-driver.ts';
import { WrittenFiles } from '#cmd/podwire-node/written-files.ts';
import { PodNetworkRound } from '#cmd/podwire-node/round.ts';
import { createUdpForwarder, openForwardingPorts } from '#cmd/podwire-node/udp-forwarder.ts';
import { NodeStatus } from '#cmd/podwire-node/status.ts';
import { drainOf, ownNodeIn } from './round-records.ts';

export const nodeNames = ['a', 'b', 'c'] as const;
export type NodeName = (typeof nodeNames)[number];

/** Where each node stands, and the number in its addresses. */
const places = { a: [1, 1], b: [1, 2], c: [2, 3] } as const;

export const outside = { ip: '203.0.113.1', ip6: '2001:db8::1' } as const;

export interface RoundNode {
  readonly netns: ScratchNetns;
  readonly pods: Readonly<Record<Family, string>>;
  readonly addresses: Readonly<Record<Family, string>>;
  /** Text of node.json, as the last round wrote it. */
  readonly nodeFile: () => { readonly mtuBytes: number; readonly backend: string };
  readonly problems: () => readonly string[];
  /** What its daemon has handed to a routing daemon last. */
  readonly spoken: () => BackendResult['routing'];
  /** All it has changed in the kernel since the last question. */
  readonly takeSteps: () => readonly Step[];
  /** What its daemon does each second with a WireGuard device. */
  readonly lookAtPeers: (link: string) => void;
  /** Runs in its network namespace; synchronous. */
  readonly inside: <T>(run: () => T) => T;
}

export interface RoundCluster extends AsyncDisposable {
  readonly nodes: Readonly<Record<NodeName, RoundNode>>;
  readonly router: ScratchNetns;
  readonly insideRouter: RoundNode['inside'];
  /** The Node objects, as an API server would have them. */
  readonly records: Map<string, NodeRecord>;
  /** Gives all nodes pod ranges of these families only. */
  setPodFamilies(podFamilies: readonly Family[]): void;
  /** Starts one node's daemon anew with this configuration (YAML); it does nothing yet. */
  configure(name: NodeName, config: string): void;
  /** Forgets what a node's daemon knows of its kernel, as any doubt does. */
  doubt(name: NodeName): void;
  /** One round of one node. */
  round(name: NodeName): Promise<void>;
  /** Rounds of all until nobody has anything to tell the others. */
  settle(): Promise<void>;
}

const signal = new AbortController().signal;

export async function createRoundCluster(podFamilies: readonly Family[]): Promise<RoundCluster> {
  const sys = await openSys();
  await using opened = new AsyncDisposableStack();
  const router = opened.use(await createScratchNetns('pw-round-r'));
  const records = new Map<string, NodeRecord>();
  const parts = new Map<NodeName, Awaited<ReturnType<typeof createNode>>>();
  await router.batch([
    `addr add ${outside.ip}/32 dev lo`,
    `addr add ${outside.ip6}/128 dev lo nodad`,
    ...[1, 2].flatMap((subnet) => [
      `link add br${subnet} type bridge mcast_snooping 0`,
      `link set br${subnet} up`,
      `addr add 192.168.${subnet}.254/24 dev br${subnet}`,
      `addr add fd00:${subnet}::254/64 dev br${subnet} nodad`,
    ]),
  ]);
  await router.exec('sysctl', ['-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1']);
  for (const name of nodeNames) {
    parts.set(name, await createNode(opened, { sys, router, records, podFamilies }, name));
  }
  const part = (name: NodeName) => {
    const found = parts.get(name);
    if (found === undefined) throw new Error(`there is no node ${name}`);
    return found;
  };
  const running = opened.move();
  const cluster: RoundCluster = {
    nodes: { a: part('a').node, b: part('b').node, c: part('c').node },
    router,
    insideRouter: (run) => withNetns(sys, router.path, run as never, die) as never,
    records,
    setPodFamilies: (list) => {
      for (const [name, record] of records) {
        const ranges = podRanges(name as NodeName);
        records.set(name, { ...record, podCIDRs: list.map((family) => ranges[family]) });
      }
    },
    configure: (name, config) => part(name).configure(config),
    doubt: (name) => part(name).doubt(),
    round: (name) => part(name).round(),
    settle: async () => {
      for (let attempt = 0; attempt < 5; attempt++) {
        const before = new Map(records);
        for (const name of nodeNames) {
          try {
            await part(name).round();
          } catch (error) {
            throw new Error(`node ${name}: ${messageOf(error)}`, { cause: error });
          }
        }
        if (nodeNames.every((name) => before.get(name) === records.get(name))) return;
      }
      throw new Error('the nodes go on telling each other something new');
    },
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
  return cluster;
}

const datagrams = openDatagramSys();

function podRanges(name: NodeName): Readonly<Record<Family, string>> {
  const [, n] = places[name];
  return { ip: `10.244.${n}.0/24`, ip6: `fd00:10:244:${n}::/64` };
}

interface Surroundings {
  readonly sys: Awaited<ReturnType<typeof openSys>>;
  readonly router: ScratchNetns;
  readonly records: Map<string, NodeRecord>;
  readonly podFamilies: readonly Family[];
}

async function createNode(
  opened: AsyncDisposableStack,
  { sys, router, records, podFamilies }: Surroundings,
  name: NodeName,
) {
  const [subnet, n] = places[name];
  const netns = opened.use(await createScratchNetns(`pw-round-${name}`));
  const addresses = { ip: `192.168.${subnet}.${n}`, ip6: `fd00:${subnet}::${n}` };
  const pods = { ip: `10.244.${n}.9`, ip6: `fd00:10:244:${n}::9` };
  await router.batch([
    `link add to-${name} type veth peer name eth0 netns ${netns.name}`,
    `link set to-${name} master br${subnet} up`,
  ]);
  await netns.batch([
    'link set eth0 up',
    `addr add ${addresses.ip}/24 dev eth0`,
    `addr add ${addresses.ip6}/64 dev eth0 nodad`,
    `route add default via 192.168.${subnet}.254`,
    `route add default via fd00:${subnet}::254`,
    `addr add ${pods.ip}/32 dev lo`,
    `addr add ${pods.ip6}/128 dev lo nodad`,
  ]);
  const ranges = podRanges(name);
  const podCIDRs = podFamilies.map((family) => ranges[family]);
  const internalIPs = [addresses.ip, addresses.ip6];
  records.set(name, nodeRecord(name, { podCIDRs, internalIPs }));
  const inside = <T>(run: () => T): T => withNetns(sys, netns.path, run as never, die) as T;
  const socket = opened.use(inside(() => new NetlinkSocket(sys)));
  const generic = opened.use(inside(() => new NetlinkSocket(sys, NETLINK_GENERIC)));
  const privateKey = generatePrivateKey();
  const steps: Step[] = [];
  const forwarder = opened.use(
    createUdpForwarder({
      open: (forwarding) => inside(() => openForwardingPorts(sys, datagrams, forwarding)),
      log: silentLogger,
      onFailure: () => round?.doubtHost(),
    }),
  );
  let nodeFile = '';
  let problems: readonly string[] = [];
  let round: PodNetworkRound | undefined;
  let wireguard: WireguardDriver | undefined;
  let spoken: BackendResult['routing'];
  let routing: ReturnType<typeof createRoutingDriver> | undefined;
  opened.defer(() => routing?.[Symbol.dispose]());

  function configure(text: string): void {
    const config = parseNodeConfig(text, 'the test');
    const secrets: WireguardSecrets | undefined =
      config.backend === 'wireguard'
        ? { privateKey, presharedKey: config.wireguard.presharedKey }
        : undefined;
    wireguard = new WireguardDriver(generic, secrets);
    const plain = openHostKernel(socket, {
      wireguard,
      createTun: (link) => createTun(datagrams, link),
    });
    const kernel = {
      ...plain,
      sysctl: (path: string) => inside(() => plain.sysctl(path)),
      write: (some: readonly Step[]) => inside(() => plain.write(some)),
    };
    routing?.[Symbol.dispose]();
    const driver = createRoutingDriver(config.bgp, {
      // A bgpd of the tests is given a tenth of the time to come to itself: it has little to read.
      clock: { ...systemClock, sleep: (ms, abort) => systemClock.sleep(ms / 10, abort) },
      onLost: () => undefined,
      written: new WrittenFiles(),
    });
    routing = driver;
    round = new PodNetworkRound({
      options: podNetworkOptions(name, config, secrets),
      nodes: { snapshot: () => records, drain: drainOf(records) },
      host: {
        facts: () => ({
          ...observeHostLinks(socket),
          acceptRa: (link) => inside(() => readSysctl(`net/ipv6/conf/${link}/accept_ra`)),
        }),
        observe: (want: readonly HostObject[]) => observeHostNetwork(kernel, want),
        apply: async (some, abort) => {
          steps.push(...some);
          await applyHostNetwork(kernel, some, abort);
        },
      },
      tables: createTableDriver(async (args, input) => {
        const options = input === undefined ? {} : { input };
        return (await netns.exec('nft', args, options)).stdout;
      }, config),
      // The tests' nodes drop nothing that they forward.
      packetFilter: { converge: async () => [], doubt: () => undefined },
      forwarder: { apply: (forwarding) => forwarder.apply(forwarding) },
      routing: {
        problems: () => driver.problems(),
        apply: (speaker, abort) => {
          spoken = speaker;
          return driver.apply(speaker, abort);
        },
      },
      ownNode: ownNodeIn(records, name),
      files: {
        writeNodeFile: async (written) => void (nodeFile = written),
        writeSubnetEnv: async () => undefined,
        writeConflist: async () => undefined,
      },
      status: Object.assign(new NodeStatus(systemClock, silentLogger), {
        setProblems: (list: readonly { readonly node: string; readonly message: string }[]) => {
          problems = list.map((problem) => `${problem.node}: ${problem.message}`);
        },
      }),
      metrics: createNodeMetrics(),
      clock: systemClock,
      log: silentLogger,
      observeIntervalMs: 600_000,
    });
  }

  const node: RoundNode = {
    netns,
    pods,
    addresses,
    nodeFile: () => JSON.parse(nodeFile) as ReturnType<RoundNode['nodeFile']>,
    problems: () => problems,
    spoken: () => spoken,
    takeSteps: () => steps.splice(0),
    lookAtPeers: (link) => void wireguard?.look(link),
    inside,
  };
  return {
    node,
    configure,
    doubt: () => round?.doubtHost(),
    round: async () => {
      if (round === undefined) throw new Error(`node ${name} has no configuration yet`);
      await round.run(signal);
    },
  };
}

function die(error: Error): never {
  throw error;
}
