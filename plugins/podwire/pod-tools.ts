/** What every command of `type: podwire` works with: its plugins, its store, its packet filter. */
import { delegateFor, type CniDelegate } from '#pkg/cni/delegate.ts';
import { openAttachmentStore, type AttachmentStore } from '#pkg/cni/attachment-store.ts';
import type { CniPlugin, CniRequest } from '#pkg/cni/plugin.ts';
import type { CniResult } from '#pkg/cni/result.ts';
import { formatResult, newestCniVersion } from '#pkg/cni/versions.ts';
import type { CniSystem } from '#plugins/cni-system.ts';
import { parseIpamType } from '#plugins/main/ipam.ts';
import { bridgePlugin } from '#plugins/main/bridge.ts';
import { netfilterRunner } from '#plugins/meta/run-netfilter.ts';
import { readRecord } from './attachment-record.ts';
import { openPacketFilter, type PacketFilter } from './packet-filter.ts';
import { attachmentDirectory, withFields } from './podwire-config.ts';

export interface PodTools {
  readonly system: CniSystem;
  readonly store: AttachmentStore;
  /** Opens nf_tables; runs nothing before it is needed. */
  readonly openFilter: () => PacketFilter & Disposable;
}

/** The tools for one call. */
export function podTools(system: CniSystem, request: CniRequest): PodTools {
  const directory = attachmentDirectory(request.config);
  const store = openAttachmentStore(system.sys, directory);
  return {
    system,
    store,
    openFilter: () =>
      openPacketFilter(system.sys, {
        run: netfilterRunner(system, request),
        directory,
        everyRecord: () => store.listKept().flatMap((stored) => readRecord(stored) ?? []),
        isKept: (record) => store.isKept(record),
      }),
  };
}

/** The IPAM plugin of a configuration that bridgeConfigOf() made. */
export function ipamOf(system: CniSystem, request: CniRequest): CniDelegate {
  const type = parseIpamType(request.config) ?? 'host-local';
  return delegateFor(type, { own: system.delegates, runProgram: system.runProgram });
}

/** The same call for a network by another name: the one an attachment was made in. */
export function inNetwork<R extends CniRequest>(request: R, network: string): R {
  const { config } = request;
  if (network === config.name) return request;
  const renamed = withFields(config, { ...config.fields.values, name: network });
  return { ...request, config: { ...renamed, name: network } };
}

/** The same call for a plugin chained behind those that answered `result`. */
export function chained<R extends CniRequest>(request: R, result: CniResult): R {
  const prevResult = formatResult(result, newestCniVersion);
  const { config } = request;
  const values = { ...config.fields.values, cniVersion: newestCniVersion, prevResult };
  return { ...request, config: { ...withFields(config, values), cniVersion: newestCniVersion } };
}

/** The same call for the portmap plugin where there is no nft. */
export function withIptables<R extends CniRequest>(request: R): R {
  const { config } = request;
  const values = { ...config.fields.values, backend: 'iptables' };
  return { ...request, config: withFields(config, values) };
}

const leased = 'podwire-leased';

/** The bridge plugin for a pod whose addresses are there already. */
export function bridgeWithAddresses(system: CniSystem, addresses: CniResult): CniPlugin {
  const ipam: CniPlugin = { about: '', add: () => addresses, del: () => undefined };
  return bridgePlugin({ ...system, delegates: new Map([[leased, ipam]]) });
}

/** Its configuration. */
export function withoutIpam<R extends CniRequest>(request: R, how: 'leased' | 'none'): R {
  const { config } = request;
  const ipam = how === 'leased' ? { type: leased } : {};
  return { ...request, config: withFields(config, { ...config.fields.values, ipam }) };
}
