/**
 * What ipvs mode costs at several sizes: for everything, and for one change of each kind (the median
 * of a few) commands and bytes for ipvsadm and ipset, addresses for netlink, and the time, also of
 * each kind of kernel call. `share` is the part of a whole `ipvsadm --restore` and `ipset restore` in
 * bytes, which a proxy that writes everything at each change would send. Without `--kernel` nothing
 * is written anywhere, and the time is that of deciding; with it a kernel with IPVS is needed:
 *
 *     node hack/bench/proxy/ipvs.ts [--kernel] [services...]
 *     npm run test:vm -- --timeout 900 -- hack/bench/proxy/ipvs.ts --kernel 1000
 */
import { systemClock } from '#pkg/clock/clock.ts';
import { runCommand } from '#pkg/exec/run.ts';
import { renderIpSetRestore } from '#pkg/ipset/render.ts';
import { renderIpvsRestore } from '#pkg/ipvs/render.ts';
import { silentLogger } from '#pkg/log/logger.ts';
import { withNetns } from '#pkg/netns/netns.ts';
import { createScratchNetns } from '#pkg/netns/scratch.ts';
import { NetlinkSocket } from '#pkg/netlink/socket.ts';
import type { IpvsOptions } from '#pkg/proxy/ipvs-options.ts';
import { portKey, type ProxiedPort } from '#pkg/proxy/proxied-port.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { ipvsDriver } from '#cmd/podwire-proxy/ipvs-mode.ts';
import type { IpvsDriver } from '#cmd/podwire-proxy/ipvs-driver.ts';
import { createIpvsWriter } from '#cmd/podwire-proxy/ipvs-writer.ts';
import { noRules } from '#cmd/podwire-proxy/scratch/no-rules.ts';
import { benchPort } from './bench-port.ts';

const options: IpvsOptions = {
  family: 'ip',
  scheduler: 'rr',
  schedulerFlags: '',
  masqueradeBit: 14,
  masqueradeAll: false,
  localDetector: { kind: 'none' },
  nodePortAddresses: ['192.168.0.2'],
  hostAddresses: ['192.168.0.2'],
  foreignAddresses: [],
  nodeAddress: '192.168.0.2',
  randomFully: true,
};

function endpoint(n: number): string {
  return `10.${(n >> 16) & 255}.${(n >> 8) & 255}.${n & 255}:80`;
}

function port(n: number, targets: readonly string[]): ProxiedPort {
  const ip = `172.${16 + (n >> 16)}.${(n >> 8) & 255}.${n & 255}`;
  return benchPort(`service-${n}`, { ip, port: 80 }, targets);
}

/** Kinds of kernel calls, each with a column of its own. */
const calls = ['read', 'servers', 'sets', 'addresses'] as const;
type Call = (typeof calls)[number];

interface Spent {
  readonly commands: number;
  readonly bytes: number;
  readonly addresses: number;
  readonly callMs: Readonly<Record<Call, number>>;
}

/** What was written since the last look, and how long the kernel and its programs took for it. */
class Meter {
  #commands = 0;
  #bytes = 0;
  #addresses = 0;
  #callMs = noTime();

  counting(inner: IpvsDriver): IpvsDriver {
    const count = (text: string): void => {
      this.#commands += text.split('\n').length - 1;
      this.#bytes += text.length;
    };
    const timed = async <T>(call: Call, act: () => Promise<T> | T): Promise<T> => {
      const startedMs = performance.now();
      try {
        return await act();
      } finally {
        this.#callMs[call] += performance.now() - startedMs;
      }
    };
    const timedNow = <T>(call: Call, act: () => T): T => {
      const startedMs = performance.now();
      const result = act();
      this.#callMs[call] += performance.now() - startedMs;
      return result;
    };
    return {
      sets: (signal) => timed('read', () => inner.sets(signal)),
      servers: (signal) => timed('read', () => inner.servers(signal)),
      connections: (keys, signal) => timed('read', () => inner.connections(keys, signal)),
      boundAddresses: () => timedNow('read', () => inner.boundAddresses()),
      ownAddresses: () => timedNow('read', () => inner.ownAddresses()),
      applySets: (steps, signal) => {
        count(renderIpSetRestore(steps));
        return timed('sets', () => inner.applySets(steps, signal));
      },
      applyServers: (steps, signal) => {
        count(renderIpvsRestore(steps));
        return timed('servers', () => inner.applyServers(steps, signal));
      },
      applyAddresses: (change) => {
        this.#addresses += change.added.length + change.removed.length;
        timedNow('addresses', () => inner.applyAddresses(change));
      },
    };
  }

  take(): Spent {
    const spent = {
      commands: this.#commands,
      bytes: this.#bytes,
      addresses: this.#addresses,
      callMs: this.#callMs,
    };
    [this.#commands, this.#bytes, this.#addresses] = [0, 0, 0];
    this.#callMs = noTime();
    return spent;
  }
}

function noTime(): Record<Call, number> {
  return { read: 0, servers: 0, sets: 0, addresses: 0 };
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

async function measure(services: number, kernel: IpvsDriver): Promise<void> {
  const meter = new Meter();
  const writer = createIpvsWriter({
    family: 'ip',
    driver: meter.counting(kernel),
    // The fixed rules do not depend on Services.
    rules: noRules,
    options: () => options,
    otherHosts: () => new Set(),
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
  const signal = AbortSignal.timeout(1_800_000);
  const write = async (changed: ReadonlySet<string> | 'all'): Promise<Measured> => {
    const startedMs = performance.now();
    await writer.write({ ports, changed, node: undefined }, signal);
    return { ms: performance.now() - startedMs, ...meter.take() };
  };
  for (let n = 1; n <= services; n++) put(n, 2 * n, 2 * n + 1);
  const all = await write('all');
  const print = (what: string, measured: Measured): void => {
    const { addresses, bytes, callMs, commands, ms } = measured;
    const share = `${Number(((100 * bytes) / all.bytes).toPrecision(2))}%`;
    const times = [ms, ...calls.map((call) => callMs[call])].map((time) => time.toFixed(1));
    printRow([services, what, commands, bytes, addresses, share, ...times]);
  };
  print('all', all);
  if (kernel !== nothing) {
    writer.doubt();
    print('all compared', await write(new Set()));
  }
  const kinds: Record<string, Measured[]> = {};
  const change = async (what: string, key: string): Promise<void> => {
    (kinds[what] ??= []).push(await write(new Set([key])));
  };
  for (let round = 0; round < rounds; round++) {
    const n = 7 * (round + 1);
    await change('endpoint added', put(n, 2 * n, 2 * n + 1, 9));
    await change('endpoint gone', put(n, 2 * n, 2 * n + 1));
    const added = put(services + 1 + round, 2, 3);
    await change('service added', added);
    ports.delete(added);
    await change('service gone', added);
  }
  for (const [what, measured] of Object.entries(kinds)) {
    const middle = measured.toSorted((a, b) => a.ms - b.ms)[Math.floor(rounds / 2)];
    if (middle !== undefined) print(what, middle);
  }
}

const rounds = 5;

interface Measured extends Spent {
  readonly ms: number;
}

const columns = ['services', 'what', 'commands', 'bytes', 'addresses', 'share', 'ms', ...calls];

function printRow(cells: readonly (string | number)[]): void {
  console.log(cells.map((cell, i) => String(cell).padEnd(i === 1 ? 15 : 10)).join(''));
}

const args = process.argv.slice(2);
const sizes = args.filter((arg) => arg !== '--kernel').map(Number);
printRow(columns);
for (const size of sizes.length > 0 ? sizes : [1000, 20_000]) {
  if (args.includes('--kernel')) {
    await using netns = await createScratchNetns('pw-bench-ipvs');
    // Not `ip netns exec`, which makes a mount namespace each time.
    const run: typeof runCommand = (file, argv, given) =>
      runCommand('nsenter', [`--net=${netns.path}`, file, ...argv], given);
    const sys = await openSys();
    const die = (error: Error): never => {
      throw error;
    };
    using socket = withNetns(sys, netns.path, () => new NetlinkSocket(sys), die);
    await measure(size, ipvsDriver('ip', socket, run));
  } else await measure(size, nothing);
}
