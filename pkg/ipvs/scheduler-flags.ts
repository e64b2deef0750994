/** The flags that the kernel's schedulers know, by ipvsadm's names (ipvsadm(8), --sched-flags). */

const known: ReadonlyMap<string, readonly string[]> = new Map([
  // Another endpoint where the chosen one takes no connections; the client's port is hashed, too.
  ['sh', ['sh-fallback', 'sh-port']],
  ['mh', ['mh-fallback', 'mh-port']],
]);

/** In the place of flags: none, where a scheduler has some unless it is told otherwise. */
export const noFlags = 'none';

/** What may be said for a scheduler; every scheduler takes {@link noFlags}, alone. */
export function knownSchedulerFlags(scheduler: string): readonly string[] {
  return known.get(scheduler) ?? [];
}

/**
 * Flags as ipvsadm takes and prints them: "sh-fallback,sh-port"; empty for none. Maglev hashes the
 * client's port too unless something else is asked for, as in kube-proxy: else all connections of one
 * client, or of one gateway with many behind it, would go to one endpoint. By default none is refused
 * while endpoints leave: {@link passesByLeaving}.
 */
export function schedulerFlags(scheduler: string, given: readonly string[]): string {
  if (given.length === 0) return defaults.get(scheduler) ?? '';
  return knownSchedulerFlags(scheduler)
    .filter((flag) => given.includes(flag))
    .join();
}

const defaults: ReadonlyMap<string, string> = new Map([
  ['sh', 'sh-fallback'],
  ['mh', 'mh-fallback,mh-port'],
]);

/**
 * Whether new connections go by a real server of weight 0. The tables of schedulers that hash keep it:
 * they refuse its share of new connections, unless they are told to fall back, which dh cannot be.
 */
export function passesByLeaving({
  flags,
  scheduler,
}: {
  readonly flags: string;
  readonly scheduler: string;
}): boolean {
  if (scheduler === 'dh') return false;
  return !known.has(scheduler) || flags.split(',').includes(`${scheduler}-fallback`);
}
