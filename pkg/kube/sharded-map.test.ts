import { expect, test } from 'vitest';
import { createShardedMap } from './sharded-map.ts';

test('is a map: the same answers as Map for any sequence of changes', () => {
  const map = createShardedMap<number>();
  const model = new Map<string, number>();
  let seed = 1;
  const next = (below: number): number => {
    seed = (Math.imul(seed, 1_103_515_245) + 12_345) & 0x7fffffff;
    return (seed >>> 8) % below;
  };
  const snapshots: { taken: ReadonlyMap<string, number>; copy: Map<string, number> }[] = [];
  for (let step = 0; step < 5_000; step++) {
    const key = `ns-${next(3)}/name-${next(400)}`;
    if (next(3) === 0) {
      map.delete(key);
      model.delete(key);
    } else {
      map.set(key, step);
      model.set(key, step);
    }
    if (next(50) === 0) snapshots.push({ taken: map.snapshot(), copy: new Map(model) });
  }
  expect(map.size).toBe(model.size);
  for (const key of model.keys()) expect(map.get(key)).toBe(model.get(key));
  expect(snapshots.length).toBeGreaterThan(50);
  for (const { taken, copy } of snapshots) {
    expect(taken.size).toBe(copy.size);
    expect(new Map(taken)).toEqual(copy);
    expect(new Set(taken.values())).toEqual(new Set(copy.values()));
  }
});

test('a snapshot is not taken anew while nothing changed', () => {
  const map = createShardedMap<number>();
  map.set('a', 1);
  const first = map.snapshot();
  map.delete('not there');
  expect(map.snapshot()).toBe(first);
  map.set('a', 2);
  expect(map.snapshot()).not.toBe(first);
  expect(first.get('a')).toBe(1);
  expect(first.has('b')).toBe(false);
  const seen: [string, number][] = [];
  map.snapshot().forEach((value, key) => seen.push([key, value]));
  expect(seen).toEqual([['a', 2]]);
});
