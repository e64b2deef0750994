/**
 * Making network devices. A device is born in the namespace where it shall live, with all it needs:
 * moving a device between namespaces costs 16 ms of waiting in the kernel, and one that is made in
 * steps is left half-made by a process that dies between them.
 */
import { formatAddress, type Address } from '#pkg/ip/address.ts';
import {
  attribute,
  attributeAddress,
  attributeBe16,
  attributeMac,
  attributeString,
  attributeU32,
  attributeU8,
  concatBytes,
  nested,
} from './attribute.ts';
import {
  IFF_UP,
  IFLA_ADDRESS,
  IFLA_BR_VLAN_FILTERING,
  IFLA_IFNAME,
  IFLA_INFO_DATA,
  IFLA_INFO_KIND,
  IFLA_LINKINFO,
  IFLA_MASTER,
  IFLA_MTU,
  IFLA_NET_NS_FD,
  IFLA_TXQLEN,
  IFLA_VXLAN_GBP,
  IFLA_VXLAN_ID,
  IFLA_VXLAN_LEARNING,
  IFLA_VXLAN_LINK,
  IFLA_VXLAN_LOCAL,
  IFLA_VXLAN_LOCAL6,
  IFLA_VXLAN_PORT,
  NLM_F_CREATE,
  NLM_F_EXCL,
  RTM_NEWLINK,
  VETH_INFO_PEER,
} from './constants.ts';
import { changeBridgePortRequest, changeLinkRequest, deleteLink } from './link-change.ts';
import { getLinkRequest, linkHeader, parseLink, type Link } from './link.ts';
import { NetlinkError } from './netlink-error.ts';
import type { NetlinkRequest, NetlinkSocket } from './socket.ts';

export interface NewBridge {
  readonly name: string;
  /**
   * Pinned from the start: a bridge without one takes the lowest MAC of its ports and changes it as
   * they come and go, which leaves every neighbour with a wrong entry.
   */
  readonly mac: string;
  readonly mtuBytes?: number;
  readonly alias?: string;
  /** Keep VLANs apart (IEEE 802.1Q). Only when it is made: pods of a running bridge lose frames. */
  readonly vlanFiltering?: boolean;
}

/**
 * Makes a bridge, administratively up.
 *
 * @throws {NetlinkError} EEXIST when the name is taken
 */
export function createBridge(socket: NetlinkSocket, bridge: NewBridge): Link {
  return createLink(socket, bridgeRequest(bridge), bridge);
}

/** The message of {@link createBridge} that makes the device. */
export function bridgeRequest(bridge: NewBridge): NetlinkRequest {
  return createLinkRequest(
    'bridge',
    bridge,
    [attributeMac(IFLA_ADDRESS, bridge.mac)],
    bridge.vlanFiltering === true ? [attributeU8(IFLA_BR_VLAN_FILTERING, 1)] : [],
  );
}

/** A pair of veth devices: the host's end in the socket's namespace, the peer in another. */
export interface NewVeth {
  readonly mtuBytes: number;
  readonly host: {
    readonly name: string;
    readonly mac?: string;
    /** Index of the bridge it becomes a port of. */
    readonly masterIndex?: number;
    /** See BridgePort; only with `masterIndex`. */
    readonly hairpin?: boolean;
    readonly alias?: string;
    /**
     * False leaves it down. A link that is up while its peer is not has no carrier, and the kernel
     * stops its queues a moment later, with a grace period during which nobody in any namespace can
     * change or read a link: bring it up once the peer is.
     */
    readonly up?: boolean;
  };
  readonly peer: {
    readonly name: string;
    readonly mac?: string;
    /** Open descriptor of the namespace the peer is born in. */
    readonly netnsFd: number;
  };
}

/**
 * Makes a veth pair: the host's end in its bridge and, unless told otherwise, up; the peer down (the
 * kernel cannot start it before the pair exists). Returns the host's end; its `peerIndex` is the peer's index over there.
 *
 * @throws {NetlinkError} EEXIST when either name is taken
 */
export function createVeth(socket: NetlinkSocket, veth: NewVeth): Link {
  const { host, peer } = veth;
  const peerInfo = attribute(
    VETH_INFO_PEER,
    concatBytes([
      linkHeader({}),
      attributeString(IFLA_IFNAME, peer.name),
      attributeU32(IFLA_MTU, veth.mtuBytes),
      ...(peer.mac === undefined ? [] : [attributeMac(IFLA_ADDRESS, peer.mac)]),
      attributeU32(IFLA_NET_NS_FD, peer.netnsFd),
    ]),
  );
  const create = createLinkRequest(
    'veth',
    { name: host.name, mtuBytes: veth.mtuBytes, ...(host.up === undefined ? {} : { up: host.up }) },
    [
      ...(host.mac === undefined ? [] : [attributeMac(IFLA_ADDRESS, host.mac)]),
      ...(host.masterIndex === undefined ? [] : [attributeU32(IFLA_MASTER, host.masterIndex)]),
    ],
    [peerInfo],
  );
  const what = `${create.what} with peer ${peer.name}`;
  return createLink(socket, { ...create, what }, host);
}

/** An intermediate functional block: frames redirected to it pass its qdisc, and then go on. */
export interface NewIfb {
  readonly name: string;
  readonly mtuBytes: number;
  readonly alias?: string;
}

/**
 * Makes an IFB device, administratively up.
 *
 * @throws {NetlinkError} EEXIST when the name is taken
 */
export function createIfb(socket: NetlinkSocket, ifb: NewIfb): Link {
  // No queue of its own: what waits is what its qdisc keeps.
  return createLink(socket, createLinkRequest('ifb', ifb, [attributeU32(IFLA_TXQLEN, 0)]), ifb);
}

export interface NewVxlan {
  readonly name: string;
  readonly vni: number;
  /** Destination UDP port. */
  readonly port: number;
  readonly local: Address;
  readonly underlayIndex: number;
  readonly mac: string;
  readonly mtuBytes: number;
  readonly alias?: string;
  /** Packet marks travel along (draft-smith-vxlan-group-policy). */
  readonly groupPolicy?: boolean;
}

/**
 * Makes a VXLAN device, administratively up, that learns nothing by itself.
 *
 * @throws {NetlinkError} EEXIST when the name, or the VNI and port together, are taken
 */
export function createVxlan(socket: NetlinkSocket, vxlan: NewVxlan): Link {
  return createLink(socket, vxlanRequest(vxlan), vxlan);
}

/** The message of {@link createVxlan} that makes the device. */
export function vxlanRequest(vxlan: NewVxlan): NetlinkRequest {
  const { vni, port, local } = vxlan;
  const create = createLinkRequest(
    'vxlan',
    vxlan,
    [attributeMac(IFLA_ADDRESS, vxlan.mac)],
    [
      attributeU32(IFLA_VXLAN_ID, vni),
      attributeU32(IFLA_VXLAN_LINK, vxlan.underlayIndex),
      attributeAddress(local.family === 'ip' ? IFLA_VXLAN_LOCAL : IFLA_VXLAN_LOCAL6, local),
      attributeU8(IFLA_VXLAN_LEARNING, 0),
      attributeBe16(IFLA_VXLAN_PORT, port),
      ...(vxlan.groupPolicy === true ? [attribute(IFLA_VXLAN_GBP, new Uint8Array())] : []),
    ],
  );
  const what = `${create.what} (VNI ${vni}, from ${formatAddress(local)}:${port})`;
  return { ...create, what };
}

/**
 * Makes a dummy device, administratively down: its addresses are the host's all the same, and no
 * packet ever leaves by it.
 *
 * @throws {NetlinkError} EEXIST when the name is taken; EOPNOTSUPP without CONFIG_DUMMY
 */
export function createDummy(socket: NetlinkSocket, name: string): Link {
  return createLink(socket, createLinkRequest('dummy', { name, up: false }, []), { name });
}

/** The message that makes a device of a kind, administratively up unless told otherwise. */
export function createLinkRequest(
  kind: string,
  link: { readonly name: string; readonly mtuBytes?: number; readonly up?: boolean },
  attributes: readonly Uint8Array[],
  data: readonly Uint8Array[] = [],
): NetlinkRequest {
  const up = link.up === false ? {} : { flags: IFF_UP, change: IFF_UP };
  return {
    type: RTM_NEWLINK,
    flags: NLM_F_CREATE | NLM_F_EXCL,
    body: [
      linkHeader(up),
      attributeString(IFLA_IFNAME, link.name),
      ...(link.mtuBytes === undefined ? [] : [attributeU32(IFLA_MTU, link.mtuBytes)]),
      ...attributes,
      nested(IFLA_LINKINFO, [
        attributeString(IFLA_INFO_KIND, kind),
        ...(data.length === 0 ? [] : [nested(IFLA_INFO_DATA, data)]),
      ]),
    ],
    what: `create ${kind} ${link.name}`,
  };
}

/**
 * The kernel ignores the alias and the port settings of a device it is still making, so they follow
 * as messages of their own: in the same send(2), which no signal and no crash of ours interrupts.
 */
export function createLink(
  socket: NetlinkSocket,
  create: NetlinkRequest,
  rest: {
    readonly name: string;
    readonly alias?: string | undefined;
    readonly hairpin?: boolean | undefined;
  },
): Link {
  const { name, alias, hairpin } = rest;
  const [before, created, ...others] = socket.batch([
    getLinkRequest(name),
    create,
    ...(alias === undefined ? [] : [changeLinkRequest(name, { alias })]),
    ...(hairpin === undefined ? [] : [changeBridgePortRequest(name, { hairpin })]),
    getLinkRequest(name),
  ]);
  if (created?.error !== undefined) {
    const [other] = before?.replies.flatMap(parseLink) ?? [];
    if (other !== undefined) restoreLink(socket, other, rest);
    throw created.error;
  }
  const error = others.find((result) => result.error !== undefined)?.error;
  const link = others.at(-1)?.replies.flatMap(parseLink)[0];
  if (error === undefined && link !== undefined) return link;
  deleteLink(socket, name);
  throw error ?? new NetlinkError(create.what, { errno: 0, text: 'the new link cannot be read' });
}

/**
 * The kernel goes on after it refused to make a device whose name is taken: what follows in the
 * batch has then changed somebody else's.
 */
function restoreLink(
  socket: NetlinkSocket,
  before: Link,
  changed: { readonly alias?: string | undefined; readonly hairpin?: boolean | undefined },
): void {
  const { index, alias = '', hairpin } = before;
  socket.batch([
    ...(changed.alias === undefined ? [] : [changeLinkRequest(index, { alias })]),
    ...(changed.hairpin === undefined || hairpin === undefined
      ? []
      : [changeBridgePortRequest(index, { hairpin })]),
  ]);
}
