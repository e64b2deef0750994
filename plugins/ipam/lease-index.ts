/**
 * Which addresses an attachment holds, without reading every lease: one symbolic link for each
 * attachment, whose target is the list. It lies beside the networks' directories and not in them,
 * because Go's host-local reads every file it finds there.
 *
 * The leases are the truth. The index is a shortcut that knows whether it is complete: `.stamp`
 * holds what the leases' directory looked like after our last change. Go's plugin, or a crash of
 * ours, changes the directory and not the stamp.
 */
import { readFileSync, readlinkSync, rmSync, symlinkSync, unlinkSync } from 'node:fs';
import { isErrno } from '#pkg/errors/agent-error.ts';
import { makeDirectory } from '#pkg/files/make-directory.ts';
import { attachmentFileName } from '#pkg/cni/attachment-name.ts';
import type { Attachment } from '#pkg/cni/environment.ts';
import { overwriteFile } from './overwrite-file.ts';

export interface LeaseIndex {
  /** Whether the index is of a directory that looks like `stamp`. */
  isComplete(stamp: string): boolean;
  /** Names of the lease files this attachment is said to hold. */
  get(attachment: Attachment): readonly string[];
  set(attachment: Attachment, files: readonly string[]): void;
  delete(attachment: Attachment): void;
  /** Empties the index; it is incomplete until {@link seal}. */
  clear(): void;
  /** Says that the index is complete for a directory that looks like `stamp`. */
  seal(stamp: string): void;
}

/** Opens the index of one network. The caller holds the network's lock all the time. */
export function openLeaseIndex(dataDir: string, network: string): LeaseIndex {
  // A network's name starts with a letter or digit: ".podwire" is none.
  const directory = `${dataDir}/.podwire/${network}`;
  const stampFile = `${directory}/.stamp`;
  const linkOf = (attachment: Attachment): string =>
    `${directory}/${attachmentFileName(attachment)}`;
  return {
    isComplete: (stamp) => tolerate('ENOENT', () => readFileSync(stampFile, 'utf8')) === stamp,
    get: (attachment) =>
      tolerate('ENOENT', () => readlinkSync(linkOf(attachment)))?.split(',') ?? [],
    set(attachment, files) {
      const [target, link] = [files.join(','), linkOf(attachment)];
      try {
        symlinkSync(target, link);
      } catch (error) {
        if (!isErrno(error, 'EEXIST')) throw error;
        unlinkSync(link);
        symlinkSync(target, link);
      }
    },
    delete: (attachment) => tolerate('ENOENT', () => unlinkSync(linkOf(attachment))),
    clear() {
      rmSync(directory, { recursive: true, force: true });
      makeDirectory(directory, 0o755);
    },
    seal: (stamp) => overwriteFile(stampFile, stamp, 0o600),
  };
}

function tolerate<T>(code: string, call: () => T): T | undefined {
  try {
    return call();
  } catch (error) {
    if (isErrno(error, code)) return undefined;
    throw error;
  }
}
