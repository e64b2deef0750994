import { describe, expect, test } from 'vitest';
import { objectKey, sameObject, type HostObject } from '#pkg/host-network/object.ts';
import { planHostNetwork } from '#pkg/host-network/plan.ts';
import type { Step } from '#pkg/host-network/step.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import type { NodeRecord } from '#pkg/kube/types.ts';
import { planNftables, type NftStep } from '#pkg/nftables/plan.ts';
import { observedOf, type ObservedTable } from '#pkg/nftables/ruleset.ts';
import { seededRandom } from '#pkg/kube/testing/seeded-random.ts';
import { desiredPodNetwork, type Desired, type PodNetworkOptions } from './desired.ts';
import { vxlanOptions } from './testdata/vxlan-node.ts';
import { PeerIndex, type PeerChange } from './peer-index.ts';

const options: PodNetworkOptions = {
  ...vxlanOptions('n1'),
  nonMasqueradeCIDRs: [parsePrefix('192.168.7.0/24')],
};

const host = {
  links: [
    {
      name: 'eth0',
      mtuBytes: 1500,
      addresses: ['192.168.1.1/24', 'fd00:1::1/64'].map(parsePrefix),
      onLinkPrefixes: ['192.168.1.0/24', 'fd00:1::/64'].map(parsePrefix),
    },
  ],
  advertisedLinks: [],
  acceptRa: () => '0',
};

interface Shape {
  readonly pods?: number;
  readonly subnet?: number;
  readonly address?: number;
  readonly mac?: number;
  readonly podLength?: number;
  readonly announces?: boolean;
  readonly backend?: string;
}

function node(n: number, shape: Shape = {}): NodeRecord {
  const { pods = n, subnet = 2, address = n, mac = n, podLength = 24, announces = true } = shape;
  const { backend = 'vxlan' } = shape;
  const [ip, ip6] = [`192.168.${subnet}.${address}`, `fd00:${subnet}::${address}`];
  const annotations = {
    'podwire.dev/backend-type': backend,
    'podwire.dev/public-ip': ip,
    'podwire.dev/public-ipv6': ip6,
    'podwire.dev/backend-data': dataOf(backend, '04', mac),
    'podwire.dev/backend-v6-data': dataOf(backend, '06', mac),
  };
  return {
    namespace: '',
    name: `n${n}`,
    uid: `uid-${n}`,
    resourceVersion: JSON.stringify(shape),
    createdAt: `2026-01-01T00:00:${String(n).padStart(2, '0')}Z`,
    annotations: announces ? annotations : {},
    labels: {},
    podCIDRs: [`10.244.${pods}.0/${podLength}`, `fd00:10:244:${pods}::/64`],
    internalIPs: [ip, ip6],
    taintKeys: [],
    deleting: false,
  };
}

function dataOf(backend: string, family: string, n: number): string {
  if (backend !== 'wireguard') return `{"VNI":1,"VtepMAC":"02:00:00:00:${family}:${hex(n)}"}`;
  return JSON.stringify({ PublicKey: Buffer.alloc(32, n).toString('base64') });
}

function hex(n: number): string {
  return n.toString(16).padStart(2, '0');
}

/** A cluster as one node's kernel has it: changed by steps only. */
class World {
  readonly options: PodNetworkOptions;

  constructor(changed: Partial<PodNetworkOptions> = {}) {
    this.options = { ...options, ...changed };
  }

  readonly records = new Map<string, NodeRecord>([
    ['n1', node(1, { subnet: 1, announces: false })],
  ]);
  objects: HostObject[] = [];
  tables: ObservedTable[] = [];
  index: PeerIndex | undefined;
  quick = 0;
  full = 0;

  desired(): Desired {
    const want = desiredPodNetwork(this.records, host, this.options);
    if (want.kind !== 'desired') throw new Error(want.reason);
    return want;
  }

  /** Everything from the start. */
  recalculate(): void {
    const want = this.desired();
    this.objects = [...want.objects];
    this.tables = want.ruleset.tables.map(observedOf);
    this.index = new PeerIndex(want.basis);
    this.full += 1;
  }

  change(
    changes: readonly { readonly name: string; readonly next: NodeRecord | undefined }[],
  ): void {
    const peers: PeerChange[] = changes.map(({ name, next }) => {
      const old = this.records.get(name);
      if (next === undefined) this.records.delete(name);
      else this.records.set(name, next);
      return { old, new: next };
    });
    const delta = this.index?.take(peers);
    if (delta === undefined) {
      this.recalculate();
      return;
    }
    this.quick += 1;
    this.#apply(delta.steps);
    this.#applyTables(delta.tableSteps);
  }

  /** What a full calculation would still change. */
  leftToDo(): readonly unknown[] {
    const want = this.desired();
    return [
      ...planHostNetwork(want.objects, this.objects),
      ...planNftables(want.ruleset, this.tables),
    ];
  }

  #apply(steps: readonly Step[]): void {
    for (const { op, object } of steps) {
      const same = (other: HostObject): boolean => objectKey(other) === objectKey(object);
      const there = this.objects.find(same);
      if (op === 'delete' && (there === undefined || !sameObject(there, object))) {
        throw new Error(`deletes what is not there: ${objectKey(object)}`);
      }
      this.objects = this.objects.filter((other) => !same(other));
      if (op === 'put') this.objects.push(object);
    }
  }

  #applyTables(steps: readonly NftStep[]): void {
    for (const step of steps) {
      if (step.op !== 'addElements' && step.op !== 'deleteElements') throw new Error(step.op);
      this.tables = this.tables.map((table) => ({
        ...table,
        sets: table.sets.map((set) => {
          if (set.name !== step.set) return set;
          const elements = new Set(set.elements);
          for (const element of step.elements) {
            const had = elements.has(element);
            if (had === (step.op === 'addElements')) throw new Error(`${step.op} ${element}`);
            if (had) elements.delete(element);
            else elements.add(element);
          }
          return { ...set, elements };
        }),
      }));
    }
  }
}

function world(...numbers: readonly number[]): World {
  const made = new World();
  for (const n of numbers) made.records.set(`n${n}`, node(n));
  made.recalculate();
  made.full = 0;
  return made;
}

describe('PeerIndex', () => {
  test.each<[string, number, Shape | undefined]>([
    ['a node that joins', 9, {}],
    ['a node that joins on our L2', 9, { subnet: 1 }],
    ['a node that joins without its agent', 9, { announces: false }],
    ['a node that leaves', 3, undefined],
    ['another MAC', 3, { mac: 77 }],
    ['another address', 3, { address: 88 }],
    ['another range', 3, { pods: 66 }],
    ['all of it at once', 3, { pods: 66, address: 88, mac: 77, subnet: 1 }],
    ['an address that is exempt anyway', 3, { subnet: 7 }],
    ['a node whose agent goes', 3, { announces: false }],
  ])('150. tells what changes by %s', (_, n, shape) => {
    const all = world(2, 3, 4);
    all.change([{ name: `n${n}`, next: shape === undefined ? undefined : node(n, shape) }]);
    expect(all.leftToDo()).toEqual([]);
    expect([all.quick, all.full]).toEqual([1, 0]);
  });

  test.each<[string, Shape | undefined]>([
    ['leaves', undefined],
    ['gets it', { pods: 5 }],
  ])('a network of the configuration in the range of a node that %s', (_, shape) => {
    const [pods, within] = shape === undefined ? [3, 3] : [3, 5];
    const all = new World({ nonMasqueradeCIDRs: [parsePrefix(`10.244.${within}.128/25`)] });
    for (const n of [2, 3]) all.records.set(`n${n}`, node(n, n === 3 ? { pods } : {}));
    all.recalculate();
    all.change([{ name: 'n3', next: shape === undefined ? undefined : node(3, shape) }]);
    expect(all.leftToDo()).toEqual([]);
  });

  const wireguard = {
    mode: 'auto',
    publicKey: Buffer.alloc(32, 200).toString('base64'),
    port: 51_820,
    portV6: 51_821,
    keepaliveSeconds: 0,
    presharedKey: undefined,
  } as const;
  const bgp = { asNumber: 64_512, reflectors: [] };

  test.each([
    ['ipip', [1, 0]],
    ['wireguard', [1, 0]],
    // These keep a list of all peers.
    ['udp', [0, 1]],
    ['bgp', [0, 1]],
  ] as const)('backend %s: a node whose range, key and address change', (backend, count) => {
    const all = new World({ backend, wireguard, bgp });
    for (const n of [2, 3, 4]) all.records.set(`n${n}`, node(n, { backend }));
    all.recalculate();
    all.full = 0;
    const next = node(3, { backend, pods: 66, mac: 77, address: 88 });
    all.change([{ name: 'n3', next }]);
    expect(all.leftToDo()).toEqual([]);
    expect([all.quick, all.full]).toEqual(count);
  });

  test('a family that pods do not have is none of its matters', () => {
    const all = new World({ families: ['ip'] });
    for (const n of [2, 3]) all.records.set(`n${n}`, node(n));
    all.recalculate();
    all.full = 0;
    const odd = { 'podwire.dev/public-ipv6': 'nonsense' };
    const joining = node(9);
    const annotations = { ...joining.annotations, ...odd };
    all.change([{ name: 'n9', next: { ...joining, annotations } }]);
    expect(all.leftToDo()).toEqual([]);
    expect([all.quick, all.full]).toEqual([1, 0]);
  });

  test('two nodes of one WireGuard key are no plain matter', () => {
    const all = new World({ backend: 'wireguard', wireguard });
    for (const n of [2, 3]) all.records.set(`n${n}`, node(n, { backend: 'wireguard' }));
    all.recalculate();
    all.full = 0;
    all.change([{ name: 'n4', next: node(4, { backend: 'wireguard', mac: 3 }) }]);
    expect(all.leftToDo()).toEqual([]);
    expect([all.quick, all.full]).toEqual([0, 1]);
  });

  test('a node that changes its backend may free devices that stayed for it', () => {
    const all = new World({ backend: 'host-gw' });
    all.records.set('n3', node(3, { subnet: 1 }));
    all.recalculate();
    all.full = 0;
    all.change([{ name: 'n3', next: node(3, { subnet: 1, backend: 'host-gw' }) }]);
    expect(all.leftToDo()).toEqual([]);
    expect([all.quick, all.full]).toEqual([0, 1]);
  });

  test('two nodes that change places are one answer', () => {
    const all = world(2, 3, 4);
    all.change([
      { name: 'n2', next: undefined },
      { name: 'n3', next: node(3, { pods: 2, address: 2, mac: 2 }) },
    ]);
    expect(all.leftToDo()).toEqual([]);
    expect([all.quick, all.full]).toEqual([1, 0]);
  });

  test.each<[string, number, Shape]>([
    ['our own Node', 1, { subnet: 1, mac: 55 }],
    ["another's range", 3, { pods: 2 }],
    ["another's MAC", 3, { mac: 2 }],
    ['a range of another length', 3, { podLength: 25 }],
    ['our own address', 3, { subnet: 1, address: 1 }],
  ])('has no quick answer for %s', (_, n, shape) => {
    const all = world(2, 3, 4);
    all.change([{ name: `n${n}`, next: node(n, shape) }]);
    expect(all.leftToDo()).toEqual([]);
    expect([all.quick, all.full]).toEqual([0, 1]);
  });

  test('has none for a node in the range of pods', () => {
    const all = world(2, 3, 4);
    const inside = { ...node(9), internalIPs: ['10.244.3.200'] };
    all.change([{ name: 'n9', next: inside }]);
    expect(all.leftToDo()).toEqual([]);
    expect(all.full).toBe(1);
  });

  test('has none for a range around a node', () => {
    const all = world(2, 3);
    all.change([{ name: 'n8', next: { ...node(8), internalIPs: ['10.244.66.5'] } }]);
    expect([all.quick, all.full]).toEqual([1, 0]);
    all.change([{ name: 'n9', next: node(9, { pods: 66 }) }]);
    expect(all.leftToDo()).toEqual([]);
    expect(all.full).toBe(1);
  });

  test('what gave way to another comes back when that goes', () => {
    const all = world(2, 3);
    all.change([{ name: 'n5', next: node(5, { pods: 2 }) }]);
    all.change([{ name: 'n2', next: undefined }]);
    expect(all.leftToDo()).toEqual([]);
    expect(all.objects.some((object) => objectKey(object).includes('route'))).toBe(true);
  });

  test.each([1, 2, 3, 4])('whatever happens, in any order (seed %i)', (seed) => {
    const random = seededRandom(seed);
    const upTo = (n: number): number => Math.floor(random() * n);
    const all = world(2, 3, 4, 5);
    for (let round = 0; round < 150; round++) {
      const changes = Array.from({ length: 1 + upTo(2) }, () => {
        const n = 2 + upTo(12);
        const odd = upTo(12) === 0;
        const next = node(n, {
          pods: odd ? 2 + upTo(12) : n + 20 * upTo(3),
          mac: odd ? 2 + upTo(12) : n + 20 * upTo(2),
          subnet: 1 + upTo(3),
          address: n + 20 * upTo(2),
          announces: upTo(6) > 0,
        });
        return { name: `n${n}`, next: upTo(4) === 0 ? undefined : next };
      });
      // One entry a key, as the store gives them.
      const unique = new Map(changes.map((change) => [change.name, change]));
      all.change([...unique.values()]);
      expect(all.leftToDo()).toEqual([]);
    }
    expect(all.quick).toBeGreaterThan(20);
  });
});

test('an index fits another full calculation while nothing but nodes has changed', () => {
  const world = new World();
  world.change([{ name: 'n2', next: node(2) }]);
  world.recalculate();
  world.change([{ name: 'n3', next: node(3) }]);
  world.change([{ name: 'n2', next: undefined }]);
  expect(world.quick).toBe(2);
  const { basis } = world.desired();
  expect(world.index?.fits(basis)).toBe(true);
  const others: Partial<typeof basis>[] = [
    { self: { ...basis.self, uid: 'another' } },
    { announcements: {} },
    { troubled: new Set(['n3']) },
    { isContested: true },
    { masqueraded: [] },
    { nonMasqueradeCIDRs: [parsePrefix('10.0.0.0/8')] },
    { nodes: new Map() },
  ];
  for (const other of others) expect(world.index?.fits({ ...basis, ...other })).toBe(false);
});
