/** How long tests wait before they call something a failure. */

/**
 * A time limit that is meant for a machine of its own, as this machine needs it: main.ts says by
 * PODWIRE_SLOWNESS how many times slower an emulated processor is. A limit only, so that more of it
 * lets nothing pass that is wrong.
 */
export function patience(ms: number): number {
  const slowness = Number(process.env['PODWIRE_SLOWNESS'] ?? 1);
  if (!(slowness >= 1))
    throw new TypeError(`Cannot use PODWIRE_SLOWNESS: expected a factor of 1 or more`);
  return ms * slowness;
}
