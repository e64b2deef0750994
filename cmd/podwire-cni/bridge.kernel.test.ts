import { existsSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';
import { eachOnScratchNode } from './scratch-each.ts';
import {
  goPluginDir,
  reaches,
  showLink,
  type CniDocument,
  type CniOutcome,
  type ScratchNode,
} from './scratch-node.ts';

let node: ScratchNode;
let pod: ScratchNetns;
eachOnScratchNode(async (fresh) => {
  node = fresh;
  pod = await node.pod();
});

const subnets = {
  v4: ['10.1.2.0/24'],
  v6: ['fd00:1::/64'],
  dual: ['10.1.2.0/24', 'fd00:1::/64'],
};

function config(more: object = {}, ranges = subnets.v4): object {
  return {
    cniVersion: '1.1.0',
    name: 'net',
    type: 'bridge',
    isDefaultGateway: true,
    ipam: {
      type: 'host-local',
      dataDir: node.dataDir,
      ranges: ranges.map((subnet) => [{ subnet }]),
    },
    ...more,
  };
}

interface Ask {
  readonly id?: string;
  readonly pod?: ScratchNetns;
  readonly more?: object;
  readonly ranges?: string[];
  readonly args?: string;
  readonly command?: string;
}

function call({
  id = 'pod-1',
  more = {},
  ranges,
  args = '',
  command = 'ADD',
  ...rest
}: Ask = {}): Promise<CniOutcome> {
  const netns = (rest.pod ?? pod).path;
  return node.cni('bridge', { command, id, netns, args, config: config(more, ranges) });
}

/** As a runtime: an ADD that must work. */
async function add(ask: Ask = {}): Promise<CniDocument> {
  const { exitCode, json, stderr } = await call(ask);
  expect({ exitCode, json, stderr }).toMatchObject({ exitCode: 0, stderr: '' });
  return json;
}

async function del(ask: Ask = {}): Promise<void> {
  expect(await call({ ...ask, command: 'DEL' })).toEqual({
    exitCode: 0,
    json: undefined,
    stderr: '',
  });
}

describe('ADD', () => {
  it.each([
    ['IPv4', subnets.v4, ['10.1.2.1'], ['10.1.2.3']],
    ['IPv6', subnets.v6, ['fd00:1::1'], ['fd00:1::3']],
    ['both', subnets.dual, ['10.1.2.1', 'fd00:1::1'], ['10.1.2.3', 'fd00:1::3']],
  ])(
    '46. %s: a pod reaches its gateway and its neighbour at once',
    async (_, ranges, gateways, others) => {
      const other = await node.pod();
      await add({ ranges });
      await add({ id: 'pod-2', pod: other, ranges });
      for (const address of [...gateways, ...others]) {
        expect(await reaches(pod, address), address).toBe(true);
      }
      expect(await reaches(pod, '10.1.2.99', 1)).toBe(false);
    },
  );

  it('answers as the reference plugin does', async () => {
    expect(await add({ ranges: subnets.dual })).toEqual({
      cniVersion: '1.1.0',
      interfaces: [
        { name: 'cni0', mac: '0a:58:0a:01:02:01', mtu: 1500 },
        { name: expect.stringMatching(/^veth[0-9a-f]{11}$/), mac: expect.any(String), mtu: 1500 },
        { name: 'eth0', mac: '0a:58:0a:01:02:02', mtu: 1500, sandbox: pod.path },
      ],
      ips: [
        { interface: 2, address: '10.1.2.2/24', gateway: '10.1.2.1' },
        { interface: 2, address: 'fd00:1::2/64', gateway: 'fd00:1::1' },
      ],
      routes: [
        { dst: '0.0.0.0/0', gw: '10.1.2.1' },
        { dst: '::/0', gw: 'fd00:1::1' },
      ],
    });
  });

  it('67. tells the truth: MACs and MTU are those in the kernel', async () => {
    const { interfaces } = await add({ more: { mtu: 1400 } });
    const [bridge, host, inPod] = interfaces;
    if (bridge === undefined || host === undefined || inPod === undefined) throw new Error('three');
    expect(await showLink(node.netns, 'cni0')).toMatchObject({ address: bridge.mac, mtu: 1400 });
    expect(await showLink(node.netns, host.name)).toMatchObject({
      address: host.mac,
      mtu: 1400,
      master: 'cni0',
      operstate: 'UP',
      ifalias: 'podwire net pod-1 eth0',
    });
    expect(await showLink(pod, 'eth0')).toMatchObject({ address: inPod.mac, mtu: 1400 });
  });

  it('gives the port no address: it would send to the pod what the bridge is to send', async () => {
    const { interfaces } = await add({ ranges: subnets.dual });
    const of = (link = ''): Promise<string> => node.netns.ip(`-o addr show dev ${link}`);
    expect(await of(interfaces[1]?.name)).toBe('');
    expect(await of('cni0')).toContain('inet6 fe80::');
    expect(await reaches(pod, 'fd00:1::1')).toBe(true);
  });

  it('48. needs no addresses: a layer 2 network', async () => {
    // Which has nothing to masquerade either.
    const more = { ipam: {}, isDefaultGateway: false, ipMasq: true };
    const prevResult = await add({ more });
    expect(prevResult.interfaces.map((i) => i.name)).toEqual(['cni0', expect.any(String), 'eth0']);
    expect(prevResult.ips).toBeUndefined();
    const check = await call({ command: 'CHECK', more: { ...more, prevResult } });
    expect(check.json).toBeUndefined();
    await del({ more });
    expect(await pod.ip('-br link')).not.toContain('eth0');
  });

  it('63. sets what the configuration asks for', async () => {
    const more = { bridge: 'br.test', hairpinMode: true, portIsolation: true };
    const { interfaces } = await add({ more });
    const port = await showLink(node.netns, interfaces[1]?.name ?? '');
    expect(port.linkinfo.info_slave_data).toMatchObject({ hairpin: true, isolated: true });
    const other = await node.pod();
    await add({ id: 'pod-2', pod: other, more });
    expect(await reaches(pod, '10.1.2.1')).toBe(true);
    expect(await reaches(pod, '10.1.2.3', 1)).toBe(false);
    const quiet = await node.pod();
    await add({ id: 'pod-3', pod: quiet, more: { promiscMode: true } });
    expect((await showLink(node.netns, 'cni0')).flags).toContain('PROMISC');
  });

  it('57. takes the MAC from runtimeConfig, else args, else CNI_ARGS', async () => {
    const sources = {
      args: 'IgnoreUnknown=1;MAC=02:00:00:00:00:01',
      more: { args: { cni: { mac: '02:00:00:00:00:02' } } },
    };
    const mac = async (ask: Ask): Promise<string> => {
      await add(ask);
      const { address } = await showLink(pod, 'eth0');
      await del(ask);
      return address;
    };
    expect(await mac({ args: sources.args })).toBe('02:00:00:00:00:01');
    expect(await mac(sources)).toBe('02:00:00:00:00:02');
    const runtimeConfig = { mac: '02:00:00:00:00:03' };
    expect(await mac({ ...sources, more: { ...sources.more, runtimeConfig } })).toBe(
      '02:00:00:00:00:03',
    );
  });

  it('56. keeps the MAC of the bridge while pods come and go', async () => {
    await node.netns.ip('link add cni0 type bridge');
    await add();
    const { address } = await showLink(node.netns, 'cni0');
    const other = await node.pod();
    await add({ id: 'pod-2', pod: other, args: 'IgnoreUnknown=1;MAC=02:00:00:00:00:01' });
    await del();
    expect((await showLink(node.netns, 'cni0')).address).toBe(address);
  });

  it('65. prefers the dns of the configuration, and gives routes their gateways', async () => {
    const ipam = {
      type: 'host-local',
      dataDir: node.dataDir,
      ranges: [[{ subnet: '10.1.2.0/24' }]],
      routes: [{ dst: '10.9.0.0/16' }, { dst: '0.0.0.0/0', gw: '10.1.2.7' }],
    };
    const { dns, routes } = await add({ more: { dns: { nameservers: ['10.0.0.10'] }, ipam } });
    expect(dns).toEqual({ nameservers: ['10.0.0.10'] });
    expect(routes).toEqual([{ dst: '10.9.0.0/16' }, { dst: '0.0.0.0/0', gw: '10.1.2.7' }]);
    const kernel = await pod.ip('route');
    expect(kernel).toContain('10.9.0.0/16 via 10.1.2.1 dev eth0');
    expect(kernel).toContain('default via 10.1.2.7 dev eth0');
  });

  it('53. replaces the address of another subnet only when forced', async () => {
    await add();
    await del();
    const ranges = ['10.7.0.0/24'];
    const refused = await call({ ranges });
    expect(refused.json).toMatchObject({
      msg: '"cni0" already has an IP address different from 10.7.0.1/24',
      details: 'it has 10.1.2.1/24; forceAddress replaces it',
    });
    await add({ ranges, more: { forceAddress: true } });
    expect(await node.netns.ip('-br addr show cni0')).toMatch(/ 10\.7\.0\.1\/24/);
    expect(await node.netns.ip('-br addr show cni0')).not.toContain('10.1.2.1');
  });

  it('runs an IPAM plugin that is not ours, and passes its error on', async () => {
    const other = await node.pod();
    const ipam = { type: 'static', addresses: [{ address: '10.1.2.77/24', gateway: '10.1.2.1' }] };
    const { ips } = await add({ more: { ipam, cniVersion: '1.0.0' } });
    expect(ips).toEqual([{ interface: 2, address: '10.1.2.77/24', gateway: '10.1.2.1' }]);
    const broken = { type: 'static', addresses: [{ address: 'x' }] };
    const { json } = await call({
      id: 'pod-2',
      pod: other,
      more: { ipam: broken, cniVersion: '1.0.0' },
    });
    expect(json.msg).toContain('expected to be in CIDR notation');
    await del({ more: { ipam, cniVersion: '1.0.0' } });
  });

  it('62. lets the interface down for a virtual machine', async () => {
    const more = { ipam: {}, isDefaultGateway: false, disableContainerInterface: true };
    await add({ more });
    expect((await showLink(pod, 'eth0')).flags).not.toContain('UP');
  });
});

describe('a configuration', () => {
  it.each([
    [{ hairpinMode: true, promiscMode: true }, 7, 'promiscuous'],
    [{ disableContainerInterface: true }, 7, 'disableContainerInterface'],
    [{ bridge: 'sixteen-bytes-xx' }, 7, 'bridge'],
    [{ mtu: 'big' }, 7, 'mtu'],
    [{ vlan: 4095 }, 7, 'vlan'],
    [{ vlan: 5, vlanTrunk: [{ id: 5 }] }, 7, 'vlan and vlanTrunk at the same time'],
    [{ vlanTrunk: [{ id: 0 }] }, 7, 'vlanTrunk[0].id'],
    [{ vlanTrunk: [{ id: 4095 }] }, 7, 'vlanTrunk[0].id'],
    [{ vlanTrunk: [{ minID: 9, maxID: 8 }] }, 7, 'minID is greater than maxID'],
    [{ vlanTrunk: [{ minID: 9 }] }, 7, 'maxID is missing'],
    [{ ipMasq: true, ipMasqBackend: 'ebtables' }, 7, 'ipMasqBackend'],
    [{ args: { cni: { mac: '01:00:00:00:00:01' } } }, 7, 'mac'],
    [{ ipam: { type: 'nowhere' } }, 7, 'nowhere'],
    [{ ipam: { ranges: [] } }, 7, 'ipam.type'],
  ])('with %j is refused with code %i', async (more, code, text) => {
    const before = await node.snapshot([pod]);
    const { exitCode, json } = await call({ more });
    expect({ exitCode, json }).toMatchObject({ exitCode: 1, json: { cniVersion: '1.1.0', code } });
    expect(json.msg).toContain(text);
    expect(await node.snapshot([pod])).toEqual(before);
  });
});

describe('DEL', () => {
  it('removes the pair and frees the addresses; the bridge stays', async () => {
    await add({ ranges: subnets.dual });
    expect(node.leases()).toHaveLength(2);
    await del();
    expect(node.leases()).toEqual([]);
    expect(await pod.ip('-br link')).not.toContain('eth0');
    expect(await node.netns.ip('-br link')).not.toContain('veth');
    expect(await node.netns.ip('-br link')).toContain('cni0');
  });

  it('52. succeeds before ADD, twice, and lets ADD work again', async () => {
    await del();
    await add();
    await del();
    await del();
    await add();
    expect(await reaches(pod, '10.1.2.1')).toBe(true);
  });

  it.each([
    ['an empty CNI_NETNS', ''],
    ['a path that is gone', '/run/netns/pw-cni-gone'],
    ['a path that is no namespace', '/etc/hostname'],
  ])('with %s frees the addresses and the host end', async (_, netns) => {
    await add();
    const { exitCode, json } = await node.cni('bridge', {
      command: 'DEL',
      netns,
      config: config(),
    });
    expect({ exitCode, json }).toEqual({ exitCode: 0, json: undefined });
    expect(node.leases()).toEqual([]);
    expect(await node.netns.ip('-br link')).not.toContain('veth');
  });

  it('leaves the interface of another container alone', async () => {
    await add();
    await call({ id: 'pod-2' });
    await del({ id: 'pod-2' });
    expect(await reaches(pod, '10.1.2.1')).toBe(true);
    expect(node.leases()).toEqual(['10.1.2.2']);
  });
});

describe('static addresses', () => {
  const ipam = (address: string, routes: readonly object[]): object => ({
    ipam: { type: 'static', addresses: [{ address, gateway: '10.9.0.1' }], routes },
  });

  it('a pod in a subnet of two reaches the other, which is no broadcast address', async () => {
    await add({ more: ipam('10.9.0.0/31', []) });
    expect(await reaches(pod, '10.9.0.1')).toBe(true);
  });

  it('routes count however they are written: with host bits, on the link, in table 0', async () => {
    const routes = [
      { dst: '10.20.0.1/16' },
      { dst: '10.30.0.0/16', scope: 253 },
      { dst: '10.40.0.0/16', table: 0 },
    ];
    const more = ipam('10.9.0.2/24', routes);
    const prevResult = await add({ more });
    expect((await pod.ip('route show')).split('\n')).toMatchObject([
      expect.stringContaining('default via 10.9.0.1'),
      expect.stringContaining('10.9.0.0/24 dev eth0'),
      expect.stringContaining('10.20.0.0/16 via 10.9.0.1'),
      expect.stringContaining('10.30.0.0/16 dev eth0 scope link'),
      expect.stringContaining('10.40.0.0/16 via 10.9.0.1'),
    ]);
    const check = await call({ command: 'CHECK', more: { ...more, prevResult } });
    expect(check).toEqual({ exitCode: 0, json: undefined, stderr: '' });
  });
});

describe('CHECK', () => {
  it.each([
    ['nothing', undefined, undefined],
    ['the interface', 'link set eth0 down', 'interface eth0 is down'],
    ['the address', 'addr del 10.1.2.2/24 dev eth0', 'address 10.1.2.2/24 is missing on eth0'],
    ['the route', 'route del default', 'route to 0.0.0.0/0 is missing'],
    ['the MAC', 'link set eth0 address 02:00:00:00:00:01', 'interface eth0 has MAC 02:00'],
    ['the link', 'link del eth0', 'interface eth0 is missing'],
  ])('60. after %s changed', async (_, change, message) => {
    const prevResult = await add();
    if (change !== undefined) await pod.ip(change);
    const { exitCode, json } = await call({ command: 'CHECK', more: { prevResult } });
    if (message === undefined) expect({ exitCode, json }).toEqual({ exitCode: 0, json: undefined });
    else expect(json.msg).toContain(message);
  });

  it('60. notices a bridge that is gone, and a missing prevResult', async () => {
    const prevResult = await add();
    expect((await call({ command: 'CHECK' })).json).toMatchObject({ code: 7 });
    await node.netns.ip('link del cni0');
    const { json } = await call({ command: 'CHECK', more: { prevResult } });
    expect(json.msg).toContain('bridge cni0 is missing');
  });
});

describe('GC', () => {
  it('removes the links and leases of attachments that are not valid', async () => {
    const other = await node.pod();
    await add();
    await add({ id: 'pod-2', pod: other });
    const valid = [{ containerID: 'pod-2', ifname: 'eth0' }];
    const gc = await call({ command: 'GC', more: { 'cni.dev/valid-attachments': valid } });
    expect(gc).toEqual({ exitCode: 0, json: undefined, stderr: '' });
    expect(node.leases()).toEqual(['10.1.2.3']);
    expect(await pod.ip('-br link')).not.toContain('eth0');
    expect(await reaches(other, '10.1.2.1')).toBe(true);
    expect((await call({ command: 'GC' })).json).toMatchObject({ code: 7 });
    expect(node.leases()).toEqual(['10.1.2.3']);
  });
});

describe.skipIf(!existsSync(`${goPluginDir}/bridge`))(
  `together with Go's bridge (needs ${goPluginDir}/bridge)`,
  () => {
    const program = `${goPluginDir}/bridge`;
    const conf = (more: object = {}): object => config({ cniVersion: '1.0.0', ...more });
    const base = (): { netns: string; id: string } => ({ netns: pod.path, id: 'pod-1' });

    it("Go's CHECK finds our ADD in order, and its DEL removes it", async () => {
      const { json: prevResult } = await node.cni('bridge', { ...base(), config: conf() });
      const check = { ...base(), command: 'CHECK', config: conf({ prevResult }), program };
      expect(await node.cni('bridge', check)).toMatchObject({ exitCode: 0, json: undefined });
      const deleted = await node.cni('bridge', {
        ...base(),
        command: 'DEL',
        config: conf(),
        program,
      });
      expect(deleted).toMatchObject({ exitCode: 0 });
      expect(node.leases()).toEqual([]);
      expect(await node.netns.ip('-br link')).not.toContain('veth');
    });

    it("our CHECK finds Go's ADD in order, and our DEL removes it", async () => {
      const { json: prevResult } = await node.cni('bridge', { ...base(), config: conf(), program });
      const check = { ...base(), command: 'CHECK', config: conf({ prevResult }) };
      expect(await node.cni('bridge', check)).toMatchObject({ exitCode: 0, json: undefined });
      await node.cni('bridge', { ...base(), command: 'DEL', config: conf() });
      expect(node.leases()).toEqual([]);
      expect(await node.netns.ip('-br link')).not.toContain('veth');
    });

    it('both answer ADD alike', async () => {
      const { json: go } = await node.cni('bridge', { ...base(), config: conf(), program });
      await node.cni('bridge', { ...base(), command: 'DEL', config: conf(), program });
      await node.netns.ip('link del cni0');
      const { json: ours } = await node.cni('bridge', { ...base(), config: conf() });
      const shape = (result: CniDocument): object => ({
        ...result,
        interfaces: result.interfaces.map((i) => Object.keys(i).toSorted()),
        ips: result.ips.map((ip) => ({ ...ip, address: '' })),
        dns: undefined,
      });
      expect(shape(ours)).toEqual(shape(go));
    });
  },
);
