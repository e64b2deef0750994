/**
 * Dumps of tables that may hold a million entries, without holding up the event loop. The kernel
 * walks such a table inside write(2) and read(2), for most of a second when a filter lets nothing
 * through. Here both run on Node's pool threads.
 */
import { read, write } from 'node:fs';
import { promisify } from 'node:util';
import { AgentError, isErrno } from '#pkg/errors/agent-error.ts';
import { SO_RCVTIMEO, SOL_SOCKET } from '#pkg/sys/constants.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import { NLM_F_DUMP, NLM_F_REQUEST } from './constants.ts';
import { openNetlinkDescriptor } from './descriptor.ts';
import { readDumpPart } from './dump-part.ts';
import { encodeMessage, parseMessages, type Message } from './message.ts';
import type { NetlinkRequest } from './socket.ts';

const readAside = promisify(read);
const writeAside = promisify(write);

/** Far above any answer of a healthy kernel; without it a lost one would hold a thread for ever. */
const answerTimeoutSeconds = 60;

/** The kernel fills at most 32 KiB of a dump at a time (net/netlink/af_netlink.c, netlink_dump). */
const datagramBytes = 64 * 1024;
const receiveBufferBytes = 256 * 1024;

/** A socket for one dump after another; none may be begun before the one before has ended. */
export class DumpSocket implements Disposable {
  readonly #sys: Sys;
  readonly #fd: number;
  readonly #buffer = new Uint8Array(datagramBytes);
  #sequence = 0;

  /**
   * Opens in the calling thread's network namespace, and stays there.
   *
   * @throws {AgentError} with the errno name of the call that failed
   */
  constructor(sys: Sys, protocol: number) {
    this.#sys = sys;
    this.#fd = openNetlinkDescriptor(sys, protocol, receiveBufferBytes);
    // struct timeval { long seconds; long microseconds; }
    const value = new Uint8Array(BigInt64Array.of(BigInt(answerTimeoutSeconds), 0n).buffer);
    sys.setsockopt({ fd: this.#fd, level: SOL_SOCKET, name: SO_RCVTIMEO, value });
  }

  /**
   * Reads a table once, in the parts the kernel hands out: the next is asked for when the one before
   * was taken, and takes its place.
   *
   * @returns `whole`; or `interrupted` when the table changed meanwhile or messages were lost: what
   *   was given out is true, but there was more
   * @throws {NetlinkError} when the kernel refuses; {@link AgentError} NetlinkReadFailed, or ETIMEDOUT
   *   when the kernel says nothing: then the socket is of no use any more
   */
  async *dump(
    request: NetlinkRequest,
  ): AsyncGenerator<readonly Message[], 'whole' | 'interrupted'> {
    this.#sequence += 1;
    const flags = NLM_F_REQUEST | NLM_F_DUMP | (request.flags ?? 0);
    const header = { type: request.type, flags, sequence: this.#sequence };
    await writeAside(this.#fd, encodeMessage(header, request.body));
    let whole = true;
    const of = { sequence: this.#sequence, what: request.what };
    for (;;) {
      const received = await this.#receive(request.what);
      // The dump goes on behind what was lost.
      if (received === undefined) whole = false;
      const { isInterrupted, isLast, messages } = readDumpPart(received ?? [], of);
      if (isInterrupted) whole = false;
      if (messages.length > 0) yield messages;
      if (isLast) return whole ? 'whole' : 'interrupted';
    }
  }

  [Symbol.dispose](): void {
    this.#sys.close(this.#fd);
  }

  /** The messages of the next datagram; undefined when the kernel had to drop some before it. */
  async #receive(what: string): Promise<Message[] | undefined> {
    try {
      const { bytesRead } = await readAside(this.#fd, this.#buffer, 0, datagramBytes, null);
      return parseMessages(this.#buffer.subarray(0, bytesRead));
    } catch (cause) {
      if (isErrno(cause, 'ENOBUFS')) return undefined;
      const isSilent = isErrno(cause, 'EAGAIN');
      throw new AgentError(
        isSilent ? 'ETIMEDOUT' : 'NetlinkReadFailed',
        `Cannot ${what}: ${isSilent ? `no answer within ${answerTimeoutSeconds} s` : 'reading failed'}`,
        { cause },
      );
    }
  }
}
