/** What queueing disciplines and filters have in common (include/uapi/linux/rtnetlink.h). */
import { littleEndian, viewOf } from './attribute.ts';
import { AF_UNSPEC } from './constants.ts';

/** struct tcmsg: which device, and which object on it. */
export interface TrafficControlHeader {
  readonly linkIndex: number;
  /** Major number in the upper 16 bits, minor in the lower: "1:" is 0x10000. */
  readonly handle?: number;
  readonly parent?: number;
  /** Of a filter: its priority in the upper 16 bits, its protocol in network order in the lower. */
  readonly info?: number;
}

export const trafficControlHeaderBytes = 20;

/** struct tcmsg (include/uapi/linux/rtnetlink.h). */
export function trafficControlHeader(header: TrafficControlHeader): Uint8Array {
  const bytes = new Uint8Array(trafficControlHeaderBytes);
  const view = viewOf(bytes);
  bytes[0] = AF_UNSPEC;
  view.setInt32(4, header.linkIndex, littleEndian);
  view.setUint32(8, header.handle ?? 0, littleEndian);
  view.setUint32(12, header.parent ?? 0, littleEndian);
  view.setUint32(16, header.info ?? 0, littleEndian);
  return bytes;
}

/** The same from a message of the kernel's. */
export function readTrafficControlHeader(body: Uint8Array): Required<TrafficControlHeader> {
  const view = viewOf(body);
  return {
    linkIndex: view.getInt32(4, littleEndian),
    handle: view.getUint32(8, littleEndian),
    parent: view.getUint32(12, littleEndian),
    info: view.getUint32(16, littleEndian),
  };
}
