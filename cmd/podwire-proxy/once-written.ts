/** What waits for the first rules. */
import type { Family } from '#pkg/ip/address.ts';
import type { AfterWrite } from './round.ts';

/** A hook that acts once, when every family has been written. */
export function onceWritten(families: readonly Family[], act: () => void): AfterWrite {
  const missing = new Set(families);
  let isDone = false;
  return (family) => {
    missing.delete(family);
    if (isDone || missing.size > 0) return;
    isDone = true;
    act();
  };
}
