import { describe, expect, test } from 'vitest';
import { parseAddress } from '#pkg/ip/address.ts';
import { formatPrefix, parsePrefix, type Prefix } from '#pkg/ip/prefix.ts';
import type { KernelChange, KernelGroup, ObjectChange } from '#pkg/netlink/monitor.ts';
import { concernsPodNetwork, createLinkNames } from './kernel-events.ts';

const links = new Map([
  [2, 'eth0'],
  [3, 'podwire.1'],
  [4, 'vethabc'],
]);
const known = {
  watchedLinks: new Set(['eth0', 'podwire.1']),
  hasRouteTo: (to: Prefix) => formatPrefix(to) === '10.244.3.0/24',
  canReach: parseAddress('203.0.113.9'),
};

function change(kind: KernelGroup, linkIndex: number, protocol?: number): ObjectChange {
  return { kind, deleted: false, linkIndex, ...(protocol === undefined ? {} : { protocol }) };
}

/** Another's, by way of a router. */
function routed(linkIndex: number, to: string): ObjectChange {
  return { ...change('route', linkIndex, 3), destination: parsePrefix(to), gateway: true };
}

/** Another's, without a router. */
function direct(linkIndex: number, to: string): ObjectChange {
  return { ...change('route', linkIndex, 3), destination: parsePrefix(to) };
}

type Names = ReturnType<typeof createLinkNames>;

describe('concernsPodNetwork()', () => {
  const names = createLinkNames(
    (index) => links.get(index),
    () => links,
  );

  test.each<[string, KernelChange, boolean]>([
    ['lost events', { kind: 'resync' }, true],
    ['forwarding', { kind: 'forwarding', deleted: false, linkIndex: undefined }, true],
    ['a route of ours', change('route', 2, 220), true],
    ["another's route on our device", routed(3, '10.9.0.0/24'), false],
    ["another's route over the underlay", routed(2, '10.9.0.0/24'), false],
    ['a prefix that is on the underlay itself', direct(2, '10.9.0.0/24'), true],
    ['a prefix that is on another link itself', direct(4, '10.9.0.0/24'), false],
    ['a way to the address that decides the underlay', routed(4, '203.0.113.0/24'), true],
    ['a default route, which may be that way', routed(4, '0.0.0.0/0'), true],
    ['an end of that way', { ...routed(4, '203.0.113.0/24'), deleted: true }, true],
    ['a default route of the other family', routed(4, '::/0'), false],
    ['a route of ours that is now theirs, or has one beside it', routed(2, '10.244.3.0/24'), true],
    ["the end of another's where ours is", { ...routed(2, '10.244.3.0/24'), deleted: true }, false],
    ['the underlay', change('link', 2), true],
    ['an address of the underlay', change('address', 2), true],
    ['our device', change('link', 3), true],
    ["a pod's link", change('link', 4), false],
    ["an address of a pod's link", change('address', 4), false],
    ['a neighbour on our device', change('neighbor', 3), true],
    ['a neighbour on the underlay', change('neighbor', 2), false],
    ["another's link that is gone already", { ...change('link', 99), linkName: 'vethx' }, false],
    [
      'our device, deleted before anybody looked',
      { ...change('link', 99), deleted: true, linkName: 'podwire.1' },
      true,
    ],
    ['our device under a new name', { ...change('link', 3), linkName: 'mine' }, true],
  ])('%s: %o → %s', (_, event, concerns) => {
    expect(concernsPodNetwork(event, known, names)).toBe(concerns);
  });

  test('default routes of others change nothing where no address decides the underlay', () => {
    const other = { ...known, canReach: undefined };
    expect(concernsPodNetwork(routed(4, '0.0.0.0/0'), other, names)).toBe(false);
  });

  test('while the daemon waits for its underlay, any link or address may be it', () => {
    const unknown = { ...known, watchedLinks: undefined };
    expect(concernsPodNetwork(change('link', 4), unknown, names)).toBe(true);
    expect(concernsPodNetwork(change('address', 4), unknown, names)).toBe(true);
    expect(concernsPodNetwork(change('neighbor', 4), unknown, names)).toBe(false);
  });
});

describe('createLinkNames()', () => {
  test.each([
    ['', (): void => undefined],
    [', also after changes were lost', (names: Names) => names.follow({ kind: 'resync' })],
  ])(
    'a link that gets another name before anybody asked for it is known by its old one%s',
    (...row) => {
      const kernel = new Map([[2, 'eth0']]);
      const names = createLinkNames(
        (index) => kernel.get(index),
        () => kernel,
      );
      row[1](names);
      kernel.set(2, 'lan0');
      expect(concernsPodNetwork({ ...change('link', 2), linkName: 'lan0' }, known, names)).toBe(
        true,
      );
    },
  );

  test('does without a list that cannot be had', () => {
    const names = createLinkNames(
      () => 'eth0',
      () => {
        throw new Error('changed while being read');
      },
    );
    expect(names.nameOf(2)).toBe('eth0');
  });

  test('forgets names that it may have missed the end of', () => {
    const kernel = new Map([[3, 'podwire.1']]);
    const names = createLinkNames(
      (index) => kernel.get(index),
      () => kernel,
    );
    kernel.set(3, 'vethabc');
    names.follow({ kind: 'resync' });
    expect(names.nameOf(3)).toBe('vethabc');
  });

  test('knows a deleted link until its deletion was followed, and then its successor', () => {
    const kernel = new Map([[3, 'podwire.1']]);
    const names = createLinkNames(
      (index) => kernel.get(index),
      () => [],
    );
    names.follow({ ...change('link', 3), linkName: 'podwire.1' });
    kernel.delete(3);
    const deleted = { ...change('link', 3), deleted: true, linkName: 'podwire.1' };
    expect(concernsPodNetwork(deleted, known, names)).toBe(true);
    names.follow(deleted);
    kernel.set(3, 'vethabc');
    expect(names.nameOf(3)).toBe('vethabc');
  });
});
