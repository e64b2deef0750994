/**
 * The ptp plugin: pods on a wire of their own to the host, which routes; a drop-in for the reference
 * plugin of that name.
 */
import { CniError, cniCode } from '#pkg/cni/cni-error.ts';
import type { CniAddRequest, CniPlugin, CniRequest } from '#pkg/cni/plugin.ts';
import { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { withNetns } from '#pkg/netns/netns.ts';
import type { CniDelegate } from '#pkg/cni/delegate.ts';
import type { CniSystem } from '#plugins/cni-system.ts';
import { collectAll } from '#plugins/collect-all.ts';
import { openPodNetns } from '#plugins/pod-netns.ts';
import {
  collectMasquerade,
  deleteMasquerade,
  hasMasquerade,
  parseMasquerade,
} from './ip-masquerade.ts';
import { ipamOf } from './ipam.ts';
import { checkPod, requireAddResult, wrong } from './pod-check.ts';
import { collectVeths, deleteVeth } from './pod-veth.ts';
import { addPointToPoint } from './ptp-add.ts';

/** `type: ptp`, as the reference plugin of this name. */
export function ptpPlugin(system: CniSystem): CniPlugin {
  return {
    about: 'Podwire ptp: pods on a wire of their own to the host',
    add: (request) => addPointToPoint(system, request),
    del: (request) => deletePointToPoint(system, request),
    check: (request) => checkPointToPoint(system, request),
    gc: (request) => {
      const masquerades = parseMasquerade(request.config) !== undefined;
      collectAll(request, [
        () => collectVeths(system, request),
        ...(masquerades ? [() => collectMasquerade(system, request)] : []),
        () => requireIpam(system, request).gc(request),
      ]);
    },
    status: (request) => {
      parseMasquerade(request.config);
      requireIpam(system, request).status(request);
    },
  };
}

/** Idempotent. The addresses go last: nobody may get one that a link still has. */
function deletePointToPoint(system: CniSystem, request: CniRequest): void {
  // The reference's own host end is no port of anything.
  deleteVeth(system, request, ({ masterIndex }) => masterIndex === undefined);
  if (parseMasquerade(request.config) !== undefined) deleteMasquerade(system, request);
  ipamOf(system, request)?.del(request);
}

function checkPointToPoint(system: CniSystem, request: CniAddRequest): void {
  const result = requireAddResult(request);
  using netns = openPodNetns(request.netns);
  using pod = withNetns(system.sys, netns.fd, () => new NetlinkSocket(system.sys), system.die);
  checkPod(pod, { request, result, kind: 'veth' });
  if (parseMasquerade(request.config) !== undefined && !hasMasquerade(system, request)) {
    throw wrong(`the rules that masquerade ${request.ifName} are missing`);
  }
  requireIpam(system, request).check(request);
}

function requireIpam(system: CniSystem, request: CniRequest): CniDelegate {
  const ipam = ipamOf(system, request);
  if (ipam !== undefined) return ipam;
  throw new CniError(cniCode.invalidConfig, 'Cannot use ptp configuration: it needs ipam.type');
}
