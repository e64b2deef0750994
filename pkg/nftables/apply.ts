/** Hands planned steps to nft. All decisions were taken in `plan.ts`. */
import type { NftCommand } from './observe.ts';
import type { NftStep } from './plan.ts';
import { renderSteps } from './render.ts';

/**
 * Applies all steps in one transaction; nothing changes when it rejects. A step that no longer
 * fits (an element that somebody deleted) fails it: observe and plan again.
 */
export async function applyNftables(
  nft: NftCommand,
  steps: readonly NftStep[],
  signal: AbortSignal,
): Promise<void> {
  if (steps.length === 0) return;
  await nft(['-f', '-'], renderSteps(steps), signal);
}
