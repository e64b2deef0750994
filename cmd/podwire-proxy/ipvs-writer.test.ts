import { beforeEach, describe, expect, it } from 'vitest';
import { FakeClock } from '#pkg/clock/fake-clock.ts';
import type { ObservedIpSet } from '#pkg/ipset/ip-set.ts';
import type { IpSetStep } from '#pkg/ipset/plan.ts';
import { renderIpSetRestore } from '#pkg/ipset/render.ts';
import { parseIpSetSave } from '#pkg/ipset/parse.ts';
import { renderIpvsRestore } from '#pkg/ipvs/render.ts';
import { serverKey, type VirtualServer } from '#pkg/ipvs/virtual-server.ts';
import type { IpvsStep } from '#pkg/ipvs/plan.ts';
import { service, slice, snapshot, type Cluster } from '#pkg/proxy/testdata/records.ts';
import { portKey } from '#pkg/proxy/proxied-port.ts';
import { createIpvsWriter, type IpvsDriver, type IpvsWriter } from './ipvs-writer.ts';
import type { RulesWriter } from './rules-writer.ts';

const signal = new AbortController().signal;

/** A kernel in memory that does what steps say, writes down in which order, and fails on demand. */
class FakeKernel implements IpvsDriver {
  readonly bound = new Set<string>();
  readonly lines: string[] = [];
  readonly connectionsOf = new Map<string, number>();
  failing: string | undefined;
  #servers = new Map<string, VirtualServer>();
  #setText = new Map<string, Set<string>>();
  #creations = new Map<string, string>();

  sets = async (): Promise<ReadonlyMap<string, ObservedIpSet>> => {
    this.#call('sets');
    const text = [...this.#creations].flatMap(([name, line]) => [
      line,
      ...[...(this.#setText.get(name) ?? [])].map((member) => `add ${name} ${member}`),
    ]);
    return parseIpSetSave(text.join('\n'), 'KUBE-');
  };
  servers = async (): Promise<ReadonlyMap<string, VirtualServer>> => {
    this.#call('servers');
    return new Map(this.#servers);
  };
  connections = async (key: string): Promise<ReadonlyMap<string, number>> => {
    this.#call('connections');
    expect(this.#servers.has(key)).toBe(true);
    return this.connectionsOf;
  };
  boundAddresses = () => new Set(this.bound);
  ownAddresses = () => ['192.168.0.2'];
  applySets = async (steps: readonly IpSetStep[]): Promise<void> => {
    if (steps.length === 0) return;
    this.#call('applySets');
    for (const line of renderIpSetRestore(steps).trim().split('\n')) {
      this.lines.push(`ipset ${line}`);
      const [verb, name = '', member = ''] = line.split(' ');
      if (verb === 'create') this.#creations.set(name, line);
      const members = this.#setText.get(name) ?? new Set<string>();
      this.#setText.set(name, members);
      if (verb === 'add') members.add(member);
      if (verb === 'del') members.delete(member);
    }
  };
  applyServers = async (steps: readonly IpvsStep[]): Promise<void> => {
    if (steps.length === 0) return;
    this.#call('applyServers');
    const lines = renderIpvsRestore(steps).trim().split('\n');
    this.lines.push(...lines.map((line) => `ipvsadm ${line}`));
    for (const step of steps) this.#carryOut(step);
  };
  applyAddresses = ({
    added,
    removed,
  }: {
    added: readonly string[];
    removed: readonly string[];
  }) => {
    if (added.length + removed.length === 0) return;
    this.#call('applyAddresses');
    for (const address of added) this.bound.add(address);
    for (const address of removed) this.bound.delete(address);
    this.lines.push(
      ...added.map((a) => `ip addr add ${a}`),
      ...removed.map((a) => `ip addr del ${a}`),
    );
  };

  take(): string[] {
    return this.lines.splice(0);
  }

  #call(name: string): void {
    if (this.failing !== name) return;
    this.failing = undefined;
    throw new Error(`refused: ${name}`);
  }

  #carryOut(step: IpvsStep): void {
    if ('server' in step) {
      const key = serverKey(step.server);
      const realServers = this.#servers.get(key)?.realServers ?? [];
      this.#servers.set(key, { ...step.server, realServers });
      return;
    }
    if (step.op === 'delete-server') return void this.#servers.delete(step.key);
    const server = this.#servers.get(step.key);
    if (server === undefined) throw new Error(`no server ${step.key}`);
    const rest = server.realServers.filter(({ address }) => address !== step.real.address);
    const realServers = step.op === 'delete-real' ? rest : [...rest, step.real];
    this.#servers.set(step.key, { ...server, realServers });
  }
}

const rules = (): RulesWriter => ({
  writeAll: async () => [],
  writeChange: async () => [],
  doubt: () => undefined,
  nextKind: 'partial',
  isKnown: true,
  attempted: [],
});

let kernel: FakeKernel;
let clock: FakeClock;
let writer: IpvsWriter;

function createWriter(): IpvsWriter {
  return createIpvsWriter({
    family: 'ip',
    driver: kernel,
    rules: rules(),
    options: (_, own) => ({
      family: 'ip',
      scheduler: 'rr',
      masqueradeBit: 14,
      masqueradeAll: false,
      localDetector: { kind: 'none' },
      nodePortAddresses: own,
      hostAddresses: own,
      nodeAddress: '192.168.0.2',
      randomFully: true,
    }),
    isOurs: () => true,
    observeIntervalMs: 3_600_000,
    clock,
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
  kernel = new FakeKernel();
  clock = new FakeClock(1_000_000);
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
      'ipset del KUBE-CLUSTER-IP 10.96.0.1,tcp:80',
      'ipset add KUBE-NO-ENDPOINT 10.96.0.1,tcp:80',
      'ipvsadm -D -t 10.96.0.1:80',
    ]);
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
    await write(cluster('10.1.0.2'), 'a/b:p80/tcp');
    expect(kernel.take()).toEqual(['ipvsadm -d -t 10.96.0.1:80 -r 10.1.0.3:80']);
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

  it('a second writer finds nothing to do', async () => {
    await write(cluster('10.1.0.2'));
    writer = createWriter();
    expect(await write(cluster('10.1.0.2'))).toEqual({ kind: 'full', written: 0 });
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
