import { beforeEach, describe, expect, test } from 'vitest';
import { FakeClock } from '#pkg/clock/fake-clock.ts';
import { startWatchdog, type Watchdog } from './watchdog.ts';

const { signal: never } = new AbortController();
let clock: FakeClock;
let watchdog: Watchdog;

beforeEach(() => {
  clock = new FakeClock(7_200_000);
  watchdog = startWatchdog(clock, { idleMs: 1_000, overdueMs: undefined }, never);
});

describe('the watchdog', () => {
  test('bites after silence, and not before', async () => {
    await clock.advance(600);
    watchdog.feed();
    await clock.advance(999);
    expect(watchdog.signal.aborted).toBe(false);
    await clock.advance(1);
    expect(watchdog.signal.reason).toMatchObject({ code: 'Idle' });
  });

  test('bites within twice the time after the clock was set back', async () => {
    clock.set(0);
    await clock.advance(2_000);
    expect(watchdog.signal.reason).toMatchObject({ code: 'Idle' });
  });

  test('ends when disposed', async () => {
    watchdog[Symbol.dispose]();
    await clock.advance(1_000);
    expect(watchdog.signal.aborted).toBe(false);
    expect(clock.sleeping).toBe(0);
  });
});
