/** Makes the kernel forget clients of session affinity whose endpoint is gone. */
import { isForgotten, type KeptEndpoints } from '#pkg/proxy/nftables-clients.ts';
import { affinityMap } from '#pkg/proxy/nftables-sets.ts';
import type { NftablesDriver } from './nftables-driver.ts';
import { inSlices } from '#pkg/reconcile/slices.ts';

export class RememberedClients {
  readonly #driver: Pick<NftablesDriver, 'read' | 'forget'>;
  #again: KeptEndpoints = new Map();
  #work: Promise<void> = Promise.resolve();

  constructor(driver: Pick<NftablesDriver, 'read' | 'forget'>) {
    this.#driver = driver;
  }

  /** Resolves when the driver is free again: it serves one at a time. */
  get isIdle(): Promise<void> {
    return this.#work;
  }

  /** Forgets clients of these frontends that have another endpoint than may be kept. */
  async forget(kept: KeptEndpoints): Promise<void> {
    if (kept.size === 0) return;
    await this.#look(kept, false);
    // A packet that was on its way may have remembered its client after that.
    this.#again = kept;
  }

  /** Forgets all clients but those who have an endpoint that is kept. */
  async forgetOthers(kept: KeptEndpoints): Promise<void> {
    await this.#look(kept, true);
  }

  /** A second look, some time after {@link forget}; nothing without one. */
  async forgetAgain(): Promise<void> {
    if (this.#again.size === 0) return;
    const kept = this.#again;
    this.#again = new Map();
    // A failure is no reason to stop: the next change, or the next start, looks again.
    this.#work = this.#look(kept, false).catch(() => void (this.#again = kept));
    await this.#work;
  }

  async #look(kept: KeptEndpoints, isComplete: boolean): Promise<void> {
    const clients: string[] = [];
    await inSlices(this.#driver.read(affinityMap), (part) => {
      for (const { key, value = '' } of part) {
        if (isForgotten({ key, value }, kept, isComplete)) clients.push(key);
      }
    });
    this.#driver.forget(clients);
  }
}
