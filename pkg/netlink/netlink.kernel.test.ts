import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parseAddress } from '#pkg/ip/address.ts';
import { defaultPrefix, formatPrefix, parsePrefix } from '#pkg/ip/prefix.ts';
import { openNetns, withNetns } from '#pkg/netns/netns.ts';
import { createScratchNetns, type ScratchNetns } from '#pkg/netns/scratch.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { addAddress, deleteAddress, listAddresses } from './address.ts';
import { changeBridgePort, changeLink, deleteLink } from './link-change.ts';
import { createBridge, createVeth, createVxlan } from './link-create.ts';
import { getLink, listLinks } from './link.ts';
import {
  deleteForwardingRequest,
  deleteNeighborRequest,
  listForwarding,
  listNeighbors,
  putForwardingRequest,
  putNeighborRequest,
} from './neighbor.ts';
import {
  addRouteRequest,
  deleteRouteRequest,
  listRoutes,
  replaceRouteRequest,
  type RouteEntry,
} from './route.ts';
import { NetlinkSocket } from './socket.ts';

const sys = await openSys();
const die = (error: Error): never => {
  throw error;
};

let host: ScratchNetns;
let pod: ScratchNetns;
let socket: NetlinkSocket;
let inPod: NetlinkSocket;

beforeEach(async () => {
  host = await createScratchNetns('pw-nl');
  pod = await createScratchNetns('pw-nl');
  socket = withNetns(sys, host.path, () => new NetlinkSocket(sys), die);
  inPod = withNetns(sys, pod.path, () => new NetlinkSocket(sys), die);
});

afterEach(async () => {
  socket[Symbol.dispose]();
  inPod[Symbol.dispose]();
  await pod[Symbol.asyncDispose]();
  await host[Symbol.asyncDispose]();
});

const bridgeMac = '0a:58:0a:f4:01:01';

describe('createBridge()', () => {
  it('makes it up, with the MAC it keeps when ports join', async () => {
    const bridge = createBridge(socket, {
      name: 'cni0',
      mac: bridgeMac,
      mtuBytes: 1450,
      alias: 'podwire bridge',
    });
    expect(bridge).toMatchObject({
      name: 'cni0',
      kind: 'bridge',
      mac: bridgeMac,
      mtuBytes: 1450,
      up: true,
      alias: 'podwire bridge',
    });
    await host.ip('link add v0 address 02:00:00:00:00:01 type veth peer name v1');
    await host.ip('link set v0 master cni0');
    expect(getLink(socket, 'cni0')?.mac).toBe(bridgeMac);
  });

  it('refuses a taken name in words', () => {
    createBridge(socket, { name: 'cni0', mac: bridgeMac });
    expect(() => createBridge(socket, { name: 'cni0', mac: bridgeMac })).toThrow(
      'Cannot create bridge cni0: file already exists (EEXIST)',
    );
  });
});

describe('createVeth()', () => {
  function create(name: string): ReturnType<typeof createVeth> {
    using netns = openNetns(pod.path);
    const bridge =
      getLink(socket, 'cni0') ?? createBridge(socket, { name: 'cni0', mac: bridgeMac });
    return createVeth(socket, {
      mtuBytes: 1400,
      host: {
        name,
        mac: '0a:58:00:00:00:01',
        masterIndex: bridge.index,
        hairpin: true,
        alias: 'podwire pod',
      },
      peer: { name: 'eth0', mac: '0a:58:0a:f4:01:05', netnsFd: netns.fd },
    });
  }

  it('makes both ends in their namespaces with all they need', () => {
    const link = create('veth1');
    const bridge = getLink(socket, 'cni0');
    expect(link).toMatchObject({
      name: 'veth1',
      kind: 'veth',
      mac: '0a:58:00:00:00:01',
      mtuBytes: 1400,
      up: true,
      masterIndex: bridge?.index,
      hairpin: true,
      alias: 'podwire pod',
    });
    const peer = getLink(inPod, link.peerIndex ?? 0);
    expect(peer).toMatchObject({ name: 'eth0', mac: '0a:58:0a:f4:01:05', mtuBytes: 1400 });
    expect(peer?.peerIndex).toBe(link.index);
    expect(link.peerNetnsId).toBeDefined();
    changeLink(inPod, 'eth0', { up: true });
    expect(getLink(inPod, 'eth0')).toMatchObject({ up: true, running: true });
  });

  it('leaves a link alone whose name it wanted', () => {
    const other = create('veth1');
    changeLink(socket, 'veth1', { alias: 'mine' });
    changeBridgePort(socket, 'veth1', { hairpin: false });
    expect(() => create('veth1')).toThrow(/Cannot create veth veth1 .*EEXIST/);
    const expected = { index: other.index, alias: 'mine', hairpin: false };
    expect(getLink(socket, 'veth1')).toMatchObject(expected);
    createBridge(socket, { name: 'br1', mac: '0a:58:0a:f4:02:01' });
    const bridge = { name: 'br1', mac: '0a:58:0a:f4:02:02', alias: 'podwire' };
    expect(() => createBridge(socket, bridge)).toThrow(/EEXIST/);
    expect(getLink(socket, 'br1')?.alias).toBeUndefined();
  });

  it('leaves nothing behind when the name in the pod is taken', () => {
    create('veth1');
    expect(() => create('veth2')).toThrow(/Cannot create veth veth2 with peer eth0.*EEXIST/);
    expect(getLink(socket, 'veth2')).toBeUndefined();
  });

  it('leaves nothing behind when a later setting fails', () => {
    using netns = openNetns(pod.path);
    expect(() =>
      createVeth(socket, {
        mtuBytes: 1400,
        // Hairpin without a bridge.
        host: { name: 'veth3', hairpin: true },
        peer: { name: 'eth3', netnsFd: netns.fd },
      }),
    ).toThrow(/Cannot change bridge port veth3/);
    expect(getLink(socket, 'veth3')).toBeUndefined();
    expect(getLink(inPod, 'eth3')).toBeUndefined();
  });
});

it('createVxlan() makes what is read back, in both families', () => {
  const underlay = createBridge(socket, { name: 'eth0', mac: bridgeMac });
  for (const local of ['192.0.2.1', '2001:db8::1'].map(parseAddress)) {
    const settings = { vni: 4096, port: 4789, local };
    const link = createVxlan(socket, {
      ...settings,
      name: `vx-${local.family}`,
      underlayIndex: underlay.index,
      mac: '02:00:00:00:00:01',
      mtuBytes: 1300,
      alias: 'podwire vxlan',
    });
    expect(link).toMatchObject({
      up: true,
      mtuBytes: 1300,
      mac: '02:00:00:00:00:01',
      alias: 'podwire vxlan',
      vxlan: { ...settings, learning: false, underlayIndex: underlay.index },
    });
  }
});

describe('links', () => {
  it('change, and are found by name and index', () => {
    const { index } = createBridge(socket, { name: 'br0', mac: bridgeMac });
    changeLink(socket, 'br0', {
      up: false,
      promiscuous: true,
      mac: '02:00:00:00:00:07',
      mtuBytes: 1234,
      alias: 'x',
      txQueueLength: 5,
    });
    expect(getLink(socket, index)).toMatchObject({
      up: false,
      promiscuous: true,
      mac: '02:00:00:00:00:07',
      mtuBytes: 1234,
      alias: 'x',
      txQueueLength: 5,
    });
    expect(listLinks(socket).map(({ name }) => name)).toEqual(['lo', 'br0']);
    expect(deleteLink(socket, 'br0')).toBe(true);
    expect(deleteLink(socket, 'br0')).toBe(false);
    expect(getLink(socket, 'br0')).toBeUndefined();
    expect(() => changeLink(socket, 'br0', { up: true })).toThrow(
      /^Cannot change link br0 \(up true\): no such device \(ENODEV\)/,
    );
  });

  it('join a bridge and leave it; its port settings change', async () => {
    const { index } = createBridge(socket, { name: 'br0', mac: bridgeMac });
    await host.ip('link add v0 type veth peer name v1');
    changeLink(socket, 'v0', { masterIndex: index });
    changeBridgePort(socket, 'v0', { hairpin: true, isolated: true });
    expect(getLink(socket, 'v0')).toMatchObject({ masterIndex: index, hairpin: true });
    expect(await host.ip('-d link show v0')).toMatch(/hairpin on[^]*isolated on/);
    changeBridgePort(socket, 'v0', { hairpin: false });
    expect(getLink(socket, 'v0')).toMatchObject({ hairpin: false });
    changeLink(socket, 'v0', { masterIndex: 0 });
    expect(getLink(socket, 'v0')?.masterIndex).toBeUndefined();
  });
});

describe.each([
  { family: 'ip', own: '10.1.0.5/24', hop: '10.1.0.1', destination: '10.2.0.0/16' },
  { family: 'ip6', own: 'fd00:1::5/64', hop: 'fd00:1::1', destination: 'fd00:2::/48' },
] as const)('in family $family', ({ family, own, hop, destination }) => {
  const gateway = parseAddress(hop);
  const everything = defaultPrefix(family);
  let linkIndex: number;

  beforeEach(async () => {
    await host.ip('link add eth0 type veth peer name wire');
    await host.ip('link set wire up');
    await host.ip('link set eth0 up');
    linkIndex = getLink(socket, 'eth0')?.index ?? 0;
    addAddress(socket, { linkIndex, prefix: parsePrefix(own), noDad: true });
  });

  it('addresses are usable at once, listed and removed', () => {
    const prefix = parsePrefix(own);
    expect(listAddresses(socket, { linkIndex, family })).toContainEqual({
      linkIndex,
      prefix,
      permanent: true,
      tentative: false,
      dadFailed: false,
      secondary: false,
      deprecated: false,
    });
    expect(listAddresses(socket).map(({ prefix: p }) => formatPrefix(p))).toContain('127.0.0.1/8');
    expect(() => addAddress(socket, { linkIndex, prefix })).toThrow(/EEXIST/);
    expect(deleteAddress(socket, { linkIndex, prefix })).toBe(true);
    expect(deleteAddress(socket, { linkIndex, prefix })).toBe(false);
  });

  it('routes are added, replaced, listed by protocol and deleted', async () => {
    const route: RouteEntry = { destination: parsePrefix(destination), gateway, protocol: 196 };
    socket.request(addRouteRequest(route));
    expect(() => socket.request(addRouteRequest(route))).toThrow(
      /Cannot add route .* via .*EEXIST/,
    );
    const better = { ...route, linkIndex, mtuBytes: 1300, advertisedMssBytes: 1200 };
    socket.request(replaceRouteRequest(better));
    socket.request(addRouteRequest({ destination: everything, gateway, metric: 77 }));
    expect(listRoutes(socket, { family, protocol: 196 })).toEqual([
      { ...better, table: 254, scope: 0, onLink: false },
    ]);
    expect(listRoutes(socket, { family })).toContainEqual(
      expect.objectContaining({ destination: everything, metric: 77, gateway }),
    );
    expect(await host.ip(`${family === 'ip' ? '-4' : '-6'} route show default`)).toContain(
      'metric 77',
    );
    socket.request(deleteRouteRequest(route));
    expect(() => socket.request(deleteRouteRequest(route))).toThrow('ESRCH');
  });

  it('routes go on the link itself, by a gateway outside, from a source, in a table', () => {
    const at = { linkIndex, protocol: 196, table: 1000 };
    const onLink = { ...at, destination: parsePrefix(destination), scope: 253, onLink: false };
    const outside = parseAddress(family === 'ip' ? '198.51.100.1' : 'fd00:99::1');
    const byOutside = { ...at, destination: everything, gateway: outside };
    socket.request(addRouteRequest(onLink));
    socket.request(
      addRouteRequest({ ...byOutside, onLink: true, source: parsePrefix(own).address }),
    );
    expect(listRoutes(socket, { family, protocol: 196 })).toEqual([]);
    const listed = listRoutes(socket, { family, protocol: 196, table: 1000 });
    expect(listed).toContainEqual({ ...onLink, scope: family === 'ip' ? 253 : 0 });
    expect(listed).toContainEqual({
      ...byOutside,
      onLink: true,
      scope: 0,
      source: parsePrefix(own).address,
    });
  });

  it('of routes that differ in the metric, the one that is meant is deleted', () => {
    const route: RouteEntry = { destination: parsePrefix(destination), gateway, protocol: 196 };
    socket.request(addRouteRequest({ ...route, metric: 2000 }));
    socket.request(addRouteRequest(route));
    if (family === 'ip6') socket.request(addRouteRequest({ ...route, metric: 5 }));
    socket.request(deleteRouteRequest(route));
    const left = listRoutes(socket, { family, protocol: 196 }).map(({ metric }) => metric);
    expect(left).toEqual(family === 'ip6' ? [5, 2000] : [2000]);
  });

  it('a route with several next hops is listed once for each', async () => {
    const other = family === 'ip' ? '10.1.0.2' : 'fd00:1::2';
    await host.ip(`route add ${destination} proto 196 nexthop via ${hop} nexthop via ${other}`);
    const listed = listRoutes(socket, { family, protocol: 196 });
    expect(listed.map((route) => route.gateway)).toEqual([gateway, parseAddress(other)]);
    expect(listed.map((route) => route.linkIndex)).toEqual([linkIndex, linkIndex]);
  });

  it('neighbours are set whatever was known before', async () => {
    const entry = { linkIndex, address: gateway };
    socket.request(putNeighborRequest({ ...entry, mac: '02:00:00:00:00:01' }));
    socket.request(putNeighborRequest({ ...entry, mac: '02:00:00:00:00:02' }));
    await host.ip('link add other type veth peer name other2');
    await host.ip('link set other up');
    const otherIndex = getLink(socket, 'other')?.index ?? 0;
    socket.request(
      putNeighborRequest({ linkIndex: otherIndex, address: gateway, mac: '02:00:00:00:00:03' }),
    );
    const known = listNeighbors(socket, { family, linkIndex }).filter((n) => n.permanent);
    expect(known).toEqual([{ ...entry, mac: '02:00:00:00:00:02', permanent: true }]);
    expect(listNeighbors(socket, { family }).filter((n) => n.permanent)).toHaveLength(2);
    socket.request(deleteNeighborRequest(entry));
    expect(() => socket.request(deleteNeighborRequest(entry))).toThrow('ENOENT');
  });

  it('forwarding entries send a MAC to one remote, which changes in place', () => {
    const vxlan = createVxlan(socket, {
      name: 'vx',
      vni: 1,
      port: 8472,
      local: parsePrefix(own).address,
      underlayIndex: linkIndex,
      mac: '02:00:00:00:00:01',
      mtuBytes: 1300,
    });
    const entry = { linkIndex: vxlan.index, mac: '02:00:00:00:00:02' };
    socket.request(putForwardingRequest({ ...entry, remote: gateway }));
    const remote = parseAddress(family === 'ip' ? '192.0.2.9' : '2001:db8::9');
    socket.request(putForwardingRequest({ ...entry, remote }));
    const found = { ...entry, remote, permanent: true, special: false };
    expect(listForwarding(socket, vxlan.index)).toEqual([found]);
    socket.request(deleteForwardingRequest({ ...entry, remote }));
    expect(() => socket.request(deleteForwardingRequest({ ...entry, remote }))).toThrow('ENOENT');
  });

  it('thousands of routes go out in batches, and refusals stay with their request', () => {
    const routes = Array.from({ length: 3000 }, (_element, i) =>
      addRouteRequest({
        destination: parsePrefix(
          family === 'ip' ? `172.16.${i >> 8}.${i & 255}/32` : `fd00:3::${i.toString(16)}/128`,
        ),
        gateway:
          i === 2000 ? parseAddress(family === 'ip' ? '203.0.113.9' : 'fd00:98::1') : gateway,
        protocol: 196,
      }),
    );
    const results = socket.batch(routes);
    const refused = results.flatMap(({ error }, i) => (error === undefined ? [] : [i]));
    expect(refused).toEqual([2000]);
    expect(results[2000]?.error?.message).toMatch(/gateway|unreachable/i);
    expect(listRoutes(socket, { family, protocol: 196 })).toHaveLength(2999);
    expect(socket.batch(routes).filter(({ error }) => error?.code === 'EEXIST')).toHaveLength(2999);
  });
});
