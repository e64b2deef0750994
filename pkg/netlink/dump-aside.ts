/**
 * Dumps of tables that may hold a million entries, without holding up the event loop. The kernel
 * walks such a table inside write(2) and read(2), for most of a second when a filter lets nothing
 * through. Here both run on Node's pool threads; the socket stays in the namespace it was opened in.
 */
import { read, write } from 'node:fs';
import { promisify } from 'node:util';
import { AgentError, isErrno } from '#pkg/errors/agent-error.ts';
import { SO_RCVTIMEO, SOL_SOCKET } from '#pkg/sys/constants.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import {
  NLM_F_DUMP,
  NLM_F_DUMP_INTR,
  NLM_F_REQUEST,
  NLMSG_DONE,
  NLMSG_ERROR,
} from './constants.ts';
import { openNetlinkDescriptor } from './descriptor.ts';
import {
  encodeMessage,
  parseMessages,
  readAcknowledgement,
  readDone,
  type Message,
} from './message.ts';
import { NetlinkError } from './netlink-error.ts';
import type { NetlinkRequest } from './socket.ts';

const readAside = promisify(read);
const writeAside = promisify(write);

/** Far above any answer of a healthy kernel; without it a lost answer would hold a thread for ever. */
const answerTimeoutSeconds = 60;

/** The kernel fills at most 32 KiB of a dump at a time (net/netlink/af_netlink.c, netlink_dump). */
const datagramBytes = 64 * 1024;
const receiveBufferBytes = 256 * 1024;

/**
 * Reads a table once, in the parts the kernel hands out; the next is asked for when the one before
 * was taken. Opens a socket of its own in the calling thread's namespace, at the first `next()`.
 *
 * @returns `whole`; or `interrupted` when the table changed meanwhile or messages were lost: what
 *   was given out is true, but there was more
 * @throws {NetlinkError} when the kernel refuses; {@link AgentError} with the errno name of a call
 *   that failed, ETIMEDOUT when the kernel says nothing
 */
export async function* dumpAside(
  sys: Sys,
  protocol: number,
  request: NetlinkRequest,
): AsyncGenerator<readonly Message[], 'whole' | 'interrupted'> {
  const fd = openNetlinkDescriptor(sys, protocol, receiveBufferBytes);
  try {
    // struct timeval { long seconds; long microseconds; }
    const value = new Uint8Array(BigInt64Array.of(BigInt(answerTimeoutSeconds), 0n).buffer);
    sys.setsockopt({ fd, level: SOL_SOCKET, name: SO_RCVTIMEO, value });
    const flags = NLM_F_REQUEST | NLM_F_DUMP | (request.flags ?? 0);
    const header = { type: request.type, flags, sequence: 1 };
    await writeAside(fd, encodeMessage(header, request.body));
    return yield* parts(fd, request.what);
  } finally {
    sys.close(fd);
  }
}

async function* parts(
  fd: number,
  what: string,
): AsyncGenerator<readonly Message[], 'whole' | 'interrupted'> {
  const buffer = new Uint8Array(datagramBytes);
  let whole = true;
  for (;;) {
    const datagram = await receive(fd, buffer, what);
    if (datagram === undefined) return 'interrupted';
    const part: Message[] = [];
    for (const message of parseMessages(datagram)) {
      if ((message.flags & NLM_F_DUMP_INTR) !== 0) whole = false;
      if (message.type !== NLMSG_DONE && message.type !== NLMSG_ERROR) {
        part.push(message);
        continue;
      }
      const verdict =
        message.type === NLMSG_DONE ? readDone(message) : readAcknowledgement(message);
      if (verdict.errno !== 0) throw new NetlinkError(what, verdict);
      if (part.length > 0) yield part;
      return whole ? 'whole' : 'interrupted';
    }
    if (part.length > 0) yield part;
  }
}

/** The next datagram, in the buffer; undefined when the kernel had to drop some before it. */
async function receive(
  fd: number,
  buffer: Uint8Array,
  what: string,
): Promise<Uint8Array | undefined> {
  for (;;) {
    try {
      const { bytesRead } = await readAside(fd, buffer, 0, buffer.byteLength, null);
      return buffer.subarray(0, bytesRead);
    } catch (cause) {
      if (isErrno(cause, 'ENOBUFS')) return undefined;
      if (isErrno(cause, 'EINTR')) continue;
      const code = isErrno(cause, 'EAGAIN') ? 'ETIMEDOUT' : 'NetlinkReadFailed';
      throw new AgentError(code, `Cannot ${what}: no answer from the kernel`, { cause });
    }
  }
}
