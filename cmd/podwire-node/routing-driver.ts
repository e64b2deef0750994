/** The routing daemon that speaks BGP for us, and the one that no longer does. */
import type { Clock } from '#pkg/clock/clock.ts';
import type { NodeConfig } from '#pkg/config/node-config.ts';
import { messageOf } from '#pkg/errors/agent-error.ts';
import { renderBirdConfig } from '#pkg/overlay/bird-config.ts';
import { frrSpeaker } from '#pkg/overlay/frr-config.ts';
import { createBirdDriver, type BirdContext } from './bird-driver.ts';
import { createFrrDriver } from './frr-driver.ts';
import type { RoutingDriver } from './round-parts.ts';

export interface RoutingContext {
  readonly clock: Clock;
  /** The daemon has ended, and has to be told again when it is back. */
  readonly onLost: () => void;
  readonly written: BirdContext['written'];
}

export function createRoutingDriver(
  { daemon, ...options }: NodeConfig['bgp'],
  { clock, onLost, written }: RoutingContext,
): RoutingDriver & Disposable {
  const bird = createBirdDriver(options, { now: () => clock.monotonicMs(), written });
  const frr = createFrrDriver(options, { clock, onLost });
  /** Of taking back what a daemon said that is not ours any more. */
  let leftover: readonly string[] = [];

  async function clearFrr(signal: AbortSignal): Promise<void> {
    leftover = [];
    try {
      await frr.apply(undefined, signal);
    } catch (error) {
      // An FRR that has nothing to do with us is no reason to stop.
      signal.throwIfAborted();
      leftover = [`Cannot tell FRR to announce our pods no more: ${messageOf(error)}`];
    }
  }

  return {
    problems: () => [...(daemon === 'frr' ? frr : bird).problems(), ...leftover],
    async apply(speaker, signal) {
      if (daemon === 'frr') {
        await bird.apply(undefined, signal);
        if (speaker !== undefined) return frr.apply(frrSpeaker(speaker), signal);
      } else {
        await bird.apply(speaker && renderBirdConfig(speaker), signal);
      }
      return clearFrr(signal);
    },
    [Symbol.dispose]: () => frr[Symbol.dispose](),
  };
}
