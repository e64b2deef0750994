/** Rules of iptables as a round sees them: which failures it can live with. */
import { messageOf } from '#pkg/errors/agent-error.ts';
import type { Desired } from '#pkg/pod-network/desired.ts';
import type { RoundParts } from './round-parts.ts';

export function needsNat({ tables }: Desired['packetFilter'][number]): boolean {
  return tables.some(({ name }) => name === 'nat');
}

export class TolerantFilter {
  readonly #parts: Pick<RoundParts, 'log' | 'packetFilter'>;
  /** What was said of iptables last. */
  #trouble: string | undefined;

  constructor(parts: Pick<RoundParts, 'log' | 'packetFilter'>) {
    this.#parts = parts;
  }

  /**
   * Where iptables only has to let pods pass, one that does not work is told once and waited for:
   * most hosts drop nothing, and pods need the rest. Rejects where it has to masquerade.
   */
  async converge(want: Desired['packetFilter'], signal: AbortSignal): Promise<void> {
    const { log, packetFilter } = this.#parts;
    try {
      const steps = await packetFilter.converge(want, signal);
      this.#trouble = undefined;
      if (steps.length === 0) return;
      const what = steps.map(({ op, chain }) => `${op} ${chain}`);
      log.info({ steps: what }, 'Rules in iptables changed');
    } catch (error) {
      signal.throwIfAborted();
      if (want.some(needsNat)) throw error;
      const trouble = messageOf(error);
      if (trouble !== this.#trouble) {
        log.warn({ err: error }, 'Cannot let pods pass by iptables, should this host drop them');
      }
      this.#trouble = trouble;
    }
  }
}
