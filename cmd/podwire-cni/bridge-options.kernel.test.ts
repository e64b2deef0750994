import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, type TestContext } from 'vitest';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';
import { eachOnScratchNode } from './scratch-each.ts';
import {
  eventually,
  goPluginDir,
  reaches,
  type CniDocument,
  type CniOutcome,
  type ScratchNode,
} from './scratch-node.ts';

let node: ScratchNode;
let pod: ScratchNetns;
/** A machine beyond the node, which knows no way to pods. */
let outside: ScratchNetns;
eachOnScratchNode(async (fresh) => {
  node = fresh;
  pod = await node.pod();
  outside = await node.pod();
  await node.netns.ip(`link add up0 type veth peer name up0 netns ${outside.name}`);
  for (const [netns, host] of [
    [node.netns, 1],
    [outside, 2],
  ] as const) {
    await netns.ip(`addr add 192.0.2.${host}/24 dev up0`);
    await netns.ip(`addr add 2001:db8::${host}/64 dev up0 nodad`);
    await netns.ip('link set up0 up');
  }
});

interface Ask {
  readonly command?: string;
  readonly id?: string;
  readonly ifName?: string;
  readonly netns?: string;
  readonly program?: string;
  readonly more?: object;
}

function config(more: object = {}): object {
  return {
    cniVersion: '1.1.0',
    name: 'net',
    isDefaultGateway: true,
    ipam: {
      type: 'host-local',
      dataDir: node.dataDir,
      ranges: [[{ subnet: '10.1.2.0/24' }], [{ subnet: 'fd00:1::/64' }]],
    },
    ...more,
  };
}

function call(ask: Ask = {}): Promise<CniOutcome> {
  const { more, netns = pod.path, ...rest } = ask;
  return node.cni('bridge', { ...rest, netns, config: config(more) });
}

async function add(ask: Ask = {}): Promise<CniDocument> {
  const { exitCode, json, stderr } = await call(ask);
  expect({ exitCode, json, stderr }).toMatchObject({ exitCode: 0, stderr: '' });
  return json;
}

const fine = { exitCode: 0, json: undefined, stderr: '' };

/** Rules of the tables that masquerade. */
async function masqueradeRules(): Promise<string[]> {
  const list = async (file: string, args: string[]): Promise<string> => {
    const { stdout } = await node.netns.exec(file, args);
    return stdout;
  };
  const texts = [
    await list('iptables-save', ['-t', 'nat']),
    await list('ip6tables-save', ['-t', 'nat']),
    await list('nft', ['list', 'ruleset', 'inet']),
  ];
  return texts.flatMap((text) =>
    text
      .split('\n')
      .map((line) => line.trim())
      .filter((line) => /CNI-|saddr/.test(line)),
  );
}

/** The source address of what the pod sends to the machine outside. */
async function sourceSeenOutside(target: string): Promise<string> {
  const script = [
    'import socket',
    `s=socket.create_server(("${target}",7),family=socket.${target.includes(':') ? 'AF_INET6' : 'AF_INET'})`,
    's.settimeout(15)',
    'print(s.accept()[1][0])',
  ].join('\n');
  const server = outside.exec('python3', ['-c', script]);
  await eventually(async () =>
    (await outside.exec('ss', ['-ltn'])).stdout.includes(
      `${target.includes(':') ? `[${target}]` : target}:7`,
    ),
  );
  await pod.exec('bash', ['-c', `echo > /dev/tcp/${target}/7`]);
  return (await server).stdout.trim();
}

describe('ipMasq', () => {
  it.each(['iptables', 'nftables'])(
    '59. %s: hides pods from beyond, not from each other',
    async (ipMasqBackend) => {
      const more = { ipMasq: true, ipMasqBackend };
      await add({ more });
      expect(await sourceSeenOutside('192.0.2.2')).toBe('192.0.2.1');
      expect(await sourceSeenOutside('2001:db8::2')).toBe('2001:db8::1');
      const other = await node.pod();
      await add({ id: 'pod-2', netns: other.path, more });
      expect(await reaches(pod, '10.1.2.3')).toBe(true);
      expect(await call({ more, command: 'DEL' })).toEqual(fine);
      expect((await masqueradeRules()).join()).not.toContain('10.1.2.2');
      expect((await masqueradeRules()).join()).toContain('10.1.2.3');
      // The namespace is gone, and so is everything that knew the addresses.
      expect(await call({ more, id: 'pod-2', netns: '', command: 'DEL' })).toEqual(fine);
      expect(await masqueradeRules()).toEqual([]);
      expect(await call({ more, id: 'pod-2', netns: '', command: 'DEL' })).toEqual(fine);
    },
  );

  it.each(['iptables', 'nftables'])(
    '59. %s: two interfaces of one container are told apart',
    async (ipMasqBackend) => {
      const more = { ipMasq: true, ipMasqBackend, isDefaultGateway: false, isGateway: true };
      await add({ more });
      const one = await masqueradeRules();
      await add({ more, ifName: 'net1' });
      expect(await call({ more, ifName: 'net1', command: 'DEL' })).toEqual(fine);
      expect(await masqueradeRules()).toEqual(one);
      expect(one.join()).toContain('10.1.2.2');
    },
  );

  it.each(['iptables', 'nftables'])(
    '59. %s: GC takes what no attachment has, and nothing of others',
    async (ipMasqBackend) => {
      const more = { ipMasq: true, ipMasqBackend };
      const other = await node.pod();
      await add({ more });
      const kept = await masqueradeRules();
      await add({ more, id: 'pod-2', netns: other.path });
      const valid = [{ containerID: 'pod-1', ifname: 'eth0' }];
      expect(
        (
          await call({
            more: { ...more, name: 'else', 'cni.dev/valid-attachments': [] },
            command: 'GC',
          })
        ).exitCode,
      ).toBe(0);
      expect((await masqueradeRules()).length).toBeGreaterThan(kept.length);
      expect((await call({ more, command: 'GC' })).json.code).toBe(7);
      const gc = { ...more, 'cni.dev/valid-attachments': valid };
      expect(await call({ more: gc, command: 'GC' })).toEqual(fine);
      expect(await masqueradeRules()).toEqual(kept);
    },
  );

  it('60. CHECK misses the rules when somebody takes them away', async () => {
    const more = { ipMasq: true, ipMasqBackend: 'nftables' };
    const result = await add({ more });
    const check = { more: { ...more, prevResult: result }, command: 'CHECK' };
    expect(await call(check)).toEqual(fine);
    await node.netns.exec('nft', ['flush', 'ruleset']);
    expect((await call(check)).json.msg).toContain('masquerade eth0 are missing');
  });

  it('59. removes the rules of the reference plugin, and makes the same', async () => {
    const program = `${goPluginDir}/bridge`;
    const go = { cniVersion: '1.0.0', ipMasq: true };
    await add({ more: go, program });
    const theirs = await masqueradeRules();
    expect(await call({ more: go, netns: '', command: 'DEL' })).toEqual(fine);
    expect(await masqueradeRules()).toEqual([]);
    await pod.ip('link del eth0');
    await node.netns.ip('link del cni0');
    await add({ more: go });
    const plain = (rules: string[], address: RegExp): string[] =>
      rules
        .map((rule) =>
          rule
            .replace(/--comment ("(\\.|[^"])*"|\S+)/, '')
            .replace(address, 'POD')
            .replace(/\[\d+:\d+\]$/, ''),
        )
        .toSorted();
    expect(plain(await masqueradeRules(), /10\.1\.2\.\d+\/32|fd00:1::\d+\/128/)).toEqual(
      plain(theirs, /10\.1\.2\.\d+\/32|fd00:1::\d+\/128/),
    );
  });
});

it('60. CHECK finds the default route of a second interface beside that of the first', async () => {
  const first = await add();
  const ipam = { type: 'host-local', dataDir: node.dataDir, subnet: '10.9.0.0/24' };
  const side = { name: 'side', bridge: 'side0', ipam };
  const second = await add({ ifName: 'net1', more: side });
  expect((await pod.ip('route show default')).split('\n')).toMatchObject([
    expect.stringContaining('default via 10.1.2.1 dev eth0'),
    expect.stringContaining('default via 10.9.0.1 dev net1'),
  ]);
  const check = (ifName: string, more: object): Promise<CniOutcome> =>
    call({ command: 'CHECK', ifName, more });
  expect(await check('eth0', { prevResult: first })).toEqual(fine);
  expect(await check('net1', { ...side, prevResult: second })).toEqual(fine);
});

describe('macspoofchk', () => {
  const more = { macspoofchk: true };

  it('61. drops frames with a forged source, and goes with the pod', async () => {
    const result = await add({ more });
    expect(await reaches(pod, '10.1.2.1')).toBe(true);
    const check = { more: { ...more, prevResult: result }, command: 'CHECK' };
    expect(await call(check)).toEqual(fine);
    const { stdout } = await node.netns.exec('nft', ['list', 'table', 'bridge', 'nat']);
    expect(stdout).toContain('jump cni-br-iface-pod-1-eth0 comment "macspoofchk-pod-1-eth0"');
    await pod.ip('link set eth0 address 02:00:00:00:00:09');
    expect(await reaches(pod, '10.1.2.1', 1)).toBe(false);
    expect(await call({ more, netns: '', command: 'DEL' })).toEqual(fine);
    const after = await node.netns.exec('nft', ['list', 'table', 'bridge', 'nat']);
    expect(after.stdout).not.toContain('pod-1');
    // Missing at DEL is no error.
    expect(await call({ more, netns: '', command: 'DEL' })).toEqual(fine);
    await node.netns.exec('nft', ['flush', 'ruleset']);
    expect(await call({ more, netns: '', command: 'DEL' })).toEqual(fine);
    expect((await call(check)).exitCode).toBe(1);
  });

  it('GC that cannot reach the rules takes the rest all the same, and says so', async () => {
    await add();
    const gc = { ...more, 'cni.dev/valid-attachments': [] };
    const program = join(node.dataDir, 'bridge-without-nft');
    const script = `PATH=${node.binDir} exec ${node.binDir}/bridge`;
    writeFileSync(program, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    const { exitCode, json } = await call({ more: gc, command: 'GC', program });
    expect({ exitCode, msg: json.msg }).toMatchObject({
      exitCode: 1,
      msg: expect.stringContaining('Cannot run nft: there is no such program'),
    });
    expect(node.leases()).toEqual([]);
    expect(await pod.ip('-br link')).not.toContain('eth0');
  });

  it('61. GC takes the rules of this network that no attachment has', async () => {
    const other = await node.pod();
    await add({ more });
    await add({ more, id: 'pod-2', netns: other.path });
    const gc = { ...more, 'cni.dev/valid-attachments': [{ containerID: 'pod-1', ifname: 'eth0' }] };
    expect(await call({ more: gc, command: 'GC' })).toEqual(fine);
    const { stdout } = await node.netns.exec('nft', ['list', 'table', 'bridge', 'nat']);
    expect(stdout).toContain('cni-br-iface-pod-1-eth0');
    expect(stdout).not.toContain('pod-2');
    expect(await reaches(pod, '10.1.2.1')).toBe(true);
  });
});

const setting = async (name: string): Promise<string> =>
  (await pod.exec('sysctl', ['-n', `net.ipv6.conf.eth0.${name}`])).stdout.trim();

it.each([
  ['10.1.2.0/24', '0'],
  ['fd00:1::/64', '1'],
])('a pod of %s announces its IPv6 addresses: %s', async (subnet, announces) => {
  await add({
    more: { ipam: { type: 'host-local', dataDir: node.dataDir, ranges: [[{ subnet }]] } },
  });
  expect(await setting('ndisc_notify')).toBe(announces);
});

describe('enabledad', () => {
  it('64. off: addresses are usable at once', async () => {
    await add();
    expect(await setting('accept_dad')).toBe('0');
    expect(await pod.ip('-6 addr show dev eth0 scope global')).not.toContain('tentative');
  });

  it('64. on: ADD comes back when the address has settled', async () => {
    await add({ more: { enabledad: true } });
    expect([await setting('accept_dad'), await setting('enhanced_dad')]).toEqual(['1', '1']);
    const addresses = await pod.ip('-6 addr show dev eth0 scope global');
    expect(addresses).toContain('fd00:1::2');
    expect(addresses).not.toContain('tentative');
    expect(addresses).not.toContain('nodad');
  });

  it('64. on: an address that somebody has fails ADD, which leaves nothing', async () => {
    await node.netns.ip('link add cni0 type bridge');
    await node.netns.ip('link set cni0 up');
    await node.netns.ip(`link add v0 master cni0 type veth peer name v0 netns ${outside.name}`);
    await node.netns.ip('link set v0 up');
    await outside.ip('addr add fd00:1::2/64 dev v0 nodad');
    await outside.ip('link set v0 up');
    await eventually(async () => (await outside.ip('link show v0')).includes('LOWER_UP'));
    const { json } = await call({ more: { enabledad: true, isDefaultGateway: false } });
    expect(json.msg).toContain('Cannot use address fd00:1::2/64: another host has it');
    expect(node.leases()).toEqual([]);
    expect(await pod.ip('-br link')).not.toContain('eth0');
  });
});

describe('VLANs', () => {
  async function needsVlans(context: TestContext): Promise<void> {
    try {
      await node.netns.ip('link add probe0 type bridge vlan_filtering 1');
      await node.netns.ip('link del probe0');
    } catch {
      context.skip('this kernel has bridges without VLANs (CONFIG_BRIDGE_VLAN_FILTERING)');
    }
  }

  async function vlansOf(port: string): Promise<unknown> {
    const { stdout } = await node.netns.exec('bridge', ['-j', 'vlan', 'show', 'dev', port]);
    const [shown] = JSON.parse(stdout) as [{ vlans: unknown }];
    return shown.vlans;
  }

  it('49. puts the port into its VLAN, and out of the default one', async (context) => {
    await needsVlans(context);
    const access = { vlan: 100, flags: ['PVID', 'Egress Untagged'] };
    const { interfaces } = await add({ more: { vlan: 100, preserveDefaultVlan: false } });
    expect(await vlansOf(interfaces[1]?.name ?? '')).toEqual([access]);
    const other = await node.pod();
    const kept = await add({ id: 'pod-2', netns: other.path, more: { vlan: 100 } });
    expect(await vlansOf(kept.interfaces[1]?.name ?? '')).toEqual([
      { vlan: 1, flags: ['Egress Untagged'] },
      access,
    ]);
  });

  it('50. lets a trunk through with its tags', async (context) => {
    await needsVlans(context);
    const vlanTrunk = [{ id: 101 }, { minID: 200, maxID: 202 }];
    const { interfaces } = await add({ more: { vlanTrunk, preserveDefaultVlan: false } });
    expect(await vlansOf(interfaces[1]?.name ?? '')).toEqual(
      [101, 200, 201, 202].map((vlan) => expect.objectContaining({ vlan })),
    );
  });

  it('51. gives the gateway an interface of its own, shared by the VLAN', async (context) => {
    await needsVlans(context);
    const other = await node.pod();
    const more = { vlan: 100, preserveDefaultVlan: false };
    await add({ more });
    await add({ id: 'pod-2', netns: other.path, more });
    expect(await node.netns.ip('-4 addr show dev cni0.100')).toContain('10.1.2.1/24');
    expect(await node.netns.ip('-4 addr show dev cni0')).not.toContain('10.1.2.1');
    expect(await reaches(pod, '10.1.2.1')).toBe(true);
    expect(await reaches(pod, '10.1.2.3')).toBe(true);
    const stranger = await node.pod();
    await add({ id: 'pod-3', netns: stranger.path, more: { ...more, vlan: 200 } });
    expect(await reaches(stranger, '10.1.2.2', 0.3)).toBe(false);
  });

  it('are refused where they would not be kept apart, and nothing is left', async () => {
    const before = await node.snapshot([pod]);
    const { exitCode, json } = await call({ more: { vlan: 100, bridge: 'up0' } });
    expect({ exitCode, msg: json.msg }).toEqual({
      exitCode: 1,
      msg: '"up0" already exists but is not a bridge',
    });
    expect(await node.snapshot([pod])).toEqual(before);
    await node.netns.ip('link add plain0 type bridge');
    const plain = await call({ more: { vlan: 100, bridge: 'plain0' } });
    expect(plain.json).toMatchObject({ code: 7, msg: '"plain0" does not filter VLANs' });
    expect(node.leases()).toEqual([]);
  });
});

it('124. several routes to one destination are all there; IPv6 addresses survive the link', async () => {
  const ipam = {
    type: 'static',
    addresses: [
      { address: '10.1.2.9/24', gateway: '10.1.2.1' },
      { address: 'fd00:1::9/64', gateway: 'fd00:1::1' },
    ],
    routes: [
      { dst: 'fd09::/64', gw: 'fd00:1::1' },
      { dst: 'fd09::/64', gw: 'fd00:1::2' },
      { dst: '10.9.0.0/16', gw: '10.1.2.1' },
      { dst: '10.9.0.0/16', gw: '10.1.2.2' },
    ],
  };
  await add({ more: { ipam, isDefaultGateway: false } });
  const v6Routes = await pod.ip('-6 route show fd09::/64');
  expect(v6Routes.match(/nexthop via fd00:1::[12]/g)).toHaveLength(2);
  expect((await pod.ip('-4 route show 10.9.0.0/16')).match(/via 10\.1\.2\.[12]/g)).toEqual([
    'via 10.1.2.1',
    'via 10.1.2.2',
  ]);
  await pod.ip('link set eth0 down');
  expect(await pod.ip('-6 addr show dev eth0')).toContain('fd00:1::9/64');
});

it('45. makes the bridge, with the gateway, the port and forwarding', async () => {
  await node.netns.exec('sysctl', ['-w', 'net.ipv4.ip_forward=0']);
  const { interfaces } = await add();
  expect(await node.netns.ip('-br -4 addr show cni0')).toContain('10.1.2.1/24');
  expect(await node.netns.ip('link show master cni0')).toContain(interfaces[1]?.name);
  expect(await pod.ip('-4 route show default')).toContain('via 10.1.2.1 dev eth0');
  for (const setting of ['net.ipv4.ip_forward', 'net.ipv6.conf.all.forwarding']) {
    expect((await node.netns.exec('sysctl', ['-n', setting])).stdout.trim()).toBe('1');
  }
});

it('47. uses the bridge that is there, and no other kind of interface', async () => {
  await node.netns.ip('link add cni0 type bridge');
  const [before] = JSON.parse(await node.netns.ip('-j link show cni0')) as [{ ifindex: number }];
  const other = await node.pod();
  await add();
  await add({ id: 'pod-2', netns: other.path });
  const [after] = JSON.parse(await node.netns.ip('-j link show cni0')) as [{ ifindex: number }];
  expect(after.ifindex).toBe(before.ifindex);
  const third = await node.pod();
  const { json } = await call({ id: 'pod-3', netns: third.path, more: { bridge: 'up0' } });
  expect(json.msg).toBe('"up0" already exists but is not a bridge');
});

it('54. adds an IPv6 subnet beside others, but not over one', async () => {
  await node.netns.ip('link add cni0 type bridge');
  await node.netns.ip('addr add fd00:9::1/64 dev cni0 nodad');
  await add();
  expect(await node.netns.ip('-6 addr show dev cni0')).toContain('fd00:1::1/64');
  const other = await node.pod();
  const ipam = { type: 'host-local', dataDir: node.dataDir, subnet: 'fd00:9::/48' };
  const { json } = await call({ id: 'pod-2', netns: other.path, more: { ipam } });
  expect(json.msg).toBe('"cni0" already has an IP address different from fd00:9::1/48');
});

it('55. makes the bridge promiscuous', async () => {
  await add({ more: { promiscMode: true } });
  expect(await node.netns.ip('link show cni0')).toContain('PROMISC');
});

it('58. gives the addresses back when a later step fails', async () => {
  const ipam = {
    type: 'host-local',
    dataDir: node.dataDir,
    subnet: '10.1.2.0/24',
    routes: [{ dst: '10.9.0.0/16', gw: '203.0.113.1' }],
  };
  const more = { ipam, ipMasq: true, macspoofchk: true };
  expect((await call({ more })).json.msg).toContain('Cannot add route 10.9.0.0/16');
  expect(node.leases()).toEqual([]);
  expect(await masqueradeRules()).toEqual([]);
  const { stdout } = await node.netns.exec('nft', ['list', 'ruleset', 'bridge']);
  expect(stdout).not.toContain('pod-1');
});

it('66. STATUS is that of the IPAM plugin', async () => {
  expect(await call({ command: 'STATUS', netns: '' })).toEqual(fine);
  const { json } = await call({
    command: 'STATUS',
    netns: '',
    more: { ipam: { type: 'nowhere' } },
  });
  expect(json.msg).toContain('nowhere');
});

it('67. gives bridge, port and pod the MTU', async () => {
  const { interfaces } = await add({ more: { mtu: 5000 } });
  expect(interfaces.map(({ mtu }) => mtu)).toEqual([5000, 5000, 5000]);
  expect(await node.netns.ip(`link show ${interfaces[1]?.name}`)).toContain('mtu 5000');
  expect(await node.netns.ip('link show cni0')).toContain('mtu 5000');
  expect(await pod.ip('link show eth0')).toContain('mtu 5000');
});
