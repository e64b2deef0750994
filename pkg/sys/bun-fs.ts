/**
 * The functions of node:fs that the CNI path calls, over libc. hack/build-cni.ts puts this module in
 * the place of node:fs in the executable, where loading that one costs an ADD 1.6 ms: as much as all
 * that the kernel does for it. Arguments, results and errors are node:fs's own, as far as that path
 * has them (bun-fs.test.ts compares); what is rarely called loads node:fs and calls it.
 */
import type * as NodeFs from 'node:fs';
import { isErrno } from '#pkg/errors/agent-error.ts';
import { errno, libc } from './bun-libc.ts';
import { EINTR, errnoName, errnoText } from './errno.ts';

/** include/uapi/asm-generic/fcntl.h, and what access(2) is asked. */
export const constants = {
  O_RDONLY: 0,
  O_WRONLY: 1,
  O_RDWR: 2,
  O_CREAT: 0o100,
  O_EXCL: 0o200,
  O_TRUNC: 0o1000,
  O_APPEND: 0o2000,
  W_OK: 2,
  X_OK: 1,
} as const;

const O_CLOEXEC = 0o2000000;

/** The flags that have a letter in node:fs. */
const flagsByName: Readonly<Record<string, number>> = {
  r: constants.O_RDONLY,
  'r+': constants.O_RDWR,
  w: constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC,
  wx: constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_EXCL,
  a: constants.O_WRONLY | constants.O_CREAT | constants.O_APPEND,
};

export function openSync(path: string, flags: string | number = 'r', mode = 0o666): number {
  const bits = typeof flags === 'number' ? flags : flagsByName[flags];
  if (bits === undefined) return nodeFs().openSync(path, flags, mode);
  const bytes = pathBytes(path);
  return call(() => libc.open(bytes, bits | O_CLOEXEC, mode), 'open', path);
}

export function closeSync(fd: number): void {
  // No second attempt after EINTR: Linux has closed the descriptor (close(2)).
  if (Number(libc.close(fd)) === -1 && errno() !== EINTR) throw failure('close');
}

export function readSync(fd: number, buffer: Uint8Array): number {
  return call(() => libc.read(fd, buffer, BigInt(buffer.byteLength)), 'read');
}

/** Bytes from an offset, or a text, at a position where one is given. */
export function writeSync(fd: number, data: Uint8Array | string, at = -1): number {
  if (typeof data !== 'string') {
    const rest = at > 0 ? data.subarray(at) : data;
    return call(() => libc.write(fd, rest, BigInt(rest.byteLength)), 'write');
  }
  const bytes = encoder.encode(data);
  const length = BigInt(bytes.byteLength);
  return at < 0
    ? call(() => libc.write(fd, bytes, length), 'write')
    : call(() => libc.pwrite(fd, bytes, length, BigInt(at)), 'write');
}

export function ftruncateSync(fd: number, length: number): void {
  call(() => libc.ftruncate(fd, BigInt(length)), 'ftruncate');
}

export function readFileSync(path: string, _encoding: 'utf8'): string {
  const fd = openSync(path);
  try {
    let bytes = new Uint8Array(usualBytes);
    let end = 0;
    for (;;) {
      const got = readSync(fd, bytes.subarray(end));
      if (got === 0) return decoder.decode(bytes.subarray(0, end));
      end += got;
      if (end < bytes.byteLength) continue;
      const larger = new Uint8Array(2 * end);
      larger.set(bytes);
      bytes = larger;
    }
  } finally {
    closeSync(fd);
  }
}

/** What a plugin reads is far below this. */
const usualBytes = 4096;

export function writeFileSync(
  path: string,
  data: string,
  { flag = 'w', mode = 0o666 }: { readonly flag?: string; readonly mode?: number } = {},
): void {
  const fd = openSync(path, flag, mode);
  try {
    const bytes = encoder.encode(data);
    for (let at = 0; at < bytes.byteLength;) at += writeSync(fd, bytes, at);
  } finally {
    closeSync(fd);
  }
}

/** The fields of node:fs's Stats and BigIntStats that are asked for. */
export interface FileStats {
  readonly dev: number;
  readonly ino: number;
  readonly mode: number;
  readonly size: number;
  readonly ctimeMs: number;
  readonly mtimeNs: bigint;
  readonly isDirectory: () => boolean;
}

export function statSync(
  path: string,
  { throwIfNoEntry = true }: { readonly throwIfNoEntry?: boolean; readonly bigint?: boolean } = {},
): FileStats | undefined {
  const bytes = pathBytes(path);
  try {
    return statx(atWorkingDirectory, { bytes, flags: 0 }, ['stat', path]);
  } catch (error) {
    if (!throwIfNoEntry && isErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
}

export function fstatSync(fd: number): FileStats {
  return statx(fd, { bytes: Uint8Array.of(0), flags: AT_EMPTY_PATH }, ['fstat']);
}

export function statfsSync(path: string): { readonly type: number } {
  // struct statfs { long type; ... }, 120 bytes where a long has 8.
  const result = new BigUint64Array(16);
  const bytes = pathBytes(path);
  call(() => libc.statfs(bytes, new Uint8Array(result.buffer)), 'statfs', path);
  return { type: Number(result[0]) };
}

export function mkdirSync(path: string, { mode = 0o777 }: { readonly mode?: number } = {}): void {
  const bytes = pathBytes(path);
  call(() => libc.mkdir(bytes, mode), 'mkdir', path);
}

export function unlinkSync(path: string): void {
  const bytes = pathBytes(path);
  call(() => libc.unlink(bytes), 'unlink', path);
}

export function renameSync(path: string, to: string): void {
  const [from, bytes] = [pathBytes(path), pathBytes(to)];
  call(() => libc.rename(from, bytes), 'rename', path, to);
}

export function symlinkSync(target: string, path: string): void {
  const [from, bytes] = [pathBytes(target), pathBytes(path)];
  call(() => libc.symlink(from, bytes), 'symlink', target, path);
}

export function readlinkSync(path: string): string {
  const [bytes, target] = [pathBytes(path), new Uint8Array(maxPathBytes)];
  const length = call(() => libc.readlink(bytes, target, BigInt(maxPathBytes)), 'readlink', path);
  return decoder.decode(target.subarray(0, length));
}

export function existsSync(path: string): boolean {
  return !path.includes('\0') && Number(libc.access(pathBytes(path), 0)) !== -1;
}

export const accessSync: typeof NodeFs.accessSync = (...args) => nodeFs().accessSync(...args);

export function readdirSync(path: string): string[] {
  return nodeFs().readdirSync(path);
}

export const rmSync: typeof NodeFs.rmSync = (...args) => nodeFs().rmSync(...args);

/** PATH_MAX (include/uapi/linux/limits.h) */
const maxPathBytes = 4096;

/** include/uapi/linux/fcntl.h, include/uapi/linux/stat.h */
const atWorkingDirectory = -100;
const AT_EMPTY_PATH = 0x1000;
const STATX_BASIC_STATS = 0x7ff;
const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;

function statx(
  directory: number,
  { bytes, flags }: { readonly bytes: Uint8Array; readonly flags: number },
  [syscall, path]: readonly [string, string?],
): FileStats {
  const result = new Uint8Array(256);
  call(() => libc.statx(directory, bytes, flags, STATX_BASIC_STATS, result), syscall, path);
  // struct statx, the same on every architecture.
  const view = new DataView(result.buffer);
  const mode = view.getUint16(0x1c, true);
  const [major, minor] = [view.getUint32(0x88, true), view.getUint32(0x8c, true)];
  return {
    // As gnu_dev_makedev(), of numbers below 2^12 and 2^20, which the kernel keeps to.
    dev: (minor & 0xff) + (major & 0xfff) * 2 ** 8 + (minor >>> 8) * 2 ** 20,
    ino: Number(view.getBigUint64(0x20, true)),
    mode,
    size: Number(view.getBigUint64(0x28, true)),
    ctimeMs: Number(view.getBigInt64(0x60, true)) * 1000 + view.getUint32(0x68, true) / 1e6,
    mtimeNs: view.getBigInt64(0x70, true) * 1_000_000_000n + BigInt(view.getUint32(0x78, true)),
    isDirectory: () => (mode & S_IFMT) === S_IFDIR,
  };
}

/** Zero-terminated; a path that holds a zero byte would lead elsewhere, and node:fs says so. */
function pathBytes(path: string): Uint8Array {
  if (path.includes('\0')) nodeFs().statSync(path);
  return encoder.encode(`${path}\0`);
}

function call(make: () => number | bigint, syscall: string, path?: string, dest?: string): number {
  for (;;) {
    const result = Number(make());
    if (result !== -1) return result;
    if (errno() !== EINTR) throw failure(syscall, path, dest);
  }
}

/** As node:fs has it: "ENOENT: no such file or directory, open '/nowhere'". */
function failure(syscall: string, path?: string, dest?: string): Error {
  const number = errno();
  const code = errnoName(number);
  const from = path === undefined ? '' : ` '${path}'`;
  const where = dest === undefined ? from : `${from} -> '${dest}'`;
  return Object.assign(new Error(`${code}: ${errnoText(number)}, ${syscall}${where}`), {
    errno: -number,
    syscall,
    code,
    ...(path === undefined ? {} : { path }),
    ...(dest === undefined ? {} : { dest }),
  });
}

function nodeFs(): typeof NodeFs {
  return process.getBuiltinModule('node:fs');
}

const encoder = new TextEncoder();
// A byte order mark is part of a text, as it is to node:fs.
const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
