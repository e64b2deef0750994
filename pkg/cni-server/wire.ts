/**
 * What the launcher (cmd/podwire-cni/launcher.c) and the node daemon say to each other, over a unix
 * socket on one machine, so in its byte order:
 *
 *     launcher  u32 magic, u32 length of what follows, u32 length of the strings,
 *               u32 zero, 6 u64 (see {@link CallerView}), strings, standard input
 *     daemon    one byte: taken, or declined; after "taken":
 *     daemon    u32 exit code, u32 length of standard output, u32 length of standard error, both
 *
 * The strings end with a zero byte each: the name the launcher was called by, then its environment.
 * A launcher that loses patience shuts the socket down for reading: from then on the daemon cannot
 * say "taken", and does nothing, and the launcher does the work itself.
 */
import type { CniAnswer } from '#pkg/cni/protocol.ts';
import type { Environment } from '#pkg/cni/environment.ts';

/** The daemon does it. */
export const taken = Uint8Array.of(0x54);

/** "Do it yourself, nothing was done here." */
export const declined = Uint8Array.of(0x44);

const magic = 0x31_49_4e_43; // "CNI1"

const littleEndian = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;

export const headerBytes = 8;

/** A configuration is a few kilobytes; an environment and `valid-attachments` may be large. */
export const maxRequestBytes = 4 * 1024 * 1024;

/**
 * What the caller's paths mean to it, each as device and inode. Where the daemon sees something
 * else behind the same name (another root directory, other network or PID namespaces), a call would
 * change the wrong thing.
 */
export interface CallerView {
  /** "/" */
  readonly root: string;
  /** The network namespace the caller is in. */
  readonly ownNetns: string;
  /** What is at CNI_NETNS; `nothing` when there is no file, or no such variable. */
  readonly podNetns: string;
}

/** The identity of what is not there. */
export const nothing = '0:0';

export interface LauncherRequest {
  /** Path or name the launcher was called by. */
  readonly name: string;
  readonly environment: Environment;
  readonly stdin: string;
  readonly view: CallerView;
}

/** Length of the rest of a request, from its first bytes; undefined when this is none. */
export function requestLength(header: Uint8Array): number | undefined {
  const fields = viewOf(header);
  const length = fields.getUint32(4, littleEndian);
  if (fields.getUint32(0, littleEndian) !== magic || length > maxRequestBytes) return undefined;
  return length < fixedBytes ? undefined : length;
}

const fixedBytes = 8 + 6 * 8;

/** Reads what follows the header; undefined when it contradicts itself. */
export function parseRequest(body: Uint8Array): LauncherRequest | undefined {
  const fields = viewOf(body);
  const end = fixedBytes + fields.getUint32(0, littleEndian);
  if (end > body.byteLength || body[end - 1] !== 0) return undefined;
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  const [name = '', ...variables] = decoder.decode(body.subarray(fixedBytes, end - 1)).split('\0');
  const identity = (index: number): string =>
    `${fields.getBigUint64(8 + index * 16, littleEndian)}:${fields.getBigUint64(16 + index * 16, littleEndian)}`;
  return {
    name,
    environment: Object.fromEntries(variables.flatMap(variableOf)),
    stdin: decoder.decode(body.subarray(end)),
    view: { root: identity(0), ownNetns: identity(1), podNetns: identity(2) },
  };
}

function variableOf(text: string): [string, string][] {
  const at = text.indexOf('=');
  return at < 0 ? [] : [[text.slice(0, at), text.slice(at + 1)]];
}

/** What the launcher has to print, and the code it ends with. */
export function encodeAnswer(answer: CniAnswer): Uint8Array {
  const encoder = new TextEncoder();
  const stdout = encoder.encode(answer.stdout);
  const stderr = encoder.encode(answer.stderr);
  const bytes = new Uint8Array(12 + stdout.byteLength + stderr.byteLength);
  bytes.set(
    new Uint8Array(Uint32Array.of(answer.exitCode, stdout.byteLength, stderr.byteLength).buffer),
  );
  bytes.set(stdout, 12);
  bytes.set(stderr, 12 + stdout.byteLength);
  return bytes;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
