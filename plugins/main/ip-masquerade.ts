/**
 * `ipMasq`: what a pod sends beyond its subnet gets the address of the host. Tables, chains and the
 * meaning of rules are the reference plugins', by which each finds what the other made. All that is
 * taken away is found by the attachment's name: the pod's namespace, and with it its addresses, may
 * be gone.
 */
import { isErrno } from '#pkg/errors/agent-error.ts';
import { readBoolean, readString, unexpected } from '#pkg/cni/json-fields.ts';
import { readValidAttachments, type NetworkConfig } from '#pkg/cni/config.ts';
import type { CniRequest } from '#pkg/cni/plugin.ts';
import type { Prefix } from '#pkg/ip/prefix.ts';
import type { CniSystem } from '#plugins/cni-system.ts';
import { withHostLock } from '#plugins/meta/host-lock.ts';
import { netfilterRunner } from '#plugins/meta/run-netfilter.ts';
import {
  addIptablesMasquerade,
  collectIptablesMasquerade,
  deleteIptablesMasquerade,
  hasIptablesMasquerade,
} from './ip-masquerade-iptables.ts';
import {
  addNftMasquerade,
  collectNftMasquerade,
  deleteNftMasquerade,
  hasNftMasquerade,
} from './ip-masquerade-nftables.ts';
import { UnusableBackend, type MasqueradeOwner } from './masquerade-owner.ts';

export type MasqueradeBackend = 'iptables' | 'nftables';

export interface MasqueradeConfig {
  /** Undefined: iptables where it works, else nftables. */
  readonly backend: MasqueradeBackend | undefined;
}

/** `ipMasq` and `ipMasqBackend`; undefined when nothing is to be masqueraded. */
export function parseMasquerade({ fields }: NetworkConfig): MasqueradeConfig | undefined {
  const wanted = readBoolean(fields, 'ipMasq') ?? false;
  const backend = readString(fields, 'ipMasqBackend') ?? '';
  if (backend !== '' && backend !== 'iptables' && backend !== 'nftables') {
    throw unexpected('ipMasqBackend', '"iptables" or "nftables"', backend);
  }
  return wanted ? { backend: backend === '' ? undefined : backend } : undefined;
}

/**
 * Masquerades what the pod sends to addresses outside its subnets. Rules that this attachment has
 * from before, with whatever addresses, are replaced.
 *
 * @param prefixes the pod's addresses with the lengths of their subnets
 * @param undo gets the removal
 * @throws {AgentError} CommandMissing, CommandFailed
 */
export function addMasquerade(
  system: CniSystem,
  context: {
    readonly request: CniRequest;
    readonly config: MasqueradeConfig;
    readonly prefixes: readonly Prefix[];
    readonly undo: DisposableStack;
  },
): void {
  const { request, config, prefixes, undo } = context;
  const run = netfilterRunner(system, request);
  const owner = ownerOf(request);
  undo.defer(() => removeRules(system, request));
  if (config.backend === 'nftables') return addNftMasquerade(run, owner, prefixes);
  try {
    withHostLock(system.sys, () => addIptablesMasquerade(run, owner, prefixes));
  } catch (error) {
    const unusable = isErrno(error, 'CommandMissing') || isErrno(error, 'CommandFailed');
    if (config.backend === 'iptables' || !unusable) throw error;
    // A family may have got its rules before the other failed.
    removeRules(system, request);
    addNftMasquerade(run, owner, prefixes);
  }
}

/** Whether there are rules of this attachment, in either backend. */
export function hasMasquerade(system: CniSystem, request: CniRequest): boolean {
  const run = netfilterRunner(system, request);
  const owner = ownerOf(request);
  let found = false;
  withBoth(
    () => (found ||= hasIptablesMasquerade(run, owner)),
    () => (found ||= hasNftMasquerade(run, owner)),
  );
  return found;
}

/** Removes the rules of an attachment. Idempotent, and needs nothing but names. */
export function deleteMasquerade(system: CniSystem, request: CniRequest): void {
  removeRules(system, request);
}

/** Removes the rules of this network that belong to no valid attachment. */
export function collectMasquerade(system: CniSystem, request: CniRequest): void {
  const valid = readValidAttachments(request.config);
  const { name } = request.config;
  const run = netfilterRunner(system, request);
  withBoth(
    () => withHostLock(system.sys, () => collectIptablesMasquerade(run, name, valid)),
    () => collectNftMasquerade(run, name, valid),
  );
}

function removeRules(system: CniSystem, request: CniRequest): void {
  const run = netfilterRunner(system, request);
  const owner = ownerOf(request);
  withBoth(
    () => withHostLock(system.sys, () => deleteIptablesMasquerade(run, owner)),
    () => deleteNftMasquerade(run, owner),
  );
}

/** The backend may have been another at ADD. One that is unusable here has no rules of ours. */
function withBoth(iptables: () => unknown, nftables: () => unknown): void {
  const failures: unknown[] = [];
  for (const remove of [iptables, nftables]) {
    try {
      remove();
    } catch (error) {
      if (!(error instanceof UnusableBackend)) throw error;
      failures.push(error);
    }
  }
  if (failures.length === 2) throw failures[0];
}

function ownerOf({ config, containerId, ifName }: CniRequest): MasqueradeOwner {
  return { network: config.name, containerId, ifName };
}
