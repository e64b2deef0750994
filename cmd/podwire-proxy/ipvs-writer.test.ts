import { beforeEach, describe, expect, it } from 'vitest';
import { FakeClock } from '#pkg/clock/fake-clock.ts';
import { messageOf } from '#pkg/errors/agent-error.ts';
import { silentLogger } from '#pkg/log/logger.ts';
import { service, slice, snapshot, type Cluster } from '#pkg/proxy/testdata/records.ts';
import { portKey } from '#pkg/proxy/proxied-port.ts';
import { createIpvsWriter, type IpvsWriter } from './ipvs-writer.ts';
import { FakeIpvsKernel } from './scratch/fake-ipvs-kernel.ts';
import type { RulesWriter } from './rules-writer.ts';

const signal = new AbortController().signal;

const rules = (): RulesWriter => ({
  writeAll: async () => [],
  writeChange: async () => [],
  doubt: () => undefined,
  nextKind: 'partial',
  isKnown: true,
  attempted: [],
});

let kernel: FakeIpvsKernel;
let clock: FakeClock;
let writer: IpvsWriter;
let parked: string[];
let masqueradeAll: boolean;
let otherHosts: ReadonlySet<string>;

function createWriter(observeIntervalMs = 3_600_000): IpvsWriter {
  return createIpvsWriter({
    family: 'ip',
    driver: kernel,
    rules: rules(),
    options: (_, own) => ({
      family: 'ip',
      scheduler: 'rr',
      schedulerFlags: '',
      masqueradeBit: 14,
      masqueradeAll,
      localDetector: { kind: 'none' },
      nodePortAddresses: own,
      hostAddresses: own,
      nodeAddress: '192.168.0.2',
      randomFully: true,
    }),
    otherHosts: () => otherHosts,
    isOurs: () => true,
    observeIntervalMs,
    onParked: ({ name }, error) => parked.push(`${name}: ${messageOf(error)}`),
    clock,
    log: silentLogger,
  });
}

const cluster = (...endpoints: string[]): Cluster => ({
  services: [
    service('a/a', { clusterIPs: ['10.96.0.1'] }),
    service('a/b', { clusterIPs: ['10.96.0.2'] }),
  ],
  slices: [slice('a/a', endpoints), slice('a/b', ['10.1.0.9'])],
});

async function write(to: Cluster, ...changed: string[]) {
  const { ports } = snapshot(to);
  const want = new Map(ports.map((port) => [portKey(port), port]));
  const keys = changed.length === 0 ? ('all' as const) : new Set(changed);
  return await writer.write({ ports: want, changed: keys, node: undefined }, signal);
}

beforeEach(() => {
  kernel = new FakeIpvsKernel();
  clock = new FakeClock(1_000_000);
  parked = [];
  masqueradeAll = false;
  otherHosts = new Set();
  writer = createWriter();
});

describe('ipvs writer', () => {
  it('serves before it leads packets there: server, sets, address', async () => {
    await write(cluster('10.1.0.2'));
    const lines = kernel.take();
    const at = (line: string): number => lines.indexOf(line);
    expect(at('ipvsadm -a -t 10.96.0.1:80 -r 10.1.0.2:80 -m -w 1')).toBeGreaterThan(-1);
    expect(at('ipset add KUBE-CLUSTER-IP 10.96.0.1,tcp:80')).toBeGreaterThan(
      at('ipvsadm -a -t 10.96.0.1:80 -r 10.1.0.2:80 -m -w 1'),
    );
    expect(at('ip addr add 10.96.0.1')).toBeGreaterThan(
      at('ipset add KUBE-CLUSTER-IP 10.96.0.1,tcp:80'),
    );
  });

  it('no listener of the host is open on an address that goes: it goes before its guard', async () => {
    await write(cluster('10.1.0.2'));
    kernel.take();
    await write({ services: cluster().services.slice(1) }, 'a/a:p80/tcp');
    const lines = kernel.take();
    const [bare, guard] = ['ip addr del 10.96.0.1', 'ipset del KUBE-IPVS-IPS 10.96.0.1'];
    expect(lines).toContain(guard);
    expect(lines.indexOf(bare)).toBeGreaterThan(-1);
    expect(lines.indexOf(bare)).toBeLessThan(lines.indexOf(guard));
  });

  it('a change costs what it changes', async () => {
    await write(cluster('10.1.0.2'));
    kernel.take();
    const report = await write(cluster('10.1.0.2', '10.1.0.3'), 'a/a:p80/tcp');
    expect(report).toEqual({ kind: 'partial', written: 1 });
    expect(kernel.take()).toEqual(['ipvsadm -a -t 10.96.0.1:80 -r 10.1.0.3:80 -m -w 1']);
  });

  it('with the last endpoint connections are refused, and the address stays', async () => {
    await write(cluster('10.1.0.2'));
    kernel.take();
    await write(cluster(), 'a/a:p80/tcp');
    expect(kernel.take()).toEqual([
      'ipvsadm -e -t 10.96.0.1:80 -r 10.1.0.2:80 -m -w 0',
      'ipset del KUBE-CLUSTER-IP 10.96.0.1,tcp:80',
      'ipset add KUBE-NO-ENDPOINT 10.96.0.1,tcp:80',
    ]);
  });

  it.each([false, true])(
    'S137. the last endpoint keeps its connections until they end, restart %s',
    async (isRestarted) => {
      await write(cluster('10.1.0.2'));
      kernel.connectionsOf.set('10.1.0.2:80', 2);
      await write(cluster(), 'a/a:p80/tcp');
      kernel.take();
      if (isRestarted) {
        writer = createWriter();
        expect((await write(cluster())).written).toBe(0);
      }
      await clock.advance(20_000);
      await write(cluster(), 'a/b:p80/tcp');
      expect(kernel.take()).toEqual([]);
      expect(writer.known?.servers.get('-t 10.96.0.1:80')?.realServers).toHaveLength(1);
      kernel.connectionsOf.clear();
      await clock.advance(20_000);
      await write(cluster(), 'a/b:p80/tcp');
      expect(kernel.take()).toEqual(['ipvsadm -D -t 10.96.0.1:80']);
      expect(writer.known?.servers.has('-t 10.96.0.1:80')).toBe(false);
      await write(cluster('10.1.0.2'), 'a/a:p80/tcp');
      expect(kernel.take().slice(0, 2)).toEqual([
        'ipvsadm -A -t 10.96.0.1:80 -s rr',
        'ipvsadm -a -t 10.96.0.1:80 -r 10.1.0.2:80 -m -w 1',
      ]);
    },
  );

  it('a Service that goes takes its virtual server with it, connections or not', async () => {
    await write(cluster('10.1.0.2'));
    kernel.connectionsOf.set('10.1.0.2:80', 2);
    await write(cluster(), 'a/a:p80/tcp');
    kernel.take();
    await write({ services: cluster().services.slice(1) }, 'a/a:p80/tcp');
    expect(kernel.take()).toContain('ipvsadm -D -t 10.96.0.1:80');
  });

  it('S140. an address goes with the last port that has it', async () => {
    const ports = (...names: string[]) =>
      names.map((name, i) => ({ name, protocol: 'TCP' as const, port: 80 + i, nodePort: 0 }));
    const of = (...names: string[]): Cluster => ({
      services: [service('a/a', { clusterIPs: ['10.96.0.1'], ports: ports(...names) })],
    });
    await write(of('x', 'y'));
    await write(of('x'), 'a/a:y/tcp');
    expect([...kernel.bound]).toEqual(['10.96.0.1']);
    await write({ services: [] }, 'a/a:x/tcp');
    expect([...kernel.bound]).toEqual([]);
  });

  it('S137. an endpoint that leaves is taken away when its last connection has ended', async () => {
    await write(cluster('10.1.0.2', '10.1.0.3'));
    kernel.take();
    kernel.connectionsOf.set('10.1.0.3:80', 2);
    await write(cluster('10.1.0.2'), 'a/a:p80/tcp');
    expect(kernel.take()).toEqual(['ipvsadm -e -t 10.96.0.1:80 -r 10.1.0.3:80 -m -w 0']);
    await clock.advance(20_000);
    await write(cluster('10.1.0.2'), 'a/b:p80/tcp');
    expect(kernel.take()).toEqual([]);
    kernel.connectionsOf.clear();
    await clock.advance(20_000);
    // Without a change of a port, what was written would be what others had changed.
    expect((await write(cluster('10.1.0.2'), 'a/b:p80/tcp')).written).toBe(0);
    expect(kernel.take()).toEqual(['ipvsadm -d -t 10.96.0.1:80 -r 10.1.0.3:80']);
  });

  it('S137. endpoints that leave many Services together cost one question', async () => {
    const many = (n: number): Cluster => ({
      services: [1, 2, 3].map((i) => service(`a/s${i}`, { clusterIPs: [`10.96.1.${i}`] })),
      slices: [1, 2, 3].map((i) =>
        slice(
          `a/s${i}`,
          Array.from({ length: n }, (_, j) => `10.1.${i}.${j}`),
        ),
      ),
    });
    await write(many(2));
    await write(many(1), ...[1, 2, 3].map((i) => `a/s${i}:p80/tcp`));
    kernel.take();
    kernel.connectionsOf.set('10.1.2.1:80', 1);
    kernel.connectionsAsked = 0;
    await clock.advance(20_000);
    await write(many(1), 'a/s1:p80/tcp');
    expect(kernel.connectionsAsked).toBe(1);
    expect(kernel.take()).toEqual(
      [1, 3].map((i) => `ipvsadm -d -t 10.96.1.${i}:80 -r 10.1.${i}.1:80`),
    );
  });

  it('134, 137. one that comes back, also after a restart, has its weight again', async () => {
    await write(cluster('10.1.0.2', '10.1.0.3'));
    kernel.connectionsOf.set('10.1.0.3:80', 1);
    await write(cluster('10.1.0.2'), 'a/a:p80/tcp');
    kernel.take();
    writer = createWriter();
    await write(cluster('10.1.0.2', '10.1.0.3'));
    expect(kernel.take()).toEqual(['ipvsadm -e -t 10.96.0.1:80 -r 10.1.0.3:80 -m -w 1']);
  });

  it('a set that was found with little room is made anew when it is full', async () => {
    kernel.makeSet('create KUBE-CLUSTER-IP hash:ip,port family inet maxelem 2');
    const { services, slices = [] } = cluster('10.1.0.2');
    await write({ services, slices });
    const third = service('a/c', { clusterIPs: ['10.96.0.3'] });
    const more = {
      services: [...services, third],
      slices: [...slices, slice('a/c', ['10.1.0.4'])],
    };
    expect((await write(more, 'a/c:p80/tcp')).kind).toBe('full');
    expect(kernel.savedSets()).toContain(
      'create KUBE-CLUSTER-IP hash:ip,port family inet maxelem 65536',
    );
    expect(parked).toEqual([]);
  });

  it('a second writer finds nothing to do', async () => {
    await write(cluster('10.1.0.2'));
    writer = createWriter();
    expect(await write(cluster('10.1.0.2'))).toEqual({ kind: 'full', written: 0 });
  });

  it('comparing all takes at most a fiftieth of the time', async () => {
    const interval = 30_000;
    writer = createWriter(interval);
    kernel.onRead = () => clock.advance(2_000);
    await write(cluster('10.1.0.2'));
    const kindAfter = async (ms: number): Promise<string> => {
      await clock.advance(ms);
      return (await write(cluster('10.1.0.2'), 'a/a:p80/tcp')).kind;
    };
    expect(await kindAfter(97_000)).toBe('partial');
    // Fast from now on.
    kernel.onRead = undefined;
    expect(await kindAfter(1_000)).toBe('full');
    expect(await kindAfter(interval - 1)).toBe('partial');
    expect(await kindAfter(1)).toBe('full');
  });

  it('a doubt that comes while all is compared stands', async () => {
    kernel.onRead = async () => writer.doubt();
    await write(cluster('10.1.0.2'));
    kernel.onRead = undefined;
    expect((await write(cluster('10.1.0.2'), 'a/a:p80/tcp')).kind).toBe('full');
    expect((await write(cluster('10.1.0.2'), 'a/a:p80/tcp')).kind).toBe('partial');
  });

  it("an external address that is another node's is left to it, from when that is known", async () => {
    const [first, ...rest] = cluster('10.1.0.2').services;
    const ingress = ['192.168.0.7', '192.168.0.8'].map((ip) => ({ ip, ipMode: 'VIP' as const }));
    const services = [
      {
        ...first,
        type: 'LoadBalancer' as const,
        externalIPs: ['192.168.0.6'],
        loadBalancerIngress: ingress,
      } as Cluster['services'][number],
      ...rest,
    ];
    const to = { ...cluster('10.1.0.2'), services };
    await write(to);
    expect(kernel.bound).toContain('192.168.0.6');
    otherHosts = new Set(['192.168.0.6', '192.168.0.7', '192.168.0.99']);
    await write(to, 'a/b:p80/tcp');
    expect([...kernel.bound].toSorted()).toEqual(['10.96.0.1', '10.96.0.2', '192.168.0.8']);
    // Its own packets the host need not send there.
    expect([...(await kernel.servers()).keys()]).toContain('-t 192.168.0.7:80');
    expect(kernel.savedSets()).not.toContain('add KUBE-IPVS-IPS 192.168.0.7');
    // A node that nobody's address is comes and goes without a word.
    otherHosts = new Set(['192.168.0.6', '192.168.0.7']);
    expect(await write(to, 'a/b:p80/tcp')).toEqual({ kind: 'partial', written: 0 });
    otherHosts = new Set(['192.168.0.6']);
    await write(to, 'a/b:p80/tcp');
    expect(kernel.bound).toContain('192.168.0.7');
  });

  it.each(['applyServers', 'applySets', 'applyAddresses'])(
    'a refused %s is made good by the next write',
    async (call) => {
      await write(cluster('10.1.0.2'));
      const next: Cluster = {
        services: [
          service('a/a', { clusterIPs: ['10.96.0.7'] }),
          service('a/b', { clusterIPs: ['10.96.0.2'] }),
        ],
        slices: [slice('a/a', ['10.1.0.5']), slice('a/b', ['10.1.0.9'])],
      };
      kernel.failing = call;
      await expect(write(next, 'a/a:p80/tcp')).rejects.toThrow(`refused: ${call}`);
      expect((await write(next, 'a/a:p80/tcp')).kind).toBe('full');
      writer = createWriter();
      expect((await write(next)).written).toBe(0);
      expect([...kernel.bound].toSorted()).toEqual(['10.96.0.2', '10.96.0.7']);
    },
  );
});

describe('a port of which something is refused', () => {
  const many = (...names: number[]): Cluster => ({
    services: names.map((n) => service(`a/s${n}`, { clusterIPs: [`10.96.1.${n}`] })),
    slices: names.map((n) => slice(`a/s${n}`, [`10.1.1.${n}`])),
  });
  const twenty = Array.from({ length: 20 }, (_, i) => i + 1);
  const keyOf = (n: number): string => `a/s${n}:p80/tcp`;

  it.each([
    ['a virtual server', /-A -t 10\.96\.1\.7:/],
    ['an endpoint', /-r 10\.1\.1\.7:/],
    ['a member of a set', /KUBE-CLUSTER-IP 10\.96\.1\.7,/],
    ['an address', /ip addr add 10\.96\.1\.7$/],
  ])('is left out and told of, the others are served: %s', async (_, refused) => {
    kernel.refused = refused;
    await write(many(...twenty));
    expect(parked).toEqual([expect.stringMatching(/^s7: .*refused: /)]);
    expect(kernel.bound.size).toBe(19);
    expect([...(await kernel.servers()).keys()]).toHaveLength(19);
    kernel.take();
    // Nothing is tried again for it, nor found to be missing.
    const { refusals } = kernel;
    expect(await write(many(...twenty), keyOf(3))).toEqual({ kind: 'partial', written: 0 });
    // Nor with other options, which every port is rendered for anew.
    masqueradeAll = true;
    expect(await write(many(...twenty), keyOf(3))).toEqual({ kind: 'full', written: 0 });
    expect(kernel.refusals).toBe(refusals);
    kernel.refused = undefined;
    writer = createWriter();
    await write(many(...twenty.filter((n) => n !== 7)));
    expect(kernel.take()).toEqual([]);
  });

  it('costs those that changed with it nothing, not for a moment', async () => {
    await write(many(...twenty));
    kernel.take();
    kernel.refused = /10\.96\.1\.21:/;
    const moved = [slice('a/s3', ['10.1.1.33']), slice('a/s21', ['10.1.1.21'])];
    const { services, slices = [] } = many(...twenty, 21);
    const rest = slices.filter(({ serviceName }) => !['s3', 's21'].includes(serviceName));
    await write({ services, slices: [...rest, ...moved] }, keyOf(3), keyOf(21));
    expect(parked).toHaveLength(1);
    const lines = kernel.take().filter((line) => /10\.96\.1\.3\b/.test(line));
    expect(lines.filter((line) => !/ -[ae] /.test(line))).toEqual([]);
    expect(lines.slice(-2)).toEqual([
      'ipvsadm -e -t 10.96.1.3:80 -r 10.1.1.33:80 -m -w 1',
      'ipvsadm -e -t 10.96.1.3:80 -r 10.1.1.3:80 -m -w 0',
    ]);
  });

  it.each([
    ['at the start, where others are served already', false],
    ['after a write that failed for another reason', true],
  ])('costs no other anything %s', async (_, isFailedBefore) => {
    await write(many(...twenty.filter((n) => n !== 7)));
    writer = createWriter();
    if (isFailedBefore) {
      kernel.failing = 'servers';
      await expect(write(many(...twenty))).rejects.toThrow('refused: servers');
    }
    kernel.take();
    kernel.refused = /-r 10\.1\.1\.7:/;
    await write(many(...twenty));
    expect(parked).toHaveLength(1);
    expect(kernel.take().filter((line) => !/10\.96\.1\.7\b/.test(line))).toEqual([]);
    expect(kernel.bound.size).toBe(19);
    kernel.refused = undefined;
    // What nobody wants goes in the end, all the same.
    writer = createWriter();
    kernel.refused = /-r 10\.1\.1\.7:/;
    await write(many(6, 7, 8));
    expect([...kernel.bound].toSorted()).toEqual(['10.96.1.6', '10.96.1.8']);
  });

  it.each<[string, Partial<Cluster>, RegExp]>([
    ['its endpoints', { slices: [slice('a/s2', ['10.1.1.22'])] }, /-r 10\.1\.1\.2:/],
    [
      'its Service',
      { services: [service('a/s2', { clusterIPs: ['10.96.1.22'] })] },
      /-A -t 10\.96\.1\.2:/,
    ],
  ])('is tried again at once with a change of %s', async (_, change, refused) => {
    kernel.refused = refused;
    const { services, slices = [] } = many(1, 2);
    await write({ services, slices });
    expect(parked).toHaveLength(1);
    const next = {
      services: [services[0] ?? [], change.services ?? services[1] ?? []].flat(),
      slices: [slices[0] ?? [], change.slices ?? slices[1] ?? []].flat(),
    };
    await write(next, keyOf(2));
    expect(kernel.bound.size).toBe(2);
    expect([...(await kernel.servers()).keys()]).toHaveLength(2);
    expect(parked).toHaveLength(1);
  });

  it('is tried again after ten minutes', async () => {
    kernel.refused = /10\.96\.1\.2:/;
    await write(many(1, 2));
    kernel.refused = undefined;
    expect((await write(many(1, 2), keyOf(1))).written).toBe(0);
    await clock.advance(600_000);
    expect((await write(many(1, 2), keyOf(1))).written).toBeGreaterThan(0);
    expect(kernel.bound.size).toBe(2);
  });

  it('is not blamed when everything is refused, or when the fault is of the moment', async () => {
    kernel.refused = /-A -t/;
    await expect(write(many(...twenty))).rejects.toThrow('refused: ');
    kernel.refused = undefined;
    kernel.failing = 'applySets';
    await expect(write(many(...twenty))).rejects.toThrow('refused: applySets');
    expect(parked).toEqual([]);
    await write(many(...twenty));
    expect(kernel.bound.size).toBe(20);
  });
});
