/** A TCP segment out of its connection's window, as a slow path may deliver it late. */
import { withNetns } from '#pkg/netns/netns.ts';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';
import { POLLIN, SOCK_CLOEXEC, SOCK_RAW } from '#pkg/sys/constants.ts';
import { openSys } from '#pkg/sys/open-sys.ts';

/** include/linux/socket.h, include/uapi/linux/if_ether.h */
const AF_PACKET = 17;
const ETH_P_ALL = 3;
const ethernetBytes = 14;

/**
 * Catches a segment that the pod sends from `port`, and sends it again with a sequence number half a
 * gigabyte ahead. Its acknowledgement is right: a reset in answer to it would be believed.
 */
export async function sendStraySegment(pod: ScratchNetns, port: number): Promise<void> {
  const sys = await openSys();
  const [link] = JSON.parse(await pod.ip('-j link show eth0')) as [{ ifindex: number }];
  const die = (error: Error): never => {
    throw error;
  };
  withNetns(
    sys,
    pod.path,
    () => {
      const fd = sys.socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, ETH_P_ALL << 8);
      try {
        // struct sockaddr_ll (include/uapi/linux/if_packet.h)
        const address = new Uint8Array(20);
        const view = new DataView(address.buffer);
        view.setUint16(0, AF_PACKET, true);
        view.setUint16(2, ETH_P_ALL);
        view.setInt32(4, link.ifindex, true);
        sys.bind(fd, address);
        const buffer = new Uint8Array(2048);
        for (let tries = 0; tries < 1000; tries++) {
          if (sys.poll(fd, POLLIN, 2000) === 0) break;
          const frame = buffer.slice(0, sys.recv(fd, buffer, 0));
          if (!isDataFrom(frame, port)) continue;
          shiftSequence(frame);
          sys.send(fd, frame, 0);
          return;
        }
        throw new Error(`${pod.name} sends nothing from port ${port}`);
      } finally {
        sys.close(fd);
      }
    },
    die,
  );
}

/** IPv4 without options, TCP, from the port, with data. */
function isDataFrom(frame: Uint8Array, port: number): boolean {
  if (frame.byteLength <= ethernetBytes + 40) return false;
  const view = new DataView(frame.buffer);
  const isTcp = view.getUint16(12) === 0x0800 && frame[14] === 0x45 && frame[23] === 6;
  return isTcp && view.getUint16(34) === port && view.getUint16(16) > 40;
}

function shiftSequence(frame: Uint8Array): void {
  const view = new DataView(frame.buffer);
  const tcp = ethernetBytes + 20;
  view.setUint32(tcp + 4, (view.getUint32(tcp + 4) + 0x2000_0000) >>> 0);
  view.setUint16(tcp + 16, 0);
  const length = view.getUint16(16) - 20;
  // RFC 9293 §3.1: addresses, protocol and length are part of the sum.
  let sum = 6 + length;
  for (let at = 26; at < 34; at += 2) sum += view.getUint16(at);
  for (let at = 0; at < length; at += 2) {
    sum += at + 1 < length ? view.getUint16(tcp + at) : (frame[tcp + at] ?? 0) << 8;
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  view.setUint16(tcp + 16, ~sum & 0xffff);
}
