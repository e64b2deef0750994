/** Whether this kernel can do ipvs mode, found out by doing it; and the settings it needs. */
import { release } from 'node:os';
import type { IpvsConfig } from '#pkg/config/proxy-config.ts';
import { AgentError } from '#pkg/errors/agent-error.ts';
import type { runCommand } from '#pkg/exec/run.ts';
import type { IptablesTool } from '#pkg/iptables/detect.ts';
import { setTimeouts } from '#pkg/ipvs/apply.ts';
import type { Logger } from '#pkg/log/logger.ts';
import type { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { readSysctl, writeSysctl } from '#pkg/sysctl/sysctl.ts';
import { ensureDevice } from './ipvs-device.ts';

/** A virtual server in TEST-NET-2 (RFC 5737), as kube-proxy tries one. */
const trialServer = ['-t', '198.51.100.0:20000'];
const trialSet = 'PODWIRE-TRIAL';
const setTypes = ['hash:ip', 'hash:ip,port', 'hash:ip,port,ip', 'hash:ip,port,net', 'bitmap:port'];
const timeoutMs = 30_000;

/**
 * Makes one of each kind of thing that the mode is made of.
 *
 * @throws {AgentError} IpvsUnusable, naming what is missing
 */
export async function requireIpvs(
  { run, socket }: { readonly run: typeof runCommand; readonly socket: NetlinkSocket },
  { scheduler, schedulerFlags }: Pick<IpvsConfig, 'scheduler' | 'schedulerFlags'>,
  signal: AbortSignal,
): Promise<void> {
  const attempt = (what: string, action: () => unknown) => attemptTo(what, action, signal);
  const call = (file: string, ...args: readonly string[]) => run(file, args, { timeoutMs, signal });
  await attempt('no virtual servers (kernel module ip_vs, program ipvsadm)', () =>
    call('ipvsadm', '--list', '--numeric'),
  );
  // Left over by a process that died here.
  await call('ipvsadm', '-D', ...trialServer).catch(() => signal.throwIfAborted());
  const flags = schedulerFlags === '' ? [] : ['-b', schedulerFlags];
  const asked = [scheduler, ...flags].join(' ');
  await attempt(`no scheduler ${asked} (kernel module ip_vs_${scheduler})`, () =>
    call('ipvsadm', '-A', ...trialServer, '-s', scheduler, ...flags),
  );
  await call('ipvsadm', '-D', ...trialServer);
  await call('ipset', 'destroy', trialSet).catch(() => signal.throwIfAborted());
  const restore = (...types: readonly string[]) => {
    const input = types.flatMap((type) => {
      const range = type === 'bitmap:port' ? ' range 0-65535' : '';
      return [`create ${trialSet} ${type}${range}\n`, `destroy ${trialSet}\n`];
    });
    return run('ipset', ['restore', '-exist'], { input: input.join(''), timeoutMs, signal });
  };
  // One by one only to find out which it is.
  const hasAll = await restore(...setTypes).then(
    () => true,
    () => false,
  );
  for (const type of hasAll ? [] : setTypes) {
    await attempt(`no sets of type ${type} (kernel module ip_set, program ipset)`, () =>
      restore(type),
    );
  }
  await attempt('no dummy devices (kernel module dummy)', () => ensureDevice(socket));
}

/**
 * Tries a rule that asks a set, in a chain that nothing leads to. One that a process left that died
 * here is emptied first: while it names the set, that cannot be taken away.
 *
 * @throws {AgentError} IpvsUnusable
 */
export async function requireSetRules(
  run: typeof runCommand,
  tool: IptablesTool,
  signal: AbortSignal,
): Promise<void> {
  const set = `${trialSet}-${tool.family}`;
  const family = tool.family === 'ip' ? 'inet' : 'inet6';
  const input = `create ${set} hash:ip family ${family}\n`;
  const rules = [
    `*filter\n:${trialSet} - [0:0]\n-A ${trialSet} -m set --match-set ${set} dst -j RETURN\nCOMMIT\n`,
    `*filter\n-F ${trialSet}\n-X ${trialSet}\nCOMMIT\n`,
  ].join('');
  try {
    await attemptTo(
      `no rules of ${tool.restore} that ask sets (kernel module xt_set)`,
      async () => {
        await run('ipset', ['restore', '-exist'], { input, timeoutMs, signal });
        await tool.run(tool.restore, ['--noflush', '-w', '5'], { input: rules, timeoutMs, signal });
      },
      signal,
    );
  } finally {
    await run('ipset', ['destroy', set], { timeoutMs, signal }).catch(() => undefined);
  }
}

async function attemptTo(what: string, action: () => unknown, signal: AbortSignal): Promise<void> {
  try {
    await action();
  } catch (cause) {
    signal.throwIfAborted();
    throw new AgentError('IpvsUnusable', `Cannot use IPVS here: ${what}`, { cause });
  }
}

interface Tools {
  readonly run: typeof runCommand;
  readonly log: Logger;
}

/** Settings and why: what cannot be written is logged, as traffic goes on in most cases. */
export async function applyIpvsSettings(
  { log, run }: Tools,
  config: IpvsConfig,
  signal: AbortSignal,
): Promise<void> {
  writeSysctls(config, log);
  await setTimeouts(run, timeoutSeconds(config), signal);
}

/**
 * `--init-only`: those of the settings that a container without privileges cannot make, and what is
 * refused. A kernel without IPVS has none of them, nor needs them: iptables stands in.
 */
export async function initializeIpvs(
  { log, run }: Tools,
  config: IpvsConfig,
  signal: AbortSignal,
): Promise<readonly Error[]> {
  try {
    // The kernel loads what answers.
    await run('ipvsadm', ['--list', '--numeric'], { timeoutMs, signal });
  } catch (err) {
    signal.throwIfAborted();
    log.warn({ err }, 'No IPVS here, and none of its settings');
    return [];
  }
  return writeSysctls(config, log);
}

function writeSysctls(config: IpvsConfig, log: Logger): readonly Error[] {
  const failures: Error[] = [];
  for (const [path, value] of ipvsSysctls(config, release())) {
    try {
      if (readSysctl(path) !== value) writeSysctl(path, value);
    } catch (err) {
      log.warn({ err, path, value }, 'A setting of the host stays as it is');
      failures.push(err instanceof Error ? err : new Error(String(err)));
    }
  }
  return failures;
}

/** In the kernel's unit; what is given stays more than 0, which would mean "as it is". */
export function timeoutSeconds(
  config: Pick<IpvsConfig, 'tcpFinTimeoutMs' | 'tcpTimeoutMs' | 'udpTimeoutMs'>,
): Parameters<typeof setTimeouts>[1] {
  const { tcpFinTimeoutMs, tcpTimeoutMs, udpTimeoutMs } = config;
  const seconds = (ms: number): number => (ms > 0 ? Math.max(1, Math.round(ms / 1000)) : 0);
  return {
    tcp: seconds(tcpTimeoutMs),
    tcpFin: seconds(tcpFinTimeoutMs),
    udp: seconds(udpTimeoutMs),
  };
}

/** @param kernel as uname has it: "6.1.0-57-amd64" */
export function ipvsSysctls(
  { strictARP }: Pick<IpvsConfig, 'strictARP'>,
  kernel: string,
): readonly (readonly [path: string, value: string])[] {
  const [major = 0, minor = 0] = kernel.split('.').map(Number);
  const at = major * 1000 + minor;
  return [
    // Without it masquerade would not see these connections.
    ['net/ipv4/vs/conntrack', '1'],
    // Kernels before 5.9 hold a connection back for a second when a client uses its port again
    // (kubernetes/kubernetes#81775).
    ...(at >= 4001 && at < 5009 ? [['net/ipv4/vs/conn_reuse_mode', '0'] as const] : []),
    // Connections to a real server that is gone end at their next packet.
    ['net/ipv4/vs/expire_nodest_conn', '1'],
    // Affinity does not lead to one that is leaving.
    ['net/ipv4/vs/expire_quiescent_template', '1'],
    ['net/ipv4/ip_forward', '1'],
    ...(strictARP
      ? ([
          ['net/ipv4/conf/all/arp_ignore', '1'],
          ['net/ipv4/conf/all/arp_announce', '2'],
        ] as const)
      : []),
  ];
}
