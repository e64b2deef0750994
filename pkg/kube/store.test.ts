import { describe, expect, test } from 'vitest';
import { createStore } from './store.ts';
import type { ObjectMeta } from './types.ts';

interface Thing extends ObjectMeta {
  readonly value?: string;
}

let version = 100;
function thing(name: string, more: Partial<Thing> = {}): Thing {
  version += 1;
  return { namespace: 'ns', name, uid: `uid-${name}`, resourceVersion: String(version), ...more };
}

function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

describe('changes', () => {
  test('of one key are told once, from the first old to the latest new', () => {
    const store = createStore<Thing>();
    const [one, two, three] = [thing('a'), thing('a'), thing('a')];
    store.put(one);
    using changes = store.subscribe(() => undefined);
    store.put(two);
    store.put(three);
    expect(changes.drain()).toEqual([{ key: 'ns/a', old: one, new: three, recreated: false }]);
    expect(changes.drain()).toEqual([]);
  });

  test('that cancel out are not told: added and gone, gone and back', () => {
    const store = createStore<Thing>();
    const stays = thing('stays');
    store.put(stays);
    using changes = store.subscribe(() => undefined);
    store.put(thing('brief'));
    store.remove('ns/brief');
    store.remove('ns/stays');
    store.put(stays);
    expect(changes.drain()).toEqual([]);
  });

  test('tell of an object made again under its name, also when the delete was not seen', () => {
    const store = createStore<Thing>();
    const old = thing('a', { uid: 'first' });
    store.put(old);
    using changes = store.subscribe(() => undefined);
    const now = thing('a', { uid: 'second' });
    store.replace([now]);
    expect(changes.drain()).toEqual([{ key: 'ns/a', old, new: now, recreated: true }]);
  });

  test('are counted for each consumer by itself', () => {
    const store = createStore<Thing>();
    using first = store.subscribe(() => undefined);
    store.put(thing('a'));
    using second = store.subscribe(() => undefined);
    store.put(thing('b'));
    expect(first.drain().map(({ key }) => key)).toEqual(['ns/a', 'ns/b']);
    expect(second.drain().map(({ key }) => key)).toEqual(['ns/b']);
  });

  test('of the version alone are none for a kind with heartbeats, and the newer record is kept', async () => {
    const store = createStore<Thing>({ ignoreVersions: true });
    store.put(thing('a', { value: 'x' }));
    let notified = 0;
    using changes = store.subscribe(() => (notified += 1));
    await settled();
    notified = 0;
    const beat = thing('a', { value: 'x' });
    store.put(beat);
    await settled();
    expect(changes.drain()).toEqual([]);
    expect(notified).toBe(0);
    expect(store.get('ns/a')).toBe(beat);
    store.put(thing('a', { value: 'y' }));
    expect(changes.drain()).toHaveLength(1);
  });
});

describe('replace', () => {
  test('leaves equal records as they are and tells only what differs', () => {
    const store = createStore<Thing>();
    const [same, changed, gone] = [thing('same'), thing('changed'), thing('gone')];
    store.replace([same, changed, gone]);
    using changes = store.subscribe(() => undefined);
    const newer = thing('changed');
    const added = thing('added');
    store.replace([{ ...same }, newer, added]);
    expect(store.get('ns/same')).toBe(same);
    expect(changes.drain().toSorted((a, b) => a.key.localeCompare(b.key))).toEqual([
      { key: 'ns/added', old: undefined, new: added, recreated: false },
      { key: 'ns/changed', old: changed, new: newer, recreated: false },
      { key: 'ns/gone', old: gone, new: undefined, recreated: false },
    ]);
  });

  test('makes the store synced, even with nothing, and says so', async () => {
    const store = createStore<Thing>();
    let notified = 0;
    using _listener = store.onChange(() => (notified += 1));
    const waiting = store.whenSynced(AbortSignal.timeout(5_000));
    store.put(thing('early'));
    expect(store.synced).toBe(false);
    await settled();
    notified = 0;
    store.replace([thing('early')]);
    await waiting;
    expect(store.synced).toBe(true);
    await settled();
    expect(notified).toBe(1);
    await store.whenSynced(AbortSignal.timeout(5_000));
  });
});

test('what was put one by one is complete when that is said, without what is gone', async () => {
  const store = createStore<Thing>();
  for (const name of ['a', 'b', 'old']) store.put(thing(name));
  using changes = store.subscribe(() => undefined);
  expect(store.synced).toBe(false);
  store.complete(new Set(['ns/a', 'ns/b']));
  expect(store.synced).toBe(true);
  expect([...store.snapshot().keys()].toSorted()).toEqual(['ns/a', 'ns/b']);
  expect(changes.drain().map(({ key, new: now }) => [key, now])).toEqual([['ns/old', undefined]]);
});

test('waiting for the sync ends with the signal', async () => {
  const store = createStore<Thing>();
  const stop = new AbortController();
  const waiting = store.whenSynced(stop.signal);
  stop.abort(new Error('stopped'));
  await expect(waiting).rejects.toThrow('stopped');
  await expect(store.whenSynced(stop.signal)).rejects.toThrow('stopped');
});

test('a snapshot stays as it was', () => {
  const store = createStore<Thing>();
  store.replace([thing('a'), thing('b')]);
  const before = store.snapshot();
  store.remove('ns/a');
  store.put(thing('c'));
  expect([...before.keys()].toSorted()).toEqual(['ns/a', 'ns/b']);
  expect([...store.snapshot().keys()].toSorted()).toEqual(['ns/b', 'ns/c']);
});

test('many changes in a row notify once; who left is not called', async () => {
  const store = createStore<Thing>();
  const calls = { stays: 0, left: 0 };
  using _stays = store.onChange(() => (calls.stays += 1));
  const left = store.onChange(() => (calls.left += 1));
  store.put(thing('a'));
  store.put(thing('b'));
  left[Symbol.dispose]();
  expect(calls).toEqual({ stays: 0, left: 0 });
  await settled();
  expect(calls).toEqual({ stays: 1, left: 0 });
});

test('a consumer that throws breaks neither the source nor the other consumers', async () => {
  const errors: unknown[] = [];
  const store = createStore<Thing>({ onNotifyError: (error) => errors.push(error) });
  let others = 0;
  using _broken = store.onChange(() => {
    throw new Error('broken consumer');
  });
  using _sound = store.onChange(() => (others += 1));
  store.put(thing('a'));
  await settled();
  expect(errors).toEqual([new Error('broken consumer')]);
  expect(others).toBe(1);
});

test('150,000 objects at once are as good as one', () => {
  const store = createStore<Thing>();
  using changes = store.subscribe(() => undefined);
  store.replace(Array.from({ length: 150_000 }, (_, index) => thing(`object-${index}`)));
  expect(store.snapshot().size).toBe(150_000);
  expect(changes.drain()).toHaveLength(150_000);
});
