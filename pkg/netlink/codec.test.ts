import { describe, expect, it } from 'vitest';
import { parseAddress } from '#pkg/ip/address.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { addAddressRequest, parseAddressMessage } from './address.ts';
import {
  attribute,
  attributeString,
  attributeU16,
  attributeU32,
  concatBytes,
  littleEndian,
  nested,
  readAttributes,
  readBe16,
  readMac,
  readNested,
  readString,
  readU32,
} from './attribute.ts';
import { changeBridgePortRequest } from './link-change.ts';
import { vxlanRequest } from './link-create.ts';
import { parseLink } from './link.ts';
import { encodeMessage, parseMessages, readAcknowledgement, readDone } from './message.ts';
import { putForwardingRequest, putNeighborRequest } from './neighbor.ts';
import { addRouteRequest, parseRoute } from './route.ts';
import type { NetlinkRequest } from './socket.ts';

const on = littleEndian ? describe : describe.skip;

on('the same bytes as iproute2 sends (captured from ip and bridge 6.1)', () => {
  it.each<[string, NetlinkRequest, { header: number; nests: number[]; bytes: string }]>([
    [
      'ip addr add 10.244.1.5/24 brd + dev eth0',
      addAddressRequest({ linkIndex: 3, prefix: parsePrefix('10.244.1.5/24'), broadcast: true }),
      {
        header: 8,
        nests: [],
        bytes: '02180000 03000000 080002000af40105 080001000af40105 080004000af401ff',
      },
    ],
    [
      'ip addr add 10.244.1.4/31 brd + dev eth0',
      addAddressRequest({ linkIndex: 3, prefix: parsePrefix('10.244.1.4/31'), broadcast: true }),
      {
        header: 8,
        nests: [],
        bytes: '021f0000 03000000 080002000af40104 080001000af40104',
      },
    ],
    [
      'ip route add 10.244.2.0/24 via 10.244.2.0 dev eth0 onlink proto 196 mtu 1400',
      addRouteRequest({
        destination: parsePrefix('10.244.2.0/24'),
        gateway: parseAddress('10.244.2.0'),
        linkIndex: 3,
        onLink: true,
        protocol: 196,
        mtuBytes: 1400,
      }),
      {
        header: 12,
        nests: [8],
        bytes:
          '02180000 fec40001 04000000 080001000af40200 080005000af40200 0800040003000000 0c000800 0800020078050000',
      },
    ],
    [
      'ip -6 route add default via fd00::1 dev eth0 metric 5',
      addRouteRequest({
        destination: parsePrefix('::/0'),
        gateway: parseAddress('fd00::1'),
        linkIndex: 3,
        metric: 5,
      }),
      {
        header: 12,
        nests: [],
        bytes:
          '0a000000 fe030001 00000000 14000500fd000000000000000000000000000001 0800060005000000 0800040003000000',
      },
    ],
    [
      'ip neigh replace 10.244.2.0 lladdr 02:00:00:00:00:02 dev eth0 nud permanent',
      putNeighborRequest({
        linkIndex: 3,
        address: parseAddress('10.244.2.0'),
        mac: '02:00:00:00:00:02',
      }),
      {
        header: 12,
        nests: [],
        bytes: '02000000 03000000 80000000 080001000af40200 0a0002000200000000020000',
      },
    ],
    [
      'bridge fdb replace 02:00:00:00:00:02 dev podwire.1 dst 192.0.2.2 self permanent',
      putForwardingRequest({
        linkIndex: 4,
        mac: '02:00:00:00:00:02',
        remote: parseAddress('192.0.2.2'),
      }),
      {
        header: 12,
        nests: [],
        bytes: '07000000 04000000 c0000200 0a0002000200000000020000 08000100c0000202',
      },
    ],
    [
      'ip link add podwire.1 up type vxlan … (but for the NUL after the kind, which ip leaves out)',
      vxlanRequest({
        name: 'podwire.1',
        vni: 1,
        port: 8472,
        local: parseAddress('192.0.2.1'),
        underlayIndex: 3,
        mac: '02:00:00:00:00:01',
        mtuBytes: 1400,
      }),
      {
        header: 16,
        nests: [18, 2],
        bytes:
          '00000000 00000000 01000000 01000000 0800040078050000 0a0001000200000000010000' +
          '0e000300706f64776972652e31000000 3c001200 0a00010076786c616e000000 2c000200' +
          '0800030003000000 0800010001000000 08000400c0000201 0500070000000000 06000f0021180000',
      },
    ],
  ])('%s', (_, request, captured) => {
    const theirs = decode(fromHex(captured.bytes), captured);
    const ours = decode(concatBytes(request.body), captured);
    // We name the table in RTA_TABLE, which has room for all numbers, and not in the header.
    const table = captured.header === 12 && theirs.header[4] === 254 ? { 15: 'fe000000' } : {};
    const flags = captured.header === 8 ? { 8: '00000000' } : {};
    expect(ours.attributes).toEqual({ ...theirs.attributes, ...table, ...flags });
    if ('15' in table) theirs.header[4] = 0;
    expect([...ours.header]).toEqual([...theirs.header]);
  });
});

type Decoded = { [type: number]: string | Decoded };

function decode(
  bytes: Uint8Array,
  shape: { readonly header: number; readonly nests: readonly number[] },
): { header: number[]; attributes: Decoded } {
  const inner = (payload: Uint8Array, nests: readonly number[]): Decoded => {
    const entries = [...readAttributes(payload)].map(
      ([type, value]): [number, string | Decoded] => [
        type,
        type === nests[0] ? inner(value, nests.slice(1)) : Buffer.from(value).toString('hex'),
      ],
    );
    return Object.fromEntries(entries);
  };
  return {
    header: [...bytes.subarray(0, shape.header)],
    attributes: inner(bytes.subarray(shape.header), shape.nests),
  };
}

function fromHex(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text.replaceAll(' ', ''), 'hex'));
}

describe('attributes', () => {
  it('are padded, and their padding is not read', () => {
    const bytes = concatBytes([attribute(1, Uint8Array.of(9)), attributeU32(2, 7)]);
    expect(bytes).toHaveLength(16);
    const read = readAttributes(bytes);
    expect([...(read.get(1) ?? [])]).toEqual([9]);
    expect(readU32(read.get(2))).toBe(7);
  });

  it('carry the nested flag when written, and are found without it', () => {
    const bytes = nested(18, [attributeString(1, 'veth')]);
    expect(new DataView(bytes.buffer).getUint16(2, littleEndian)).toBe(0x8012);
    expect(readString(readNested(readAttributes(bytes).get(18)).get(1))).toBe('veth');
  });

  it.each([
    ['a length beyond the end', [9, 0, 1, 0, 0]],
    ['a length below the header', [3, 0, 1, 0, 0, 0, 0, 0]],
    ['half a header', [8, 0]],
    ['nothing', []],
  ])('%s ends the reading without an error', (_, tail) => {
    const bytes = concatBytes([attributeU32(5, 1), Uint8Array.from(tail)]);
    expect([...readAttributes(bytes).keys()]).toEqual([5]);
  });

  it('are undefined when missing or too short, and read when a newer kernel widened them', () => {
    const short = Uint8Array.of(1);
    expect([readU32(undefined), readU32(short), readBe16(short), readMac(short)]).toEqual([
      undefined,
      undefined,
      undefined,
      undefined,
    ]);
    const wide = concatBytes([new Uint8Array(Uint32Array.of(1450).buffer), new Uint8Array(4)]);
    expect(readU32(wide)).toBe(1450);
    expect(readBe16(Uint8Array.of(0x21, 0x18))).toBe(8472);
    expect(readString(Uint8Array.from(Buffer.from('lo')))).toBe('lo');
    expect(readMac(Uint8Array.of(2, 0, 0, 0, 0xab, 1))).toBe('02:00:00:00:ab:01');
  });
});

describe('messages', () => {
  const header = { type: 16, flags: 5, sequence: 0xfffffffe };

  it('of one datagram are told apart', () => {
    const one = encodeMessage(header, [Uint8Array.of(1, 2, 3)]);
    const two = encodeMessage({ ...header, sequence: 9 }, [attributeU16(1, 2)]);
    const datagram = concatBytes([one, new Uint8Array(1), two]);
    expect(parseMessages(datagram)).toEqual([
      { ...header, body: Uint8Array.of(1, 2, 3) },
      { ...header, sequence: 9, body: attributeU16(1, 2) },
    ]);
  });

  it('that were cut off are left out', () => {
    const one = encodeMessage(header, [new Uint8Array(8)]);
    expect(parseMessages(concatBytes([one, one.subarray(0, 20)]))).toHaveLength(1);
    expect(parseMessages(one.subarray(0, 10))).toEqual([]);
    expect(parseMessages(new Uint8Array(64))).toEqual([]);
  });

  it.each([
    ['with the request left out', 0x300, new Uint8Array(16)],
    ['with the whole request', 0x200, encodeMessage(header, [new Uint8Array(7)])],
  ])('that refuse give errno and the kernel’s words, %s', (_, flags, request) => {
    const padded = concatBytes([request, new Uint8Array((4 - (request.byteLength % 4)) % 4)]);
    const errno = new Uint8Array(Int32Array.of(-17).buffer);
    const body = concatBytes([errno, padded, attributeString(1, 'already there')]);
    const message = { type: 2, flags, sequence: 1, body };
    expect(readAcknowledgement(message)).toEqual({ errno: 17, text: 'already there' });
    expect(readAcknowledgement({ ...message, flags: 0 })).toEqual({ errno: 17, text: undefined });
  });

  it('that end a dump may carry an errno', () => {
    const errno = new Uint8Array(Int32Array.of(-4).buffer);
    const message = { type: 3, flags: 2, sequence: 1, body: errno };
    expect(readDone(message)).toEqual({ errno: 4, text: undefined });
    expect(readDone({ ...message, body: new Uint8Array(0) }).errno).toBe(0);
  });

  it('too short for their kind are ignored', () => {
    const body = new Uint8Array(4);
    expect(parseLink({ type: 16, flags: 0, sequence: 0, body })).toEqual([]);
    expect(parseAddressMessage({ type: 20, flags: 0, sequence: 0, body })).toEqual([]);
    expect(parseRoute({ type: 24, flags: 0, sequence: 0, body })).toEqual([]);
  });
});

it('a bridge port is changed by RTM_NEWLINK, which alone has an effect', () => {
  expect(changeBridgePortRequest('veth1', { hairpin: true })).toMatchObject({
    type: 16,
    what: 'change bridge port veth1 (hairpin true)',
  });
});
