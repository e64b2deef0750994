import { describe, expect, test } from 'vitest';
import { parseAddress } from '#pkg/ip/address.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import type { Step } from '#pkg/host-network/step.ts';
import type { KernelChange } from '#pkg/netlink/monitor.ts';
import { OwnWrites } from './own-writes.ts';

const entry = {
  kind: 'fdb',
  link: 'podwire.1',
  mac: '02:00:00:00:00:02',
  remote: parseAddress('192.168.0.2'),
} as const;
const neighbor = {
  kind: 'neighbor',
  link: 'podwire.1',
  address: parseAddress('10.244.2.0'),
  mac: '02:00:00:00:00:02',
} as const;
const put: Step = { op: 'put', object: entry, replaces: undefined };
const remove: Step = { op: 'delete', object: entry };
const address = { kind: 'address', link: 'x', prefix: parsePrefix('10.0.0.1/32') } as const;

function change(kind: 'route' | 'neighbor' | 'link', deleted = false): KernelChange {
  return { kind, deleted, linkIndex: 7 };
}

/** What of these changes, reported while or after `steps` are written, is taken for others'. */
function others(steps: readonly Step[], changes: readonly KernelChange[]): readonly KernelChange[] {
  const queue: KernelChange[] = [];
  const strange: KernelChange[] = [];
  let isHeard = true;
  const own = new OwnWrites({
    look: () => {
      for (const one of queue.splice(0)) if (!own.isOwn(one)) strange.push(one);
    },
    withoutForwarding: (write) => {
      isHeard = false;
      try {
        return write();
      } finally {
        isHeard = true;
      }
    },
  });
  own.around(steps, () =>
    queue.push(...changes.filter((one) => isHeard || one.kind !== 'neighbor' || one.deleted)),
  );
  // And what is looked at later.
  own.around([remove], () => undefined);
  return strange;
}

describe('OwnWrites', () => {
  test.each<[string, readonly Step[], readonly KernelChange[]]>([
    ['what is put', [put], [change('neighbor')]],
    ['as many deletions as were made', [remove], [change('neighbor', true)]],
    ['a neighbour that goes', [{ op: 'delete', object: neighbor }], [change('neighbor', true)]],
  ])('takes %s for its own', (_, steps, changes) => {
    expect(others(steps, changes)).toEqual([]);
  });

  test.each<[string, readonly Step[], readonly KernelChange[]]>([
    ['a deletion too many', [remove], [change('neighbor', true), change('neighbor', true)]],
    ['a deletion while only puts are made', [put], [change('neighbor', true)]],
    ['a route, which ours are not told of', [put], [change('route')]],
    ['a link', [put], [change('link')]],
    ['lost changes', [put], [{ kind: 'resync' }]],
    [
      'anything while a link or address is written',
      [put, { ...put, object: address }],
      [change('neighbor')],
    ],
  ])('reports %s', (_, steps, changes) => {
    expect(others(steps, changes)).toEqual(changes.slice(-1));
  });

  test('reports what others did before, and does after', () => {
    const queue = [change('neighbor', true)];
    const strange: KernelChange[] = [];
    const own = new OwnWrites({
      look: () => {
        for (const one of queue.splice(0)) if (!own.isOwn(one)) strange.push(one);
      },
      withoutForwarding: (write) => write(),
    });
    own.around([remove], () => undefined);
    expect(strange).toHaveLength(1);
    expect(own.isOwn(change('neighbor', true))).toBe(false);
  });

  test('a write that throws is over', () => {
    const own = new OwnWrites({ look: () => undefined, withoutForwarding: (write) => write() });
    expect(() =>
      own.around([remove], () => {
        throw new Error('refused');
      }),
    ).toThrow('refused');
    expect(own.isOwn(change('neighbor', true))).toBe(false);
  });
});
