/**
 * The ipvlan plugin: pods on the network of one of the host's interfaces, with its MAC address; a
 * drop-in for the reference plugin of that name. Chained, the interface and the addresses may be
 * those of the plugin before.
 */
import { CniError, cniCode } from '#pkg/cni/cni-error.ts';
import { readPrevResult } from '#pkg/cni/config.ts';
import type { CniAddRequest, CniPlugin, CniRequest } from '#pkg/cni/plugin.ts';
import type { CniResult } from '#pkg/cni/result.ts';
import { createIpvlanRequest, ipvlanModes } from '#pkg/netlink/over-master.ts';
import type { CniSystem } from '#plugins/cni-system.ts';
import { ipamOf, takeAddresses } from './ipam.ts';
import { parseOverMaster, readMode, type OverMasterConfig } from './over-master-config.ts';
import {
  addOverMaster,
  checkOverMaster,
  deleteOverMaster,
  requireMaster,
  type OverMaster,
} from './over-master.ts';

/** `type: ipvlan`, as the reference plugin of this name. */
export function ipvlanPlugin(system: CniSystem): CniPlugin {
  return {
    about: "Podwire ipvlan: pods on the network of one of the host's interfaces, with its MAC",
    add: (request) => {
      const chained = readPrevResult(request.config);
      return addOverMaster(system, request, {
        ...ipvlanOf(request, chained),
        addresses: (undo) => addressesOf(system, { request, chained, undo }),
      });
    },
    del: (request) => {
      deleteOverMaster(system, request, 'ipvlan');
      ipamOf(system, request)?.del(request);
    },
    check: (request) => {
      // The result of ADD names the pod's interface, and no longer that of the plugin before.
      checkOverMaster(system, request, ipvlanOf(request, undefined));
      ipamOf(system, request)?.check(request);
    },
    // Interfaces end with their pods' namespaces.
    gc: (request) => ipamOf(system, request)?.gc(request),
    status: (request) => {
      const { config } = ipvlanOf(request, undefined);
      const ipam = ipamOf(system, request);
      // With neither it is chained: both come from the plugin before, of which STATUS knows nothing.
      if (config.master !== undefined || ipam !== undefined) requireMaster(system, config);
      ipam?.status(request);
    },
  };
}

/** @throws {CniError} code 7 */
function ipvlanOf(
  { config, ifName }: CniRequest,
  chained: CniResult | undefined,
): Omit<OverMaster, 'addresses'> {
  const parsed = parseOverMaster(config);
  const { mtuBytes } = parsed;
  const mode = readMode(config, 'ipvlan', ['l2', 'l3', 'l3s']);
  return {
    kind: 'ipvlan',
    config: withChainedMaster(parsed, chained),
    mode: ipvlanModes[mode],
    create: (masterIndex, netnsFd) =>
      createIpvlanRequest({
        name: ifName,
        masterIndex,
        netnsFd,
        mode,
        ...(mtuBytes === undefined ? {} : { mtuBytes }),
      }),
  };
}

/** Without `master` it is the one interface of the plugin before. */
function withChainedMaster(
  config: OverMasterConfig,
  chained: CniResult | undefined,
): OverMasterConfig {
  if (config.master !== undefined || chained === undefined) return config;
  const [only, ...others] = chained.interfaces;
  if (only !== undefined && only.name !== '' && others.length === 0) {
    return { ...config, master: only.name };
  }
  throw new CniError(
    cniCode.invalidConfig,
    'chained master failure. PrevResult lacks a single named interface',
  );
}

function addressesOf(
  system: CniSystem,
  context: {
    readonly request: CniAddRequest;
    readonly chained: CniResult | undefined;
    readonly undo: DisposableStack;
  },
): CniResult {
  const { request, chained, undo } = context;
  const taken = takeAddresses(system, request, undo);
  if (taken !== undefined) return taken;
  if (chained !== undefined && chained.ips.length > 0) return chained;
  throw new CniError(
    cniCode.invalidConfig,
    'Cannot use ipvlan configuration: it needs ipam.type, or addresses in prevResult',
  );
}
