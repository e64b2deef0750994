/** Watches what connection tracking counts: looks at its table on request, and hears of flows that end. */
import { isErrno } from '#pkg/errors/agent-error.ts';
import {
  countedFlowsDump,
  NFNLGRP_CONNTRACK_DESTROY,
  readCountedFlow,
} from '#pkg/netlink/conntrack-counters.ts';
import { NETLINK_ADD_MEMBERSHIP, NETLINK_NETFILTER, SOL_NETLINK } from '#pkg/netlink/constants.ts';
import { openNetlinkDescriptor, setOption } from '#pkg/netlink/descriptor.ts';
import { DumpSocket } from '#pkg/netlink/dump-socket.ts';
import { parseMessages, type Message } from '#pkg/netlink/message.ts';
import { breathe, sliceMs } from '#pkg/reconcile/slices.ts';
import { MSG_DONTWAIT } from '#pkg/sys/constants.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import type { FlowTally } from './flow-tally.ts';

export interface TrafficWatch extends Disposable {
  /** How often the kernel had to drop its word of ended flows: these count up to the last look. */
  readonly overflows: number;
  /**
   * Brings the tally up to date. One look at a time; who asks during one gets the next.
   *
   * @throws {AgentError} when the kernel refuses; the tally stays as true as it was
   */
  look(): Promise<void>;
}

/** Node cannot wait for a descriptor of ours: it is read this often. */
const intervalMs = 200;

/** Room for some ten thousand flows that end between two looks: the kernel counts a kilobyte each. */
const receiveBufferBytes = 16 * 1024 * 1024;

/** Each flow that ended is a datagram of its own, of some hundred bytes. */
const datagramBytes = 8 * 1024;

/** A table that changed its size meanwhile is listed again, so often. */
const attempts = 3;

/**
 * Hears of flows that end from now on, in the network namespace of the calling thread. The kernel
 * tells of those that began while somebody listened (net/netfilter/nf_conntrack_events 2).
 *
 * @throws {AgentError} with the errno name of the call that failed
 */
export function watchTraffic(sys: Sys, tally: FlowTally): TrafficWatch {
  using stack = new DisposableStack();
  const lister = stack.use(new DumpSocket(sys, NETLINK_NETFILTER));
  const fd = openNetlinkDescriptor(sys, NETLINK_NETFILTER, receiveBufferBytes);
  stack.defer(() => sys.close(fd));
  const group = { level: SOL_NETLINK, name: NETLINK_ADD_MEMBERSHIP };
  setOption(sys, { fd, ...group, value: NFNLGRP_CONNTRACK_DESTROY });
  const buffer = new Uint8Array(datagramBytes);
  let overflows = 0;
  let isOpen = true;
  let timer: NodeJS.Timeout | undefined = setTimeout(readOn, intervalMs);
  let work: Promise<void> = Promise.resolve();

  function take(messages: readonly Message[]): void {
    for (const message of messages) {
      const flow = readCountedFlow(message);
      if (flow !== undefined) tally.take(flow);
    }
  }

  /** Reads what waits, for as long as a turn may take. Whether that was all. */
  function readSome(): boolean {
    const startedMs = performance.now();
    while (isOpen) {
      try {
        const length = sys.recv(fd, buffer, MSG_DONTWAIT);
        take(parseMessages(buffer.subarray(0, length)));
      } catch (error) {
        if (isErrno(error, 'EAGAIN')) return true;
        if (!isErrno(error, 'ENOBUFS')) throw error;
        overflows += 1;
      }
      if (performance.now() - startedMs >= sliceMs) return false;
    }
    return true;
  }

  function readOn(): void {
    const isDone = readSome();
    if (timer !== undefined) timer = setTimeout(readOn, isDone ? intervalMs : 0);
  }

  async function readAll(): Promise<void> {
    while (!readSome()) await breathe();
  }

  async function lookOnce(): Promise<boolean> {
    let whole = false;
    tally.beginLook();
    try {
      const parts = lister.dump(countedFlowsDump());
      for (;;) {
        const { done, value } = await parts.next();
        if (done === true) {
          whole = value === 'whole';
          break;
        }
        take(value);
        if (!isOpen) return true;
      }
      await readAll();
      return whole;
    } finally {
      tally.endLook(whole);
    }
  }

  async function lookRepeatedly(): Promise<void> {
    for (let attempt = 0; attempt < attempts && isOpen; attempt++) {
      if (await lookOnce()) return;
    }
  }

  const running = stack.move();
  return {
    get overflows() {
      return overflows;
    },
    look: () => {
      const result = work.then(lookRepeatedly);
      work = result.catch(() => undefined);
      return result;
    },
    [Symbol.dispose]: () => {
      clearTimeout(timer);
      timer = undefined;
      if (!isOpen) return;
      isOpen = false;
      // A dump under way still reads its descriptor.
      void work.then(() => running.dispose());
    },
  };
}
