import { existsSync } from 'node:fs';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';
import {
  buildExecutable,
  createScratchNode,
  writeNodeFacts,
  type CniOutcome,
  type ScratchNode,
} from './scratch-node.ts';
import { ask, connectOutside, everythingOn, serve, settledOn } from './scratch-traffic.ts';

let node: ScratchNode;
let outside: ScratchNetns;
beforeAll(buildExecutable);
beforeEach(async () => {
  node = await createScratchNode();
  outside = await connectOutside(node);
  writeNodeFacts(node, ['10.244.1.0/24', 'fd00:10:244:1::/64']);
});
afterEach(async () => {
  await node[Symbol.asyncDispose]();
  await outside[Symbol.asyncDispose]();
});

interface Port {
  readonly hostPort: number;
  readonly containerPort: number;
  readonly protocol: string;
  readonly hostIP?: string;
}

const web: Port = { hostPort: 8080, containerPort: 80, protocol: 'tcp' };
const dns: Port = { hostPort: 5353, containerPort: 53, protocol: 'UDP' };

interface Pod {
  readonly id: string;
  readonly ports?: readonly Port[];
  readonly more?: object;
}

function call(command: string, netns: string, pod: Pod): Promise<CniOutcome> {
  const config = {
    cniVersion: '1.1.0',
    name: 'podwire',
    type: 'podwire',
    nodeFile: node.nodeFile,
    stateDir: node.stateDir,
    ipam: { dataDir: node.dataDir },
    runtimeConfig: { portMappings: pod.ports ?? [] },
    ...pod.more,
  };
  return node.cni('podwire', { command, id: pod.id, netns, config });
}

async function start(pod: Pod): Promise<ScratchNetns> {
  const netns = await node.pod();
  const { exitCode, json } = await call('ADD', netns.path, pod);
  expect({ exitCode, json }).toMatchObject({ exitCode: 0 });
  return netns;
}

/** Frames that the bridge forwards pass the packet filter too, or they do not. */
async function callIptables(value: number): Promise<void> {
  const keys = ['iptables', 'ip6tables'].map((n) => `net.bridge.bridge-nf-call-${n}=${value}`);
  await node.netns.exec('sysctl', ['-qw', ...keys]);
}

const hasBridgeNetfilter = existsSync('/proc/sys/net/bridge');

describe.each([
  ['bridge', 0],
  ['bridge', 1],
  ['routed', 0],
])('host ports, mode %s, bridge-nf-call-iptables %i', (mode, bridged) => {
  const more = { mode };
  // Without the module br_netfilter there is nothing to turn off.
  beforeEach(async ({ skip }) => {
    if (hasBridgeNetfilter) await callIptables(bridged);
    else skip(bridged === 1, 'this kernel has no br_netfilter');
  });

  it('104. TCP from outside, the node, localhost, another pod, the pod itself', async () => {
    const pod = await start({ id: 'web', ports: [web], more });
    const other = await start({ id: 'other', more });
    await serve(pod, 'web', [80]);
    expect(await ask(outside, 'tcp 192.0.2.1 8080')).toBe('web 192.0.2.2');
    expect(await ask(node.netns, 'tcp 192.0.2.1 8080')).toBe('web 192.0.2.1');
    expect(await ask(node.netns, 'tcp 127.0.0.1 8080')).toBe('web 10.244.1.1');
    expect(await ask(node.netns, 'tcp 10.244.1.1 8080')).toBe('web 10.244.1.1');
    expect(await ask(other, 'tcp 192.0.2.1 8080')).toMatch(/^web 10\.244\.1\.[13]$/);
    expect(await ask(pod, 'tcp 192.0.2.1 8080')).toBe('web 10.244.1.1');
    // Not the port of the pod's: only what goes to the node itself.
    expect(await ask(other, 'tcp 192.0.2.2 8080', 1)).toBe('');
  });

  it('105. TCP over IPv6 from outside, the node, another pod, the pod itself', async () => {
    const pod = await start({ id: 'web', ports: [web], more });
    const other = await start({ id: 'other', more });
    await serve(pod, 'web', [80]);
    const gateway = 'fd00:10:244:1::1';
    expect(await ask(outside, 'tcp fd00:2::1 8080')).toBe('web fd00:2::2');
    expect(await ask(node.netns, 'tcp fd00:2::1 8080')).toBe('web fd00:2::1');
    expect(await ask(other, 'tcp fd00:2::1 8080')).toMatch(/^web fd00:10:244:1::[13]$/);
    expect(await ask(pod, 'tcp fd00:2::1 8080')).toBe(`web ${gateway}`);
  });

  it('UDP from outside, the node, localhost, the pod itself, over IPv4 and IPv6', async () => {
    const pod = await start({ id: 'dns', ports: [dns], more });
    await serve(pod, 'dns', [53]);
    expect(await ask(outside, 'udp 192.0.2.1 5353')).toBe('dns 192.0.2.2');
    expect(await ask(outside, 'udp fd00:2::1 5353')).toBe('dns fd00:2::2');
    expect(await ask(node.netns, 'udp 127.0.0.1 5353')).toBe('dns 10.244.1.1');
    expect(await ask(pod, 'udp 192.0.2.1 5353')).toBe('dns 10.244.1.1');
  });

  it('106. a UDP flow follows a replaced pod', async () => {
    const pod = await start({ id: 'one', ports: [dns], more });
    await serve(pod, 'one', [53]);
    // One socket throughout: the flow must not become another by a new source port.
    const script = `exec 3<>/dev/udp/192.0.2.1/5353
      say() { echo hi >&3; timeout 1 dd bs=200 count=1 status=none <&3; }
      for (( i = 0; i < 100; i++ )); do
        answer=$(say 2>&1); [[ $answer == two* ]] && { echo "$answer"; exit; }
        sleep 0.05
      done`;
    const flow = outside.exec('bash', ['-c', script]);
    await expect.poll(() => conntrack()).toContain('src=10.244.1.2');
    expect(await call('DEL', '', { id: 'one', ports: [dns], more })).toMatchObject({ exitCode: 0 });
    expect(await conntrack()).not.toContain('src=10.244.1.2');
    const next = await start({ id: 'two', ports: [dns], more });
    await serve(next, 'two', [53]);
    expect((await flow).stdout).toContain('two 192.0.2.2');
  });

  it('107. DEL takes them away, and DEL again', async () => {
    await start({ id: 'first', more });
    const before = await settledOn(node);
    const ports = [web, dns, { ...web, hostPort: 81, hostIP: '192.0.2.1' }];
    const pod = await start({ id: 'web', ports, more });
    expect((await everythingOn(node)).join('\n')).toContain('tcp . 8080 comment');
    for (const netns of [pod.path, '', '/run/netns/pw-cni-gone']) {
      expect(await call('DEL', netns, { id: 'web', more })).toMatchObject({ exitCode: 0 });
      expect(withoutTable(await everythingOn(node))).toEqual(before);
    }
    expect(await ask(outside, 'tcp 192.0.2.1 8080')).toBe('');
  });
});

async function conntrack(): Promise<string> {
  return (await node.netns.exec('conntrack', ['-L', '-p', 'udp'])).stdout;
}

/** The host port table is made with the first port, and stays; a line is what stands outside. */
function withoutTable(lines: readonly string[]): readonly string[] {
  const start = lines.findIndex((line) => line.startsWith('table inet podwire-hostport'));
  const end = lines.indexOf('}', start);
  return lines.filter(
    (line, i) => (start < 0 || i < start || i > end) && !line.endsWith('/.host-ports'),
  );
}

describe('host ports', () => {
  it('101. many, of all protocols, in the keys of containerd', async () => {
    const ports = Array.from({ length: 40 }, (_, i) => ({
      HostPort: 9000 + i,
      ContainerPort: 90 + i,
      Protocol: ['TCP', 'udp', 'sctp'][i % 3],
      HostIP: '',
    }));
    const pod = await start({ id: 'many', ports: ports as unknown as Port[] });
    await serve(pod, 'many', [90, 127]);
    expect(await ask(outside, 'tcp 192.0.2.1 9000')).toBe('many 192.0.2.2');
    expect(await ask(outside, 'udp 192.0.2.1 9037')).toBe('many 192.0.2.2');
    const { stdout } = await node.netns.exec('nft', ['list', 'ruleset']);
    expect(stdout).toContain('sctp . 9038');
  });

  it('102. of one address only; of the other family none', async () => {
    await node.netns.ip('addr add 192.0.2.9/24 dev eth0');
    const ports = ['192.0.2.9', '127.0.0.1', 'fd00:2::1'].map((hostIP) => ({ ...web, hostIP }));
    const pod = await start({ id: 'web', ports });
    await serve(pod, 'web', [80]);
    expect(await ask(outside, 'tcp 192.0.2.9 8080')).toBe('web 192.0.2.2');
    expect(await ask(outside, 'tcp 192.0.2.1 8080')).toBe('');
    expect(await ask(node.netns, 'tcp 127.0.0.1 8080')).toBe('web 10.244.1.1');
    expect(await ask(outside, 'tcp fd00:2::1 8080')).toBe('web fd00:2::2');
    const wild = { hostIP: '0.0.0.0', hostPort: 8081, containerPort: 81, protocol: 'tcp' };
    const ip4 = await start({ id: 'ip4', ports: [wild] });
    await serve(ip4, 'ip4', [81]);
    expect(await ask(outside, 'tcp 192.0.2.9 8081')).toBe('ip4 192.0.2.2');
    expect(await ask(outside, 'tcp fd00:2::1 8081')).toBe('');
  });

  it("a pod cannot reach the host's localhost by route_localnet", async () => {
    await start({ id: 'web', ports: [web] });
    const attacker = await start({ id: 'attacker' });
    await serve(node.netns, 'secret', [7000]);
    expect(await ask(node.netns, 'tcp 127.0.0.1 7000')).toBe('secret 127.0.0.1');
    await attacker.exec('sysctl', ['-qw', 'net.ipv4.conf.all.route_localnet=1']);
    await attacker.ip('addr del 127.0.0.1/8 dev lo');
    await attacker.ip('route add 127.0.0.1 via 10.244.1.1');
    expect(await ask(attacker, 'tcp 127.0.0.1 7000', 1)).toBe('');
  });

  it.each([
    ['the same port', web, web],
    ['all addresses, then one', web, { ...web, hostIP: '192.0.2.1' }],
    ['one address, then all', { ...web, hostIP: '192.0.2.1' }, web],
    ['IPv6 alone', { ...web, hostIP: '::' }, { ...web, hostIP: 'fd00:2::1' }],
  ])('148. a port that another pod has is an error that names it: %s', async (_, mine, yours) => {
    await start({ id: 'owner', ports: [mine] });
    const pod = await node.pod();
    const before = [await settledOn(node), await node.snapshot([pod])];
    const { exitCode, json } = await call('ADD', pod.path, { id: 'second', ports: [dns, yours] });
    expect({ exitCode, code: json.code }).toEqual({ exitCode: 1, code: 100 });
    expect(json.msg).toMatch(
      /^Cannot map host port .*tcp 8080: container owner of network podwire/,
    );
    expect([await everythingOn(node), await node.snapshot([pod])]).toEqual(before);
    expect(await call('DEL', pod.path, { id: 'second', ports: [dns, yours] })).toMatchObject({
      exitCode: 0,
    });
    const third = await call('ADD', pod.path, { id: 'third', ports: [yours] });
    expect(third.json.msg).toContain('container owner of network podwire');
  });

  it.each([
    ['another address', { ...web, hostIP: '192.0.2.1' }, { ...web, hostIP: '192.0.2.7' }],
    ['another protocol', web, { ...web, protocol: 'udp' }],
    ['another family', { ...web, hostIP: '0.0.0.0' }, { ...web, hostIP: '::' }],
  ])('is no conflict with %s', async (_, mine, yours) => {
    await start({ id: 'one', ports: [mine] });
    await start({ id: 'two', ports: [yours] });
  });

  it('98. refuses port 0, and one port for two', async () => {
    const pod = await node.pod();
    for (const ports of [[{ ...web, hostPort: 0 }], [web, { ...web, containerPort: 81 }]]) {
      const { json } = await call('ADD', pod.path, { id: 'bad', ports });
      expect(json).toMatchObject({ code: 7 });
    }
    await start({ id: 'twice', ports: [web, web] });
  });

  it('pods that start together share out the ports: each has one owner', async () => {
    const pods = await Promise.all(Array.from({ length: 8 }, () => node.pod()));
    const outcomes = await Promise.all(
      pods.map((pod, i) => call('ADD', pod.path, { id: `p${i}`, ports: [web] })),
    );
    expect(outcomes.filter(({ exitCode }) => exitCode === 0)).toHaveLength(1);
    expect(outcomes.filter(({ json }) => json.code === 100)).toHaveLength(7);
  });

  it('come back when somebody flushed the ruleset', async () => {
    const pod = await start({ id: 'web', ports: [web] });
    await serve(pod, 'web', [80]);
    await node.netns.exec('nft', ['flush', 'ruleset']);
    expect(await ask(outside, 'tcp 192.0.2.1 8080')).toBe('');
    await start({ id: 'next', ports: [dns] });
    expect(await ask(outside, 'tcp 192.0.2.1 8080')).toBe('web 192.0.2.2');
  });
});
