import { describe, expect, test } from 'vitest';
import { parseAddress } from '#pkg/ip/address.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import type { HostObject, WireguardPeer } from './object.ts';
import { planHostNetwork } from './plan.ts';
import { RoamedPeers } from './roamed-peers.ts';
import { describeStep } from './step.ts';

const device: HostObject = {
  kind: 'wireguard',
  link: 'podwire-wg',
  mtuBytes: 1420,
  port: 51_820,
  publicKey: 'own',
};

/** A peer at 192.0.2.N, or at another port of it: what a NAT makes of it. */
function peer(
  n: number,
  port = 51_820,
  state: Pick<WireguardPeer, 'live' | 'moved'> = {},
): WireguardPeer {
  return {
    kind: 'wireguard-peer',
    link: 'podwire-wg',
    publicKey: 'key',
    endpoint: { address: parseAddress(`192.0.2.${n}`), port },
    allowedIPs: [parsePrefix('10.244.2.0/24')],
    keepaliveSeconds: 25,
    presharedKey: undefined,
    ...state,
  };
}

const live = { live: true } as const;

function steps(peers: RoamedPeers, want: WireguardPeer, have: WireguardPeer): readonly string[] {
  const wanted = [device, want];
  return planHostNetwork(wanted, peers.accept(wanted, [device, have])).map(describeStep);
}

describe('RoamedPeers', () => {
  /** Told that the peer is at 192.0.2.2. */
  const told = (): RoamedPeers => {
    const peers = new RoamedPeers();
    peers.settled([device, peer(2)]);
    return peers;
  };

  test('a peer that is heard from elsewhere stays where the kernel found it', () => {
    expect(steps(told(), peer(2), peer(7, 4711, live))).toEqual([]);
  });

  test('also when it was there before this process', () => {
    expect(steps(new RoamedPeers(), peer(2), peer(7, 4711, live))).toEqual([]);
  });

  test('a node that announces another address is followed, wherever the peer was heard from', () => {
    const put = 'put wireguard peer key on podwire-wg at 192.0.2.3 port 51820 (10.244.2.0/24)';
    for (const there of [peer(2, 51_820, live), peer(7, 4711, live)]) {
      expect(steps(told(), peer(3), there)).toEqual([expect.stringContaining(put)]);
    }
  });

  test('what was written since counts, and what was removed counts no more', () => {
    const peers = told();
    peers.done([{ op: 'put', object: peer(3), replaces: undefined }]);
    expect(steps(peers, peer(3), peer(7, 4711, live))).toEqual([]);
    expect(steps(peers, peer(2), peer(7, 4711, live))).toHaveLength(1);
    peers.done([{ op: 'delete', object: peer(3) }]);
    expect(steps(peers, peer(2), peer(7, 4711, live))).toEqual([]);
  });

  test('without a session the announced address is tried again', () => {
    expect(steps(told(), peer(2), peer(7, 4711))).toHaveLength(1);
    expect(steps(new RoamedPeers(), peer(2), peer(7))).toHaveLength(1);
  });

  test('where somebody has sent it by hand it does not stay, session or not', () => {
    expect(steps(told(), peer(2), peer(7, 4711, { moved: true }))).toHaveLength(1);
  });

  test('all else about a peer is compared as ever', () => {
    const ranges = { ...peer(7, 4711, live), allowedIPs: [parsePrefix('10.0.0.0/8')] };
    expect(steps(told(), peer(2), ranges)).toHaveLength(1);
  });
});
