import { setImmediate } from 'node:timers/promises';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { node, World } from './scratch/round-world.ts';

const { signal } = new AbortController();

let world: World;
beforeEach(() => {
  world = new World();
});

/** Until the caller gives up. */
const silence = (abandoned: AbortSignal): Promise<never> =>
  new Promise((_, reject) => {
    abandoned.addEventListener('abort', () => reject(abandoned.reason));
  });

const never = (): Promise<never> => new Promise(() => undefined);

describe('an API server that does not answer', () => {
  /** Starts a round; while it waits for the server, somebody deletes a route. */
  async function start(): Promise<{ readonly round: Promise<void> }> {
    const round = world.round.run(signal);
    await vi.waitFor(() => expect(world.calls).toContain('annotate'));
    world.objects = world.objects.filter(({ kind }) => kind !== 'route');
    world.round.doubtHost();
    return { round };
  }

  test('holds up no repair of the kernel', async () => {
    world.answer = silence;
    const { round } = await start();
    await round;
    expect(world.status.state.kind).toBe('starting');
    expect(world.files).toEqual({});
    const again = world.round.run(signal);
    await vi.waitFor(() => expect(world.objects.map(({ kind }) => kind)).toContain('route'));
    world.round.doubtHost();
    await again;
    world.answer = async () => undefined;
    await world.round.run(signal);
    expect(world.leftToDo()).toEqual([]);
    expect(world.files).toHaveProperty('conflist');
    expect(world.status.state).toEqual({ kind: 'ready' });
  });

  test('nor one of what changed just before it was asked', async () => {
    world.carry = () => world.round.doubtHost();
    world.answer = silence;
    await world.round.run(signal);
    expect(world.calls.at(-1)).toBe('annotate');
    expect(world.files).toEqual({});
  });

  test('has a second for its answer all the same', async () => {
    world.sleep = (ms) => (ms > 0 ? never() : Promise.resolve());
    const answered = Promise.withResolvers<void>();
    world.answer = (abandoned) => Promise.race([answered.promise, silence(abandoned)]);
    const { round } = await start();
    // Whoever would give up at once has done so.
    await setImmediate();
    answered.resolve();
    await round;
    expect(world.files).toHaveProperty('conflist');
  });

  test('is left when the daemon ends', async () => {
    world.answer = silence;
    const stop = new AbortController();
    const running = world.round.run(stop.signal);
    await vi.waitFor(() => expect(world.calls).toContain('annotate'));
    stop.abort(new Error('enough'));
    await expect(running).rejects.toThrow('enough');
  });
});

test('our Node’s new address is looked for among those the host has now', async () => {
  await world.round.run(signal);
  await world.round.run(signal);
  const [eth0] = world.facts.links;
  if (eth0 === undefined) throw new Error('there is no link');
  // Of another link, whose changes are nobody's business.
  const eth1 = { ...eth0, name: 'eth1', addresses: [parsePrefix('192.168.7.1/24')] };
  world.facts = { ...world.facts, links: [eth0, eth1] };
  const own = world.nodes.get('a') ?? node('a', 1);
  world.nodes.set('a', { ...own, internalIPs: ['192.168.7.1'] });
  await world.round.run(signal);
  expect(world.status.state).toEqual({ kind: 'ready' });
  expect(world.objects).toContainEqual(expect.objectContaining({ underlay: 'eth1' }));
});
