/** Connection tracking entries as text, and as the kernel takes and lists them. */
import {
  attribute,
  attributeAddress,
  attributeBe16,
  attributeU8,
  concatBytes,
  nested,
} from '#pkg/netlink/attribute.ts';
import type { Message } from '#pkg/netlink/message.ts';
import type { NetlinkRequest } from '#pkg/netlink/socket.ts';
import { parseAddress } from '#pkg/ip/address.ts';

/** "udp 10.1.0.9:4000 > 172.30.0.1:53 = 10.1.0.1:5353": client, destination, who answers. */
export interface Entry {
  readonly protocol: 'udp' | 'tcp' | 'sctp';
  readonly client: string;
  readonly destination: string;
  readonly server: string;
}

const numbers = { tcp: 6, udp: 17, sctp: 132 } as const;

export function parseEntry(text: string): Entry {
  const [, protocol, client, destination, server] =
    /^(\w+) (\S+) > (\S+) = (\S+)$/.exec(text) ?? [];
  if (server === undefined || client === undefined || destination === undefined) {
    throw new Error(`no entry: ${text}`);
  }
  return { protocol: protocol as Entry['protocol'], client, destination, server };
}

/** As a dump lists it. */
export function entryMessage(entry: Entry, id = 0): Message {
  return { type: 0x100, flags: 2, sequence: 1, body: concatBytes([...body(entry), u32(12, id)]) };
}

/** IPCTNL_MSG_CT_NEW: puts the entry into the kernel's table for an hour. */
export function entryCreation(entry: Entry): NetlinkRequest {
  const [NLM_F_EXCL, NLM_F_CREATE] = [0x200, 0x400];
  const [CTA_STATUS, CTA_TIMEOUT] = [3, 7];
  // IPS_SEEN_REPLY | IPS_ASSURED | IPS_CONFIRMED
  const status = 2 | 4 | 8;
  return {
    type: 0x100,
    flags: NLM_F_EXCL | NLM_F_CREATE,
    body: [...body(entry), u32(CTA_TIMEOUT, 3600), u32(CTA_STATUS, status)],
    what: 'create a tracked connection',
  };
}

function body({ client, destination, protocol, server }: Entry): Uint8Array[] {
  const family = client.startsWith('[') ? 10 : 2;
  const number = numbers[protocol];
  return [
    Uint8Array.of(family, 0, 0, 0),
    tuple(1, number, [client, destination]),
    tuple(2, number, [server, client]),
  ];
}

function tuple(
  type: number,
  protocol: number,
  [source, destination]: readonly [string, string],
): Uint8Array {
  const from = split(source);
  const to = split(destination);
  const [src, dst] = from.address.family === 'ip' ? [1, 2] : [3, 4];
  return nested(type, [
    nested(1, [attributeAddress(src, from.address), attributeAddress(dst, to.address)]),
    nested(2, [
      attributeU8(1, protocol),
      attributeBe16(2, from.port),
      attributeBe16(3, to.port),
    ]),
  ]);
}

function split(endpoint: string): { address: ReturnType<typeof parseAddress>; port: number } {
  const [, v6, v4, port] = /^(?:\[(.+)\]|(.+)):(\d+)$/.exec(endpoint) ?? [];
  return { address: parseAddress(v6 ?? v4 ?? ''), port: Number(port) };
}

function u32(type: number, value: number): Uint8Array {
  return attribute(type, Uint8Array.of(value >>> 24, value >>> 16, value >>> 8, value));
}
