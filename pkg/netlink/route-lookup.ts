/** Where the kernel sends packets for an address. */
import { isErrno } from '#pkg/errors/agent-error.ts';
import { addressBits, type Address } from '#pkg/ip/address.ts';
import { attributeAddress, readAttributes, readU32 } from './attribute.ts';
import { RTA_DST, RTA_OIF, RTM_GETROUTE, RTM_NEWROUTE } from './constants.ts';
import { familyNumber } from './family.ts';
import type { NetlinkSocket } from './socket.ts';

/** Index of the link that packets for the address leave by; undefined when there is no route. */
export function routedLinkIndex(socket: NetlinkSocket, address: Address): number | undefined {
  // struct rtmsg (include/uapi/linux/rtnetlink.h): family, length of the destination
  const header = Uint8Array.of(familyNumber(address.family), addressBits(address.family));
  const body = new Uint8Array(12);
  body.set(header);
  try {
    const replies = socket.request({
      type: RTM_GETROUTE,
      body: [body, attributeAddress(RTA_DST, address)],
      what: 'look up a route',
    });
    const route = replies.find(({ type }) => type === RTM_NEWROUTE);
    return route === undefined
      ? undefined
      : readU32(readAttributes(route.body.subarray(12)).get(RTA_OIF));
  } catch (error) {
    if (isErrno(error, 'ENETUNREACH') || isErrno(error, 'EHOSTUNREACH')) return undefined;
    throw error;
  }
}
