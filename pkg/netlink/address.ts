/** Addresses of network devices. */
import { isErrno } from '#pkg/errors/agent-error.ts';
import { addressFromBytes, type Family } from '#pkg/ip/address.ts';
import { formatPrefix, lastAddress, type Prefix } from '#pkg/ip/prefix.ts';
import {
  attributeAddress,
  attributeU32,
  littleEndian,
  readAttributes,
  readU32,
  viewOf,
} from './attribute.ts';
import {
  IFA_ADDRESS,
  IFA_BROADCAST,
  IFA_F_DADFAILED,
  IFA_F_DEPRECATED,
  IFA_F_NODAD,
  IFA_F_NOPREFIXROUTE,
  IFA_F_PERMANENT,
  IFA_F_SECONDARY,
  IFA_F_TENTATIVE,
  IFA_FLAGS,
  IFA_LOCAL,
  NLM_F_CREATE,
  NLM_F_EXCL,
  RTM_DELADDR,
  RTM_GETADDR,
  RTM_NEWADDR,
} from './constants.ts';
import { familyNumber } from './family.ts';
import type { Message } from './message.ts';
import type { NetlinkRequest, NetlinkSocket } from './socket.ts';

/** An address to add to a device. */
export interface NewAddress {
  readonly linkIndex: number;
  /** The address with its subnet's length: 10.244.1.5/24. */
  readonly prefix: Prefix;
  /** Usable at once: no duplicate address detection (RFC 4862 §5.4), which takes a second. */
  readonly noDad?: boolean;
  /** Without a route to the subnet. */
  readonly noPrefixRoute?: boolean;
  /**
   * Set the subnet's last address as broadcast address; IPv4 only. A subnet of one address or two
   * has none (RFC 3021): there it would be a host's, and no packet would get to that.
   */
  readonly broadcast?: boolean;
}

/** An address the kernel reports. */
export interface LinkAddressRecord {
  readonly linkIndex: number;
  readonly prefix: Prefix;
  /** Has no lifetime: was configured, not learned from a router advertisement. */
  readonly permanent: boolean;
  /** Duplicate address detection has not finished. */
  readonly tentative: boolean;
  /** Another host has the address. */
  readonly dadFailed: boolean;
  /** Beside another of its subnet (IPv4); made for a day or so (IPv6, RFC 8981). */
  readonly secondary: boolean;
  /** Its preferred lifetime is over: nothing new is to use it (RFC 4862 §5.5.4). */
  readonly deprecated: boolean;
}

/**
 * Adds an address.
 *
 * @throws {NetlinkError} EEXIST when the device has it
 */
export function addAddress(socket: NetlinkSocket, address: NewAddress): void {
  socket.request(addAddressRequest(address));
}

/** Removes an address; false when the device had none such. */
export function deleteAddress(
  socket: NetlinkSocket,
  address: Pick<NewAddress, 'linkIndex' | 'prefix'>,
): boolean {
  try {
    socket.request(deleteAddressRequest(address));
    return true;
  } catch (error) {
    if (isErrno(error, 'EADDRNOTAVAIL')) return false;
    throw error;
  }
}

/** The addresses of one family (both when undefined), of one device or all. */
export function listAddresses(
  socket: NetlinkSocket,
  filter: { readonly family?: Family; readonly linkIndex?: number } = {},
): LinkAddressRecord[] {
  return socket
    .dump({
      type: RTM_GETADDR,
      body: [addressHeader(familyNumber(filter.family), 0, filter.linkIndex ?? 0)],
      what: 'list addresses',
    })
    .flatMap(parseAddressMessage)
    .filter((a) => filter.linkIndex === undefined || a.linkIndex === filter.linkIndex);
}

/** As {@link addAddress}, for a batch. */
export function addAddressRequest(address: NewAddress): NetlinkRequest {
  const { prefix, linkIndex } = address;
  const hasBroadcast = address.broadcast === true && prefix.length <= longestBroadcast;
  const flags =
    (address.noDad === true ? IFA_F_NODAD : 0) |
    (address.noPrefixRoute === true ? IFA_F_NOPREFIXROUTE : 0);
  return {
    type: RTM_NEWADDR,
    flags: NLM_F_CREATE | NLM_F_EXCL,
    body: [
      ...addressBody(address),
      // The header's flags are a byte; NOPREFIXROUTE does not fit there.
      attributeU32(IFA_FLAGS, flags),
      ...(hasBroadcast ? [attributeAddress(IFA_BROADCAST, lastAddress(prefix))] : []),
    ],
    what: `add address ${formatPrefix(prefix)} to link ${linkIndex}`,
  };
}

const longestBroadcast = 30;

/** As {@link deleteAddress}, for a batch; a missing address is EADDRNOTAVAIL. */
export function deleteAddressRequest(
  address: Pick<NewAddress, 'linkIndex' | 'prefix'>,
): NetlinkRequest {
  return {
    type: RTM_DELADDR,
    body: addressBody(address),
    what: `delete address ${formatPrefix(address.prefix)} from link ${address.linkIndex}`,
  };
}

/** The address of a RTM_NEWADDR message; nothing for any other message. */
export function parseAddressMessage(message: Message): LinkAddressRecord[] {
  if (message.type !== RTM_NEWADDR || message.body.byteLength < 8) return [];
  const attributes = readAttributes(message.body.subarray(8));
  // On a point-to-point device IFA_ADDRESS is the other end's, and IFA_LOCAL ours.
  const bytes = attributes.get(IFA_LOCAL) ?? attributes.get(IFA_ADDRESS);
  if (bytes?.byteLength !== 4 && bytes?.byteLength !== 16) return [];
  const flags = readU32(attributes.get(IFA_FLAGS)) ?? message.body[2] ?? 0;
  return [
    {
      linkIndex: viewOf(message.body).getUint32(4, littleEndian),
      prefix: { address: addressFromBytes(bytes), length: message.body[1] ?? 0 },
      permanent: (flags & IFA_F_PERMANENT) !== 0,
      tentative: (flags & IFA_F_TENTATIVE) !== 0,
      dadFailed: (flags & IFA_F_DADFAILED) !== 0,
      secondary: (flags & IFA_F_SECONDARY) !== 0,
      deprecated: (flags & IFA_F_DEPRECATED) !== 0,
    },
  ];
}

function addressBody({
  prefix,
  linkIndex,
}: Pick<NewAddress, 'linkIndex' | 'prefix'>): Uint8Array[] {
  return [
    addressHeader(familyNumber(prefix.address.family), prefix.length, linkIndex),
    attributeAddress(IFA_LOCAL, prefix.address),
    attributeAddress(IFA_ADDRESS, prefix.address),
  ];
}

/** struct ifaddrmsg (include/uapi/linux/if_addr.h) */
function addressHeader(family: number, length: number, linkIndex: number): Uint8Array {
  const bytes = Uint8Array.of(family, length, 0, 0, 0, 0, 0, 0);
  viewOf(bytes).setUint32(4, linkIndex, littleEndian);
  return bytes;
}
