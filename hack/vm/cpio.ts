/**
 * Archives in the "newc" format that the kernel unpacks as its first root file system
 * (Documentation/driver-api/early-userspace/buffer-format.rst). Written here because no such tool
 * need be installed, and so that nothing but what is named gets in.
 */
export interface ArchiveEntry {
  /** Without a leading slash; directories come before what is in them. */
  readonly path: string;
  readonly mode: number;
  /** Undefined for directories; a symbolic link's is the path it leads to. */
  readonly content?: Uint8Array;
}

const directory = 0o040000;
const regularFile = 0o100000;
const symbolicLink = 0o120000;

export function directoryEntry(path: string): ArchiveEntry {
  return { path, mode: directory | 0o755 };
}

/** @param permissions as chmod takes them */
export function fileEntry(path: string, content: Uint8Array, permissions: number): ArchiveEntry {
  return { path, mode: regularFile | (permissions & 0o777), content };
}

export function linkEntry(path: string, target: string): ArchiveEntry {
  return { path, mode: symbolicLink | 0o777, content: encoder.encode(target) };
}

/** The entries one by one, each padded, then the end mark: what to write, in order. */
export function* cpioArchive(entries: Iterable<ArchiveEntry>): Generator<Uint8Array> {
  let inode = 1;
  for (const { path, mode, content = empty } of entries) {
    yield header(path, { inode, mode, size: content.byteLength });
    yield content;
    yield padding(content.byteLength);
    inode += 1;
  }
  yield header('TRAILER!!!', { inode: 0, mode: 0, size: 0 });
}

function header(
  path: string,
  of: { readonly inode: number; readonly mode: number; readonly size: number },
): Uint8Array {
  const name = encoder.encode(`${path}\0`);
  const links = (of.mode & directory) === directory ? 2 : 1;
  // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
  const fields = [of.inode, of.mode, 0, 0, links, 0, of.size, 0, 0, 0, 0, name.byteLength, 0];
  const text = `070701${fields.map((n) => n.toString(16).padStart(8, '0')).join('')}`;
  const length = text.length + name.byteLength;
  const bytes = new Uint8Array(length + padding(length).byteLength);
  bytes.set(encoder.encode(text));
  bytes.set(name, text.length);
  return bytes;
}

function padding(length: number): Uint8Array {
  return new Uint8Array(-length & 3);
}

const empty = new Uint8Array();
const encoder = new TextEncoder();
