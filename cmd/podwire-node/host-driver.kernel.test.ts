import { afterEach, beforeEach, expect, test } from 'vitest';
import { formatPrefix } from '#pkg/ip/prefix.ts';
import { AF_INET6 } from '#pkg/netlink/constants.ts';
import { getLink } from '#pkg/netlink/link.ts';
import { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { withNetns } from '#pkg/netns/netns.ts';
import { createScratchNetns, type ScratchNetns } from '#pkg/netns/scratch.ts';
import { forwardingSysctls } from '#pkg/pod-network/sysctls.ts';
import { SOCK_RAW } from '#pkg/sys/constants.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { writeSysctl } from '#pkg/sysctl/sysctl.ts';
import { createHostDriver } from './host-driver.ts';

const sys = await openSys();
let host: ScratchNetns;
let router: ScratchNetns;

beforeEach(async () => {
  host = await createScratchNetns('pw-ra-host');
  router = await createScratchNetns('pw-ra-router');
  await host.ip(`link add wan type veth peer name lan netns ${router.name}`);
  await host.ip('link set wan up');
  await router.ip('link set lan addrgenmode none');
  await router.ip('link set lan up');
  await router.ip('addr add fe80::1/64 dev lan nodad');
});
afterEach(async () => {
  await host[Symbol.asyncDispose]();
  await router[Symbol.asyncDispose]();
});

/** A router advertisement (RFC 4861 §4.2) of a default route for half an hour. */
function advertise(): void {
  const [IPPROTO_ICMPV6, IPPROTO_IPV6, IPV6_MULTICAST_HOPS] = [58, 41, 18];
  inside(router, () => {
    using netlink = new NetlinkSocket(sys);
    const fd = sys.socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6);
    try {
      const value = new Uint8Array(Int32Array.of(255).buffer);
      sys.setsockopt({ fd, level: IPPROTO_IPV6, name: IPV6_MULTICAST_HOPS, value });
      // struct sockaddr_in6 { u16 family; u16 port; u32 flow; u8 address[16]; u32 scope; }: ff02::1
      const address = new Uint8Array(28);
      new Uint16Array(address.buffer, 0, 1)[0] = AF_INET6;
      address.set([0xff, 2], 8);
      address[23] = 1;
      new Uint32Array(address.buffer, 24, 1)[0] = getLink(netlink, 'lan')?.index ?? 0;
      sys.connect(fd, address);
      sys.send(fd, Uint8Array.of(134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0), 0);
    } finally {
      sys.close(fd);
    }
  });
}

function inside(netns: ScratchNetns, work: () => undefined): void {
  withNetns(sys, netns.path, work, (error) => {
    throw error;
  });
}

function defaultRoute(): Promise<string> {
  return host.ip('-6 route show default');
}

test('a host that forwards keeps the default route it was advertised on any link', async () => {
  await expect.poll(() => (advertise(), defaultRoute())).toContain('via fe80::1 dev wan proto ra');
  inside(host, () => {
    using netlink = new NetlinkSocket(sys);
    const { advertisedLinks, acceptRa } = createHostDriver(netlink).facts();
    expect(advertisedLinks).toEqual(['wan']);
    const advertised = advertisedLinks.map((link) => ({ link, acceptRa: acceptRa(link) }));
    for (const { path, value } of forwardingSysctls(['ip6'], advertised)) {
      if (path.startsWith('net/ipv6/')) writeSysctl(path, value);
    }
  });
  expect(await defaultRoute()).toContain('via fe80::1 dev wan proto ra');
});

test('a longer prefix with a gateway is told beside the one on the link', async () => {
  await host.ip('addr add 10.0.0.1/8 dev wan');
  await host.ip('route add 10.1.0.0/16 via 10.0.0.254');
  await host.ip('route add 10.244.2.0/24 via 10.0.0.2 proto 220');
  inside(host, () => {
    using netlink = new NetlinkSocket(sys);
    const wan = createHostDriver(netlink)
      .facts()
      .links.find(({ name }) => name === 'wan');
    expect(wan?.onLinkPrefixes.map(formatPrefix)).toContain('10.0.0.0/8');
    expect(wan?.routedPrefixes?.map(formatPrefix)).toEqual(['10.1.0.0/16']);
  });
});

test('an IPv4 prefix behind a router with an IPv6 address is not on the link', async () => {
  // As in fabrics whose links have no IPv4 addresses (RFC 8950).
  await host.ip('addr add 10.0.0.1/8 dev wan noprefixroute');
  await host.ip('route add 10.0.0.0/8 via inet6 fe80::1 dev wan');
  await host.ip('route add 10.1.0.0/16 dev wan');
  await host.ip(
    'route add 10.1.2.0/24 nexthop via inet6 fe80::1 dev wan nexthop via inet6 fe80::2 dev wan',
  );
  inside(host, () => {
    using netlink = new NetlinkSocket(sys);
    const { links } = createHostDriver(netlink).facts();
    const wan = links.find(({ name }) => name === 'wan');
    const of4 = wan?.onLinkPrefixes.filter(({ address }) => address.family === 'ip');
    expect(of4?.map(formatPrefix)).toEqual(['10.1.0.0/16']);
    expect(new Set(wan?.routedPrefixes?.map(formatPrefix))).toEqual(new Set(['10.1.2.0/24']));
  });
});

test('addresses that last are told before those that do not, however new they are', async () => {
  await host.ip('addr add 10.0.0.1/24 dev wan');
  await host.ip('addr add 10.0.0.9/24 dev wan');
  await host.ip('addr add 10.7.0.1/24 dev wan');
  await host.ip('addr add fd00::1/64 dev wan nodad');
  await host.ip('addr add fd00::2/64 dev wan nodad preferred_lft 0 valid_lft 600');
  expect(await host.ip('-6 addr show dev wan scope global')).toMatch(/fd00::2[^]*fd00::1/);
  inside(host, () => {
    using netlink = new NetlinkSocket(sys);
    const { links } = createHostDriver(netlink).facts();
    const wan = links.find(({ name }) => name === 'wan')?.addresses.map(formatPrefix);
    expect(wan?.filter((text) => !text.startsWith('fe80:'))).toEqual([
      '10.0.0.1/24',
      '10.7.0.1/24',
      'fd00::1/64',
      '10.0.0.9/24',
      'fd00::2/64',
    ]);
  });
});

test('default routes are told IPv4’s first, then by their metrics', async () => {
  await host.ip('link add other type veth peer name end');
  await host.ip('link set other up');
  await host.ip('link set end up');
  await host.ip('addr add 10.0.0.1/8 dev wan');
  await host.ip('addr add 10.64.0.1/24 dev other');
  await host.ip('route add default via 10.64.0.2 metric 200');
  await host.ip('route add default via 10.0.0.254 metric 100');
  // The kernel's own metric, which is a larger number.
  await host.ip('-6 route add default via fe80::1 dev other');
  inside(host, () => {
    using netlink = new NetlinkSocket(sys);
    expect(createHostDriver(netlink).facts().defaultLinks).toEqual(['wan', 'other', 'other']);
  });
});
