import { describe, expect, test } from 'vitest';
import { formatAddress, parseAddress } from '#pkg/ip/address.ts';
import { formatPrefix, parsePrefix } from '#pkg/ip/prefix.ts';
import { concatBytes } from './attribute.ts';
import { parseWireguard, putWireguardPeerRequest } from './wireguard.ts';

const peer = {
  publicKey: new Uint8Array(32).fill(0xaa),
  endpoint: { address: parseAddress('192.0.2.7'), port: 51_820 },
  allowedIPs: ['10.244.2.0/24', 'fd00:10:244:2::/64'].map(parsePrefix),
  keepaliveSeconds: 25,
  presharedKey: undefined,
};

describe('putWireguardPeerRequest()', () => {
  test('is the message the kernel’s header asks for, nests flagged as such', () => {
    const { body, type } = putWireguardPeerRequest(31, 'wg0', peer);
    const hex = Buffer.from(concatBytes(body)).toString('hex');
    const expected = [
      '01010000', // WG_CMD_SET_DEVICE, version 1
      '08000200 77673000', // IFNAME "wg0"
      'bc000880', // PEERS, nested
      'b8000080', // the peer, nested
      `24000100 ${'aa'.repeat(32)}`, // PUBLIC_KEY
      '08000300 02000000', // FLAGS: REPLACE_ALLOWEDIPS
      `24000200 ${'00'.repeat(32)}`, // PRESHARED_KEY: none
      '06000500 19000000', // PERSISTENT_KEEPALIVE_INTERVAL 25
      '14000400 0200ca6cc00002070000000000000000', // ENDPOINT, sockaddr_in
      '48000980', // ALLOWEDIPS, nested
      '1c000080', // 10.244.2.0/24
      '06000100 02000000',
      '08000200 0af40200',
      '05000300 18000000',
      '28000080', // fd00:10:244:2::/64
      '06000100 0a000000',
      '14000200 fd000010024400020000000000000000',
      '05000300 40000000',
    ];
    expect(hex).toBe(expected.join('').replaceAll(' ', ''));
    expect(type).toBe(31);
  });
});

describe('parseWireguard()', () => {
  test('a peer that goes on in the next message is one peer', () => {
    const message = (allowed: string): Parameters<typeof parseWireguard>[0][number] => {
      const entry = { ...peer, allowedIPs: [parsePrefix(allowed)] };
      const { body } = putWireguardPeerRequest(31, 'wg0', entry);
      return { type: 31, flags: 0, sequence: 1, body: concatBytes(body) };
    };
    const { peers } = parseWireguard([message('10.244.2.0/24'), message('10.244.3.0/24')]);
    expect(peers).toHaveLength(1);
    const [only] = peers;
    expect(only?.allowedIPs.map(formatPrefix)).toEqual(['10.244.2.0/24', '10.244.3.0/24']);
    expect(only?.endpoint && formatAddress(only.endpoint.address)).toBe('192.0.2.7');
    expect(only).toMatchObject({ keepaliveSeconds: 25, presharedKey: undefined });
  });
});
