/**
 * The portmap plugin: ports of the host that lead to a container, a drop-in for the reference
 * plugin of that name. Chained behind a plugin that gives the container its addresses.
 */
import { CniError, cniCode } from '#pkg/cni/cni-error.ts';
import { readPrevResult, readRuntimeConfig, readValidAttachments } from '#pkg/cni/config.ts';
import { readArray } from '#pkg/cni/json-fields.ts';
import type { CniAddRequest, CniPlugin, CniRequest } from '#pkg/cni/plugin.ts';
import type { CniResult } from '#pkg/cni/result.ts';
import type { CniSystem } from '#plugins/cni-system.ts';
import { withHostLock } from './host-lock.ts';
import { readTable, updateTable } from './iptables-table.ts';
import { chooseBackend, requireBackend, type NetfilterBackend } from './netfilter-backend.ts';
import { readNftTable, updateNftTable } from './nft-table.ts';
import { parsePortmapConfig, portmapWishes, type PortmapWish } from './portmap-config.ts';
import { allowLocalhost, forgetFlowsOf, forgetFlowsTo, guardLocalhost } from './portmap-host.ts';
import { missingPorts, planPorts } from './portmap-iptables.ts';
import { missingNftPorts, planNftPorts, portmapTable } from './portmap-nftables.ts';
import { portsOfAttachment, removePorts, stalePorts } from './portmap-remove.ts';
import { netfilterRunner, type RunNetfilter } from './run-netfilter.ts';

/** `type: portmap`, as the reference plugin of this name. */
export function portmapPlugin(system: CniSystem): CniPlugin {
  return {
    about: 'Podwire portmap: ports of the host that lead to a container',
    add: (request) => addPorts(system, request),
    del: (request) => deletePorts(system, request),
    check: (request) => checkPorts(system, request),
    gc: (request) => collectPorts(system, request),
    status: (request) => {
      const { backend } = parsePortmapConfig(request.config);
      requireBackend(netfilterRunner(system, request), backend, purpose);
    },
  };
}

const purpose = 'map host ports';

function addPorts(system: CniSystem, request: CniAddRequest): CniResult {
  const config = parsePortmapConfig(request.config);
  const result = readPrevResult(request.config);
  if (result === undefined) {
    throw new CniError(cniCode.invalidConfig, 'must be called as chained plugin');
  }
  const wishes = portmapWishes(request, config, result);
  const [first] = wishes;
  if (first === undefined) return result;
  const run = netfilterRunner(system, request);
  const backend = config.backend ?? chooseBackend(run, first.target.address.family, purpose);
  withHostLock(system.sys, () => {
    using undo = new DisposableStack();
    for (const wish of wishes) {
      installPorts(run, backend, wish);
      undo.defer(() => void removePorts(run, portsOfAttachment(system, request)));
    }
    if (config.snat && first.target.address.family === 'ip') {
      if (backend === 'iptables') guardLocalhost(run);
      allowLocalhost(system.sys, first.target.address);
    }
    undo.move();
  });
  // Not before the rules are there: the next packet would bring the old flow back.
  forgetFlowsTo(system.sys, wishes);
  return result;
}

/** Idempotent. Needs names alone: neither prevResult nor a namespace nor the port mappings. */
function deletePorts(system: CniSystem, request: CniRequest): void {
  const run = netfilterRunner(system, request);
  const { claims, failure } = withHostLock(system.sys, () =>
    removePorts(run, portsOfAttachment(system, request)),
  );
  forgetFlowsOf(system.sys, claims);
  if (failure === undefined) return;
  // Where no program for it is installed, nothing was mapped, unless the configuration says so.
  if (failure.installed || hasMappings(request)) throw failure.error;
}

function checkPorts(system: CniSystem, request: CniAddRequest): void {
  const config = parsePortmapConfig(request.config);
  const result = readPrevResult(request.config);
  if (result === undefined) {
    throw new CniError(cniCode.invalidConfig, 'Required prevResult missing');
  }
  const wishes = portmapWishes(request, config, result);
  const [first] = wishes;
  if (first === undefined) return;
  const run = netfilterRunner(system, request);
  const backend = config.backend ?? chooseBackend(run, first.target.address.family, purpose);
  for (const wish of wishes) {
    const { family } = wish.target.address;
    const missing =
      backend === 'iptables'
        ? missingPorts(readTable({ run, family, table: 'nat' }), wish)
        : missingNftPorts(readNftTable({ run, family, table: portmapTable }), wish);
    if (missing === undefined) continue;
    const kind = family === 'ip' ? 'ipv4' : 'ipv6';
    throw new CniError(cniCode.internal, `could not check ${kind} dnat: ${missing}`);
  }
}

/** Removes what belongs to this network and to no valid attachment. */
function collectPorts(system: CniSystem, request: CniRequest): void {
  const stale = stalePorts(request.config.name, readValidAttachments(request.config));
  const run = netfilterRunner(system, request);
  const { claims, failure } = withHostLock(system.sys, () => removePorts(run, stale));
  forgetFlowsOf(system.sys, claims);
  if (failure?.installed === true) throw failure.error;
}

function installPorts(run: RunNetfilter, backend: NetfilterBackend, wish: PortmapWish): void {
  const { family } = wish.target.address;
  if (backend === 'iptables') {
    updateTable({ run, family, table: 'nat' }, (saved) => planPorts(saved, wish));
  } else {
    updateNftTable({ run, family, table: portmapTable }, (rules) => planNftPorts(rules, wish));
  }
}

function hasMappings(request: CniRequest): boolean {
  const runtime = readRuntimeConfig(request.config);
  return runtime !== undefined && readArray(runtime, 'portMappings').length > 0;
}
