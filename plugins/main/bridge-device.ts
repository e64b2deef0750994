/** The bridge itself: made by the first pod, shared by all, with the gateways' addresses on it. */
import { isErrno } from '#pkg/errors/agent-error.ts';
import { formatPrefix, prefixesOverlap, samePrefix, type Prefix } from '#pkg/ip/prefix.ts';
import { CniError, cniCode } from '#pkg/cni/cni-error.ts';
import { addAddress, deleteAddress, listAddresses } from '#pkg/netlink/address.ts';
import { changeLink, deleteLink } from '#pkg/netlink/link-change.ts';
import { createBridge } from '#pkg/netlink/link-create.ts';
import { getLink, listLinks, type Link } from '#pkg/netlink/link.ts';
import type { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { readSysctl, writeSysctl } from '#pkg/sysctl/sysctl.ts';

export interface BridgeWish {
  readonly name: string;
  /** Of a bridge that is made now; an existing one keeps its own. */
  readonly mac: string;
  readonly mtuBytes: number | undefined;
  readonly promiscuous: boolean;
  /** Of a bridge that is made now. */
  readonly vlanFiltering: boolean;
}

/**
 * Finds the bridge, or makes it; safe against others who do the same at the same time.
 *
 * @throws {CniError} when the name is another kind of interface's
 */
export function ensureBridge(
  host: NetlinkSocket,
  wish: BridgeWish,
): { readonly link: Link; readonly created: boolean } {
  const existing = getLink(host, wish.name);
  const { link, created } =
    existing === undefined ? create(host, wish) : { link: existing, created: false };
  if (link.kind !== 'bridge') {
    throw new CniError(cniCode.invalidConfig, `"${wish.name}" already exists but is not a bridge`);
  }
  if (!link.up || (wish.promiscuous && !link.promiscuous)) {
    changeLink(host, link.index, { up: true, ...(wish.promiscuous ? { promiscuous: true } : {}) });
  }
  return { link, created };
}

/**
 * Gives the bridge a gateway's address; whether it had to be added.
 *
 * @param force replace an address of another subnet that is in the way
 * @throws {CniError} when there is one and `force` is not set
 */
export function ensureGateway(
  host: NetlinkSocket,
  {
    link,
    gateway,
    force,
  }: { readonly link: Link; readonly gateway: Prefix; readonly force: boolean },
): boolean {
  const { family } = gateway.address;
  const present = listAddresses(host, { family, linkIndex: link.index });
  if (present.some(({ prefix }) => samePrefix(prefix, gateway))) return false;
  // IPv6 interfaces have several addresses; only one of the same subnet is in the way.
  const inTheWay = present.filter(
    ({ prefix }) => family === 'ip' || prefixesOverlap(prefix, gateway),
  );
  for (const { prefix } of inTheWay) {
    if (!force) {
      throw new CniError(
        cniCode.invalidConfig,
        `"${link.name}" already has an IP address different from ${formatPrefix(gateway)}`,
        { hint: `it has ${formatPrefix(prefix)}; forceAddress replaces it` },
      );
    }
    deleteAddress(host, { linkIndex: link.index, prefix });
  }
  try {
    addAddress(host, {
      linkIndex: link.index,
      prefix: gateway,
      noDad: true,
      broadcast: family === 'ip',
    });
  } catch (error) {
    // A pod that starts at the same moment was faster.
    if (isErrno(error, 'EEXIST')) return false;
    throw error;
  }
  // Setting an address pins it: a bridge made by others may still take that of its lowest port.
  if (link.mac !== undefined) changeLink(host, link.index, { mac: link.mac });
  return true;
}

/**
 * Takes back what {@link ensureBridge} and {@link ensureGateway} made, unless a pod uses the bridge
 * by now. The caller keeps others from joining meanwhile.
 *
 * @param gateway the address to take back; undefined takes the bridge itself
 */
export function revertBridge(host: NetlinkSocket, link: Link, gateway: Prefix | undefined): void {
  if (listLinks(host).some((other) => other.masterIndex === link.index)) return;
  if (gateway === undefined) deleteLink(host, link.index);
  else deleteAddress(host, { linkIndex: link.index, prefix: gateway });
}

/** Turns forwarding on, in the families of these gateways. It stays on: others may rely on it. */
export function enableForwarding(gateways: readonly Prefix[]): void {
  const paths = gateways.map(({ address }) =>
    address.family === 'ip' ? 'net/ipv4/ip_forward' : 'net/ipv6/conf/all/forwarding',
  );
  for (const path of new Set(paths)) if (readSysctl(path) !== '1') writeSysctl(path, '1');
}

function create(host: NetlinkSocket, wish: BridgeWish): { link: Link; created: boolean } {
  const { name, mac, mtuBytes, vlanFiltering } = wish;
  const mtu = mtuBytes === undefined ? {} : { mtuBytes };
  try {
    const link = createBridge(host, { name, mac, vlanFiltering, ...mtu });
    // A router advertisement that a pod sends must not change the host's routes.
    const acceptRa = `net/ipv6/conf/${name}/accept_ra`;
    if (readSysctl(acceptRa) !== undefined) writeSysctl(acceptRa, '0');
    return { link, created: true };
  } catch (error) {
    const link = isErrno(error, 'EEXIST') ? getLink(host, name) : undefined;
    if (link === undefined) throw error;
    return { link, created: false };
  }
}
