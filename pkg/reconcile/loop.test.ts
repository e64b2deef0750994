import { describe, expect, it } from 'vitest';
import { FakeClock } from '#pkg/clock/fake-clock.ts';
import { createReconcileLoop, type ReconcileLoop, type RetryDelays } from './loop.ts';

interface Stage {
  readonly clock: FakeClock;
  readonly loop: ReconcileLoop;
  /** When each round started. */
  readonly rounds: number[];
  readonly retries: number[];
  /** How many of the next rounds fail. */
  failNext: number;
  /** Rounds find nothing to do. */
  isIdle: boolean;
  stop(): Promise<void>;
}

function stage(roundMs = 0, delays: Partial<RetryDelays> = {}): Stage {
  const clock = new FakeClock();
  const abort = new AbortController();
  const rounds: number[] = [];
  const retries: number[] = [];
  const loop = createReconcileLoop({
    round: async () => {
      rounds.push(clock.now());
      if (roundMs > 0) await clock.sleep(roundMs);
      if (self.failNext > 0) {
        self.failNext -= 1;
        throw new Error('kernel says no');
      }
      if (self.isIdle) return 'idle';
      return undefined;
    },
    minIntervalMs: 1_000,
    maxIntervalMs: 30_000,
    retry: { initialMs: 1_000, maxMs: 5_000, ...delays },
    clock,
    onError: (_, retryInMs) => retries.push(retryInMs),
  });
  const running = loop.run(abort.signal);
  const self: Stage = {
    clock,
    loop,
    rounds,
    retries,
    failNext: 0,
    isIdle: false,
    stop: async () => {
      abort.abort();
      await running;
    },
  };
  return self;
}

describe('createReconcileLoop()', () => {
  it('starts the first round at once and no round before it is asked', async () => {
    const s = stage();
    await s.clock.advance(500);
    expect(s.rounds).toEqual([]);
    s.loop.request();
    await s.clock.advance(0);
    expect(s.rounds).toEqual([500]);
    await s.stop();
  });

  it('does not wait after a round that had nothing to do', async () => {
    const s = stage();
    s.isIdle = true;
    s.loop.request();
    await s.clock.advance(10);
    s.isIdle = false;
    s.loop.request();
    await s.clock.advance(10);
    s.loop.request();
    await s.clock.advance(1_000);
    expect(s.rounds).toEqual([0, 10, 1_010]);
    await s.stop();
  });

  it('collapses requests that come within the minimum interval into one round', async () => {
    const s = stage();
    s.loop.request();
    await s.clock.advance(0);
    s.loop.request();
    s.loop.request();
    await s.clock.advance(10_000);
    expect(s.rounds).toEqual([0, 1_000]);
    await s.stop();
  });

  it('runs once more when a request arrives during a round', async () => {
    const s = stage(200);
    s.loop.request();
    await s.clock.advance(100);
    s.loop.request();
    await s.clock.advance(5_000);
    expect(s.rounds).toEqual([0, 1_200]);
    await s.stop();
  });

  it('runs unasked when the maximum interval has passed', async () => {
    const s = stage();
    s.loop.request();
    await s.clock.advance(61_000);
    expect(s.rounds).toEqual([0, 30_000, 60_000]);
    await s.stop();
  });

  it('retries a failed round with doubling delays up to the limit, and starts anew after success', async () => {
    const s = stage();
    s.failNext = 5;
    s.loop.request();
    await s.clock.advance(20_000);
    expect(s.retries).toEqual([1_000, 2_000, 4_000, 5_000, 5_000]);
    expect(s.rounds).toEqual([0, 1_000, 3_000, 7_000, 12_000, 17_000]);
    s.failNext = 1;
    s.loop.request();
    await s.clock.advance(0);
    expect(s.retries.at(-1)).toBe(1_000);
    await s.stop();
  });

  it('lets a request cut a long delay after failures to the limit for requests', async () => {
    const s = stage(0, { requestedMaxMs: 1_500 });
    s.failNext = 5;
    s.loop.request();
    await s.clock.advance(3_100);
    expect(s.rounds).toEqual([0, 1_000, 3_000]);
    s.loop.request();
    await s.clock.advance(1_399);
    expect(s.rounds).toHaveLength(3);
    await s.clock.advance(1);
    expect(s.rounds).toEqual([0, 1_000, 3_000, 4_500]);
    await s.clock.advance(5_000);
    expect(s.rounds).toEqual([0, 1_000, 3_000, 4_500, 9_500]);
    await s.clock.advance(2_000);
    s.loop.request();
    await s.clock.advance(0);
    expect(s.rounds).toEqual([0, 1_000, 3_000, 4_500, 9_500, 11_500]);
    await s.stop();
    expect(s.clock.sleeping).toBe(0);
  });

  it('without such a limit does not let requests cut short the delay after a failure', async () => {
    const s = stage();
    s.failNext = 1;
    s.loop.request();
    await s.clock.advance(100);
    s.loop.request();
    await s.clock.advance(100);
    expect(s.rounds).toEqual([0]);
    await s.clock.advance(800);
    expect(s.rounds).toEqual([0, 1_000]);
    await s.stop();
  });

  it('stops without an error while waiting, and leaves no timer behind', async () => {
    const s = stage();
    s.loop.request();
    await s.clock.advance(2_000);
    await s.stop();
    expect(s.clock.sleeping).toBe(0);
    s.loop.request();
    await s.clock.advance(60_000);
    expect(s.rounds).toHaveLength(1);
  });
});
