/** Ports that the kernel refused and that are left out, so that the rest of the node works. */
import type { Clock } from '#pkg/clock/clock.ts';
import type { ProxiedPort } from '#pkg/proxy/proxied-port.ts';

/** A kernel module may have come: they are tried again this long after. */
const retryMs = 600_000;

export class ParkedPorts {
  readonly #clock: Clock;
  readonly #onParked: (port: ProxiedPort, error: unknown) => void;
  readonly #retryAtMs = new Map<string, number>();
  readonly #told = new WeakSet<ProxiedPort>();

  /** @param onParked told of each port that is parked, once for what it is */
  constructor(clock: Clock, onParked: (port: ProxiedPort, error: unknown) => void) {
    this.#clock = clock;
    this.#onParked = onParked;
  }

  has(key: string): boolean {
    return this.#retryAtMs.has(key);
  }

  /** Lets those go that changed or have waited long enough, and returns their keys. */
  release(changed: ReadonlySet<string> | 'all'): string[] {
    const now = this.#clock.monotonicMs();
    const keys = [...this.#retryAtMs]
      .filter(([key, atMs]) => changed === 'all' || changed.has(key) || now >= atMs)
      .map(([key]) => key);
    for (const key of keys) this.#retryAtMs.delete(key);
    return keys;
  }

  park(key: string, port: ProxiedPort | undefined, error: unknown): void {
    this.#retryAtMs.set(key, this.#clock.monotonicMs() + retryMs);
    if (port === undefined || this.#told.has(port)) return;
    this.#told.add(port);
    this.#onParked(port, error);
  }
}
