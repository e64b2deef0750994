/**
 * Classic BPF filters on sockets (Documentation/networking/filter.rst): what a program does not want
 * to hear, the kernel does not queue. Node only: a filter is handed over by its address.
 */
import type * as NodeFfi from 'node:ffi';
import { createRequire } from 'node:module';
import { SO_ATTACH_FILTER, SOL_SOCKET } from './constants.ts';
import type { Sys } from './sys.ts';

/** struct sock_filter (include/uapi/linux/filter.h): jumps count the instructions they leave out. */
export interface FilterInstruction {
  readonly code: number;
  readonly ifTrue?: number;
  readonly ifFalse?: number;
  /** Constant or offset; loads turn what is there from network order. */
  readonly k: number;
}

/** The kernel reads it by its address: until then it has to be somebody's. */
let filterBeingRead: Uint8Array | undefined;

/**
 * From here on the socket gets only what the filter returns a length for. What was queued before
 * stays.
 *
 * @throws {AgentError} with the errno name; EINVAL for a filter that the kernel does not understand
 */
export function attachSocketFilter(
  sys: Pick<Sys, 'setsockopt'>,
  fd: number,
  filter: readonly FilterInstruction[],
): void {
  const { getRawPointer } = createRequire(import.meta.url)('node:ffi') as typeof NodeFfi;
  // struct sock_filter { u16 code; u8 jt; u8 jf; u32 k; }
  const words = new Uint32Array(2 * filter.length);
  const halves = new Uint16Array(words.buffer);
  const bytes = new Uint8Array(words.buffer);
  for (const [i, { code, ifTrue = 0, ifFalse = 0, k }] of filter.entries()) {
    halves[4 * i] = code;
    bytes.set([ifTrue, ifFalse], 8 * i + 2);
    words[2 * i + 1] = k;
  }
  // struct sock_fprog { u16 length; struct sock_filter *filter; }
  const program = new BigUint64Array(2);
  const value = new Uint8Array(program.buffer);
  new Uint16Array(program.buffer)[0] = filter.length;
  filterBeingRead = bytes;
  program[1] = getRawPointer(filterBeingRead);
  sys.setsockopt({ fd, level: SOL_SOCKET, name: SO_ATTACH_FILTER, value });
  filterBeingRead = undefined;
}
