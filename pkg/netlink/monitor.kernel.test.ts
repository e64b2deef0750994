import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { createScratchNetns, type ScratchNetns } from '#pkg/netns/scratch.ts';
import { withNetns } from '#pkg/netns/netns.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { createBridge } from './link-create.ts';
import { watchKernel, type KernelChange, type KernelGroup, type KernelWatch } from './monitor.ts';
import { changeLinkRequest } from './link-change.ts';
import {
  deleteForwardingRequest,
  deleteNeighborRequest,
  putForwardingRequest,
  putNeighborRequest,
} from './neighbor.ts';
import { addRouteRequest, deleteRouteRequest, replaceRouteRequest } from './route.ts';
import { NetlinkSocket } from './socket.ts';

const sys = await openSys();
const die = (error: Error): never => {
  throw error;
};

let scratch: ScratchNetns;

beforeEach(async () => {
  scratch = await createScratchNetns('pw-mon');
});

afterEach(async () => {
  await scratch[Symbol.asyncDispose]();
});

/** Watches the scratch namespace; `seen` grows as changes come. */
function watch(
  groups: readonly KernelGroup[],
  exceptPortId?: number,
): KernelWatch & { readonly seen: KernelChange[] } {
  const seen: KernelChange[] = [];
  const watcher = withNetns(
    sys,
    scratch.path,
    () => watchKernel(sys, groups, (change) => seen.push(change), exceptPortId),
    die,
  );
  return { ...watcher, seen };
}

async function until(condition: () => boolean): Promise<void> {
  await expect.poll(condition).toBe(true);
}

it('watchKernel() reports what others change, by kind, link and protocol', async () => {
  using watcher = watch(['link', 'address', 'route', 'neighbor']);
  await scratch.ip('link add br0 type bridge');
  await scratch.ip('link set br0 up');
  await scratch.ip('addr add 10.1.0.1/24 dev br0');
  await scratch.ip('route add 10.2.0.0/16 via 10.1.0.2 proto 196');
  await scratch.ip('route change 10.2.0.0/16 via 10.1.0.3 proto 17');
  await scratch.ip('route change 10.2.0.0/16 via 10.1.0.2 proto 196');
  await scratch.ip('neigh add 10.1.0.2 lladdr 02:00:00:00:00:02 dev br0 nud permanent');
  await scratch.ip('neigh del 10.1.0.2 dev br0');
  await scratch.ip('route del 10.2.0.0/16');
  await scratch.ip('route add default via 10.1.0.2');
  await scratch.ip('route add 10.3.0.0/16 dev br0');
  await scratch.ip('route add 10.4.0.0/16 nexthop via 10.1.0.2 nexthop via 10.1.0.3');
  await scratch.ip('addr del 10.1.0.1/24 dev br0');
  await scratch.ip('link del br0');
  const change = { deleted: false, linkIndex: 2 };
  const { address } = parsePrefix('10.1.0.1/24');
  const destination = parsePrefix('10.2.0.0/16');
  await expect
    .poll(() => watcher.seen)
    .toEqual(
      expect.arrayContaining([
        { ...change, kind: 'link', linkName: 'br0' },
        { ...change, kind: 'address', address },
        { ...change, kind: 'route', protocol: 196, destination, gateway: true },
        { ...change, kind: 'route', protocol: 17, destination, gateway: true },
        { ...change, kind: 'neighbor' },
        { ...change, kind: 'neighbor', deleted: true },
        { ...change, kind: 'route', protocol: 196, destination, gateway: true, deleted: true },
        {
          ...change,
          kind: 'route',
          protocol: 3,
          destination: parsePrefix('0.0.0.0/0'),
          gateway: true,
        },
        { ...change, kind: 'route', protocol: 3, destination: parsePrefix('10.3.0.0/16') },
        {
          kind: 'route',
          deleted: false,
          linkIndex: undefined,
          protocol: 3,
          destination: parsePrefix('10.4.0.0/16'),
          gateway: true,
        },
        { ...change, kind: 'address', address, deleted: true },
        { ...change, kind: 'link', linkName: 'br0', deleted: true },
      ]),
    );
});

it('watchKernel() reports a change 200 ms later at the latest', () => {
  vi.useFakeTimers({ toFake: ['setTimeout'] });
  try {
    using watcher = watch(['link']);
    using socket = withNetns(sys, scratch.path, () => new NetlinkSocket(sys), die);
    for (const name of ['br0', 'br1']) {
      watcher.seen.length = 0;
      createBridge(socket, { name, mac: '02:00:00:00:00:01' });
      expect(watcher.seen).toEqual([]);
      vi.advanceTimersByTime(200);
      expect(watcher.seen).toContainEqual(expect.objectContaining({ linkName: name }));
    }
  } finally {
    vi.useRealTimers();
  }
});

it('watchKernel() tells when the host starts or stops forwarding, and not of each new link', async () => {
  using watcher = watch(['forwarding']);
  await scratch.ip('link add br0 type bridge');
  for (const path of ['net.ipv4.ip_forward', 'net.ipv6.conf.all.forwarding']) {
    const before = Number((await scratch.exec('sysctl', ['-n', path])).stdout);
    watcher.seen.length = 0;
    await scratch.exec('sysctl', ['-qw', `${path}=${1 - before}`]);
    await until(() => watcher.seen.length > 0);
    expect(watcher.seen).toEqual([{ kind: 'forwarding', deleted: false, linkIndex: undefined }]);
  }
});

it('156. watchKernel() asks for a resync after an overflow, and goes on', async () => {
  using watcher = watch(['link', 'route']);
  using socket = withNetns(sys, scratch.path, () => new NetlinkSocket(sys), die);
  const linkIndex = createBridge(socket, { name: 'br0', mac: '02:00:00:00:00:01' }).index;
  // No event is read while this runs: it is one synchronous stretch.
  const route = { destination: parsePrefix('10.2.0.0/16'), linkIndex };
  const pair = [addRouteRequest(route), deleteRouteRequest(route)];
  socket.batch(Array.from({ length: 20_000 }, () => pair).flat());
  await until(() => watcher.seen.some(({ kind }) => kind === 'resync'));
  watcher.seen.length = 0;
  await scratch.ip('link add br1 type bridge');
  await until(() => watcher.seen.some((c) => c.kind === 'link' && c.linkIndex === 3));
});

it('watchKernel() leaves out routes and neighbours that one socket asked for, and nothing else', async () => {
  using socket = withNetns(sys, scratch.path, () => new NetlinkSocket(sys), die);
  using watcher = watch(['link', 'address', 'route', 'neighbor'], socket.portId);
  using all = watch(['link', 'address', 'route', 'neighbor']);
  await scratch.batch([
    'link add vx0 address 02:00:00:00:00:01 up type vxlan id 1 dstport 8472 local 127.0.0.1 nolearning',
    'addr add 10.1.0.1/24 dev vx0',
  ]);
  const linkIndex = 2;
  const { address: gateway } = parsePrefix('10.1.0.2/24');
  const neighbor = { linkIndex, address: gateway, mac: '02:00:00:00:00:02' };
  const entry = {
    linkIndex,
    mac: '02:00:00:00:00:02',
    remote: parsePrefix('192.0.2.1/32').address,
  };
  const route = { destination: parsePrefix('10.2.0.0/16'), gateway, linkIndex, protocol: 196 };
  const six = { destination: parsePrefix('fd00:2::/64'), linkIndex, protocol: 196 };
  const requests = [
    putNeighborRequest(neighbor),
    addRouteRequest(route),
    replaceRouteRequest({ ...route, protocol: 197 }),
    addRouteRequest(six),
    deleteRouteRequest(six),
    deleteRouteRequest({ ...route, protocol: 197 }),
    deleteNeighborRequest(neighbor),
    putForwardingRequest(entry),
    changeLinkRequest('vx0', { mtuBytes: 1400 }),
  ];
  all.seen.length = 0;
  watcher.seen.length = 0;
  for (const { error } of socket.batch(requests)) expect(error).toBeUndefined();
  await scratch.batch([
    'route add 10.3.0.0/16 via 10.1.0.2 proto 196',
    'neigh add 10.1.0.3 lladdr 02:00:00:00:00:03 dev vx0 nud permanent',
    'link set vx0 down',
  ]);
  const isEnd = (change: KernelChange): boolean => change.kind === 'link' && change.deleted;
  await scratch.ip('link del vx0');
  await until(() => all.seen.some(isEnd) && watcher.seen.some(isEnd));
  const routes = (seen: readonly KernelChange[]): readonly KernelChange[] =>
    seen.filter((change) => change.kind === 'route' && (change.protocol ?? 0) >= 196);
  // Five are ours; the other's comes after them.
  expect(routes(all.seen).length).toBeGreaterThan(5);
  expect(routes(watcher.seen)).toEqual(routes(all.seen).slice(5));
  const count = (seen: readonly KernelChange[], kind: string): number =>
    seen.filter((change) => change.kind === kind).length;
  // That it was put, and that it failed; its end has no sender.
  expect(count(watcher.seen, 'neighbor')).toBe(count(all.seen, 'neighbor') - 2);
  expect(count(watcher.seen, 'link')).toBe(count(all.seen, 'link'));
  expect(count(watcher.seen, 'address')).toBe(count(all.seen, 'address'));
});

it('watchKernel() hears of no new forwarding entries while they are written, and of all else', async () => {
  using socket = withNetns(sys, scratch.path, () => new NetlinkSocket(sys), die);
  using watcher = watch(['link', 'neighbor'], socket.portId);
  await scratch.batch([
    'link add vx0 address 02:00:00:00:00:01 up type vxlan id 1 dstport 8472 local 127.0.0.1 nolearning',
  ]);
  const linkIndex = 2;
  const entry = (n: number) => ({
    linkIndex,
    mac: `02:00:00:00:00:0${n}`,
    remote: parsePrefix('192.0.2.1/32').address,
  });
  const put = (n: number): void => void socket.request(putForwardingRequest(entry(n)));
  watcher.look();
  watcher.seen.length = 0;
  put(2);
  watcher.withoutForwarding(() => {
    put(3);
    socket.request(
      putForwardingRequest({ ...entry(2), remote: parsePrefix('192.0.2.9/32').address }),
    );
    socket.request(deleteForwardingRequest(entry(3)));
    socket.request(changeLinkRequest('vx0', { mtuBytes: 1400 }));
  });
  expect(() =>
    watcher.withoutForwarding(() => {
      throw new Error('refused');
    }),
  ).toThrow('refused');
  put(4);
  watcher.look();
  const seen = watcher.seen.map((one) => ('deleted' in one ? [one.kind, one.deleted] : one));
  expect(seen).toEqual([
    ['neighbor', false],
    ['neighbor', true],
    ['link', false],
    ['neighbor', false],
  ]);
});

it('watchKernel() is silent once disposed', async () => {
  const watcher = watch(['link']);
  await scratch.ip('link add br0 type bridge');
  await until(() => watcher.seen.length > 0);
  watcher[Symbol.dispose]();
  watcher[Symbol.dispose]();
  const before = watcher.seen.length;
  using other = watch(['link']);
  await scratch.ip('link add br1 type bridge');
  await until(() => other.seen.length > 0);
  expect(watcher.seen).toHaveLength(before);
});
