/** Files other programs read while we write them: they see the old text or the new, never a part. */
import { open, readFile, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { AgentError, isErrno } from '#pkg/errors/agent-error.ts';
import { makeDirectory } from '#pkg/files/make-directory.ts';

/**
 * Makes the file hold this text, and its directory where it is missing. A file that holds it
 * already is left alone: container runtimes reload on every rename. Returns whether it wrote.
 *
 * The new text goes to a file of the same directory first, since a rename within a directory is
 * both atomic and what the runtimes' watchers see.
 */
export async function writeFileIfChanged(path: string, text: string): Promise<boolean> {
  if ((await readIfThere(path)) === text) return false;
  // A leading dot and no known ending: nobody takes the unfinished file for a configuration.
  const temporary = `${dirname(path)}/.podwire-${process.pid}.tmp`;
  try {
    makeDirectory(dirname(path));
    await using file = await open(temporary, 'w', 0o644);
    await file.writeFile(text);
    // Without it, a power cut can leave the renamed file empty.
    await file.sync();
    await rename(temporary, path);
  } catch (cause) {
    await rm(temporary, { force: true });
    throw new AgentError('WriteFailed', `Cannot write ${path}`, { cause });
  }
  return true;
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    throw new AgentError('ReadFailed', `Cannot read ${path}`, { cause: error });
  }
}
