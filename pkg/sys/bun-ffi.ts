/** {@link Sys} on bun:ffi: the backend of the Bun-compiled CNI executable. */
import { errno, libc } from './bun-libc.ts';
import { sysFromLibc, type Libc } from './libc.ts';
import type { Sys } from './sys.ts';

/** @throws {AgentError} FfiUnusable */
export function openBunSys(): Sys {
  return sysFromLibc({ ...(libc as unknown as Omit<Libc, 'errno'>), errno });
}
