/** The ipvs mode's parts: the tools of this node, a writer for each family, the drift watch. */
import { readFile } from 'node:fs/promises';
import type { ProxyConfig } from '#pkg/config/proxy-config.ts';
import { runCommand } from '#pkg/exec/run.ts';
import type { Family } from '#pkg/ip/address.ts';
import { parseAddress } from '#pkg/ip/address.ts';
import { containsAddress } from '#pkg/ip/prefix.ts';
import { applyIpSets } from '#pkg/ipset/apply.ts';
import { observeIpSets, observeIpSetSizes } from '#pkg/ipset/observe.ts';
import { applyIptables } from '#pkg/iptables/apply.ts';
import type { IptablesTool } from '#pkg/iptables/detect.ts';
import { observeIptables } from '#pkg/iptables/observe.ts';
import { applyIpvs } from '#pkg/ipvs/apply.ts';
import { observeConnections, observeIpvs } from '#pkg/ipvs/observe.ts';
import { parseIpvsProc } from '#pkg/ipvs/parse.ts';
import type { VirtualServer } from '#pkg/ipvs/virtual-server.ts';
import { NetlinkSocket } from '#pkg/netlink/socket.ts';
import type { IpvsOptions } from '#pkg/proxy/ipvs-options.ts';
import { nodePortTargets } from '#pkg/proxy/node-port-addresses.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { watchDrift } from './drift.ts';
import { usableTools, type IptablesModeParts } from './iptables-mode.ts';
import { boundAddresses, changeAddresses, isLinkLocal, ownAddresses } from './ipvs-device.ts';
import { applyIpvsSettings, requireIpvs, requireSetRules } from './ipvs-support.ts';
import { watchIpvs, type IpvsLook } from './ipvs-drift.ts';
import type { IpvsDriver } from './ipvs-driver.ts';
import { createIpvsWriter, type IpvsWriter } from './ipvs-writer.ts';
import type { ProxyMode } from './proxy-mode.ts';
import { iptablesOptions } from './round-options.ts';
import { createRulesWriter } from './rules-writer.ts';

export interface IpvsModeParts extends IptablesModeParts {
  /** Canonical addresses of other hosts; undefined while they are not known. */
  readonly otherHosts: () => ReadonlySet<string> | undefined;
}

/**
 * The mode as this node can run it.
 *
 * @throws {AgentError} IpvsUnusable, naming the module or program that is missing
 */
export async function createIpvsMode(
  parts: IpvsModeParts,
  signal: AbortSignal,
): Promise<ProxyMode> {
  const { clock, config, log, request } = parts;
  using disposables = new DisposableStack();
  const socket = disposables.use(new NetlinkSocket(await openSys()));
  await requireIpvs({ run: runCommand, socket }, config.ipvs, signal);
  const tools = await usableTools(log, signal);
  for (const tool of tools.values()) await requireSetRules(runCommand, tool, signal);
  await applyIpvsSettings({ run: runCommand, log }, config.ipvs, signal);
  const writers = new Map<Family, IpvsWriter>();
  const drift = disposables.use(await watchDrift({ tools, writers, clock, log }, request, signal));
  const observeIntervalMs = config.ipvs.syncPeriodMs;
  const isOurs = ({ address }: Pick<VirtualServer, 'address'>): boolean =>
    !config.ipvs.excludeCIDRs.some((range) => containsAddress(range, parseAddress(address)));
  for (const [family, tool] of tools) {
    const driver = {
      observe: (s: AbortSignal) => observeIptables(tool, s),
      apply: (steps: Parameters<typeof applyIptables>[1], s: AbortSignal) =>
        drift.exempt(() => applyIptables(tool, steps, s)),
    };
    writers.set(
      family,
      createIpvsWriter({
        family,
        driver: ipvsDriver(family, socket, runCommand),
        rules: createRulesWriter({ family, driver, observeIntervalMs, clock, log }),
        options: (node, own) => optionsOf({ ...parts, node }, tool, own),
        otherHosts: parts.otherHosts,
        isOurs,
        observeIntervalMs,
        onParked: parts.onParked,
        clock,
        log,
      }),
    );
  }
  const stop = new AbortController();
  disposables.defer(() => stop.abort());
  const look = (s: AbortSignal): ReturnType<IpvsLook> => lookAtIpvs(socket, s);
  const until = AbortSignal.any([signal, stop.signal]);
  void watchIpvs({ look, writers, isOurs, clock, log }, request, until);
  const owned = disposables.move();
  return { name: 'ipvs', writers, [Symbol.dispose]: () => owned.dispose() };
}

/** The file is that of this process, both families in it. */
async function lookAtIpvs(socket: NetlinkSocket, signal: AbortSignal): ReturnType<IpvsLook> {
  const servers = parseIpvsProc(await readFile('/proc/net/ip_vs', { encoding: 'utf8', signal }));
  const sets = await observeIpSetSizes(runCommand, signal);
  return (family) => ({ servers, sets, addresses: boundAddresses(socket, family) });
}

/** The kernel of a namespace: that in which `socket` was opened and `run` runs programs. */
export function ipvsDriver(
  family: Family,
  socket: NetlinkSocket,
  run: typeof runCommand,
): IpvsDriver {
  const prefix = family === 'ip6' ? 'KUBE-6-' : 'KUBE-';
  return {
    sets: (signal) => observeIpSets(run, prefix, signal),
    servers: (signal) => observeIpvs(run, signal),
    connections: (keys, signal) => observeConnections(run, keys, signal),
    boundAddresses: () => boundAddresses(socket, family),
    ownAddresses: () => ownAddresses(socket, family),
    applySets: (steps, signal) => applyIpSets(run, steps, signal),
    applyServers: (steps, signal) => applyIpvs(run, steps, signal),
    applyAddresses: (change) => changeAddresses(socket, change),
  };
}

/** The host's own addresses that node ports answer on: none that others do not reach. */
export function nodePortsOn(
  targets: ReturnType<typeof nodePortTargets>,
  own: readonly string[],
): readonly string[] {
  return own.filter((a) => !isLinkLocal(a) && (targets === 'all' || targets.includes(a)));
}

function optionsOf(
  given: Parameters<typeof iptablesOptions>[0] & { readonly config: ProxyConfig },
  { family, randomFully }: IptablesTool,
  own: readonly string[],
): Omit<IpvsOptions, 'foreignAddresses'> {
  const { config } = given;
  const shared = iptablesOptions(given, { family, randomFully });
  const { localDetector, masqueradeAll, masqueradeBit, nodeAddress } = shared;
  const targets = nodePortTargets(config.nodePortAddresses, family, {
    all: own,
    primary: nodeAddress,
  });
  return {
    family,
    scheduler: config.ipvs.scheduler,
    schedulerFlags: config.ipvs.schedulerFlags,
    masqueradeBit,
    masqueradeAll,
    localDetector,
    nodePortAddresses: nodePortsOn(targets, own),
    hostAddresses: own,
    nodeAddress,
    randomFully,
  };
}
