import { describe, expect, it } from 'vitest';
import { concatBytes, littleEndian } from './attribute.ts';
import {
  addAccessVlanRequest,
  addTrunkVlansRequest,
  deleteVlanRequest,
  parsePortVlans,
} from './bridge-vlan.ts';
import { RTM_NEWLINK } from './constants.ts';
import { bridgeRequest } from './link-create.ts';
import { parseLink } from './link.ts';
import { createIpvlanRequest, createMacvlanRequest } from './over-master.ts';
import type { NetlinkRequest } from './socket.ts';

const on = littleEndian ? describe : describe.skip;
const newDevice = '00000000 00000000 01000000 01000000';
const newDeviceDown = '00000000 00000000 00000000 00000000';

/** Attributes as `ip` and `bridge` 6.1 send them, in our order, with the flags of nests. */
on('the bytes on the wire', () => {
  it.each<[string, NetlinkRequest, string]>([
    [
      'ip link add m0 link v0 mtu 1400 address 02:… netns 9 type macvlan mode private bcqueuelen 2000',
      createMacvlanRequest({
        name: 'm0',
        masterIndex: 3,
        netnsFd: 9,
        mtuBytes: 1400,
        mac: '02:00:00:00:00:09',
        mode: 'private',
        broadcastQueueLength: 2000,
      }),
      `${newDeviceDown} 07000300 6d300000 08000400 78050000 08000500 03000000 08001c00 09000000
       0a000100 020000000009 0000 24001280 0c000100 6d6163766c616e00
       14000280 08000100 01000000 08000700 d0070000`,
    ],
    [
      'ip link add i0 link v0 netns 9 type ipvlan mode l3s',
      createIpvlanRequest({ name: 'i0', masterIndex: 3, netnsFd: 9, mode: 'l3s' }),
      `${newDeviceDown} 07000300 69300000 08000500 03000000 08001c00 09000000
       1c001280 0b000100 6970766c616e0000 0c000280 06000100 02000000`,
    ],
    [
      'bridge vlan add dev v0 vid 100 pvid untagged',
      addAccessVlanRequest(3, 100),
      '07000000 03000000 00000000 00000000 0c001a80 08000200 06006400',
    ],
    [
      'bridge vlan add dev v0 vid 5; bridge vlan add dev v0 vid 200-210',
      addTrunkVlansRequest(3, [
        { first: 5, last: 5 },
        { first: 200, last: 210 },
      ]),
      `07000000 03000000 00000000 00000000
       1c001a80 08000200 00000500 08000200 0800c800 08000200 1000d200`,
    ],
    [
      'bridge vlan del dev v0 vid 1',
      deleteVlanRequest(3, 1),
      '07000000 03000000 00000000 00000000 0c001a80 08000200 00000100',
    ],
    [
      'ip link add br0 address 02:… type bridge vlan_filtering 1',
      bridgeRequest({ name: 'br0', mac: '02:00:00:00:00:09', vlanFiltering: true }),
      `${newDevice} 08000300 62723000 0a000100 020000000009 0000
       1c001280 0b000100 6272696467650000 0c000280 05000700 01000000`,
    ],
  ])('%s', (_, request, expected) => {
    const bytes = Buffer.from(concatBytes(request.body)).toString('hex');
    expect(bytes).toBe(expected.replaceAll(/\s/g, ''));
  });
});

describe('what is read back', () => {
  const message = (request: NetlinkRequest): Parameters<typeof parseLink>[0] => ({
    type: RTM_NEWLINK,
    flags: 0,
    sequence: 0,
    body: concatBytes(request.body),
  });
  const device = { name: 'x', masterIndex: 3, netnsFd: 9 };

  it('is the mode of a macvlan or ipvlan, and its master', () => {
    expect(parseLink(message(createMacvlanRequest({ ...device, mode: 'passthru' })))).toMatchObject(
      [{ kind: 'macvlan', mode: 8, peerIndex: 3 }],
    );
    expect(parseLink(message(createIpvlanRequest({ ...device, mode: 'l3s' })))).toMatchObject([
      { kind: 'ipvlan', mode: 2, peerIndex: 3 },
    ]);
  });

  it('is whether a bridge filters VLANs', () => {
    const bridge = { name: 'br0', mac: '02:00:00:00:00:09' };
    const read = (vlanFiltering: boolean): unknown =>
      parseLink(message(bridgeRequest({ ...bridge, vlanFiltering })))[0]?.vlanFiltering;
    expect([read(true), read(false)]).toEqual([true, false]);
  });

  it('is every VLAN of the port that was asked for', () => {
    const ranges = [
      { first: 5, last: 5 },
      { first: 7, last: 7 },
    ];
    const trunk = message(addTrunkVlansRequest(3, ranges));
    expect(parsePortVlans(trunk, 3)).toEqual([
      { id: 5, pvid: false, untagged: false },
      { id: 7, pvid: false, untagged: false },
    ]);
    expect(parsePortVlans(trunk, 4)).toEqual([]);
    expect(parsePortVlans(message(addAccessVlanRequest(3, 9)), 3)).toEqual([
      { id: 9, pvid: true, untagged: true },
    ]);
    expect(parsePortVlans(message(createIpvlanRequest({ ...device, mode: 'l2' })), 0)).toEqual([]);
  });
});
