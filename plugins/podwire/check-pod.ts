/** CHECK of a pod, and STATUS of the node: is what ADD made still there, and would ADD work. */
import { accessSync, constants, statSync, type Stats } from 'node:fs';
import { dirname, join } from 'node:path';
import { AgentError, isErrno } from '#pkg/errors/agent-error.ts';
import { CniError, cniCode } from '#pkg/cni/cni-error.ts';
import { readPrevResult } from '#pkg/cni/config.ts';
import type { Environment } from '#pkg/cni/environment.ts';
import type { CniAddRequest, CniRequest } from '#pkg/cni/plugin.ts';
import { withNetns } from '#pkg/netns/netns.ts';
import { normalizeSysctl, readSysctl } from '#pkg/sysctl/sysctl.ts';
import { parseDataDir } from '#plugins/ipam/host-local-config.ts';
import { parseIpamType } from '#plugins/main/ipam.ts';
import { bridgePlugin } from '#plugins/main/bridge.ts';
import { bandwidthPlugin } from '#plugins/meta/bandwidth.ts';
import { portmapPlugin } from '#plugins/meta/portmap.ts';
import { openPodNetns } from '#plugins/pod-netns.ts';
import { readRecord } from './attachment-record.ts';
import { checkPod as checkElements } from './packet-filter.ts';
import { ipamOf, withIptables, type PodTools } from './pod-tools.ts';
import { attachmentDirectory, parsePodwireConfig, type SysctlSetting } from './podwire-config.ts';
import { checkRouted } from './routed-pod.ts';

/** @throws {AgentError} that names the first thing that is not as ADD left it */
export function checkPod(tools: PodTools, request: CniAddRequest): void {
  const { system, store, openFilter } = tools;
  const config = parsePodwireConfig(request.config, request.ifName);
  const result = readPrevResult(request.config);
  if (result === undefined) {
    throw new CniError(cniCode.invalidConfig, 'Cannot check the network: prevResult is missing');
  }
  const { containerId, ifName } = request;
  const stored = store.find({ network: request.config.name, containerId, ifName });
  const record = stored === undefined ? undefined : readRecord(stored);
  if (record === undefined) {
    throw new CniError(
      cniCode.internal,
      `Cannot confirm the pod's network: there is no record of ${ifName} of container ${containerId}`,
    );
  }
  if (record.mode === 'bridge') bridgePlugin(system).check?.(request);
  else {
    checkRouted(system, request, { record, result });
    ipamOf(system, request).check(request);
  }
  if (record.iptables) portmapPlugin(system).check?.(withIptables(request));
  else {
    using filter = openFilter();
    checkElements(filter, record);
  }
  bandwidthPlugin(system).check?.(request);
  if (config.sysctls.length === 0) return;
  using netns = openPodNetns(request.netns);
  withNetns(system.sys, netns.fd, () => checkSysctls(config.sysctls), system.die);
}

/**
 * Whether ADD would work, as far as that can be told cheaply: runtimes ask every few seconds.
 *
 * @throws {CniError} code 50 with the reason
 */
export function checkNode(tools: PodTools, request: CniRequest): void {
  const { antiSpoofing } = parsePodwireConfig(request.config, 'eth0');
  bridgePlugin(tools.system).status?.(request);
  requireWritable(attachmentDirectory(request.config));
  if (parseIpamType(request.config) === 'host-local') {
    requireWritable(join(parseDataDir(request.config), request.config.name));
  }
  if (antiSpoofing) requireNft(request.environment);
}

function checkSysctls(sysctls: readonly SysctlSetting[]): void {
  for (const { name, path, value } of sysctls) {
    const have = readSysctl(path);
    if (have === normalizeSysctl(value)) continue;
    throw new AgentError(
      'NetworkChanged',
      `Cannot confirm the pod's network: sysctl ${name} is ${have ?? 'missing'}, not ${value}`,
    );
  }
}

/** A directory, or for one that is not there yet the nearest that is. */
function requireWritable(directory: string): void {
  let at = directory;
  let found = statIfThere(at);
  while (found === undefined) {
    at = dirname(at);
    found = statIfThere(at);
  }
  const refuse = (state: string, cause?: unknown): AgentError =>
    new AgentError('NotWritable', `Cannot write to ${directory}: ${at} ${state}`, { cause });
  if (!found.isDirectory()) throw refuse('is no directory');
  try {
    accessSync(at, constants.W_OK);
  } catch (cause) {
    throw refuse('is not writable', cause);
  }
}

function statIfThere(path: string): Stats | undefined {
  try {
    return statSync(path);
  } catch (error) {
    if (isErrno(error, 'ENOENT') || isErrno(error, 'ENOTDIR')) return undefined;
    throw error;
  }
}

function requireNft(environment: Environment): void {
  const directories = (environment['PATH'] ?? '').split(':').filter((path) => path !== '');
  if (directories.some((path) => isExecutable(join(path, 'nft')))) return;
  throw new AgentError(
    'NftMissing',
    'Cannot set up anti-spoofing: there is no program nft in PATH; ' +
      'install the package nftables on this node, or set antiSpoofing to false',
  );
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
