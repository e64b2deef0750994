/** Finds the ports whose elements the kernel refuses, and writes all others. */
import type { ElementChange } from '#pkg/proxy/nftables-book.ts';
import { elementsOf } from '#pkg/proxy/nftables-elements.ts';
import type { NftablesOptions } from '#pkg/proxy/nftables-options.ts';
import type { PortSource } from '#pkg/proxy/nftables-reconcile.ts';
import type { ProxiedPort } from '#pkg/proxy/proxied-port.ts';
import { inSlices } from '#pkg/reconcile/slices.ts';
import { isolate } from './isolate.ts';
import { RefusedElements } from './nftables-editor.ts';

export interface RefusedParts {
  readonly options: NftablesOptions;
  readonly ports: PortSource;
  /** What ports were that changed with the write that was refused; others were not there. */
  readonly before: ReadonlyMap<string, ProxiedPort | undefined>;
  /** Compares everything, and writes what these ports differ in. */
  rewrite(ports: PortSource): Promise<number>;
  /** Writes these of the ports. A refusal leaves what is known of the table unusable. */
  update(keys: ReadonlySet<string>, ports: PortSource): Promise<number>;
  /** After a refused update that wrote nothing: the table is known again, and has these ports. */
  undo(keys: readonly string[], ports: PortSource): void;
  /** Told how many ports are suspected, and why. */
  readonly onSuspects: (error: RefusedElements, ports: number) => void;
}

/** So many bad ports in one write, and it is not them. */
const maxGuilty = 16;

/**
 * Writes all but the ports that are refused alone, and returns those with what was said of each.
 * While it looks for them, ports that changed stay as they were before.
 */
export async function writeWithoutRefused(
  refused: RefusedElements,
  parts: RefusedParts,
): Promise<{ readonly written: number; readonly guilty: ReadonlyMap<string, unknown> }> {
  const { options, ports } = parts;
  const before = new Map(parts.before);
  const held = new Map<string, ProxiedPort | undefined>();
  const source: PortSource = {
    get: (key) => (held.has(key) ? held.get(key) : ports.get(key)),
    keys: () => new Set([...ports.keys(), ...held.keys()]),
  };
  let written = 0;
  for (let error = refused; ;) {
    const suspects = await portsWith(error.changes, source, options);
    parts.onSuspects(error, suspects.size);
    if (suspects.size === 0) throw error;
    for (const key of suspects) {
      // What it was may be refused by now, too.
      if (held.has(key)) before.delete(key);
      held.set(key, before.get(key));
    }
    try {
      written += await parts.rewrite(source);
      break;
    } catch (again) {
      if (!(again instanceof RefusedElements)) throw again;
      error = again;
    }
  }
  const admit = async (keys: readonly string[]): Promise<void> => {
    for (const key of keys) held.delete(key);
    try {
      written += await parts.update(new Set(keys), source);
    } catch (error) {
      for (const key of keys) held.set(key, before.get(key));
      if (!(error instanceof RefusedElements)) throw error;
      if (error.transactionsBefore === 0) parts.undo(keys, source);
      else await parts.rewrite(source);
      throw error;
    }
  };
  const isFault = (error: unknown): boolean => error instanceof RefusedElements;
  const guilty = await isolate([...held.keys()], admit, { isFault, maxGuilty });
  // What such a port was before goes, too: half of a Service is none.
  for (const key of guilty.keys()) held.set(key, undefined);
  written += await parts.update(new Set(guilty.keys()), source);
  return { written, guilty };
}

/** The ports that want one of the elements that are added. */
async function portsWith(
  changes: readonly ElementChange[],
  ports: PortSource,
  options: NftablesOptions,
): Promise<ReadonlySet<string>> {
  const id = ({ key, set }: Pick<ElementChange, 'key' | 'set'>): string => `${set} ${key}`;
  const added = new Set(changes.filter((change) => change.new !== undefined).map(id));
  const found = new Set<string>();
  await inSlices(ports.keys(), (key) => {
    const port = ports.get(key);
    if (port === undefined) return;
    const { frontends, shared } = elementsOf(port, options);
    const elements = [...shared, ...frontends.flatMap((frontend) => frontend.elements)];
    if (elements.some((element) => added.has(id(element)))) found.add(key);
  });
  return found;
}
