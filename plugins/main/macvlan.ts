/**
 * The macvlan plugin: pods on the network of one of the host's interfaces, each with a MAC address of
 * its own; a drop-in for the reference plugin of that name.
 */
import type { CniPlugin, CniRequest } from '#pkg/cni/plugin.ts';
import { readInteger, readString } from '#pkg/cni/json-fields.ts';
import { createMacvlanRequest, macvlanModes } from '#pkg/netlink/over-master.ts';
import type { CniSystem } from '#plugins/cni-system.ts';
import { ipamOf, takeAddresses } from './ipam.ts';
import { parseOverMaster, readMode } from './over-master-config.ts';
import {
  addOverMaster,
  checkOverMaster,
  deleteOverMaster,
  requireMaster,
  type OverMaster,
} from './over-master.ts';
import { parseMac } from './pod-mac.ts';

/** `type: macvlan`, as the reference plugin of this name. */
export function macvlanPlugin(system: CniSystem): CniPlugin {
  return {
    about: "Podwire macvlan: pods on the network of one of the host's interfaces",
    add: (request) =>
      addOverMaster(system, request, {
        ...macvlanOf(request),
        addresses: (undo) => takeAddresses(system, request, undo),
      }),
    del: (request) => {
      deleteOverMaster(system, request, 'macvlan');
      ipamOf(system, request)?.del(request);
    },
    check: (request) => {
      checkOverMaster(system, request, macvlanOf(request));
      ipamOf(system, request)?.check(request);
    },
    // Interfaces end with their pods' namespaces.
    gc: (request) => ipamOf(system, request)?.gc(request),
    status: (request) => {
      requireMaster(system, macvlanOf(request).config);
      ipamOf(system, request)?.status(request);
    },
  };
}

/** @throws {CniError} code 4 and 7 */
function macvlanOf(request: CniRequest): Omit<OverMaster, 'addresses'> {
  const { config, ifName } = request;
  const { mtuBytes, ...where } = parseOverMaster(config);
  const mode = readMode(config, 'macvlan', ['bridge', 'private', 'vepa', 'passthru']);
  const mac = parseMac(request, readString(config.fields, 'mac'));
  const queue = readInteger(config.fields, 'bcqueuelen', { min: 0, max: 0xffffffff }) ?? 0;
  return {
    kind: 'macvlan',
    config: { ...where, mtuBytes },
    mode: macvlanModes[mode],
    create: (masterIndex, netnsFd) =>
      createMacvlanRequest({
        name: ifName,
        masterIndex,
        netnsFd,
        mode,
        ...(mtuBytes === undefined ? {} : { mtuBytes }),
        ...(mac === undefined ? {} : { mac }),
        ...(queue === 0 ? {} : { broadcastQueueLength: queue }),
      }),
  };
}
