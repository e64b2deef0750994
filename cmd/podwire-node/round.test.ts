import { beforeEach, describe, expect, test, vi } from 'vitest';
import type { HostObject } from '#pkg/host-network/object.ts';
import { planHostNetwork } from '#pkg/host-network/plan.ts';
import { StepError, type Step } from '#pkg/host-network/step.ts';
import { parsePrefix, type Prefix } from '#pkg/ip/prefix.ts';
import { silentLogger } from '#pkg/log/logger.ts';
import { planNftables, type ElementStep, type NftStep } from '#pkg/nftables/plan.ts';
import { observedOf, sameTable, type ObservedTable } from '#pkg/nftables/ruleset.ts';
import { defaultAnnotationPrefix } from '#pkg/overlay/annotations.ts';
import type { NodeRecord } from '#pkg/kube/types.ts';
import { PeerIndex, type PeerChange } from '#pkg/pod-network/peer-index.ts';
import { desiredPodNetwork, type Desired, type HostFacts } from '#pkg/pod-network/desired.ts';
import { createNodeMetrics } from './node-metrics.ts';
import type { RoundParts } from './round-parts.ts';
import { PodNetworkRound } from './round.ts';
import { NodeStatus } from './status.ts';

const { signal } = new AbortController();
const facts: HostFacts = {
  links: [
    {
      name: 'eth0',
      mtuBytes: 1500,
      addresses: [parsePrefix('192.168.1.1/24')],
      onLinkPrefixes: [parsePrefix('192.168.1.0/24')],
    },
  ],
  advertisedLinks: [],
  acceptRa: () => undefined,
};
const options = {
  nodeName: 'a',
  backend: 'vxlan',
  vni: 1,
  port: 8472,
  directRouting: true,
  link: undefined,
  mtuBytes: undefined,
  masquerade: true,
  nonMasqueradeCIDRs: [],
  annotationPrefix: defaultAnnotationPrefix,
} as const;

function node(name: string, n: number): NodeRecord {
  return {
    namespace: '',
    name,
    uid: `uid-${name}`,
    resourceVersion: '1',
    createdAt: '2026-01-01T00:00:00Z',
    annotations: {
      'podwire.dev/backend-type': 'vxlan',
      'podwire.dev/backend-data': `{"VNI":1,"VtepMAC":"02:00:00:00:00:0${n}"}`,
      'podwire.dev/public-ip': `192.168.${n}.1`,
    },
    labels: {},
    podCIDRs: [`10.244.${n}.0/24`],
    internalIPs: [`192.168.${n}.1`],
    taintKeys: [],
    deleting: false,
  };
}

/** A machine and a cluster that behave; `calls` are what touched them, `failAt` is refused. */
class World {
  nodes = new Map<string, NodeRecord>([
    ['a', { ...node('a', 1), annotations: {} }],
    ['b', node('b', 2)],
  ]);
  objects: HostObject[] = [];
  tables: ObservedTable[] = [];
  carry: () => void = () => undefined;
  routing: Desired['routing'];
  files: Record<string, string> = {};
  networkUp = false;
  filter: () => readonly [] = () => [];
  masqueradeBy: 'nftables' | 'iptables' = 'nftables';
  #drained: ReadonlyMap<string, NodeRecord> = new Map();
  calls: string[] = [];
  failAt = Number.NaN;
  nowMs = 0;
  readonly status = new NodeStatus(
    { now: () => 0, monotonicMs: () => this.nowMs, sleep: never },
    silentLogger,
  );
  round = this.restart();

  /** The daemon starts anew: it knows nothing, and the kernel has everything. */
  restart(): PodNetworkRound {
    this.round = new PodNetworkRound(this.#parts());
    return this.round;
  }

  #parts(): RoundParts {
    return {
      options: { ...options, masqueradeBy: this.masqueradeBy },
      nodes: { snapshot: () => new Map(this.nodes), drain: () => this.#drain() },
      host: {
        facts: () => (this.#call('facts'), facts),
        observe: () => (this.#call('observe host'), [...this.objects]),
        apply: (steps) => this.#applyHost(steps),
      },
      tables: {
        observe: async () => (this.#call('observe tables'), [...this.tables]),
        apply: async (steps) => (this.#call('apply tables'), this.#applyTables(steps)),
      },
      packetFilter: { converge: async () => this.filter(), doubt: () => undefined },
      forwarder: { apply: async () => this.carry() },
      routing: {
        apply: async (wanted) => void (this.routing = wanted),
        problems: () => [],
      },
      ownNode: {
        annotate: async (patch) => {
          this.#call('annotate');
          const own = this.nodes.get('a') ?? node('a', 1);
          const annotations = { ...own.annotations, ...(patch as Record<string, string>) };
          this.nodes.set('a', { ...own, annotations });
        },
        reportNetworkUp: async () => {
          this.#call('condition');
          this.networkUp = true;
        },
      },
      files: {
        writeNodeFile: async (text) => (this.#call('node.json'), this.#write('node.json', text)),
        writeSubnetEnv: async (text) => (this.#call('subnet.env'), this.#write('subnet.env', text)),
        writeConflist: async () => (this.#call('conflist'), this.#write('conflist', 'it')),
      },
      status: this.status,
      metrics: createNodeMetrics(),
      clock: { now: () => 0, monotonicMs: () => this.nowMs, sleep: never },
      log: silentLogger,
      observeIntervalMs: 30_000,
    };
  }

  #drain(): readonly PeerChange[] {
    const before = this.#drained;
    this.#drained = new Map(this.nodes);
    return [...new Set([...before.keys(), ...this.nodes.keys()])]
      .map((name) => ({ old: before.get(name), new: this.nodes.get(name) }))
      .filter((change) => change.old !== change.new);
  }

  #call(name: string): void {
    this.calls.push(name);
    if (this.calls.length === this.failAt) throw new Error(`refused: ${name}`);
  }

  #write(name: string, text: string): void {
    this.files[name] = text;
  }

  /** One call a step; a refused step leaves the others to be done, as the real one does. */
  #applyHost(steps: readonly Step[]): Promise<void> {
    const errors: unknown[] = [];
    for (const step of steps) {
      try {
        this.#call(`${step.op} ${step.object.kind}`);
      } catch (cause) {
        errors.push(new StepError(step, cause));
        continue;
      }
      const replaced = step.op === 'put' ? step.replaces : step.object;
      this.objects = this.objects.filter((o) => replaced === undefined || !same(o, replaced));
      if (step.op === 'put') this.objects.push(step.object);
    }
    if (errors.length > 0) return Promise.reject(new AggregateError(errors, 'Cannot apply'));
    return Promise.resolve();
  }

  #applyTables(steps: readonly NftStep[]): void {
    for (const step of steps) {
      const others = this.tables.filter((table) => !sameTable(table, step.table));
      const [found] = this.tables.filter((table) => sameTable(table, step.table));
      if (step.op === 'replaceTable') others.push(observedOf(step.table));
      else if (step.op !== 'deleteTable' && found !== undefined) {
        const sets = found.sets.map((set) =>
          set.name === step.set ? { ...set, elements: changed(set.elements, step) } : set,
        );
        others.push({ ...found, sets });
      }
      this.tables = others;
    }
  }

  /** What a plan would still change. */
  leftToDo(): unknown[] {
    const want = desiredPodNetwork(this.nodes, facts, options);
    if (want.kind === 'not-ready') throw new Error(want.reason);
    const steps = planHostNetwork(want.objects, this.objects);
    return [
      ...steps,
      ...planNftables(want.ruleset, this.tables),
      ...Object.keys(want.annotationPatch),
    ];
  }
}

function changed(elements: ReadonlySet<string>, step: ElementStep): ReadonlySet<string> {
  const changes = new Set(step.elements);
  return step.op === 'addElements' ? elements.union(changes) : elements.difference(changes);
}

const never = (): Promise<never> => new Promise(() => undefined);

function same(a: HostObject, b: HostObject): boolean {
  return planHostNetwork([a], [b]).length === 0;
}

let world: World;
beforeEach(() => {
  world = new World();
});

describe('PodNetworkRound', () => {
  test('brings everything up, and the conflist last', async () => {
    await world.round.run(signal);
    expect(world.leftToDo()).toEqual([]);
    expect(world.calls.slice(-5)).toEqual([
      'annotate',
      'condition',
      'node.json',
      'subnet.env',
      'conflist',
    ]);
    expect(world.status.state).toEqual({ kind: 'ready' });
  });

  test("exempts a new node's pods from masquerade before there is a route to them", async () => {
    await world.round.run(signal);
    world.nodes.set('c', node('c', 3));
    world.calls = [];
    await world.round.run(signal);
    const changes = world.calls.filter((call) => ['apply tables', 'put route'].includes(call));
    expect(changes).toEqual(['apply tables', 'put route']);
  });

  test('a quiet round reads nothing back and changes nothing', async () => {
    await world.round.run(signal);
    world.calls = [];
    await world.round.run(signal);
    expect(world.calls).toEqual(['node.json', 'subnet.env', 'conflist']);
  });

  test('a restarted daemon changes nothing in a kernel that is right', async () => {
    await world.round.run(signal);
    world.calls = [];
    await world.restart().run(signal);
    expect(world.calls.join(', ')).toBe(
      'facts, observe tables, observe host, condition, node.json, subnet.env, conflist',
    );
  });

  describe('a change of another node', () => {
    /** Our own annotations have come back. */
    async function settle(): Promise<void> {
      await world.round.run(signal);
      await world.round.run(signal);
      world.calls = [];
    }

    test('costs its own steps: nothing is read, and no file is written', async () => {
      await settle();
      world.nodes.set('c', node('c', 3));
      await world.round.run(signal);
      expect(world.calls).toEqual(['apply tables', 'put neighbor', 'put fdb', 'put route']);
      expect(world.leftToDo()).toEqual([]);
      world.calls = [];
      world.nodes.delete('b');
      world.nodes.set('c', { ...node('c', 3), uid: 'again' });
      await world.round.run(signal);
      expect(world.calls).toEqual([
        'apply tables',
        'delete route',
        'delete fdb',
        'delete neighbor',
      ]);
      expect(world.leftToDo()).toEqual([]);
      expect(world.status.state).toEqual({ kind: 'ready' });
    });

    test.each([1, 2, 3, 4])('when step %i of it fails, the next round heals', async (step) => {
      await settle();
      world.nodes.set('c', node('c', 3));
      world.failAt = step;
      await expect(world.round.run(signal)).rejects.toThrow('Cannot apply the pod network');
      expect(world.leftToDo()).not.toEqual([]);
      world.failAt = Number.NaN;
      await world.round.run(signal);
      expect(world.leftToDo()).toEqual([]);
    });

    test('with a doubt about the kernel, everything is read', async () => {
      await settle();
      world.nodes.set('c', node('c', 3));
      world.objects = world.objects.filter(({ kind }) => kind !== 'route');
      world.round.doubtHost();
      await world.round.run(signal);
      expect(world.calls).toContain('observe host');
      expect(world.leftToDo()).toEqual([]);
    });

    test('the index of all nodes outlives looks at everything, and what changed meanwhile', async () => {
      await settle();
      const [take, fits] = [
        vi.spyOn(PeerIndex.prototype, 'take'),
        vi.spyOn(PeerIndex.prototype, 'fits'),
      ];
      const [first, second] = [node('c', 3), node('d', 4)];
      world.nodes.set('c', first);
      await world.round.run(signal);
      // In doubt, with a change and without one.
      world.nodes.set('d', second);
      world.round.doubtHost();
      await world.round.run(signal);
      world.round.doubtHost();
      await world.round.run(signal);
      world.calls = [];
      world.nodes.delete('d');
      world.nodes.set('c', { ...first, podCIDRs: ['10.244.33.0/24'] });
      await world.round.run(signal);
      expect(world.calls).not.toContain('observe host');
      expect(world.leftToDo()).toEqual([]);
      expect(fits.mock.results.map(({ value }) => value as unknown)).toEqual([true, true]);
      expect(new Set(take.mock.contexts).size).toBe(1);
      vi.restoreAllMocks();
    });

    test('what comes after it starts from the kernel', async () => {
      await settle();
      world.nodes.set('c', node('c', 3));
      await world.round.run(signal);
      const own = world.nodes.get('a') ?? node('a', 1);
      world.nodes.set('a', { ...own, labels: { some: 'label' } });
      await world.round.run(signal);
      expect(world.calls).toContain('observe host');
      expect(world.leftToDo()).toEqual([]);
    });
  });

  describe('iptables that does not work', () => {
    const broken = (): never => {
      throw new Error('no such kernel');
    };

    test('is no reason to leave pods without a network', async () => {
      world.filter = broken;
      await world.round.run(signal);
      expect(world.files['conflist']).toBe('it');
      expect(world.status.state).toEqual({ kind: 'ready' });
    });

    test('is one where it has to masquerade', async () => {
      world.filter = broken;
      world.masqueradeBy = 'iptables';
      await expect(world.restart().run(signal)).rejects.toThrow('Cannot apply the pod network');
      expect(world.files['conflist']).toBeUndefined();
      expect(world.status.state).toMatchObject({ kind: 'failing' });
    });
  });

  test('a Node that left while the daemon was away is removed at its start', async () => {
    await world.round.run(signal);
    world.nodes.delete('b');
    await world.restart().run(signal);
    expect(world.objects.map(({ kind }) => kind)).not.toContain('fdb');
    expect(world.leftToDo()).toEqual([]);
  });

  test('waits without its podCIDR, and touches nothing', async () => {
    await world.round.run(signal);
    const own = world.nodes.get('a') ?? node('a', 1);
    world.nodes.set('a', { ...own, podCIDRs: [] });
    world.calls = [];
    await world.round.run(signal);
    expect(world.calls).toEqual([]);
    expect(world.status.state).toMatchObject({ kind: 'waiting' });
    world.nodes.set('a', own);
    // Nobody tells of neighbours while it is not known which links are ours.
    world.objects = world.objects.filter(({ kind }) => kind !== 'neighbor');
    await world.round.run(signal);
    expect(world.status.state).toEqual({ kind: 'ready' });
    expect(world.leftToDo()).toEqual([]);
  });

  test('looks at the kernel again when told, and by itself after the interval', async () => {
    await world.round.run(signal);
    world.objects = world.objects.filter(({ kind }) => kind !== 'route');
    world.round.doubtHost();
    await world.round.run(signal);
    expect(world.leftToDo()).toEqual([]);
    world.tables = [];
    world.nowMs += 30_000;
    await world.round.run(signal);
    expect(world.leftToDo()).toEqual([]);
  });

  test('sets the condition again for a Node that was made again, or is tainted', async () => {
    await world.round.run(signal);
    const own = world.nodes.get('a') ?? node('a', 1);
    world.nodes.set('a', { ...own, uid: 'another' });
    world.networkUp = false;
    await world.round.run(signal);
    expect(world.networkUp).toBe(true);
    const taintKeys = ['node.kubernetes.io/network-unavailable'];
    world.nodes.set('a', { ...own, uid: 'another', taintKeys });
    world.networkUp = false;
    await world.round.run(signal);
    expect(world.networkUp).toBe(true);
  });

  test('any one call may fail: the round says so, and the next one heals it', async () => {
    await world.round.run(signal);
    const total = world.calls.length;
    expect(total).toBeGreaterThan(12);
    for (let failAt = 1; failAt <= total; failAt++) {
      world = new World();
      world.failAt = failAt;
      await expect(world.round.run(signal)).rejects.toThrow();
      expect(world.calls.length).toBeGreaterThanOrEqual(failAt);
      expect(world.status.state.kind).toBe('failing');
      await world.round.run(signal);
      expect(world.leftToDo()).toEqual([]);
      expect(world.files).toHaveProperty('conflist');
      expect(world.networkUp).toBe(true);
    }
  });

  test('a route to one peer that fails keeps pods from no one', async () => {
    await world.round.run(signal);
    const at = world.calls.indexOf('put route') + 1;
    world = new World();
    world.failAt = at;
    await expect(world.round.run(signal)).rejects.toThrow();
    expect(world.files).toHaveProperty('conflist');
  });

  describe('a route that somebody changes by hand is ours still', () => {
    const [toB, toC] = ['10.244.2.0/24', '10.244.3.0/24'].map(parsePrefix) as [Prefix, Prefix];

    test('though its node has only just joined, and until it leaves', async () => {
      await world.round.run(signal);
      await world.round.run(signal);
      world.calls = [];
      world.nodes.set('c', node('c', 3));
      await world.round.run(signal);
      expect(world.calls).not.toContain('observe host');
      expect([toB, toC].map((to) => world.round.hasRouteTo(to))).toEqual([true, true]);
      world.nodes.delete('b');
      await world.round.run(signal);
      expect([toB, toC].map((to) => world.round.hasRouteTo(to))).toEqual([false, true]);
    });

    test('though another node’s cannot be put', async () => {
      world.nodes.set('c', node('c', 3));
      await world.round.run(signal);
      const at = world.calls.lastIndexOf('put route') + 1;
      world = new World();
      world.nodes.set('c', node('c', 3));
      world.failAt = at;
      await expect(world.round.run(signal)).rejects.toThrow();
      expect([toB, toC].map((to) => world.round.hasRouteTo(to))).toEqual([true, false]);
    });
  });

  test('no packets are carried by a device that is not known to be there', async () => {
    await world.round.run(signal);
    const at = world.calls.indexOf('observe host') + 1;
    world = new World();
    world.failAt = at;
    let carried = 0;
    world.carry = () => (carried += 1);
    await expect(world.round.run(signal)).rejects.toThrow();
    expect(carried).toBe(0);
    await world.round.run(signal);
    expect(carried).toBe(1);
  });

  test.each(['put vxlan', 'put address', 'put sysctl', 'apply tables'])(
    'no pods before %s has succeeded',
    async (call) => {
      await world.round.run(signal);
      const at = world.calls.indexOf(call) + 1;
      world = new World();
      world.failAt = at;
      await expect(world.round.run(signal)).rejects.toThrow();
      expect(world.files).toEqual({});
    },
  );
});
