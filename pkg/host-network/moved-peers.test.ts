import { describe, expect, test } from 'vitest';
import { parseAddress } from '#pkg/ip/address.ts';
import { MovedPeers } from './moved-peers.ts';
import type { WireguardPeer } from './object.ts';

const peer: WireguardPeer = {
  kind: 'wireguard-peer',
  link: 'podwire-wg',
  publicKey: 'key',
  endpoint: { address: parseAddress('192.0.2.2'), port: 51_820 },
  allowedIPs: [],
  keepaliveSeconds: 0,
  presharedKey: undefined,
};

type Look = readonly [host: number, receivedBytes: number, sentBytes: number];

function look(peers: MovedPeers, [host, receivedBytes, sentBytes]: Look): boolean {
  const endpoint = { address: parseAddress(`192.0.2.${host}`), port: 51_820 };
  peers.look('podwire-wg', [{ publicKey: 'key', endpoint, receivedBytes, sentBytes }]);
  return peers.has(peer);
}

describe('MovedPeers', () => {
  test.each<[string, readonly Look[], readonly boolean[]]>([
    [
      'nothing happens',
      [
        [2, 100, 100],
        [2, 100, 100],
      ],
      [false, false],
    ],
    [
      'it is sent to, and answers',
      [
        [2, 100, 100],
        [2, 200, 200],
      ],
      [false, false],
    ],
    [
      'it is sent to, and says nothing',
      [
        [2, 100, 100],
        [2, 100, 200],
      ],
      [false, false],
    ],
    // Behind a NAT.
    [
      'it is heard from elsewhere',
      [
        [2, 100, 100],
        [7, 200, 200],
        [7, 300, 300],
      ],
      [false, false, false],
    ],
    [
      'it is heard from elsewhere, and no more',
      [
        [2, 100, 100],
        [7, 200, 200],
        [7, 200, 200],
      ],
      [false, false, false],
    ],
    [
      'somebody moves it, and nobody sends',
      [
        [2, 100, 100],
        [9, 100, 100],
        [9, 100, 100],
      ],
      [false, true, true],
    ],
    [
      'somebody moves it while it is sent to',
      [
        [2, 100, 100],
        [9, 200, 200],
        [9, 200, 300],
      ],
      [false, false, true],
    ],
    [
      'it is heard again from where it is',
      [
        [2, 100, 100],
        [9, 100, 100],
        [2, 200, 200],
        [2, 300, 300],
      ],
      [false, true, false, false],
    ],
    [
      'an old doubt is none',
      [
        [2, 100, 100],
        [7, 200, 200],
        [7, 200, 200],
        [7, 200, 300],
      ],
      [false, false, false, false],
    ],
  ])('%s', (_, looks, expected) => {
    const peers = new MovedPeers();
    expect(looks.map((one) => look(peers, one))).toEqual(expected);
  });

  test('what we move is not moved by somebody', () => {
    const peers = new MovedPeers();
    expect(look(peers, [2, 100, 100])).toBe(false);
    expect(look(peers, [9, 100, 100])).toBe(true);
    peers.told(peer);
    expect(peers.has(peer)).toBe(false);
    expect(look(peers, [2, 100, 100])).toBe(false);
  });

  test('a peer that went and came is a new one', () => {
    const peers = new MovedPeers();
    expect(look(peers, [2, 100, 100])).toBe(false);
    peers.look('podwire-wg', []);
    expect(look(peers, [9, 100, 100])).toBe(false);
  });
});
