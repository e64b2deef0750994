/**
 * Waiting for somebody far away, which must not hold up what is urgent here: a node that has lost its
 * link has routes to mend, and an API server that it cannot reach.
 */
import type { Clock } from '#pkg/clock/clock.ts';

export class Patience {
  readonly #clock: Clock;
  readonly #ms: number;
  #urge: () => void = () => undefined;

  /** @param ms how long a wait may take in any case */
  constructor(clock: Clock, ms: number) {
    this.#clock = clock;
    this.#ms = ms;
  }

  /** Something urgent has come up: a wait that is under way ends soon. */
  urge(): void {
    this.#urge();
  }

  /**
   * Does the work; false when it was given up for something urgent.
   *
   * @throws what the work does, and the signal's reason
   */
  async wait(work: (signal: AbortSignal) => Promise<void>, signal: AbortSignal): Promise<boolean> {
    const startMs = this.#clock.monotonicMs();
    const [giveUp, over] = [new AbortController(), new AbortController()];
    this.#urge = () => {
      this.#urge = () => undefined;
      const waitedMs = Math.max(0, this.#clock.monotonicMs() - startMs);
      const rest = this.#clock.sleep(Math.max(0, this.#ms - waitedMs), over.signal);
      void rest.then(
        () => giveUp.abort(),
        () => undefined,
      );
    };
    try {
      await work(AbortSignal.any([signal, giveUp.signal]));
      return true;
    } catch (error) {
      signal.throwIfAborted();
      if (giveUp.signal.aborted) return false;
      throw error;
    } finally {
      this.#urge = () => undefined;
      over.abort();
    }
  }
}
