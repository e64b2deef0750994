/** A clock that stands still until a test moves it. */
import type { Clock } from './clock.ts';

interface Sleeper {
  readonly at: number;
  readonly wake: () => void;
}

export class FakeClock implements Clock {
  /** Of now() only: somebody set the machine's clock. */
  #setByMs = 0;
  #now: number;
  #sleepers: Sleeper[] = [];

  constructor(startMs = 0) {
    this.#now = startMs;
  }

  now(): number {
    return this.#now + this.#setByMs;
  }

  monotonicMs(): number {
    return this.#now;
  }

  /** How many calls of sleep() have not ended. */
  get sleeping(): number {
    return this.#sleepers.length;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      const stop = (): void => {
        this.#sleepers = this.#sleepers.filter((s) => s !== sleeper);
        reject(signal?.reason);
      };
      const sleeper: Sleeper = {
        at: this.#now + ms,
        wake: () => {
          signal?.removeEventListener('abort', stop);
          resolve();
        },
      };
      this.#sleepers.push(sleeper);
      signal?.addEventListener('abort', stop, { once: true });
    });
  }

  /** Somebody sets the machine's clock: no time passes, and sleepers sleep on as long. */
  set(ms: number): void {
    this.#setByMs = ms - this.#now;
  }

  /** Moves time on, waking sleepers in the order of their times, and lets what they wake run. */
  async advance(ms: number): Promise<void> {
    const end = this.#now + ms;
    await settle();
    for (;;) {
      const due = this.#sleepers.filter((s) => s.at <= end).toSorted((a, b) => a.at - b.at)[0];
      if (due === undefined) break;
      this.#now = due.at;
      this.#sleepers = this.#sleepers.filter((s) => s !== due);
      due.wake();
      await settle();
    }
    this.#now = end;
  }
}

/** Lets every promise job that is ready, and those they start, run. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
}
