/**
 * What an interface was before tuning, in the reference plugin's files: one an attachment, until
 * DEL. GC tells by the network, which only ours name, whether a file is its to remove.
 */
import { readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isErrno } from '#pkg/errors/agent-error.ts';
import { makeDirectory } from '#pkg/files/make-directory.ts';
import type { Attachment } from '#pkg/cni/environment.ts';

export interface TuningBackup {
  readonly mac?: string;
  readonly promisc?: boolean;
  readonly mtu?: number;
  readonly allmulti?: boolean;
  readonly txQLen?: number;
}

/** Keeps it, in place of what there was. */
export function writeBackup(
  directory: string,
  attachment: Attachment & { readonly network: string },
  backup: TuningBackup,
): void {
  makeDirectory(directory, 0o700);
  const file = backupFile(directory, attachment);
  const text = JSON.stringify({ ...backup, network: attachment.network }, undefined, 1);
  // By rename, so that a process that is killed leaves the old file or the new one.
  writeFileSync(`${file}.new`, text, { mode: 0o600 });
  renameSync(`${file}.new`, file);
}

/** Empty when there is none, or none that can be read: then nothing is known to restore. */
export function readBackup(directory: string, attachment: Attachment): TuningBackup {
  const { mac, promisc, mtu, allmulti, txQLen } = readFields(backupFile(directory, attachment));
  return {
    ...(typeof mac === 'string' && mac !== '' ? { mac } : {}),
    ...(typeof promisc === 'boolean' ? { promisc } : {}),
    ...(typeof mtu === 'number' && mtu > 0 ? { mtu } : {}),
    ...(typeof allmulti === 'boolean' ? { allmulti } : {}),
    ...(typeof txQLen === 'number' ? { txQLen } : {}),
  };
}

/** Nothing there is no error. */
export function removeBackup(directory: string, attachment: Attachment): void {
  const file = backupFile(directory, attachment);
  for (const name of [file, `${file}.new`]) rmSync(name, { force: true });
}

/** Removes those of a network that belong to none of the attachments. */
export function collectBackups(
  directory: string,
  network: string,
  valid: readonly Attachment[],
): void {
  const kept = new Set(valid.map((attachment) => backupFile(directory, attachment)));
  for (const name of namesIn(directory)) {
    const file = join(directory, name);
    const base = file.replace(/\.new$/, '');
    if (kept.has(base) || !base.endsWith('.json')) continue;
    if (readFields(file)['network'] === network) rmSync(file, { force: true });
  }
}

function backupFile(directory: string, { containerId, ifName }: Attachment): string {
  return join(directory, `${containerId}_${ifName}.json`);
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return [];
    throw error;
  }
}

function readFields(file: string): Readonly<Record<string, unknown>> {
  try {
    const json: unknown = JSON.parse(readFileSync(file, 'utf8'));
    return typeof json === 'object' && json !== null ? { ...json } : {};
  } catch (error) {
    if (isErrno(error, 'ENOENT') || error instanceof SyntaxError) return {};
    throw error;
  }
}
