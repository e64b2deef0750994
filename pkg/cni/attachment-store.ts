/**
 * What a plugin did for each attachment, on disk, so that DEL and GC find it without the pod's
 * namespace, without the network's present configuration, and after a crash: one file an attachment
 * at `<directory>/<network>/<containerID>:<ifname>`, written before the kernel is changed.
 *
 * Files are replaced by rename, so a killed process leaves the old one or the new one. They are not
 * synced: when the machine dies, what they describe dies with it. All that outlives it is the
 * address in the IPAM plugin's directory, and for that the file's name is enough, which a journaling
 * file system keeps even where it lost the content.
 */
import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { isErrno } from '#pkg/errors/agent-error.ts';
import { LOCK_EX } from '#pkg/sys/constants.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import { isIdentifier, type Attachment } from './environment.ts';
import { shortHash } from './short-hash.ts';

/** What the store knows of an attachment; the rest is its user's. */
export interface StoredAttachment extends Attachment {
  readonly network: string;
  /** Of the boot it was made in (/proc/sys/kernel/random/boot_id); undefined when that is lost. */
  readonly bootId: string | undefined;
  /** The document as it was put; undefined when the file does not hold one any more. */
  readonly document: Readonly<Record<string, unknown>> | undefined;
}

/** Where an attachment is kept. */
export interface AttachmentKey extends Attachment {
  readonly network: string;
}

export interface AttachmentStore {
  /** Keeps the document, with this boot's ID, in place of what there was. */
  put(key: AttachmentKey, document: Readonly<Record<string, unknown>>): void;
  /** Whether this network has the attachment. */
  has(key: AttachmentKey): boolean;
  /**
   * The attachment of this network; else of any other: a network may have got a new name since ADD,
   * and a container's interface belongs to one network only.
   */
  find(key: AttachmentKey): StoredAttachment | undefined;
  /** Forgets; nothing there is no error. */
  delete(key: AttachmentKey): void;
  /** Those of one network, or of all, and what is left of those that a killed process began. */
  list(network?: string): readonly StoredAttachment[];
  /**
   * Once a boot and network, before anything is added: hands every attachment of an earlier boot to
   * `reclaim`, then forgets it. Others who come meanwhile wait.
   */
  reclaimEarlierBoots(network: string, reclaim: (stale: StoredAttachment) => void): void;
}

/** Opens a store; it makes its directories when it first needs them. */
export function openAttachmentStore(sys: Sys, directory: string): AttachmentStore {
  const store: AttachmentStore = {
    put(key, document) {
      const file = fileOf(directory, key);
      const { containerId, ifName } = key;
      replaceFile(file, { bootId: readBootId(), containerId, ifName, ...document });
    },
    has: (key) => readAttachment(directory, key.network, fileName(key)) !== undefined,
    find(key) {
      const own = readAttachment(directory, key.network, fileName(key));
      if (own !== undefined) return own;
      for (const network of listNetworks(directory)) {
        const other = readAttachment(directory, network, fileName(key));
        if (other !== undefined) return other;
      }
      return undefined;
    },
    delete(key) {
      const file = fileOf(directory, key);
      // What a process left that was killed before its rename.
      for (const path of [temporaryOf(file), file]) tolerateMissing(() => unlinkSync(path));
    },
    list: (network) =>
      (network === undefined ? listNetworks(directory) : [network]).flatMap((name) =>
        listNetwork(directory, name),
      ),
    reclaimEarlierBoots(network, reclaim) {
      const bootId = readBootId();
      const marker = join(directory, network, '.boot');
      const isDone = (): boolean => readJson(marker)?.['bootId'] === bootId;
      if (isDone()) return;
      mkdirSync(join(directory, network), { recursive: true, mode: 0o700 });
      const lockFd = openSync(join(directory, network, '.lock'), 'a', 0o600);
      try {
        sys.flock(lockFd, LOCK_EX);
        if (isDone()) return;
        for (const attachment of store.list(network)) {
          if (attachment.bootId === bootId) continue;
          reclaim(attachment);
          store.delete(attachment);
        }
        replaceFile(marker, { bootId });
      } finally {
        closeSync(lockFd);
      }
    },
  };
  return store;
}

/** The kernel's name for the time since it was started. */
export function readBootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
}

function fileOf(directory: string, key: AttachmentKey): string {
  return join(directory, key.network, fileName(key));
}

/** ":" is in no container ID and no interface name. A file name ends at 255 bytes, an ID nowhere. */
function fileName({ containerId, ifName }: Attachment): string {
  const id =
    containerId.length <= 200
      ? containerId
      : `${containerId.slice(0, 180)}:${shortHash(containerId)}`;
  return `${id}:${ifName}`;
}

/** No attachment's file starts with a dot. */
function temporaryOf(file: string): string {
  const at = file.lastIndexOf('/') + 1;
  return `${file.slice(0, at)}.${file.slice(at)}`;
}

function replaceFile(file: string, document: object): void {
  const temporary = temporaryOf(file);
  const write = (): void => writeFileSync(temporary, JSON.stringify(document), { mode: 0o600 });
  try {
    write();
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error;
    mkdirSync(file.slice(0, file.lastIndexOf('/')), { recursive: true, mode: 0o700 });
    write();
  }
  renameSync(temporary, file);
}

function readAttachment(
  directory: string,
  network: string,
  file: string,
): StoredAttachment | undefined {
  const path = join(directory, network, file);
  const text = tolerateMissing(() => readFileSync(path, 'utf8'));
  return text === undefined ? undefined : describe(network, file, parseObject(text));
}

function describe(
  network: string,
  file: string,
  document: StoredAttachment['document'],
): StoredAttachment {
  const at = file.lastIndexOf(':');
  const [containerId, bootId] = [document?.['containerId'], document?.['bootId']];
  return {
    network,
    containerId: typeof containerId === 'string' ? containerId : file.slice(0, at),
    ifName: file.slice(at + 1),
    bootId: typeof bootId === 'string' ? bootId : undefined,
    document,
  };
}

function readJson(path: string): Readonly<Record<string, unknown>> | undefined {
  const text = tolerateMissing(() => readFileSync(path, 'utf8'));
  return text === undefined ? undefined : parseObject(text);
}

/** A file that a dying machine left empty, or full of zeros, holds nothing. */
function parseObject(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const json: unknown = JSON.parse(text);
    if (typeof json !== 'object' || json === null || Array.isArray(json)) return undefined;
    return json as Readonly<Record<string, unknown>>;
  } catch {
    return undefined;
  }
}

function listNetworks(directory: string): readonly string[] {
  return listDirectory(directory).filter(isIdentifier);
}

/** Also of those whose writer was killed before the file had its name: they have no document. */
function listNetwork(directory: string, network: string): readonly StoredAttachment[] {
  const files = listDirectory(join(directory, network)).filter((name) => name.includes(':'));
  return files.flatMap((file) => {
    if (!file.startsWith('.')) return readAttachment(directory, network, file) ?? [];
    const named = file.slice(1);
    return files.includes(named) ? [] : describe(network, named, undefined);
  });
}

function listDirectory(path: string): readonly string[] {
  return tolerateMissing(() => readdirSync(path)) ?? [];
}

function tolerateMissing<T>(call: () => T): T | undefined {
  try {
    return call();
  } catch (error) {
    if (isErrno(error, 'ENOENT') || isErrno(error, 'ENOTDIR')) return undefined;
    throw error;
  }
}
