import { beforeEach, describe, expect, it } from 'vitest';
import { FakeClock } from '#pkg/clock/fake-clock.ts';
import { AgentError, messageOf } from '#pkg/errors/agent-error.ts';
import type { ObservedIpSet } from '#pkg/ipset/ip-set.ts';
import type { IpSetStep } from '#pkg/ipset/plan.ts';
import { renderIpSetRestore } from '#pkg/ipset/render.ts';
import { parseIpSetSave } from '#pkg/ipset/parse.ts';
import { silentLogger } from '#pkg/log/logger.ts';
import { renderIpvsRestore } from '#pkg/ipvs/render.ts';
import { serverKey, type VirtualServer } from '#pkg/ipvs/virtual-server.ts';
import type { IpvsStep } from '#pkg/ipvs/plan.ts';
import { service, slice, snapshot, type Cluster } from '#pkg/proxy/testdata/records.ts';
import { portKey } from '#pkg/proxy/proxied-port.ts';
import type { IpvsDriver } from './ipvs-driver.ts';
import { createIpvsWriter, type IpvsWriter } from './ipvs-writer.ts';
import type { RulesWriter } from './rules-writer.ts';

const signal = new AbortController().signal;

/** A kernel in memory that does what steps say, writes down in which order, and fails on demand. */
class FakeKernel implements IpvsDriver {
  readonly bound = new Set<string>();
  readonly lines: string[] = [];
  readonly connectionsOf = new Map<string, number>();
  connectionsAsked = 0;
  failing: string | undefined;
  /** What happens while it is read. */
  onRead: (() => Promise<void>) | undefined;
  /** Lines with this in them are refused, as the kernel would: those before stay. */
  refused: RegExp | undefined;
  /** How often it was asked for what it refuses. */
  refusals = 0;
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
    await this.onRead?.();
    return new Map(this.#servers);
  };
  connections = async (
    keys: ReadonlySet<string>,
  ): Promise<ReadonlyMap<string, ReadonlyMap<string, number>>> => {
    this.#call('connections');
    this.connectionsAsked += 1;
    for (const key of keys) expect(this.#servers.has(key)).toBe(true);
    return new Map([...keys].map((key) => [key, this.connectionsOf]));
  };
  boundAddresses = () => new Set(this.bound);
  ownAddresses = () => ['192.168.0.2'];
  applySets = async (steps: readonly IpSetStep[]): Promise<void> => {
    if (steps.length === 0) return;
    this.#call('applySets');
    for (const line of renderIpSetRestore(steps).trim().split('\n')) {
      this.#refuse('IpSetRestoreFailed', line);
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
    // ipvsadm goes on after a line that is refused.
    let refusal: Error | undefined;
    for (const step of steps) {
      const line = renderIpvsRestore([step]).trim();
      try {
        this.#refuse('IpvsRestoreFailed', line);
        this.#carryOut(step);
        this.lines.push(`ipvsadm ${line}`);
      } catch (error) {
        refusal = error as Error;
      }
    }
    if (refusal !== undefined) throw refusal;
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
    for (const address of added) this.#refuse('EINVAL', `ip addr add ${address}`);
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

  #refuse(code: string, line: string): void {
    if (this.refused?.test(line) !== true) return;
    this.refusals += 1;
    throw new AgentError(code, `refused: ${line}`);
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
    if (server === undefined) {
      throw new AgentError('IpvsRestoreFailed', `refused: no server ${step.key}`);
    }
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
let parked: string[];
let masqueradeAll: boolean;

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
  kernel = new FakeKernel();
  clock = new FakeClock(1_000_000);
  parked = [];
  masqueradeAll = false;
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
    await write(cluster('10.1.0.2'), 'a/b:p80/tcp');
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

  it('is tried again when it changed, and after ten minutes', async () => {
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
