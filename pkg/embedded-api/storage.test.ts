import { describe, expect, it } from 'vitest';
import { textAt } from './json.ts';
import type { KubeObject } from './object.ts';
import { Storage } from './storage.ts';

function object(name: string, value = ''): KubeObject {
  const metadata = { name, uid: name, resourceVersion: '', creationTimestamp: '' };
  return { apiVersion: 'v1', kind: 'Thing', metadata, value };
}

function names(storage: Storage, revision?: number, prefix = ''): string[] {
  return storage
    .snapshot('things', prefix, revision)
    .entries.map(([, { metadata, ...rest }]) => `${metadata.name}${textAt(rest, 'value')}`);
}

describe('Storage', () => {
  it('numbers every change and stamps it on the object', () => {
    const storage = new Storage(10, 41);
    expect(storage.put('things', 'a', object('a')).metadata.resourceVersion).toBe('42');
    expect(storage.put('others', 'a', object('a')).metadata.resourceVersion).toBe('43');
    expect(storage.remove('things', 'a')?.metadata.resourceVersion).toBe('44');
    expect(storage.revision).toBe(44);
    expect(storage.remove('things', 'a')).toBeUndefined();
    expect(storage.revision).toBe(44);
  });

  it('lists in the order of keys, by prefix, whatever the order of writes', () => {
    const storage = new Storage(10, 0);
    for (const key of ['b/2', 'a/1', 'c/1', 'b/1']) {
      storage.put('things', key, object(key));
      storage.snapshot('things');
    }
    storage.remove('things', 'c/1');
    storage.remove('things', 'b/1');
    storage.put('things', 'b/1', object('b/1'));
    expect(names(storage)).toEqual(['a/1', 'b/1', 'b/2']);
    expect(names(storage, undefined, 'b/')).toEqual(['b/1', 'b/2']);
    expect(names(storage, undefined, 'bb/')).toEqual([]);
  });

  it('shows the past until it is compacted', () => {
    const storage = new Storage(10, 0);
    storage.put('things', 'a', object('a', '1')); // 1
    storage.put('things', 'b', object('b', '1')); // 2
    storage.put('things', 'a', object('a', '2')); // 3
    storage.remove('things', 'b'); // 4
    storage.put('things', 'c', object('c', '1')); // 5
    expect(names(storage, 2)).toEqual(['a1', 'b1']);
    expect(names(storage, 3)).toEqual(['a2', 'b1']);
    expect(names(storage, 4)).toEqual(['a2']);
    expect(names(storage)).toEqual(['a2', 'c1']);
    storage.compact(3);
    expect(() => storage.snapshot('things', '', 2)).toThrow(
      expect.objectContaining({ code: 'Expired' }),
    );
    expect(names(storage, 3)).toEqual(['a2', 'b1']);
  });

  it('forgets the oldest changes when the window is full', () => {
    const storage = new Storage(3, 0);
    for (let i = 1; i <= 5000; i++) storage.put('things', 'a', object('a', String(i)));
    expect(storage.compactedRevision).toBe(4997);
    expect(storage.changesSince(4997).map((change) => change.revision)).toEqual([4998, 4999, 5000]);
    expect(storage.changesSince(4999)).toHaveLength(1);
    expect(() => storage.changesSince(4996)).toThrow(/too old resource version: 4996 \(4997\)/);
  });

  it('tells listeners after the change, with what was before', () => {
    const storage = new Storage(3, 0);
    const seen: string[] = [];
    const stop = storage.subscribe(({ type, object: now, previous }) => {
      seen.push(
        `${type} ${textAt(previous, 'value')}>${textAt(now, 'value')} ${storage.get('things', 'a') !== undefined}`,
      );
    });
    storage.put('things', 'a', object('a', '1'));
    storage.put('things', 'a', object('a', '2'));
    storage.remove('things', 'a');
    stop();
    storage.put('things', 'a', object('a', '3'));
    expect(seen).toEqual(['ADDED >1 true', 'MODIFIED 1>2 true', 'DELETED 2>2 false']);
  });

  it('keeps objects nobody can change', () => {
    const stored = new Storage(3, 0).put('things', 'a', object('a'));
    expect(Object.isFrozen(stored) && Object.isFrozen(stored.metadata)).toBe(true);
  });
});
