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
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { isErrno } from '#pkg/errors/agent-error.ts';
import { makeDirectory } from '#pkg/files/make-directory.ts';
import { LOCK_EX } from '#pkg/sys/constants.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import { attachmentFileName } from './attachment-name.ts';
import { isIdentifier, type Attachment } from './environment.ts';

/** What the store knows of an attachment; the rest is its user's. */
export interface StoredAttachment extends Attachment {
  readonly network: string;
  /** Of the boot it was made in (/proc/sys/kernel/random/boot_id); undefined when that is lost. */
  readonly bootId: string | undefined;
  /** The document as it was put; undefined when the file does not hold one any more. */
  readonly document: Readonly<Record<string, unknown>> | undefined;
  /** False for one that is being put or retired, or whose process was killed then. */
  readonly isKept: boolean;
}

/** Where an attachment is kept. */
export interface AttachmentKey extends Attachment {
  readonly network: string;
}

export interface AttachmentStore {
  /** Keeps the document, with this boot's ID, in place of what there was. */
  put(key: AttachmentKey, document: Readonly<Record<string, unknown>>): void;
  /** Whether this network has the attachment, kept or retired. */
  has(key: AttachmentKey): boolean;
  /** Whether this network has the attachment, and nobody has retired it. */
  isKept(key: AttachmentKey): boolean;
  /**
   * The attachment of this network; else of any other: a network may have got a new name since ADD,
   * and a container's interface belongs to one network only.
   */
  find(key: AttachmentKey): StoredAttachment | undefined;
  /**
   * Says that the attachment is going: what describes it in the kernel must not be put back any
   * more. Found all the same, until {@link delete}; nothing there is no error.
   */
  retire(key: AttachmentKey): void;
  /** Forgets; nothing there is no error. */
  delete(key: AttachmentKey): void;
  /** Those of one network, or of all; also those that are not kept. */
  list(network?: string): readonly StoredAttachment[];
  /** Those of all networks that are kept, in the order they were put. */
  listKept(): readonly StoredAttachment[];
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
    has: (key) =>
      existsSync(fileOf(directory, key)) ||
      readJson(temporaryOf(fileOf(directory, key))) !== undefined,
    isKept: (key) => existsSync(fileOf(directory, key)),
    find(key) {
      const own = readAttachment(directory, key.network, attachmentFileName(key));
      if (own !== undefined) return own;
      for (const network of listNetworks(directory)) {
        const other = readAttachment(directory, network, attachmentFileName(key));
        if (other !== undefined) return other;
      }
      return undefined;
    },
    retire(key) {
      const file = fileOf(directory, key);
      tolerateMissing(() => renameSync(file, temporaryOf(file)));
    },
    delete(key) {
      const file = fileOf(directory, key);
      for (const path of [temporaryOf(file), file]) tolerateMissing(() => unlinkSync(path));
    },
    list: (network) =>
      (network === undefined ? listNetworks(directory) : [network]).flatMap((name) =>
        listNetwork(directory, name),
      ),
    listKept: () =>
      store
        .list()
        .filter(({ isKept }) => isKept)
        .map((kept) => ({ kept, putAt: modifiedAt(fileOf(directory, kept)) }))
        .toSorted((a, b) => Number(a.putAt - b.putAt))
        .map(({ kept }) => kept),
    reclaimEarlierBoots(network, reclaim) {
      const bootId = readBootId();
      const marker = join(directory, network, '.boot');
      const isDone = (): boolean => readJson(marker)?.['bootId'] === bootId;
      if (isDone()) return;
      makeDirectory(join(directory, network), 0o700);
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
  return join(directory, key.network, attachmentFileName(key));
}

/**
 * Where an attachment is while it is being put or has been retired: no other attachment's file
 * starts with a dot.
 */
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
    makeDirectory(file.slice(0, file.lastIndexOf('/')), 0o700);
    write();
  }
  renameSync(temporary, file);
}

/** By its file's name: kept, or else retired. */
function readAttachment(
  directory: string,
  network: string,
  file: string,
): StoredAttachment | undefined {
  for (const isKept of [true, false]) {
    const path = join(directory, network, file);
    const text = readIfThere(isKept ? path : temporaryOf(path));
    if (text === undefined) continue;
    const document = parseObject(text);
    const at = file.lastIndexOf(':');
    const [containerId, bootId] = [document?.['containerId'], document?.['bootId']];
    return {
      network,
      containerId: typeof containerId === 'string' ? containerId : file.slice(0, at),
      ifName: file.slice(at + 1),
      bootId: typeof bootId === 'string' ? bootId : undefined,
      document,
      isKept,
    };
  }
  return undefined;
}

/** When the file was written; 0 when it has gone. */
function modifiedAt(path: string): bigint {
  return statSync(path, { bigint: true, throwIfNoEntry: false })?.mtimeNs ?? 0n;
}

function readJson(path: string): Readonly<Record<string, unknown>> | undefined {
  const text = readIfThere(path);
  return text === undefined ? undefined : parseObject(text);
}

function readIfThere(path: string): string | undefined {
  return tolerateMissing(() => readFileSync(path, 'utf8'));
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

function listNetwork(directory: string, network: string): readonly StoredAttachment[] {
  const files = listDirectory(join(directory, network)).filter((name) => name.includes(':'));
  const names = new Set(files.map((file) => (file.startsWith('.') ? file.slice(1) : file)));
  return [...names].flatMap((name) => readAttachment(directory, network, name) ?? []);
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
