import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startScratchEtcd, type ScratchEtcd } from '#pkg/etcd/scratch-etcd.ts';
import { buildDaemon, createDaemons, type Daemon } from './scratch/daemon.ts';
import {
  createThreeNodes,
  startPing,
  type NodeName,
  type Pinger,
  type ThreeNodes,
} from './scratch/three-nodes.ts';

/**
 * Three agents and an etcd, no Kubernetes, as in flannel's own guide. Nodes a and b share L2 and
 * use the tunnel all the same, which is flannel's default.
 */
const netConf = JSON.stringify({
  Network: '10.244.0.0/16',
  SubnetMin: '10.244.1.0',
  SubnetMax: '10.244.3.0',
  EnableIPv6: true,
  IPv6Network: 'fd00:10:244::/48',
  IPv6SubnetMin: 'fd00:10:244:1::',
  IPv6SubnetMax: 'fd00:10:244:3::',
  Backend: { Type: 'vxlan', VNI: 3 },
});

const slow = { timeout: 60_000, interval: 50 };
/** Before a daemon looks at everything unasked, which is 30 s after its last round. */
const noticed = { timeout: 20_000, interval: 50 };
const subnets = '/coreos.com/network/subnets/';
const keyOf = (n: number): string => `${subnets}10.244.${n}.0-24&fd00:10:244:${n}::-64`;

const opened = new AsyncDisposableStack();
let network: ThreeNodes;
let etcd: ScratchEtcd;
let dir: string;
let start: (name: NodeName) => Promise<Daemon>;

beforeAll(async () => {
  await buildDaemon();
  dir = await mkdtemp(join(tmpdir(), 'podwire-etcd-nodes-'));
  opened.defer(() => rm(dir, { recursive: true, force: true }));
  network = opened.use(await createThreeNodes());
  const listen = 'http://192.168.1.254:2379';
  etcd = opened.use(await startScratchEtcd({ netns: network.router, listen }));
  const daemons = opened.use(createDaemons(dir));
  // The first endpoint has nobody: it goes on to the next.
  const endpoints = `["http://192.168.1.254:2378", "${listen}"]`;
  start = (name) =>
    daemons.start(
      network.nodes[name],
      [],
      `etcd: { endpoints: ${endpoints} }\nhealthBindAddress: 127.0.0.1:9964\n`,
    );
});
afterAll(() => opened.disposeAsync());

const pod = (name: NodeName, family: 'ip' | 'ip6'): string => network.nodes[name].pods[family];

function ping(from: NodeName, to: NodeName, family: 'ip' | 'ip6'): Promise<Pinger> {
  return startPing(network.nodes[from].netns, pod(from, family), pod(to, family));
}

async function reaches(from: NodeName, to: NodeName, family: 'ip' | 'ip6'): Promise<void> {
  const pinger = await ping(from, to, family);
  await expect.poll(() => pinger.answered(), slow).toBeGreaterThan(3);
  await pinger.stop();
}

async function leaseOf(key: string): Promise<{ value: object; lease: string | undefined }> {
  const { kvs = [] } = JSON.parse(await etcd.ctl('get', '-w', 'json', key)) as {
    kvs?: readonly { value: string; lease?: number }[];
  };
  const text = Buffer.from(kvs[0]?.value ?? '', 'base64').toString();
  // The lease's ID is too long for JSON.parse.
  const listed = (await etcd.ctl('lease', 'list')).split('\n').slice(1);
  let lease: string | undefined;
  for (const id of listed) {
    if ((await etcd.ctl('lease', 'timetolive', '--keys', id)).includes(key)) lease = id;
  }
  return { value: JSON.parse(text) as object, lease };
}

describe('three agents and etcd', () => {
  let a: Daemon;
  let b: Daemon;

  test('waits for the configuration of the network and says so', async () => {
    a = await start('a');
    const fetched = "await (await fetch('http://127.0.0.1:9964/healthz')).text()";
    const script = ['--input-type=module', '-e', `process.stdout.write(${fetched})`];
    const healthz = async (): Promise<string> =>
      (await network.nodes.a.netns.exec(process.execPath, script)).stdout;
    const missing = 'etcd has no key /coreos.com/network/config';
    await expect.poll(() => a.log(), slow).toContain(missing);
    await expect.poll(healthz, slow).toContain(missing);
    await a.kill('SIGTERM');
  });

  test('127. a reservation, a previous subnet and a free one make one network', async () => {
    await etcd.ctl('put', '/coreos.com/network/config', netConf);
    await etcd.ctl('put', keyOf(3), '{"PublicIP":"192.168.2.3","PublicIPv6":"fd00:2::3"}');
    await etcd.ctl('put', `${subnets}10.244.1.1-24`, '{"PublicIP":"9.9.9.9"}');
    await mkdir(join(dir, 'b/run'), { recursive: true });
    const previous = 'FLANNEL_SUBNET=10.244.2.1/24\nFLANNEL_IPV6_SUBNET=fd00:10:244:2::1/64\n';
    await writeFile(join(dir, 'b/run/subnet.env'), previous);
    b = await start('b');
    await expect.poll(() => b.log(), slow).toContain('Pod network is ready');
    const c = await start('c');
    await expect.poll(() => c.log(), slow).toContain('Pod network is ready');
    a = await start('a');
    for (const family of ['ip', 'ip6'] as const) {
      await reaches('a', 'b', family);
      await reaches('a', 'c', family);
      await reaches('c', 'b', family);
    }
    expect(await readFile(join(dir, 'a/run/subnet.env'), 'utf8')).toBe(
      'FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\n' +
        'FLANNEL_IPV6_NETWORK=fd00:10:244::/48\nFLANNEL_IPV6_SUBNET=fd00:10:244:1::1/64\n' +
        'FLANNEL_MTU=1430\nFLANNEL_IPMASQ=true\n',
    );
    const own = await leaseOf(keyOf(1));
    expect(own.lease).toBeDefined();
    expect(own.value).toEqual({
      PublicIP: '192.168.1.1',
      PublicIPv6: 'fd00:1::1',
      BackendType: 'vxlan',
      BackendData: { VNI: 3, VtepMAC: expect.stringMatching(/^[0-9a-f:]{17}$/) as unknown },
      BackendV6Data: { VNI: 3, VtepMAC: expect.stringMatching(/^[0-9a-f:]{17}$/) as unknown },
    });
    const reservation = await leaseOf(keyOf(3));
    expect(reservation.lease).toBeUndefined();
    expect(reservation.value).toMatchObject({ BackendType: 'vxlan' });
    expect(await network.nodes.a.netns.ip('route show proto 220')).toContain('dev podwire.3');
    await expect.poll(() => a.log()).toContain('Cannot read a subnet in etcd');
  });

  test('a lease that is lost is told, and another taken', async () => {
    const pinger = await ping('c', 'a', 'ip');
    await expect.poll(() => pinger.answered(), slow).toBeGreaterThan(3);
    const { lease = '' } = await leaseOf(keyOf(1));
    await etcd.ctl('lease', 'revoke', lease);
    await expect.poll(() => a.log(), slow).toContain('gone from etcd, by hand or because');
    await expect.poll(async () => (await leaseOf(keyOf(1))).lease, slow).not.toBe(undefined);
    await expect
      .poll(async () => (await leaseOf(keyOf(1))).value, slow)
      .toHaveProperty('BackendData');
    await reaches('c', 'a', 'ip');
    // The others take their routes away when the key goes, and the tunnel's other end may be first.
    const answered = pinger.answered();
    await expect.poll(() => pinger.answered(), noticed).toBeGreaterThan(answered + 20);
    await pinger.stop();
  });

  test('128. what happens while etcd is away is repaired, and what happened there follows', async () => {
    const pinger = await ping('a', 'b', 'ip');
    await expect.poll(() => pinger.answered(), slow).toBeGreaterThan(3);
    await etcd.stop();
    await expect.poll(() => a.log(), slow).toContain('Nodes in etcd: starting over');
    await network.nodes.a.netns.ip('route del 10.244.2.0/24');
    const answered = pinger.answered();
    await expect.poll(() => pinger.answered(), noticed).toBeGreaterThan(answered + 20);
    await pinger.stop();

    await etcd.start();
    await b.kill('SIGTERM');
    await etcd.ctl('del', keyOf(2));
    const routes = (): Promise<string> => network.nodes.a.netns.ip('route show proto 220');
    await expect.poll(routes, slow).not.toContain('10.244.2.0/24');
    expect(await routes()).toContain('10.244.3.0/24');
  });

  test('128. another configuration is told, and the lease is kept', async () => {
    const { lease } = await leaseOf(keyOf(1));
    await etcd.ctl('put', '/coreos.com/network/config', `${netConf} `);
    await expect.poll(() => a.log(), slow).toContain('configuration of the network has changed');
    expect((await leaseOf(keyOf(1))).lease).toBe(lease);
  });

  test('138. started again, it has its subnet again', async () => {
    await a.kill('SIGKILL');
    const again = await start('a');
    await expect.poll(() => again.log(), slow).toContain('Pod network is ready');
    await expect.poll(() => again.log()).toContain('"subnet":"10.244.1.0-24&fd00:10:244:1::-64"');
    expect(again.log()).not.toContain('Masquerade table changed');
    expect(await etcd.ctl('get', '--prefix', '--keys-only', `${subnets}10.244.1.0`)).toContain(
      keyOf(1),
    );
    await reaches('a', 'c', 'ip6');
  });
});
