/** A small file that something else replaces while we run: tokens, certificates. */
import { readFile, stat } from 'node:fs/promises';
import type { Clock } from '#pkg/clock/clock.ts';
import { AgentError } from '#pkg/errors/agent-error.ts';

/** Read again at this age even with an unchanged mtime: file systems with coarse times exist. */
const maxAgeMs = 60_000;

export interface RotatingFile {
  /** The file's text, trimmed, no older than its last change or 60 s. */
  read(): Promise<string>;
  /** Makes the next read() go to the disk: what we read was refused. */
  forget(): void;
}

/**
 * Follows one file by its mtime, size and inode (the kubelet swaps a symlink, editors rename). While
 * the file is away, or empty because it is written in place, the last text read stands: a swap must
 * not fail a request. After `forget` there is no such text, and an unreadable file is an error.
 */
export function createRotatingFile(path: string, clock: Clock): RotatingFile {
  let known:
    | { readonly text: string; readonly stamp: string; readonly readAtMs: number }
    | undefined;

  async function read(): Promise<string> {
    try {
      const { mtimeMs, size, ino } = await stat(path);
      const stamp = `${mtimeMs}/${size}/${ino}`;
      if (known?.stamp === stamp && clock.monotonicMs() - known.readAtMs < maxAgeMs)
        return known.text;
      const text = (await readFile(path, 'utf8')).trim();
      if (text === '' && known !== undefined) return known.text;
      known = { text, stamp, readAtMs: clock.monotonicMs() };
      return text;
    } catch (error) {
      if (known !== undefined) return known.text;
      throw new AgentError('CredentialsUnreadable', `Cannot read ${path}`, { cause: error });
    }
  }

  return {
    read,
    forget: () => {
      known = undefined;
    },
  };
}
