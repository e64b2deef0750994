/** The device for Services and its addresses, by a kernel that has such devices. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Family } from '#pkg/ip/address.ts';
import { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { withNetns } from '#pkg/netns/netns.ts';
import { createScratchNetns, type ScratchNetns } from '#pkg/netns/scratch.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import { boundAddresses, changeAddresses } from './ipvs-device.ts';

let netns: ScratchNetns;
let sys: Sys;

/** As a proxy in that namespace would. */
function inside(action: (socket: NetlinkSocket) => readonly string[]): readonly string[] {
  const act = (): readonly string[] => {
    using socket = new NetlinkSocket(sys);
    return action(socket);
  };
  return withNetns(sys, netns.path, act, (error) => {
    throw error;
  });
}

const change = (added: string[], removed: string[]): readonly string[] =>
  inside((socket) => {
    changeAddresses(socket, { added, removed });
    return [];
  });
const bound = (family: Family): readonly string[] =>
  inside((socket) => [...boundAddresses(socket, family)].toSorted());

beforeAll(async () => {
  sys = await openSys();
  netns = await createScratchNetns('pw-device');
});
afterAll(() => netns[Symbol.asyncDispose]());

it('what is so already is no failure', () => {
  change(['10.96.0.1', 'fd00:96::1'], ['10.96.0.9', 'fd00:96::9']);
  change(['10.96.0.1', 'fd00:96::1'], ['10.96.0.9', 'fd00:96::9']);
  expect([...bound('ip'), ...bound('ip6')]).toEqual(['10.96.0.1', 'fd00:96::1']);
});

it('an address that the kernel refuses is one, and the others are there', () => {
  expect(() => change(['fd00:96::2', 'ff0e::1', 'fd00:96::3'], [])).toThrow(
    expect.objectContaining({ errors: [expect.objectContaining({ code: 'EADDRNOTAVAIL' })] }),
  );
  expect(bound('ip6')).toEqual(['fd00:96::1', 'fd00:96::2', 'fd00:96::3']);
});

it('Services have their IPv6 addresses where new devices may have none', async () => {
  await netns.ip('link del kube-ipvs0');
  await netns.exec('sysctl', ['-qw', 'net.ipv6.conf.default.disable_ipv6=1']);
  change(['10.96.0.1', 'fd00:96::1'], []);
  expect([...bound('ip'), ...bound('ip6')]).toEqual(['10.96.0.1', 'fd00:96::1']);
});
