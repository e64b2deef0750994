import { beforeEach, describe, expect, test, vi } from 'vitest';
import { parsePrefix, type Prefix } from '#pkg/ip/prefix.ts';
import { PeerIndex } from '#pkg/pod-network/peer-index.ts';
import { node, World } from './scratch/round-world.ts';

const { signal } = new AbortController();
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
