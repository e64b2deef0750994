/** Raw Ethernet frames for tests, as a pod that is up to no good sends them. */
import { addressBytes, parseAddress, type Address } from '#pkg/ip/address.ts';
import { concatBytes } from '#pkg/netlink/attribute.ts';
import { getLink } from '#pkg/netlink/link.ts';
import { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { withNetns } from '#pkg/netns/netns.ts';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';
import type { Sys } from '#pkg/sys/sys.ts';

/** include/linux/socket.h, include/uapi/linux/if_ether.h */
const AF_PACKET = 17;
const SOCK_RAW = 3;
const ETH_P_ALL = 3;

/** Sends one frame out of a link of the namespace. */
export function sendFrame(sys: Sys, netns: ScratchNetns, link: string, frame: Uint8Array): void {
  const die = (error: Error): never => {
    throw error;
  };
  withNetns(
    sys,
    netns.path,
    () => {
      using socket = new NetlinkSocket(sys);
      const index = getLink(socket, link)?.index ?? 0;
      const fd = sys.socket(AF_PACKET, SOCK_RAW, 0);
      try {
        // struct sockaddr_ll (include/uapi/linux/if_packet.h)
        const address = new Uint8Array(20);
        const view = new DataView(address.buffer);
        view.setUint16(0, AF_PACKET, true);
        view.setUint16(2, ETH_P_ALL);
        view.setInt32(4, index, true);
        sys.bind(fd, address);
        sys.send(fd, frame, 0);
      } finally {
        sys.close(fd);
      }
    },
    die,
  );
}

export interface Ethernet {
  readonly to: string;
  readonly from: string;
}

/** A UDP datagram over IPv4 or IPv6 with `text`, without a UDP checksum for IPv4. */
export function udpFrame(
  ethernet: Ethernet,
  { source, destination, port }: { source: string; destination: string; port: number },
  text: string,
): Uint8Array {
  const payload = new TextEncoder().encode(text);
  const [from, to] = [parseAddress(source), parseAddress(destination)];
  const udp = bytes16([4000, port, 8 + payload.byteLength, 0]);
  const datagram = concatBytes([udp, payload]);
  if (from.family === 'ip') return ethernetFrame(ethernet, 0x0800, ip4(from, to, datagram));
  datagram.set(bytes16([checksum(pseudo(from, to, 17, datagram))]), 6);
  return ethernetFrame(ethernet, 0x86dd, ip6(from, to, { next: 17, payload: datagram }));
}

/** An ARP packet (RFC 826): `operation` 1 asks, 2 answers. */
export function arpFrame(
  ethernet: Ethernet,
  arp: { operation: 1 | 2; senderMac: string; sender: string; target: string },
): Uint8Array {
  const { operation, senderMac, sender, target } = arp;
  return ethernetFrame(
    ethernet,
    0x0806,
    concatBytes([
      bytes16([1, 0x0800, 0x0604, operation]),
      macBytes(senderMac),
      addressBytes(parseAddress(sender)),
      macBytes(ethernet.to),
      addressBytes(parseAddress(target)),
    ]),
  );
}

/** ICMPv6 of one of these types, for `target`, with the sender's MAC as option (RFC 4861 §4). */
export function neighbourFrame(
  ethernet: Ethernet,
  nd: { type: 134 | 136; source: string; destination: string; target: string },
): Uint8Array {
  const [source, destination] = [parseAddress(nd.source), parseAddress(nd.destination)];
  const body =
    nd.type === 136
      ? concatBytes([
          // Override: take the new MAC in place of the old one.
          Uint8Array.of(136, 0, 0, 0, 0x20, 0, 0, 0),
          addressBytes(parseAddress(nd.target)),
          Uint8Array.of(2, 1),
          macBytes(ethernet.from),
        ])
      : Uint8Array.of(134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0);
  body.set(bytes16([checksum(pseudo(source, destination, 58, body))]), 2);
  return ethernetFrame(ethernet, 0x86dd, ip6(source, destination, { next: 58, payload: body }));
}

function ethernetFrame({ to, from }: Ethernet, type: number, payload: Uint8Array): Uint8Array {
  return concatBytes([macBytes(to), macBytes(from), bytes16([type]), payload]);
}

function ip4(source: Address, destination: Address, payload: Uint8Array): Uint8Array {
  const header = concatBytes([
    bytes16([0x4500, 20 + payload.byteLength, 1, 0, 0x4011, 0]),
    addressBytes(source),
    addressBytes(destination),
  ]);
  header.set(bytes16([checksum(header)]), 10);
  return concatBytes([header, payload]);
}

function ip6(
  source: Address,
  destination: Address,
  { next, payload }: { next: number; payload: Uint8Array },
): Uint8Array {
  return concatBytes([
    Uint8Array.of(0x60, 0, 0, 0),
    bytes16([payload.byteLength]),
    // A hop limit of 255 proves that no router passed it on; others of these are not believed.
    Uint8Array.of(next, 255),
    addressBytes(source),
    addressBytes(destination),
    payload,
  ]);
}

/** The pseudo-header (RFC 8200 §8.1) and what it is for. */
function pseudo(
  ...[source, destination, next, payload]: [Address, Address, number, Uint8Array]
): Uint8Array {
  return concatBytes([
    addressBytes(source),
    addressBytes(destination),
    bytes16([0, payload.byteLength, 0, next]),
    payload,
  ]);
}

/** RFC 1071. */
function checksum(bytes: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < bytes.byteLength; i += 2) sum += ((bytes[i] ?? 0) << 8) | (bytes[i + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return ~sum & 0xffff;
}

function bytes16(values: readonly number[]): Uint8Array {
  return Uint8Array.from(values.flatMap((value) => [value >> 8, value & 0xff]));
}

function macBytes(mac: string): Uint8Array {
  return Uint8Array.from(mac.split(':'), (byte) => Number.parseInt(byte, 16));
}
