/** A filter for sockets that listen to rtnetlink: everything but what one requester has changed. */
import type { FilterInstruction } from '#pkg/sys/socket-filter.ts';
import { littleEndian } from './attribute.ts';
import { RTM_DELNEIGH, RTM_DELROUTE, RTM_NEWNEIGH, RTM_NEWROUTE } from './constants.ts';

/** BPF_LD | BPF_ABS of a u32 and a u16, BPF_JMP | BPF_JEQ | BPF_K, BPF_RET | BPF_K */
const loadU32 = 0x20;
const loadU16 = 0x28;
const jumpIfEqual = 0x15;
const returns = 0x06;

/** In struct nlmsghdr. */
const typeOffset = 4;
const portIdOffset = 12;

/** Messages that carry the port of whose request they follow: of routes, and of neighbours. */
const types = [RTM_NEWROUTE, RTM_DELROUTE, RTM_NEWNEIGH, RTM_DELNEIGH];

/**
 * Lets every message pass but those that say that a request from `portId` changed a route or a
 * neighbour. A notification is one message to a datagram (rtnl_notify).
 */
export function exceptRequestsOf(portId: number): readonly FilterInstruction[] {
  // Behind the test of the port: load the type, compare it with each, pass, drop.
  const passAfter = 1 + types.length;
  return [
    { code: loadU32, k: portIdOffset },
    { code: jumpIfEqual, k: asLoaded32(portId), ifFalse: passAfter },
    { code: loadU16, k: typeOffset },
    ...types.map((type, i) => ({
      code: jumpIfEqual,
      k: asLoaded16(type),
      ifTrue: types.length - i,
    })),
    { code: returns, k: 0xffffffff },
    { code: returns, k: 0 },
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
