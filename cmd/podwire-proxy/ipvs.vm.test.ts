/** Real packets through ipvs mode, in the VM: most kernels that tests run on have no IPVS. */
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { FakeClock } from '#pkg/clock/fake-clock.ts';
import type { Family } from '#pkg/ip/address.ts';
import type { Agent } from '#pkg/proxy/testdata/agent.ts';
import { nodeName, service, slice, type Cluster } from '#pkg/proxy/testdata/records.ts';
import { createSmallCluster, type SmallCluster } from '#pkg/proxy/testdata/small-cluster.ts';
import { helloOverSctp } from '#pkg/proxy/testdata/sctp.ts';
import { createIpvsNode, type IpvsNode } from './scratch/ipvs-node.ts';

const web = (nodePort = 0): Cluster['services'][number]['ports'] => [
  { name: 'web', protocol: 'TCP', port: 80, nodePort },
];
const target = { ports: [{ name: 'web', protocol: 'TCP', port: 8080 }] } as const;
const both = (n: number): [string, string] => [`172.30.0.${n}`, `fd00:96::${n}`];
const onNode = (address: string) => ({ address, nodeName });
const slices = (name: string, v4: Endpoints, v6: Endpoints): Cluster['slices'] => [
  slice(`demo/${name}`, v4, target),
  slice(`demo/${name}`, v6, target),
];
type Endpoints = Parameters<typeof slice>[1];
const one = { v4: onNode('10.1.2.2'), v6: onNode('fd00:10:2::2') };
const two = { v4: '10.1.3.2', v6: 'fd00:10:3::2' };

const cluster: Required<Pick<Cluster, 'services' | 'slices'>> = {
  services: [
    service('demo/both', { type: 'NodePort', clusterIPs: both(1), ports: web(30080) }),
    service('demo/none', { type: 'NodePort', clusterIPs: both(2), ports: web(30081) }),
    service('demo/self', { clusterIPs: both(3), ports: web() }),
    service('demo/sticky', { clusterIPs: both(4), ports: web(), affinitySeconds: 60 }),
    service('demo/here', {
      clusterIPs: both(5),
      ports: web(),
      internalTrafficPolicy: 'Local',
    }),
    service('demo/elsewhere', {
      clusterIPs: both(6),
      ports: web(),
      internalTrafficPolicy: 'Local',
    }),
    service('demo/ext-here', {
      type: 'NodePort',
      clusterIPs: both(7),
      ports: web(30087),
      externalTrafficPolicy: 'Local',
      externalIPs: ['198.51.100.7', '2001:db8:51::7'],
    }),
    service('demo/ext-elsewhere', {
      type: 'NodePort',
      clusterIPs: both(8),
      ports: web(30088),
      externalTrafficPolicy: 'Local',
      externalIPs: ['198.51.100.8', '2001:db8:51::8'],
    }),
    service('demo/guarded', {
      type: 'LoadBalancer',
      clusterIPs: both(9),
      ports: web(30089),
      loadBalancerIngress: [
        { ip: '198.51.100.9', ipMode: 'VIP' },
        { ip: '2001:db8:51::9', ipMode: 'VIP' },
      ],
      loadBalancerSourceRanges: ['192.0.2.0/24', '2001:db8:ffff::/48'],
    }),
    // The address of the node itself: it must stay the node's.
    service('demo/node', { clusterIPs: both(10), ports: web(), externalIPs: ['203.0.113.1'] }),
  ],
  slices: [
    ...['both', 'sticky', 'guarded', 'node'].flatMap(
      (name) => slices(name, [one.v4, two.v4], [one.v6, two.v6]) ?? [],
    ),
    ...['self', 'here', 'ext-here'].flatMap((name) => slices(name, [one.v4], [one.v6]) ?? []),
    ...['elsewhere', 'ext-elsewhere'].flatMap((name) => slices(name, [two.v4], [two.v6]) ?? []),
  ],
};

let small: SmallCluster;
let ipvs: IpvsNode;
const clock = new FakeClock();
const agents = new AsyncDisposableStack();
let client: Agent;
let outside: Agent;
let host: Agent;

beforeAll(async () => {
  // A listener of the host, as sshd is.
  small = agents.use(await createSmallCluster(22));
  [client, outside] = [small.agent(small.client), small.agent(small.outside)];
  host = small.agent(small.node);
  ipvs = agents.use(await createIpvsNode(small.node, { clock, excludeCIDRs: ['192.0.2.0/24'] }));
  await ipvs.write(cluster);
});
afterAll(() => agents.disposeAsync());

const nets = [
  { family: 'ip', vip: '172.30.0.', ext: '198.51.100.', node: '203.0.113.1', pod: '10.1.' },
  { family: 'ip6', vip: 'fd00:96::', ext: '2001:db8:51::', node: '2001:db8::1', pod: 'fd00:10:' },
] as const satisfies readonly { family: Family; [key: string]: string }[];

describe.each(nets)('$family', ({ ext, family, node, pod: net, vip }) => {
  const at = (n: number, host: number): string =>
    family === 'ip' ? `${net}${n}.${host}` : `${net}${n}::${host}`;
  const pod = (n: number): string => at(n, 2);
  const gateway = (n: number): string => at(n, 1);
  const from = async (agent: Agent, to: string, port = 80, count = 1): Promise<string[]> =>
    [...new Set(await agent.ask({ host: to, port, count, timeoutMs: 5000 }))].toSorted();
  const isDropped = async (agent: Agent, host: string, port = 80): Promise<boolean> =>
    (await agent.ask({ host, port, timeoutMs: 700 }))[0] === 'TIMEOUT';

  it('a pod reaches both endpoints of a cluster address, keeping its own address', async () => {
    const answers = await client.ask({ host: `${vip}1`, port: 80, count: 10 });
    const counts = [`one ${pod(1)}`, `two ${pod(1)}`].map(
      (answer) => answers.filter((a) => a === answer).length,
    );
    expect(counts).toEqual([5, 5]);
  });

  it('the node reaches it and is answered', async () => {
    expect(await from(host, `${vip}1`, 80, 4)).toEqual([`one ${gateway(2)}`, `two ${gateway(3)}`]);
  });

  it('without endpoints a connection is refused, to the cluster address and to node ports', async () => {
    expect(await from(client, `${vip}2`)).toEqual(['ECONNREFUSED']);
    expect(await from(host, `${vip}2`)).toEqual(['ECONNREFUSED']);
    expect(await from(outside, node, 30081)).toEqual(['ECONNREFUSED']);
  });

  it('a pod reaches itself through its Service, seeing the node as the client', async () => {
    expect(await from(small.agent(small.servers[0]), `${vip}3`)).toEqual([`one ${gateway(2)}`]);
  });

  it('S132. a node port answers outsiders on each address of the node, masqueraded', async () => {
    for (const address of [node, gateway(1)]) {
      const seen = await from(outside, address, 30080, 4);
      expect(seen).toEqual([`one ${gateway(2)}`, `two ${gateway(3)}`]);
    }
  });

  it('an outsider reaches a cluster address, and is masqueraded', async () => {
    const seen = await from(outside, `${vip}1`, 80, 4);
    expect(seen).toEqual([`one ${gateway(2)}`, `two ${gateway(3)}`]);
  });

  it('with affinity a client stays with its endpoint', async () => {
    expect(await from(client, `${vip}4`, 80, 6)).toHaveLength(1);
  });

  it('internal policy Local: endpoints of this node only, and nothing where there are none', async () => {
    expect(await from(client, `${vip}5`, 80, 3)).toEqual([`one ${pod(1)}`]);
    expect(await isDropped(client, `${vip}6`)).toBe(true);
    expect(await isDropped(host, `${vip}6`)).toBe(true);
  });

  it('external policy Local: the client keeps its address', async () => {
    const outsider = family === 'ip' ? '203.0.113.2' : '2001:db8::2';
    expect(await from(outside, node, 30087)).toEqual([`one ${outsider}`]);
    expect(await from(outside, `${ext}7`)).toEqual([`one ${outsider}`]);
  });

  it('S136. external policy Local without an endpoint here: outsiders are dropped, pods and the node are not', async () => {
    expect(await isDropped(outside, node, 30088)).toBe(true);
    expect(await isDropped(outside, `${ext}8`)).toBe(true);
    expect(await from(client, `${ext}8`)).toEqual([`two ${pod(1)}`]);
    expect(await from(host, `${ext}8`)).toEqual([`two ${gateway(3)}`]);
  });

  it('S135. source ranges drop who is not in them, at the load balancer address only', async () => {
    expect(await isDropped(outside, `${ext}9`)).toBe(true);
    expect(await from(outside, node, 30089, 2)).toHaveLength(2);
  });

  it('no listener of the host answers on Service addresses, and all do on its own', async () => {
    expect(await from(client, `${vip}1`, 22)).toEqual(['ECONNREFUSED']);
    expect(await from(host, `${vip}1`, 22)).toEqual(['ECONNREFUSED']);
    expect((await from(outside, node, 22)).join()).toMatch(/^node /);
  });
});

it("an external address that is the node's is served and stays the node's", async () => {
  const seen = await outside.ask({ host: '203.0.113.1', port: 80, count: 2 });
  expect(seen.toSorted()).toEqual(['one 10.1.2.1', 'two 10.1.3.1']);
  expect(await small.node.ip('-o addr show to 203.0.113.1')).not.toContain('kube-ipvs0');
  const without = cluster.services.filter(({ name }) => name !== 'node');
  await ipvs.write({ ...cluster, services: without }, new Set(['demo/node:web/tcp']));
  expect(await small.node.ip('-o addr show to 203.0.113.1')).toContain('203.0.113.1');
  await ipvs.write(cluster, new Set(['demo/node:web/tcp']));
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
  await ipvs.write(to([two.v4]), new Set(['demo/udp:dns/udp']));
  expect(await client.ask(ask)).toEqual(['two 10.1.1.2', 'two 10.1.1.2']);
  await ipvs.write(to([]), new Set(['demo/udp:dns/udp']));
  expect((await client.ask({ ...ask, count: 1 }))[0]).toBe('ECONNREFUSED');
  const { stdout } = await small.node.exec('ipvsadm', ['-S', '-n']);
  expect(stdout).not.toContain('172.30.0.20');
  await ipvs.write(cluster, new Set(['demo/udp:dns/udp']));
});

describe.each(nets)('SCTP, $family', ({ family, vip }) => {
  it('S155. a client reaches the endpoint, and is refused when there is none; the module stays away', async () => {
    const sctp = service('demo/sctp', {
      clusterIPs: both(30),
      ports: [{ name: 's', protocol: 'SCTP', port: 80, nodePort: 0 }],
    });
    const to = (endpoints: Endpoints): Cluster => ({
      services: [...cluster.services, sctp],
      slices: [
        ...cluster.slices,
        slice('demo/sctp', endpoints, { ports: [{ name: 's', protocol: 'SCTP', port: 7000 }] }),
      ],
    });
    const key = new Set(['demo/sctp:s/sctp']);
    const { client, servers } = small;
    const attempt = { server: servers[1], serverPort: 7000, client, address: `${vip}30`, port: 80 };
    const hasModule = (): boolean => /^sctp /m.test(readFileSync('/proc/modules', 'utf8'));
    const had = hasModule();
    await ipvs.write(to([family === 'ip' ? two.v4 : two.v6]), key);
    // Sockets of the host need it, those of the two below; the Service does not.
    expect(hasModule()).toBe(had);
    if (family === 'ip') expect(had).toBe(false);
    expect(await helloOverSctp(attempt)).toBe('hello');
    await ipvs.write(to([]), key);
    await expect(helloOverSctp(attempt)).rejects.toThrow(/ECONNREFUSED/);
    await ipvs.write(cluster, key);
  });
});

it('a port with an endpoint that the kernel refuses is left out, the others are served', async () => {
  const bad = service('demo/bad', { clusterIPs: ['172.30.0.40'], ports: web() });
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
    ['ipset', 'flush', 'KUBE-6-CLUSTER-IP'],
    ['ip', 'addr', 'del', '172.30.0.2/32', 'dev', 'kube-ipvs0'],
  ];
  for (const [file = '', ...args] of changes) await small.node.exec(file, args);
  expect(await ipvs.differences()).toEqual([
    'virtual server -t 172.30.0.1:80 is another one',
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
  await ipvs.write(to(one.v4), key);
  await client.openStream('s', { host: '172.30.0.21', port: 80 });
  await ipvs.write(to(two.v4), key);
  expect(await weights()).toEqual({ '10.1.2.2': '0', '10.1.3.2': '1' });
  await clock.advance(20_000);
  await ipvs.write(to(two.v4), new Set());
  expect(await weights()).toEqual({ '10.1.2.2': '0', '10.1.3.2': '1' });
  // Back again, and the other one leaves, which has no connection: it goes with the next look.
  await ipvs.write(to(one.v4), key);
  expect(await weights()).toEqual({ '10.1.2.2': '1', '10.1.3.2': '0' });
  await clock.advance(20_000);
  await ipvs.write(to(one.v4), new Set());
  expect(await weights()).toEqual({ '10.1.2.2': '1' });
  const { answered, error } = await client.closeStream('s');
  expect({ answered: answered > 0, error }).toEqual({ answered: true, error: undefined });
  await ipvs.write(cluster, key);
});

it('a change costs commands for that Service only', async () => {
  ipvs.takeCalls();
  const fewer = {
    ...cluster,
    slices: cluster.slices.filter(({ name }) => name !== 'self-v4'),
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
