/** DEL and GC of pods on a bridge. Neither needs anything but names. */
import { readBoolean } from '#pkg/cni/json-fields.ts';
import type { CniRequest } from '#pkg/cni/plugin.ts';
import { getLink } from '#pkg/netlink/link.ts';
import type { CniSystem } from '#plugins/cni-system.ts';
import { collectAll } from '#plugins/collect-all.ts';
import { parseBridgeName } from './bridge-config.ts';
import { collectMasquerade, deleteMasquerade, parseMasquerade } from './ip-masquerade.ts';
import { ipamOf } from './ipam.ts';
import { collectSpoofChecks, deleteSpoofCheck } from './mac-spoof-check.ts';
import { collectVeths, deleteVeth } from './pod-veth.ts';

/** Idempotent. The addresses go last: nobody may get one that a link still has. */
export function deleteFromBridge(system: CniSystem, request: CniRequest): void {
  deleteVeth(system, request, ({ masterIndex }, host) => {
    const bridge = getLink(host, parseBridgeName(request.config));
    return bridge !== undefined && masterIndex === bridge.index;
  });
  if (parseMasquerade(request.config) !== undefined) deleteMasquerade(system, request);
  if (checksSpoofing(request)) deleteSpoofCheck(system, request);
  ipamOf(system, request)?.del(request);
}

/** Removes what belongs to this network and to no valid attachment. */
export function collectBridge(system: CniSystem, request: CniRequest): void {
  const masquerades = parseMasquerade(request.config) !== undefined;
  collectAll(request, [
    () => collectVeths(system, request),
    ...(masquerades ? [() => collectMasquerade(system, request)] : []),
    ...(checksSpoofing(request) ? [() => collectSpoofChecks(system, request)] : []),
    () => ipamOf(system, request)?.gc(request),
  ]);
}

function checksSpoofing({ config }: CniRequest): boolean {
  return readBoolean(config.fields, 'macspoofchk') ?? false;
}
