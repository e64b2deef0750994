/** Real packets through ipvs mode, in the VM: most kernels that tests run on have no IPVS. */
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { FakeClock } from '#pkg/clock/fake-clock.ts';
import { families } from '#pkg/ip/address.ts';
import type { Agent } from '#pkg/proxy/testdata/agent.ts';
import { nets, nodePorts, numbers, packetServices } from '#pkg/proxy/testdata/packet-services.ts';
import { service, slice, type Cluster } from '#pkg/proxy/testdata/records.ts';
import { testServicePackets } from '#pkg/proxy/testdata/service-packets.ts';
import { createSmallCluster, type SmallCluster } from '#pkg/proxy/testdata/small-cluster.ts';
import { helloOverSctp } from '#pkg/proxy/testdata/sctp.ts';
import { testIpvsChanges } from './scratch/ipvs-changes.ts';
import { createIpvsNode, type IpvsNode } from './scratch/ipvs-node.ts';

const web: Cluster['services'][number]['ports'] = [
  { name: 'web', protocol: 'TCP', port: 80, nodePort: 0 },
];
const target = { ports: [{ name: 'web', protocol: 'TCP', port: 8080 }] } as const;
const both = (n: number): [string, string] => [`172.30.0.${n}`, `fd00:96::${n}`];
type Endpoints = Parameters<typeof slice>[1];
const one = '10.1.2.2';
const two = '10.1.3.2';

const cluster: Required<Pick<Cluster, 'services' | 'slices'>> = {
  services: [
    ...packetServices.services,
    // The address of the node itself: it must stay the node's.
    service('demo/node', { clusterIPs: both(50), ports: web, externalIPs: ['203.0.113.1'] }),
  ],
  slices: [...packetServices.slices, slice('demo/node', [one, two], target)],
};

let small: SmallCluster;
let ipvs: IpvsNode;
const clock = new FakeClock();
const opened = new AsyncDisposableStack();
let client: Agent;
let outside: Agent;
let host: Agent;

beforeAll(async () => {
  // A listener of the host, as sshd is.
  small = opened.use(await createSmallCluster(22));
  [client, outside] = [small.agent(small.client), small.agent(small.outside)];
  host = small.agent(small.node);
  ipvs = opened.use(
    await createIpvsNode(small.node, {
      clock,
      excludeCIDRs: ['192.0.2.0/24'],
      others: [nets.ip.outside],
    }),
  );
  await ipvs.write(cluster);
});
afterAll(() => opened.disposeAsync());

describe.each(families)('%s', (family) => {
  testServicePackets(family, () => small, {
    servesLocalhost: false,
    localForAll: true,
    // In turns.
    attempts: 2,
    patienceMs: 10_000,
  });

  const { gateway, node, vip } = nets[family];
  const from = async (agent: Agent, to: string, port = 80, count = 1): Promise<string[]> =>
    [...new Set(await agent.ask({ host: to, port, count, timeoutMs: 10_000 }))].toSorted();

  it('S132. a node port answers outsiders on each address of the node', async () => {
    for (const address of [node, gateway(1), gateway(2)]) {
      expect(await from(outside, address, nodePorts.both, 2)).toHaveLength(2);
    }
  });

  it('no listener of the host answers on Service addresses, and all do on its own', async () => {
    const address = `${vip}${numbers.both}`;
    expect(await from(client, address, 22)).toEqual(['ECONNREFUSED']);
    expect(await from(host, address, 22)).toEqual(['ECONNREFUSED']);
    expect((await from(outside, node, 22)).join()).toMatch(/^node /);
  });
});

testIpvsChanges(() => ({ small, ipvs, clock, cluster }));

it("an external address that is the node's is served and stays the node's", async () => {
  const seen = await outside.ask({ host: '203.0.113.1', port: 80, count: 2 });
  expect(seen.toSorted()).toEqual(['one 10.1.2.1', 'two 10.1.3.1']);
  expect(await small.node.ip('-o addr show to 203.0.113.1')).not.toContain('kube-ipvs0');
  const without = cluster.services.filter(({ name }) => name !== 'node');
  await ipvs.write({ ...cluster, services: without }, new Set(['demo/node:web/tcp']));
  expect(await small.node.ip('-o addr show to 203.0.113.1')).toContain('203.0.113.1');
  await ipvs.write(cluster, new Set(['demo/node:web/tcp']));
});

it("an external address that is another node's is served to this host, and stays that node's", async () => {
  const other = service('demo/other', {
    clusterIPs: both(51),
    ports: web,
    externalIPs: [nets.ip.outside],
  });
  const more = {
    services: [...cluster.services, other],
    slices: [...cluster.slices, slice('demo/other', [one, two], target)],
  };
  const key = new Set(['demo/other:web/tcp']);
  await ipvs.write(more, key);
  expect(await ipvs.differences()).toEqual([]);
  const seen = await host.ask({ host: nets.ip.outside, port: 80, count: 2 });
  expect(seen.toSorted()).toEqual(['one 10.1.2.1', 'two 10.1.3.1']);
  // As an address of this host it would be one of the table "local", and no packet would leave.
  expect(await small.node.ip(`route get ${nets.ip.outside}`)).not.toMatch(/^local /);
  await small.node.exec('ping', ['-c', '1', '-W', '10', nets.ip.outside]);
  await small.client.exec('ping', ['-c', '1', '-W', '10', nets.ip.outside]);
  await ipvs.write(cluster, key);
});

it("S133. addresses of Services are not the host's: no node port on them", async () => {
  const { stdout } = await small.node.exec('ipvsadm', ['-S', '-n']);
  expect(stdout).toMatch(/^-A -t 203\.0\.113\.1:30080 /m);
  expect(stdout).not.toMatch(/^-A -t (?:172\.30|198\.51)\S*:30\d{3} /m);
});

it('UDP: an endpoint that goes gets no more packets, at once', async () => {
  const services = [
    ...cluster.services,
    service('demo/udp', {
      clusterIPs: ['172.30.0.20'],
      ports: [{ name: 'dns', protocol: 'UDP', port: 53, nodePort: 0 }],
    }),
  ];
  const dns = { ports: [{ name: 'dns', protocol: 'UDP', port: 8080 }] } as const;
  const to = (endpoints: Endpoints): Cluster => ({
    services,
    slices: [...cluster.slices, slice('demo/udp', endpoints, dns)],
  });
  const ask = {
    host: '172.30.0.20',
    port: 53,
    protocol: 'udp',
    count: 2,
    timeoutMs: 3000,
  } as const;
  await ipvs.write(to([two]), new Set(['demo/udp:dns/udp']));
  expect(await client.ask(ask)).toEqual(['two 10.1.1.2', 'two 10.1.1.2']);
  await ipvs.write(to([]), new Set(['demo/udp:dns/udp']));
  expect((await client.ask({ ...ask, count: 1 }))[0]).toBe('ECONNREFUSED');
  const { stdout } = await small.node.exec('ipvsadm', ['-S', '-n']);
  expect(stdout).not.toContain('172.30.0.20');
  await ipvs.write(cluster, new Set(['demo/udp:dns/udp']));
});

describe.each(families)('SCTP, %s', (family) => {
  const { node, pod, vip } = nets[family];
  it('S155. a client reaches the endpoint, and the node need not load the module of SCTP for it', async () => {
    const sctp = service('demo/sctp', {
      type: 'NodePort',
      clusterIPs: both(30),
      ports: [{ name: 's', protocol: 'SCTP', port: 80, nodePort: 30_030 }],
    });
    const endpoints = slice('demo/sctp', [pod(3)], {
      ports: [{ name: 's', protocol: 'SCTP', port: 7000 }],
    });
    const more = {
      services: [...cluster.services, sctp],
      slices: [...cluster.slices, endpoints],
    };
    const key = new Set(['demo/sctp:s/sctp']);
    const { client, servers } = small;
    const attempt = { server: servers[1], serverPort: 7000, client, address: `${vip}30`, port: 80 };
    const hasModule = (): boolean => /^sctp /m.test(readFileSync('/proc/modules', 'utf8'));
    const had = hasModule();
    await ipvs.write(more, key);
    // Sockets of the host need it, those of the two below; the Service does not.
    expect(hasModule()).toBe(had);
    if (family === 'ip') expect(had).toBe(false);
    expect(await helloOverSctp(attempt)).toBe('hello');
    // Masqueraded, which sets of this protocol's own ask for.
    const fromOutside = { ...attempt, client: small.outside, address: node, port: 30_030 };
    expect(await helloOverSctp(fromOutside)).toBe('hello');
    const save = family === 'ip' ? 'iptables-save' : 'ip6tables-save';
    const { stdout: rules } = await small.node.exec(save, ['-t', 'nat', '-c']);
    const ofSctp = /^\[(\d+):\d+\] .* KUBE-\S*NODE-PORT-SCTP-HASH dst,dst -j KUBE-MARK-MASQ$/m;
    expect(Number(ofSctp.exec(rules)?.[1])).toBeGreaterThan(0);
    await ipvs.write(cluster, key);
  });
});

it('a port with an endpoint that the kernel refuses is left out, the others are served', async () => {
  const bad = service('demo/bad', { clusterIPs: ['172.30.0.40'], ports: web });
  const more = {
    services: [...cluster.services, bad],
    // A link's broadcast address takes no connections: net/netfilter/ipvs/ip_vs_ctl.c, -EINVAL.
    slices: [...cluster.slices, slice('demo/bad', ['10.1.3.255'], target)],
  };
  const key = new Set(['demo/bad:web/tcp']);
  await ipvs.write(more, key);
  expect(ipvs.parked).toEqual(['bad']);
  const { stdout } = await small.node.exec('ipvsadm', ['-S', '-n']);
  expect(stdout).not.toContain('172.30.0.40');
  expect((await ipvs.write(more, new Set())).ip).toEqual({ kind: 'partial', written: 0 });
  expect(await ipvs.differences()).toEqual([]);
  await ipvs.write(cluster, key);
});

it('what others change is seen without reading everything', async () => {
  expect(await ipvs.differences()).toEqual([]);
  const changes = [
    ['ipvsadm', '-d', '-t', '172.30.0.1:80', '-r', '10.1.3.2:8080'],
    ['ipvsadm', '-E', '-t', '172.30.0.3:80', '-s', 'rr', '-p', '60', '-M', '255.255.255.0'],
    ['ipset', 'flush', 'KUBE-6-CLUSTER-IP'],
    ['ip', 'addr', 'del', '172.30.0.2/32', 'dev', 'kube-ipvs0'],
  ];
  for (const [file = '', ...args] of changes) await small.node.exec(file, args);
  expect(await ipvs.differences()).toEqual([
    ...[1, 3].map((n) => `virtual server -t 172.30.0.${n}:80 is another one`),
    'address 172.30.0.2 is gone',
    expect.stringMatching(/^set KUBE-6-CLUSTER-IP has 0 of /),
  ]);
  ipvs.restart();
  await ipvs.write(cluster);
  expect(await ipvs.differences()).toEqual([]);
});

it('S137. a connection through an endpoint that leaves goes on until it ends', async () => {
  const services = [
    ...cluster.services,
    service('demo/stream', {
      clusterIPs: ['172.30.0.21'],
      ports: [{ name: 's', protocol: 'TCP', port: 80, nodePort: 0 }],
    }),
  ];
  const key = new Set(['demo/stream:s/tcp']);
  const to = (...endpoints: Endpoints): Cluster => ({
    services,
    slices: [
      ...cluster.slices,
      slice('demo/stream', endpoints, { ports: [{ name: 's', protocol: 'TCP', port: 8081 }] }),
    ],
  });
  const weights = async (): Promise<Record<string, string>> => {
    const { stdout } = await small.node.exec('ipvsadm', ['-S', '-n']);
    const found = stdout.matchAll(/^-a -t 172\.30\.0\.21:80 -r (\S+):8081 -m -w (\d+)/gm);
    return Object.fromEntries([...found].map(([, real, weight]) => [real, weight]));
  };
  await ipvs.write(to(one), key);
  await client.openStream('s', { host: '172.30.0.21', port: 80 });
  await ipvs.write(to(two), key);
  expect(await weights()).toEqual({ '10.1.2.2': '0', '10.1.3.2': '1' });
  await clock.advance(20_000);
  await ipvs.write(to(two), new Set());
  expect(await weights()).toEqual({ '10.1.2.2': '0', '10.1.3.2': '1' });
  // Back again, and the other one leaves, which has no connection: it goes with the next look.
  await ipvs.write(to(one), key);
  expect(await weights()).toEqual({ '10.1.2.2': '1', '10.1.3.2': '0' });
  await clock.advance(20_000);
  await ipvs.write(to(one), new Set());
  expect(await weights()).toEqual({ '10.1.2.2': '1' });
  const { answered, error } = await client.closeStream('s', 15_000);
  expect({ answered: answered > 0, error }).toEqual({ answered: true, error: undefined });
  await ipvs.write(cluster, key);
});

it('a change costs commands for that Service only', async () => {
  ipvs.takeCalls();
  const fewer = {
    ...cluster,
    slices: cluster.slices.filter(({ name }) => name !== 'self-ip-8080-2'),
  };
  const key = new Set(['demo/self:web/tcp']);
  expect((await ipvs.write(fewer, key)).ip).toEqual({ kind: 'partial', written: 3 });
  expect(ipvs.takeCalls()).toEqual({ applyServers: 1, applySets: 1 });
  await ipvs.write(cluster, key);
});

it('S138. virtual servers with addresses of excludeCIDRs stay, others of nobody go', async () => {
  for (const address of ['192.0.2.1', '192.0.3.1']) {
    await small.node.exec('ipvsadm', ['-A', '-t', `${address}:80`, '-s', 'rr']);
  }
  ipvs.restart();
  await ipvs.write(cluster);
  const { stdout } = await small.node.exec('ipvsadm', ['-S', '-n']);
  expect(stdout).toContain('-A -t 192.0.2.1:80');
  expect(stdout).not.toContain('-A -t 192.0.3.1:80');
});

it('a second proxy finds nothing to do', async () => {
  ipvs.restart();
  expect(await ipvs.write(cluster)).toEqual({
    ip: { kind: 'full', written: 0 },
    ip6: { kind: 'full', written: 0 },
  });
});
