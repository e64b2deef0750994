/**
 * The tuning plugin: settings of a container's interface and of its network namespace, a drop-in for
 * the reference plugin of that name. Chained behind a plugin that makes the interface.
 */
import { AgentError } from '#pkg/errors/agent-error.ts';
import { CniError, cniCode } from '#pkg/cni/cni-error.ts';
import { readPrevResult, readValidAttachments } from '#pkg/cni/config.ts';
import type { CniAddRequest, CniPlugin, CniRequest } from '#pkg/cni/plugin.ts';
import type { CniResult } from '#pkg/cni/result.ts';
import { changeLink, type LinkChange } from '#pkg/netlink/link-change.ts';
import { getLink, type Link } from '#pkg/netlink/link.ts';
import { NetlinkError } from '#pkg/netlink/netlink-error.ts';
import { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { withNetns } from '#pkg/netns/netns.ts';
import { normalizeSysctl, readSysctl, writeSysctl } from '#pkg/sysctl/sysctl.ts';
import type { CniSystem } from '#plugins/cni-system.ts';
import { openPodNetns, openPodNetnsIfThere } from '#plugins/pod-netns.ts';
import { checkAllowed } from './tuning-allowlist.ts';
import {
  collectBackups,
  readBackup,
  removeBackup,
  writeBackup,
  type TuningBackup,
} from './tuning-backup.ts';
import {
  parseTuningConfig,
  tuningDataDir,
  type Sysctl,
  type TuningConfig,
} from './tuning-config.ts';

/** `type: tuning`, as the reference plugin of this name. */
export function tuningPlugin(system: CniSystem): CniPlugin {
  return {
    about: "Podwire tuning: settings of a container's interface and network namespace",
    add: (request) => tune(system, request),
    del: (request) => restore(system, request),
    check: (request) => checkTuning(system, request),
    gc: (request) => {
      const valid = readValidAttachments(request.config);
      collectBackups(tuningDataDir(request), request.config.name, valid);
    },
    // Without an interface, whose name stands in for IFNAME.
    status: (request) => checkAllowed(parseTuningConfig({ ...request, ifName: 'eth0' }).sysctls),
  };
}

function tune(system: CniSystem, request: CniAddRequest): CniResult {
  const config = parseTuningConfig(request);
  const result = requireResult(request);
  checkAllowed(config.sysctls);
  inside(system, request.netns, () => {
    using undo = new DisposableStack();
    for (const sysctl of config.sysctls) setSysctl(sysctl, undo);
    tuneLink(system, request, config, undo);
    undo.move();
  });
  return resultOf(result, request.ifName, config);
}

/** Restores the interface; sysctls stay, as in the reference. Best effort: the pod goes anyway. */
function restore(system: CniSystem, request: CniRequest): void {
  const directory = tuningDataDir(request);
  using netns = openPodNetnsIfThere(request.netns);
  if (netns !== undefined) {
    const backup = readBackup(directory, request);
    withNetns(system.sys, netns.fd, () => restoreLink(system, request.ifName, backup), system.die);
  }
  removeBackup(directory, request);
}

function checkTuning(system: CniSystem, request: CniAddRequest): void {
  const config = parseTuningConfig(request);
  requireResult(request);
  inside(system, request.netns, () => {
    for (const { path, value } of config.sysctls) {
      const current = readSysctl(path);
      if (current === normalizeSysctl(value)) continue;
      throw drift(`value of /proc/sys/${path}`, value, current ?? 'missing');
    }
    using socket = new NetlinkSocket(system.sys);
    const link = getLink(socket, request.ifName);
    if (link === undefined) {
      throw new AgentError('ENODEV', `Cannot find container link ${request.ifName}`);
    }
    checkLink(link, config);
  });
}

function checkLink(link: Link, config: TuningConfig): void {
  const { name } = link;
  const compared: readonly (readonly [string, unknown, unknown])[] = [
    [`Ethernet of ${name}`, config.mac, link.mac],
    [`promisc of ${name}`, config.promiscuous ?? false, link.promiscuous],
    [`MTU of ${name}`, config.mtuBytes, link.mtuBytes],
    [`all-multicast mode of ${name}`, config.allMulticast, link.allMulticast],
    [`transmit queue length of ${name}`, config.txQueueLength, link.txQueueLength],
  ];
  for (const [what, want, have] of compared) {
    if (want !== undefined && want !== have) throw drift(what, want, have);
  }
}

function drift(what: string, want: unknown, have: unknown): AgentError {
  return new AgentError(
    'Drift',
    `Error: Tuning configured ${what} is ${String(want)}, current value is ${String(have)}`,
  );
}

function requireResult(request: CniAddRequest): CniResult {
  const result = readPrevResult(request.config);
  if (result !== undefined) return result;
  throw new CniError(cniCode.invalidConfig, 'Required prevResult missing');
}

/** Runs in the container's namespace, with the error that says so when there is none. */
function inside(system: CniSystem, path: string, fn: () => undefined): void {
  using netns = openPodNetns(path);
  withNetns(system.sys, netns.fd, fn, system.die);
}

function setSysctl({ path, value }: Sysctl, undo: DisposableStack): void {
  const before = readSysctl(path);
  writeSysctl(path, value);
  if (before !== undefined) undo.defer(() => writeSysctl(path, before));
}

function tuneLink(
  system: CniSystem,
  request: CniAddRequest,
  config: TuningConfig,
  undo: DisposableStack,
): void {
  const { sysctls: _, ...change } = config;
  if (Object.values(change).every((value) => value === undefined)) return;
  using socket = new NetlinkSocket(system.sys);
  const { ifName } = request;
  const link = getLink(socket, ifName);
  if (link === undefined) {
    throw new AgentError('ENODEV', `Cannot tune ${ifName}: no such interface in ${request.netns}`);
  }
  const directory = tuningDataDir(request);
  const backup = backupOf(link, config);
  writeBackup(directory, { ...request, network: request.config.name }, backup);
  undo.defer(() => removeBackup(directory, request));
  undo.defer(() => restoreLink(system, ifName, backup));
  announced(ifName, config.mac !== undefined, () =>
    changeLink(socket, link.index, definedOf(change)),
  );
}

/** Runs `change` with the settings by which the kernel tells neighbours of a new MAC address. */
function announced(ifName: string, mac: boolean, change: () => void): void {
  using undo = new DisposableStack();
  const settings = [`net/ipv4/conf/${ifName}/arp_notify`, `net/ipv6/conf/${ifName}/ndisc_notify`];
  for (const path of mac ? settings : []) {
    const before = readSysctl(path);
    if (before === undefined || before === '1') continue;
    writeSysctl(path, '1');
    undo.defer(() => writeSysctl(path, before));
  }
  change();
}

function backupOf(link: Link, config: TuningConfig): TuningBackup {
  return {
    ...(config.mac === undefined || link.mac === undefined ? {} : { mac: link.mac }),
    ...(config.promiscuous === undefined ? {} : { promisc: link.promiscuous }),
    ...(config.mtuBytes === undefined ? {} : { mtu: link.mtuBytes }),
    ...(config.allMulticast === undefined ? {} : { allmulti: link.allMulticast }),
    ...(config.txQueueLength === undefined ? {} : { txQLen: link.txQueueLength }),
  };
}

/** Each for itself: one that the kernel refuses now does not keep the others from going back. */
function restoreLink(system: CniSystem, ifName: string, backup: TuningBackup): undefined {
  const { mac, mtu: mtuBytes, promisc, allmulti, txQLen } = backup;
  const before = {
    mtuBytes,
    mac,
    txQueueLength: txQLen,
    promiscuous: promisc,
    allMulticast: allmulti,
  };
  using socket = new NetlinkSocket(system.sys);
  for (const [name, value] of Object.entries(definedOf(before))) {
    try {
      changeLink(socket, ifName, { [name]: value });
    } catch (error) {
      if (!(error instanceof NetlinkError)) throw error;
    }
  }
}

/** Without what is undefined: that stays as it is. */
function definedOf(change: { [K in keyof LinkChange]?: LinkChange[K] | undefined }): LinkChange {
  return Object.fromEntries(Object.entries(change).filter(([, value]) => value !== undefined));
}

/** The result tells the truth of the interface's MAC address and MTU. */
function resultOf(result: CniResult, ifName: string, config: TuningConfig): CniResult {
  const { mac, mtuBytes } = config;
  const interfaces = result.interfaces.map((link) =>
    link.name === ifName && link.sandbox !== undefined
      ? {
          ...link,
          ...(mac === undefined ? {} : { mac }),
          ...(mtuBytes === undefined || link.mtuBytes === undefined ? {} : { mtuBytes }),
        }
      : link,
  );
  return { ...result, interfaces };
}
