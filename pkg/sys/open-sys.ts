/** Picks the backend for the runtime this process is. */
import type { Sys } from './sys.ts';

/**
 * The {@link Sys} of this runtime. Only the backend that fits is loaded: the other one's module
 * does not exist here.
 *
 * @throws {AgentError} FfiUnusable
 */
export async function openSys(): Promise<Sys> {
  if ('Bun' in globalThis) return (await import('./bun-ffi.ts')).openBunSys();
  return (await import('./node-ffi.ts')).openNodeSys();
}
