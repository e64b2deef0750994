/** VLANs of the ports of a bridge that filters them (IEEE 802.1Q). */
import {
  attribute,
  attributeU32,
  littleEndian,
  nested,
  readRepeated,
  viewOf,
} from './attribute.ts';
import {
  AF_BRIDGE,
  BRIDGE_VLAN_INFO_PVID,
  BRIDGE_VLAN_INFO_RANGE_BEGIN,
  BRIDGE_VLAN_INFO_RANGE_END,
  BRIDGE_VLAN_INFO_UNTAGGED,
  IFLA_AF_SPEC,
  IFLA_BRIDGE_VLAN_INFO,
  IFLA_EXT_MASK,
  RTEXT_FILTER_BRVLAN,
  RTM_DELLINK,
  RTM_GETLINK,
  RTM_NEWLINK,
  RTM_SETLINK,
} from './constants.ts';
import { linkHeader } from './link.ts';
import type { Message } from './message.ts';
import type { NetlinkRequest, NetlinkSocket } from './socket.ts';

/** One VLAN, or all from `first` to `last`. */
export interface VlanRange {
  readonly first: number;
  readonly last: number;
}

/** A VLAN that a port is in. */
export interface PortVlan {
  readonly id: number;
  /** Frames without a tag belong to it. */
  readonly pvid: boolean;
  /** Its frames leave the port without a tag. */
  readonly untagged: boolean;
}

/** Makes a port the access port of a VLAN: what comes in and goes out has no tag. */
export function addAccessVlanRequest(linkIndex: number, id: number): NetlinkRequest {
  const flags = BRIDGE_VLAN_INFO_PVID | BRIDGE_VLAN_INFO_UNTAGGED;
  return {
    type: RTM_SETLINK,
    body: portBody(linkIndex, [vlanInfo(flags, id)]),
    what: `add VLAN ${id} to bridge port ${linkIndex}`,
  };
}

/** Makes a port carry VLANs, with their tags. */
export function addTrunkVlansRequest(
  linkIndex: number,
  ranges: readonly VlanRange[],
): NetlinkRequest {
  const infos = ranges.flatMap(({ first, last }) =>
    first === last
      ? [vlanInfo(0, first)]
      : [vlanInfo(BRIDGE_VLAN_INFO_RANGE_BEGIN, first), vlanInfo(BRIDGE_VLAN_INFO_RANGE_END, last)],
  );
  const names = ranges.map(({ first, last }) => `${first}-${last}`).join(', ');
  return {
    type: RTM_SETLINK,
    body: portBody(linkIndex, infos),
    what: `add VLANs ${names} to bridge port ${linkIndex}`,
  };
}

/** Takes a port out of a VLAN. */
export function deleteVlanRequest(linkIndex: number, id: number): NetlinkRequest {
  return {
    type: RTM_DELLINK,
    body: portBody(linkIndex, [vlanInfo(0, id)]),
    what: `delete VLAN ${id} from bridge port ${linkIndex}`,
  };
}

/** The VLANs of one port; none where the kernel knows no VLANs on bridges. */
export function listPortVlans(socket: NetlinkSocket, linkIndex: number): PortVlan[] {
  return socket
    .dump({
      type: RTM_GETLINK,
      body: [linkHeader({ family: AF_BRIDGE }), attributeU32(IFLA_EXT_MASK, RTEXT_FILTER_BRVLAN)],
      what: 'list VLANs of bridge ports',
    })
    .flatMap((message) => parsePortVlans(message, linkIndex));
}

/** The VLANs of one port in a RTM_NEWLINK message of family AF_BRIDGE; nothing for others. */
export function parsePortVlans({ type, body }: Message, linkIndex: number): PortVlan[] {
  if (type !== RTM_NEWLINK || body.byteLength < headerBytes || body[0] !== AF_BRIDGE) return [];
  if (viewOf(body).getInt32(4, littleEndian) !== linkIndex) return [];
  const spec = readRepeated(body.subarray(headerBytes), IFLA_AF_SPEC);
  return spec
    .flatMap((nest) => readRepeated(nest, IFLA_BRIDGE_VLAN_INFO))
    .map((bytes) => {
      const view = viewOf(bytes);
      const flags = view.getUint16(0, littleEndian);
      return {
        id: view.getUint16(2, littleEndian),
        pvid: (flags & BRIDGE_VLAN_INFO_PVID) !== 0,
        untagged: (flags & BRIDGE_VLAN_INFO_UNTAGGED) !== 0,
      };
    });
}

/** struct ifinfomsg */
const headerBytes = 16;

function portBody(linkIndex: number, infos: readonly Uint8Array[]): Uint8Array[] {
  return [linkHeader({ family: AF_BRIDGE, index: linkIndex }), nested(IFLA_AF_SPEC, infos)];
}

/** struct bridge_vlan_info */
function vlanInfo(flags: number, id: number): Uint8Array {
  return attribute(IFLA_BRIDGE_VLAN_INFO, new Uint8Array(Uint16Array.of(flags, id).buffer));
}
