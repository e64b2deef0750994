/** Changing and deleting network devices. */
import { isErrno } from '#pkg/errors/agent-error.ts';
import { attributeMac, attributeString, attributeU32, attributeU8, nested } from './attribute.ts';
import {
  AF_INET6,
  IFF_ALLMULTI,
  IFF_PROMISC,
  IFF_UP,
  IFLA_ADDRESS,
  IFLA_AF_SPEC,
  IFLA_BRPORT_ISOLATED,
  IFLA_BRPORT_MODE,
  IFLA_IFALIAS,
  IFLA_IFNAME,
  IFLA_INET6_ADDR_GEN_MODE,
  IFLA_INFO_SLAVE_DATA,
  IFLA_INFO_SLAVE_KIND,
  IFLA_LINKINFO,
  IFLA_MASTER,
  IFLA_MTU,
  IFLA_TXQLEN,
  IN6_ADDR_GEN_MODE_EUI64,
  IN6_ADDR_GEN_MODE_NONE,
  RTM_DELLINK,
  RTM_NEWLINK,
} from './constants.ts';
import { linkHeader } from './link.ts';
import type { NetlinkRequest, NetlinkSocket } from './socket.ts';

/** What may change on a link; what is undefined stays as it is. */
export interface LinkChange {
  readonly up?: boolean;
  readonly promiscuous?: boolean;
  /** Takes frames to every multicast group. */
  readonly allMulticast?: boolean;
  readonly mac?: string;
  readonly mtuBytes?: number;
  readonly alias?: string;
  /** Index of the bridge to become a port of; 0 leaves the one it is in. */
  readonly masterIndex?: number;
  readonly txQueueLength?: number;
  /**
   * Whether it gets a link-local IPv6 address from its MAC when it comes up. Without one it sends
   * nothing by itself. EAFNOSUPPORT where there is no IPv6, or the MTU is below 1280.
   */
  readonly ipv6LinkLocal?: boolean;
}

/** Settings of a bridge port. */
export interface BridgePort {
  /** Send frames back out of the port they came in by: a pod that reaches itself by a Service. */
  readonly hairpin?: boolean;
  /** No frames to or from other isolated ports. */
  readonly isolated?: boolean;
}

/**
 * Changes a link by name or index.
 *
 * @throws {NetlinkError} ENODEV when there is none
 */
export function changeLink(socket: NetlinkSocket, link: string | number, change: LinkChange): void {
  socket.request(changeLinkRequest(link, change));
}

/** Changes the settings of a port of a bridge. */
export function changeBridgePort(
  socket: NetlinkSocket,
  link: string | number,
  port: BridgePort,
): void {
  socket.request(changeBridgePortRequest(link, port));
}

/** Deletes a link by name or index; false when there was none. A veth's other end goes with it. */
export function deleteLink(socket: NetlinkSocket, link: string | number): boolean {
  try {
    socket.request(deleteLinkRequest(link));
    return true;
  } catch (error) {
    if (isErrno(error, 'ENODEV')) return false;
    throw error;
  }
}

/** As {@link changeLink}, for a batch. */
export function changeLinkRequest(link: string | number, change: LinkChange): NetlinkRequest {
  const wanted = (flag: number, on: boolean | undefined): number => (on === true ? flag : 0);
  const touched = (flag: number, on: boolean | undefined): number => (on === undefined ? 0 : flag);
  const flags: readonly (readonly [number, boolean | undefined])[] = [
    [IFF_UP, change.up],
    [IFF_PROMISC, change.promiscuous],
    [IFF_ALLMULTI, change.allMulticast],
  ];
  const header = {
    flags: flags.reduce((sum, [flag, on]) => sum | wanted(flag, on), 0),
    change: flags.reduce((sum, [flag, on]) => sum | touched(flag, on), 0),
  };
  return {
    type: RTM_NEWLINK,
    body: [
      ...selectLink(link, header),
      ...(change.mac === undefined ? [] : [attributeMac(IFLA_ADDRESS, change.mac)]),
      ...(change.mtuBytes === undefined ? [] : [attributeU32(IFLA_MTU, change.mtuBytes)]),
      ...(change.alias === undefined ? [] : [attributeString(IFLA_IFALIAS, change.alias)]),
      ...(change.masterIndex === undefined ? [] : [attributeU32(IFLA_MASTER, change.masterIndex)]),
      ...(change.txQueueLength === undefined
        ? []
        : [attributeU32(IFLA_TXQLEN, change.txQueueLength)]),
      ...(change.ipv6LinkLocal === undefined ? [] : [addressGeneration(change.ipv6LinkLocal)]),
    ],
    what: `change link ${link} (${describe(change)})`,
  };
}

/**
 * As {@link changeBridgePort}, for a batch. It has to be RTM_NEWLINK: RTM_SETLINK with the same
 * body succeeds and does nothing.
 */
export function changeBridgePortRequest(link: string | number, port: BridgePort): NetlinkRequest {
  const settings = [
    ...(port.hairpin === undefined ? [] : [attributeU8(IFLA_BRPORT_MODE, port.hairpin ? 1 : 0)]),
    ...(port.isolated === undefined
      ? []
      : [attributeU8(IFLA_BRPORT_ISOLATED, port.isolated ? 1 : 0)]),
  ];
  return {
    type: RTM_NEWLINK,
    body: [
      ...selectLink(link, {}),
      nested(IFLA_LINKINFO, [
        attributeString(IFLA_INFO_SLAVE_KIND, 'bridge'),
        nested(IFLA_INFO_SLAVE_DATA, settings),
      ]),
    ],
    what: `change bridge port ${link} (${describe(port)})`,
  };
}

/** As {@link deleteLink}, for a batch; a missing link is ENODEV. */
export function deleteLinkRequest(link: string | number): NetlinkRequest {
  return { type: RTM_DELLINK, body: selectLink(link, {}), what: `delete link ${link}` };
}

function addressGeneration(linkLocal: boolean): Uint8Array {
  const mode = linkLocal ? IN6_ADDR_GEN_MODE_EUI64 : IN6_ADDR_GEN_MODE_NONE;
  return nested(IFLA_AF_SPEC, [nested(AF_INET6, [attributeU8(IFLA_INET6_ADDR_GEN_MODE, mode)])]);
}

/** The start of a message about one existing link: its index, or none and its name. */
function selectLink(
  link: string | number,
  flags: { readonly flags?: number; readonly change?: number },
): Uint8Array[] {
  if (typeof link === 'number') return [linkHeader({ ...flags, index: link })];
  return [linkHeader(flags), attributeString(IFLA_IFNAME, link)];
}

/** "up true, mtuBytes 1450" */
function describe(change: object): string {
  return Object.entries(change)
    .map(([name, value]) => `${name} ${value}`)
    .join(', ');
}
