import { FakeClock } from '#pkg/clock/fake-clock.ts';
import { silentLogger } from '#pkg/log/logger.ts';
import { describe, expect, test } from 'vitest';
import { createKubeClient } from './client.ts';
import { allNodes } from './resources.ts';
import { createStore, type Subscription } from './store.ts';
import { projectThing, type Thing } from './testing/list-watch-rig.ts';
import { ModelServer } from './testing/model-server.ts';
import { startScriptedServer } from './testing/scripted-server.ts';
import { seededRandom } from './testing/seeded-random.ts';

/** What the model can do wrong, and how often it has, in all runs together. */
const hits = new Map<string, number>();
const faults = [
  'refusal',
  'broken list',
  'broken line',
  'cut',
  'end',
  'stall',
  'duplicate',
  'error event',
  'compaction',
];

describe.each([
  ['that streams lists', true],
  ['that does not stream lists', false],
])('a server %s, with random changes and random faults', (_, streamsLists) => {
  test.each([1, 2, 3])(
    'ends up in the store, and in who follows its changes (seed %i)',
    async (seed) => {
      const random = seededRandom(seed);
      const clock = new FakeClock();
      await using server = await startScriptedServer();
      const model = new ModelServer(server, random, streamsLists);
      await using client = createKubeClient(
        {
          server: server.url,
          serverName: undefined,
          insecure: false,
          ca: undefined,
          user: {},
          namespace: 'default',
        },
        { clock, log: silentLogger, userAgent: 'podwire-test/1', random },
      );
      const store = createStore<Thing>();
      const stop = new AbortController();
      using changes = store.subscribe(() => undefined);
      const follower = new Map<string, Thing>();
      const { stats } = client.watchResource(allNodes, projectThing, store, stop.signal);

      for (let step = 0; step < 1_500; step++) {
        model.step();
        // Time goes faster than the sockets do: seconds for each turn of the event loop.
        await clock.advance(random() * 2_000);
        if (random() < 0.2) follow(changes, follower);
      }
      model.heal();
      const state = (): string =>
        [...model.objects.values()]
          .map(({ name, uid, value }) => `${name}/${uid}=${value}`)
          .toSorted()
          .join('\n');
      const copy = (things: Iterable<Thing>): string =>
        [...things]
          .map(({ name, uid, value }) => `${name}/${uid}=${value}`)
          .toSorted()
          .join('\n');
      for (let turn = 0; turn < 5_000 && copy(store.snapshot().values()) !== state(); turn++) {
        await clock.advance(1_000);
      }
      expect(copy(store.snapshot().values())).toBe(state());
      follow(changes, follower);
      expect(copy(follower.values())).toBe(state());
      for (const [fault, count] of model.faults) hits.set(fault, (hits.get(fault) ?? 0) + count);
      expect(stats.rejected).toBe(0);
      stop.abort();
    },
    30_000,
  );
});

test('the runs above had every fault in them', () => {
  expect([...hits.keys()].toSorted()).toEqual(faults.toSorted());
});

/** Applies drained changes to a copy, checking that they fit what it has. */
function follow(changes: Subscription<Thing>, copy: Map<string, Thing>): void {
  for (const { key, old, new: now, recreated } of changes.drain()) {
    expect(copy.get(key)).toEqual(old);
    expect(recreated).toBe(old !== undefined && now !== undefined && old.uid !== now.uid);
    if (now === undefined) copy.delete(key);
    else copy.set(key, now);
  }
}
