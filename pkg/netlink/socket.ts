/**
 * A synchronous netlink socket. The kernel answers rtnetlink inside send(2), so a request is one
 * send and one receive; nothing here waits for an event loop, and the same code serves the CNI
 * executable and the daemons. The socket stays in the network namespace it was opened in.
 */
import { AgentError, isErrno } from '#pkg/errors/agent-error.ts';
import { MSG_DONTWAIT, MSG_TRUNC, POLLIN } from '#pkg/sys/constants.ts';
import { EINTR, ENOBUFS } from '#pkg/sys/errno.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import { getU32 } from './attribute.ts';
import { NETLINK_ROUTE, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_ERROR } from './constants.ts';
import { openNetlinkDescriptor, setSendBuffer } from './descriptor.ts';
import { readDumpPart } from './dump-part.ts';
import {
  messageBytes,
  parseMessages,
  readAcknowledgement,
  writeMessage,
  type Message,
} from './message.ts';
import { NetlinkError } from './netlink-error.ts';

/** One message to the kernel. */
export interface NetlinkRequest {
  readonly type: number;
  /** Beyond NLM_F_REQUEST, NLM_F_ACK and NLM_F_DUMP, which the socket sets. */
  readonly flags?: number;
  /** The fixed struct, then attributes. */
  readonly body: readonly Uint8Array[];
  /** The request as words that follow "Cannot", for errors. */
  readonly what: string;
  /** The kernel says nothing about it unless it refuses: the ends of an nfnetlink batch. */
  readonly unacknowledged?: boolean;
}

/** What became of one request of a batch. */
export interface NetlinkResult {
  readonly error: NetlinkError | undefined;
  /** Messages the kernel sent in answer (NLM_F_ECHO, or a GET). */
  readonly replies: readonly Message[];
}

/** Dumps the kernel marks as inconsistent (NLM_F_DUMP_INTR) are read again this many times. */
const maxDumps = 5;

/** Far above any answer of a healthy kernel; without it a lost answer would hang the process. */
const answerTimeoutMs = 10_000;

/**
 * A batch goes out in sends of at most this many messages. The kernel refuses a send beyond the
 * send buffer (212,992 bytes by default, net.core.wmem_default), and each refusal takes about a
 * kilobyte of the receive buffer until we read it.
 */
const maxMessagesPerSend = 1024;
const maxBytesPerSend = 128 * 1024;

/** Room for a refusal of every message of a send. */
const receiveBufferBytes = 2 * 1024 * 1024;

/** The kernel fills at most 32 KiB of a dump at a time (net/netlink/af_netlink.c, netlink_dump). */
const datagramBytes = 64 * 1024;

/**
 * Where every socket of this thread receives: what came is copied before anything else runs. A plugin
 * opens two sockets a call, and memory that was never touched costs more than what comes in it.
 */
let sharedBuffer: Uint8Array | undefined;

const noReplies: readonly Message[] = [];
const carriedOut: NetlinkResult = { error: undefined, replies: noReplies };

export class NetlinkSocket implements Disposable {
  readonly #sys: Sys;
  readonly #fd: number;
  #sequence = 0;
  #isDumping = false;

  /**
   * Opens in the calling thread's network namespace.
   *
   * @param sendBufferBytes the largest send it must take; undefined for the system's default
   * @throws {AgentError} with the errno name of the call that failed
   */
  constructor(sys: Sys, protocol: number = NETLINK_ROUTE, sendBufferBytes?: number) {
    this.#sys = sys;
    this.#fd = openNetlinkDescriptor(sys, protocol, receiveBufferBytes);
    if (sendBufferBytes !== undefined) setSendBuffer(sys, this.#fd, sendBufferBytes);
  }

  /** What the kernel calls us: the sender (`nlmsg_pid`) of what it tells of our requests. */
  get portId(): number {
    // struct sockaddr_nl { u16 family; u16 pad; u32 port; u32 groups; }
    const address = new Uint8Array(12);
    this.#sys.getsockname(this.#fd, address);
    return getU32(address, 4);
  }

  /**
   * Makes one request and waits for its acknowledgement. Returns the kernel's other answers.
   *
   * @throws {NetlinkError} when the kernel refuses
   */
  request(request: NetlinkRequest): readonly Message[] {
    const [result] = this.batch([request]);
    if (result?.error !== undefined) throw result.error;
    return result?.replies ?? [];
  }

  /**
   * Makes many requests in few system calls. The kernel carries them out in order and goes on after
   * a refusal; the results are in the order of the requests.
   *
   * @throws {AgentError} when sending or receiving itself fails: then nothing is known of the rest
   */
  batch(requests: readonly NetlinkRequest[]): NetlinkResult[] {
    const results: NetlinkResult[] = [];
    let chunk: NetlinkRequest[] = [];
    let bytes = 0;
    for (const request of requests) {
      const length = messageBytes(request.body);
      if (chunk.length === maxMessagesPerSend || bytes + length > maxBytesPerSend) {
        results.push(...this.#exchange(chunk));
        chunk = [];
        bytes = 0;
      }
      chunk.push(request);
      bytes += length;
    }
    if (chunk.length > 0) results.push(...this.#exchange(chunk));
    return results;
  }

  /**
   * As {@link batch}, in one send whatever its size: a transaction must not be cut in two.
   *
   * @throws {AgentError} EMSGSIZE beyond the send buffer, 212,992 bytes by default
   */
  transaction(requests: readonly NetlinkRequest[]): NetlinkResult[] {
    return this.#exchange(requests);
  }

  /**
   * Reads a table to its end. A dump during which the table changed is read again.
   *
   * @throws {NetlinkError} when the kernel refuses, and EINTR when the table does not stand still
   */
  dump(request: NetlinkRequest): readonly Message[] {
    for (let attempt = 0; attempt < maxDumps; attempt++) {
      const messages = this.#dumpOnce(request);
      if (messages !== undefined) return messages;
    }
    throw new NetlinkError(request.what, {
      errno: EINTR,
      text: `changed while being read, ${maxDumps} times in a row`,
    });
  }

  /**
   * Reads a long table bit by bit, so that the caller can do something else meanwhile; but nothing
   * with this socket: until the end, or until the caller wants no more, all else is `EBUSY`.
   *
   * @throws {NetlinkError} when the kernel refuses, and EINTR when the table changed meanwhile
   */
  *dumpParts(request: NetlinkRequest): Generator<readonly Message[], void, undefined> {
    this.#send([request], 0, NLM_F_DUMP);
    this.#isDumping = true;
    const of = { sequence: this.#sequence, what: request.what };
    let isOver = false;
    try {
      while (!isOver) {
        const received = this.#receive();
        if (received === undefined) {
          throw new NetlinkError(request.what, { errno: ENOBUFS, text: 'the answer was lost' });
        }
        const { isInterrupted, isLast, messages } = readDumpPart(received, of);
        if (isInterrupted) {
          throw new NetlinkError(request.what, { errno: EINTR, text: 'changed while being read' });
        }
        isOver = isLast;
        yield messages;
      }
    } finally {
      this.#isDumping = false;
      if (!isOver) this.#drain();
    }
  }

  [Symbol.dispose](): void {
    this.#sys.close(this.#fd);
  }

  /** Sends requests in one datagram and collects the answers up to that of the last one. */
  #exchange(requests: readonly NetlinkRequest[]): NetlinkResult[] {
    const first = this.#sequence + 1;
    const lastIndex = requests.findLastIndex((request) => request.unacknowledged !== true);
    const last = first + lastIndex;
    // Refusals come unasked. Acknowledging the last request alone tells that those before it are
    // done, and spares the kernel an answer for each.
    this.#send(requests, lastIndex, NLM_F_ACK);
    const replies: Message[][] = [];
    const errors: NetlinkError[] = [];
    let done = false;
    while (!done) {
      const messages = this.#receive();
      if (messages === undefined) {
        this.#drain();
        const lost = { errno: ENOBUFS, text: 'the answer was lost' };
        for (const [i, { what }] of requests.entries()) errors[i] ??= new NetlinkError(what, lost);
        break;
      }
      for (const message of messages) {
        const i = message.sequence - first;
        const request = requests[i];
        // Left over from an exchange that was given up.
        if (request === undefined) continue;
        if (message.type !== NLMSG_ERROR) {
          (replies[i] ??= []).push(message);
          continue;
        }
        const verdict = readAcknowledgement(message);
        if (verdict.errno !== 0) errors[i] = new NetlinkError(request.what, verdict);
        if (message.sequence === last) done = true;
      }
    }
    if (errors.length === 0 && replies.length === 0) return requests.map(() => carriedOut);
    return requests.map((_, i) => ({ error: errors[i], replies: replies[i] ?? noReplies }));
  }

  /** The dump's messages; undefined when they are no consistent whole. */
  #dumpOnce(request: NetlinkRequest): Message[] | undefined {
    const all: Message[] = [];
    try {
      for (const part of this.dumpParts(request)) for (const message of part) all.push(message);
      return all;
    } catch (error) {
      if (isErrno(error, 'EINTR') || isErrno(error, 'ENOBUFS')) return undefined;
      throw error;
    }
  }

  /** Sends all in one datagram, of which one has more flags. */
  #send(requests: readonly NetlinkRequest[], markedIndex: number, markedFlags: number): void {
    if (this.#isDumping) {
      // Whoever waits for another answer would throw parts of the dump away.
      const what = requests[0]?.what ?? '';
      throw new AgentError('EBUSY', `Cannot ${what}: a table is being read with this socket`);
    }
    let length = 0;
    for (const { body } of requests) length += messageBytes(body);
    const datagram = new Uint8Array(length);
    let at = 0;
    for (const [i, request] of requests.entries()) {
      this.#sequence += 1;
      const more = i === markedIndex ? markedFlags : 0;
      const flags = NLM_F_REQUEST | more | (request.flags ?? 0);
      const header = { type: request.type, flags, sequence: this.#sequence };
      at = writeMessage(datagram, at, header, request.body);
    }
    this.#sys.send(this.#fd, datagram, 0);
  }

  /** The messages of the next datagram; undefined when the kernel had to drop some before it. */
  #receive(): Message[] | undefined {
    for (;;) {
      try {
        const buffer = (sharedBuffer ??= new Uint8Array(datagramBytes));
        const length = this.#sys.recv(this.#fd, buffer, MSG_DONTWAIT | MSG_TRUNC);
        if (length > buffer.byteLength) {
          throw new AgentError(
            'EMSGSIZE',
            `Cannot receive from netlink: answer of ${length} bytes`,
          );
        }
        return parseMessages(buffer.slice(0, length));
      } catch (error) {
        if (isErrno(error, 'ENOBUFS')) return undefined;
        if (!isErrno(error, 'EAGAIN')) throw error;
      }
      if (this.#sys.poll(this.#fd, POLLIN, answerTimeoutMs) === 0) {
        throw new AgentError(
          'ETIMEDOUT',
          `Cannot receive from netlink: no answer within ${answerTimeoutMs} ms`,
        );
      }
    }
  }

  /** Throws away what is queued, so that the next exchange starts with a clean socket. */
  #drain(): void {
    for (;;) {
      try {
        this.#sys.recv(this.#fd, (sharedBuffer ??= new Uint8Array(datagramBytes)), MSG_DONTWAIT);
      } catch (error) {
        if (isErrno(error, 'EAGAIN')) return;
        if (!isErrno(error, 'ENOBUFS')) throw error;
      }
    }
  }
}
