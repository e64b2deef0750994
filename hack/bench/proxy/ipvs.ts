/**
 * What ipvs mode costs at several sizes: for everything, and for one change of each kind the time,
 * commands and bytes for ipvsadm and ipset, and addresses for netlink. Without `--kernel` nothing is
 * written anywhere, and the time is that of deciding; with it a kernel with IPVS is needed:
 *
 *     node hack/bench/proxy/ipvs.ts [--kernel] [services...]
 *     npm run test:vm -- -- hack/bench/proxy/ipvs.ts --kernel 1000
 */
import { systemClock } from '#pkg/clock/clock.ts';
import type { runCommand } from '#pkg/exec/run.ts';
import { renderIpSetRestore } from '#pkg/ipset/render.ts';
import { renderIpvsRestore } from '#pkg/ipvs/render.ts';
import { silentLogger } from '#pkg/log/logger.ts';
import { withNetns } from '#pkg/netns/netns.ts';
import { createScratchNetns } from '#pkg/netns/scratch.ts';
import { NetlinkSocket } from '#pkg/netlink/socket.ts';
import type { IpvsOptions } from '#pkg/proxy/ipvs-options.ts';
import { portKey, type ProxiedPort } from '#pkg/proxy/proxied-port.ts';
import type { Endpoint } from '#pkg/proxy/endpoints.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { ipvsDriver } from '#cmd/podwire-proxy/ipvs-mode.ts';
import type { IpvsDriver } from '#cmd/podwire-proxy/ipvs-driver.ts';
import { createIpvsWriter } from '#cmd/podwire-proxy/ipvs-writer.ts';
import type { RulesWriter } from '#cmd/podwire-proxy/rules-writer.ts';

const options: IpvsOptions = {
  family: 'ip',
  scheduler: 'rr',
  masqueradeBit: 14,
  masqueradeAll: false,
  localDetector: { kind: 'none' },
  nodePortAddresses: ['192.168.0.2'],
  hostAddresses: ['192.168.0.2'],
  nodeAddress: '192.168.0.2',
  randomFully: true,
};

function endpoint(n: number): Endpoint {
  const address = `10.${(n >> 16) & 255}.${(n >> 8) & 255}.${n & 255}`;
  const state = { ready: true, serving: true, terminating: false, local: false };
  return { target: `${address}:80`, address, port: 80, ...state, zoneHints: [], nodeHints: [] };
}

function port(n: number, endpoints: readonly Endpoint[]): ProxiedPort {
  const name = `service-${n}`;
  return {
    family: 'ip',
    namespace: 'bench',
    name,
    portName: 'http',
    printName: `bench/${name}:http`,
    protocol: 'tcp',
    clusterIP: `172.${16 + (n >> 16)}.${(n >> 8) & 255}.${n & 255}`,
    port: 80,
    nodePort: 0,
    externalIPs: [],
    loadBalancerIPs: [],
    sourceRanges: [],
    internalPolicy: 'Cluster',
    externalPolicy: 'Cluster',
    affinitySeconds: 0,
    healthCheckNodePort: 0,
    endpoints: {
      cluster: endpoints,
      local: [],
      all: endpoints,
      reachable: endpoints,
      hasAny: true,
    },
  };
}

/** What was written since the last look. */
class Meter {
  #commands = 0;
  #bytes = 0;
  #addresses = 0;

  counting(inner: IpvsDriver): IpvsDriver {
    const count = (text: string): void => {
      this.#commands += text.split('\n').length - 1;
      this.#bytes += text.length;
    };
    return {
      ...inner,
      applySets: (steps, signal) => {
        count(renderIpSetRestore(steps));
        return inner.applySets(steps, signal);
      },
      applyServers: (steps, signal) => {
        count(renderIpvsRestore(steps));
        return inner.applyServers(steps, signal);
      },
      applyAddresses: (change) => {
        this.#addresses += change.added.length + change.removed.length;
        inner.applyAddresses(change);
      },
    };
  }

  take(): readonly number[] {
    const counts = [this.#commands, this.#bytes, this.#addresses];
    [this.#commands, this.#bytes, this.#addresses] = [0, 0, 0];
    return counts;
  }
}

const nothing: IpvsDriver = {
  sets: async () => new Map(),
  servers: async () => new Map(),
  connections: async () => new Map(),
  boundAddresses: () => new Set(),
  ownAddresses: () => [],
  applySets: async () => undefined,
  applyServers: async () => undefined,
  applyAddresses: () => undefined,
};

/** The fixed rules do not depend on Services. */
const rules: RulesWriter = {
  writeAll: async () => [],
  writeChange: async () => [],
  doubt: () => undefined,
  nextKind: 'partial',
  isKnown: true,
  attempted: [],
};

async function measure(services: number, kernel: IpvsDriver): Promise<void> {
  const meter = new Meter();
  const writer = createIpvsWriter({
    family: 'ip',
    driver: meter.counting(kernel),
    rules,
    options: () => options,
    isOurs: () => true,
    observeIntervalMs: 3_600_000,
    onParked: () => undefined,
    clock: systemClock,
    log: silentLogger,
  });
  const ports = new Map<string, ProxiedPort>();
  const put = (n: number, ...endpoints: readonly number[]): string => {
    const made = port(n, endpoints.map(endpoint));
    ports.set(portKey(made), made);
    return portKey(made);
  };
  const signal = AbortSignal.timeout(600_000);
  const write = async (what: string, changed: ReadonlySet<string> | 'all'): Promise<void> => {
    const startedMs = performance.now();
    await writer.write({ ports, changed, node: undefined }, signal);
    const ms = performance.now() - startedMs;
    const [commands = 0, bytes = 0, addresses = 0] = meter.take();
    const cells = [services, what.padEnd(18), ms.toFixed(1), commands, bytes, addresses];
    console.log(cells.map((cell) => String(cell).padEnd(9)).join(' '));
  };
  for (let n = 1; n <= services; n++) put(n, 2 * n, 2 * n + 1);
  await write('all', 'all');
  await write('endpoint added', new Set([put(7, 14, 15, 9)]));
  await write('endpoint gone', new Set([put(7, 14, 15)]));
  const added = put(services + 1, 2, 3);
  await write('service added', new Set([added]));
  ports.delete(added);
  await write('service gone', new Set([added]));
}

const args = process.argv.slice(2);
const sizes = args.filter((arg) => arg !== '--kernel').map(Number);
console.log('services  what               ms        commands  bytes     addresses');
for (const size of sizes.length > 0 ? sizes : [1000, 20_000]) {
  if (args.includes('--kernel')) {
    await using netns = await createScratchNetns('pw-bench-ipvs');
    const run: typeof runCommand = (file, argv, given) => netns.exec(file, argv, given);
    const sys = await openSys();
    const die = (error: Error): never => {
      throw error;
    };
    using socket = withNetns(sys, netns.path, () => new NetlinkSocket(sys), die);
    await measure(size, ipvsDriver('ip', socket, run));
  } else await measure(size, nothing);
}
