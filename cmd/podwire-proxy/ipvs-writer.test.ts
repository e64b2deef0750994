import { setImmediate } from 'node:timers/promises';
import { beforeEach, describe, expect, it } from 'vitest';
import { portsOf, service, slice, type Cluster } from '#pkg/proxy/testdata/records.ts';
import { IpvsRig } from './scratch/ipvs-rig.ts';

const signal = new AbortController().signal;
let rig: IpvsRig;
beforeEach(() => {
  rig = new IpvsRig();
});

const cluster = (...endpoints: string[]): Cluster => ({
  services: [
    service('a/a', { clusterIPs: ['10.96.0.1'] }),
    service('a/b', { clusterIPs: ['10.96.0.2'] }),
  ],
  slices: [slice('a/a', endpoints), slice('a/b', ['10.1.0.9'])],
});

describe('ipvs writer', () => {
  it('serves before it leads packets there: server, sets, address', async () => {
    await rig.write(cluster('10.1.0.2'));
    const lines = rig.kernel.take();
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
    await rig.write(cluster('10.1.0.2'));
    rig.kernel.take();
    await rig.write({ services: cluster().services.slice(1) }, 'a/a:p80/tcp');
    const lines = rig.kernel.take();
    const [bare, guard] = ['ip addr del 10.96.0.1', 'ipset del KUBE-IPVS-IPS 10.96.0.1'];
    expect(lines).toContain(guard);
    expect(lines.indexOf(bare)).toBeGreaterThan(-1);
    expect(lines.indexOf(bare)).toBeLessThan(lines.indexOf(guard));
  });

  it('a change costs what it changes', async () => {
    await rig.write(cluster('10.1.0.2'));
    rig.kernel.take();
    const report = await rig.write(cluster('10.1.0.2', '10.1.0.3'), 'a/a:p80/tcp');
    expect(report).toEqual({ kind: 'partial', written: 1 });
    expect(rig.kernel.take()).toEqual(['ipvsadm -a -t 10.96.0.1:80 -r 10.1.0.3:80 -m -w 1']);
  });

  it('with the last endpoint connections are refused, and the address stays', async () => {
    await rig.write(cluster('10.1.0.2'));
    rig.kernel.take();
    await rig.write(cluster(), 'a/a:p80/tcp');
    expect(rig.kernel.take()).toEqual([
      'ipvsadm -e -t 10.96.0.1:80 -r 10.1.0.2:80 -m -w 0',
      'ipset del KUBE-CLUSTER-IP 10.96.0.1,tcp:80',
      'ipset add KUBE-NO-ENDPOINT 10.96.0.1,tcp:80',
    ]);
  });

  it.each([false, true])(
    'S137. the last endpoint keeps its connections until they end, restart %s',
    async (isRestarted) => {
      await rig.write(cluster('10.1.0.2'));
      rig.kernel.connectionsOf.set('10.1.0.2:80', 2);
      await rig.write(cluster(), 'a/a:p80/tcp');
      rig.kernel.take();
      if (isRestarted) {
        rig.writer = rig.createWriter();
        expect((await rig.write(cluster())).written).toBe(0);
      }
      await rig.clock.advance(20_000);
      await rig.write(cluster(), 'a/b:p80/tcp');
      expect(rig.kernel.take()).toEqual([]);
      expect(rig.writer.known?.servers.get('-t 10.96.0.1:80')?.realServers).toHaveLength(1);
      rig.kernel.connectionsOf.clear();
      await rig.clock.advance(20_000);
      await rig.write(cluster(), 'a/b:p80/tcp');
      expect(rig.kernel.take()).toEqual(['ipvsadm -D -t 10.96.0.1:80']);
      expect(rig.writer.known?.servers.has('-t 10.96.0.1:80')).toBe(false);
      await rig.write(cluster('10.1.0.2'), 'a/a:p80/tcp');
      expect(rig.kernel.take().slice(0, 2)).toEqual([
        'ipvsadm -A -t 10.96.0.1:80 -s rr',
        'ipvsadm -a -t 10.96.0.1:80 -r 10.1.0.2:80 -m -w 1',
      ]);
    },
  );

  it('a Service that goes takes its virtual server with it, connections or not', async () => {
    await rig.write(cluster('10.1.0.2'));
    rig.kernel.connectionsOf.set('10.1.0.2:80', 2);
    await rig.write(cluster(), 'a/a:p80/tcp');
    rig.kernel.take();
    await rig.write({ services: cluster().services.slice(1) }, 'a/a:p80/tcp');
    expect(rig.kernel.take()).toContain('ipvsadm -D -t 10.96.0.1:80');
  });

  it('S140. an address goes with the last port that has it', async () => {
    const ports = (...names: string[]) =>
      names.map((name, i) => ({ name, protocol: 'TCP' as const, port: 80 + i, nodePort: 0 }));
    const of = (...names: string[]): Cluster => ({
      services: [service('a/a', { clusterIPs: ['10.96.0.1'], ports: ports(...names) })],
    });
    await rig.write(of('x', 'y'));
    await rig.write(of('x'), 'a/a:y/tcp');
    expect([...rig.kernel.bound]).toEqual(['10.96.0.1']);
    await rig.write({ services: [] }, 'a/a:x/tcp');
    expect([...rig.kernel.bound]).toEqual([]);
  });

  it('S137. an endpoint that leaves is taken away when its last connection has ended', async () => {
    await rig.write(cluster('10.1.0.2', '10.1.0.3'));
    rig.kernel.take();
    rig.kernel.connectionsOf.set('10.1.0.3:80', 2);
    await rig.write(cluster('10.1.0.2'), 'a/a:p80/tcp');
    expect(rig.kernel.take()).toEqual(['ipvsadm -e -t 10.96.0.1:80 -r 10.1.0.3:80 -m -w 0']);
    await rig.clock.advance(20_000);
    await rig.write(cluster('10.1.0.2'), 'a/b:p80/tcp');
    expect(rig.kernel.take()).toEqual([]);
    rig.kernel.connectionsOf.clear();
    await rig.clock.advance(20_000);
    // Without a change of a port, what was written would be what others had changed.
    expect((await rig.write(cluster('10.1.0.2'), 'a/b:p80/tcp')).written).toBe(0);
    expect(rig.kernel.take()).toEqual(['ipvsadm -d -t 10.96.0.1:80 -r 10.1.0.3:80']);
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
    await rig.write(many(2));
    await rig.write(many(1), ...[1, 2, 3].map((i) => `a/s${i}:p80/tcp`));
    rig.kernel.take();
    rig.kernel.connectionsOf.set('10.1.2.1:80', 1);
    rig.kernel.connectionsAsked = 0;
    await rig.clock.advance(20_000);
    await rig.write(many(1), 'a/s1:p80/tcp');
    expect(rig.kernel.connectionsAsked).toBe(1);
    expect(rig.kernel.take()).toEqual(
      [1, 3].map((i) => `ipvsadm -d -t 10.96.1.${i}:80 -r 10.1.${i}.1:80`),
    );
  });

  it('S134. S137. one that comes back, also after a restart, has its weight again', async () => {
    await rig.write(cluster('10.1.0.2', '10.1.0.3'));
    rig.kernel.connectionsOf.set('10.1.0.3:80', 1);
    await rig.write(cluster('10.1.0.2'), 'a/a:p80/tcp');
    rig.kernel.take();
    rig.writer = rig.createWriter();
    await rig.write(cluster('10.1.0.2', '10.1.0.3'));
    expect(rig.kernel.take()).toEqual(['ipvsadm -e -t 10.96.0.1:80 -r 10.1.0.3:80 -m -w 1']);
  });

  it('a set that was found with little room is made anew when it is full', async () => {
    rig.kernel.makeSet('create KUBE-CLUSTER-IP hash:ip,port family inet maxelem 2');
    const { services, slices = [] } = cluster('10.1.0.2');
    await rig.write({ services, slices });
    const third = service('a/c', { clusterIPs: ['10.96.0.3'] });
    const more = {
      services: [...services, third],
      slices: [...slices, slice('a/c', ['10.1.0.4'])],
    };
    expect((await rig.write(more, 'a/c:p80/tcp')).kind).toBe('full');
    expect(rig.kernel.savedSets()).toContain(
      'create KUBE-CLUSTER-IP hash:ip,port family inet maxelem 65536',
    );
    expect(rig.parked).toEqual([]);
  });

  it('takes many Services in by slices: others have their turn between', async () => {
    const many = Array.from({ length: 5_000 }, (_, i) => `${i >> 8}.${i & 255}`);
    const to = {
      services: many.map((n) => service(`a/s${n}`, { clusterIPs: [`10.96.${n}`] })),
      slices: many.map((n) => slice(`a/s${n}`, [`10.1.${n}`, `10.2.${n}`])),
    };
    const ports = portsOf(to);
    let turns = 0;
    let isDone = false;
    const others = (async () => {
      for (; !isDone; turns++) await setImmediate();
    })();
    await rig.writer.write({ ports, changed: 'all', node: undefined }, signal);
    isDone = true;
    await others;
    expect(rig.kernel.bound.size).toBe(many.length);
    // A kernel in memory makes nobody wait.
    expect(turns).toBeGreaterThan(3);
  });

  it('a second writer finds nothing to do', async () => {
    await rig.write(cluster('10.1.0.2'));
    rig.writer = rig.createWriter();
    expect(await rig.write(cluster('10.1.0.2'))).toEqual({ kind: 'full', written: 0 });
  });

  it('comparing all takes at most a fiftieth of the time', async () => {
    const interval = 30_000;
    rig.writer = rig.createWriter(interval);
    rig.kernel.onRead = () => rig.clock.advance(2_000);
    await rig.write(cluster('10.1.0.2'));
    const kindAfter = async (ms: number): Promise<string> => {
      await rig.clock.advance(ms);
      return (await rig.write(cluster('10.1.0.2'), 'a/a:p80/tcp')).kind;
    };
    expect(await kindAfter(97_000)).toBe('partial');
    // Fast from now on.
    rig.kernel.onRead = undefined;
    expect(await kindAfter(1_000)).toBe('full');
    expect(await kindAfter(interval - 1)).toBe('partial');
    expect(await kindAfter(1)).toBe('full');
  });

  it('a doubt that comes while all is compared stands', async () => {
    rig.kernel.onRead = async () => rig.writer.doubt();
    await rig.write(cluster('10.1.0.2'));
    rig.kernel.onRead = undefined;
    expect((await rig.write(cluster('10.1.0.2'), 'a/a:p80/tcp')).kind).toBe('full');
    expect((await rig.write(cluster('10.1.0.2'), 'a/a:p80/tcp')).kind).toBe('partial');
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
    await rig.write(to);
    expect(rig.kernel.bound).toContain('192.168.0.6');
    rig.otherHosts = new Set(['192.168.0.6', '192.168.0.7', '192.168.0.99']);
    await rig.write(to, 'a/b:p80/tcp');
    expect([...rig.kernel.bound].toSorted()).toEqual(['10.96.0.1', '10.96.0.2', '192.168.0.8']);
    // Its own packets the host need not send there.
    expect([...(await rig.kernel.servers()).keys()]).toContain('-t 192.168.0.7:80');
    expect(rig.kernel.savedSets()).not.toContain('add KUBE-IPVS-IPS 192.168.0.7');
    // A node that nobody's address is comes and goes without a word.
    rig.otherHosts = new Set(['192.168.0.6', '192.168.0.7']);
    expect(await rig.write(to, 'a/b:p80/tcp')).toEqual({ kind: 'partial', written: 0 });
    rig.otherHosts = new Set(['192.168.0.6']);
    await rig.write(to, 'a/b:p80/tcp');
    expect(rig.kernel.bound).toContain('192.168.0.7');
  });

  it.each([
    ['other hosts are not known', undefined],
    // Of a proxy that has its API server from its Pod's environment.
    ["the API server's URL has it", new Set(['10.96.0.2'])],
  ])('a cluster address stays, whoever claims it as external, while %s', async (_, others) => {
    const { services, slices = [] } = cluster('10.1.0.2');
    await rig.write({ services, slices });
    rig.otherHosts = others;
    const claimant = service('a/c', { clusterIPs: ['10.96.0.3'], externalIPs: ['10.96.0.2'] });
    await rig.write({ services: [...services, claimant], slices }, 'a/c:p80/tcp');
    expect([...rig.kernel.bound].toSorted()).toEqual(['10.96.0.1', '10.96.0.2', '10.96.0.3']);
    expect(rig.kernel.savedSets()).toContain('add KUBE-IPVS-IPS 10.96.0.2');
  });

  it.each(['applyServers', 'applySets', 'applyAddresses'])(
    'a refused %s is made good by the next write',
    async (call) => {
      await rig.write(cluster('10.1.0.2'));
      const next: Cluster = {
        services: [
          service('a/a', { clusterIPs: ['10.96.0.7'] }),
          service('a/b', { clusterIPs: ['10.96.0.2'] }),
        ],
        slices: [slice('a/a', ['10.1.0.5']), slice('a/b', ['10.1.0.9'])],
      };
      rig.kernel.failing = call;
      await expect(rig.write(next, 'a/a:p80/tcp')).rejects.toThrow(`refused: ${call}`);
      expect((await rig.write(next, 'a/a:p80/tcp')).kind).toBe('full');
      rig.writer = rig.createWriter();
      expect((await rig.write(next)).written).toBe(0);
      expect([...rig.kernel.bound].toSorted()).toEqual(['10.96.0.2', '10.96.0.7']);
    },
  );
});
