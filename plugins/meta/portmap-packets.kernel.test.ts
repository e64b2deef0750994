import { spawn } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { eachOnScratchNode } from '#cmd/podwire-cni/scratch-each.ts';
import { eventually, type ScratchNode } from '#cmd/podwire-cni/scratch-node.ts';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';
import { addChain, ask, briefly, connectOutside, delChain, startServer } from './scratch-chain.ts';

let node: ScratchNode;
let pod: ScratchNetns;
let neighbour: ScratchNetns;
let outside: ScratchNetns;
eachOnScratchNode(async (fresh) => {
  node = fresh;
  [pod, neighbour, outside] = [await node.pod(), await node.pod(), await node.pod()];
  await connectOutside(node.netns, outside);
});

interface Pod {
  readonly id: string;
  readonly netns: string;
  readonly ports: readonly object[];
  readonly conf: object;
}

function chainOf({ id, netns, ports, conf }: Pod) {
  const ranges = [[{ subnet: '10.1.2.0/24' }], [{ subnet: 'fd00:1::/64' }]];
  const ipam = { type: 'host-local', dataDir: node.dataDir, ranges };
  return {
    id,
    netns,
    plugins: [
      // With br_netfilter a pod's frames to itself turn round within the bridge.
      { type: 'bridge', isDefaultGateway: true, hairpinMode: true, ipam },
      { type: 'portmap', ...conf },
    ],
    runtimeConfig: { portMappings: ports },
  };
}

async function add(of: Pod): Promise<void> {
  expect(await addChain(node, chainOf(of))).toMatchObject({ exitCode: 0, stderr: '' });
  // Until its own address is settled a bridge that was just made asks for no neighbours.
  await eventually(async () => !(await node.netns.ip('-6 addr')).includes('tentative'));
}

async function del(of: Pod): Promise<void> {
  expect(await delChain(node, chainOf(of))).toMatchObject({ exitCode: 0, stderr: '' });
}

describe.each(['iptables', 'nftables'])('%s', (backend) => {
  const conf = { backend };
  const ports = ['tcp', 'udp'].map((protocol) => ({ hostPort: 8080, containerPort: 80, protocol }));
  const onEach = (host: string): ['tcp' | 'udp', string, number][] => [
    ['tcp', host, 8080],
    ['udp', host, 8080],
  ];

  it('104. IPv4: a host port is reached from everywhere', async () => {
    await add({ id: 'a', netns: pod.path, ports, conf });
    await add({ id: 'b', netns: neighbour.path, ports: [], conf });
    await startServer(pod, 'pod', [80]);
    // From outside the source stays; where the answer would not come back this way, it is the host.
    await outside.ip('route add 10.1.2.0/24 via 192.0.2.1');
    const [far, host, local, itself, near] = await Promise.all([
      ask(outside, onEach('192.0.2.1')),
      ask(node.netns, onEach('192.0.2.1')),
      ask(node.netns, onEach('127.0.0.1')),
      ask(pod, onEach('192.0.2.1')),
      ask(neighbour, onEach('10.1.2.1')),
    ]);
    const from = (address: string): string[] => [`pod ${address}`, `pod ${address}`];
    expect(far).toEqual(from('192.0.2.2'));
    expect(host).toEqual(from('192.0.2.1'));
    expect({ local, itself, near }).toEqual({
      local: from('10.1.2.1'),
      itself: from('10.1.2.1'),
      near: from('10.1.2.1'),
    });
    await del({ id: 'a', netns: pod.path, ports, conf });
    expect(await ask(outside, onEach('192.0.2.1'), briefly)).not.toContain('pod 192.0.2.2');
  });

  it('105. IPv6: from outside, from the host, from the pod itself and its neighbour', async () => {
    await add({ id: 'a', netns: pod.path, ports, conf });
    await add({ id: 'b', netns: neighbour.path, ports: [], conf });
    await startServer(pod, 'pod', [80]);
    await outside.ip('route add fd00:1::/64 via fd00:9::1');
    const from = (address: string): string[] => [`pod ${address}`, `pod ${address}`];
    const [far, host, itself, near, local] = await Promise.all([
      ask(outside, onEach('fd00:9::1')),
      ask(node.netns, onEach('fd00:9::1')),
      ask(pod, onEach('fd00:9::1')),
      ask(neighbour, onEach('fd00:1::1')),
      ask(node.netns, onEach('::1'), briefly),
    ]);
    expect({ far, host, itself, near }).toEqual({
      far: from('fd00:9::2'),
      host: from('fd00:9::1'),
      itself: from('fd00:1::1'),
      near: from('fd00:1::1'),
    });
    // The kernel has no route_localnet for IPv6: ::1 does not lead to the pod.
    expect(local).not.toContain('pod fd00:1::1');
  });

  it('103. masqAll: the pod sees the host as source of everything', async () => {
    await add({ id: 'a', netns: pod.path, ports, conf: { ...conf, masqAll: true } });
    await startServer(pod, 'pod', [80]);
    expect(await ask(outside, onEach('192.0.2.1'))).toEqual(['pod 10.1.2.1', 'pod 10.1.2.1']);
    expect(await ask(outside, onEach('fd00:9::1'))).toEqual(['pod fd00:1::1', 'pod fd00:1::1']);
  });

  it('102. a port of one host address leads nowhere from another', async () => {
    await node.netns.ip('addr add 192.0.2.7/24 dev up0');
    const one = ports.map((port) => ({ ...port, hostIP: '192.0.2.7' }));
    await add({ id: 'a', netns: pod.path, ports: one, conf });
    await startServer(pod, 'pod', [80]);
    expect(await ask(outside, onEach('192.0.2.7'))).toEqual(['pod 192.0.2.2', 'pod 192.0.2.2']);
    const elsewhere = await ask(outside, onEach('192.0.2.1'), briefly);
    expect(elsewhere.filter((answer) => answer.startsWith('pod'))).toEqual([]);
  });

  it.each([
    ['IPv4', '192.0.2.1', '192.0.2.2'],
    ['IPv6', 'fd00:9::1', 'fd00:9::2'],
  ])(
    '106. a UDP flow of %s that goes on follows the port to another pod',
    async (_, host, from) => {
      const flow = startFlow(outside, host);
      try {
        // What answered before was the host itself.
        await startServer(node.netns, 'host', [8080]);
        await flow.answers(`host ${from}`);
        await add({ id: 'a', netns: pod.path, ports, conf });
        await startServer(pod, 'first', [80]);
        await flow.answers(`first ${from}`);
        await del({ id: 'a', netns: pod.path, ports, conf });
        // At DEL too: nothing is sent to a pod that is gone.
        await flow.answers(`host ${from}`);
        await add({ id: 'b', netns: neighbour.path, ports, conf });
        await startServer(neighbour, 'second', [80]);
        await flow.answers(`second ${from}`);
      } finally {
        flow.stop();
      }
    },
  );

  it('forgets no flow of others: to other hosts, to the same port', async () => {
    const kept = ['-p', 'udp', '-s', '10.9.9.9', '-d', '10.9.9.8', '--sport', '4000'];
    const timeout = ['--dport', '8080', '-t', '300'];
    await node.netns.exec('conntrack', ['-I', ...kept, ...timeout]);
    await add({ id: 'a', netns: pod.path, ports, conf });
    await del({ id: 'a', netns: pod.path, ports, conf });
    const { stdout } = await node.netns.exec('conntrack', ['-L', '-p', 'udp']);
    expect(stdout).toContain('dst=10.9.9.8');
  });
});

it.each([
  ['iptables', ['iptables', '-D', 'INPUT', '1']],
  ['nftables', ['nft', 'flush', 'chain', 'ip', 'cni_hostport', 'localhost_guard']],
])("%s: no pod reaches the host's localhost, though it is routed", async (backend, unguard) => {
  const ports = [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }];
  await add({ id: 'a', netns: pod.path, ports, conf: { backend } });
  // The guard is there once.
  await add({
    id: 'b',
    netns: neighbour.path,
    ports: [{ ...ports[0], hostPort: 81 }],
    conf: { backend },
  });
  await startServer(node.netns, 'host', [9]);
  // A pod that may send what it likes writes the host's localhost into its packets.
  const forge = `
    add table ip forge
    add chain ip forge out { type filter hook postrouting priority 300; }
    add rule ip forge out ip daddr 10.9.9.9 ip daddr set 127.0.0.1
    add chain ip forge in { type filter hook prerouting priority -300; }
    add rule ip forge in ip saddr 127.0.0.1 ip saddr set 10.9.9.9`;
  await pod.exec('nft', ['-f', '-'], { input: forge });
  expect(await ask(pod, [['tcp', '10.9.9.9', 9]], briefly)).toEqual(['no answer']);
  const [program = '', ...args] = unguard;
  await node.netns.exec(program, args);
  expect(await ask(pod, [['tcp', '10.9.9.9', 9]])).toEqual(['host 10.1.2.2']);
});

interface FlowClient {
  /** Resolves when this is what the packets get as answer. */
  readonly answers: (expected: string) => Promise<void>;
  readonly stop: () => void;
}

/** Sends a packet every 20 ms from one and the same port: to the kernel, one flow. */
function startFlow(netns: ScratchNetns, host: string): FlowClient {
  const script = `
    const socket = require('node:dgram').createSocket('${host.includes(':') ? 'udp6' : 'udp4'}');
    socket.on('message', (text) => console.log(text.toString().replace('::ffff:', '')));
    setInterval(() => socket.send('?', 8080, '${host}', () => {}), 20);`;
  const child = spawn('nsenter', [`--net=${netns.path}`, process.execPath, '-e', script]);
  let last = '';
  child.stdout.on(
    'data',
    (text: Buffer) => (last = text.toString().trim().split('\n').at(-1) ?? ''),
  );
  return {
    answers: (expected) => eventually(async () => last === expected),
    stop: () => child.kill('SIGKILL'),
  };
}
