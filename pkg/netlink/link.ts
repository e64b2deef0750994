/** Network devices as the kernel reports them. Made in link-create.ts, changed in link-change.ts. */
import { isErrno } from '#pkg/errors/agent-error.ts';
import { addressFromBytes, type Address } from '#pkg/ip/address.ts';
import {
  attributeString,
  attributeU32,
  findAttribute,
  littleEndian,
  readAttributes,
  readBe16,
  readMac,
  readNested,
  readString,
  readU16,
  readU32,
  readU8,
  viewOf,
  type Attributes,
} from './attribute.ts';
import {
  AF_UNSPEC,
  IFF_ALLMULTI,
  IFF_PROMISC,
  IFF_RUNNING,
  IFF_UP,
  IFLA_ADDRESS,
  IFLA_BR_VLAN_FILTERING,
  IFLA_BRPORT_MODE,
  IFLA_EXT_MASK,
  IFLA_IFALIAS,
  IFLA_IFNAME,
  IFLA_INFO_DATA,
  IFLA_INFO_KIND,
  IFLA_INFO_SLAVE_DATA,
  IFLA_INFO_SLAVE_KIND,
  IFLA_IPTUN_COLLECT_METADATA,
  IFLA_IPTUN_LOCAL,
  IFLA_IPTUN_REMOTE,
  IFLA_IPTUN_TOS,
  IFLA_IPTUN_TTL,
  IFLA_IPVLAN_MODE,
  IFLA_LINK,
  IFLA_LINKINFO,
  IFLA_LINK_NETNSID,
  IFLA_MACVLAN_MODE,
  IFLA_MASTER,
  IFLA_MTU,
  IFLA_TXQLEN,
  IFLA_VXLAN_DF,
  IFLA_VXLAN_GBP,
  IFLA_VXLAN_ID,
  IFLA_VXLAN_LEARNING,
  IFLA_VXLAN_LINK,
  IFLA_VXLAN_LOCAL,
  IFLA_VXLAN_LOCAL6,
  IFLA_VXLAN_PORT,
  IFLA_VXLAN_TOS,
  IFLA_VXLAN_TTL,
  IFLA_VXLAN_TTL_INHERIT,
  RTEXT_FILTER_SKIP_STATS,
  RTM_GETLINK,
  RTM_NEWLINK,
} from './constants.ts';
import type { Message } from './message.ts';
import type { NetlinkRequest, NetlinkSocket } from './socket.ts';

export interface Link {
  readonly index: number;
  readonly name: string;
  /** Ethernet address in lower case with colons; undefined for devices without. */
  readonly mac: string | undefined;
  readonly mtuBytes: number;
  /** Administratively up. */
  readonly up: boolean;
  /** Up, and its carrier and everything below it too. */
  readonly running: boolean;
  readonly promiscuous: boolean;
  /** Takes frames to every multicast group. */
  readonly allMulticast: boolean;
  readonly txQueueLength: number;
  /** "veth", "bridge", "vxlan"; undefined for hardware and loopback. */
  readonly kind: string | undefined;
  readonly alias: string | undefined;
  /** Index of the bridge (or bond, vrf) it is a port of. */
  readonly masterIndex: number | undefined;
  /** Index of a veth's other end, or of the device below: in the namespace of `peerNetnsId`. */
  readonly peerIndex: number | undefined;
  /** The kernel's id for the namespace `peerIndex` belongs to; undefined when it is this one. */
  readonly peerNetnsId: number | undefined;
  /** Of a bridge port: frames may leave by the port they came in by. */
  readonly hairpin: boolean | undefined;
  readonly vxlan: VxlanSettings | undefined;
  readonly tunnel?: TunnelSettings;
  /** Of a macvlan or ipvlan: the number of its mode (over-master.ts). */
  readonly mode: number | undefined;
  /** Of a bridge: keeps VLANs apart. */
  readonly vlanFiltering: boolean | undefined;
}

/** What a VXLAN device was made with. */
export interface VxlanSettings {
  readonly vni: number;
  readonly port: number;
  readonly local: Address | undefined;
  readonly underlayIndex: number | undefined;
  readonly learning: boolean;
  readonly groupPolicy?: boolean;
  /** Outer packets do not have the TTL, traffic class and DF that they have by default. */
  readonly hasOwnHeader?: true;
}

/** What an IP-in-IP device ("ipip", "ip6tnl") was made with. */
export interface TunnelSettings {
  readonly local: Address | undefined;
  readonly remote: Address | undefined;
  /** Outer addresses are each route's own (RTA_ENCAP); else those that are given, and gateways. */
  readonly byRoute: boolean;
  /** Outer packets do not have the TTL and traffic class that they have by default. */
  readonly hasOwnHeader?: true;
}

/** A link by name or index; undefined when there is none. */
export function getLink(socket: NetlinkSocket, link: string | number): Link | undefined {
  try {
    return socket.request(getLinkRequest(link)).flatMap(parseLink)[0];
  } catch (error) {
    if (isErrno(error, 'ENODEV')) return undefined;
    throw error;
  }
}

/** As {@link getLink}, for a batch; read the reply with {@link parseLink}. */
export function getLinkRequest(link: string | number): NetlinkRequest {
  return {
    type: RTM_GETLINK,
    body: [
      ...(typeof link === 'number'
        ? [linkHeader({ index: link })]
        : [linkHeader({}), attributeString(IFLA_IFNAME, link)]),
      attributeU32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS),
    ],
    what: `read link ${link}`,
  };
}

/** All links of the socket's namespace. */
export function listLinks(socket: NetlinkSocket): Link[] {
  return socket
    .dump({
      type: RTM_GETLINK,
      body: [linkHeader({}), attributeU32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)],
      what: 'list links',
    })
    .flatMap(parseLink);
}

/** struct ifinfomsg (include/uapi/linux/rtnetlink.h); only flags in `change` are looked at. */
export function linkHeader(header: {
  readonly index?: number;
  readonly flags?: number;
  readonly change?: number;
  /** AF_BRIDGE for what concerns bridge ports. */
  readonly family?: number;
}): Uint8Array {
  const bytes = new Uint8Array(16);
  const view = viewOf(bytes);
  bytes[0] = header.family ?? AF_UNSPEC;
  view.setInt32(4, header.index ?? 0, littleEndian);
  view.setUint32(8, header.flags ?? 0, littleEndian);
  view.setUint32(12, header.change ?? 0, littleEndian);
  return bytes;
}

/** The link of a RTM_NEWLINK message; nothing for any other message. */
export function parseLink(message: Message): Link[] {
  if (message.type !== RTM_NEWLINK || message.body.byteLength < 16) return [];
  const view = viewOf(message.body);
  const flags = view.getUint32(8, littleEndian);
  const attributes = readAttributes(message.body.subarray(16), linkAttributes);
  const info = readNested(attributes.get(IFLA_LINKINFO));
  const kind = readString(info.get(IFLA_INFO_KIND));
  const data = info.get(IFLA_INFO_DATA) ?? nothing;
  const slaveKind = readString(info.get(IFLA_INFO_SLAVE_KIND));
  const slave = info.get(IFLA_INFO_SLAVE_DATA) ?? nothing;
  return [
    {
      index: view.getInt32(4, littleEndian),
      name: readString(attributes.get(IFLA_IFNAME)) ?? '',
      mac: readMac(attributes.get(IFLA_ADDRESS)),
      mtuBytes: readU32(attributes.get(IFLA_MTU)) ?? 0,
      up: (flags & IFF_UP) !== 0,
      running: (flags & IFF_RUNNING) !== 0,
      promiscuous: (flags & IFF_PROMISC) !== 0,
      allMulticast: (flags & IFF_ALLMULTI) !== 0,
      txQueueLength: readU32(attributes.get(IFLA_TXQLEN)) ?? 0,
      kind,
      alias: readString(attributes.get(IFLA_IFALIAS)),
      masterIndex: readU32(attributes.get(IFLA_MASTER)),
      peerIndex: readU32(attributes.get(IFLA_LINK)),
      peerNetnsId: readU32(attributes.get(IFLA_LINK_NETNSID)),
      hairpin:
        slaveKind === 'bridge' ? readU8(findAttribute(slave, IFLA_BRPORT_MODE)) === 1 : undefined,
      vxlan: kind === 'vxlan' ? vxlanOf(readAttributes(data)) : undefined,
      ...(kind === 'ipip' || kind === 'ip6tnl' ? { tunnel: tunnelOf(readAttributes(data)) } : {}),
      mode: modeOf(kind, data),
      vlanFiltering:
        kind === 'bridge' ? readU8(findAttribute(data, IFLA_BR_VLAN_FILTERING)) === 1 : undefined,
    },
  ];
}

/** Those of {@link Link}. */
const linkAttributes: ReadonlySet<number> = new Set([
  IFLA_LINKINFO,
  IFLA_IFNAME,
  IFLA_ADDRESS,
  IFLA_MTU,
  IFLA_TXQLEN,
  IFLA_IFALIAS,
  IFLA_MASTER,
  IFLA_LINK,
  IFLA_LINK_NETNSID,
]);

const nothing = new Uint8Array(0);

function modeOf(kind: string | undefined, data: Uint8Array): number | undefined {
  if (kind === 'macvlan') return readU32(findAttribute(data, IFLA_MACVLAN_MODE));
  return kind === 'ipvlan' ? readU16(findAttribute(data, IFLA_IPVLAN_MODE)) : undefined;
}

function vxlanOf(data: Attributes): VxlanSettings {
  return {
    vni: readU32(data.get(IFLA_VXLAN_ID)) ?? 0,
    port: readBe16(data.get(IFLA_VXLAN_PORT)) ?? 0,
    local: addressOf(data.get(IFLA_VXLAN_LOCAL) ?? data.get(IFLA_VXLAN_LOCAL6)),
    underlayIndex: readU32(data.get(IFLA_VXLAN_LINK)),
    learning: readU8(data.get(IFLA_VXLAN_LEARNING)) === 1,
    ...(data.has(IFLA_VXLAN_GBP) ? { groupPolicy: true } : {}),
    ...ownHeader(data, [IFLA_VXLAN_TTL, IFLA_VXLAN_TTL_INHERIT, IFLA_VXLAN_TOS, IFLA_VXLAN_DF]),
  };
}

function tunnelOf(data: Attributes): TunnelSettings {
  return {
    local: addressOf(data.get(IFLA_IPTUN_LOCAL)),
    remote: addressOf(data.get(IFLA_IPTUN_REMOTE)),
    byRoute: data.has(IFLA_IPTUN_COLLECT_METADATA),
    ...ownHeader(data, [IFLA_IPTUN_TTL, IFLA_IPTUN_TOS]),
  };
}

/** 0 is the default of each. */
function ownHeader(
  data: Attributes,
  settings: readonly number[],
): Pick<VxlanSettings, 'hasOwnHeader'> {
  const isSet = settings.some((setting) => (readU8(data.get(setting)) ?? 0) !== 0);
  return isSet ? { hasOwnHeader: true } : {};
}

/** All zeros is how the kernel says "none". */
function addressOf(bytes: Uint8Array | undefined): Address | undefined {
  if (bytes?.byteLength !== 4 && bytes?.byteLength !== 16) return undefined;
  const address = addressFromBytes(bytes);
  return address.value === 0n ? undefined : address;
}
