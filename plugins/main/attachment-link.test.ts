import { describe, expect, it } from 'vitest';
import { parseAddress } from '#pkg/ip/address.ts';
import { addressMac, hostLinkAlias, hostLinkMac, hostLinkName } from './attachment-link.ts';

const id = '3f4e8d7c6b5a'.repeat(5);
const attachment = { containerId: id, ifName: 'eth0' };

describe('hostLinkName()', () => {
  it('fills the 15 bytes the kernel has, and is the same every time and release', () => {
    expect(hostLinkName({ containerId: 'abc', ifName: 'eth0' })).toBe('veth6e602bd7d19');
    expect(hostLinkName(attachment)).toMatch(/^veth[0-9a-f]{11}$/);
  });

  it('differs between containers and between interfaces', () => {
    const names = new Set<string>();
    for (let i = 0; i < 20_000; i++) {
      names.add(hostLinkName({ containerId: `${id}${i}`, ifName: 'eth0' }));
      names.add(hostLinkName({ containerId: `${id}${i}`, ifName: 'net1' }));
    }
    expect(names.size).toBe(40_000);
  });
});

describe('MAC addresses are unicast, of local administration', () => {
  it.each([
    ['10.244.1.2', '0a:58:0a:f4:01:02'],
    ['255.0.0.1', '0a:58:ff:00:00:01'],
    ['fd00::1', expect.stringMatching(/^0a:58(:[0-9a-f]{2}){4}$/)],
  ])('of a pod at %s', (address, mac) => {
    expect(addressMac(parseAddress(address))).toEqual(mac);
  });

  it("of the host's end", () => {
    expect(hostLinkMac(attachment)).toMatch(/^0e(:[0-9a-f]{2}){5}$/);
    expect(hostLinkMac(attachment)).not.toBe(hostLinkMac({ ...attachment, ifName: 'net1' }));
  });
});

describe('hostLinkAlias()', () => {
  it('names network, container and interface', () => {
    expect(hostLinkAlias('pods', { containerId: 'abc', ifName: 'eth0' })).toBe(
      'podwire pods abc eth0',
    );
  });
  it('fits the kernel whatever the ID', () => {
    expect(hostLinkAlias('pods', { containerId: 'x'.repeat(400), ifName: 'eth0' })).toHaveLength(
      255,
    );
  });
});
