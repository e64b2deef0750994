/**
 * Devices that share another one, their master: macvlan, with a MAC address of its own, and ipvlan,
 * with the master's. Each is born in the namespace where it shall live, down until it is set up
 * there; the master may be elsewhere.
 */
import { attributeMac, attributeU16, attributeU32 } from './attribute.ts';
import {
  IFLA_ADDRESS,
  IFLA_IPVLAN_MODE,
  IFLA_LINK,
  IFLA_MACVLAN_BC_QUEUE_LEN,
  IFLA_MACVLAN_MODE,
  IFLA_NET_NS_FD,
} from './constants.ts';
import { createLinkRequest } from './link-create.ts';
import type { NetlinkRequest } from './socket.ts';

/** enum macvlan_mode (include/uapi/linux/if_link.h). */
export const macvlanModes = { private: 1, vepa: 2, bridge: 4, passthru: 8 } as const;
export type MacvlanMode = keyof typeof macvlanModes;

/** enum ipvlan_mode. */
export const ipvlanModes = { l2: 0, l3: 1, l3s: 2 } as const;
export type IpvlanMode = keyof typeof ipvlanModes;

interface NewOverMaster {
  readonly name: string;
  /** In the namespace of the socket that makes the request. */
  readonly masterIndex: number;
  /** Open descriptor of the namespace the device is born in. */
  readonly netnsFd: number;
  /** The master's when undefined. */
  readonly mtuBytes?: number;
}

export interface NewMacvlan extends NewOverMaster {
  readonly mode: MacvlanMode;
  readonly mac?: string;
  /** Broadcast frames that may wait to be copied; the kernel's default when undefined. */
  readonly broadcastQueueLength?: number;
}

export interface NewIpvlan extends NewOverMaster {
  readonly mode: IpvlanMode;
}

/** Makes a macvlan. EEXIST when the name is taken, EINVAL when a passthru has the master already. */
export function createMacvlanRequest(macvlan: NewMacvlan): NetlinkRequest {
  const { mac, mode, broadcastQueueLength } = macvlan;
  return createLinkRequest(
    'macvlan',
    { ...macvlan, up: false },
    [...overMaster(macvlan), ...(mac === undefined ? [] : [attributeMac(IFLA_ADDRESS, mac)])],
    [
      attributeU32(IFLA_MACVLAN_MODE, macvlanModes[mode]),
      ...(broadcastQueueLength === undefined
        ? []
        : [attributeU32(IFLA_MACVLAN_BC_QUEUE_LEN, broadcastQueueLength)]),
    ],
  );
}

/** Makes an ipvlan. EEXIST when the name is taken, EOPNOTSUPP from a kernel without. */
export function createIpvlanRequest(ipvlan: NewIpvlan): NetlinkRequest {
  return createLinkRequest('ipvlan', { ...ipvlan, up: false }, overMaster(ipvlan), [
    attributeU16(IFLA_IPVLAN_MODE, ipvlanModes[ipvlan.mode]),
  ]);
}

function overMaster({ masterIndex, netnsFd }: NewOverMaster): Uint8Array[] {
  return [attributeU32(IFLA_LINK, masterIndex), attributeU32(IFLA_NET_NS_FD, netnsFd)];
}
