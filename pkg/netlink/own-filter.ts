/** A filter for sockets that listen to rtnetlink: everything but what one requester has changed. */
import type { FilterInstruction } from '#pkg/sys/socket-filter.ts';
import { littleEndian } from './attribute.ts';
import { AF_BRIDGE, RTM_DELNEIGH, RTM_DELROUTE, RTM_NEWNEIGH, RTM_NEWROUTE } from './constants.ts';

/** BPF_LD | BPF_ABS of a u32, a u16 and a u8, BPF_JMP | BPF_JEQ | BPF_K, BPF_RET | BPF_K */
const loadU32 = 0x20;
const loadU16 = 0x28;
const loadU8 = 0x30;
const jumpIfEqual = 0x15;
const returns = 0x06;

/** In struct nlmsghdr. */
const typeOffset = 4;
const portIdOffset = 12;
/** ndm_family of the struct ndmsg that follows it. */
const familyOffset = 16;

/** Messages that carry the port of whose request they follow: of routes, and of neighbours. */
const types = [RTM_NEWROUTE, RTM_DELROUTE, RTM_NEWNEIGH, RTM_DELNEIGH];

const pass: FilterInstruction = { code: returns, k: 0xffffffff };
const drop: FilterInstruction = { code: returns, k: 0 };

/**
 * Lets every message pass but those that say that a request from `portId` changed a route or a
 * neighbour. A notification is one message to a datagram (rtnl_notify).
 *
 * @param options.forwarding false = nor those of new and changed forwarding entries, whoever made
 *   them: the kernel does not say (drivers/net/vxlan/vxlan_core.c, vxlan_fdb_info)
 */
export function exceptRequestsOf(
  portId: number,
  { forwarding = true }: { readonly forwarding?: boolean } = {},
): readonly FilterInstruction[] {
  // Behind the test of the port: load the type, compare it with each, pass, drop.
  const ours: FilterInstruction[] = [
    { code: loadU16, k: typeOffset },
    ...types.map((type, i) => ({
      code: jumpIfEqual,
      k: asLoaded16(type),
      ifTrue: types.length - i,
    })),
    pass,
    drop,
  ];
  const others: FilterInstruction[] = forwarding
    ? [pass]
    : [
        { code: loadU16, k: typeOffset },
        { code: jumpIfEqual, k: asLoaded16(RTM_NEWNEIGH), ifFalse: 2 },
        { code: loadU8, k: familyOffset },
        { code: jumpIfEqual, k: AF_BRIDGE, ifTrue: 1 },
        pass,
        drop,
      ];
  return [
    { code: loadU32, k: portIdOffset },
    { code: jumpIfEqual, k: asLoaded32(portId), ifFalse: ours.length },
    ...ours,
    ...others,
  ];
}

/** A number in the machine's order, read as one in network order. */
function asLoaded16(value: number): number {
  return littleEndian ? ((value & 0xff) << 8) | (value >>> 8) : value;
}

function asLoaded32(value: number): number {
  if (!littleEndian) return value;
  return ((asLoaded16(value & 0xffff) << 16) | asLoaded16(value >>> 16)) >>> 0;
}
