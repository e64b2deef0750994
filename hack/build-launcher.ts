/**
 * Compiles the CNI launcher (cmd/podwire-cni/launcher.c), the one file that is not TypeScript: a
 * process that lives for a millisecond has no time to start an engine.
 */
import { execFile } from 'node:child_process';
import { mkdtemp, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { isErrno } from '#pkg/errors/agent-error.ts';

const root = join(import.meta.dirname, '..');

const flags = [
  '-Os',
  '-Wall',
  '-Wextra',
  '-Werror',
  '-static',
  '-nostdlib',
  '-ffreestanding',
  '-fno-pie',
  '-no-pie',
  '-fno-stack-protector',
  // No compiler may turn our loops into calls of a libc that is not there.
  '-fno-tree-loop-distribute-patterns',
  '-fno-asynchronous-unwind-tables',
  '-Wl,--build-id=none',
  '-s',
];

/** Processors whose system calls the launcher knows how to make. */
const processors: readonly string[] = ['x64', 'arm64'];

/**
 * Writes the launcher, by rename. False where there is no C compiler, or for a processor the
 * launcher does not know: then runtimes start the standalone executable itself.
 *
 * @param runDir where podwire-node listens
 * @param patienceSeconds how long it waits for podwire-node to take a call, before it does without
 */
export async function buildLauncher(
  outfile: string,
  { runDir = '/run/podwire', patienceSeconds = 1 } = {},
): Promise<boolean> {
  if (!processors.includes(process.arch)) return skip(`it is not written for ${process.arch}`);
  const work = await mkdtemp(join(dirname(outfile), '.podwire-launcher-'));
  const built = join(work, 'launcher');
  const source = join(root, 'cmd/podwire-cni/launcher.c');
  try {
    const defined = [`-DRUN_DIR="${runDir}"`, `-DPATIENCE_SECONDS=${patienceSeconds}`];
    await promisify(execFile)('cc', [...flags, ...defined, '-o', built, source]);
    await rename(built, outfile);
    return true;
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return skip('there is no C compiler (cc)');
    throw error;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

function skip(reason: string): false {
  console.error(`Built no CNI launcher, runtimes start podwire-cni itself: ${reason}`);
  return false;
}
