/** Packets between two nodes' pods that must not get lost. */
import { setTimeout as sleep } from 'node:timers/promises';
import { families } from '#pkg/ip/address.ts';
import { exchange } from './datagram.ts';
import type { RoundNode } from './rounds.ts';

export interface Flow {
  /** Packets so far. */
  sent(): number;
  stop(): Promise<{ readonly sent: number; readonly problems: readonly string[] }>;
}

/** Sends from one to the other and back, each 20 ms, in both families. */
export function startFlow(from: RoundNode, to: RoundNode): Flow {
  let stopped = false;
  let sent = 0;
  const problems: string[] = [];
  const running = (async () => {
    while (!stopped) {
      for (const family of families) {
        const there = { address: to.pods[family], inside: to.inside };
        const here = { address: from.pods[family], inside: from.inside };
        sent += 1;
        await exchange(here, there, { bytes: 64, fragment: 'never', attempts: 1 }).catch(
          (error: unknown) => problems.push(String(error)),
        );
      }
      await sleep(20);
    }
  })();
  return {
    sent: () => sent,
    stop: async () => {
      stopped = true;
      await running;
      return { sent, problems };
    },
  };
}
