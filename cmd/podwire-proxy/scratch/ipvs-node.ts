/** A node in a scratch namespace that serves ports in ipvs mode, without the daemon around it. */
import { runCommand } from '#pkg/exec/run.ts';
import type { Clock } from '#pkg/clock/clock.ts';
import { families, parseAddress, type Family } from '#pkg/ip/address.ts';
import { containsAddress, parsePrefix } from '#pkg/ip/prefix.ts';
import { applyIptables } from '#pkg/iptables/apply.ts';
import { observeIpSetSizes } from '#pkg/ipset/observe.ts';
import { observeIptables } from '#pkg/iptables/observe.ts';
import { parseIpvsProc } from '#pkg/ipvs/parse.ts';
import { schedulerFlags } from '#pkg/ipvs/scheduler-flags.ts';
import { usualTools } from '#pkg/iptables/testdata/scratch-tools.ts';
import { silentLogger } from '#pkg/log/logger.ts';
import { withNetns } from '#pkg/netns/netns.ts';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';
import { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { ServiceModel } from '#pkg/proxy/service-model.ts';
import { asChanges, nodeName, type Cluster } from '#pkg/proxy/testdata/records.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { boundAddresses } from '#cmd/podwire-proxy/ipvs-device.ts';
import { differencesBetween } from '#cmd/podwire-proxy/ipvs-drift.ts';
import { ipvsDriver, nodePortsOn } from '#cmd/podwire-proxy/ipvs-mode.ts';
import type { IpvsDriver } from '#cmd/podwire-proxy/ipvs-driver.ts';
import { createIpvsWriter, type IpvsWriter } from '#cmd/podwire-proxy/ipvs-writer.ts';
import { ipvsSysctls, requireIpvs } from '#cmd/podwire-proxy/ipvs-support.ts';
import type { WriteReport } from '#cmd/podwire-proxy/proxy-mode.ts';
import { createRulesWriter } from '#cmd/podwire-proxy/rules-writer.ts';

export interface IpvsNode extends Disposable {
  /** What the two families' writes did. Each proxy is a new process's: it knows nothing. */
  write(cluster: Cluster, changed?: ReadonlySet<string>): Promise<Record<Family, WriteReport>>;
  /** Forgets everything, as a restart does, with another scheduler if one is given. */
  restart(scheduler?: string): void;
  /** Names of Services of which a port was left out. */
  readonly parked: readonly string[];
  /** What the drift watch sees of changes by others. */
  differences(): Promise<string[]>;
  /** How often each kernel call was made since the last look. */
  takeCalls(): Record<string, number>;
}

/** Tests have limits of their own, and so has each program. */
const { signal } = new AbortController();

export async function createIpvsNode(
  netns: ScratchNetns,
  of: {
    readonly clock: Clock;
    readonly scheduler?: string;
    readonly excludeCIDRs?: string[];
    /** Addresses of other nodes. */
    readonly others?: readonly string[];
  },
): Promise<IpvsNode> {
  // Not `ip netns exec`, which makes a mount namespace each time: that takes seconds in the VM.
  const run: typeof runCommand = (file, args, options) =>
    runCommand('nsenter', [`--net=${netns.path}`, file, ...args], options);
  const sys = await openSys();
  const die = (error: Error): never => {
    throw error;
  };
  const socket = withNetns(sys, netns.path, () => new NetlinkSocket(sys), die);
  let scheduler = of.scheduler ?? 'rr';
  let flags = schedulerFlags(scheduler, []);
  await requireIpvs({ run, socket }, { scheduler, schedulerFlags: flags }, signal);
  const settings = ipvsSysctls({ strictARP: false }, '6.1').map(
    ([path, value]) => `${path.replaceAll('/', '.')}=${value}`,
  );
  await netns.exec('sysctl', ['-qw', ...settings]);
  const tools = await usualTools(netns);
  const excluded = (of.excludeCIDRs ?? []).map(parsePrefix);
  const isOurs = ({ address }: { readonly address: string }): boolean =>
    !excluded.some((range) => containsAddress(range, parseAddress(address)));
  const otherHosts = new Set(of.others);
  const parked: string[] = [];
  let calls: Record<string, number> = {};
  let writers = new Map<Family, IpvsWriter>();
  const restart = (asked = scheduler): void => {
    [scheduler, flags] = [asked, schedulerFlags(asked, [])];
    writers = new Map(
      families.map((family) => {
        const tool = tools(family);
        const rules = createRulesWriter({
          family,
          driver: {
            observe: (s) => observeIptables(tool, s),
            apply: (steps, s) => applyIptables(tool, steps, s),
          },
          observeIntervalMs: 3_600_000,
          clock: of.clock,
          log: silentLogger,
        });
        const writer = createIpvsWriter({
          family,
          driver: counted(ipvsDriver(family, socket, run), (call) => {
            calls[call] = (calls[call] ?? 0) + 1;
          }),
          rules,
          options: (_, own) => ({
            family,
            scheduler,
            schedulerFlags: flags,
            masqueradeBit: 14,
            masqueradeAll: false,
            localDetector: {
              kind: 'cluster-cidr',
              prefixes: [parsePrefix('10.1.0.0/16'), parsePrefix('fd00:10::/32')],
            },
            nodePortAddresses: nodePortsOn('all', own),
            hostAddresses: own,
            nodeAddress: family === 'ip' ? '203.0.113.1' : '2001:db8::1',
            randomFully: tool.randomFully,
          }),
          otherHosts: () => otherHosts,
          isOurs,
          observeIntervalMs: 3_600_000,
          onParked: ({ name }) => parked.push(name),
          clock: of.clock,
          log: silentLogger,
        });
        return [family, writer];
      }),
    );
  };
  restart();
  return {
    restart,
    parked,
    differences: async () => {
      const { stdout } = await run('cat', ['/proc/net/ip_vs'], { timeoutMs: 60_000 });
      const servers = parseIpvsProc(stdout);
      const sets = await observeIpSetSizes(run, signal);
      return [...writers].flatMap(([family, { known }]) => {
        if (known === undefined) return [`${family} is in doubt`];
        const addresses = boundAddresses(socket, family);
        return differencesBetween(known, { servers, sets, addresses }, family, isOurs);
      });
    },
    takeCalls: () => {
      const made = calls;
      calls = {};
      return made;
    },
    write: async (cluster, changed) => {
      const reports: Partial<Record<Family, WriteReport>> = {};
      for (const [family, writer] of writers) {
        const model = new ServiceModel(family, { name: nodeName, zone: undefined });
        model.update(asChanges(cluster));
        const want = { ports: model.ports, changed: changed ?? 'all', node: undefined } as const;
        reports[family] = await writer.write(want, signal);
      }
      return reports as Record<Family, WriteReport>;
    },
    [Symbol.dispose]: () => socket[Symbol.dispose](),
  };
}

/** Steps count, calls without any do not. */
function counted(driver: IpvsDriver, count: (call: string) => void): IpvsDriver {
  return {
    ...driver,
    sets: (s) => {
      count('sets');
      return driver.sets(s);
    },
    servers: (s) => {
      count('servers');
      return driver.servers(s);
    },
    applySets: (steps, s) => {
      if (steps.length > 0) count('applySets');
      return driver.applySets(steps, s);
    },
    applyServers: (steps, s) => {
      if (steps.length > 0) count('applyServers');
      return driver.applyServers(steps, s);
    },
  };
}
