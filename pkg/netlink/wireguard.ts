/**
 * WireGuard devices by generic netlink (include/uapi/linux/wireguard.h). Written here, synchronous as
 * all of this folder, because the npm package "netlink" cannot flag a nest as one, and since Linux
 * 5.2 this family refuses those that are not.
 */
import { AgentError } from '#pkg/errors/agent-error.ts';
import { addressBytes, addressFromBytes, type Address } from '#pkg/ip/address.ts';
import { formatPrefix, type Prefix } from '#pkg/ip/prefix.ts';
import {
  attribute,
  attributeAddress,
  attributeString,
  attributeU16,
  attributeU32,
  attributeU8,
  concatBytes,
  littleEndian,
  nested,
  readAttributes,
  readRepeated,
  readU16,
  readU64,
  readU8,
  viewOf,
} from './attribute.ts';
import {
  AF_INET,
  AF_INET6,
  WGALLOWEDIP_A_CIDR_MASK,
  WGALLOWEDIP_A_FAMILY,
  WGALLOWEDIP_A_IPADDR,
  WGDEVICE_A_IFNAME,
  WGDEVICE_A_LISTEN_PORT,
  WGDEVICE_A_PEERS,
  WGDEVICE_A_PRIVATE_KEY,
  WGDEVICE_A_PUBLIC_KEY,
  WGPEER_A_ALLOWEDIPS,
  WGPEER_A_ENDPOINT,
  WGPEER_A_FLAGS,
  WGPEER_A_LAST_HANDSHAKE_TIME,
  WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL,
  WGPEER_A_PRESHARED_KEY,
  WGPEER_A_PUBLIC_KEY,
  WGPEER_A_RX_BYTES,
  WGPEER_A_TX_BYTES,
  WGPEER_F_REMOVE_ME,
  WGPEER_F_REPLACE_ALLOWEDIPS,
  WG_CMD_GET_DEVICE,
  WG_CMD_SET_DEVICE,
  WG_GENL_VERSION,
} from './constants.ts';
import { familyNumber } from './family.ts';
import { genericFamily, genericHeader, genericHeaderBytes } from './generic.ts';
import type { Message } from './message.ts';
import type { NetlinkRequest, NetlinkSocket } from './socket.ts';

const wireguardKeyBytes = 32;

export interface Endpoint {
  readonly address: Address;
  readonly port: number;
}

export interface WireguardPeerEntry {
  readonly publicKey: Uint8Array;
  readonly endpoint: Endpoint | undefined;
  /** In place of all it had, and taken from any other peer that has one of them. */
  readonly allowedIPs: readonly Prefix[];
  /** 0 = off. */
  readonly keepaliveSeconds: number;
  /** Undefined = none. */
  readonly presharedKey: Uint8Array | undefined;
}

/** A peer the kernel reports. */
export interface WireguardPeerRecord extends WireguardPeerEntry {
  /** Of the last handshake, in seconds since the Unix epoch; 0 = never. */
  readonly handshakeAtSeconds: number;
  /** Of authentic packets of all kinds. */
  readonly receivedBytes: number;
  readonly sentBytes: number;
}

/** A device the kernel reports. */
export interface WireguardRecord {
  /** Undefined while it has no private key. */
  readonly publicKey: Uint8Array | undefined;
  readonly port: number;
  readonly peers: readonly WireguardPeerRecord[];
}

/**
 * The number of the family "wireguard", for the requests here.
 *
 * @throws {AgentError} EOPNOTSUPP when the kernel has no WireGuard
 */
export function wireguardFamily(generic: NetlinkSocket): number {
  const family = genericFamily(generic, 'wireguard');
  if (family !== undefined) return family;
  throw new AgentError('EOPNOTSUPP', 'Cannot set up WireGuard: the kernel does not have it');
}

/** Gives a device its key and port; peers stay. */
export function setWireguardRequest(
  family: number,
  link: string,
  device: { readonly privateKey: Uint8Array; readonly port: number },
): NetlinkRequest {
  const settings = [
    attribute(WGDEVICE_A_PRIVATE_KEY, device.privateKey),
    attributeU16(WGDEVICE_A_LISTEN_PORT, device.port),
  ];
  return setRequest(family, { link, settings, what: `set key and port ${device.port}` });
}

/** Makes a peer have these settings, whether it is there or not. */
export function putWireguardPeerRequest(
  family: number,
  link: string,
  peer: WireguardPeerEntry,
): NetlinkRequest {
  const { endpoint, presharedKey, allowedIPs } = peer;
  const settings = peerSettings([
    attribute(WGPEER_A_PUBLIC_KEY, peer.publicKey),
    attributeU32(WGPEER_A_FLAGS, WGPEER_F_REPLACE_ALLOWEDIPS),
    // A key of zeros takes away the one that was.
    attribute(WGPEER_A_PRESHARED_KEY, presharedKey ?? new Uint8Array(wireguardKeyBytes)),
    attributeU16(WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL, peer.keepaliveSeconds),
    ...(endpoint === undefined ? [] : [attribute(WGPEER_A_ENDPOINT, socketAddress(endpoint))]),
    nested(
      WGPEER_A_ALLOWEDIPS,
      allowedIPs.map(({ address, length }) =>
        nested(0, [
          attributeU16(WGALLOWEDIP_A_FAMILY, familyNumber(address.family)),
          attributeAddress(WGALLOWEDIP_A_IPADDR, address),
          attributeU8(WGALLOWEDIP_A_CIDR_MASK, length),
        ]),
      ),
    ),
  ]);
  const ranges = allowedIPs.map(formatPrefix).join(', ');
  return setRequest(family, { link, settings, what: `set the peer of ${ranges}` });
}

/** Takes a peer away; no error when it is not there. */
export function deleteWireguardPeerRequest(
  family: number,
  link: string,
  publicKey: Uint8Array,
): NetlinkRequest {
  const settings = peerSettings([
    attribute(WGPEER_A_PUBLIC_KEY, publicKey),
    attributeU32(WGPEER_A_FLAGS, WGPEER_F_REMOVE_ME),
  ]);
  return setRequest(family, { link, settings, what: 'remove a peer' });
}

/**
 * A device with all its peers, whose secrets are in it too.
 *
 * @throws {NetlinkError} ENODEV, and EOPNOTSUPP for a device of another kind
 */
export function readWireguard(
  generic: NetlinkSocket,
  family: number,
  link: string,
): WireguardRecord {
  const messages = generic.dump({
    type: family,
    body: [
      genericHeader(WG_CMD_GET_DEVICE, WG_GENL_VERSION),
      attributeString(WGDEVICE_A_IFNAME, link),
    ],
    what: `read WireGuard device ${link}`,
  });
  return parseWireguard(messages);
}

/** A device of a dump: a peer with many ranges goes on in the next message, under its key. */
export function parseWireguard(messages: readonly Message[]): WireguardRecord {
  let publicKey: Uint8Array | undefined;
  let port = 0;
  const peers: WireguardPeerRecord[] = [];
  for (const { body } of messages) {
    const attributes = readAttributes(body.subarray(genericHeaderBytes));
    publicKey = attributes.get(WGDEVICE_A_PUBLIC_KEY) ?? publicKey;
    port = readU16(attributes.get(WGDEVICE_A_LISTEN_PORT)) ?? port;
    for (const bytes of readRepeated(attributes.get(WGDEVICE_A_PEERS) ?? new Uint8Array(), 0)) {
      const peer = parsePeer(bytes);
      const last = peers.at(-1);
      if (last !== undefined && Buffer.compare(last.publicKey, peer.publicKey) === 0) {
        peers[peers.length - 1] = {
          ...last,
          allowedIPs: [...last.allowedIPs, ...peer.allowedIPs],
        };
      } else peers.push(peer);
    }
  }
  return { publicKey, port, peers };
}

function parsePeer(bytes: Uint8Array): WireguardPeerRecord {
  const attributes = readAttributes(bytes);
  const presharedKey = attributes.get(WGPEER_A_PRESHARED_KEY);
  const ranges = attributes.get(WGPEER_A_ALLOWEDIPS) ?? new Uint8Array();
  return {
    publicKey: attributes.get(WGPEER_A_PUBLIC_KEY) ?? new Uint8Array(),
    endpoint: parseEndpoint(attributes.get(WGPEER_A_ENDPOINT)),
    allowedIPs: readRepeated(ranges, 0).flatMap(parseAllowedIP),
    keepaliveSeconds: readU16(attributes.get(WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL)) ?? 0,
    presharedKey: presharedKey?.some((byte) => byte !== 0) === true ? presharedKey : undefined,
    // struct __kernel_timespec
    handshakeAtSeconds: readU64(attributes.get(WGPEER_A_LAST_HANDSHAKE_TIME)) ?? 0,
    receivedBytes: readU64(attributes.get(WGPEER_A_RX_BYTES)) ?? 0,
    sentBytes: readU64(attributes.get(WGPEER_A_TX_BYTES)) ?? 0,
  };
}

function parseAllowedIP(bytes: Uint8Array): Prefix[] {
  const attributes = readAttributes(bytes);
  const address = attributes.get(WGALLOWEDIP_A_IPADDR);
  const length = readU8(attributes.get(WGALLOWEDIP_A_CIDR_MASK));
  if (address === undefined || length === undefined) return [];
  return [{ address: addressFromBytes(address), length }];
}

function setRequest(
  family: number,
  change: {
    readonly link: string;
    readonly settings: readonly Uint8Array[];
    readonly what: string;
  },
): NetlinkRequest {
  return {
    type: family,
    body: [
      genericHeader(WG_CMD_SET_DEVICE, WG_GENL_VERSION),
      attributeString(WGDEVICE_A_IFNAME, change.link),
      ...change.settings,
    ],
    what: `change WireGuard device ${change.link} (${change.what})`,
  };
}

function peerSettings(settings: readonly Uint8Array[]): Uint8Array[] {
  return [nested(WGDEVICE_A_PEERS, [nested(0, settings)])];
}

/** struct sockaddr_in, or sockaddr_in6. */
function socketAddress({ address, port }: Endpoint): Uint8Array {
  const v4 = address.family === 'ip';
  const bytes = concatBytes([
    Uint8Array.of(0, 0, port >> 8, port & 255),
    ...(v4
      ? [addressBytes(address), new Uint8Array(8)]
      : [new Uint8Array(4), addressBytes(address), new Uint8Array(4)]),
  ]);
  viewOf(bytes).setUint16(0, v4 ? AF_INET : AF_INET6, littleEndian);
  return bytes;
}

function parseEndpoint(bytes: Uint8Array | undefined): Endpoint | undefined {
  if (bytes === undefined || bytes.byteLength < 16) return undefined;
  const view = viewOf(bytes);
  const family = view.getUint16(0, littleEndian);
  const port = view.getUint16(2);
  if (family === AF_INET) return { address: addressFromBytes(bytes.subarray(4, 8)), port };
  if (family !== AF_INET6 || bytes.byteLength < 28) return undefined;
  return { address: addressFromBytes(bytes.subarray(8, 24)), port };
}
