/** A configuration that can change while the proxy runs, and how a change of its file is noticed. */
import { stat } from 'node:fs/promises';
import type { Clock } from '#pkg/clock/clock.ts';
import type { ProxyConfig } from '#pkg/config/proxy-config.ts';

/** A configuration whose fields are always those of the present one. */
export function liveView(read: () => ProxyConfig): ProxyConfig {
  const view = {};
  for (const key of Object.keys(read())) {
    Object.defineProperty(view, key, {
      enumerable: true,
      get: () => read()[key as keyof ProxyConfig],
    });
  }
  return view as ProxyConfig;
}

/** Long enough for an editor's write, short enough for somebody who waits for it. */
const lookIntervalMs = 1_000;

/**
 * Calls `onChange` after the file changed, one call at a time; until the signal aborts. It looks
 * each second rather than be told: a ConfigMap's file is a link to a link that is swapped, an editor
 * renames, a bind mount tells nothing. A file that was just written is left alone for one more look:
 * it may be half a file.
 */
export async function watchFile(
  path: string,
  parts: { readonly clock: Clock; readonly onChange: () => Promise<void> },
  signal: AbortSignal,
): Promise<void> {
  let known = await stamp(path);
  let seen = known;
  for (;;) {
    await parts.clock.sleep(lookIntervalMs, signal).catch(() => undefined);
    if (signal.aborted) return;
    const now = await stamp(path);
    const isSettled = now === seen;
    seen = now;
    if (now === known || !isSettled) continue;
    known = now;
    // Gone for a moment, or for good: what was read stays.
    if (now !== undefined) await parts.onChange();
  }
}

/** Different for every content: the file behind all links, its time and size. */
async function stamp(path: string): Promise<string | undefined> {
  try {
    const { dev, ino, mtimeNs, size } = await stat(path, { bigint: true });
    return `${dev} ${ino} ${mtimeNs} ${size}`;
  } catch {
    return undefined;
  }
}
